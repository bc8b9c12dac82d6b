// Gateways behind HAProxy, nginx and Envoy with the configuration files of deploy/, of which only addresses, and timeouts where a
// case says so, are replaced.
//
//   make proxy-test
//
// FANFARE_BIN_DIR  where fanfare and fanfare-load are   (default ../../target/debug)
// HAPROXY, NGINX   the programs                         (default /usr/sbin/…)
// ENVOY            Envoy                                (default envoy)
// REDIS_SERVER     Redis                                (default redis-server)
// NATS_SERVER      NATS                                 (default nats-server)
// PROXY_LONG=1     tries idle connections with the timeouts as they are, too: 100 s

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';

import { CASE_MS, pause, TooSlow, until, withDeadline } from '../steady.mjs';
import { BIN, KEY, Programs } from './processes.mjs';
import { WebSocketClient } from './websocket.mjs';

let scratch, programs, clients, crowds;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'fanfare-proxies-'));
  programs = new Programs(scratch);
  clients = [];
  crowds = [];
});

afterEach(async (t) => {
  for (const client of clients) client.socket.destroy();
  for (const crowd of crowds) crowd.leave();
  await programs.endAll();
  rmSync(scratch, { recursive: true });
});

/** Runs `body`; when it fails, the words of all programs stand beside the failure. */
function through(name, body, options = {}) {
  test(name, { timeout: CASE_MS, ...options }, async (t) => {
    try {
      await body(t);
    } catch (error) {
      error.message += `\n${programs.words()}`;
      throw error;
    }
  });
}

/** [withDeadline], each time with programs of its own. */
function again(first_s, body) {
  return withDeadline(first_s, async (seconds) => {
    await programs.endAll();
    try {
      return await body(seconds);
    } catch (error) {
      // It gives the answer to a check no more time than it leaves between two of them, and stands still with the machine.
      if (!/Layer[47] timeout/.test(programs.words())) throw error;
      throw new TooSlow(`HAProxy took a node that is well for one that is down; then: ${error.message}`);
    }
  });
}

async function open(port, path, options) {
  const client = await WebSocketClient.open(port, path, options);
  clients.push(client);
  return client;
}

async function metric({ admin }, name) {
  const page = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text();
  const line = page.split('\n').find((line) => line.startsWith(`${name} `));
  assert.ok(line, `${name} is on the page`);
  return Number(line.split(' ')[1]);
}

/** What HAProxy says on its socket. */
function ask(haproxy, command) {
  return new Promise((done, fail) => {
    let said = '';
    const socket = connect(haproxy.socket, () => socket.write(`${command}\n`));
    socket.setEncoding('utf8').on('data', (text) => { said += text; }).on('end', () => done(said)).on('error', fail);
  });
}

/** Waits until HAProxy takes `server` for `state` in both of its backends. */
function haproxySees(haproxy, server, state) {
  return until(`HAProxy sees ${server} ${state}`, async () => {
    const lines = (await ask(haproxy, 'show stat')).split('\n').map((line) => line.split(','));
    const seen = lines.filter(([backend, name]) => backend.startsWith('fanfare_') && name === server);
    return seen.length === 2 && seen.every((fields) => fields[17].startsWith(state));
  });
}

/** Waits until Envoy's own check of `node` has said no. */
function envoySeesDown(envoy, node) {
  return until(`Envoy sees ${node.name} down`, async () => {
    const page = await (await fetch(`http://127.0.0.1:${envoy.admin}/clusters`)).text();
    return page.split('\n').some((line) => line.startsWith(`fanfare::127.0.0.1:${node.port}::health_flags::`) && line.includes('/failed_active_hc'));
  });
}

function publish(port, room, text) {
  return fetch(`http://127.0.0.1:${port}/api/publish?room=${encodeURIComponent(room)}`, {
    method: 'POST', body: text, headers: { authorization: `Bearer ${KEY}`, 'content-type': 'text/plain' },
  });
}

const HISTORY = '[namespaces.default]\nhistory_size = 5000';
const PROXIES = ['haproxy', 'nginx', 'envoy'];
/** The timeouts of 75 s, so many of them in each file, as `seconds`. */
const timeouts = (proxy, seconds) => [['75s', `${seconds}s`, { haproxy: 3, nginx: 2, envoy: 2 }[proxy]]];

/** A ping three times within the proxy's timeout; nobody is given up for a pong that is late. */
const pings = (seconds) => `[heartbeat]\nping_ms = ${350 * seconds}\npong_ms = 600000`;

