//! At what pace connections are closed, and who goes first.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{progress, status, wait_for_close};
use crate::process::Process;
use crate::support::{PATIENCE, Raw, TestNode, close_frame, frame, handshake, own_address, request, wait_until};

/// Reconnecting clients are a load on the other nodes: it comes evenly. That nobody goes early holds on every machine. A busy one sees closes
/// late; there the window is made longer until what the machine adds is little of it.
#[tokio::test]
async fn closes_are_spread_evenly_over_the_window() {
    let mut window = Duration::from_secs(2);
    while let Err(late) = leave_evenly(window).await {
        assert!(window < PATIENCE / 2, "in a window of {window:?}: {late}");
        window *= 2;
    }
}

/// What of the closes came too late for an even pace. The bounds are wide; a drain that closed all at once, or in a few steps, would break each
/// of them.
async fn leave_evenly(window: Duration) -> Result<(), String> {
    const CONNECTIONS: usize = 400;
    let mut node = TestNode::dev(&format!("shards = 2\n[drain]\nwindow_ms = {}", window.as_millis()));
    let mut opening = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let clients = node.clients;
        opening.spawn(async move {
            let mut raw = Raw::open(clients).await;
            raw.send(handshake("/room/a?format=text", clients, "").as_bytes()).await;
            assert_eq!(raw.head().await.status, 101);
            raw
        });
    }
    let all = opening.join_all().await;
    wait_until("all to be in the room", async || node.occupancy("a") == CONNECTIONS as u64).await;
    let mut closing = JoinSet::new();
    let begun = Instant::now();
    node.leave();
    for mut raw in all {
        closing.spawn(async move {
            // Not `frame`: the first ones wait long, the last ones longer.
            let (code, _) = wait_for_close(&mut raw).await;
            let at = begun.elapsed();
            assert_eq!(code, 1012);
            raw.end().await;
            at
        });
    }
    let mut times = closing.join_all().await;
    times.sort_unstable();
    assert_eq!(times.len(), CONNECTIONS);
    node.ended().await;

    // So the line from all to none is held closely on one side and loosely on the other.
    let line = |at: Duration| (CONNECTIONS as f64 * at.as_secs_f64() / window.as_secs_f64()).min(CONNECTIONS as f64);
    let bin = |at: &Duration| (20.0 * at.as_secs_f64() / window.as_secs_f64()) as usize;
    let counts: Vec<usize> = (0..40).map(|n| times.iter().filter(|&at| bin(at) == n).count()).collect();
    let mut late = Ok(());
    for (index, at) in times.iter().enumerate() {
        let closed = (index + 1) as f64;
        assert!(closed <= line(*at) + 40.0, "{closed} were closed after {at:?} already: {counts:?}");
        if closed < line(*at) - 160.0 {
            late = Err(format!("only {closed} were closed after {at:?}: {counts:?}"));
        }
    }
    let last = times[CONNECTIONS - 1];
    assert!(last > window.mul_f64(0.8), "{last:?}: {counts:?}");
    late?;
    let occupied = counts.iter().filter(|&&count| count > 0).count();
    if occupied < 12 || last > window.mul_f64(1.5) {
        return Err(format!("20 bins would be even, the last after {last:?}: {counts:?}"));
    }
    Ok(())
}

