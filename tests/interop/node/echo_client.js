'use strict';
// Plays with docs/examples/node/client.js: the game server must echo every frame. From the environment: PROXY_HOST,
// PROXY_PORT, and OPTIONS, a JSON object: frames: how many to send (0: only listens); early: how many of them right
// behind AUTH, at most 9 for the 64 KiB allowed; last: a word for words_server, sent after the last echo, in place of
// leaving; all other keys are AUTH's. Each event is a line of JSON. The exit status is 0 unless an echo was wrong.

const { createHash } = require('node:crypto');
const { once } = require('node:events');
const Client = require('../../../docs/examples/node/client.js');

const { PROXY_HOST, PROXY_PORT, OPTIONS = '{}' } = process.env;
const { frames = 0, early = 0, last, ...auth } = JSON.parse(OPTIONS);
const print = (event, value) => console.log(JSON.stringify({ event, ...value }));

// The n-th game frame: always the same bytes, unlike all others, of sizes around every edge first.
const EDGES = [1, 0, 2, 255, 256, 1000, 4096, 4097, 16384, 65535, 65536];
function gameFrame(n) {
  const size = EDGES[n] ?? 1 + createHash('sha256').update(`size ${n}`).digest().readUInt16BE();
  const body = createHash('shake256', { outputLength: Math.max(size, 1) }).update(`frame ${n}`).digest();
  body[0] |= 0x10;
  return body.subarray(0, size);
}

let sent = 0, echoed = 0;
async function sendUpTo(count) {
  while (sent < count) if (!client.send(gameFrame(sent++))) await once(client, 'drain');
}

function endWhenDone() {
  if (echoed < frames) return;
  if (last) client.send(Buffer.from(`\x10${last}`));
  else if (frames > 0) client.leave();
}

const client = new Client(PROXY_HOST, Number(PROXY_PORT), { mechanism: 'guest', name: 'node', ...auth });
client.on('status', (status) => print('status', status));
client.on('settings', (bytes) => print('settings', { text: bytes.toString() }));
client.on('welcome', (welcome) => {
  print('welcome', welcome);
  sendUpTo(frames);
  endWhenDone();
});
client.on('frame', (body) => {
  if (frames === 0) return print('frame', { hex: body.toString('hex') });
  if (echoed >= sent || !body.equals(gameFrame(echoed))) {
    print('wrong', { frame: echoed, length: body.length });
    process.exit(1);
  }
  echoed += 1;
  endWhenDone();
});
client.on('ended', (code, message) => print('ended', { code, message, echoed }));
sendUpTo(early);
