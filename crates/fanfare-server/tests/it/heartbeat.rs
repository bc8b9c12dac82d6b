//! Whether a client lives is asked with pings, and answered with pongs or a close.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Frame, TestNode, frame, with_deadline};

/// Until it is let go.
const LONG: Duration = Duration::from_secs(600);

const PING: Frame = Frame { first: 0x89, payload: Vec::new() };

#[tokio::test]
async fn pongs_keep_a_connection() {
    with_deadline(400, async |deadline| {
        let node = TestNode::dev(&format!("[heartbeat]\nping_ms = 60\npong_ms = {}", deadline.ms()));
        let mut raw = node.upgrade("/echo").await;
        // Longer than a missing pong would be forgiven for.
        let (begun, rounds) = (Instant::now(), deadline.ms() / 40);
        for _ in 0..rounds {
            let heard = raw.frame().await;
            if !deadline.was_kept() {
                return false;
            }
            assert_eq!(heard, PING);
            raw.send(&frame(0x8a, b"")).await;
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(50) * (rounds - 1) as u32,
            "{rounds} in {:?}",
            begun.elapsed()
        );
        raw.send(&frame(0x81, b"alive")).await;
        let mut heard = raw.frame().await;
        while heard == PING {
            heard = raw.frame().await;
        }
        let given_up = node.metric("fanfare_closes_total{reason=\"pong_timeout\"}").await;
        if !deadline.was_kept() {
            return false;
        }
        assert_eq!((heard.text(), given_up), ("alive", 0.0));
        true
    })
    .await;
}

#[tokio::test]
async fn a_client_that_answers_by_itself_stays() {
    with_deadline(400, async |deadline| {
        let node = TestNode::dev(&format!("[heartbeat]\nping_ms = 50\npong_ms = {}", deadline.ms()));
        let mut rooms = node.connect("/ws").await;
        rooms.event("welcome").await;
        rooms.subscribe("a").await;
        deadline.keep();
        // The library answers pings while it waits for messages; a ticker of another would do as well.
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 2 * deadline.ms() {
            let waited = tokio::time::timeout(Duration::from_millis(20), rooms.next()).await;
            if !deadline.was_kept() {
                return false;
            }
            assert!(waited.is_err(), "nobody spoke, yet {waited:?} came");
        }
        let given_up = node.metric("fanfare_closes_total{reason=\"pong_timeout\"}").await;
        if !deadline.was_kept() {
            return false;
        }
        assert_eq!(given_up, 0.0);
        true
    })
    .await;
}

/// More connections than a shard reads in a turn have answered while it was held up: when it goes on, all deadlines are over.
#[tokio::test]
async fn a_shard_that_was_held_up_takes_nobodys_answer_for_silence() {
    with_deadline(1_000, async |deadline| {
        let patience = Duration::from_millis(deadline.ms() as u64);
        let node = TestNode::dev(&format!("shards = 1\n[heartbeat]\nping_ms = 100\npong_ms = {}", deadline.ms()));
        let begun = Instant::now();
        let mut all = Vec::new();
        for _ in 0..700 {
            all.push(node.upgrade("/echo").await);
        }
        for raw in &mut all {
            let heard = raw.frame().await;
            if begun.elapsed() > patience / 2 {
                return false;
            }
            assert_eq!(heard, PING);
        }
        let wedge = node.hub.wedge(0, LONG);
        for raw in &mut all {
            raw.send(&frame(0x8a, b"")).await;
        }
        tokio::time::sleep(patience * 2).await;
        let released = Instant::now();
        drop(wedge);
        for raw in &mut all {
            raw.send(&frame(0x81, b"alive")).await;
        }
        for raw in &mut all {
            let mut heard = raw.frame().await;
            while heard == PING {
                heard = raw.frame().await;
            }
            if released.elapsed() > patience / 2 {
                return false;
            }
            assert_eq!(heard, Frame { first: 0x81, payload: b"alive".to_vec() });
        }
        true
    })
    .await;
}

#[tokio::test]
async fn who_does_not_answer_a_ping_is_closed_with_4504() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 50\npong_ms = 120\nclose_ms = 50");
    let paths = ["/ws", "/room/a", "/room/a?format=text", "/echo", "/helloworld"];
    join_all(paths.map(|path| {
        let node = &node;
        async move {
            let begun = Instant::now();
            let mut raw = node.upgrade(path).await;
            if path == "/ws" {
                raw.frame().await;
            }
            assert_eq!(raw.frame().await, PING);
            let mut frame = raw.frame().await;
            // The deadline is the first ping's; further ones may come and do not move it.
            while frame == PING {
                frame = raw.frame().await;
            }
            let waited = begun.elapsed();
            let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
            assert_eq!((frame.first, u16::from_be_bytes(*code), reason), (0x88, 4504, &b"no pong within 120 ms"[..]));
            // It is asked after half an interval at the earliest.
            assert!(waited >= Duration::from_millis(25 + 120), "given up after {waited:?} already");
            raw.end().await;
        }
    }))
    .await;
    node.wait_for_metric("fanfare_closes_total{reason=\"pong_timeout\"}", 5.0).await;
    node.wait_for_metric("fanfare_connections", 0.0).await;
    assert_eq!(node.occupancy("a"), 0);
}
