//! What comes and goes leaves nothing behind: rooms, descriptors, places.

use std::net::SocketAddr;

#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::task::JoinSet;

use crate::process::{NO_PINGS, Process};
use crate::support::{Client, Raw, TestNode, frame, handshake, metric, wait_until};

/// Ten thousand rooms, each joined and left by somebody else than the one before.
#[tokio::test]
async fn rooms_that_were_left_are_gone_after_the_sweep() {
    const CLIENTS: usize = 10;
    const ROOMS: usize = 1_000;
    let node = TestNode::dev("[rooms]\nreap_ms = 20");
    let mut all = JoinSet::new();
    for client in 0..CLIENTS {
        let clients = node.clients;
        all.spawn(async move {
            let mut raw = Raw::open(clients).await;
            raw.send(handshake("/ws", clients, "").as_bytes()).await;
            assert_eq!(raw.head().await.status, 101);
            raw.frame().await;
            for command in ["subscribe", "unsubscribe"] {
                // A hundred at a time: many on their way, none of them lost.
                for hundred in (0..ROOMS).collect::<Vec<_>>().chunks(100) {
                    let asked = |room: &usize| {
                        let text = json!({"name": command, "room": format!("{client}:{room}"), "id": room}).to_string();
                        frame(0x81, text.as_bytes())
                    };
                    raw.send(&hundred.iter().flat_map(asked).collect::<Vec<_>>()).await;
                    for room in hundred {
                        let answer = raw.frame().await;
                        let answer: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
                        assert_eq!((&answer["name"], &answer["id"]), (&json!(format!("{command}d")), &json!(room)));
                    }
                }
            }
            raw
        });
    }
    let clients = all.join_all().await;
    assert_eq!(node.metric("fanfare_subscriptions").await, 0.0);
    node.wait_for_metric("fanfare_rooms", 0.0).await;
    // A sweep may meet a room that was made and not entered yet; whoever was to enter it makes another.
    assert!(node.metric("fanfare_rooms_reaped_total").await >= (CLIENTS * ROOMS) as f64);
    // Those who went with their rooms leave none behind either.
    drop(clients);
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    for room in 0..100 {
        client.subscribe(&format!("x:{room}")).await;
    }
    drop(client);
    node.wait_for_metric("fanfare_connections", 0.0).await;
    node.wait_for_metric("fanfare_subscriptions", 0.0).await;
    node.wait_for_metric("fanfare_rooms", 0.0).await;
}

