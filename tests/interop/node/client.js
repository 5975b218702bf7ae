'use strict';
// A whole client of gameproxy, in plain Node, and a test: the game server must echo every frame.
//     node client.js HOST PORT '{"name": "ada", "frames": 200}'
// Who it is:       name (a guest), ticket, or username and password; game; properties; auth: replaces fields of AUTH.
// What it does:    frames: how many it sends (100); early: how many of them right behind AUTH (0, at most 9:
//                  more would pass the 64 KiB that may come before WELCOME); last: a word (kick, close, die)
//                  for tests/interop/node/game_server.js, sent after the last echo.
// What must come:  expect_error: ERROR with this code; expect_close: CLOSE with this code, after the echoes.
//                  Without it and last the client itself sends CLOSE and wants the end of the stream.
//                  deadline: seconds for all of it (60).
// Each event is printed as a line of JSON; the exit status is 0 only when everything was right.

const { createHash } = require('node:crypto');
const net = require('node:net');

const AUTH = 0x01, WELCOME = 0x02, SETTINGS = 0x03, STATUS = 0x04, ERROR = 0x05, CLOSE = 0x06, FIRST_GAME_TYPE = 0x10;
const MAX_FRAME = 2097151; // bytes of body
const CLOSE_AFTER = { kick: 'kicked', close: 'left', die: 'server_lost' };

const [host, port, json = '{}'] = process.argv.slice(2);
const options = { name: 'node', frames: 100, early: 0, deadline: 60, ...JSON.parse(json) };
const expectedClose = options.expect_close ?? CLOSE_AFTER[options.last];

const print = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));

let problems = 0;
function problem(text) {
  problems += 1;
  print('problem', { text });
  socket.destroy();
}

// ---- what is sent ----
function send(body) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return socket.write(Buffer.concat([length, body])); // false: wait for 'drain'
}

// One of the proxy's own frames: its type, then JSON. Fields that are undefined are left out.
const sendOwn = (type, value) => send(Buffer.concat([Buffer.of(type), Buffer.from(JSON.stringify(value))]));

function credentials() {
  if (options.ticket) return { mechanism: 'ticket', ticket: options.ticket };
  if (options.password) return { mechanism: 'password', username: options.username, password: options.password };
  return { mechanism: 'guest', name: options.name };
}
const auth = { protocol: 1, ...credentials(), game: options.game, properties: options.properties, ...options.auth };

// The n-th game frame: always the same bytes, unlike all others, of sizes around every edge first.
const EDGES = [1, 0, 2, 255, 256, 1000, 4096, 4097, 16384, 65535, 65536];
function gameFrame(n) {
  const size = EDGES[n] ?? 1 + createHash('sha256').update(`size ${n}`).digest().readUInt16BE();
  if (size === 0) return Buffer.alloc(0); // has no type, and is the game's
  const body = createHash('shake256', { outputLength: size }).update(`frame ${n}`).digest();
  if (body[0] < FIRST_GAME_TYPE) body[0] += FIRST_GAME_TYPE;
  return body;
}

let sent = 0, echoed = 0;
// Sends game frames for as long as the socket takes them; echoes are read meanwhile.
function sendGameFrames() {
  while (sent < options.frames) {
    if (!send(gameFrame(sent++))) return socket.once('drain', sendGameFrames);
  }
}

// Called after WELCOME and after each echo: once all are back, ends the session or has it ended.
function endWhenDone() {
  if (echoed < options.frames) return;
  if (options.last) return send(Buffer.from(`\x10${options.last}`));
  if (expectedClose) return;
  leaving = true;
  sendOwn(CLOSE, { code: 'left', message: '' });
}

// ---- what is received ----
let welcomed = false, leaving = false; // leaving: we sent CLOSE, and none may come back
let told = null; // the code of the ERROR or CLOSE that came: nothing may follow it

function wantStrings(value, ...names) {
  if (!names.every((name) => typeof value[name] === 'string')) problem(`${names} must be strings`);
}

function frameReceived(body) {
  if (told !== null) return problem('a frame after the last one');
  const type = body.length === 0 ? FIRST_GAME_TYPE : body[0];
  if (type >= FIRST_GAME_TYPE) {
    print('frame', { length: body.length, sha256: createHash('sha256').update(body).digest('hex') });
    if (!welcomed) return problem('a game frame before WELCOME');
    if (echoed >= sent || !body.equals(gameFrame(echoed))) return problem(`frame ${echoed} came back wrong`);
    echoed += 1;
    return endWhenDone();
  }
  if (type === SETTINGS && welcomed) return print('settings', { text: body.toString('utf8', 1) });
  const rightTime = type === CLOSE ? welcomed : [WELCOME, STATUS, ERROR].includes(type) && !welcomed;
  if (!rightTime) return problem(`type ${type} ${welcomed ? 'after' : 'before'} WELCOME`);
  const value = JSON.parse(body.toString('utf8', 1));
  if (type === STATUS) {
    print('status', value);
    if (!['queued', 'starting', 'connecting'].includes(value.state)) problem('an unknown state');
    return wantStrings(value, 'message');
  } else if (type === WELCOME) {
    print('welcome', value);
    wantStrings(value, 'session', 'player', 'server', 'game');
    if (options.expect_error) return problem('WELCOME instead of ERROR');
    const guest = `guest:${String(auth.name).normalize('NFC')}`;
    if (auth.mechanism === 'guest' && value.player !== guest) return problem('another player');
    welcomed = true;
    sendGameFrames();
    return endWhenDone();
  }
  print(type === ERROR ? 'error' : 'close', value);
  wantStrings(value, 'code', 'message');
  told = value.code;
  if (told !== (type === ERROR ? options.expect_error : expectedClose)) problem(`${told} was not expected`);
}

// ---- the connection ----
let received = Buffer.alloc(0);
const socket = net.connect({ host, port: Number(port), noDelay: true }, () => {
  sendOwn(AUTH, auth);
  while (sent < Math.min(options.early, options.frames)) send(gameFrame(sent++));
});
const deadline = setTimeout(() => problem(`not done after ${options.deadline} s`), options.deadline * 1000);

socket.on('data', (data) => {
  received = Buffer.concat([received, data]);
  while (received.length >= 4 && !socket.destroyed) {
    const length = received.readUInt32BE();
    if (length > MAX_FRAME) return problem(`a frame of ${length} bytes`);
    if (received.length < 4 + length) return;
    const body = received.subarray(4, 4 + length);
    received = received.subarray(4 + length);
    try { frameReceived(body); } catch (error) { problem(error.message); }
  }
});
socket.on('end', () => {
  print('end');
  if (received.length > 0) problem('the stream ended inside a frame');
});
// A reset does no harm once we know why the session ended.
socket.on('error', (error) => told === null && problem(error.message));
socket.on('close', () => {
  clearTimeout(deadline);
  const complete = leaving || (told !== null && (options.expect_error || echoed === options.frames));
  if (!complete && problems === 0) problem('the stream ended too early');
  process.exitCode = problems === 0 ? 0 : 1;
});