for (const proxy of PROXIES) {
  through(`${proxy}: WebSockets pass, and so do refusals`, async () => {
    const gateway = await programs.gateway('gateway');
    const { port } = await programs[proxy]([gateway]);
    const ann = await open(port, '/ws');
    await ann.event('welcome');
    ann.command({ name: 'subscribe', room: 'lobby' });
    await ann.event('subscribed', { room: 'lobby' });
    const bob = await open(port, '/room/lobby', { headers: { Origin: `http://127.0.0.1:${port}` } });
    const long = 'x'.repeat(60_000);
    bob.command({ name: 'publish', message: long, id: 1 });
    assert.equal((await ann.event('message', { room: 'lobby' })).message, long);
    assert.equal((await bob.event('ack', { id: 1 })).delivered, 2);
    await assert.rejects(open(port, '/ws', { headers: { Origin: 'http://elsewhere.example' } }), { status: 403 });
    assert.equal((await fetch(`http://127.0.0.1:${port}/ws`)).status, 426);
    assert.equal((await publish(port, 'lobby', 'no')).status, 404, 'the API is not for the clients of the proxy');
    bob.end();
    await bob.until('the close is answered', () => bob.close?.code === 1000);
  });

  through(`${proxy}: an idle connection outlives the proxy's timeouts by its pings, and only by them`, () => again(2, async (seconds) => {
    const pinging = await programs.gateway('pinging', { config: pings(seconds) });
    const silent = await programs.gateway('silent', { config: '[heartbeat]\nping_ms = 600000' });
    const [alive, lost] = await Promise.all([pinging, silent].map(async (gateway) => {
      const { port } = await programs[proxy]([gateway], { replacements: timeouts(proxy, seconds) });
      return open(port, '/room/quiet');
    }));
    await lost.until('the proxy has cut the connection without pings', () => lost.gone);
    assert.equal(lost.close, null);
    // Three times the timeout.
    await alive.until('nine pings, or the end', () => alive.pings >= 9 || alive.gone, CASE_MS);
    if (alive.gone) throw new TooSlow(`the connection with pings ended with ${JSON.stringify(alive.close)} after ${alive.pings} of them`);
    alive.command({ name: 'ping', id: 7 });
    await alive.until('the pong, or the end', () => alive.gone || alive.messages.some((text) => text.includes('"pong"')));
    if (alive.gone) throw new TooSlow('the connection with pings ended');
  }));

  through(`${proxy}: events go out as they come, and an idle stream outlives the proxy's timeouts`, () => again(2, async (seconds) => {
    const gateway = await programs.gateway('gateway', { config: `${pings(seconds)}\n${HISTORY}` });
    const { port } = await programs[proxy]([gateway], { replacements: timeouts(proxy, seconds) });
    const controller = new AbortController();
    const response = await fetch(`http://127.0.0.1:${port}/room/feed/sse`, { signal: controller.signal });
    assert.match(response.headers.get('content-type'), /^text\/event-stream/);
    let text = '', ended = false;
    (async () => {
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) text += chunk;
      ended = true;
    })().catch(() => { ended = true; });
    for (const round of [1, 2]) {
      assert.equal((await publish(gateway.admin, 'feed', `event ${round}`)).status, 200);
      // A proxy that buffers would hold so small an event back until the stream ends.
      await until(`event ${round} is here, or the stream has ended`, () => text.includes(`event ${round}`) || ended);
      if (ended) throw new TooSlow(`the stream ended before event ${round}`);
      if (round === 1) await pause(2.5 * seconds * 1_000);
    }
    controller.abort();
  }));

  through(`${proxy}: an idle connection outlives the timeouts as they are shipped`, async () => {
    const gateway = await programs.gateway('gateway');
    const { port } = await programs[proxy]([gateway]);
    const client = await open(port, '/room/quiet');
    await client.until('four pings, 25 s apart', () => client.pings >= 4, 110_000);
    client.command({ name: 'ping', id: 7 });
    await client.event('pong', { id: 7 });
  }, { skip: process.env.PROXY_LONG ? false : 'PROXY_LONG=1 runs it, 100 s', timeout: 120_000 + CASE_MS });
}

