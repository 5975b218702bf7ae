'use strict';
// A whole game server behind gameproxy, in plain Node: it echoes every game frame.
// The proxy starts it and hands it everything in the environment (GAMEPROXY_*). Without GAMEPROXY_FARM
// it announces itself to nobody, which suits a server listed under [[servers]].
// For trying things: GAME_SETTINGS=text is sent as SETTINGS, GAME_REFUSE=code refuses every session.
// A game frame of the byte 0x10 and the word kick, close or die makes it do just that.

const { execFile } = require('node:child_process');
const { createHmac, randomBytes, timingSafeEqual } = require('node:crypto');
const { readFileSync } = require('node:fs');
const net = require('node:net');
const { promisify } = require('node:util');

const SETTINGS = 0x03, CLOSE = 0x06, CHALLENGE = 0x07, ADMIT = 0x08, ADMITTED = 0x09, REFUSED = 0x0a, KICK = 0x0b;
const FIRST_GAME_TYPE = 0x10;
const MAX_FRAME = 2097151; // bytes of body, once the session relays
const MAX_OWN_FRAME = 4096; // and before
const ADMIT_SECONDS = 5, HEARTBEAT_SECONDS = 5, STOP_SECONDS = 2;

const env = process.env;
const serverId = env.GAMEPROXY_SERVER_ID;
const key = Buffer.from(readFileSync(env.GAMEPROXY_SECRET_FILE, 'ascii').trim(), 'hex');
if (!serverId || key.length !== 32) throw new Error('needs GAMEPROXY_SERVER_ID and a key of 64 hexadecimal digits');

// ---- the farm's database ----
// Node 20 has no SQLite of its own. Python has, and a Debian without Python is rare.
const RUN_SQL = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
with db:
    print(db.execute(sys.argv[2], json.loads(sys.argv[3])).rowcount)
`;

// Runs one statement; gives the number of rows that it changed.
async function runSql(statement, ...values) {
  const path = env.GAMEPROXY_FARM.replace(/^sqlite:\/\/\//, '');
  const { stdout } = await promisify(execFile)('python3', ['-c', RUN_SQL, path, statement, JSON.stringify(values)]);
  return Number(stdout);
}

const now = () => Date.now() / 1000;

async function announceReady(host, port) {
  const changed = await runSql(
    "UPDATE game_servers SET state='ready', host=?, port=?, heartbeat_at=? WHERE id=? AND state='starting'",
    host, port, now(), serverId);
  if (changed !== 1) throw new Error(`the farm does not expect ${serverId}`);
  setInterval(() => {
    // One that fails does no harm: the proxy waits for 15 s of silence.
    runSql('UPDATE game_servers SET heartbeat_at=? WHERE id=?', now(), serverId).catch(console.error);
  }, HEARTBEAT_SECONDS * 1000);
}

// ---- frames ----
// A frame: the body's length in four bytes, big-endian, then the body.
function frame(body) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

// One of the proxy's own frames: its type, perhaps a MAC, then JSON.
function ownFrame(type, value, mac = Buffer.alloc(0)) {
  return frame(Buffer.concat([Buffer.of(type), mac, Buffer.from(JSON.stringify(value))]));
}

function macOf(label, json) {
  return createHmac('sha256', key).update(label).update(Buffer.of(0)).update(json).digest();
}

// What ADMIT says, or null unless it was made with our key, for our challenge and for us.
function readAdmit(body, nonce) {
  const mac = body.subarray(1, 33), json = body.subarray(33);
  if (body[0] !== ADMIT || mac.length !== 32) return null;
  if (!timingSafeEqual(mac, macOf('gameproxy/1 admit', json))) return null;
  const admit = JSON.parse(json.toString());
  return admit.nonce === nonce && admit.server === serverId ? admit : null;
}

// ---- one connection: one player ----
function serve(socket) {
  const nonce = randomBytes(16).toString('hex');
  let admitted = false;
  let received = Buffer.alloc(0);
  const tooLate = setTimeout(() => socket.destroy(), ADMIT_SECONDS * 1000);

  function admissionReceived(body) {
    const admit = readAdmit(body, nonce);
    if (admit === null) return socket.destroy();
    clearTimeout(tooLate);
    if (env.GAME_REFUSE) return socket.end(ownFrame(REFUSED, { code: env.GAME_REFUSE, message: 'refused' }));
    admitted = true;
    sessions.add(socket);
    console.log(`${admit.player} from ${admit.address} plays ${admit.game}`, admit.properties);
    const answer = { session: admit.session, proxy_nonce: admit.proxy_nonce };
    socket.write(ownFrame(ADMITTED, answer, macOf('gameproxy/1 admitted', Buffer.from(JSON.stringify(answer)))));
    if (env.GAME_SETTINGS) socket.write(frame(Buffer.from(`${String.fromCharCode(SETTINGS)}${env.GAME_SETTINGS}`)));
  }

  function frameReceived(body) {
    if (!admitted) return admissionReceived(body);
    // CLOSE is the proxy's only frame that may come now; a second ADMIT is as wrong as any other.
    if (body.length > 0 && body[0] < FIRST_GAME_TYPE) return body[0] === CLOSE ? socket.end() : socket.destroy();
    switch (body.toString('latin1')) {
      case '\x10kick': return socket.write(ownFrame(KICK, { code: 'kicked', message: 'You asked for it.' }));
      case '\x10close': return socket.end(ownFrame(CLOSE, { code: 'left', message: 'The game is over.' }));
      case '\x10die': return process.kill(process.pid, 'SIGKILL');
    }
    // A client that does not read its echoes is not read either.
    if (!socket.write(frame(body))) socket.pause();
  }

  socket.on('drain', () => socket.resume());
  socket.on('data', (data) => {
    if (!socket.writable) return; // we have said our last word
    received = Buffer.concat([received, data]);
    while (received.length >= 4 && socket.writable) {
      const length = received.readUInt32BE();
      if (length > (admitted ? MAX_FRAME : MAX_OWN_FRAME)) return socket.destroy();
      if (received.length < 4 + length) return;
      const body = received.subarray(4, 4 + length);
      received = received.subarray(4 + length);
      try { frameReceived(body); } catch (error) { console.error(error); socket.destroy(); }
    }
  });
  socket.on('error', (error) => console.error(error.message));
  socket.on('close', () => { clearTimeout(tooLate); sessions.delete(socket); });
  socket.write(ownFrame(CHALLENGE, { protocol: 1, server: serverId, nonce }));
}

// ---- the process ----
const sessions = new Set(); // sockets of admitted players
const listener = net.createServer({ noDelay: true }, serve);

listener.listen(Number(env.GAMEPROXY_PORT || 0), env.GAMEPROXY_HOST || '127.0.0.1', async () => {
  const { address, port } = listener.address();
  console.log(`${serverId} listens on ${address} port ${port}`);
  if (env.GAMEPROXY_FARM) await announceReady(address, port);
});

process.on('SIGTERM', () => {
  const exit = async () => {
    if (env.GAMEPROXY_FARM) await runSql("UPDATE game_servers SET state='closed' WHERE id=?", serverId);
    process.exit(0);
  };
  listener.close(exit); // once every connection has ended
  setTimeout(exit, STOP_SECONDS * 1000);
  for (const socket of sessions) socket.end(ownFrame(CLOSE, { code: 'draining', message: 'Join again.' }));
});
