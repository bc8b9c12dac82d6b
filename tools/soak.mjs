// soak.mjs BIN_DIR MINUTES: a release gateway under everything at once, for as long as asked: churn, stalls, storms, publications by API and by sockets,
// three dialects, a history. Every delivery is audited by fanfare-load; memory and descriptors are sampled from outside.
//
// Exit code 0 when nothing is unexplained: no loss, memory flat, no descriptor left, every close counted under a reason.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [bin, minutes_text] = process.argv.slice(2);
const minutes = Number(minutes_text);
if (!bin || !(minutes > 0)) {
  console.error('usage: node tools/soak.mjs BIN_DIR MINUTES');
  process.exit(2);
}
const KEY = 'a-key-of-the-soak';
/** In its first minutes the gateway's memory grows to what this load needs: a shorter run shows that, and not a leak. */
const VERDICT_MINUTES = 10;
const SAMPLE_MS = 2_000;
const TELL_MS = 10_000;
/** Each lane repeats its scenario for so long a time, so that rooms, connections and histories come and go. */
const ROUND_S = Math.max(5, Math.min(30, minutes * 6));

/** What runs side by side, again and again. */
const LANES = {
  sockets: ['rooms', '--dialect', 'json', '--connections', '400', '--rooms', '40', '--rate', '200'],
  text: ['rooms', '--dialect', 'text', '--connections', '200', '--rooms', '20', '--rate', '200'],
  api: ['rooms', '--dialect', 'json-ws', '--publishers', 'http', '--connections', '200', '--rooms', '20', '--rate', '100'],
  history: ['rooms', '--dialect', 'json', '--room-prefix', 'kept:', '--connections', '100', '--rooms', '50', '--rate', '100'],
  churn: ['churn', '--connections', '100', '--rooms', '10', '--roamers', '100', '--rate', '50'],
  // On a machine with little to spare this program reads too slowly now and then, and is evicted: explained, and counted below.
  // It must wait long enough to read what lies in their sockets: a close frame is behind it.
  stalls: ['slow', '--allow-closes', '--settle', '15s', '--connections', '60', '--stalled-percent', '10', '--payload', '16384', '--rate', '100'],
  storms: ['storm', '--connections', '300', '--rooms', '30', '--rate', '100'],
};

