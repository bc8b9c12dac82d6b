// The servers: how each is started on a port and for how many cores, what fanfare-load speaks to it, and its version.
// `scales`: it can use more than one core. `onlyIn`: it is a row of that scenario and of no other.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export function servers(bin, work) {
  const npm = join(work, "npm");
  const debian = join(work, "debian");
  const filled = (name, to, values) => {
    const text = readFileSync(new URL(`servers/${name}`, import.meta.url), "utf8");
    writeFileSync(to, text.replace(/@([A-Z_]+)@/g, (_, key) => values[key] ?? ""));
    return to;
  };
  const said = (file, args, pattern) => {
    try {
      const text = execFileSync(file, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
      return pattern.exec(text)?.[1] ?? text.trim().split("\n")[0];
    } catch {
      return "unknown";
    }
  };
  const packaged = (name) => JSON.parse(readFileSync(join(npm, "node_modules", name, "package.json"), "utf8")).version;
  const debianVersion = (name) => {
    const files = execFileSync("ls", [join(debian, "packages")], { encoding: "utf8" }).split("\n");
    const file = files.find((file) => file.startsWith(`${name}_`) && file.endsWith(".deb"));
    return decodeURIComponent(file?.split("_")[1] ?? "unknown");
  };
  const version = (env) => {
    const lines = execFileSync(join(bin, "fanfare"), ["version"], { encoding: "utf8", env: { ...process.env, ...env } }).trim();
    const path = env.FANFARE_SEND_PATH ? [`send path: ${env.FANFARE_SEND_PATH}`] : [];
    return [...lines.split("\n").filter((line) => !path.length || !line.startsWith("send path")), ...path].join("; ");
  };
  const fanfare = (dialect, more = {}) => ({
    kind: "fanfare", dialect, version: () => version(more),
    // What all outboxes together may take, as it says itself.
    budget: async (other) => {
      const text = await (await fetch(`http://127.0.0.1:${other}/metrics`)).text();
      return Number(/^fanfare_outbox_bytes_max\s+(\d+)/m.exec(text)[1]);
    },
    start: (port, other, cores) => ({
      file: join(bin, "fanfare"),
      args: ["dev", "--shards", String(cores), "--listen", `127.0.0.1:${port}`, "--admin", `127.0.0.1:${other}`, "--log", "text"],
      env: more,
    }),
  });
  const floor = (mode) => ({
    kind: "floor", dialect: "broadcast", version: () => "fanfare-floor of this repository",
    start: (port) => ({ file: join(bin, "fanfare-floor"), args: ["--port", String(port), "--mode", mode] }),
  });
  const node = (script, dialect, name) => ({
    kind: "peer", dialect, version: () => `${packaged(name)} on Node ${process.version}`,
    start: (port) => ({ file: process.execPath, args: [join(npm, script)], env: { PORT: String(port), NODE_ENV: "production" } }),
  });
  const coalescing = (ms) => ({
    name: `coalesce_ms = ${ms}`, onlyIn: "coalesce", ...fanfare("json", { FANFARE_NAMESPACES__DEFAULT__COALESCE_MS: String(ms) }),
  });
  return {
    fanfare: { name: "Fanfare, JSON", scales: true, ...fanfare("json") },
    "fanfare-text": { name: "Fanfare, text", ...fanfare("text") },
    "fanfare-writev": { name: "Fanfare, JSON, without io_uring", onlyWhenAsked: true, ...fanfare("json", { FANFARE_SEND_PATH: "writev" }) },
    "coalesce-0": coalescing(0),
    "coalesce-1": coalescing(1),
    "coalesce-5": coalescing(5),
    "coalesce-10": coalescing(10),
    "floor-send": { name: "floor: send", ...floor("send") },
    "floor-coalesce": { name: "floor: coalesce", ...floor("coalesce") },
    "floor-uring": { name: "floor: io_uring + coalesce", ...floor("uring") },
    bun: {
      name: "Bun", kind: "peer", dialect: "broadcast", version: () => said(join(work, "bun/bun"), ["--version"], /(\S+)/),
      start: (port) => ({ file: join(work, "bun/bun"), args: [join(npm, "bun.js")], env: { PORT: String(port), NODE_ENV: "production" } }),
    },
    ws: { name: "Node ws", ...node("ws.mjs", "broadcast", "ws") },
    socketio: { name: "Socket.IO", ...node("socketio.mjs", "socket-io", "socket.io") },
    nats: {
      name: "NATS over WebSocket", kind: "peer", scales: true, dialect: "nats", version: () => `${debianVersion("nats-server")} (Debian)`,
      start: (port, other, cores) => ({
        file: ["usr/sbin/nats-server", "usr/bin/nats-server"].map((path) => join(debian, path)).find(existsSync) ?? "nats-server",
        args: ["-c", filled("nats.conf", join(work, `nats-${cores}.conf`), { PORT: port, CLIENT_PORT: other })],
        env: { GOMAXPROCS: String(cores) },
      }),
    },
    nchan: {
      name: "Nchan", kind: "peer", scales: true, dialect: "nchan",
      version: () => `${debianVersion("libnginx-mod-nchan")} in nginx ${debianVersion("nginx")} (Debian)`,
      start: (port, _other, cores) => {
        const dir = join(work, `nginx-${cores}`);
        mkdirSync(dir, { recursive: true });
        const user = process.getuid?.() === 0 ? "user root;" : "";
        const values = { MODULES: join(debian, "usr/lib/nginx/modules"), DIR: dir, PORT: port, USER: user, CORES: cores };
        return { file: join(debian, "usr/sbin/nginx"), args: ["-p", dir, "-c", filled("nchan.conf", join(dir, "nginx.conf"), values)] };
      },
    },
  };
}
