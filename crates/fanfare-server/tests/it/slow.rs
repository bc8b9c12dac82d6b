//! Readers that stop reading: they are closed with their numbers, everybody else loses nothing, and memory stays bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::process::{NO_PINGS, Process};
use crate::support::{
    Client, Deadline, Raw, TestNode, close_frame, frame, metric, request, wait_until, with_deadline, within,
};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");

/// Message `n`, 2 KiB long.
fn numbered(n: u64) -> Value {
    json!({ "n": n, "pad": "x".repeat(2_020) })
}

fn number(message: &Value) -> u64 {
    assert_eq!(message["pad"].as_str().map(str::len), Some(2_020));
    message["n"].as_u64().unwrap_or_else(|| panic!("no number in {message}"))
}

/// The two numbers of a reason like `queued 10 bytes, 2 messages`.
fn queued(reason: &str) -> (usize, usize) {
    let numbers = reason.split("queued ").nth(1).and_then(|rest| {
        let (bytes, rest) = rest.split_once(" bytes, ")?;
        Some((bytes.parse().ok()?, rest.strip_suffix(" messages")?.parse().ok()?))
    });
    numbers.unwrap_or_else(|| panic!("no numbers in {reason:?}"))
}

/// Reads on to the close frame: all frames whole, numbers from 0 without a hole. Returns how many, code and reason.
async fn read_to_the_close(raw: &mut Raw) -> (u64, u16, String) {
    let mut seen = 0;
    loop {
        let frame = raw.frame().await;
        if frame.first == 0x88 {
            let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
            raw.send(&close_frame(1000, "")).await;
            raw.end().await;
            let reason = String::from_utf8(reason.to_vec()).expect("a reason in UTF-8");
            return (seen, u16::from_be_bytes(*code), reason);
        }
        let event: Value = serde_json::from_str(frame.text()).expect("a whole frame is whole JSON");
        // The text dialect has the message alone.
        let message = event.get("message").unwrap_or(&event);
        assert_eq!(number(message), seen, "in order, without a hole");
        seen += 1;
    }
}

/// The largest value of the budget, looked at all the time from another thread.
pub(crate) struct Peak {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<usize>,
}

impl Peak {
    pub(crate) fn watch(node: &TestNode) -> Self {
        let hub = node.hub.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(hub.budget().used());
                thread::sleep(Duration::from_micros(100));
            }
            peak
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a watcher")
    }
}

const OUTBOX: usize = 65_536;
const BUDGET: usize = 200_000;

