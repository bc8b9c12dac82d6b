// A real Prometheus with deploy/prometheus/alerts.yml, real gateways, real faults: each rule fires. Only `for:` is left out, and
// it scrapes twice a second. How long a fault has to last is tried by promtool (alerts_test.yml).
//
//   make deploy-test

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';

import { BIN, KEY, Programs, shipped } from '../proxies/processes.mjs';
import { WebSocketClient } from '../proxies/websocket.mjs';
import { CASE_MS, freePorts, pause, until } from '../steady.mjs';

const HERE = import.meta.dirname ?? '.';
const PROMETHEUS = process.env.PROMETHEUS ?? '/usr/bin/prometheus';
let scratch, programs, prometheus, nodes, redis, wire;
const fired = new Set();

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'fanfare-alerts-'));
  programs = new Programs(scratch);
  const small = '[limits]\noutbox_bytes_max = 65536\noutbox_messages_max = 100\nmessage_bytes_max = 16384';
  const node = (name, config) => programs.gateway(name, { config });
  const [certificate, key] = ['certificate', 'key'].map((name) => join(scratch, `${name}.pem`));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate], { stdio: 'ignore' });
  // The kernel refuses a shard's sockets once this file is there.
  const [preloaded, refusing] = [join(scratch, 'epoll_fault.so'), join(scratch, 'epoll-is-full')];
  execFileSync('cc', ['-shared', '-fPIC', '-o', preloaded, join(HERE, 'epoll_fault.c'), '-ldl'], { stdio: 'inherit' });
  redis = await programs.redis();
  wire = await wireTo(redis.port);
  const engine = (prefix, more = '', port = redis.port) => `${redis.engine.replace(`:${redis.port}`, `:${port}`)}prefix = "${prefix}"\n${more}`;
  const [well, expiring, full, evicting, queueing, forgetful, mute, strict, leaving, gone, late, behind, faulty, engined, trailing, bereft] = await Promise.all([
    node('well', ''),
    node('expiring', `[tls]\ncertificate = "${certificate}"\nkey = "${key}"`),
    node('full', '[limits]\nconnections_max = 2'),
    node('evicting', small),
    node('queueing', '[limits]\nmessage_bytes_max = 16384\noutbox_bytes_max = 262144\noutbox_total_bytes_max = 300000\n[heartbeat]\nwrite_ms = 60000'),
    node('forgetful', '[limits]\nhistory_total_bytes_max = 100000\n[namespaces.default]\nhistory_size = 100000'),
    node('mute', '[heartbeat]\nping_ms = 200\npong_ms = 200'),
    node('strict', '[limits]\nmessages_per_second_max = 1'),
    node('leaving', '[drain]\ngrace_ms = 60000'),
    node('gone', ''),
    node('late', '[namespaces.default]\ncoalesce_ms = 1000'),
    node('behind', '[limits]\nmessage_bytes_max = 13000000\noutbox_bytes_max = 100000000'),
    programs.gateway('faulty', { env: { LD_PRELOAD: preloaded, EPOLL_FAULT: refusing } }),
    node('engined', engine('engined', 'timeout_ms = 500')),
    node('trailing', engine('trailing', 'timeout_ms = 60000', wire.port)),
    node('bereft', engine('bereft')),
  ]);
  faulty.refusing = refusing;
  // So few descriptors that connections to the admin listener, which has no limit of its own, use them up.
  const [port, admin] = await freePorts(2);
  const poor = programs.start('poor', '/bin/sh', ['-c',
    `ulimit -n 200; exec "${join(BIN, 'fanfare')}" serve --listen 127.0.0.1:${port} --admin 127.0.0.1:${admin}`]);
  Object.assign(poor, { port, admin });
  await until('poor is ready', () => fetch(`http://127.0.0.1:${admin}/readyz`).then(({ status }) => status === 200, () => false));
  nodes = { well, expiring, full, evicting, queueing, forgetful, mute, strict, leaving, gone, late, behind, faulty, engined, trailing, bereft, poor };

  const rules = shipped('prometheus/alerts.yml', []).replaceAll(/^ +for: .*\n/gm, '');
  writeFileSync(join(scratch, 'alerts.yml'), rules);
  const targets = Object.entries(nodes).map(([name, { admin }]) =>
    `      - { targets: ["127.0.0.1:${admin}"], labels: { instance: ${name} } }`);
  writeFileSync(join(scratch, 'prometheus.yml'), `global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 200ms }
rule_files: [alerts.yml]
scrape_configs:
  - job_name: fanfare
    static_configs:\n${targets.join('\n')}\n`);
  const [web] = await freePorts(1);
  prometheus = programs.start('prometheus', PROMETHEUS, [`--config.file=${join(scratch, 'prometheus.yml')}`,
    `--storage.tsdb.path=${join(scratch, 'data')}`, `--web.listen-address=127.0.0.1:${web}`, '--log.level=warn']);
  prometheus.url = `http://127.0.0.1:${web}`;
  await until('Prometheus has scraped all', async () => {
    assert.equal(prometheus.how, undefined, prometheus.errors);
    const up = await query('count(count_over_time(fanfare_connections[1m]) >= 3)').catch(() => []);
    return up[0]?.value[1] === `${Object.keys(nodes).length}`;
  });
});

