'use strict';
// A game server behind gameproxy, in plain Node (18 or later): the proxy starts it, and tells it in GAMEPROXY_* what it
// needs to know. The program sqlite3 must be installed. What the frames mean: docs/protocol.
const { execFile } = require('node:child_process');
const { createHmac, randomBytes, timingSafeEqual } = require('node:crypto');
const { readFileSync } = require('node:fs');
const net = require('node:net');

// ---- the game: this is what you change ----
// Its frames begin with a byte of 0x10 or more, or are empty. Players also have .session, .address and .properties.
const game = module.exports = {
  joined(player) { console.log(`${player.name} has come`); },
  received(player, body) { player.send(body); },
  left(player) { console.log(`${player.name} has gone`); },
};

const SETTINGS = 0x03, CLOSE = 0x06, CHALLENGE = 0x07, ADMIT = 0x08, ADMITTED = 0x09, REFUSED = 0x0a, KICK = 0x0b;
const FIRST_GAME_TYPE = 0x10;
const MAX_OWN_FRAME = 4096, MAX_FRAME = 2097151; // bytes of body: up to ADMIT, and after it
const ADMIT_SECONDS = 5, HEARTBEAT_SECONDS = 5, STOP_SECONDS = 2, BUSY_SECONDS = 10;
const { GAMEPROXY_SERVER_ID: serverId, GAMEPROXY_FARM: farm, GAMEPROXY_HOST: host = '127.0.0.1' } = process.env;
const capacity = Number(process.env.GAMEPROXY_CAPACITY || Infinity);
const key = Buffer.from(readFileSync(process.env.GAMEPROXY_SECRET_FILE, 'ascii').trim(), 'hex');
if (!serverId || key.length !== 32) throw new Error('it needs an id, and a key of 64 hexadecimal digits');
const macOf = (label, json) => createHmac('sha256', key).update(`${label}\0`).update(json).digest();

class Player {
  constructor(socket) {
    this.socket = socket;
    this.received = Buffer.alloc(0); // what has come and is no whole frame yet
    this.nonce = randomBytes(16).toString('hex');
    this.tooLate = setTimeout(() => socket.destroy(), ADMIT_SECONDS * 1000);
    socket.on('data', (data) => this.dataReceived(data));
    socket.on('drain', () => socket.resume());
    socket.on('error', (error) => console.error(error.message)); // 'close' follows
    socket.on('close', () => { clearTimeout(this.tooLate); if (players.delete(this)) game.left(this); });
    this.sendOwn(CHALLENGE, { protocol: 1, server: serverId, nonce: this.nonce });
  }

  send(body) {
    if (!this.socket.writable) return;
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    // Whoever does not take what is sent is not read from until it does: nothing piles up.
    if (!this.socket.write(Buffer.concat([length, body]))) this.socket.pause();
  }

  // A frame of the proxy's: its type, in the handshake a MAC of the JSON exactly as it is sent, the JSON.
  sendOwn(type, value, label) {
    const json = Buffer.from(JSON.stringify(value));
    this.send(Buffer.concat([Buffer.of(type), label ? macOf(label, json) : Buffer.alloc(0), json]));
  }
  sendSettings(bytes) { this.send(Buffer.concat([Buffer.of(SETTINGS), bytes])); }
  kick(message, banSeconds) { this.sendOwn(KICK, { code: 'kicked', message, ban_for: banSeconds }); }
  close(message, code = 'left') { this.end(CLOSE, { code, message }); }

  end(type, value) {
    this.sendOwn(type, value);
    this.socket.end().resume(); // paused, it would not see the other side end
  }

  // TCP keeps the order of bytes, but no borders: a frame may come in pieces, and several at once.
  dataReceived(data) {
    if (this.socket.writable) this.received = Buffer.concat([this.received, data]);
    while (this.received.length >= 4 && this.socket.writable) { // after our last word nothing counts
      const length = this.received.readUInt32BE();
      if (length > (players.has(this) ? MAX_FRAME : MAX_OWN_FRAME)) return this.socket.destroy();
      if (this.received.length < 4 + length) return;
      const body = this.received.subarray(4, 4 + length);
      this.received = this.received.subarray(4 + length);
      if (!players.has(this)) this.admissionReceived(body);
      else if (body.length === 0 || body[0] >= FIRST_GAME_TYPE) game.received(this, body);
      else this.socket.destroy(); // CLOSE, or what must not come: in any case it is over
    }
  }

  admissionReceived(body) {
    const mac = body.subarray(1, 33), json = body.subarray(33);
    if (body[0] !== ADMIT || mac.length !== 32) return this.socket.destroy();
    if (!timingSafeEqual(mac, macOf('gameproxy/1 admit', json))) return this.socket.destroy(); // not from our proxy
    const { nonce, server, player: name, session, proxy_nonce, address, properties } = JSON.parse(json.toString());
    if (nonce !== this.nonce || server !== serverId) return this.socket.destroy(); // meant for another connection
    clearTimeout(this.tooLate);
    const refusal = !listener.listening ? 'draining' : players.size >= capacity ? 'full' : null; // it tries another one
    if (refusal) return this.end(REFUSED, { code: refusal, message: 'There is no room.' });
    this.sendOwn(ADMITTED, { session, proxy_nonce }, 'gameproxy/1 admitted');
    players.add(Object.assign(this, { name, session, address, properties }));
    game.joined(this);
  }
}

// Changes our row in the farm; `then` gets the number of rows changed. Without a farm there is nobody to tell.
function updateRow(values, condition, then = () => {}) {
  if (!farm) return then(1);
  const file = `file:${encodeURIComponent(farm.replace('sqlite:///', ''))}?mode=rw`; // rw: never makes a new one
  const sql = `UPDATE game_servers SET ${values} WHERE id=${quoted(serverId)} AND ${condition}; SELECT changes();`;
  const changed = (error, out) => then(error ? console.error(error.message) : Number(out));
  execFile('sqlite3', ['-init', '/dev/null', '-cmd', `.timeout ${BUSY_SECONDS * 1000}`, file, sql], changed);
}
const quoted = (text) => `'${text.replaceAll("'", "''")}'`; // in SQL a quote is written twice
const now = () => Date.now() / 1000;

const players = new Set();
const listener = net.createServer({ noDelay: true }, (socket) => new Player(socket));
listener.listen(Number(process.env.GAMEPROXY_PORT || 0), host, () => {
  const { port } = listener.address();
  console.log(`${serverId} listens on ${host} port ${port}`);
  updateRow(`state='ready', host=${quoted(host)}, port=${port}, heartbeat_at=${now()}`, "state='starting'", (rows) => {
    if (rows !== 1) process.exit(1); // the farm does not wait for us
    setInterval(() => updateRow(`heartbeat_at=${now()}`, 'true'), HEARTBEAT_SECONDS * 1000);
  });
});

process.on('SIGTERM', () => {
  updateRow("state='draining'", "state='ready'"); // nobody new
  listener.close(() => process.exit(0)); // when the last connection has ended
  for (const player of players) player.close('This game server stops: connect again.', 'draining');
  setTimeout(() => process.exit(0), STOP_SECONDS * 1000);
});