#[tokio::test]
async fn who_stops_reading_is_closed_and_everybody_else_gets_everything() {
    const HEALTHY: u64 = 20;
    let node = TestNode::dev(&format!(
        "shards = 2\n[limits]\nmessage_bytes_max = 8192\noutbox_bytes_max = {OUTBOX}\n\
         outbox_total_bytes_max = {BUDGET}\n[heartbeat]\nclose_ms = 600000"
    ));
    let mut stalled =
        [Raw::stalled(node.clients, "/room/a").await, Raw::stalled(node.clients, "/room/a?format=text").await];
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 2).await;
    let mut healthy = Vec::new();
    for n in 0..HEALTHY {
        let mut client = node.enter("a", if n % 2 == 0 { "" } else { "?format=text" }).await;
        healthy.push(tokio::spawn(async move {
            for expected in 0.. {
                let event = client.json().await;
                let message = event.get("message").unwrap_or(&event);
                if message.is_null() {
                    return (expected, client);
                }
                assert_eq!(number(message), expected, "in order, without a hole");
            }
            unreachable!("it ends with the end");
        }));
    }

    let peak = Peak::watch(&node);
    let mut publisher = node.connect("/ws").await;
    publisher.event("welcome").await;
    let mut evicted_at = Vec::new();
    let mut published = 0;
    let (mut after, mut most) = (0, 0);
    // So many more that a stalled reader's eviction cannot be what lets the others keep up.
    while after < 100 {
        assert!(published < 20_000, "the stalled were never evicted");
        let ack = publisher
            .ask(json!({"name": "publish", "room": "a", "message": numbered(published), "id": published}))
            .await;
        assert_eq!((&ack["name"], &ack["id"], &ack["dropped"]), (&json!("ack"), &json!(published), &json!(0)), "{ack}");
        let before = evicted_at.len() as u64;
        let evicted = ack["evicted"].as_u64().expect("a count");
        evicted_at.extend((0..evicted).map(|_| published));
        // Delivered or evicted, each subscriber is spoken of exactly once; who is gone is not.
        assert_eq!(ack["delivered"].as_u64().expect("a count"), HEALTHY + 2 - before - evicted, "{ack}");
        published += 1;
        after += u64::from(evicted_at.len() == 2);
        most = most.max(node.hub.budget().used());
    }
    let end = publisher.ask(json!({"name": "publish", "room": "a", "message": null, "id": "end"})).await;
    assert_eq!(end["delivered"], HEALTHY);
    let mut readers = Vec::new();
    for reader in healthy {
        let (seen, client) = within("a reader", reader).await.expect("no panic");
        assert_eq!(seen, published, "everybody else gets everything");
        readers.push(client);
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 2.0);
    assert_eq!(node.metric("fanfare_closes_total{reason=\"slow_consumer\"}").await, 2.0);
    assert_eq!(node.metric("fanfare_subscriptions").await, HEALTHY as f64);

    for raw in &mut stalled {
        let (seen, code, reason) = read_to_the_close(raw).await;
        let (bytes, messages) = queued(&reason);
        assert_eq!((code, reason.starts_with("queued ")), (4508, true), "{reason}");
        assert!(bytes <= OUTBOX && bytes + 2_200 > OUTBOX, "it was closed at its bound: {reason}");
        // What it saw and what was queued is what was published before it was evicted. The frame it was in the middle of was finished.
        let is_exact = |&at: &u64| seen + messages as u64 == at || seen + messages as u64 == at + 1;
        assert!(evicted_at.iter().any(is_exact), "saw {seen}, {reason}, evicted at {evicted_at:?}");
    }
    let peak = peak.end().max(most);
    assert!(peak <= BUDGET && peak > OUTBOX / 2, "{peak}");
    node.wait_for_metric("fanfare_outbox_bytes", 0.0).await;
}

/// The bound in messages holds where messages are short.
#[tokio::test]
async fn the_outbox_is_bounded_in_messages_too() {
    let node = TestNode::dev("[limits]\noutbox_messages_max = 10\n[heartbeat]\nclose_ms = 600000");
    let mut stalled = Raw::stalled(node.clients, "/room/a").await;
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 1).await;
    let mut at = 0;
    loop {
        assert!(at < 20_000, "the stalled was never evicted");
        let body = json!({"room": "a", "message": numbered(at)}).to_string();
        let receipt = request(node.admin, "POST", "/api/publish", &[], &body).await.json();
        if receipt["evicted"] == 1 {
            break;
        }
        assert_eq!(receipt["delivered"], 1, "{receipt}");
        at += 1;
    }
    let (seen, code, reason) = read_to_the_close(&mut stalled).await;
    let (bytes, messages) = queued(&reason);
    assert_eq!((code, messages), (4508, 10), "{reason}");
    assert!(bytes < 10 * 2_200, "{reason}");
    assert!((at..=at + 1).contains(&(seen + 10)), "saw {seen}, evicted at {at}");
}