after(async () => {
  await programs.endAll();
  wire.close();
  rmSync(scratch, { recursive: true });
});

async function query(expression) {
  const answer = await fetch(`${prometheus.url}/api/v1/query?query=${encodeURIComponent(expression)}`);
  const { status, data, error } = await answer.json();
  assert.equal(status, 'success', error);
  return data.result;
}

const firing = (alert, instance) => query(`ALERTS{alertstate="firing",alertname="${alert}",instance="${instance}"}`)
  .then((found) => found.length > 0);

/** Before `fault` the rule must be quiet on this node, and fire after it. */
function fires(alert, name, fault) {
  test(alert, { timeout: CASE_MS }, async () => {
    try {
      // A certificate expires without any fault; on the others the rule must be quiet before it. A scrape that was late on a busy machine is over soon.
      await until(`${alert} is quiet before the fault`, async () => !await firing(alert, fault ? name : 'well'));
      const held = await fault?.(nodes[name]);
      await until(`${alert} fires on ${name}`, () => firing(alert, name));
      for (const socket of held ?? []) socket.destroy();
      fired.add(alert);
    } catch (error) {
      error.message += `\n${programs.words()}`;
      throw error;
    }
  });
}

function publish({ admin }, room, body) {
  return fetch(`http://127.0.0.1:${admin}/api/publish?room=${room}`, {
    method: 'POST', body, headers: { authorization: `Bearer ${KEY}`, 'content-type': 'text/plain' },
  });
}

/** A way to Redis on which, from `stop` on, nothing comes back that was asked for by reading the log. What is appended goes on. */
async function wireTo(port) {
  let stopped = false;
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    let reads = false;
    near.on('data', (bytes) => { reads ||= bytes.includes('XREAD'); far.write(bytes); });
    far.on('data', (bytes) => { if (!(stopped && reads)) near.write(bytes); });
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on('error', () => {}).on('close', () => { sockets.delete(socket); other.destroy(); });
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return {
    port: server.address().port,
    stop: () => { stopped = true; },
    close: () => { server.close(); for (const socket of sockets) socket.destroy(); },
  };
}

/** Sockets that are subscribed and never read. */
async function stalled({ port }, count) {
  const clients = await Promise.all(Array.from({ length: count }, () => WebSocketClient.open(port, '/room/r')));
  for (const { socket } of clients) socket.pause();
  return clients.map(({ socket }) => socket);
}

const times = async (count, act) => { for (let index = 0; index < count; index += 1) await act(index); };

fires('FanfareCertificateExpires', 'expiring');
fires('FanfareReloadRefused', 'well', async ({ admin, file }) => {
  writeFileSync(file, 'no_such_key = 1\n');
  const answer = await fetch(`http://127.0.0.1:${admin}/api/reload`, { method: 'POST', headers: { authorization: `Bearer ${KEY}` } });
  assert.ok(answer.status >= 400, `${answer.status}`);
});
fires('FanfareDown', 'gone', async ({ child }) => { child.kill('SIGKILL'); });
fires('FanfareNotReady', 'leaving', async ({ child }) => { child.kill('SIGTERM'); });
fires('FanfareShedding', 'full', async ({ port }) => {
  const clients = [await WebSocketClient.open(port, '/room/r'), await WebSocketClient.open(port, '/room/r')];
  await assert.rejects(WebSocketClient.open(port, '/room/r'));
  return clients.map(({ socket }) => socket);
});
fires('FanfareEvictions', 'evicting', async (node) => {
  const sockets = await stalled(node, 15);
  const gone = async () => (await query('fanfare_evicted_total{instance="evicting"}'))[0]?.value[1] === '15';
  for (let round = 0; round < 400 && !await gone(); round += 1) await times(50, () => publish(node, 'r', 'x'.repeat(16_000)));
  return sockets;
});
fires('FanfareOutboxBudget', 'queueing', async (node) => {
  const sockets = await stalled(node, 1);
  // What the kernel takes comes first; then the queue grows, up to 256 KiB for this one.
  const full = async () => Number((await (await fetch(`http://127.0.0.1:${node.admin}/metrics`)).text()).match(/^fanfare_outbox_bytes (\d+)$/m)[1]) > 242_000;
  for (let round = 0; round < 2_000 && !await full(); round += 1) await publish(node, 'r', 'x'.repeat(8_000));
  return sockets;
});
fires('FanfareHistoryBudget', 'forgetful', (node) => times(100, () => publish(node, 'r', 'x'.repeat(8_000))));
fires('FanfarePongTimeouts', 'mute', (node) => stalled(node, 15));
fires('FanfareTooFast', 'strict', async ({ port }) => {
  await times(15, async () => {
    const client = await WebSocketClient.open(port, '/room/r');
    for (let index = 0; index < 5; index += 1) client.command({ name: 'ping' });
    await client.until('it is closed', () => client.close?.code === 4429);
  });
});
fires('FanfareTokensRefused', 'well', ({ port }) => times(100, async () => {
  const client = await WebSocketClient.open(port, '/room/r?token=none');
  await client.until('it is closed', () => client.close?.code === 4401);
}));
fires('FanfareOriginsRefused', 'strict', ({ port }) => times(100, () =>
  assert.rejects(WebSocketClient.open(port, '/room/r', { headers: { Origin: 'http://elsewhere.example' } }), { status: 403 })));
