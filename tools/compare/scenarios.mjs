// The scenarios: what fanfare-load is asked for, and which of its figures are shown.
// What `warm` asks for comes before, against the same process, and does not count: just-in-time compilers get their time.
// A figure: its title, where it stands in the report, its unit, digits, and whether less of it is better.
// A goal: what is to hold, the figure it looks at (of `one`, a server's median of the n-th figure, and `peers`, the best of all
// peers), and how much that may be at most, or must be at least.
// `settings` are given to Fanfare, `budget`: it says how much memory it may take for outboxes.
// `rows: "own"`: only servers that name the scenario in `onlyIn`. `pair`: two processes of each server, for one core and for two.

const cpu = { title: "server CPU per delivery", unit: "µs", digits: 2, less: true, of: (r) => r.gateway?.cpu_us_per_delivery };
const delivered = { title: "deliveries", unit: "/s", digits: 0, less: false, of: (r) => r.delivered_per_second };
const p50 = { title: "p50", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p50 / 1000 };
const p99 = { title: "p99", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p99 / 1000 };
const own = { title: "generator CPU per delivery", unit: "µs", digits: 2, aside: true, of: (r) => r.own_cpu_us_per_delivery };
const MIB = 1024;
const slow = (index, digits, of) => ({ digits, of: (r) => r.slow?.[index] && of(r.slow[index]) });

