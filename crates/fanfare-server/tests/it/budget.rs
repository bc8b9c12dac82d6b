//! The process's budget: thousands that stop reading cost the node what the budget says, and the others nothing.

use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::process::{NO_PINGS, Process};
use crate::support::{Answer, Client, Raw, handshake, metric, request, wait_until, within};

const MIB: usize = 1 << 20;

/// What the process may take in all; its budget for queues is a quarter of it, as it would be by default. The system holds it to that from
/// its first instruction on: beyond, an allocation fails and the process aborts.
///
/// The limit is on its address space. That covers all it could ever use: what the allocator has set aside, stacks, io_uring's rings, the program
/// itself. So it is stricter than one on resident memory, which Linux has for control groups only, and those cannot be made everywhere. What
/// sockets hold in the kernel is not among it; `TCP_NOTSENT_LOWAT` bounds that.
const MEMORY: usize = 256 * MIB;

const STALLED: usize = 2_000;

/// Rooms of half of those, so that what is queued in different rooms is not the same memory: without the budget it comes to more than
/// there is.
const ROOMS: usize = 250;
const MESSAGES_PER_ROOM: u64 = 6;
const HEALTHY: usize = 10;
const MESSAGES: u64 = 40;

/// Peak of the resident memory, bytes.
fn peak(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

/// Readers that never read, connected some at a time.
async fn stalled(clients: SocketAddr) -> Vec<Raw> {
    let mut all = Vec::with_capacity(STALLED);
    while all.len() < STALLED {
        let mut some = JoinSet::new();
        for n in all.len()..all.len() + 50 {
            let room = if n % 2 == 0 { "a".to_owned() } else { format!("r{}", n / 2 % ROOMS) };
            some.spawn(async move { Raw::stalled(clients, &format!("/room/{room}")).await });
        }
        all.extend(some.join_all().await);
    }
    all
}

/// Publishes into each room of the stalled once, some at a time.
async fn flood(admin: SocketAddr) {
    let text = "x".repeat(65_000);
    for some in (0..ROOMS).collect::<Vec<_>>().chunks(10) {
        let mut calls = JoinSet::new();
        for room in some.iter().map(|room| format!("/api/publish?room=r{room}")) {
            let text = text.clone();
            calls.spawn(
                async move { request(admin, "POST", &room, &[("content-type", "text/plain")], &text).await.status },
            );
        }
        assert!(calls.join_all().await.iter().all(|&status| status == 200));
    }
}

/// So short that a socket takes it at once, on every machine: of who reads each before the next comes nothing is ever queued.
fn message(n: u64) -> Value {
    json!({ "n": n, "pad": "x".repeat(4_000) })
}

#[test]
fn two_thousand_that_stop_reading_neither_end_the_node_nor_cost_the_others_a_message() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a higher limit");
    let budget = (MEMORY / 4).to_string();
    let variables = [
        ("FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX", budget.as_str()),
        // Who is stalled stays so for the whole test, and a line of the log for each would be long.
        ("FANFARE_HEARTBEAT__WRITE_MS", "3600000"),
        NO_PINGS,
        // Each has a stack and a read buffer: on a machine with many cores they alone would come near the limit.
        ("FANFARE_SHARDS", "2"),
        ("FANFARE_LOG_LEVEL", "info,fanfare_edge::shard=warn"),
    ];
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "text"];
    let mut process = Process::within_memory(MEMORY, &arguments, &variables);
    let (clients, admin) = process.addresses();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _stalled = runtime.block_on(async {
        let _stalled = stalled(clients).await;
        let (mut healthy, mut positions) = (JoinSet::new(), Vec::new());
        for _ in 0..HEALTHY {
            let mut client = Client::connect(clients, "/room/a").await;
            let (tell, position) = watch::channel(0);
            positions.push(position);
            healthy.spawn(async move {
                for expected in 0..MESSAGES {
                    // While rooms of others are flooded nothing is said here.
                    client.socket.get_ref().readable().await.expect("a socket");
                    assert_eq!(client.event("message").await["message"]["n"], expected);
                    tell.send_replace(expected + 1);
                }
                client
            });
        }
        let members = (STALLED + HEALTHY) as f64;
        wait_until("all to be in", async || metric(admin, "fanfare_subscriptions").await == members).await;
        for n in 0..MESSAGES {
            if n < MESSAGES_PER_ROOM {
                flood(admin).await;
            }
            let body = json!({"room": "a", "message": message(n)}).to_string();
            let answer = request(admin, "POST", "/api/publish", &[], &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(metric(admin, "fanfare_outbox_bytes").await <= (MEMORY / 4) as f64);
            for position in &mut positions {
                within("a healthy reader", position.wait_for(|&read| read > n)).await.expect("its reader lives");
            }
        }
        let readers = within("the healthy readers", healthy.join_all()).await;
        assert_eq!(readers.len(), HEALTHY, "everybody else got everything");
        let evicted = metric(admin, "fanfare_evicted_total").await;
        assert!(evicted > 0.0 && evicted <= STALLED as f64, "{evicted}");

        // How much is used up depends on who was in the middle of a message when it went. Whoever comes stalls as well, until one who comes is told
        // to come back later.
        let mut newcomers = Vec::new();
        let refused = loop {
            let room = format!("n{}", newcomers.len());
            let mut newcomer = Raw::open(clients).await;
            newcomer.send(handshake(&format!("/room/{room}"), clients, "").as_bytes()).await;
            let head = newcomer.head().await;
            if head.status != 101 {
                let length = head.header("content-length").expect("a length").parse().expect("a number");
                break Answer { body: newcomer.take(length).await, ..head };
            }
            newcomers.push(newcomer);
            assert!(newcomers.len() < 500, "the budget is never used up");
            for _ in 0..12 {
                let text = [("content-type", "text/plain")];
                let publish = format!("/api/publish?room={room}");
                assert_eq!(request(admin, "POST", &publish, &text, &"x".repeat(65_000)).await.status, 200);
            }
            assert!(metric(admin, "fanfare_outbox_bytes").await <= (MEMORY / 4) as f64);
        };
        refused.expect_problem(503, "outbox_total_bytes_max");
        assert!(refused.header("retry-after").is_some());
        assert!(metric(admin, "fanfare_outbox_bytes").await > (MEMORY / 8) as f64);
        _stalled
    });
    assert!(process.is_running());
    println!("at most {} MiB of {} were resident", peak(&process) / MIB, MEMORY / MIB);
}
