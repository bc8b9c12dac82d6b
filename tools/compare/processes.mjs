// Starting servers and the load generator, and ending them.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { cpus } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

// The server on one core, the generator on another; with one core, or without taskset, they share.
export const pinned = cpus().length >= 2 && spawnSync("taskset", ["-c", "1", "true"]).status === 0;
const on = (core, file, args) => (pinned && core !== undefined ? ["taskset", ["-c", String(core), file, ...args]] : [file, args]);

// Below the ports that the system and the load generator give to outgoing connections, so that none of those is in the way.
const [FIRST, LAST] = [10_000, 16_000];
let next = FIRST + (process.pid % 3000);

function isFree(port) {
  return new Promise((done) => {
    const probe = createServer().on("error", () => done(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => done(true)));
  });
}

// Never the same one twice in a row.
async function freePort() {
  for (let tries = 0; tries < LAST - FIRST; tries++) {
    const port = next;
    next = next < LAST ? next + 1 : FIRST;
    if (await isFree(port)) return port;
  }
  throw new Error(`no port from ${FIRST} to ${LAST} is free`);
}

function answers(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => done(true)).on("error", () => done(false));
    socket.on("connect", () => socket.destroy());
  });
}

// Starts a server once; gives its process and ports when it accepts connections.
async function startOnce(server, log, cores, core) {
  const [port, other] = [await freePort(), await freePort()];
  const { file, args, env } = server.start(port, other, cores);
  const [command, whole] = on(core, file, args);
  const child = spawn(command, whole, { stdio: ["ignore", openSync(log, "w"), openSync(log, "a")], env: { ...process.env, ...env } });
  child.ended = new Promise((done) => child.on("exit", done).on("error", done));
  for (let tries = 0; tries < 400; tries++) {
    if (child.exitCode !== null || child.pid === undefined) break;
    if (await answers(port)) {
      await sleep(150);
      return { child, port, other };
    }
    await sleep(25);
  }
  await stop(child);
  const words = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").at(-1) : "";
  throw new Error(`it did not start: ${words || "no word of it"}`);
}

// A port that was free may be taken by the time the server binds it: then it is started on another.
export async function start(server, log, cores, core) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(server, log, cores, core);
    } catch (error) {
      if (attempt === 3) throw error;
      console.error(`compare: ${server.name}: ${error.message}; once more, on another port`);
    }
  }
}

export async function stop(child) {
  if (child.pid === undefined) return;
  child.kill("SIGTERM");
  const late = sleep(4000).then(() => child.exitCode === null && child.signalCode === null && child.kill("SIGKILL"));
  await Promise.race([child.ended, late]);
  await child.ended;
}

// Runs fanfare-load; gives its report, or says why there is none.
export async function load(bin, work, what, core) {
  const json = join(work, "last-report.json");
  rmSync(json, { force: true });
  const [command, args] = on(core, join(bin, "fanfare-load"), [...what, "--threads", "1", "--settle", "4s", "--json", json]);
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (bytes) => (said += bytes));
  const timer = setTimeout(() => child.kill("SIGKILL"), 120_000);
  const code = await new Promise((done) => child.on("close", done));
  clearTimeout(timer);
  if (!existsSync(json)) throw new Error(said.trim().split("\n").at(-1) || `fanfare-load ended with ${code}`);
  return JSON.parse(readFileSync(json, "utf8"));
}
