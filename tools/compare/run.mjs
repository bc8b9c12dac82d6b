// Runs scenarios against servers, interleaved, stores each scenario's results with their date, and draws up the page from all
// that are stored.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { load, pinned, start, stop } from "./processes.mjs";
import { NOISE, writeReport } from "./report.mjs";
import { scenarios } from "./scenarios.mjs";
import { servers } from "./servers.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: "string" }, servers: { type: "string" }, rounds: { type: "string" },
    report: { type: "boolean" }, list: { type: "boolean" },
  },
});
const [bin, work] = positionals.map((path) => resolve(path));
const quick = Boolean(process.env.QUICK);
const known = servers(bin, work);

function giveUp(words) {
  console.error(`compare: ${words}`);
  process.exit(2);
}

function chosen(asked, all, what) {
  const names = asked?.split(",");
  for (const name of names ?? []) if (!all.includes(name)) giveUp(`${what} ${name} is unknown; there are ${all.join(", ")}`);
  return (name) => !names || names.includes(name);
}
const isScenario = chosen(values.only, scenarios.map(({ id }) => id), "scenario");
const isServer = chosen(values.servers, Object.keys(known), "server");

// Only whole scenarios are worth a page in docs/: figures of some servers cannot be set beside those of another hour.
const kind = quick ? "quick" : values.servers ? "part" : "";
const store = join(work, kind);
const resultFile = (id) => join(store, `${id}.json`);

// The servers that take part in a scenario.
function rowsOf(scenario) {
  return Object.entries(known).filter(([id, server]) => {
    if (!isServer(id) || scenario.without?.includes(id)) return false;
    if (scenario.rows === "own") return server.onlyIn === scenario.id;
    return !server.onlyIn && !(server.onlyWhenAsked && !values.servers) && (!scenario.pair || server.scales);
  }).map(([id]) => id);
}

const roundsOf = (scenario) => (values.rounds ? Number(values.rounds) : quick ? 1 : scenario.rounds);
const plain = (id, port, pid) => ["--dialect", known[id].dialect, "--url", `ws://127.0.0.1:${port}`, "--pid", String(pid)];

function wanted(scenario) {
  const seconds = quick ? Math.min(scenario.seconds, 2) * 0.4 : scenario.seconds;
  const duration = scenario.seconds ? ["--duration", `${Math.round(seconds * 1000)}ms`] : [];
  return [...((quick && scenario.quick) || scenario.args), ...duration];
}

// The server, with what the scenario sets for Fanfare.
function serverOf(scenario, id) {
  const server = known[id];
  if (server.kind !== "fanfare" || !scenario.settings) return server;
  const start = (...where) => {
    const command = server.start(...where);
    return { ...command, env: { ...command.env, ...scenario.settings } };
  };
  return { ...server, start };
}

// One run of one scenario against one server, which is started for it.
async function run(scenario, id) {
  const server = serverOf(scenario, id);
  const log = (cores) => join(work, `${id}-${cores}.log`);
  const started = [];
  try {
    if (scenario.pair) {
      for (const cores of [1, 2]) started.push(await start(server, log(cores), cores));
      const [one, two] = started;
      const other = ["--other-url", `ws://127.0.0.1:${two.port}`, "--other-pid", String(two.child.pid)];
      return await load(bin, work, [...wanted(scenario), ...plain(id, one.port, one.child.pid), ...other]);
    }
    started.push(await start(server, log(1), 1, 0));
    const [{ child, port, other }] = started;
    if (scenario.warm) {
      const what = scenario.warm === true ? scenario.args : scenario.warm;
      await load(bin, work, [...what, "--duration", quick ? "200ms" : "500ms", ...plain(id, port, child.pid)], 1);
    }
    const budget = scenario.budget && server.budget ? ["--memory-max", String(await server.budget(other))] : [];
    return await load(bin, work, [...wanted(scenario), ...budget, ...plain(id, port, child.pid)], 1);
  } finally {
    for (const { child } of started) await stop(child);
  }
}

function machine() {
  const text = (file) => (existsSync(file) ? readFileSync(file, "utf8").trim() : "unknown");
  return {
    cpu: cpus()[0].model.trim(), cores: cpus().length, memory: `${(totalmem() / 2 ** 30).toFixed(0)} GiB`, kernel: release().split("-")[0],
    uring: { 0: "allowed", 1: "allowed to some", 2: "forbidden" }[text("/proc/sys/kernel/io_uring_disabled")] ?? "unknown",
    pinned,
  };
}

