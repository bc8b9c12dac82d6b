// The client alone: a WebSocket that the test plays, and a clock that the test moves.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { connect, FanfareError } from '../dist/fanfare.js';

/** The sockets the client has opened in this test, in order. */
let sockets;
/** What the dice say: the whole window, unless the test says otherwise. */
let dice;

class Socket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: undefined });
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code, reason) { this.closed ??= { code, reason }; }
  say(event) { this.onmessage({ data: JSON.stringify(event) }); }
  end(code, reason = '') { this.onclose({ code, reason }); }
  welcome(more) { this.say({ name: 'welcome', connection: '0-0-1', heartbeat_ms: 25_000, node: 'n', ...more }); }
  /** What was sent since the last look. */
  take() { return this.sent.splice(0); }
}

const URL_WS = 'ws://gateway.test/ws';
const last = () => sockets.at(-1);
const pass = (ms) => mock.timers.tick(ms);
/** Lets promises that are settled run what waits for them. */
const settle = async () => { for (let turn = 0; turn < 20; turn += 1) await Promise.resolve(); };

/** A client, and everything it says to its handlers, in order. */
function open(options = {}) {
  const heard = [];
  const note = (name) => (value) => heard.push(value === undefined ? [name] : [name, value]);
  const client = connect(URL_WS, {
    WebSocket: Socket, onState: note('state'), onDisconnect: note('end'), onDrain: note('drain'), onMessage: note('direct'),
    onEvent: note('event'), onError: note('error'), ...options,
  });
  return { client, heard };
}

function connected(options) {
  const all = open(options);
  last().welcome();
  all.heard.length = 0;
  return { ...all, socket: last() };
}

/** A subscription that the gateway has confirmed at `epoch` e and `offset`. */
function inRoom(client, room, { offset = 0, ...options } = {}) {
  const heard = [];
  const note = (name) => (value) => heard.push(value === undefined ? [name] : [name, value]);
  const subscription = client.subscribe(room, {
    onMessage: note('message'), onGap: note('gap'), onSubscribed: note('subscribed'), onClosed: note('closed'), onJoined: note('joined'),
    onLeft: note('left'), onError: note('error'), ...options,
  });
  const { id } = last().take().at(-1);
  last().say({ name: 'subscribed', room, epoch: 'e', offset, recovered: true, id });
  heard.length = 0;
  return { subscription, heard };
}

const code = (wanted, sent) => (error) => {
  assert.ok(error instanceof FanfareError, String(error));
  assert.deepEqual([error.code, error.sent], [wanted, sent]);
  return true;
};

beforeEach(() => {
  sockets = [];
  dice = 1;
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  mock.method(Math, 'random', () => dice);
});
afterEach(() => mock.reset());

// Connecting --------------------------------------------------------------------------------------------------------

test('addresses: a bare host means its /ws, and http becomes ws', () => {
  for (const [given, opened] of [
    ['https://chat.test', 'wss://chat.test/ws'], ['http://chat.test:8080/', 'ws://chat.test:8080/ws'], [URL_WS, URL_WS],
    ['wss://chat.test/below/ws?x=1', 'wss://chat.test/below/ws?x=1'], [new URL('ws://chat.test'), 'ws://chat.test/ws'],
  ]) {
    connect(given, { WebSocket: Socket });
    assert.equal(last().url, opened);
  }
  assert.throws(() => connect('/ws', { WebSocket: Socket }), TypeError);
  connect(URL_WS, { WebSocket: Socket, name: 'Zoë' });
  assert.equal(last().url, `${URL_WS}?name=Zo%C3%AB`);
});

test('no handler is called before connect has returned', async () => {
  class Refuses { constructor() { throw new SyntaxError('not a protocol'); } }
  const { heard, client } = open({ WebSocket: Refuses, token: '{}' });
  assert.deepEqual(heard, []);
  await settle();
  assert.equal(client.state, 'waiting');
  assert.deepEqual(heard.map(([name]) => name), ['error', 'state', 'end']);
});

test('without any WebSocket, connect says what to do', () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, 'WebSocket');
  delete globalThis.WebSocket;
  try {
    assert.throws(() => connect(URL_WS), /give one, connect\(url, { WebSocket }\)/);
  } finally {
    if (own) Object.defineProperty(globalThis, 'WebSocket', own);
  }
});