/// One of many ways to come and to go without a word.
async fn come_and_go(clients: SocketAddr, way: usize) {
    let raw = match way % 5 {
        0 => Raw::open(clients).await,
        1 => {
            let mut raw = Raw::open(clients).await;
            raw.send(b"GET /room/a HTTP/1.1\r\nHost: h\r\nUpgr").await;
            raw
        }
        // Gone while the answer is on its way.
        2 => {
            let mut raw = Raw::open(clients).await;
            raw.send(handshake("/room/a", clients, "").as_bytes()).await;
            raw
        }
        3 => Raw::let_in(clients, "/room/a").await,
        _ => {
            let mut raw = Raw::let_in(clients, "/ws").await;
            raw.send(&frame(0x81, br#"{"name":"subscribe","room":"b"}"#)).await;
            // Half a frame.
            raw.send(&frame(0x81, br#"{"name":"subscribe","room":"c"}"#)[..9]).await;
            raw
        }
    };
    if way.is_multiple_of(2) {
        // A reset instead of an end.
        raw.stream.set_zero_linger().expect("a socket");
    }
}

#[tokio::test]
async fn two_thousand_that_break_off_leave_no_descriptor_and_no_place_taken() {
    const PLACES: usize = 60;
    let places = PLACES.to_string();
    let variables = [("FANFARE_LIMITS__CONNECTIONS_MAX", places.as_str()), ("FANFARE_ROOMS__REAP_MS", "20"), NO_PINGS];
    let process = Process::fanfare(&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &variables);
    let (clients, admin) = process.addresses();
    // Shards open their poll sets when they start to serve: each must have served before it is counted what is open.
    for _ in 0..32 {
        Client::connect(clients, "/ws").await.close().await;
    }
    wait_until("the first to be gone", async || metric(admin, "fanfare_connections").await == 0.0).await;
    let before = process.descriptors();
    let mut running = JoinSet::new();
    for way in 0..2_000 {
        while running.len() >= 20 {
            running.join_next().await.expect("a task").expect("no panic");
        }
        running.spawn(come_and_go(clients, way));
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
    wait_until("all connections to be gone", async || metric(admin, "fanfare_connections").await == 0.0).await;
    wait_until("all subscriptions to be gone", async || metric(admin, "fanfare_subscriptions").await == 0.0).await;
    wait_until("all rooms to be gone", async || metric(admin, "fanfare_rooms").await == 0.0).await;
    // The asking itself takes one at times.
    wait_until("the descriptors to be back", async || process.descriptors() <= before + 1).await;
    // Every place is free again: all of them can be taken at once.
    let mut all = Vec::new();
    for place in 0..PLACES {
        let mut raw = Raw::open(clients).await;
        raw.send(handshake("/room/a", clients, "").as_bytes()).await;
        assert_eq!(raw.head().await.status, 101, "place {place}");
        all.push(raw);
    }
    let mut raw = Raw::open(clients).await;
    raw.send(handshake("/room/a", clients, "").as_bytes()).await;
    assert_eq!(raw.head().await.status, 503, "and no more than that");
}

/// Ten thousand come together and leave together, twice: what they needed goes back to the system, also while some stay.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crowd_that_leaves_gives_its_memory_back() {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).expect("a raised limit");
    // As many as there are descriptors for, here and there; others test at the same time.
    let crowd = (limit.saturating_sub(2_000)).min(10_000) as usize;
    assert!(crowd >= 1_000, "{limit} descriptors are too few to show anything: ulimit -n 20000");
    // Closes are remembered, up to a bound: that memory is not to come back.
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"];
    let process = Process::fanfare(&arguments, &[("FANFARE_API__CLOSES_MAX", "0"), NO_PINGS]);
    let (clients, admin) = process.addresses();
    let mut staying = Vec::new();
    for _ in 0..10 {
        staying.push(Raw::let_in(clients, "/room/a").await);
    }
    metric(admin, "fanfare_connections").await;
    let before = anonymous_bytes(process.pid());
    for _ in 0..2 {
        let mut coming = JoinSet::new();
        for some in 0..100 {
            coming.spawn(async move {
                let mut all = Vec::new();
                for place in 0..crowd / 100 {
                    all.push(Raw::let_in(clients, &format!("/room/{}", (some + place) % 100)).await);
                }
                all
            });
        }
        let all: Vec<Raw> = coming.join_all().await.into_iter().flatten().collect();
        let with_all = anonymous_bytes(process.pid());
        let each = with_all.saturating_sub(before) / all.len();
        assert!((100..1_024).contains(&each), "{each} bytes for each of {}", all.len());
        for raw in all {
            // A reset: thousands of ports would otherwise be unusable for a minute.
            raw.stream.set_zero_linger().expect("a socket");
        }
        // A quarter of what they needed, at most: what is left is in pages that others share.
        let most = before + (with_all - before) / 4;
        wait_until("the memory to be back", async || anonymous_bytes(process.pid()) <= most).await;
        wait_until("the crowd to be gone", async || metric(admin, "fanfare_connections").await == 10.0).await;
    }
    for mut raw in staying {
        raw.send(&frame(0x81, br#"{"name":"ping"}"#)).await;
        while !raw.frame().await.text().contains("pong") {}
    }
}

/// Resident memory of a process that is not a file's.
#[cfg(target_os = "linux")]
fn anonymous_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line for it");
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1_024
}
