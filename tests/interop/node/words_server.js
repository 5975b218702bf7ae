'use strict';
// docs/examples/node/game_server.js with settings for each player, and with frames that make it do something else than
// echo: 0x10 and the word kick, close or die.

const game = require('../../../docs/examples/node/game_server.js');

const { joined, received } = game;
game.joined = (player) => {
  joined(player);
  player.sendSettings(Buffer.from('of the game'));
};
game.received = (player, body) => {
  switch (body.toString('latin1')) {
    case '\x10kick': return player.kick('You asked for it.');
    case '\x10close': return player.close('The game is over.');
    case '\x10die': return process.kill(process.pid, 'SIGKILL');
    default: return received(player, body);
  }
};
