// stalled.mjs BIN_DIR [ROUNDS] [SECONDS]: what 2,000 readers that have stopped reading cost the others, under messages of 64 KiB and 256 MiB of
// address space. Rounds without and with them take turns, each on a fresh node; the healthy readers' time from publish to arrival is compared.
// Fails when one of them misses a message, when the node dies, or when their p99 is more than twice that of the quiet rounds.
import { spawn } from 'node:child_process';
import http from 'node:http';
import net from 'node:net';
import { performance } from 'node:perf_hooks';

const [bin, rounds = '3', seconds = '6'] = process.argv.slice(2);
const STALLED = 2000;
const HEALTHY = 20;
const PER_SECOND = 20;
const TEXT_BYTES = 65000;
const MEMORY_KIB = 256 * 1024;
const RATIO_MAX = 2;
// The first messages fill the sockets of those who do not read, and they are evicted or queued for: told apart from what follows.
const STORM_MESSAGES = 20;

const fail = (text) => {
  console.error(`stalled: ${text}`);
  process.exit(1);
};
const pause = (ms) => new Promise((done) => setTimeout(done, Math.max(0, ms)));

const start = () =>
  new Promise((done) => {
    const variables = {
      FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX: String((MEMORY_KIB * 1024) / 4),
      FANFARE_SHARDS: '2',
      FANFARE_LOG_LEVEL: 'info,fanfare_edge::shard=warn',
      FANFARE_DRAIN__WINDOW_MS: '0',
    };
    const shell = `ulimit -v ${MEMORY_KIB} && exec "$0" "$@"`;
    const words = ['-c', shell, `${bin}/fanfare`, 'dev', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'];
    const child = spawn('sh', words, { env: { ...process.env, ...variables }, stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    child.stderr.on('data', (bytes) => {
      log += bytes;
      const port = (what) => log.match(new RegExp(`${what} 127\\.0\\.0\\.1:(\\d+)`))?.[1];
      const ports = [port('clients on'), port('API on')];
      if (ports.every(Boolean)) done({ child, clients: Number(ports[0]), admin: Number(ports[1]) });
    });
    child.on('exit', (code, signal) => {
      if (!child.isLeaving) fail(`the node ended (${code ?? signal}):\n${log.slice(-2000)}`);
    });
  });

// A socket in the room, behind its 101. Whoever is not asked to read takes one buffer and no more.
const enter = (port, onFrame) =>
  new Promise((done) => {
    const socket = net.connect({ port, host: '127.0.0.1', highWaterMark: onFrame ? 1 << 20 : 1024 });
    socket.on('error', () => {});
    socket.write(
      `GET /room/a?format=text HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    socket.once('readable', () => {
      const head = socket.read();
      if (!String(head).startsWith('HTTP/1.1 101')) fail(`not let in: ${head}`);
      done(socket);
      if (!onFrame) return;
      let rest = Buffer.alloc(0);
      socket.on('data', (bytes) => {
        rest = rest.length ? Buffer.concat([rest, bytes]) : bytes;
        for (;;) {
          if (rest.length < 10) return;
          const long = (rest[1] & 127) === 126 ? rest.readUInt16BE(2) + 4 : (rest[1] & 127) + 2;
          if (rest.length < long) return;
          onFrame(rest, performance.now());
          rest = rest.subarray(long);
        }
      });
    });
  });

const agent = new http.Agent({ keepAlive: true });
const ask = (port, method, path, body) =>
  new Promise((done) => {
    const headers = body ? { 'content-type': 'text/plain' } : {};
    const call = http.request({ port, host: '127.0.0.1', method, path, agent, headers }, (answer) => {
      let text = '';
      answer.on('data', (bytes) => (text += bytes)).on('end', () => done({ status: answer.statusCode, text }));
    });
    call.on('error', (error) => fail(`${path}: ${error.message}`));
    call.end(body);
  });

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];

// One round: the times of all arrivals, those of the first messages apart.
const round = async (stalled) => {
  const { child, clients, admin } = await start();
  const published = [];
  const [storm, after] = [[], []];
  let arrived = 0;
  const onFrame = (frame, now) => {
    const number = Number(frame.toString('latin1', 4, 12));
    (number < STORM_MESSAGES ? storm : after).push(now - published[number]);
    arrived += 1;
  };
  const sockets = [];
  while (sockets.length < stalled) {
    sockets.push(...(await Promise.all(Array.from({ length: 50 }, () => enter(clients)))));
  }
  for (let n = 0; n < HEALTHY; n += 1) sockets.push(await enter(clients, onFrame));
  const metric = async (name) =>
    Number((await ask(admin, 'GET', '/metrics')).text.match(new RegExp(`^${name} (\\S+)$`, 'm'))?.[1]);
  while ((await metric('fanfare_subscriptions')) < stalled + HEALTHY) await pause(20);
  const messages = STORM_MESSAGES + Number(seconds) * PER_SECOND;
  const begun = performance.now();
  for (let n = 0; n < messages; n += 1) {
    await pause(begun + (n * 1000) / PER_SECOND - performance.now());
    published.push(performance.now());
    const { status, text } = await ask(admin, 'POST', '/api/publish?room=a', String(n).padStart(8, '0').padEnd(TEXT_BYTES, 'x'));
    if (status !== 200) fail(`publish: ${status} ${text}`);
  }
  for (let tries = 0; arrived < messages * HEALTHY && tries < 250; tries += 1) await pause(20);
  if (arrived !== messages * HEALTHY) fail(`healthy readers got ${arrived} of ${messages * HEALTHY}`);
  const evicted = await metric('fanfare_evicted_total');
  child.isLeaving = true;
  sockets.forEach((socket) => socket.destroy());
  child.kill('SIGKILL');
  await new Promise((done) => child.once('close', done));
  return { storm, after, evicted };
};

const all = { quiet: { storm: [], after: [] }, stalled: { storm: [], after: [] } };
for (let n = 1; n <= Number(rounds); n += 1) {
  for (const [name, stalled] of [['quiet', 0], ['stalled', STALLED]]) {
    const { storm, after, evicted } = await round(stalled);
    all[name].storm.push(...storm);
    all[name].after.push(...after);
    const sorted = after.toSorted((a, b) => a - b);
    console.log(`round ${n} ${name.padEnd(7)} p50 ${quantile(sorted, 0.5).toFixed(2)} ms  p99 ${quantile(sorted, 0.99).toFixed(2)} ms  evicted ${evicted}`);
  }
}
agent.destroy();
const of = (part, q) => ['quiet', 'stalled'].map((name) => quantile(all[name][part].toSorted((a, b) => a - b), q));
for (const [part, what] of [['storm', `first ${STORM_MESSAGES} messages`], ['after', 'all others']]) {
  const [[q50, s50], [q99, s99]] = [of(part, 0.5), of(part, 0.99)];
  console.log(`${what}: p50 ${q50.toFixed(2)} -> ${s50.toFixed(2)} ms, p99 ${q99.toFixed(2)} -> ${s99.toFixed(2)} ms, ratio ${(s99 / q99).toFixed(2)}`);
}
const [q99, s99] = of('after', 0.99);
if (s99 > RATIO_MAX * q99) fail(`the p99 of the healthy readers is more than ${RATIO_MAX} times that of the quiet rounds`);
console.log('stalled: passed');