export const scenarios = [
  {
    id: "fanout-1",
    title: "Fan-out: 1 room × 1,000, one message outstanding",
    text: "The publisher sends its next message when the last of 1,000 subscribers has the one before. 128 bytes.",
    args: ["fanout", "--connections", "1000", "--outstanding", "1"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own],
    goals: [
      { text: "CPU per delivery ÷ io_uring floor", of: (one) => one("fanfare") / one("floor-uring"), most: 1.15 },
      { text: "CPU per delivery ÷ best peer", of: (one, peers) => one("fanfare") / peers(), most: 0.8 },
    ],
  },
  {
    id: "fanout-16",
    title: "Fan-out: 1 room × 1,000, 16 messages outstanding",
    text: "As above with 16 messages on their way: who sends several messages with one system call has the advantage.",
    args: ["fanout", "--connections", "1000", "--outstanding", "16"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, delivered, p50, p99, own],
    goals: [
      { text: "CPU per delivery ÷ coalescing floor", of: (one) => one("fanfare") / one("floor-coalesce"), most: 1.15 },
      { text: "CPU per delivery ÷ best peer", of: (one, peers) => one("fanfare") / peers(), most: 1 },
    ],
  },
  {
    id: "rate",
    title: "Fixed rate: 100,000 deliveries a second",
    text: "1 room × 1,000, 100 messages a second at computed times. Latency counts from when a message was due, so a server that falls behind cannot hide it (no coordinated omission).",
    args: ["rate", "--connections", "1000", "--rate", "100"],
    seconds: 3, rounds: 3, warm: true, figures: [p99, cpu, p50, delivered, own],
    goals: [
      { text: "p99 ÷ best peer", of: (one, peers) => one("fanfare") / peers(), most: 1 },
      { text: "CPU per delivery ÷ io_uring floor", of: (one) => one("fanfare", 1) / one("floor-uring", 1), most: 1.15 },
    ],
  },
  {
    id: "rooms",
    title: "Many small rooms: 1,000 rooms × 5, 50,000 deliveries a second",
    text: "10,000 messages a second, spread evenly over the rooms.",
    args: ["rooms", "--connections", "5000", "--rooms", "1000", "--rate", "10000"],
    seconds: 2, rounds: 3, warm: true, figures: [cpu, p50, p99, delivered, own],
    goals: [{ text: "CPU per delivery ÷ coalescing floor", of: (one) => one("fanfare") / one("floor-coalesce"), most: 1.15 }],
  },
  {
    id: "echo-1",
    title: "Round trips: 100 connections, one message each",
    text: "Each connection sends its next message when it has the last one back. Through the server's echo path; NATS, Nchan and Socket.IO have none and use a room of one.",
    args: ["echo", "--connections", "100", "--outstanding", "1"],
    seconds: 2, rounds: 2, warm: true, figures: [cpu, delivered, p50, p99, own], without: ["fanfare-text"],
    goals: [{ text: "CPU per delivery ÷ best peer", of: (one, peers) => one("fanfare") / peers(), most: 1 }],
  },
  {
    id: "echo-16",
    title: "Round trips: 100 connections, 16 messages each",
    text: "As above, 16 at a time.",
    args: ["echo", "--connections", "100", "--outstanding", "16"],
    seconds: 2, rounds: 2, warm: true, figures: [cpu, delivered, p50, p99, own], without: ["fanfare-text"],
    goals: [{ text: "CPU per delivery ÷ best peer", of: (one, peers) => one("fanfare") / peers(), most: 1 }],
  },
  {
    id: "large",
    title: "Large messages: 16 KiB, 1 room × 200",
    text: "One message outstanding.",
    args: ["large", "--connections", "200", "--payload", "16384", "--outstanding", "1"],
    seconds: 2, rounds: 2, warm: true, figures: [cpu, delivered, p50, p99, own],
    goals: [{ text: "CPU per delivery ÷ io_uring floor", of: (one) => one("fanfare") / one("floor-uring"), most: 1.2 }],
  },
  {
    id: "idle",
    title: "Idle: 15,000 subscribed connections",
    text: "Memory is the growth of the server's resident memory by the connections, measured after they have been silent for a while; handshakes include the subscription. Then each room gets one message, which proves that all were there, and all leave. Of what Fanfare keeps then, most is the close ledger: it remembers the last 10,000 closes (`api.closes_max`), some 250 bytes each.",
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
    goals: [
      { text: "bytes per connection", of: (one) => one("fanfare"), most: 1024 },
      { text: "handshakes a second ÷ best peer", of: (one, peers) => one("fanfare", 1) / peers(1), least: 1 },
      { text: "memory when all have left ÷ before", of: (one) => one("fanfare", 5) / one("fanfare", 3), most: 1.1 },
    ],
  },
  {
    id: "fairness",
    title: "Fairness: 5 members beside a saturated room of 1,000",
    text: "In the big room 16 messages are on their way at all times; the small one, on the same shard, gets 100 messages a second at computed times (no coordinated omission). A thread of the generator is there for the small room alone; how late it was itself is shown.",
    args: ["fairness", "--connections", "1000", "--outstanding", "16", "--small", "5", "--small-rate", "100"],
    seconds: 3, rounds: 2, warm: ["fanout", "--connections", "1000", "--outstanding", "16"],
    figures: [
      { title: "p99 of the small room", unit: "ms", digits: 2, less: true, of: (r) => r.fairness?.latency_us.p99 / 1000 },
      { title: "p50 of the small room", unit: "ms", digits: 2, less: true, of: (r) => r.fairness?.latency_us.p50 / 1000 },
      { title: "deliveries in the big room", unit: "/s", digits: 0, less: false, of: (r) => r.fairness?.big_delivered_per_second },
      { title: "p99 of the big room", unit: "ms", digits: 2, less: true, of: (r) => r.latency_us.p99 / 1000 },
      { title: "generator late, p99", unit: "ms", digits: 2, aside: true, of: (r) => r.fairness?.send_lag_us.p99 / 1000 },
    ],
    goals: [
      { text: "p99 of the small room, ms", of: (one) => one("fanfare"), most: 6 },
      { text: "p50 of the small room, ms", of: (one) => one("fanfare", 1), most: 1 },
    ],
  },
  {
    id: "shards",
    title: "Two shards on two cores",
    text: `One room × 1,000, members on all shards, 4 publishers, 16 messages on their way. To feed and read a server that uses
both cores of a machine, a generator would need a third. So all members but 8 do not read while messages go out: the
messages lie in the receive buffers of their sockets, which are large enough for all of a burst, and cost the generator nothing. The 8
pace the publishers and say when a burst of 2,000,000 deliveries is over. That is the server with the sending and the receiving half of the
kernel's work, not the readers' system calls. Then everybody reads, and everything is audited: each member, whatever its shard,
must have got all messages of all publishers in the one order of the room. Bursts go in turn to a process for one core and to one
for two; nothing is pinned. What the generator needs it takes from the same two cores, which one shard hardly feels and two do: the
ratio is too small rather than too large. Servers that cannot use a second core are left out. (NATS promises the order of each publisher, not one order of all: that is why
its audit finds more than one.)`,
    args: ["shards", "--connections", "1000", "--outstanding", "16"],
    quick: ["shards", "--connections", "1000", "--outstanding", "16", "--bursts", "1"],
    pair: true, rounds: 1,
    figures: [
      { title: "two ÷ one", unit: "×", digits: 2, less: false, of: (r) => r.shards?.ratio },
      { title: "deliveries for one core", unit: "/s", digits: 0, less: false, of: (r) => r.shards?.one.delivered_per_second },
      { title: "for two", unit: "/s", digits: 0, less: false, of: (r) => r.shards?.other?.delivered_per_second },
      { title: "server CPU per delivery, one", unit: "µs", digits: 3, less: true, of: (r) => r.shards?.one.cpu_us_per_delivery },
      { title: "two", unit: "µs", digits: 3, less: true, of: (r) => r.shards?.other?.cpu_us_per_delivery },
      { title: "members by shard", unit: "", text: true, aside: true, of: (r) => Object.values(r.shards?.other?.connections_by_shard ?? {}).join(" + ") || undefined },
    ],
    goals: [{ text: "deliveries a second, two shards ÷ one", of: (one) => one("fanfare"), least: 1.7 }],
  },
  {
    id: "coalesce",
    title: "Latency budget",
    text: "A namespace's `coalesce_ms` lets a room's batch grow for that long before it is sent. 400 messages a second in a room of 1,000: what the time buys. (400,000 deliveries a second are more than one core can send one by one: without a budget, too, what has come meanwhile is sent together.)",
    args: ["rate", "--connections", "1000", "--rate", "400"],
    rows: "own", reference: "coalesce-0", seconds: 4, rounds: 2, warm: true, figures: [cpu, p50, p99, delivered, own],
  },
  {
    id: "slow",
    title: "Slow consumers: 1 % and 10 % of 500 subscribers do not read",
    text: "4 KiB at 100 a second, first with all reading, then with 5 that do not, then with 50. At the end these read what is left for them: it must be everything, or the server must have said what is not. Memory is what the process grew by while they did not read; Fanfare's must stay below its budget for all outboxes, which is set to 16 MiB here, else the run is at fault.",
    args: ["slow", "--connections", "500", "--payload", "4096", "--rate", "100", "--stalled-percent", "1,10"],
    seconds: 6, rounds: 1, warm: ["rate", "--connections", "500", "--payload", "4096", "--rate", "100"], budget: true,
    settings: { FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX: String(16 << 20) },
    figures: [
      { title: "p99 of the others, 1 %", unit: "ms", less: true, ...slow(0, 2, (s) => s.p99_us_with / 1000) },
      { title: "10 %", unit: "ms", less: true, ...slow(1, 2, (s) => s.p99_us_with / 1000) },
      { title: "without", unit: "ms", less: true, ...slow(0, 2, (s) => s.p99_us_without / 1000) },
      { title: "ratio, 1 %", unit: "×", less: true, ...slow(0, 2, (s) => s.ratio) },
      { title: "10 %", unit: "×", less: true, ...slow(1, 2, (s) => s.ratio) },
      { title: "closed", unit: "", text: true, aside: true, of: (r) => r.slow?.map((s) => `${s.closed} of ${s.stalled}`).join(", ") },
      { title: "memory grew, 1 %", unit: "MiB", less: true, ...slow(0, 1, (s) => s.grown_kib_with / MIB) },
      { title: "10 %", unit: "MiB", less: true, ...slow(1, 1, (s) => s.grown_kib_with / MIB) },
      { title: "budget", unit: "MiB", aside: true, ...slow(0, 0, (s) => s.memory_max_kib && s.memory_max_kib / MIB) },
    ],
    goals: [
      { text: "p99 of the others ÷ without, 1 % stalled", of: (one) => one("fanfare", 3), most: 1.2 },
      { text: "growth ÷ budget, 10 % stalled", of: (one) => one("fanfare", 7) / one("fanfare", 8), most: 1 },
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