/** Two connections for each address: whoever is counted under the proxy's would be refused. */
function counts(name, proxy, config, replacements = []) {
  through(`${name}: the node knows the client's address, and believes nobody else`, async () => {
    const gateway = await programs.gateway('gateway', { config: `[limits]\nconnections_per_ip_max = 2\n${config}` });
    const { port } = await programs[proxy]([gateway], { replacements: replacements.map((replace) => replace(gateway)) });
    const from = (address, headers) => open(port, '/ws', { from: address, headers });
    await from('127.0.0.2');
    await from('127.0.0.2', { 'X-Forwarded-For': '192.0.2.1' });
    await assert.rejects(from('127.0.0.2'), { status: 429 });
    await assert.rejects(from('127.0.0.2', { 'X-Forwarded-For': '192.0.2.7' }), { status: 429 }, 'what the client says of itself');
    await from('127.0.0.3');
    const list = await fetch(`http://127.0.0.1:${gateway.admin}/api/connections`, { headers: { authorization: `Bearer ${KEY}` } });
    const addresses = (await list.json()).connections.map(({ address }) => address).sort();
    assert.deepEqual(addresses, ['127.0.0.2', '127.0.0.2', '127.0.0.3']);
  });
}

const TRUSTED = '[proxy]\ntrusted = ["127.0.0.1"]';
counts('haproxy, X-Forwarded-For', 'haproxy', TRUSTED);
counts('nginx, X-Forwarded-For', 'nginx', TRUSTED);
counts('envoy, X-Forwarded-For', 'envoy', TRUSTED);
counts('haproxy, PROXY protocol', 'haproxy', `${TRUSTED}\nprotocol = "required"`,
  [({ port, admin }) => [`127.0.0.1:${port} port ${admin}`, `127.0.0.1:${port} port ${admin} send-proxy-v2`, 2]]);

/** Connects through `port` again and again until told to stop, and for so many times more; each attempt must succeed. */
function newcomers(port) {
  let count = 0, last = Infinity;
  const refused = [];
  const done = (async () => {
    while (count < last && refused.length === 0) {
      try {
        const client = await WebSocketClient.open(port, `/room/newcomers-${count}`);
        client.command({ name: 'ping', id: 1 });
        await client.until('an answer', () => client.messages.some((text) => text.includes('"pong"')) || client.close);
        client.end();
        count += 1;
      } catch (error) {
        refused.push(error.message);
      }
      await pause(20);
    }
  })();
  crowds.push({ leave: () => { last = count; } });
  return { seen: () => count, stop: async (more) => { last = count + more; await done; return refused; } };
}

const DRAIN = '[drain]\ngrace_ms = 1500\nwindow_ms = 1500';
/** One that waits until it is told to hurry. */
const LONG_DRAIN = '[drain]\ngrace_ms = 3600000\nwindow_ms = 1500';
// Often, and without the haste of `inter`, which is the time for an answer, too, where none is set: a busy machine is not a node that is down.
const QUICK_CHECKS = [['inter 1s', 'inter 200ms', 2], ['timeout connect 5s\n', 'timeout connect 5s\n    timeout check 10s\n']];

/** Each signal halves what is left of a drain. */
async function hurry(node) {
  while (node.how === undefined) {
    node.child.kill('SIGTERM');
    await pause(20);
  }
  assert.equal(node.how, 0);
}

/** A node drains behind a proxy that asks whether it is ready; `sees_down(proxy, node)` waits until the proxy has noticed. */
function drains(proxy, replacements, sees_down) {
  through(`${proxy}: a node that drains keeps its connections, gets no new ones, and nobody is refused`, () => again(1, async () => {
    const nodes = await Promise.all(['node1', 'node2'].map((name) => programs.gateway(name, { config: LONG_DRAIN })));
    const front = await programs[proxy](nodes, { replacements });
    const settled = [];
    for (let index = 0; index < 40; index += 1) settled.push(await open(front.port, `/room/room-${index}`));
    const before = await metric(nodes[0], 'fanfare_connections');
    assert.ok(before > 5 && before < 35, `rooms are spread over both nodes: ${before} of 40`);
    const arriving = newcomers(front.port);
    nodes[0].child.kill('SIGTERM');
    await sees_down(front, nodes[0]);
    assert.equal(settled.filter(({ gone }) => gone).length, 0, 'nobody was cut off when the node was marked down');
    const accepted = await metric(nodes[0], 'fanfare_connections');
    for (let index = 0; index < 20; index += 1) await open(front.port, `/room/late-${index}`);
    assert.ok(await metric(nodes[0], 'fanfare_connections') <= accepted, 'none of the late ones is on the node that drains');
    await until('newcomers beside the node that drains', () => arriving.seen() > 10);
    await hurry(nodes[0]);
    await until('all of the drained node have gone', () => settled.filter(({ gone }) => gone).length === before);
    for (const client of settled.filter(({ gone }) => gone)) {
      assert.equal(client.close?.code, 1012, 'by a close frame');
      assert.ok(client.messages.some((text) => text.includes('"drain"')), 'announced');
    }
    assert.deepEqual(await arriving.stop(10), []);
  }));
}
drains('haproxy', QUICK_CHECKS, (haproxy, { name }) => haproxySees(haproxy, name, 'DOWN'));
drains('envoy', [['interval: 1s', 'interval: 0.2s', 2]], envoySeesDown);