const scratch = mkdtempSync(join(tmpdir(), 'fanfare-soak-'));
const children = new Set();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function start(program, args, env = {}) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('FANFARE_')));
  const child = spawn(join(bin, program), args, { env: { ...clean, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const running = { child, said: '' };
  children.add(child);
  const hear = (text) => { running.said = (running.said + text).slice(-8_000); };
  child.stdout.setEncoding('utf8').on('data', hear);
  child.stderr.setEncoding('utf8').on('data', hear);
  running.ended = new Promise((done) => {
    child.once('error', (error) => done(error.code));
    child.once('close', (code, signal) => { children.delete(child); done(signal ?? code); });
  });
  running.ended.then((how) => { running.how = how; });
  return running;
}

function finish(code) {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
  process.exit(code);
}
process.on('SIGINT', () => finish(130));
process.on('SIGTERM', () => finish(143));

// The gateway ------------------------------------------------------------------------------------------------------

const gateway = start('fanfare', ['serve', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'], {
  FANFARE_API__KEYS: KEY, FANFARE_ROOMS__REAP_MS: '2000', FANFARE_LOG_LEVEL: 'warn,fanfare_server=info',
  FANFARE_NAMESPACES__KEPT__HISTORY_SIZE: '100', FANFARE_NAMESPACES__KEPT__HISTORY_MS: '10000',
  // It fills up while warming, so that it does not look like growth.
  FANFARE_API__CLOSES_MAX: '500',
  FANFARE_DRAIN__GRACE_MS: '0', FANFARE_DRAIN__WINDOW_MS: '2000',
});
let clients, admin;
for (let tries = 0; tries < 200 && !(clients && admin); tries += 1) {
  [, clients] = gateway.said.match(/clients on 127\.0\.0\.1:(\d+)/) ?? [];
  [, admin] = gateway.said.match(/API on 127\.0\.0\.1:(\d+)/) ?? [];
  if (gateway.how !== undefined) break;
  await sleep(50);
}
if (!clients || !admin) {
  console.error(`soak: the gateway did not start:\n${gateway.said}`);
  finish(1);
}
const pid = gateway.child.pid;

function usage() {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (name) => Number(status.match(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm'))[1]);
  return { rss_kib: kib('VmRSS'), anonymous_kib: kib('RssAnon'), descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

async function metrics() {
  const page = await (await fetch(`http://127.0.0.1:${admin}/metrics`, { headers: { connection: 'close' } })).text();
  const samples = page.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]);
  const sum = (name) => samples.filter(([key]) => key === name || key.startsWith(`${name}{`)).reduce((total, [, value]) => total + value, 0);
  return { sum, by: (name) => samples.filter(([key, value]) => key.startsWith(`${name}{`) && value > 0) };
}

// The load ---------------------------------------------------------------------------------------------------------

const begun = Date.now();
const end = begun + minutes * 60_000;
const total = { runs: 0, expected: 0, delivered: 0, announced: 0, closed_stalled: 0, missing: 0, duplicate: 0, out_of_order: 0, corrupt: 0, foreign: 0, overannounced: 0 };
const faults = [];
const samples = [];

async function lane(name, args) {
  for (let round = 0; Date.now() < end && gateway.how === undefined; round += 1) {
    // Who is evicted and does not read is cut off heartbeat.close_ms + write_ms (15 s) later, and then cannot read the reason any more:
    // the stalled ones begin to read before that.
    const seconds = Math.max(3, Math.min(name === 'stalls' ? 8 : ROUND_S, (end - Date.now()) / 1_000));
    const report = join(scratch, `${name}.json`);
    const common = ['--url', `ws://127.0.0.1:${clients}`, '--duration', `${seconds.toFixed(1)}s`, '--threads', '1', '--json', report];
    const http = args.includes('http') ? ['--admin', `http://127.0.0.1:${admin}`, '--key', KEY] : [];
    const run = start('fanfare-load', [...args, ...common, ...http]);
    const how = await run.ended;
    total.runs += 1;
    if (how !== 0) faults.push(`${name}, round ${round}: ended with ${how}: ${run.said.trim().split('\n').slice(-3).join(' / ')}`);
    if (how !== 0 && how !== 1) continue;
    const { audit, closes_of_stalled } = JSON.parse(readFileSync(report, 'utf8'));
    for (const [key, value] of Object.entries(audit)) total[key] = (total[key] ?? 0) + value;
    total.closed_stalled += closes_of_stalled;
  }
}

async function sampling() {
  let told = 0;
  while (Date.now() < end && gateway.how === undefined) {
    await sleep(SAMPLE_MS);
    if (gateway.how !== undefined) return;
    const at_s = (Date.now() - begun) / 1_000;
    const seen = usage();
    samples.push({ at_s, ...seen });
    if (Date.now() - told < TELL_MS) continue;
    told = Date.now();
    const now = await metrics();
    console.error(`soak: ${Math.floor(at_s / 60)}m${String(Math.floor(at_s % 60)).padStart(2, '0')}s of ${minutes}m · ${seen.rss_kib} KiB · ${seen.descriptors} descriptors · ${now.sum('fanfare_connections')} connections · ${now.sum('fanfare_rooms')} rooms · ${now.sum('fanfare_delivered_total')} delivered · ${now.sum('fanfare_evicted_total')} evicted · ${faults.length} faults`);
  }
}

const idle = usage();
console.error(`soak: gateway ${pid}, ${Object.keys(LANES).length} lanes for ${minutes} minutes, rounds of ${ROUND_S} s`);
await Promise.all([...Object.entries(LANES).map(([name, args]) => lane(name, args)), sampling()]);

// The verdict ------------------------------------------------------------------------------------------------------

/** Slope of a line through means of blocks, KiB an hour, with its standard error: neighbouring samples are not independent, blocks nearly are. */
function slope(samples) {
  const warm = samples.filter(({ at_s }) => at_s >= (minutes < VERDICT_MINUTES ? 30 : Math.max(180, minutes * 60 * 0.25)));
  const blocks = Math.min(12, Math.floor(warm.length / 4));
  if (blocks < 4) return null;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const points = Array.from({ length: blocks }, (_, block) => {
    const part = warm.slice(Math.floor(block * warm.length / blocks), Math.floor((block + 1) * warm.length / blocks));
    return [mean(part.map(({ at_s }) => at_s / 3_600)), mean(part.map(({ rss_kib }) => rss_kib))];
  });
  const [x, y] = [mean(points.map(([at]) => at)), mean(points.map(([, kib]) => kib))];
  const spread = points.reduce((sum, [at]) => sum + (at - x) ** 2, 0);
  const per_hour = points.reduce((sum, [at, kib]) => sum + (at - x) * (kib - y), 0) / spread;
  const rest = points.reduce((sum, [at, kib]) => sum + (kib - y - per_hour * (at - x)) ** 2, 0);
  return { per_hour, error: Math.sqrt(rest / (blocks - 2) / spread), mean: y, grown: per_hour * (points.at(-1)[0] - points[0][0]) };
}

let well = true;
const say = (is_well, text) => {
  well &&= is_well;
  console.log(`${is_well ? 'well  ' : 'FAILED'} ${text}`);
};

if (gateway.how !== undefined) {
  say(false, `the gateway ended with ${gateway.how}:\n${gateway.said}`);
  finish(1);
}
for (let tries = 0; tries < 200 && (await metrics()).sum('fanfare_connections') > 0; tries += 1) await sleep(50);
// Empty rooms are reaped in the next sweeps, and histories when they are old.
for (let tries = 0; tries < 300 && (await metrics()).sum('fanfare_rooms') > 0; tries += 1) await sleep(100);
await sleep(500);
const last = await metrics();
const left = usage();
const unexplained = total.missing + total.duplicate + total.out_of_order + total.corrupt + total.foreign + total.overannounced;
say(unexplained === 0, `loss: ${total.delivered} of ${total.expected} owed deliveries in ${total.runs} runs, ${total.announced} announced as missing, unexplained ${unexplained}`);
say(faults.length === 0, `runs: ${faults.length} faults${faults.map((fault) => `\n         ${fault}`).join('')}`);
const accepted = last.by('fanfare_handshakes_total').find(([key]) => key.includes('accepted'))?.[1] ?? 0;
const closed = last.sum('fanfare_closes_total');
say(accepted === closed && last.sum('fanfare_connections') === 0,
  `closes: ${accepted} let in, ${closed} closed: ${last.by('fanfare_closes_total').map(([key, value]) => `${key.match(/"(.*)"/)[1]} ${value}`).join(', ')}; of them ${total.closed_stalled} told to stall`);
say(last.sum('fanfare_rooms') === 0 && last.sum('fanfare_subscriptions') === 0, `rooms: ${last.sum('fanfare_rooms')} and ${last.sum('fanfare_subscriptions')} subscriptions are left, ${last.sum('fanfare_rooms_reaped_total')} reaped`);
say(last.sum('fanfare_outbox_bytes') === 0, `queues: ${last.sum('fanfare_outbox_bytes')} bytes are left`);
say(left.descriptors <= idle.descriptors + 2, `descriptors: ${idle.descriptors} before, ${Math.max(...samples.map(({ descriptors }) => descriptors))} at most, ${left.descriptors} when all had left`);
const line = slope(samples);
if (line === null) {
  console.log('       memory: too short for a slope; take 3 minutes or more');
} else {
  // A leak is growth that is more than chance, and more than little: 2 % of the memory in the time that was looked at.
  const leaks = line.per_hour - 3 * line.error > 0 && line.grown > line.mean * 0.02;
  const told = minutes < VERDICT_MINUTES ? (_, text) => console.log(`       ${text} (no verdict: take ${VERDICT_MINUTES} minutes or more)`) : say;
  told(!leaks, `memory: ${line.per_hour >= 0 ? '+' : ''}${line.per_hour.toFixed(0)} KiB an hour ± ${line.error.toFixed(0)}, around ${line.mean.toFixed(0)} KiB; ${idle.rss_kib} KiB before, ${Math.max(...samples.map(({ rss_kib }) => rss_kib))} at most, ${left.rss_kib} when all had left`);
}
gateway.child.kill('SIGTERM');
const how = await gateway.ended;
say(how === 0, `the gateway left with ${how}`);
finish(well ? 0 : 1);
