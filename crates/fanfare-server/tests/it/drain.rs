//! Leaving service: not ready at once, open for the grace, then everybody is told and closed at an even pace.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Client, Raw, TestNode, close_frame, handshake, request, wait_until, within};

async fn status(address: SocketAddr, path: &str) -> u16 {
    request(address, "GET", path, &[], "").await.status
}

/// Takes everything up to the close frame, answers it, and returns its code. Bare, so that hundreds cost little.
async fn wait_for_close(raw: &mut Raw) -> (u16, String) {
    loop {
        let frame = raw.frame().await;
        if frame.first == 0x88 {
            let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
            raw.send(&close_frame(u16::from_be_bytes(*code), "")).await;
            return (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn readiness_goes_first_and_the_listener_closes_after_the_grace() {
    let mut node = TestNode::dev("[drain]\ngrace_ms = 1500\nwindow_ms = 400\nretry_ms = 1234");
    let (clients, admin) = (node.clients, node.admin);
    let mut early = node.enter("a", "").await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    many.subscribe("a").await;
    assert_eq!(status(admin, "/readyz").await, 200);
    assert_eq!(node.metric("fanfare_ready").await, 1.0);

    let told = Instant::now();
    node.leave();
    wait_until("readiness to go", async || status(admin, "/readyz").await == 503).await;
    request(admin, "GET", "/readyz", &[], "").await.expect_problem(503, "draining");
    assert_eq!(status(admin, "/livez").await, 200, "alive: it must not be restarted");
    assert_eq!(node.metric("fanfare_ready").await, 0.0);
    let mut late = Client::connect(clients, "/room/a?format=text").await;
    wait_until("the late one to be in the room", async || node.occupancy("a") == 3).await;
    assert!(told.elapsed() < Duration::from_millis(1_500), "this machine is too slow for this test");
    // All three are served as ever.
    let receipt = request(admin, "POST", "/api/publish", &[], r#"{"room":"a","message":"x"}"#).await.json();
    assert_eq!(receipt["delivered"], 3);
    assert_eq!(early.event("message").await["message"], "x");
    assert_eq!(many.event("message").await["message"], "x");
    assert_eq!(late.text().await, "x");

    // Nobody is closed before the grace is over.
    let (code, reason) = late_close(&mut late).await;
    assert!(told.elapsed() >= Duration::from_millis(1_500), "{:?}", told.elapsed());
    assert_eq!((code, reason.contains("reconnect")), (1012, true), "{reason}");
    for client in [&mut early, &mut many] {
        assert_eq!(client.json().await, json!({"name": "drain", "retry_ms": 1234}));
        assert_eq!(client.closed().await, (1012, reason.clone()));
    }
    let refused = TcpStream::connect(clients).await.expect_err("the listener is closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    node.ended().await;
    assert!(TcpStream::connect(admin).await.is_err(), "the admin listener goes last");
}

/// A text client is told by the close frame alone: its dialect has no word for it.
async fn late_close(client: &mut Client) -> (u16, String) {
    client.closed().await
}

/// What was said before the close arrives before it, also where the room is busy.
#[tokio::test]
async fn what_was_published_before_is_not_lost_to_the_drain() {
    let mut node = TestNode::dev("[drain]\nwindow_ms = 300");
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(node.enter("a", "?format=text").await);
    }
    let entries: Vec<_> = (0..200).map(|n| json!({"room": "a", "message": n})).collect();
    let body = json!({ "publish": entries }).to_string();
    let answer = request(node.admin, "POST", "/api/batch", &[], &body).await.json();
    assert!(answer["receipts"].as_array().expect("receipts").iter().all(|receipt| receipt["delivered"] == 20));
    node.leave();
    for reader in &mut readers {
        for n in 0..200 {
            assert_eq!(reader.text().await, n.to_string());
        }
        assert_eq!(reader.closed().await.0, 1012);
    }
    node.ended().await;
}

/// Diagnostics speak no dialect either: nothing is said there that the client has not said.
#[tokio::test]
async fn an_echo_is_closed_without_other_words() {
    let mut node = TestNode::dev("");
    let mut clients = [node.connect("/echo").await, node.connect("/helloworld").await];
    wait_until("both to be in", async || node.metric("fanfare_connections").await == 2.0).await;
    node.leave();
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1012);
    }
    node.ended().await;
}

/// Reconnecting clients are a load on the other nodes: it comes evenly. The bounds are wide because machines that test are busy; a drain
/// that closed all at once, or in a few steps, would break each of them.
#[tokio::test]
async fn closes_are_spread_evenly_over_the_window() {
    const CONNECTIONS: usize = 400;
    const WINDOW: Duration = Duration::from_secs(2);
    const BIN: Duration = Duration::from_millis(100);
    let mut node = TestNode::dev("shards = 2\n[drain]\nwindow_ms = 2000");
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
    let mut times = within("all to be closed", closing.join_all()).await;
    times.sort_unstable();
    assert_eq!(times.len(), CONNECTIONS);

    // A busy machine sees closes late, never early: so the line from all to none is held closely on one side and loosely on the other.
    let line = |at: Duration| (CONNECTIONS as f64 * at.as_secs_f64() / WINDOW.as_secs_f64()).min(CONNECTIONS as f64);
    let bin = |at: &Duration| (at.as_millis() / BIN.as_millis()) as usize;
    let counts: Vec<usize> = (0..40).map(|n| times.iter().filter(|&at| bin(at) == n).count()).collect();
    for (index, at) in times.iter().enumerate() {
        let closed = (index + 1) as f64;
        assert!(closed <= line(*at) + 40.0, "{closed} were closed after {at:?} already: {counts:?}");
        assert!(closed >= line(*at) - 160.0, "only {closed} were closed after {at:?}: {counts:?}");
    }
    let occupied = counts.iter().filter(|&&count| count > 0).count();
    assert!(occupied >= 12, "20 bins would be even: {counts:?}");
    let last = times[CONNECTIONS - 1];
    assert!(last > WINDOW.mul_f64(0.8) && last < WINDOW.mul_f64(1.5), "{last:?}: {counts:?}");
    node.ended().await;
}

#[tokio::test]
async fn hurry_closes_what_is_left_at_once() {
    for (grace, window) in [(3_600_000, 3_600_000), (0, 3_600_000)] {
        let mut node = TestNode::dev(&format!("[drain]\ngrace_ms = {grace}\nwindow_ms = {window}"));
        let (clients, admin) = (node.clients, node.admin);
        let mut all = Vec::new();
        for _ in 0..50 {
            all.push(node.upgrade("/room/a?format=text").await);
        }
        wait_until("all to be in the room", async || node.occupancy("a") == 50).await;
        node.leave();
        wait_until("readiness to go", async || status(admin, "/readyz").await == 503).await;
        if grace == 0 {
            wait_until("the listener to close", async || TcpStream::connect(clients).await.is_err()).await;
        }
        // At the pace of an hour at most the first has been closed.
        assert!(node.metric("fanfare_connections").await >= 48.0);
        let hurried = Instant::now();
        node.hurry();
        for raw in &mut all {
            assert_eq!(wait_for_close(raw).await.0, 1012);
        }
        node.ended().await;
        assert!(hurried.elapsed() < Duration::from_secs(5), "{:?}", hurried.elapsed());
    }
}

#[tokio::test]
async fn an_empty_node_leaves_right_after_the_grace() {
    let mut node = TestNode::dev("[drain]\ngrace_ms = 300\nwindow_ms = 3600000");
    // One that has gone already keeps nobody waiting.
    node.connect("/ws").await.close().await;
    node.wait_for_metric("fanfare_connections", 0.0).await;
    let told = Instant::now();
    node.leave();
    node.ended().await;
    let took = told.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
}

/// A client that says nothing more, not even the answer to a close, is not waited for longer than `close_ms`.
#[tokio::test]
async fn who_does_not_answer_the_close_holds_nobody() {
    let mut node = TestNode::dev("[heartbeat]\nclose_ms = 300\n[drain]\nwindow_ms = 100");
    let mut silent = node.upgrade("/room/a?format=text").await;
    let half_asked = node.raw().await;
    wait_until("it to be in the room", async || node.occupancy("a") == 1).await;
    let told = Instant::now();
    node.leave();
    assert_eq!(silent.closed().await.0, 1012);
    silent.end().await;
    node.ended().await;
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    drop(half_asked);
}

/// Whoever was let in is told, however late: a handshake that is answered with 101 ends with a close frame.
#[tokio::test]
async fn who_comes_in_while_the_node_leaves_is_told_too() {
    let (mut let_in, mut refused) = (0, 0);
    for round in 0..40 {
        let mut node = TestNode::dev("");
        let clients = node.clients;
        let mut all = JoinSet::new();
        for _ in 0..8 {
            all.spawn(async move {
                let Ok(stream) = TcpStream::connect(clients).await else { return false };
                let mut raw = Raw::over(stream);
                let asked = raw.stream.write_all(handshake("/room/a", clients, "").as_bytes()).await;
                // Where the listener closed before it was its turn it may go elsewhere.
                if asked.is_err() || !raw.is_answered().await {
                    return false;
                }
                assert_eq!(raw.head().await.status, 101);
                assert_eq!(wait_for_close(&mut raw).await.0, 1012);
                true
            });
        }
        // A little later each time, so that some rounds meet them in the middle.
        tokio::time::sleep(Duration::from_micros(50 * round)).await;
        node.leave();
        for was_let_in in all.join_all().await {
            *(if was_let_in { &mut let_in } else { &mut refused }) += 1;
        }
        node.ended().await;
    }
    assert!(let_in > 0, "{refused} were refused, nobody was let in");
}

/// During the window those who are still here are served.
#[tokio::test]
async fn who_is_still_here_is_served_during_the_window() {
    let mut node = TestNode::dev("[drain]\nwindow_ms = 3600000");
    let (clients, admin) = (node.clients, node.admin);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(node.upgrade("/room/a?format=text").await);
    }
    wait_until("all to be in the room", async || node.occupancy("a") == 20).await;
    node.leave();
    wait_until("the listener to close", async || TcpStream::connect(clients).await.is_err()).await;
    let receipt = request(admin, "POST", "/api/publish", &[], r#"{"room":"a","message":"x"}"#).await.json();
    let delivered = receipt["delivered"].as_u64().expect("a count");
    assert!((18..=20).contains(&delivered), "{receipt}");
    node.hurry();
    let mut heard = 0;
    for raw in &mut all {
        let frame = raw.frame().await;
        if frame.first == 0x81 {
            assert_eq!(frame.text(), "x");
            heard += 1;
            assert_eq!(wait_for_close(raw).await.0, 1012);
        }
    }
    assert_eq!(heard, delivered);
    drop(all);
    node.ended().await;
}