#[tokio::test]
async fn bytes_that_do_not_move_are_given_up_after_the_write_deadline() {
    let node = TestNode::dev("[heartbeat]\nwrite_ms = 300\nclose_ms = 600000");
    let mut stalled = Raw::stalled(node.clients, "/room/a").await;
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 1).await;
    let mut published = 0;
    // Only until so much is queued that it is not on its way: far from the bound.
    while node.hub.budget().used() < 30_000 {
        assert!(published < 20_000, "nothing was ever queued");
        let body = json!({"room": "a", "message": numbered(published)}).to_string();
        let receipt = request(node.admin, "POST", "/api/publish", &[], &body).await.json();
        assert_eq!(receipt["evicted"], 0, "{receipt}");
        if receipt["delivered"] == 0 {
            // A slow machine: its time is up already.
            break;
        }
        published += 1;
    }
    node.wait_for_metric("fanfare_closes_total{reason=\"write_timeout\"}", 1.0).await;
    assert_eq!(node.metric("fanfare_closes_total{reason=\"slow_consumer\"}").await, 0.0);
    assert_eq!(node.metric("fanfare_subscriptions").await, 0.0);
    let (seen, code, reason) = read_to_the_close(&mut stalled).await;
    let (bytes, messages) = queued(&reason);
    assert_eq!(code, 4508, "{reason}");
    assert!(bytes < 100_000, "{reason}");
    assert!((published..=published + 1).contains(&(seen + messages as u64)), "saw {seen} of {published}, {reason}");
    node.wait_for_metric("fanfare_outbox_bytes", 0.0).await;
}

/// Slow but steady is not stalled: as long as bytes move the connection stays.
#[tokio::test]
async fn a_reader_that_takes_a_little_now_and_then_stays() {
    with_deadline(400, take_a_little_now_and_then).await;
}