test('a token travels as a subprotocol, not in the address', () => {
  open({ token: 'a.b.c' });
  assert.deepEqual([last().url, last().protocols], [URL_WS, ['fanfare', 'fanfare.token.a.b.c']]);
  open();
  assert.deepEqual(last().protocols, []);
});

test('connected is when the gateway has said welcome, not before', () => {
  const { client, heard } = open();
  assert.equal(client.state, 'connecting');
  const welcome = { name: 'welcome', connection: '0-0-1', heartbeat_ms: 25_000, node: 'n', user: 'ann' };
  last().welcome({ user: 'ann' });
  assert.equal(client.state, 'connected');
  assert.deepEqual(client.welcome, welcome);
  assert.deepEqual(heard, [['state', 'connected']]);
});

test('a gateway that never says welcome is given up', () => {
  const { client, heard } = open();
  pass(9_999);
  assert.equal(client.state, 'connecting');
  pass(1);
  assert.deepEqual(heard, [['state', 'waiting'], ['end', { code: 1006, reason: 'no answer in time', retryMs: 500 }]]);
  assert.ok(sockets[0].closed);
  // What the given-up socket says is nobody's business.
  sockets[0].welcome();
  sockets[0].end(4401);
  assert.equal(client.state, 'waiting');
});

// Coming back -------------------------------------------------------------------------------------------------------

test('codes of the ranges: come back with back-off, or stop and report', () => {
  for (const comesBack of [1001, 1005, 1006, 1011, 1012, 1013, 4500, 4504, 4508, 4599]) {
    const { client, heard, socket } = connected();
    socket.end(comesBack, 'why');
    assert.equal(client.state, 'waiting', `${comesBack}`);
    assert.deepEqual(heard.at(-1), ['end', { code: comesBack, reason: 'why', retryMs: 500 }]);
    const before = sockets.length;
    pass(500);
    assert.equal(sockets.length, before + 1);
    client.close();
  }
  for (const stops of [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4400, 4401, 4403, 4409, 4410, 4420, 4429, 4499]) {
    const { client, heard, socket } = connected();
    const before = sockets.length;
    socket.end(stops, 'why');
    assert.equal(client.state, 'stopped', `${stops}`);
    assert.deepEqual(heard, [['state', 'stopped'], ['end', { code: stops, reason: 'why', retryMs: null }]]);
    pass(1_000_000);
    assert.equal(sockets.length, before, `${stops}`);
  }
});