through('envoy: the clients of a room are on one node', async () => {
  const nodes = await Promise.all(['node1', 'node2'].map((name) => programs.gateway(name)));
  const envoy = await programs.envoy(nodes);
  for (let index = 0; index < 20; index += 1) {
    const listener = await open(envoy.port, `/room/room-${index}`);
    const speaker = await open(envoy.port, `/room/room-${index}?dialect=json`);
    speaker.command({ name: 'publish', message: `in ${index}`, id: 1 });
    assert.equal((await speaker.event('ack', { id: 1 })).delivered, 2);
    await listener.event('message', { message: `in ${index}` });
  }
  const counts = await Promise.all(nodes.map((node) => metric(node, 'fanfare_connections')));
  assert.ok(counts.every((count) => count >= 2 && count % 2 === 0), `rooms are spread over both nodes: ${counts}`);
});

through('nginx: a node that leaves is passed over, and nobody is refused', async () => {
  const nodes = await Promise.all(['node1', 'node2'].map((name) => programs.gateway(name, { config: DRAIN })));
  const nginx = await programs.nginx(nodes);
  const settled = [];
  for (let index = 0; index < 40; index += 1) settled.push(await open(nginx.port, `/room/room-${index}`));
  const before = await metric(nodes[0], 'fanfare_connections');
  assert.ok(before > 5 && before < 35, `rooms are spread over both nodes: ${before} of 40`);
  const arriving = newcomers(nginx.port);
  nodes[0].child.kill('SIGTERM');
  assert.equal(await nodes[0].ended, 0);
  await until('all of the drained node have gone', () => settled.filter(({ gone }) => gone).length === before);
  assert.ok(settled.filter(({ gone }) => gone).every(({ close }) => close?.code === 1012));
  assert.deepEqual(await arriving.stop(10), []);
});

/** Starts `fanfare-load returning` and tells when it publishes. */
async function load(haproxy, admin, seconds, returns_min) {
  const report = join(scratch, 'load.json');
  const args = ['returning', '--url', `ws://127.0.0.1:${haproxy.port}`, '--publishers', 'http', '--admin', `http://127.0.0.1:${admin}`, '--key', KEY,
    '--connections', '200', '--rooms', '20', '--rate', '200', '--duration', `${seconds}s`, '--returns-min', `${returns_min}`, '--json', report];
  const running = programs.start('fanfare-load', join(BIN, 'fanfare-load'), args);
  return {
    running,
    report: async () => {
      const code = await running.ended;
      assert.equal(code, 0, running.said + running.errors);
      return JSON.parse(readFileSync(report, 'utf8'));
    },
  };
}

/** Two nodes behind HAProxy, each ended and replaced while 200 come back with their positions. What holds wherever their history is kept is asserted here. */
async function restartedInTurn(seconds, engine = '') {
  const config = `${DRAIN}\n${HISTORY}\n${engine}`.replace('grace_ms = 1500', 'grace_ms = 600').replace('window_ms = 1500', 'window_ms = 1000');
  const nodes = await Promise.all(['node1', 'node2'].map((name) => programs.gateway(name, { config })));
  const haproxy = await programs.haproxy(nodes, { replacements: QUICK_CHECKS });
  const { running, report } = await load(haproxy, haproxy.publishers, seconds, 200);
  await until('the load is there', async () => await metric(nodes[0], 'fanfare_connections') + await metric(nodes[1], 'fanfare_connections') === 200);
  for (const [index, server] of ['node1', 'node2'].entries()) {
    await until(`${server} delivers`, async () => await metric(nodes[index], 'fanfare_delivered_total') > 0);
    nodes[index].child.kill('SIGTERM');
    assert.equal(await nodes[index].ended, 0);
    nodes[index] = await programs.gateway(`${server} again`, { config, ports: nodes[index].ports });
    await haproxySees(haproxy, server, 'UP');
  }
  if (running.how === 0 || (running.said + running.errors).includes('fewer returns than asked for')) throw new TooSlow('the load was over before the restarts');
  const { audit, returning, closes, published } = await report();
  assert.ok(closes.every(({ code }) => code === 1012), JSON.stringify(closes));
  assert.deepEqual([audit.missing, audit.duplicate, audit.out_of_order, returning.refused, returning.stayed_away], [0, 0, 0, 0, 0]);
  assert.ok(published > 20 * seconds, `${published} published`);
  const sent_away = closes.reduce((sum, { count }) => sum + count, 0);
  return { nodes, audit, returning, published, sent_away };
}

