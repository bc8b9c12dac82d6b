// The scenarios: what fanfare-load is asked for, and which of its figures are shown.
// What `warm` asks for comes before, against the same process, and does not count: just-in-time compilers get their time.
// A figure: its title, where it stands in the report, its unit, digits, and whether less of it is better.

const cpu = { title: "server CPU per delivery", unit: "µs", digits: 2, less: true, of: (r) => r.gateway?.cpu_us_per_delivery };
const delivered = { title: "deliveries", unit: "/s", digits: 0, less: false, of: (r) => r.delivered_per_second };
const p50 = { title: "p50", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p50 / 1000 };
const p99 = { title: "p99", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p99 / 1000 };
const own = { title: "generator CPU per delivery", unit: "µs", digits: 2, aside: true, of: (r) => r.own_cpu_us_per_delivery };
const MIB = 1024;

export const scenarios = [
  {
    id: "fanout-1",
    title: "Fan-out: 1 room × 1,000, one message outstanding",
    text: "The publisher sends its next message when the last of 1,000 subscribers has the one before. 128 bytes.",
    args: ["fanout", "--connections", "1000", "--outstanding", "1"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own],
  },
  {
    id: "fanout-16",
    title: "Fan-out: 1 room × 1,000, 16 messages outstanding",
    text: "As above with 16 messages on their way: who sends several messages with one system call has the advantage.",
    args: ["fanout", "--connections", "1000", "--outstanding", "16"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own],
  },
  {
    id: "rate",
    title: "Fixed rate: 100,000 deliveries a second",
    text: "1 room × 1,000, 100 messages a second at computed times. Latency counts from when a message was due, so a server that falls behind cannot hide it (no coordinated omission).",
    args: ["rate", "--connections", "1000", "--rate", "100"],
    seconds: 3, rounds: 3, warm: true, figures: [p99, cpu, p50, delivered, own],
  },
  {
    id: "rooms",
    title: "Many small rooms: 1,000 rooms × 5, 50,000 deliveries a second",
    text: "10,000 messages a second, spread evenly over the rooms.",
    args: ["rooms", "--connections", "5000", "--rooms", "1000", "--rate", "10000"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, p50, p99, delivered, own],
  },
  {
    id: "echo-1",
    title: "Round trips: 100 connections, one message each",
    text: "Each connection sends its next message when it has the last one back. Through the server's echo path; NATS, Nchan and Socket.IO have none and use a room of one.",
    args: ["echo", "--connections", "100", "--outstanding", "1"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own], without: ["fanfare-text"],
  },
  {
    id: "echo-16",
    title: "Round trips: 100 connections, 16 messages each",
    text: "As above, 16 at a time.",
    args: ["echo", "--connections", "100", "--outstanding", "16"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own], without: ["fanfare-text"],
  },
  {
    id: "large",
    title: "Large messages: 16 KiB, 1 room × 200",
    text: "One message outstanding.",
    args: ["large", "--connections", "200", "--payload", "16384", "--outstanding", "1"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own],
  },
  {
    id: "idle",
    title: "Idle: 15,000 subscribed connections",
    text: "Memory is the growth of the server's resident memory by the connections, measured after they have been silent for a while; handshakes include the subscription. Then each room gets one message, which proves that all were there, and all leave.",
    args: ["idle", "--connections", "15000", "--rooms", "150", "--opening", "512", "--hold", "2s", "--leaving", "3s"],
    quick: ["idle", "--connections", "1500", "--rooms", "15", "--opening", "512", "--hold", "500ms", "--leaving", "500ms"],
    rounds: 2,
    figures: [
      { title: "memory per connection", unit: "bytes", digits: 0, less: true, of: (r) => r.gateway?.bytes_per_connection },
      { title: "handshakes", unit: "/s", digits: 0, less: false, of: (r) => r.opened_per_second },
      { title: "server CPU per handshake", unit: "µs", digits: 1, less: true, of: (r) => r.gateway?.cpu_us_per_connection },
      { title: "memory before", unit: "MiB", digits: 1, aside: true, of: (r) => r.gateway?.rss_kib_before / MIB },
      { title: "with all", unit: "MiB", digits: 1, aside: true, of: (r) => r.gateway?.rss_kib_open / MIB },
      { title: "when they had left", unit: "MiB", digits: 1, less: true, of: (r) => r.gateway?.rss_kib_after / MIB },
      { title: "generator CPU per handshake", unit: "µs", digits: 1, aside: true, of: (r) => r.own_cpu_us_per_connection },
    ],
  },
  {
    id: "slow",
    title: "Slow consumers: 1 % of 500 subscribers do not read",
    text: "4 KiB at 100 a second, first with all reading, then with 5 that do not. At the end these read what is left for them: it must be everything, or the server must have said what is not.",
    args: ["slow", "--connections", "500", "--payload", "4096", "--rate", "100"],
    seconds: 8, rounds: 1, warm: ["rate", "--connections", "500", "--payload", "4096", "--rate", "100"],
    figures: [
      { title: "p99 of the others", unit: "ms", digits: 2, less: true, of: (r) => r.slow?.p99_us_with / 1000 },
      { title: "p99 without stalled ones", unit: "ms", digits: 2, less: true, of: (r) => r.slow?.p99_us_without / 1000 },
      { title: "ratio", unit: "×", digits: 2, less: true, of: (r) => r.slow?.ratio },
      { title: "stalled ones closed", unit: "", digits: 0, aside: true, of: (r) => r.slow?.closed },
      { title: "memory they cost at most", unit: "MiB", digits: 1, less: true, of: (r) => Math.max(0, r.slow?.peak_kib_with - r.gateway?.rss_kib_open) / MIB },
    ],
  },
  {
    id: "churn",
    title: "Churn: joining and leaving without pause",
    text: "100 connections join a room and leave it as fast as they can, while 10 rooms of 10 get 100 messages a second. By command where the dialect has one, else by connecting: these two cannot be compared with each other.",
    args: ["churn", "--connections", "100", "--rooms", "10", "--roamers", "100", "--rate", "100"],
    seconds: 2, rounds: 2,
    figures: [
      { title: "stays", unit: "/s", digits: 0, less: false, of: (r) => r.churn?.per_second },
      { title: "server CPU per stay", unit: "µs", digits: 1, less: true, of: (r) => r.churn?.gateway_cpu_us_each },
      { title: "joining p99", unit: "ms", digits: 2, less: true, of: (r) => r.churn?.joining_us.p99 / 1000 },
      { title: "p99 of those who stay", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p99 / 1000 },
      { title: "by", unit: "", text: true, aside: true, of: (r) => r.churn?.by },
    ],
  },
  {
    id: "storm",
    title: "Reconnect storm: 5,000 connections come back at once",
    text: "All connections are reset in the same moment and come back as fast as they are let in; a message in each room proves that all are there again.",
    args: ["storm", "--connections", "5000", "--rooms", "100", "--opening", "1024", "--publications", "100"],
    quick: ["storm", "--connections", "500", "--rooms", "100", "--opening", "512", "--publications", "100"],
    seconds: 1, rounds: 2,
    figures: [
      { title: "all back after", unit: "s", digits: 3, less: true, of: (r) => r.storm?.seconds },
      { title: "came back", unit: "/s", digits: 0, less: false, of: (r) => r.storm?.per_second },
      { title: "server CPU each", unit: "µs", digits: 1, less: true, of: (r) => r.storm?.gateway_cpu_us_each },
      { title: "failed attempts", unit: "", digits: 0, aside: true, of: (r) => r.storm?.retries },
    ],
  },
];
