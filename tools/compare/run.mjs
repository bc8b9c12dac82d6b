// Runs every scenario against every server, interleaved, and draws up the result.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { writeReport } from "./report.mjs";
import { scenarios } from "./scenarios.mjs";
import { servers } from "./servers.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { scenarios: { type: "string" }, servers: { type: "string" }, rounds: { type: "string" }, report: { type: "boolean" } },
});
const [bin, work] = positionals.map((path) => resolve(path));
const quick = Boolean(process.env.QUICK);
const known = servers(bin, work);
const pick = (asked, all, what) => {
  const names = asked?.split(",") ?? all;
  for (const name of names) if (!all.includes(name) && !known[name]) throw new Error(`${what} ${name} is unknown: ${all.join(", ")}`);
  return names;
};
const chosenServers = pick(values.servers, Object.keys(known).filter((id) => !known[id].onlyWhenAsked), "server");
const chosenScenarios = scenarios.filter(({ id }) => pick(values.scenarios, scenarios.map(({ id }) => id), "scenario").includes(id));
const partial = Boolean(values.scenarios || values.servers || values.rounds);
const resultsFile = join(work, `results${quick ? "-quick" : partial ? "-part" : ""}.json`);
// The server on one core, the generator on another; with one core, or without taskset, they share.
const pinned = cpus().length >= 2 && spawnSync("taskset", ["-c", "1", "true"]).status === 0;
const on = (core, file, args) => (pinned ? ["taskset", ["-c", String(core), file, ...args]] : [file, args]);

function freePort() {
  return new Promise((done, fail) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
    probe.on("error", fail);
  });
}

function answers(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => done(true)).on("error", () => done(false));
    socket.on("connect", () => socket.destroy());
  });
}

// Starts a server; gives its process and port once it accepts connections.
async function start(id) {
  const [port, other] = [await freePort(), await freePort()];
  const { file, args, env } = known[id].start(port, other);
  const log = join(work, `${id}.log`);
  const [command, whole] = on(0, file, args);
  const child = spawn(command, whole, { stdio: ["ignore", openSync(log, "w"), openSync(log, "a")], env: { ...process.env, ...env } });
  const ended = new Promise((done) => child.on("exit", done).on("error", done));
  child.ended = ended;
  for (let tries = 0; tries < 400; tries++) {
    if (child.exitCode !== null || child.pid === undefined) break;
    if (await answers(port)) {
      await sleep(150);
      return { child, port };
    }
    await sleep(25);
  }
  await stop(child);
  const words = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").at(-1) : "";
  throw new Error(`it did not start: ${words || "no word of it"}`);
}

async function stop(child) {
  if (child.pid === undefined) return;
  child.kill("SIGTERM");
  const late = sleep(4000).then(() => child.exitCode === null && child.signalCode === null && child.kill("SIGKILL"));
  await Promise.race([child.ended, late]);
  await child.ended;
}

// Runs fanfare-load; gives its report, or says why there is none.
async function load(what, id, port, pid) {
  const json = join(work, "report.json");
  rmSync(json, { force: true });
  const [command, args] = on(1, join(bin, "fanfare-load"), [
    ...what, "--dialect", known[id].dialect, "--url", `ws://127.0.0.1:${port}`,
    "--pid", String(pid), "--threads", "1", "--settle", "4s", "--json", json,
  ]);
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (bytes) => (said += bytes));
  const timer = setTimeout(() => child.kill("SIGKILL"), 120_000);
  const code = await new Promise((done) => child.on("close", done));
  clearTimeout(timer);
  if (!existsSync(json)) throw new Error(said.trim().split("\n").at(-1) || `fanfare-load ended with ${code}`);
  return JSON.parse(readFileSync(json, "utf8"));
}

// A port that was free may be taken by the time the server binds it: then it is started on another.
async function startAnew(id) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(id);
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}

// One run of one scenario against one server, which is started for it.
async function run(scenario, id) {
  const { child, port } = await startAnew(id);
  try {
    const seconds = quick ? Math.min(scenario.seconds, 2) * 0.4 : scenario.seconds;
    const duration = scenario.seconds ? ["--duration", `${Math.round(seconds * 1000)}ms`] : [];
    if (scenario.warm) {
      const what = scenario.warm === true ? scenario.args : scenario.warm;
      await load([...what, "--duration", quick ? "200ms" : "500ms"], id, port, child.pid);
    }
    return await load([...((quick && scenario.quick) || scenario.args), ...duration], id, port, child.pid);
  } finally {
    await stop(child);
  }
}

function machine() {
  const text = (file) => (existsSync(file) ? readFileSync(file, "utf8").trim() : "unknown");
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0].model.trim(), cores: cpus().length, memory: `${(totalmem() / 2 ** 30).toFixed(0)} GiB`, kernel: release().split("-")[0],
    uring: { 0: "allowed", 1: "allowed to some", 2: "forbidden" }[text("/proc/sys/kernel/io_uring_disabled")] ?? "unknown",
    pinned, load: loadavg()[0].toFixed(2),
  };
}

async function measure() {
  const begun = Date.now();
  const results = { quick, machine: machine(), versions: {}, missing: {}, cells: {} };
  if (results.machine.load > 0.7) console.error(`compare: the machine is not quiet (load ${results.machine.load}): the figures will say so`);
  for (const id of chosenServers) {
    const missing = join(work, "missing", id);
    if (existsSync(missing)) results.missing[id] = readFileSync(missing, "utf8").trim();
    else {
      try {
        results.versions[id] = known[id].version();
      } catch (error) {
        results.missing[id] = `it is not there: ${error.message.trim().split("\n").at(-1)}`;
      }
    }
  }
  for (const scenario of chosenScenarios) {
    const rounds = values.rounds ? Number(values.rounds) : quick ? 1 : scenario.rounds;
    const cells = (results.cells[scenario.id] = {});
    for (let round = 0; round < rounds; round++) {
      // Another one begins each round, so that nobody always follows the same one.
      const order = chosenServers.map((_, index) => chosenServers[(index + round * 3) % chosenServers.length]);
      for (const id of order) {
        if (results.missing[id] || scenario.without?.includes(id)) continue;
        const cell = (cells[id] ??= { reports: [], failures: [] });
        if (cell.failures.length > 0) continue;
        try {
          const report = await run(scenario, id);
          cell.reports.push(report);
          const figure = scenario.figures[0];
          const value = figure.of(report);
          const seconds = ((Date.now() - begun) / 1000).toFixed(0);
          console.error(`${seconds.padStart(5)} s  ${scenario.id} ${round + 1}/${rounds}  ${known[id].name.padEnd(28)} ${Number(value).toFixed(figure.digits)} ${figure.unit}${report.accounted ? "" : "  NOT ACCOUNTED: " + report.faults.join(", ")}`);
        } catch (error) {
          cell.failures.push(error.message);
          console.error(`compare: ${scenario.id}: ${known[id].name}: ${error.message}`);
        }
      }
    }
    results.minutes = (Date.now() - begun) / 60_000;
    results.loadAfter = loadavg()[0].toFixed(2);
    writeFileSync(resultsFile, JSON.stringify(results));
  }
  return results;
}

mkdirSync(work, { recursive: true });
const results = values.report ? JSON.parse(readFileSync(resultsFile, "utf8")) : await measure();
// Only the whole is worth a page in docs/.
const out = quick ? join(work, "quick") : partial ? join(work, "part") : resolve("docs");
const failed = writeReport(results, known, scenarios, out);
console.error(`compare: wrote ${join(out, "benchmarks.md")}`);
process.exit(failed ? 1 : 0);
