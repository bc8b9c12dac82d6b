//! Leaving service: not ready at once, open for the grace, then everybody is told and closed at an even pace.

mod pace;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::Process;
use crate::support::{Client, Raw, TestNode, close_frame, handshake, own_address, request, wait_until, within};

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
    let listen = own_address();
    let mut node = TestNode::dev(&format!(
        "listen = \"{listen}\"\nadmin = \"{listen}\"\n[drain]\ngrace_ms = 3600000\nwindow_ms = 400\nretry_ms = 1234"
    ));
    let (clients, admin) = (node.clients, node.admin);
    let mut early = node.enter("a", "").await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    many.subscribe("a").await;
    node.wait_until_ready().await;
    node.wait_for_metric("fanfare_ready", 1.0).await;

    node.leave();
    let said = async || request(admin, "GET", "/readyz", &[], "").await;
    wait_until("readiness to go", async || said().await.text().contains("draining")).await;
    said().await.expect_problem(503, "draining");
    assert_eq!(status(admin, "/livez").await, 200, "alive: it must not be restarted");
    assert_eq!(node.metric("fanfare_ready").await, 0.0);
    let mut late = Client::connect(clients, "/room/a?format=text").await;
    wait_until("the late one to be in the room", async || node.occupancy("a") == 3).await;
    // All three are served as ever.
    let receipt = request(admin, "POST", "/api/publish", &[], r#"{"room":"a","message":"x"}"#).await.json();
    assert_eq!(receipt["delivered"], 3);
    assert_eq!(early.event("message").await["message"], "x");
    assert_eq!(many.event("message").await["message"], "x");
    assert_eq!(late.text().await, "x");

    // Nobody is closed before the grace is over: an hour, unless somebody is in a hurry.
    node.hurry();
    let (code, reason) = late_close(&mut late).await;
    assert_eq!((code, reason.contains("reconnect")), (1012, true), "{reason}");
    for client in [&mut early, &mut many] {
        let told = client.event("drain").await;
        assert!((1_234..=1_851).contains(&told["retry_ms"].as_u64().expect("a time")), "{told}");
        assert_eq!(client.closed().await, (1012, reason.clone()));
    }
    let refused = TcpStream::connect(clients).await.expect_err("the listener is closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    node.ended().await;
    assert!(TcpStream::connect(admin).await.is_err(), "the admin listener goes last");
}

#[tokio::test]
async fn nobody_is_closed_before_the_grace_is_over() {
    let mut node = TestNode::dev("[drain]\ngrace_ms = 300\nwindow_ms = 0");
    let mut client = node.enter("a", "?format=text").await;
    let told = Instant::now();
    node.leave();
    assert_eq!(client.closed().await.0, 1012);
    assert!(told.elapsed() >= Duration::from_millis(300), "{:?}", told.elapsed());
    node.ended().await;
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

async fn progress(admin: SocketAddr) -> Value {
    request(admin, "GET", "/api/drain", &[], "").await.json()
}

/// The API begins a drain, tells how far it has got, and brings its end nearer, never further away.
#[tokio::test]
async fn the_api_begins_a_drain_and_tells_its_progress() {
    let node = TestNode::dev(&format!("listen = \"{}\"\n[drain]\ngrace_ms = 0\nwindow_ms = 5", own_address()));
    let admin = node.admin;
    let start = async |body: &str| request(admin, "POST", "/api/drain", &[], body).await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(node.upgrade("/room/a?format=text").await);
    }
    wait_until("all to be in the room", async || node.occupancy("a") == 20).await;
    assert_eq!(
        progress(admin).await,
        json!({"state": "serving", "since": null, "window_ms": null, "open_at_start": null, "open": 20, "closed": 0,
            "eta_ms": null})
    );
    start("{\"window_ms\": 86400001}").await.expect_problem(422, "bad_window");
    start("{\"window\": 1}").await.expect_problem(422, "bad_request");
    start("{").await.expect_problem(400, "bad_json");
    assert_eq!(progress(admin).await["state"], "serving", "nothing has begun");

    // Of hours, so that the pace closes nobody while this is tried.
    let begun = start("{\"window_ms\": 60000000}").await.json();
    assert_eq!((&begun["window_ms"], &begun["open_at_start"]), (&json!(60_000_000), &json!(20)), "{begun}");
    assert!(begun["since"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{begun}");
    wait_until("the listener to close", async || TcpStream::connect(node.clients).await.is_err()).await;
    assert_eq!(progress(admin).await["state"], "closing");
    start("{\"window_ms\": 80000000}").await.json();
    let eta = async || progress(admin).await["eta_ms"].as_u64().expect("a time");
    assert!(eta().await <= 60_000_000, "never further away");
    start("{\"window_ms\": 40000000}").await.json();
    assert!(eta().await <= 40_000_000, "nearer");
    start("").await.json();
    assert!((1..=20_000_000).contains(&eta().await), "halved");
    // Clients that leave by themselves are not counted as closed by the drain.
    drop(all.pop());
    wait_until("it to be gone", async || progress(admin).await["open"] == 19).await;
    assert_eq!(progress(admin).await["closed"], 0);
    start("{\"window_ms\": 0}").await.json();
    for raw in &mut all {
        assert_eq!(wait_for_close(raw).await.0, 1012);
    }
    node.ended().await;
}

/// What was asked before the end is answered: a request whose body still comes is not cut off, it is told to go elsewhere.
#[tokio::test]
async fn requests_under_way_at_the_end_are_answered() {
    for on_client_listener in [false, true] {
        let listen = own_address();
        let mut node =
            TestNode::dev(&format!("listen = \"{listen}\"\nadmin = \"{listen}\"\n[api]\non_client_listener = true"));
        let address = if on_client_listener { node.clients } else { node.admin };
        let mut asking = Raw::open(address).await;
        let head = "POST /api/publish?room=a HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\
            Expect: 100-continue\r\n\r\n";
        asking.send(head.as_bytes()).await;
        // Its head has been read, and its body is waited for.
        assert_eq!(asking.head().await.status, 100);
        asking.send(b"ha").await;
        let mut idle = Raw::open(address).await;
        idle.send(b"GET /api/drain HTTP/1.1\r\nHost: h\r\n\r\n").await;
        idle.answer().await;
        node.leave();
        wait_until("the listener to be closed", async || TcpStream::connect(address).await.is_err()).await;
        idle.end().await;
        wait_until("nobody to be here", async || node.hub.drain().is_over()).await;
        asking.send(b"lf").await;
        let answer = asking.answer().await;
        answer.expect_problem(503, "draining");
        node.ended().await;
    }
}

/// `fanfare drain` begins a drain, shows how far it has got, and ends with the gateway.
#[tokio::test]
async fn the_command_drains_a_gateway_and_sees_it_gone() {
    let mut gateway = Process::fanfare(
        &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[("FANFARE_API__KEYS", "secret"), ("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_HEARTBEAT__CLOSE_MS", "300")],
    );
    let (clients, admin) = gateway.addresses();
    let mut client = Client::connect(clients, "/room/a").await;
    let url = format!("http://{admin}");
    let refused = Process::fanfare(&["drain", "--url", &url], &[]);
    let said = refused.err.all().join("\n");
    assert!(["401", "key_missing", "--key"].iter().all(|words| said.contains(words)), "{said}");
    let mut drain = Process::fanfare(&["drain", "--url", &url, "--key", "secret", "--window", "1500ms"], &[]);
    client.event("drain").await;
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(drain.ended().code(), Some(0));
    let said = drain.out.all();
    // As the answer to the call that began it has it; what comes later depends on when it is asked.
    assert!(said[0].contains("1 open, 0 closed, at most "), "{said:?}");
    assert!(said[0].ends_with(" 2 s to go") || said[0].ends_with(" 1 s to go"), "{said:?}");
    let last = "the gateway has left service; 1 connections were open when it began";
    assert_eq!(said.last().map(String::as_str), Some(last), "{said:?}");
    assert_eq!(gateway.ended().code(), Some(0));
    let gone = Process::fanfare(&["drain", "--url", &url], &[]);
    assert!(gone.err.all().join("\n").contains("nothing is listening"));
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
    // It has ended within a minute: it does not wait for the window of an hour.
    assert!(told.elapsed() >= Duration::from_millis(300), "{:?}", told.elapsed());
}

/// A client that says nothing more, not even the answer to a close, is not waited for longer than `close_ms`.
#[tokio::test]
async fn who_does_not_answer_the_close_holds_nobody() {
    let mut node = TestNode::dev("[heartbeat]\nclose_ms = 300\n[drain]\nwindow_ms = 100");
    // Their sockets are open until the node has ended: it waits for neither.
    let mut silent = node.upgrade("/room/a?format=text").await;
    let half_asked = node.raw().await;
    wait_until("it to be in the room", async || node.occupancy("a") == 1).await;
    node.leave();
    assert_eq!(silent.closed().await.0, 1012);
    silent.end().await;
    node.ended().await;
    drop((silent, half_asked));
}

/// Whoever was let in is told, however late: a handshake that is answered with 101 ends with a close frame.
#[tokio::test]
async fn who_comes_in_while_the_node_leaves_is_told_too() {
    const COMING: usize = 8;
    let (mut let_in, mut refused, mut at_least) = (0, 0, 0);
    for round in 0..40 {
        let mut node = TestNode::dev("");
        let clients = node.clients;
        let (tell, mut answered) = tokio::sync::mpsc::channel(COMING);
        let mut all = JoinSet::new();
        for _ in 0..COMING {
            let tell = tell.clone();
            all.spawn(async move {
                let Ok(stream) = TcpStream::connect(clients).await else { return false };
                let mut raw = Raw::over(stream);
                let asked = raw.stream.write_all(handshake("/room/a", clients, "").as_bytes()).await;
                // Where the listener closed before it was its turn it may go elsewhere.
                if asked.is_err() || !raw.is_answered().await {
                    return false;
                }
                assert_eq!(raw.head().await.status, 101);
                tell.try_send(()).expect("a place for each");
                assert_eq!(wait_for_close(&mut raw).await.0, 1012);
                true
            });
        }
        // When none has been answered, some, or all.
        for _ in 0..round % (COMING + 1) {
            within("an answer", answered.recv()).await;
            at_least += 1;
        }
        node.leave();
        for was_let_in in all.join_all().await {
            *(if was_let_in { &mut let_in } else { &mut refused }) += 1;
        }
        node.ended().await;
    }
    assert!(let_in >= at_least, "{refused} were refused, {let_in} were let in");
}

/// At the deadline the process ends with 0 all the same, and says how many it cut off: here one that answers its close and three that do not.
#[tokio::test]
async fn who_is_cut_off_at_the_deadline_is_counted_in_the_log() {
    let quick =
        [("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_DRAIN__WINDOW_MS", "0"), ("FANFARE_HEARTBEAT__CLOSE_MS", "3000")];
    let mut gateway = Process::fanfare(&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &quick);
    let (clients, _) = gateway.addresses();
    let mut answers = Raw::let_in(clients, "/room/a?format=text").await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Raw::let_in(clients, "/room/a?format=text").await);
    }
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(wait_for_close(&mut answers).await.0, 1012);
    answers.end().await;
    for raw in &mut silent {
        let frame = raw.frame().await;
        assert_eq!(frame.payload[..2], 1012_u16.to_be_bytes(), "told, but it does not answer");
    }
    assert_eq!(gateway.ended().code(), Some(0));
    gateway.err.wait_for(&["WARN", "left service: connections cut that had not answered their close in time", "cut=3"]);
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
