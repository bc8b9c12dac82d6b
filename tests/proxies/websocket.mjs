// A WebSocket client that shows everything: frames as they came, in text or closes, and the moment at which the socket ended.

import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { PATIENCE_MS } from '../steady.mjs';

const TEXT = 1, CLOSE = 8, PING = 9, PONG = 10;

export class WebSocketClient {
  /** Text messages in their order. */
  messages = [];
  pings = 0;
  /** `{ code, reason }` of the close frame that came. */
  close = null;
  /** The socket is gone. */
  gone = false;
  #waiting = [];
  #bytes = Buffer.alloc(0);

  /** Opens `path`; rejects with the status when it is refused. `from`: the address to come from. */
  static open(port, path, { headers = {}, from } = {}) {
    return new Promise((done, fail) => {
      const client = new WebSocketClient();
      const socket = connect({ port, host: '127.0.0.1', localAddress: from });
      client.socket = socket;
      let head = '';
      const lines = { Host: `127.0.0.1:${port}`, Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': randomBytes(16).toString('base64'), ...headers };
      socket.on('connect', () => {
        socket.write(`GET ${path} HTTP/1.1\r\n${Object.entries(lines).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`);
      });
      const upgrading = (bytes) => {
        head += bytes.toString('latin1');
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        socket.off('data', upgrading);
        const status = Number(head.split(' ')[1]);
        if (status !== 101) {
          socket.destroy();
          fail(Object.assign(new Error(`refused with ${status}`), { status }));
          return;
        }
        socket.on('data', (more) => client.#take(more));
        client.#take(Buffer.from(head.slice(end + 4), 'latin1'));
        done(client);
      };
      socket.on('data', upgrading);
      socket.on('error', (error) => fail(error));
      socket.on('close', () => {
        client.gone = true;
        client.#told();
        fail(new Error('closed during the upgrade'));
      });
    });
  }

  send(text) {
    this.#write(TEXT, Buffer.from(text));
  }

  command(fields) {
    this.send(JSON.stringify(fields));
  }

  /** Says 1000; the socket ends with the answer. Ended before, nginx would not pass the answer on. */
  end() {
    if (!this.gone) this.#write(CLOSE, Buffer.from([3, 232]));
  }

  /** Waits until `look(this)` says yes. */
  until(what, look, wait_ms = PATIENCE_MS) {
    return new Promise((done, fail) => {
      const timer = setTimeout(() => {
        fail(new Error(`not within ${wait_ms} ms: ${what}; messages ${JSON.stringify(this.messages.slice(-5))}, close ${JSON.stringify(this.close)}, gone ${this.gone}`));
      }, wait_ms);
      const ask = () => {
        const seen = look(this);
        if (!seen) return false;
        clearTimeout(timer);
        done(seen);
        return true;
      };
      if (!ask()) this.#waiting.push(ask);
    });
  }

  /** The first JSON message with this name, and these fields. */
  event(name, fields = {}) {
    const matches = (message) => message.name === name && Object.entries(fields).every(([key, value]) => message[key] === value);
    return this.until(`event ${name} ${JSON.stringify(fields)}`, () => this.messages.map((text) => JSON.parse(text)).find(matches));
  }

  #told() {
    this.#waiting = this.#waiting.filter((ask) => !ask());
  }

  #write(opcode, payload) {
    const mask = randomBytes(4);
    const length = payload.length < 126 ? [0x80 | payload.length] : [0xfe, payload.length >> 8, payload.length & 255];
    const masked = Buffer.from(payload.map((byte, index) => byte ^ mask[index & 3]));
    this.socket.write(Buffer.concat([Buffer.from([0x80 | opcode, ...length]), mask, masked]));
  }

  #take(bytes) {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    for (;;) {
      const b = this.#bytes;
      if (b.length < 2) break;
      const short = b[1] & 127;
      const start = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (b.length < start) break;
      const length = short === 126 ? b.readUInt16BE(2) : short === 127 ? Number(b.readBigUInt64BE(2)) : short;
      if (b.length < start + length) break;
      this.#frame(b[0] & 15, b.subarray(start, start + length));
      this.#bytes = b.subarray(start + length);
    }
    this.#told();
  }

  #frame(opcode, payload) {
    if (opcode === TEXT) this.messages.push(payload.toString());
    if (opcode === PING) {
      this.pings += 1;
      this.#write(PONG, payload);
    }
    if (opcode === CLOSE) {
      this.close = { code: payload.length < 2 ? 1005 : payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
      this.#write(CLOSE, payload.subarray(0, 2));
      this.socket.end();
    }
  }
}