/// `false` where this machine did not let it bite as often as it should.
async fn take_a_little_now_and_then(deadline: &mut Deadline) -> bool {
    // Before bytes are queued nothing has to be kept.
    let node = TestNode::dev(&format!("[heartbeat]\nwrite_ms = {}", deadline.ms()));
    let mut slow = Raw::stalled(node.clients, "/room/a").await;
    wait_until("the slow one to be in the room", async || node.occupancy("a") == 1).await;
    deadline.begin();
    let mut published = 0;
    // More than it takes in all its bites.
    while node.hub.budget().used() < 800_000 {
        assert!(published < 20_000, "nothing was ever queued");
        let some: Vec<_> = (published..published + 20).map(|n| json!({"room": "a", "message": numbered(n)})).collect();
        let answer = request(node.admin, "POST", "/api/batch", &[], &json!({ "publish": some }).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        published += 20;
        if node.occupancy("a") == 0 {
            assert!(!deadline.was_kept(), "closed while it was not due");
            return false;
        }
    }
    // Three deadlines long, a bite in each quarter of one.
    let mut seen = 0;
    let mut bites = tokio::time::interval(Duration::from_millis(deadline.ms() as u64 / 4));
    for _ in 0..12 {
        let before = node.hub.budget().used();
        while seen < published && node.hub.budget().used() == before {
            let frame = slow.frame().await;
            if frame.first == 0x88 {
                assert!(!deadline.was_kept(), "closed although it moved");
                return false;
            }
            let event: Value = serde_json::from_str(frame.text()).expect("JSON");
            assert_eq!(number(&event["message"]), seen);
            seen += 1;
        }
        deadline.keep();
        bites.tick().await;
    }
    assert!(seen < published, "{seen} of {published}: it has not read all at once");
    let is_in = node.occupancy("a") == 1;
    let closed = node.metric("fanfare_closes_total{reason=\"write_timeout\"}").await;
    if !deadline.was_kept() {
        return false;
    }
    assert_eq!((is_in, closed), (true, 0.0));
    true
}

/// Writes `bytes` again and again until the other side takes no more for a while, and has answers queued. Returns how many of them were begun,
/// and what is left of the last.
async fn write_until_blocked(node: &TestNode, raw: &mut Raw, bytes: impl Fn(u64) -> Vec<u8>) -> (u64, Vec<u8>) {
    for n in 0..1_000_000 {
        let next = bytes(n);
        let mut at = 0;
        while at < next.len() {
            let queued = node.hub.budget().used();
            match tokio::time::timeout(Duration::from_millis(500), raw.stream.write(&next[at..])).await {
                Ok(written) => at += written.expect("an open connection"),
                // A machine may hold the gateway up for so long; then nothing is queued, or what is changes.
                Err(_) if queued > 0 && node.hub.budget().used() == queued => return (n + 1, next[at..].to_vec()),
                Err(_) => {}
            }
        }
    }
    panic!("the other side takes everything");
}

/// More than this is never queued for who does not read: the pause comes at 64 KiB, and what was read before it, or is owed by other
/// shards, comes on top.
const QUEUED_MAX: usize = 400_000;

/// Who publishes without reading the acks is slowed by not being read. It is not evicted for its own haste, what is queued for it is
/// bounded, and when it reads on all acks are there, in order.
#[tokio::test]
async fn a_publisher_that_does_not_read_its_acks_is_slowed() {
    let node = TestNode::dev("");
    let mut reader = node.enter("a", "?format=text").await;
    let reading = tokio::spawn(async move {
        let mut seen = 0_u64;
        while reader.text().await != "\"end\"" {
            seen += 1;
        }
        seen
    });
    let mut publisher = Raw::stalled(node.clients, "/ws").await;
    let peak = Peak::watch(&node);
    let id = |n: u64| format!("{n:0>120}");
    let command =
        |n: u64| frame(0x81, json!({"name": "publish", "room": "a", "message": n, "id": id(n)}).to_string().as_bytes());
    // Many at a time, so that the test does not take long to fill what is between them.
    let (batches, rest) = write_until_blocked(&node, &mut publisher, |batch| {
        (batch * 100..(batch + 1) * 100).flat_map(command).collect()
    })
    .await;
    assert_eq!(node.metric("fanfare_closes_total{reason=\"slow_consumer\"}").await, 0.0);
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
    let queued = node.hub.budget().used();
    assert!(queued > 0 && queued < QUEUED_MAX, "{queued} bytes of acks are queued");

    // From here on it reads, and all that it said is done.
    let published = batches * 100;
    let (mut acks, mut rest) = (0, rest);
    let welcome = publisher.frame().await;
    assert!(welcome.text().contains("welcome"));
    while acks < published {
        if !rest.is_empty()
            && let Ok(written) = publisher.stream.try_write(&rest)
        {
            rest.drain(..written);
        }
        let ack: Value = serde_json::from_str(publisher.frame().await.text()).expect("JSON");
        assert_eq!((&ack["name"], &ack["id"]), (&json!("ack"), &json!(id(acks))), "{ack}");
        acks += 1;
    }
    let peak = peak.end();
    assert!(peak < QUEUED_MAX, "{peak} bytes were queued at most");
    let end = r#"{"room":"a","message":"\"end\""}"#;
    request(node.admin, "POST", "/api/publish", &[], end).await;
    assert_eq!(within("the reader", reading).await.expect("no panic"), published, "what was said was heard");
}

/// `/echo` to somebody who does not read: bounded, slowed, and complete once it reads; closed after the write deadline if it never does.
#[tokio::test]
async fn echoes_that_nobody_reads_are_bounded() {
    const LENGTH: usize = 16_000;
    let node = TestNode::dev("");
    let message = |n: u64| frame(0x82, &[&n.to_be_bytes()[..], &[b'x'; LENGTH - 8]].concat());
    let peak = Peak::watch(&node);
    let mut returns = Raw::stalled(node.clients, "/echo").await;
    let (sent, mut rest) = write_until_blocked(&node, &mut returns, message).await;
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0, "slowed, not evicted");
    for n in 0..sent {
        if !rest.is_empty()
            && let Ok(written) = returns.stream.try_write(&rest)
        {
            rest.drain(..written);
        }
        let frame = returns.frame().await;
        assert_eq!((frame.first, frame.payload.len()), (0x82, LENGTH));
        assert_eq!(frame.payload[..8], n.to_be_bytes());
    }
    drop(returns);
    let most = peak.end();

    let node = TestNode::dev("[heartbeat]\nwrite_ms = 300");
    let peak = Peak::watch(&node);
    let mut never = Raw::stalled(node.clients, "/echo").await;
    let writing = tokio::spawn(async move {
        // Until it is closed: what is said then is let go.
        for n in 0.. {
            if never.stream.write_all(&message(n)).await.is_err() {
                break;
            }
        }
    });
    node.wait_for_metric("fanfare_closes_total{reason=\"write_timeout\"}", 1.0).await;
    node.wait_for_metric("fanfare_connections", 0.0).await;
    within("the end of the connection", writing).await.expect("no panic");
    let peak = peak.end().max(most);
    assert!(peak < QUEUED_MAX, "{peak} bytes were queued at most");
}