through('haproxy: two nodes are restarted in turn under load: every gap is announced, nothing is unexplained', () => again(11, async (seconds) => {
  const { returning, sent_away } = await restartedInTurn(seconds);
  assert.deepEqual([returning.returns, returning.gaps], [sent_away, sent_away], 'another node does not know what was missed, and says so');
}), { timeout: 2 * CASE_MS });

for (const kind of ['redis', 'nats']) {
  through(`haproxy: two nodes that share a log in ${kind} are restarted in turn under load: nothing is missing, nothing comes twice`, () => again(11, async (seconds) => {
    const { engine } = await programs[kind]();
    const { nodes, audit, returning, published, sent_away } = await restartedInTurn(seconds, engine);
    assert.deepEqual([returning.gaps, returning.in_gaps], [0, 0], 'whatever was missed is told on the other node');
    assert.deepEqual([returning.returns, returning.recovered], [sent_away, sent_away]);
    assert.equal(audit.delivered, published * 10, 'each to each of its room');
    for (const node of nodes) {
      assert.equal(await metric(node, 'fanfare_engine_connected'), 1);
      assert.equal(await metric(node, 'fanfare_engine_restarts_total'), 0);
      assert.ok(!node.errors.includes(KEY), 'the password is in no log');
    }
  }), { timeout: 2 * CASE_MS });
}

through('haproxy: when the proxy itself is replaced, everybody comes back and nothing is missing', () => again(4, async (seconds) => {
  const node = await programs.gateway('node', { config: HISTORY });
  const haproxy = await programs.haproxy([node]);
  const { running, report } = await load(haproxy, node.admin, seconds, 0);
  await until('the load is there', async () => running.how !== undefined || await metric(node, 'fanfare_delivered_total') > 1_000);
  haproxy.child.kill('SIGKILL');
  await haproxy.ended;
  await until('nobody is left', async () => await metric(node, 'fanfare_connections') === 0);
  programs.start('haproxy again', haproxy.child.spawnfile, haproxy.child.spawnargs.slice(1));
  const { audit, returning, published } = await report();
  // All at once, or the end of the load came first.
  if (returning.returns < 200) throw new TooSlow(`${returning.returns} came back before the load was over`);
  assert.deepEqual([audit.missing, audit.duplicate, returning.gaps, returning.in_gaps], [0, 0, 0, 0]);
  assert.deepEqual([returning.recovered, audit.delivered], [200, published * 10]);
}));

through('haproxy: publications find the node that has the room, however they name it', async () => {
  const nodes = await Promise.all(['node1', 'node2'].map((name) => programs.gateway(name)));
  const haproxy = await programs.haproxy(nodes);
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' };
  for (const room of ['plain', 'chat:1', 'über', 'a%b', 'plus+plus']) {
    const name = encodeURIComponent(room);
    const subscriber = await open(haproxy.port, `/room/${name}`);
    const receipts = [
      await publish(haproxy.publishers, room, 'in the query'),
      await fetch(`http://127.0.0.1:${haproxy.publishers}/api/publish`, { method: 'POST', headers, body: JSON.stringify({ room, message: 'in the body' }) }),
    ];
    for (const receipt of receipts) assert.equal((await receipt.json()).delivered, 1, room);
    await subscriber.event('message', { message: 'in the query' });
    await subscriber.event('message', { message: 'in the body' });
    const seen = await fetch(`http://127.0.0.1:${haproxy.publishers}/api/rooms/${name}`, { headers });
    assert.equal((await seen.json()).occupancy, 1, room);
  }
});
