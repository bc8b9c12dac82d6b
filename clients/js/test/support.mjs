// A real gateway, as an operator starts it, and waits on conditions.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { connect } from '../dist/fanfare.js';
import { freePorts, PATIENCE_MS, until } from '../../../tests/steady.mjs';

export const HERE = dirname(fileURLToPath(import.meta.url));
export const FANFARE = resolve(process.env.FANFARE_BIN ?? join(HERE, '../../../target/debug/fanfare'));
const SECRET = '0123456789abcdef0123456789abcdef';
const API_KEY = 'backend-key-0123456789';

/** Every FANFARE_ variable would have to be one of the configuration's keys; FANFARE_BIN is not. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('FANFARE_')));

/** A gateway with a configuration of its own. It is not started yet, and may be started and killed any number of times. */
export async function gateway(configuration = '') {
  assert.ok(existsSync(FANFARE), `no gateway at ${FANFARE}: run cargo build, or set FANFARE_BIN to one`);
  const folder = mkdtempSync(join(tmpdir(), 'fanfare-client-'));
  // Known before: one that is started again must be where it was.
  const [clients, admin] = await freePorts(2);
  const file = join(folder, 'fanfare.toml');
  writeFileSync(file, `listen = "127.0.0.1:${clients}"\nadmin = "127.0.0.1:${admin}"\n${configuration}`);
  const api = `http://127.0.0.1:${admin}`;
  let child;
  let exited;
  let said = '';
  const it = {
    url: `ws://127.0.0.1:${clients}/ws`,
    http: `http://127.0.0.1:${clients}`,
    async start() {
      said = '';
      child = spawn(FANFARE, ['serve', '--config', file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { said = (said + text).slice(-20_000); });
      const mine = child;
      exited = new Promise((done) => {
        mine.once('exit', (code, signal) => done(signal ?? code));
        mine.once('error', (error) => done(error.code));
      });
      let end;
      exited.then((how) => { end = String(how); });
      await until('the gateway to be ready', async () => {
        assert.equal(end, undefined, `the gateway ended with ${end}:\n${said}`);
        return (await fetch(`${api}/readyz`).catch(() => null))?.ok;
      });
    },
    /** SIGKILL: no goodbye. */
    async kill() {
      child?.kill('SIGKILL');
      await exited;
    },
    /** SIGTERM: a drain. Gives a promise of its end. */
    drain() {
      child.kill('SIGTERM');
      return exited;
    },
    async end() {
      await it.kill();
      rmSync(folder, { recursive: true, force: true });
    },
    /** A backend's publication. */
    async publish(room, message) {
      const response = await fetch(`${api}/api/publish`, {
        method: 'POST', headers: { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' }, body: JSON.stringify({ room, message }),
      });
      assert.equal(response.status, 200, await response.clone().text());
      return response.json();
    },
    async closeRoom(room) {
      const response = await fetch(`${api}/api/rooms/${room}`, { method: 'DELETE', headers: { authorization: `Bearer ${API_KEY}` } });
      assert.equal(response.status, 200, await response.clone().text());
    },
    token(...args) {
      const { status, stdout, stderr } = spawnSync(FANFARE, ['token', '--config', file, ...args], { env, encoding: 'utf8' });
      assert.equal(status, 0, stderr);
      return stdout.trim();
    },
  };
  return it;
}

/** A token with these claims, signed with the gateways' key or another. */
export function forge(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

const clients = [];

/** A client that keeps what has happened to it, in order. An error that belongs to nothing fails the test. */
export function open(node, options = {}) {
  const states = [];
  const ends = [];
  const client = connect(node.url, {
    WebSocket, timeoutMs: PATIENCE_MS, onState: (state) => states.push(state), onDisconnect: (end) => ends.push(end), onError: (error) => { throw error; }, ...options,
  });
  clients.push(client);
  return Object.assign(client, { states, ends });
}

/** A subscription that has begun, and what it hears. */
export async function enter(client, room, options = {}) {
  const heard = [];
  const gaps = [];
  const back = [];
  const subscription = client.subscribe(room, {
    onMessage: ({ message }) => heard.push(message), onGap: (gap) => gaps.push(gap), onSubscribed: (it) => back.push(it), ...options,
  });
  await subscription.ready;
  return Object.assign(subscription, { heard, gaps, back });
}

/** After each case. */
export function closeAll() {
  for (const client of clients.splice(0)) client.close();
}

let rooms = 0;
/** A room nobody else uses. */
export const freshRoom = (namespace = '') => `${namespace}room-${++rooms}`;

/** What the tests' gateways have in common. */
export const COMMON = `
origins = ["*"]
shards = 2
[auth]
guests = true
keys = ["${SECRET}"]
[api]
keys = ["${API_KEY}"]
[namespaces.people]
presence = true
join_leave = true
[namespaces.staff]
subscribe = "token"
publish = "token"
`;

/** Where rooms remember. */
export const PAST = `${COMMON}[namespaces.past]\nhistory_size = 1000\nhistory_ms = 600000\n[namespaces.short]\nhistory_size = 3\nhistory_ms = 600000\n`;