test('back-off: the window doubles from 0.5 s to 20 s, the dice choose within it, and it starts anew once a connection has held', () => {
  const { client } = open();
  const delays = [];
  const fail = () => {
    const before = sockets.length;
    last().end(1006);
    let ms = 0;
    while (sockets.length === before) { pass(125); ms += 125; }
    delays.push(ms);
  };
  for (let n = 0; n < 8; n += 1) fail();
  assert.deepEqual(delays.splice(0), [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
  dice = 0.5;
  fail();
  assert.deepEqual(delays.splice(0), [10_000]);
  // Welcomed and thrown out at once, again and again, is no success.
  last().welcome();
  fail();
  assert.deepEqual(delays.splice(0), [10_000]);
  last().welcome();
  pass(10_001);
  fail();
  assert.deepEqual(delays, [250]);
  client.close();
});

test('drain: not before retry_ms, whether the close comes or not, and a person may still insist', () => {
  for (const closes of [true, false]) {
    const { client, heard, socket } = connected();
    socket.say({ name: 'drain', retry_ms: 5_000 });
    assert.deepEqual(heard.shift(), ['drain', { name: 'drain', retry_ms: 5_000 }]);
    if (closes) socket.end(1012, 'drain');
    else socket.say({ name: 'pong' });
    const before = sockets.length;
    pass(4_999);
    assert.equal(sockets.length, before, 'too early');
    assert.equal(client.state, closes ? 'waiting' : 'connected');
    pass(1);
    pass(500);
    assert.equal(sockets.length, before + 1);
    assert.deepEqual(heard.at(-2), ['end', { code: 1012, reason: closes ? 'drain' : 'drained', retryMs: closes ? 5_500 : 500 }]);
    // The wait was for one return only.
    last().welcome();
    last().end(1006);
    pass(1_000);
    assert.equal(sockets.length, before + 2);
    client.close();
  }
  const { client, heard, socket } = connected();
  socket.say({ name: 'drain', retry_ms: 60_000 });
  socket.end(1012);
  client.connect();
  last().welcome();
  assert.equal(client.state, 'connected');
  last().end(1006);
  assert.equal(heard.at(-1)[1].retryMs, 1_000, 'the drain is over');
});

test('the network is back: tried at once, but not while a drain is waited out', () => {
  const listeners = new Map();
  Object.assign(globalThis, {
    addEventListener: (name, listener) => listeners.set(name, listener),
    removeEventListener: (name, listener) => { if (listeners.get(name) === listener) listeners.delete(name); },
  });
  try {
    const { client, socket } = connected();
    pass(1);
    listeners.get('online')();
    assert.deepEqual(socket.take(), [{ name: 'ping' }]);
    socket.end(1006);
    listeners.get('online')();
    assert.equal(sockets.length, 2);
    listeners.get('online')();
    assert.equal(sockets.length, 2);
    last().welcome();
    last().say({ name: 'drain', retry_ms: 5_000 });
    last().end(1012);
    pass(4_999);
    listeners.get('online')();
    assert.equal(client.state, 'waiting');
    pass(1);
    listeners.get('online')();
    assert.equal(client.state, 'connecting');
    client.close();
    assert.equal(listeners.size, 0);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test('a connection that is silent is asked, and given up when it does not answer', () => {
  const { client, heard, socket } = connected();
  pass(24_999);
  assert.deepEqual(socket.take(), []);
  pass(1);
  assert.deepEqual(socket.take(), [{ name: 'ping' }]);
  socket.say({ name: 'pong' });
  pass(10_000);
  assert.equal(client.state, 'connected');
  // Anything heard counts, and puts the next question off.
  pass(14_000);
  socket.say({ name: 'message', message: 1 });
  pass(24_000);
  assert.deepEqual(socket.take(), []);
  pass(1_000);
  assert.deepEqual(socket.take(), [{ name: 'ping' }]);
  pass(9_999);
  assert.equal(client.state, 'connected');
  pass(1);
  assert.deepEqual(heard.at(-1), ['end', { code: 1006, reason: 'silent for too long', retryMs: 500 }]);
  assert.ok(socket.closed);
  pass(500);
  assert.equal(sockets.length, 2);
});

test('connect() on a live connection looks whether it lives, and asking often gives it no more time', () => {
  const { client, socket } = connected();
  pass(1);
  for (let n = 0; n < 4; n += 1) {
    client.connect();
    pass(2_500);
  }
  assert.deepEqual(socket.take(), [{ name: 'ping' }]);
  assert.equal(client.state, 'waiting');
  client.connect();
  assert.equal(client.state, 'connecting');
  assert.equal(sockets.length, 2);
  client.connect();
  assert.equal(sockets.length, 2, 'one attempt at a time');
});

test('close() stops, rejects what waits, and keeps the rooms for a later connect()', async () => {
  const { client, heard, socket } = connected();
  inRoom(client, 'lobby', { offset: 7 });
  const answer = client.publish('lobby', 1);
  client.close();
  client.close();
  await assert.rejects(answer, code('closed', true));
  await assert.rejects(client.publish('lobby', 2), code('closed', false));
  assert.deepEqual(socket.closed, { code: 1000, reason: 'closed' });
  assert.deepEqual(heard, [['state', 'stopped'], ['end', { code: 1000, reason: 'closed by this client', retryMs: null }]]);
  pass(1_000_000);
  assert.equal(sockets.length, 1);
  client.connect();
  last().welcome();
  assert.deepEqual(last().take(), [{ name: 'subscribe', room: 'lobby', since: 'e:7', id: 3 }]);
});

// Tokens ------------------------------------------------------------------------------------------------------------

/** A token whose life ends in so many seconds. */
const jwt = (seconds) => `h.${Buffer.from(JSON.stringify({ sub: '>>>???~~~ÿÿ', exp: Date.now() / 1_000 + seconds })).toString('base64url')}.s`;

test('getToken is asked before every attempt', async () => {
  let n = 0;
  const { client } = open({ token: 'fixed', getToken: async () => `t${++n}` });
  await settle();
  assert.deepEqual(last().protocols, ['fanfare', 'fanfare.token.t1']);
  last().end(1006);
  pass(500);
  await settle();
  assert.deepEqual(last().protocols, ['fanfare', 'fanfare.token.t2']);
  client.close();
});

test('a token that comes after the attempt is over opens nothing', async () => {
  let give;
  const { client, heard } = open({ getToken: () => new Promise((done) => { give = done; }) });
  pass(10_000);
  assert.equal(heard.at(-1)[1].reason, 'no answer in time');
  give('late');
  await settle();
  assert.deepEqual([sockets.length, client.state], [0, 'waiting']);
  pass(500);
  client.close();
  give('too late');
  await settle();
  assert.deepEqual([sockets.length, client.state], [0, 'stopped']);
});

test('4401: an expired token is replaced, one that never held stops the client', async () => {
  const { client, heard } = open({ getToken: async () => 't' });
  await settle();
  last().welcome();
  last().end(4401, 'token expired');
  assert.equal(client.state, 'waiting');
  pass(500);
  await settle();
  assert.equal(sockets.length, 2);
  last().end(4401, 'token signature wrong');
  assert.equal(client.state, 'stopped');
  assert.deepEqual(heard.at(-1), ['end', { code: 4401, reason: 'token signature wrong', retryMs: null }]);
  const without = connected({ token: 't' });
  without.socket.end(4401);
  assert.equal(without.client.state, 'stopped', 'a fixed token stays expired');
});

test('getToken that fails is reported and tried again', async () => {
  let works = false;
  const { client, heard } = open({ getToken: async () => { if (works) return null; throw new Error('503'); } });
  await settle();
  assert.deepEqual(heard.map(([name, value]) => [name, value.message ?? value.reason ?? value]),
    [['error', '503'], ['state', 'waiting'], ['end', 'Error: 503']]);
  works = true;
  pass(500);
  await settle();
  assert.deepEqual(last().protocols, []);
  last().welcome();
  assert.equal(client.state, 'connected');
});

test('a guest comes back as the same guest, and as a new one when the old is not known any more', () => {
  const { client } = open({ name: 'zoe' });
  last().welcome({ token: 'g1' });
  last().end(1006);
  pass(500);
  assert.deepEqual(last().protocols, ['fanfare', 'fanfare.token.g1']);
  last().end(4401, 'unknown');
  assert.equal(client.state, 'waiting');
  pass(1_000);
  assert.deepEqual(last().protocols, []);
  last().end(4401, 'no guests');
  assert.equal(client.state, 'stopped');
});

test('refresh: at four fifths of the life, if so configured, and for as long as the connection lives', async () => {
  let token = jwt(1_000);
  assert.match(token, /-.*_|_.*-/, 'the alphabet of URLs is in it');
  const getToken = async () => token;
  const { client } = open({ getToken, refresh: true });
  await settle();
  last().welcome();
  const hear = () => { last().say({ name: 'pong' }); last().take(); };
  for (let passed = 0; passed < 790; passed += 10) { pass(10_000); hear(); }
  await settle();
  assert.deepEqual(last().take(), []);
  token = jwt(5_000);
  pass(10_000);
  await settle();
  assert.deepEqual(last().take().filter(({ name }) => name === 'refresh'), [{ name: 'refresh', token, id: 1 }]);
  last().say({ name: 'refreshed', expires_in: 100, id: 1 });
  await settle();
  for (let passed = 0; passed < 70; passed += 10) { pass(10_000); hear(); }
  await settle();
  pass(10_000);
  await settle();
  assert.equal(last().take().filter(({ name }) => name === 'refresh').length, 1, 'after what the gateway granted, not what the token says');
  client.close();

  // Not asked for; no token with an end; an end beyond what timers can wait.
  for (const [token, refresh] of [[jwt(10), false], ['opaque', true], ['a.b.c', true], [jwt(1e9), true]]) {
    const other = open({ getToken: async () => token, refresh });
    await settle();
    last().welcome();
    pass(20_000);
    await settle();
    assert.deepEqual(last().take(), []);
    other.client.close();
  }
});

test('a refused refresh is told, and does not end the connection', async () => {
  const { client, heard } = open({ getToken: async () => jwt(10), refresh: true });
  await settle();
  last().welcome();
  pass(7_999);
  await settle();
  assert.deepEqual(last().take(), []);
  pass(1);
  await settle();
  const { id } = last().take()[0];
  last().say({ name: 'error', code: 'not_available', message: 'later', id });
  await settle();
  assert.equal(client.state, 'connected');
  assert.ok(code('not_available', true)(heard.at(-1)[1]));
});

// Commands ----------------------------------------------------------------------------------------------------------

test('commands and their replies', async () => {
  const { client, socket } = connected();
  const replies = [
    client.publish('a', { text: 'hi' }), client.publish('a', 0, { noSelf: true }), client.presence('a'),
    client.history('a', { since: 'e:3', limit: 2 }), client.send('ann', null), client.ping(),
  ];
  assert.deepEqual(socket.take(), [
    { name: 'publish', room: 'a', message: { text: 'hi' }, id: 1 }, { name: 'publish_no_self', room: 'a', message: 0, id: 2 },
    { name: 'presence', room: 'a', id: 3 }, { name: 'history', since: 'e:3', limit: 2, room: 'a', id: 4 },
    { name: 'send', user: 'ann', message: null, id: 5 }, { name: 'ping', id: 6 },
  ]);
  for (const event of [
    { name: 'pong', id: 6 }, { name: 'error', code: 'not_available', message: 'no inbox', id: 5 },
    { name: 'history', messages: [], epoch: 'e', offset: 4, id: 4 }, { name: 'presence', room: 'a', count: 0, members: [], id: 3 },
    { name: 'ack', delivered: 1, dropped: 0, evicted: 0, id: 2 }, { name: 'ack', delivered: 2, dropped: 0, evicted: 0, offset: 9, id: 1 },
  ]) socket.say(event);
  const [published, alone, presence, history, sent, ping] = await Promise.allSettled(replies);
  assert.equal(published.value.offset, 9);
  assert.equal(alone.value.delivered, 1);
  assert.deepEqual(presence.value.members, []);
  assert.equal(history.value.offset, 4);
  assert.ok(code('not_available', true)(sent.reason));
  assert.equal(typeof ping.value, 'number');
});

test('what is published without a connection waits, and is sent once, after the rooms', async () => {
  const { client } = open();
  client.subscribe('a');
  const answers = [client.publish('a', 1), client.publish('a', 2)];
  assert.deepEqual(last().take(), []);
  // An attempt that fails changes nothing for what was not sent.
  last().end(1006);
  pass(500);
  last().welcome();
  assert.deepEqual(last().take().map(({ name, message }) => [name, message]), [['subscribe', undefined], ['publish', 1], ['publish', 2]]);
  last().say({ name: 'ack', delivered: 1, dropped: 0, evicted: 0, id: 1 });
  assert.equal((await answers[0]).delivered, 1);
  last().end(1006);
  await assert.rejects(answers[1], code('connection_lost', true));
  pass(1_000);
  last().welcome();
  assert.deepEqual(last().take().map(({ name }) => name), ['subscribe'], 'a publication is never repeated');
});

test('questions that do no harm are asked again after a reconnect', async () => {
  const { client, socket } = connected();
  const answer = client.presence('a');
  const [asked] = socket.take();
  socket.end(1006);
  pass(500);
  last().welcome();
  assert.deepEqual(last().take(), [asked]);
  last().say({ name: 'presence', room: 'a', count: 3, members: [], id: asked.id });
  assert.equal((await answer).count, 3);
});

test('the queue is bounded, and what does not fit is rejected at once', async () => {
  const { client } = open({ waitingMax: 2 });
  const waiting = [client.publish('a', 1), client.publish('a', 2)];
  await assert.rejects(client.publish('a', 3), code('queue_full', false));
  last().end(4403, 'no');
  for (const answer of waiting) await assert.rejects(answer, code('closed', false));
});

test('a command is given up after its time, and is not sent then', async () => {
  const { client } = open({ timeoutMs: 3_000 });
  const unsent = client.publish('a', 1);
  pass(3_000);
  await assert.rejects(unsent, code('timeout', false));
  last().welcome();
  assert.deepEqual(last().take(), []);
  const sent = client.publish('a', 2);
  pass(3_000);
  await assert.rejects(sent, code('timeout', true));
  last().say({ name: 'ack', delivered: 1, dropped: 0, evicted: 0, id: 2 });
  last().say({ name: 'error', code: 'overloaded', message: 'late', id: 2 });
  await assert.rejects(client.publish('a', 1n), TypeError);
  assert.deepEqual(last().take().length, 1);
});

// Rooms -------------------------------------------------------------------------------------------------------------

test('a room comes back where it stood: by numbers, by counting where there are none, and by what was announced as lost', () => {
  const { client } = connected();
  const { subscription, heard } = inRoom(client, 'a', { offset: 5 });
  assert.equal(subscription.position, 'e:5');
  const positions = [];
  for (const event of [
    { name: 'message', message: 1, offset: 6 }, { name: 'message', message: 2 }, { name: 'joined', user: 'ann' }, { name: 'left', user: 'ann' },
    { name: 'gap', from: 8, to: 10, count: 3 }, { name: 'message', message: 3, offset: 11 },
  ]) {
    last().say({ ...event, room: 'a' });
    positions.push(subscription.position);
  }
  assert.deepEqual(positions, ['e:6', 'e:7', 'e:7', 'e:7', 'e:10', 'e:11']);
  assert.deepEqual(heard.map(([name]) => name), ['message', 'message', 'joined', 'left', 'gap', 'message']);
  last().end(1006);
  pass(500);
  last().welcome();
  assert.deepEqual(last().take(), [{ name: 'subscribe', room: 'a', since: 'e:11', id: 2 }]);
});

test('after a recovery the position moves with what arrives, not with what was promised', () => {
  const { client } = connected();
  const { subscription, heard } = inRoom(client, 'a', { offset: 5 });
  const back = () => {
    last().end(1006);
    pass(20_000);
    last().welcome();
    return last().take().at(-1);
  };
  let asked = back();
  last().say({ name: 'subscribed', room: 'a', epoch: 'e', offset: 9, recovered: true, id: asked.id });
  last().say({ name: 'message', room: 'a', message: 6, offset: 6 });
  assert.equal(subscription.position, 'e:6');
  // Lost again before the rest came: 7 to 9 are still asked for.
  asked = back();
  assert.equal(asked.since, 'e:6');
  assert.deepEqual(heard.map(([name]) => name), ['subscribed', 'message']);
});

test('what cannot be recovered is told as a gap, counted where that is possible', () => {
  const { client } = connected();
  const { subscription, heard } = inRoom(client, 'a', { offset: 5 });
  for (const [epoch, offset, gap] of [['e', 9, { room: 'a', from: 6, to: 9, count: 4 }], ['f', 2, { room: 'a' }], ['g', 20, { room: 'a' }]]) {
    last().end(1006);
    pass(20_000);
    last().welcome();
    const { id } = last().take().at(-1);
    last().say({ name: 'subscribed', room: 'a', epoch, offset, recovered: false, id });
    assert.deepEqual(heard.splice(0), [['subscribed', { epoch, offset, recovered: false }], ['gap', gap]]);
    assert.equal(subscription.position, `${epoch}:${offset}`);
  }
});

test('since given by the program is where the first subscription starts', async () => {
  const { client, socket } = connected();
  const subscription = client.subscribe('a', { since: 'e:41' });
  assert.equal(subscription.position, 'e:41');
  const [{ since, id }] = socket.take();
  assert.equal(since, 'e:41');
  socket.say({ name: 'subscribed', room: 'a', epoch: 'e', offset: 43, recovered: true, id });
  assert.deepEqual(await subscription.ready, { epoch: 'e', offset: 43, recovered: true });
  assert.equal(subscription.position, 'e:41');
});

test('a room is subscribed to once, and what an ended subscription still gets is nobody\'s', () => {
  const { client, socket } = connected();
  const { subscription, heard } = inRoom(client, 'a');
  assert.throws(() => client.subscribe('a'), code('already_subscribed', false));
  subscription.unsubscribe();
  subscription.unsubscribe();
  assert.deepEqual(socket.take(), [{ name: 'unsubscribe', room: 'a', id: 2 }]);
  const again = [];
  client.subscribe('a', { onMessage: ({ message }) => again.push(message) });
  const [{ id }] = socket.take();
  socket.say({ name: 'message', room: 'a', message: 'on its way when it ended' });
  socket.say({ name: 'subscribed', room: 'a', epoch: 'e', offset: 0, recovered: true, id: 1 });
  socket.say({ name: 'message', room: 'a', message: 'still for the first' });
  socket.say({ name: 'unsubscribed', room: 'a', id: 2 });
  socket.say({ name: 'subscribed', room: 'a', epoch: 'e', offset: 1, recovered: true, id });
  socket.say({ name: 'message', room: 'a', message: 'for the second' });
  assert.deepEqual([heard, again], [[], ['for the second']]);
  subscription.unsubscribe();
  assert.deepEqual(socket.take(), [], 'the first handle does not end the second subscription');
  socket.end(1006);
  pass(500);
  last().welcome();
  assert.deepEqual(last().take().map(({ name, since }) => [name, since]), [['subscribe', 'e:2']]);
});

test('leave tells the others; a closed room ends', () => {
  const { client, socket } = connected();
  inRoom(client, 'a').subscription.leave();
  assert.deepEqual(socket.take(), [{ name: 'leave', room: 'a', id: 2 }]);
  const { heard } = inRoom(client, 'b');
  socket.say({ name: 'room_closed', room: 'b' });
  assert.deepEqual(heard, [['closed']]);
  socket.end(1006);
  pass(500);
  last().welcome();
  assert.deepEqual(last().take(), []);
});

test('a refused subscription is told and ended; one that met an overloaded node is asked for again', async () => {
  const { client, heard, socket } = connected();
  const errors = [];
  const refused = client.subscribe('a', { onError: ({ code }) => errors.push(code) });
  client.subscribe('b');
  const pressed = client.subscribe('c');
  const given = client.subscribe('d');
  const [a, b, c, d] = socket.take();
  socket.say({ name: 'error', code: 'not_allowed', message: 'no', id: a.id });
  socket.say({ name: 'error', code: 'bad_room', message: 'no', id: b.id });
  for (const { id } of [c, d]) socket.say({ name: 'error', code: 'overloaded', message: 'later', id });
  given.unsubscribe();
  await assert.rejects(refused.ready, code('not_allowed', true));
  assert.deepEqual(errors, ['not_allowed']);
  assert.deepEqual(heard.map(([name, error]) => [name, error.code]), [['error', 'bad_room']]);
  pass(21_000);
  const asked = socket.take().filter(({ name }) => name === 'subscribe');
  assert.deepEqual(asked.map(({ room }) => room), ['c']);
  socket.say({ name: 'subscribed', room: 'c', epoch: 'e', offset: 0, recovered: true, id: asked[0].id });
  assert.equal((await pressed.ready).epoch, 'e');
});

test('events that belong to no room, or to no version of this client', () => {
  const { heard, socket } = connected();
  socket.say({ name: 'message', message: 'psst', user: 'ann' });
  socket.say({ name: 'message', message: 'late', room: 'left-long-ago' });
  socket.say({ name: 'fireworks', at: 12 });
  socket.say({ name: 'error', code: 'bad_message', message: 'what?' });
  socket.onmessage({ data: 'no JSON' });
  socket.onmessage({ data: 'null' });
  assert.deepEqual(heard.map(([name, value]) => [name, value.message ?? value.name]).slice(0, 3),
    [['direct', 'psst'], ['event', 'fireworks'], ['error', 'what?']]);
  assert.deepEqual(heard.slice(3).map(([name]) => name), ['error', 'error']);
});

test('a handler that throws does not stop the client, and is heard', async () => {
  const { client, socket } = connected();
  const { subscription } = inRoom(client, 'a', { onMessage: () => { throw new Error('mine'); } });
  socket.say({ name: 'message', room: 'a', message: 1 });
  socket.say({ name: 'message', room: 'a', message: 2 });
  assert.equal(subscription.position, 'e:2');
  assert.throws(() => pass(1), /mine/);
});

test('a handler may do anything at any time', () => {
  const { client } = open({
    onConnect() {
      client.subscribe('from onConnect');
      client.publish('a', 1).catch(() => {});
    },
    onDisconnect() { client.connect(); },
  });
  last().welcome();
  assert.deepEqual(last().take().map(({ name }) => name), ['subscribe', 'publish']);
  last().end(1006);
  assert.equal(client.state, 'connecting');
  assert.equal(sockets.length, 2);
  pass(9_999);
  assert.equal(sockets.length, 2, 'the back-off that was overtaken is over');
});
