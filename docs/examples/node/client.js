'use strict';
// A client of gameproxy, in plain Node (18 or later): a class to copy, and a program that sends what you type.
//     node client.js HOST PORT NAME         as a guest
//     TICKET=... node client.js HOST PORT   with a ticket
// What the frames mean: docs/protocol.

const { EventEmitter, once } = require('node:events');
const net = require('node:net');
const readline = require('node:readline');

const AUTH = 0x01, WELCOME = 0x02, SETTINGS = 0x03, STATUS = 0x04, ERROR = 0x05, CLOSE = 0x06, FIRST_GAME_TYPE = 0x10;
const MAX_FRAME = 2097151; // bytes of body

// One session. It emits, with an object each, 'status' any number of times while it waits, and 'welcome' once it plays;
// 'settings' and 'frame', with a Buffer; and at the end, in every case and once, 'ended' with a code and a message.
class Client extends EventEmitter {
  // auth: {mechanism: 'guest', name}, {mechanism: 'ticket', ticket} or {mechanism: 'password', username, password};
  // and, if you like, game and properties.
  constructor(host, port, auth) {
    super();
    this.received = Buffer.alloc(0); // what has come and is no whole frame yet
    this.welcomed = false;
    this.ending = null; // code and message, when it is known why the session ends
    this.socket = net.connect({ host, port, noDelay: true, keepAlive: true });
    this.socket.on('data', (data) => this.dataReceived(data));
    this.socket.on('drain', () => this.emit('drain'));
    this.socket.on('error', (error) => this.finish('server_lost', error.message));
    this.socket.on('close', () => {
      this.finish('server_lost', 'The connection was lost.'); // unless there is a better reason
      this.emit('ended', ...this.ending);
    });
    this.sendOwn(AUTH, { protocol: 1, ...auth }); // leaves as soon as there is a connection
  }

  // Sends a frame of the game: empty, or with a first byte of 0x10 or more. Up to 64 KiB may be sent before 'welcome'.
  // False: wait for 'drain' before you send more, or it piles up in memory.
  send(body) {
    if (!this.socket.writable) return true;
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    return this.socket.write(Buffer.concat([length, body]));
  }

  sendOwn(type, value) {
    this.send(Buffer.concat([Buffer.of(type), Buffer.from(JSON.stringify(value))]));
  }

  // Ends the session in good order. What is still on its way to us is lost.
  leave() {
    if (this.welcomed) this.sendOwn(CLOSE, { code: 'left', message: '' });
    this.finish('left', 'You have left.');
  }

  // Only the first reason counts. end() lets what we have sent arrive, and waits for the proxy to end its side.
  finish(code, message) {
    this.ending ??= [code, message];
    this.socket.end();
  }

  // TCP keeps the order of bytes, but no borders: a frame may come in pieces, and several at once.
  dataReceived(data) {
    if (this.ending === null) this.received = Buffer.concat([this.received, data]);
    while (this.received.length >= 4 && this.ending === null) { // after the last word nothing counts
      const length = this.received.readUInt32BE();
      if (length > MAX_FRAME) return this.broken(`a frame of ${length} bytes`);
      if (this.received.length < 4 + length) return;
      const body = this.received.subarray(4, 4 + length);
      this.received = this.received.subarray(4 + length);
      this.frameReceived(body.length === 0 ? FIRST_GAME_TYPE : body[0], body);
    }
  }

  frameReceived(type, body) {
    if (this.welcomed && type >= FIRST_GAME_TYPE) return this.emit('frame', body);
    if (this.welcomed && type === SETTINGS) return this.emit('settings', body.subarray(1));
    if (!(this.welcomed ? [CLOSE] : [WELCOME, STATUS, ERROR]).includes(type)) return this.broken(`type ${type} came`);
    let value;
    try { value = JSON.parse(body.toString('utf8', 1)); } catch { return this.broken('no JSON'); }
    if (type === STATUS) return this.emit('status', value);
    if (type !== WELCOME) return this.finish(value?.code, value?.message); // ERROR or CLOSE: see "Close reasons"
    this.welcomed = true;
    return this.emit('welcome', value);
  }

  broken(why) {
    this.finish('protocol_error', why);
    this.socket.destroy();
  }
}
module.exports = Client;

// ---- the program ----
function main([host, port, name]) {
  const { TICKET: ticket } = process.env;
  const auth = ticket ? { mechanism: 'ticket', ticket } : { mechanism: 'guest', name };
  const client = new Client(host, Number(port), auth);
  // Within an object console.log escapes control characters: nobody else's words steer this terminal.
  client.on('status', (status) => console.log('status', status));
  client.on('settings', (bytes) => console.log('settings', { text: bytes.toString() }));
  client.on('frame', (body) => console.log('frame', { text: body.toString('utf8', 1) }));
  client.on('ended', (code, message) => {
    console.log('ended', { code, message });
    process.exit(code === 'left' ? 0 : 1);
  });
  client.on('welcome', async (welcome) => {
    console.log('welcome', welcome);
    for await (const line of readline.createInterface({ input: process.stdin })) {
      if (!client.send(Buffer.from(`\x10${line}`))) await once(client, 'drain');
    }
    setTimeout(() => client.leave(), 1000); // the last answers are still on their way
  });
}
if (require.main === module) main(process.argv.slice(2));