// CPU time in ticks: of everything on this machine, and of this program with all that it has started and that has ended.
// The kernel's own work on the network is nobody's.
function ticks() {
  if (!existsSync("/proc/stat")) return undefined;
  const [user, nice, system] = readFileSync("/proc/stat", "utf8").split("\n")[0].split(/\s+/).slice(1).map(Number);
  const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ").map(Number);
  return { all: user + nice + system, ours: fields[11] + fields[12] + fields[13] + fields[14] };
}

// How much of a core everything else took meanwhile.
function others(before, seconds) {
  const after = ticks();
  return before && Math.max(0, (after.all - before.all - (after.ours - before.ours)) / 100 / seconds);
}

// The version of a server, or why it is not there.
const versions = {};
function versionOf(id) {
  if (versions[id]) return versions[id];
  const missing = join(work, "missing", id);
  if (existsSync(missing)) return (versions[id] = { missing: readFileSync(missing, "utf8").trim() });
  try {
    versions[id] = { version: known[id].version() };
  } catch (error) {
    versions[id] = { missing: `it is not there: ${error.message.trim().split("\n").at(-1)}` };
  }
  return versions[id];
}

const begun = Date.now();
const total = scenarios.filter(({ id }) => isScenario(id)).reduce((sum, scenario) => sum + rowsOf(scenario).length * roundsOf(scenario), 0);
let step = 0;

function tell(scenario, round, id, words) {
  const seconds = ((Date.now() - begun) / 1000).toFixed(0).padStart(5);
  console.error(`${seconds} s  ${String(step).padStart(3)}/${total}  ${scenario.id} ${round + 1}/${roundsOf(scenario)}  ${known[id].name.padEnd(28)} ${words}`);
}

async function attempt(scenario, round, id, cell) {
  step += 1;
  if (cell.failures.length > 0) return;
  try {
    const report = await run(scenario, id);
    cell.reports.push(report);
    const figure = scenario.figures[0];
    const value = figure.of(report);
    const words = Number.isFinite(value) ? value.toFixed(figure.digits) : "–";
    tell(scenario, round, id, `${words} ${figure.unit}${report.accounted ? "" : `  NOT ACCOUNTED: ${report.faults.join(", ")}`}`);
  } catch (error) {
    cell.failures.push(error.message);
    tell(scenario, round, id, `FAILED: ${error.message}`);
  }
}

async function measure(scenario) {
  const rows = rowsOf(scenario);
  if (rows.length === 0) return;
  const started = Date.now();
  const before = ticks();
  const result = { id: scenario.id, date: new Date().toISOString(), machine: machine(), versions: {}, missing: {}, cells: {} };
  for (const id of rows) {
    const { version, missing } = versionOf(id);
    if (missing) result.missing[id] = missing;
    else result.versions[id] = version;
  }
  const there = rows.filter((id) => !result.missing[id]);
  for (let round = 0; round < roundsOf(scenario); round++) {
    // Another one begins each round, so that nobody always follows the same one.
    const order = there.map((_, index) => there[(index + round * 3) % there.length]);
    for (const id of order) await attempt(scenario, round, id, (result.cells[id] ??= { reports: [], failures: [] }));
  }
  result.minutes = (Date.now() - started) / 60_000;
  result.others = others(before, (Date.now() - started) / 1000);
  if (result.others > NOISE) console.error(`compare: ${scenario.id}: other work took ${(result.others * 100).toFixed(0)} % of a core meanwhile`);
  writeFileSync(resultFile(scenario.id), JSON.stringify(result));
}

if (values.list) {
  for (const scenario of scenarios) console.log(`${scenario.id.padEnd(10)} ${scenario.title}`);
  process.exit(0);
}
mkdirSync(store, { recursive: true });
if (!values.report) for (const scenario of scenarios) if (isScenario(scenario.id)) await measure(scenario);
const results = {};
for (const { id } of scenarios) if (existsSync(resultFile(id))) results[id] = JSON.parse(readFileSync(resultFile(id), "utf8"));
if (Object.keys(results).length === 0) giveUp(`there are no results in ${store}`);
const lacking = scenarios.filter(({ id }) => !results[id]).map(({ id }) => id);
let out = kind ? store : resolve("docs");
if (!kind && lacking.length > 0) {
  out = join(work, "part");
  console.error(`compare: docs/benchmarks.md stays as it is, for there are no results of ${lacking.join(", ")} here; get them with --only ${lacking.join(",")}`);
}
const failed = writeReport(results, known, scenarios, out, quick);
console.error(`compare: wrote ${join(out, "benchmarks.md")}`);
process.exit(failed ? 1 : 0);