/// The whole promise at its size, as `make drain-test` runs it: 4,000 connections over 20 s. No 100 ms see more than one and a half times
/// the even number of closes, on each shard those without recent traffic go first, nobody is refused before the listener closes, and the
/// exit code is 0.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "takes half a minute and a quiet machine: make drain-test"]
async fn four_thousand_leave_evenly_over_twenty_seconds() {
    use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
    const CONNECTIONS: usize = 4_000;
    const IDEAL: usize = CONNECTIONS / 200;
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).expect("a raised limit");
    let mut gateway = Process::fanfare(
        &["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"],
        // No pings: what comes first is the close. And a line for each, in the order in which a shard closed them.
        &[
            ("FANFARE_DRAIN__GRACE_MS", "1000"),
            ("FANFARE_DRAIN__WINDOW_MS", "20000"),
            ("FANFARE_HEARTBEAT__PING_MS", "600000"),
            ("FANFARE_LOG_LEVEL", "info,fanfare_edge::shard::end=debug"),
        ],
    );
    let (clients, admin) = gateway.addresses();
    let mut closing = JoinSet::new();
    let mut idle = HashSet::new();
    for n in 0..CONNECTIONS {
        // In turns, so that neither the order of coming nor that of their places is the one to be seen.
        let is_idle = n % 2 == 0;
        let mut raw = Raw::let_in(clients, if is_idle { "/ws" } else { "/room/a?format=text" }).await;
        if is_idle {
            let welcome: Value = serde_json::from_str(raw.frame().await.text()).expect("JSON");
            idle.insert(welcome["connection"].as_str().expect("an id").to_owned());
        }
        closing.spawn(async move {
            loop {
                // Not `Raw::frame` alone: that has less patience.
                if raw.unread.is_empty() {
                    raw.stream.readable().await.expect("a socket");
                }
                let at = Instant::now();
                let frame = raw.frame().await;
                if frame.first == 0x88 {
                    raw.send(&close_frame(1012, "")).await;
                    assert_eq!(frame.payload[..2], 1012_u16.to_be_bytes());
                    return at;
                }
            }
        });
    }
    // The others hear something, later than anybody came by more than the order can tell apart.
    let all_in = Instant::now();
    wait_until("the idle ones to be idle", async || all_in.elapsed() > Duration::from_millis(300)).await;
    let receipt = request(admin, "POST", "/api/publish", &[], r#"{"room":"a","message":"x"}"#).await.json();
    assert_eq!(receipt["delivered"], CONNECTIONS / 2);
    gateway.signal(Signal::TERM);
    wait_until("the drain to begin", async || progress(admin).await["state"] != "serving").await;
    // Somebody comes all the time: let in until the listener closes, and only then turned away.
    let mut came = 0;
    while TcpStream::connect(clients).await.is_ok() {
        came += 1;
    }
    assert_eq!(progress(admin).await["state"], "closing", "nobody is refused before the listener closes");
    assert!(came > 10, "{came}");
    let mut times = closing.join_all().await;
    times.sort_unstable();
    let begun = times[0];
    let mut bins = vec![0; 210];
    for at in &times {
        bins[at.duration_since(begun).as_millis() as usize / 100] += 1;
    }
    println!("closes in each 100 ms, {IDEAL} would be even: {bins:?}");
    assert!(bins.iter().all(|&bin| bin <= IDEAL * 3 / 2), "{bins:?}");
    assert!(times[CONNECTIONS - 1].duration_since(begun) > Duration::from_millis(19_000));
    assert_eq!(gateway.ended().code(), Some(0));
    gateway.err.wait_for(&["left service: every connection was closed"]);

    let said = gateway.err.all();
    let drained = said.iter().filter(|line| line.contains("reason=\"drain\""));
    let closed: Vec<&str> = drained.filter_map(|line| line.split("connection=").nth(1)?.split(' ').next()).collect();
    assert_eq!(closed.len(), CONNECTIONS);
    for shard in ["0-", "1-"] {
        let is_idle: Vec<bool> =
            closed.iter().filter(|id| id.starts_with(shard)).map(|&id| idle.contains(id)).collect();
        let idle_first = is_idle.iter().take_while(|&&is_idle| is_idle).count();
        println!("shard {shard}: {} closed, the first {idle_first} idle", is_idle.len());
        assert!(idle_first > 0 && is_idle[idle_first..].iter().all(|is_idle| !is_idle), "{idle_first} of {is_idle:?}");
    }
}