fires('FanfareHerd', 'mute', ({ port }) => times(700, async () => {
  const { socket } = await WebSocketClient.open(port, '/room/r');
  socket.destroy();
}));
fires('FanfareAcceptErrors', 'poor', (node) => until('an error of accept', async () => {
  const sockets = Array.from({ length: 250 }, () => connect(node.admin, '127.0.0.1').on('error', () => {}));
  await pause(1_000);
  // With all descriptors in use the page cannot be fetched either.
  for (const socket of sockets) socket.destroy();
  await until('the page', () => fetch(`http://127.0.0.1:${node.admin}/readyz`).then(() => true, () => false));
  const page = await (await fetch(`http://127.0.0.1:${node.admin}/metrics`)).text();
  return [...page.matchAll(/^fanfare_accept_errors_total\S* (\d+)$/gm)].some(([, count]) => Number(count) > 0);
}).then(() => []));

fires('FanfareSlowDelivery', 'late', async (node) => {
  // A shard that holds publications back for a second, as it is told to.
  const { socket } = await WebSocketClient.open(node.port, '/room/r');
  await times(3, () => publish(node, 'r', 'x'));
  return [socket];
});
fires('FanfareOverloaded', 'behind', async ({ port, admin }) => {
  const { socket } = await WebSocketClient.open(port, '/room/r');
  // More at once than a shard may owe its members, 64 MiB, and so much more that what it sends meanwhile does not matter.
  const publication = { room: 'r', message: 'x'.repeat(12_000_000) };
  await until('some of it to be refused', async () => {
    const answer = await fetch(`http://127.0.0.1:${admin}/api/batch`, {
      method: 'POST', body: JSON.stringify({ publish: Array(14).fill(publication) }), headers: { authorization: `Bearer ${KEY}` },
    });
    const { receipts } = await answer.json();
    const codes = new Set(receipts.map(({ error }) => error?.code ?? 'accepted'));
    assert.ok([...codes].every((code) => ['accepted', 'overloaded'].includes(code)), `${[...codes]}`);
    return codes.has('overloaded');
  });
  return [socket];
});
fires('FanfareInternalErrors', 'faulty', async ({ port, refusing }) => {
  // Whoever has asked for the page first is not new to the shard; it takes the socket over with the handshake.
  const client = connect(port, '127.0.0.1').on('error', () => {});
  const told = (words) => new Promise((done, fail) => {
    client.on('data', (bytes) => { if (bytes.includes(words)) done(); }).once('close', () => fail(new Error(`closed before ${words}`)));
  });
  client.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n');
  await told('</html>');
  writeFileSync(refusing, '');
  client.write('GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  await told('101 ');
  await new Promise((done) => client.once('close', done));
  rmSync(refusing);
});

fires('FanfareEngineBehind', 'trailing', async ({ admin }) => {
  wire.stop();
  // Its own publications tell the node how long the log is.
  const body = JSON.stringify({ publish: Array(1_000).fill({ room: 'r', message: 'x' }) });
  const publish = () => fetch(`http://127.0.0.1:${admin}/api/batch`, { method: 'POST', body, headers: { authorization: `Bearer ${KEY}` } });
  // Nobody answers these: what they say does not come back.
  for (let call = 0; call < 2; call += 1) publish().catch(() => {});
});
fires('FanfareEngineLost', 'bereft', async (node) => {
  assert.equal((await publish(node, 'r', 'x')).status, 200);
  const client = connect(redis.port, '127.0.0.1');
  client.end(`AUTH ${KEY}\r\nFLUSHALL\r\nQUIT\r\n`);
  let said = '';
  for await (const bytes of client) said += bytes;
  assert.equal(said, '+OK\r\n+OK\r\n+OK\r\n');
});
fires('FanfareEngineOverdue', 'engined', async (node) => {
  // It neither answers nor goes away: had the node seen it go, it would refuse at once.
  redis.child.kill('SIGSTOP');
  const answer = await publish(node, 'r', 'x');
  redis.child.kill('SIGCONT');
  assert.ok(answer.status >= 500, `${answer.status}`);
});
fires('FanfareEngineAway', 'engined', async () => {
  redis.child.kill('SIGKILL');
  await redis.ended;
});

test('every rule has fired', () => {
  const rules = [...readFileSync(resolve(HERE, '../../deploy/prometheus/alerts.yml'), 'utf8').matchAll(/- alert: (\w+)/g)];
  assert.deepEqual(fired, new Set(rules.map(([, name]) => name)));
});
