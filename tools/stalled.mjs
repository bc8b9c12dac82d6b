// stalled.mjs BIN_DIR [ROUNDS] [SECONDS]: what 2,000 readers that have stopped reading cost the others, under messages of 64 KiB and 256 MiB of
// address space. Rounds without them, with them, and with 2,000 that do read take turns, each on a fresh node; the healthy readers' time from
// publish to arrival is compared. Fails when one of them misses a message, when the node dies, or when their p99 over the whole round, from the
// first message that nobody takes, is more than twice that of the quiet rounds. The 2,000 are sockets of a process of their own, so that what
// their client does is not taken for what the node does.
import { fork, spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { performance } from 'node:perf_hooks';

const STALLED = 2000;
const HEALTHY = 20;
const PER_SECOND = 20;
const TEXT_BYTES = 65000;
const MEMORY_KIB = 256 * 1024;
const RATIO_MAX = 2;
// The first messages fill the sockets of those who do not read, and they are evicted or queued for: also told apart from what follows.
const STORM_MESSAGES = 20;

const fail = (text) => {
  console.error(`stalled: ${text}`);
  process.exit(1);
};
const pause = (ms) => new Promise((done) => setTimeout(done, Math.max(0, ms)));

// What is asked of the node before frames come, and the start of its answer.
const request = (port) =>
  `GET /room/a?format=text HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';
const WELCOME = 'HTTP/1.1 101';

// The other process: sockets in the room that read the answer to their request, and then either nothing more or everything.
const crowd = async (port, count, reads) => {
  const buffer = Buffer.alloc(1 << 16);
  const join = () =>
    new Promise((done) => {
      let isIn = false;
      const callback = (length, bytes) => {
        if (!isIn && !bytes.toString('latin1', 0, length).startsWith(WELCOME)) fail(`not let in: ${bytes.toString('latin1', 0, length)}`);
        if (!isIn) done(socket);
        isIn = true;
        return reads;
      };
      const socket = net.connect({ port, host: '127.0.0.1', onread: { buffer, callback } });
      // Those who do not read are evicted.
      socket.on('error', () => {});
      socket.write(request(port));
    });
  const sockets = [];
  while (sockets.length < count) sockets.push(...(await Promise.all(Array.from({ length: 50 }, join))));
  process.send('in');
};

if (process.argv[2] === '--crowd') {
  const [port, count, reads] = process.argv.slice(3).map(Number);
  await crowd(port, count, reads === 1);
  // Until it is ended.
  await new Promise((done) => process.on('disconnect', done));
  process.exit(0);
}

const [bin, rounds = '3', seconds = '20'] = process.argv.slice(2);

const start = () =>
  new Promise((done) => {
    const variables = {
      FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX: String((MEMORY_KIB * 1024) / 4),
      FANFARE_SHARDS: '2',
      FANFARE_LOG_LEVEL: 'info,fanfare_edge::shard=warn',
      FANFARE_DRAIN__WINDOW_MS: '0',
      // No pings within a round: none of these clients answers them.
      FANFARE_HEARTBEAT__PING_MS: '600000',
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

// Ends a process of ours and waits until it is gone.
const end = (child) =>
  new Promise((done) => {
    child.isLeaving = true;
    child.once('close', done);
    child.kill('SIGKILL');
  });

const enterCrowd = (port, count, reads) =>
  new Promise((done) => {
    const child = fork(process.argv[1], ['--crowd', port, count, reads ? 1 : 0]);
    child.once('message', () => done(child));
    child.on('exit', (code, signal) => {
      if (!child.isLeaving) fail(`the process of the ${count} ended (${code ?? signal})`);
    });
  });

// A reader that is timed, behind its 101.
const enter = (port, onFrame) =>
  new Promise((done) => {
    const socket = net.connect({ port, host: '127.0.0.1', highWaterMark: 1 << 20 });
    socket.on('error', () => {});
    socket.write(request(port));
    socket.once('readable', () => {
      const head = socket.read();
      if (!String(head).startsWith(WELCOME)) fail(`not let in: ${head}`);
      done(socket);
      let rest = Buffer.alloc(0);
      socket.on('data', (bytes) => {
        rest = rest.length ? Buffer.concat([rest, bytes]) : bytes;
        for (;;) {
          if (rest.length < 4) return;
          if (rest[0] !== 0x81) fail(`a healthy reader was sent a frame that begins with ${rest[0]}`);
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

const quantile = (times, q) => {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
};

// Seconds of a process's time that it and the kernel have used, where the system tells.
const cpuSeconds = (pid) => {
  try {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return NaN;
  }
};

// One round: the times of all arrivals, by message.
const round = async (count, reads) => {
  const { child, clients, admin } = await start();
  const published = [];
  const times = [];
  let arrived = 0;
  const onFrame = (frame, now) => {
    const number = Number(frame.toString('latin1', 4, 12));
    (times[number] ??= []).push(now - published[number]);
    arrived += 1;
  };
  const others = count > 0 ? await enterCrowd(clients, count, reads) : null;
  const sockets = [];
  for (let n = 0; n < HEALTHY; n += 1) sockets.push(await enter(clients, onFrame));
  const metric = async (name) =>
    Number((await ask(admin, 'GET', '/metrics')).text.match(new RegExp(`^${name} (\\S+)$`, 'm'))?.[1]);
  while ((await metric('fanfare_subscriptions')) < count + HEALTHY) await pause(20);
  const messages = Number(seconds) * PER_SECOND;
  const begunCpu = cpuSeconds(child.pid);
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
  const cpu = cpuSeconds(child.pid) - begunCpu;
  await end(child);
  if (others) await end(others);
  sockets.forEach((socket) => socket.destroy());
  return { times, evicted, cpu };
};

const kinds = [
  ['quiet', 0, false],
  ['stalled', STALLED, false],
  ['reading', STALLED, true],
];
const all = Object.fromEntries(kinds.map(([name]) => [name, []]));
for (let n = 1; n <= Number(rounds); n += 1) {
  for (const [name, count, reads] of kinds) {
    const { times, evicted, cpu } = await round(count, reads);
    all[name].push(times);
    const whole = times.flat();
    const worst = times.slice(0, 6).map((message) => Math.max(...message).toFixed(0));
    console.log(
      `round ${n} ${name.padEnd(7)} p50 ${quantile(whole, 0.5).toFixed(2)} ms  p99 ${quantile(whole, 0.99).toFixed(2)} ms` +
        `  first messages at most ${worst.join(', ')} ms  node's time ${cpu.toFixed(1)} s  evicted ${evicted}`,
    );
  }
}
agent.destroy();
const parts = [
  ['the whole round', 0, Infinity],
  [`first ${STORM_MESSAGES} messages`, 0, STORM_MESSAGES],
  ['all others', STORM_MESSAGES, Infinity],
];
let ratio = NaN;
for (const [what, from, to] of parts) {
  const [p50, p99] = [0.5, 0.99].map((q) => kinds.map(([name]) => quantile(all[name].flatMap((times) => times.slice(from, to).flat()), q)));
  const list = (values) => values.map((value) => value.toFixed(2)).join(' | ');
  if (from === 0 && to === Infinity) ratio = p99[1] / p99[0];
  console.log(`${what}, ${kinds.map(([name]) => name).join(' | ')}: p50 ${list(p50)} ms, p99 ${list(p99)} ms, stalled / quiet ${(p99[1] / p99[0]).toFixed(2)}`);
}
if (!(ratio <= RATIO_MAX)) fail(`the p99 of the healthy readers is ${ratio.toFixed(2)} times that of the quiet rounds, more than ${RATIO_MAX}`);
console.log(`stalled: passed, the p99 of the healthy readers is ${ratio.toFixed(2)} times that of the quiet rounds`);