/// Each further signal halves what is left: three minutes become one and a half, and so on until nothing is left.
#[tokio::test]
async fn each_further_signal_halves_what_is_left() {
    // Hours, so that the minutes for which a machine may hold this test up are little of them.
    for (grace, window) in [(3_600_000, 3_600_000), (0, 3_600_000)] {
        let listen = own_address();
        let mut node =
            TestNode::dev(&format!("listen = \"{listen}\"\n[drain]\ngrace_ms = {grace}\nwindow_ms = {window}"));
        let (clients, admin) = (node.clients, node.admin);
        let mut all = Vec::new();
        for _ in 0..50 {
            all.push(node.upgrade("/room/a?format=text").await);
        }
        wait_until("all to be in the room", async || node.occupancy("a") == 50).await;
        node.signal();
        wait_until("readiness to go", async || status(admin, "/readyz").await == 503).await;
        if grace == 0 {
            wait_until("the listener to close", async || TcpStream::connect(clients).await.is_err()).await;
        }
        let eta = async || progress(admin).await["eta_ms"].as_u64().expect("a time");
        let first = eta().await;
        assert!((grace + window - 600_000..=grace + window).contains(&first), "{first}");
        node.signal();
        wait_until("half of it to be left", async || eta().await <= first / 2).await;
        let half = eta().await;
        assert!(half >= first / 2 - 600_000, "{half} of {first}");
        assert!(node.metric("fanfare_connections").await >= 45.0);
        node.hurry();
        for raw in &mut all {
            assert_eq!(wait_for_close(raw).await.0, 1012);
        }
        // Nobody waits for hours here.
        node.ended().await;
    }
}

/// Those without recent traffic go first: here a third of the clients are in a room where something is said, a third say something themselves,
/// and the others only answer pings.
#[tokio::test]
async fn idle_connections_are_closed_before_busy_ones() {
    const EACH: usize = 30;
    // Nobody answers a close before all have been told: so the node is there to say in which order it closed them.
    let toml =
        "shards = 1\n[heartbeat]\nping_ms = 100\npong_ms = 3600000\nclose_ms = 3600000\n[drain]\nwindow_ms = 300";
    let mut node = TestNode::dev(toml);
    let mut clients = Vec::new();
    for n in 0..3 * EACH {
        // In turns, so that neither the order of coming nor that of their places is the one to be seen.
        let kind = ["idle", "told", "talks"][n % 3];
        let room = if kind == "told" { "busy".to_owned() } else { format!("{kind}:{n}") };
        clients.push((kind, node.upgrade(&format!("/room/{room}?format=text")).await));
    }
    wait_until("all to be in", async || node.metric("fanfare_subscriptions").await == (3 * EACH) as f64).await;
    // Pings are asked and answered by all; then the idle have been silent for longer than the order can tell apart, but for pongs.
    for (_, raw) in &mut clients {
        assert_eq!(raw.frame().await.first, 0x89);
        raw.send(&frame(0x8a, b"")).await;
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    request(node.admin, "POST", "/api/publish?room=busy", &[("Content-Type", "text/plain")], "x").await;
    for (kind, raw) in &mut clients {
        if *kind == "talks" {
            raw.send(&frame(0x81, b"x")).await;
        }
        while *kind != "idle" && raw.frame().await.first != 0x81 {}
    }
    node.leave();
    for (_, raw) in &mut clients {
        while raw.frame().await.first != 0x88 {}
    }
    let ledger = request(node.admin, "GET", "/api/closes?limit=1000", &[], "").await.json();
    let mut closes: Vec<_> = ledger["closes"].as_array().expect("a list").iter().collect();
    assert_eq!(closes.len(), 3 * EACH, "{ledger}");
    closes.sort_unstable_by_key(|close| close["number"].as_u64());
    let rooms: Vec<_> = closes.iter().map(|close| close["room"].as_str().expect("a room")).collect();
    assert!(rooms[..EACH].iter().all(|room| room.starts_with("idle:")), "{rooms:?}");
    for (_, raw) in &mut clients {
        raw.send(&close_frame(1012, "")).await;
    }
    node.ended().await;
}
