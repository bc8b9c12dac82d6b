//! What a hostile tester found: things that only happen when much comes at once. The gateway is stopped while they are sent, so that
//! it finds all of them in one turn.

use std::net::SocketAddr;

use fanfare_fanout::IntakeLimits;
use fanfare_server::config::{Config, Environment, Flags};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::{NO_PINGS, Process};
use crate::support::{Client, Raw, TestNode, frame, within};

/// `fanfare dev` with one shard, in a process of its own that can be stopped.
fn stoppable() -> (Process, SocketAddr) {
    let dev =
        Process::fanfare(&["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"], &[NO_PINGS]);
    let page = dev.out.wait_for(&["page ", "http://"]);
    let clients = page.split_once("http://").expect("an address").1.trim_end_matches('/').parse().expect("an address");
    (dev, clients)
}

fn config(more: &[(&str, &str)], intake_items_max: usize) -> Config {
    let common = [("FANFARE_LISTEN", "127.0.0.1:0"), ("FANFARE_ADMIN", "127.0.0.1:0"), ("FANFARE_SHARDS", "1")];
    let last = [("FANFARE_HEARTBEAT__CLOSE_MS", "500"), ("FANFARE_DRAIN__WINDOW_MS", "0")];
    let environment: Environment = common.into_iter().chain(last).chain(more.iter().copied()).collect();
    let mut config = Config::dev(&Flags::default(), None, &environment).expect("a configuration");
    config.intake = IntakeLimits { intake_items_max, ..IntakeLimits::default() };
    config
}

#[tokio::test]
async fn a_room_tells_its_end_before_its_next_life_begins() {
    let (dev, clients) = stoppable();
    let (mut watcher, mut closer) = (Client::connect(clients, "/ws").await, Client::connect(clients, "/ws").await);
    watcher.event("welcome").await;
    closer.event("welcome").await;
    let former = watcher.subscribe("c").await;

    dev.signal(Signal::STOP);
    closer.say(json!({"name": "close", "room": "c"})).await;
    closer.say(json!({"name": "subscribe", "room": "c"})).await;
    watcher.say(json!({"name": "subscribe", "room": "c", "id": 1})).await;
    dev.signal(Signal::CONT);

    let next = closer.event("subscribed").await;
    assert_ne!(next["epoch"], former["epoch"]);
    // Asked before the end was seen, it is told where the former life stood, then its end; asked after it, the end, then the next life.
    // Never the next life and then the end of the former.
    let told: [Value; 2] = [watcher.json().await, watcher.json().await];
    let is_in = told[0]["name"] == "room_closed";
    let (subscribed, closed) = if is_in { (&told[1], &told[0]) } else { (&told[0], &told[1]) };
    assert_eq!((&subscribed["name"], &closed["name"]), (&json!("subscribed"), &json!("room_closed")), "{told:?}");
    assert_eq!(subscribed["epoch"], if is_in { &next["epoch"] } else { &former["epoch"] }.clone(), "{told:?}");
    closer.say(json!({"name": "publish", "room": "c", "message": "hi", "id": 2})).await;
    closer.event("message").await;
    assert_eq!(closer.event("ack").await["delivered"], if is_in { 2 } else { 1 });
    if is_in {
        assert_eq!(watcher.event("message").await["message"], "hi");
    }
}

#[tokio::test]
async fn what_was_asked_first_is_answered_before_a_room_that_closes_says_its_last() {
    let (dev, clients) = stoppable();
    let mut client = Client::connect(clients, "/ws").await;
    client.event("welcome").await;
    client.subscribe("z").await;
    dev.signal(Signal::STOP);
    for command in [
        json!({"name": "subscribe", "room": "a"}),
        json!({"name": "publish", "room": "a", "message": 1}),
        json!({"name": "close", "room": "a"}),
        json!({"name": "unsubscribe", "room": "z"}),
    ] {
        client.say(command).await;
    }
    dev.signal(Signal::CONT);
    for name in ["subscribed", "message", "room_closed", "unsubscribed"] {
        client.event(name).await;
    }
}

/// Text clients cannot be told of a refusal: what they were slowed for must not be lost.
#[tokio::test]
async fn publishers_that_outrun_a_shard_lose_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 3_000;
    let node = TestNode::start(&config(&[("FANFARE_LIMITS__OUTBOX_MESSAGES_MAX", "100000")], 64));
    let mut reader = node.connect("/room/r?format=text").await;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(node.upgrade("/room/r?format=text").await);
    }
    let flood = frame(0x81, b"x").repeat(EACH);
    for writer in &mut writers {
        writer.send(&flood).await;
    }
    for _ in 0..WRITERS * EACH {
        assert_eq!(reader.text().await, "x");
    }
    assert_eq!(node.metric("fanfare_overloaded_total").await, 0.0);
    assert_eq!(node.metric("fanfare_published_total").await, (WRITERS * EACH) as f64);
}

#[tokio::test]
async fn text_that_may_not_be_published_ends_the_connection_with_the_reason() {
    let node = TestNode::dev("[namespaces.news]\npublish = \"nobody\"");
    let mut client = node.connect("/room/news:1?format=text").await;
    client.send("hello").await;
    assert_eq!(client.closed().await, (4403, "not allowed".to_owned()));
}

/// A client that pipelines requests and reads no answer gives its place back.
#[tokio::test]
async fn who_asks_over_http_and_does_not_read_is_let_go() {
    let node = TestNode::dev("limits.connections_max = 2\nheartbeat.write_ms = 100");
    let mut socket = tokio::net::TcpStream::connect(node.clients).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", node.clients).repeat(50);
    // The page is 45 kB: some of these are more than the sockets between us take.
    let flood = async { while socket.write_all(request.as_bytes()).await.is_ok() {} };
    within("the place to be given back", flood).await;
    let mut rest = Vec::new();
    // Cut or ended: either way nothing more comes.
    let _ = within("the end", socket.read_to_end(&mut rest)).await;
    let (_a, _b) = (Raw::open(node.clients).await, Raw::open(node.clients).await);
}