/// What an operator sees of it: one line, which says what the client is told.
#[test]
fn an_eviction_is_one_line_of_the_log() {
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let variables = [
        ("FANFARE_LIMITS__MESSAGE_BYTES_MAX", "16384"),
        ("FANFARE_LIMITS__OUTBOX_BYTES_MAX", "32768"),
        ("FANFARE_HEARTBEAT__CLOSE_MS", "600000"),
        ("FANFARE_HEARTBEAT__WRITE_MS", "600000"),
        NO_PINGS,
    ];
    let process = Process::fanfare(&arguments, &variables);
    let (clients, admin) = process.addresses();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let reason = runtime.block_on(evict_one(clients, admin));
    process.err.wait_for(&["connection evicted", &reason]);
    let lines = process.err.so_far();
    let about: Vec<_> =
        lines.iter().filter(|line| line.contains("evicted") || line.contains("slow_consumer")).collect();
    assert_eq!(about.len(), 1, "{lines:#?}");
    for word in ["slow_consumer", "4508", "connection="] {
        assert!(about[0].contains(word), "{word}: {}", about[0]);
    }
}

/// Fills a reader's outbox until it is evicted; returns the reason it is told.
async fn evict_one(clients: SocketAddr, admin: SocketAddr) -> String {
    let mut healthy = Client::connect(clients, "/room/a?format=text").await;
    let mut stalled = Raw::stalled(clients, "/room/a?format=text").await;
    wait_until("both to be in the room", async || metric(admin, "fanfare_subscriptions").await == 2.0).await;
    let body = "x".repeat(16_000);
    let evicted = AtomicUsize::new(0);
    while evicted.load(Ordering::Relaxed) == 0 {
        let receipt = request(admin, "POST", "/api/publish?room=a", &[TEXT], &body).await.json();
        evicted.store(receipt["evicted"].as_u64().expect("a count") as usize, Ordering::Relaxed);
        assert_eq!(healthy.text().await.len(), body.len());
    }
    loop {
        let frame = stalled.frame().await;
        if frame.first == 0x88 {
            return String::from_utf8(frame.payload[2..].to_vec()).expect("a reason in UTF-8");
        }
    }
}

/// Pings are answered at once, and a flood of them by somebody who reads no answer is not read.
#[tokio::test]
async fn pings_of_somebody_who_reads_nothing_are_bounded() {
    const PINGS: u64 = 100;
    let node = TestNode::dev("limits.control_frames_per_second_max = 0");
    let payload = |n: u64| format!("{n:0>125}").into_bytes();
    let peak = Peak::watch(&node);
    let mut raw = Raw::stalled(node.clients, "/echo").await;
    let (batches, mut rest) = write_until_blocked(&node, &mut raw, |batch| {
        (batch * PINGS..(batch + 1) * PINGS).flat_map(|n| frame(0x89, &payload(n))).collect()
    })
    .await;
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0, "slowed, not evicted");
    for n in 0..batches * PINGS {
        if !rest.is_empty()
            && let Ok(written) = raw.stream.try_write(&rest)
        {
            rest.drain(..written);
        }
        let pong = raw.frame().await;
        assert_eq!((pong.first, &pong.payload), (0x8a, &payload(n)));
    }
    let peak = peak.end();
    assert!(peak < QUEUED_MAX, "{peak} bytes were queued at most");
}
