// Programs that a case starts: gateways, proxies, the load generator. Each is ended by its process id, whatever becomes of
// the case.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { freePorts, until } from '../steady.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const DEPLOY = resolve(HERE, '../../deploy');
export const BIN = resolve(HERE, process.env.FANFARE_BIN_DIR ?? '../../target/debug');
const HAPROXY = process.env.HAPROXY ?? '/usr/sbin/haproxy';
const NGINX = process.env.NGINX ?? '/usr/sbin/nginx';
const ENVOY = process.env.ENVOY ?? 'envoy';
const REDIS = process.env.REDIS_SERVER ?? 'redis-server';
const NATS = process.env.NATS_SERVER ?? 'nats-server';
export const KEY = 'a-key-of-the-tests';

/** A file of deploy/ with some of its texts replaced. Each must be there as often as said: the file that is tried is the one that is shipped. */
export function shipped(name, replacements) {
  let text = readFileSync(join(DEPLOY, name), 'utf8');
  for (const [from, to, times = 1] of replacements) {
    assert.equal(text.split(from).length - 1, times, `${JSON.stringify(from)} stands in deploy/${name}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

export class Programs {
  #running = [];

  constructor(scratch) {
    this.scratch = scratch;
  }

  start(name, program, args, { env = {} } = {}) {
    // Every FANFARE_ variable would have to be one of the gateway's keys.
    const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('FANFARE_')));
    const child = spawn(program, args, { env: { ...clean, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const running = { name, child, said: '', errors: '', pid: child.pid };
    child.stdout.setEncoding('utf8').on('data', (text) => { running.said += text; });
    child.stderr.setEncoding('utf8').on('data', (text) => { running.errors += text; });
    running.ended = new Promise((done) => {
      child.once('error', (error) => done(error.code));
      child.once('close', (code, signal) => done(signal ?? code));
    });
    running.ended.then((how) => { running.how = how; });
    this.#running.push(running);
    return running;
  }

  async endAll() {
    for (const { child } of this.#running) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await Promise.all(this.#running.map(({ ended }) => ended));
    this.#running = [];
  }

  /** What everybody said, for a case that failed. */
  words() {
    return this.#running.map(({ name, said, errors }) => `--- ${name}\n${said}${errors}`.slice(-4_000)).join('\n');
  }

  /** A gateway on ports that were free or on the given ones, once it is ready. */
  async gateway(name, { ports, config = '', env } = {}) {
    const [port, admin] = ports ?? await freePorts(2);
    const file = join(this.scratch, `${name}-${port}.toml`);
    writeFileSync(file, `listen = "127.0.0.1:${port}"\nadmin = "127.0.0.1:${admin}"\n${config}\n[api]\nkeys = ["${KEY}"]\n`);
    const running = this.start(name, join(BIN, 'fanfare'), ['serve', '--config', file], { env });
    await until(`${name} is ready`, async () => {
      assert.equal(running.how, undefined, `${name} ended: ${running.errors}`);
      return (await fetch(`http://127.0.0.1:${admin}/readyz`).catch(() => null))?.status === 200;
    });
    return Object.assign(running, { port, admin, ports: [port, admin], file });
  }

  /** A Redis of its own, on a port of the loopback, with a password. */
  async redis() {
    const [port] = await freePorts(1);
    const home = join(this.scratch, `redis-${port}`);
    mkdirSync(home);
    const running = this.start('redis', REDIS, ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', home, '--save', '', '--requirepass', KEY]);
    await until('Redis listens', () => {
      assert.equal(running.how, undefined, `${REDIS} ended; get it with tools/need redis-server: ${running.errors}`);
      return running.said.includes('Ready to accept connections');
    });
    return Object.assign(running, { port, engine: `[engine]\nkind = "redis"\nurl = "redis://:${KEY}@127.0.0.1:${port}"\n` });
  }

  /** A NATS with JetStream of its own, on a port of the loopback, with a password. */
  async nats() {
    const [port] = await freePorts(1);
    const home = join(this.scratch, `nats-${port}`);
    const args = ['--addr', '127.0.0.1', '--port', `${port}`, '--jetstream', '--store_dir', home, '--user', 'fanfare', '--pass', KEY];
    const running = this.start('nats', NATS, args);
    await until('NATS listens', () => {
      assert.equal(running.how, undefined, `${NATS} ended; get it with tools/need nats-server: ${running.errors}`);
      return running.errors.includes('Server is ready');
    });
    return Object.assign(running, { port, engine: `[engine]\nkind = "nats"\nurl = "nats://fanfare:${KEY}@127.0.0.1:${port}"\n` });
  }

  /** HAProxy with deploy/haproxy.cfg; the first node for both names where there is one. */
  async haproxy(nodes, { replacements = [] } = {}) {
    const [first, second = first] = nodes;
    const [port, publishers, peers] = await freePorts(3);
    const socket = join(this.scratch, `haproxy-${port}.sock`);
    const text = shipped('haproxy.cfg', [
      ['bind :80\n', `bind 127.0.0.1:${port}\n`],
      ['bind 127.0.0.1:8090', `bind 127.0.0.1:${publishers}`],
      ['server node1 10.0.0.11:8080', `server node1 127.0.0.1:${first.port} port ${first.admin}`],
      ['server node2 10.0.0.12:8080', `server node2 127.0.0.1:${second.port} port ${second.admin}`],
      ['server node1 10.0.0.11:8081', `server node1 127.0.0.1:${first.admin} port ${first.admin}`],
      ['server node2 10.0.0.12:8081', `server node2 127.0.0.1:${second.admin} port ${second.admin}`],
      ['default-server check port 8081', 'default-server check', 2],
      ['127.0.0.1:10000', `127.0.0.1:${peers}`],
      ['maxconn 100000', 'maxconn 2000', 2],
      ['global\n', `global\n    stats socket ${socket} mode 600 level admin\n`],
      ...replacements,
    ]);
    const file = join(this.scratch, `haproxy-${port}.cfg`);
    writeFileSync(file, text);
    const running = this.start('haproxy', HAPROXY, ['-db', '-f', file]);
    await until('HAProxy listens', async () => {
      assert.equal(running.how, undefined, `HAProxy ended: ${running.errors}`);
      return await fetch(`http://127.0.0.1:${port}/api/`).then(({ status }) => status === 404, () => false);
    });
    return Object.assign(running, { port, publishers, socket });
  }

  /** nginx with deploy/nginx.conf. */
  async nginx(nodes, { replacements = [] } = {}) {
    const [first, second] = nodes;
    const [port] = await freePorts(1);
    const home = join(this.scratch, `nginx-${port}`);
    mkdirSync(home);
    writeFileSync(join(home, 'fanfare.conf'), shipped('nginx.conf', [
      ['listen 80;', `listen 127.0.0.1:${port};`],
      ['10.0.0.11:8080', `127.0.0.1:${first.port}`],
      ...(second ? [['# server 10.0.0.12:8080', `server 127.0.0.1:${second.port}`]] : []),
      ...replacements,
    ]));
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((kind) => `${kind}_temp_path ${home}/${kind};`).join('\n');
    writeFileSync(join(home, 'nginx.conf'), `daemon off;\nmaster_process off;\npid ${home}/pid;\nerror_log ${home}/error.log;\n` +
      `events { worker_connections 2000; }\nhttp {\naccess_log off;\n${temporary}\ninclude ${home}/fanfare.conf;\n}\n`);
    const running = this.start('nginx', NGINX, ['-p', home, '-e', join(home, 'error.log'), '-c', join(home, 'nginx.conf')]);
    await until('nginx listens', async () => {
      assert.equal(running.how, undefined, `nginx ended: ${running.errors}`);
      return await fetch(`http://127.0.0.1:${port}/api/`).then(({ status }) => status === 404, () => false);
    });
    return Object.assign(running, { port });
  }
  /** Envoy with deploy/envoy.yaml and an admin listener, which the file has not; the first node for both addresses where there is one. */
  async envoy(nodes, { replacements = [] } = {}) {
    const [first, second = first] = nodes;
    const [port, admin] = await freePorts(2);
    const address = (port) => `address: { socket_address: { address: 127.0.0.1, port_value: ${port} } }`;
    const endpoint = (ip, port, admin) => `{ address: ${ip}, port_value: ${port} } }\n                  health_check_config: { port_value: ${admin} }`;
    const text = shipped('envoy.yaml', [
      ['{ address: 0.0.0.0, port_value: 80 }', `{ address: 127.0.0.1, port_value: ${port} }`],
      [endpoint('10.0.0.11', 8080, 8081), endpoint('127.0.0.1', first.port, first.admin)],
      [endpoint('10.0.0.12', 8080, 8081), endpoint('127.0.0.1', second.port, second.admin)],
      // A busy machine is not a node that is down.
      ['- timeout: 1s\n', '- timeout: 60s\n'],
      ...replacements,
    ]);
    const file = join(this.scratch, `envoy-${port}.yaml`);
    writeFileSync(file, `${text}\nadmin: { ${address(admin)} }\n`);
    const running = this.start('envoy', ENVOY, ['--config-path', file, '--disable-hot-restart', '--concurrency', '2', '--log-level', 'warn']);
    await until('Envoy listens', async () => {
      assert.equal(running.how, undefined, `${ENVOY} ended; get it with tools/need envoy: ${running.errors}`);
      return await fetch(`http://127.0.0.1:${port}/api/`).then(({ status }) => status === 404, () => false);
    });
    return Object.assign(running, { port, admin });
  }
}
