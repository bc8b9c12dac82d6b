//! Whether a client lives is asked with pings, and answered with pongs or a close.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Frame, TestNode, frame};

const PING: Frame = Frame { first: 0x89, payload: Vec::new() };

#[tokio::test]
async fn pongs_keep_a_connection() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 60\npong_ms = 400");
    let mut raw = node.upgrade("/echo").await;
    let begun = Instant::now();
    // Many more rounds than a missing pong would be forgiven for.
    for _ in 0..10 {
        assert_eq!(raw.frame().await, PING);
        raw.send(&frame(0x8a, b"")).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(500), "ten pings came within {:?}", begun.elapsed());
    raw.send(&frame(0x81, b"alive")).await;
    let mut heard = raw.frame().await;
    while heard == PING {
        heard = raw.frame().await;
    }
    assert_eq!(heard.text(), "alive");
    assert_eq!(node.metric("fanfare_closes_total{reason=\"pong_timeout\"}").await, 0.0);
}

#[tokio::test]
async fn a_client_that_answers_by_itself_stays() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 50\npong_ms = 400");
    let mut rooms = node.connect("/ws").await;
    rooms.event("welcome").await;
    rooms.subscribe("a").await;
    // The library answers pings while it waits for messages; a ticker of another would do as well.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(800) {
        let waited = tokio::time::timeout(Duration::from_millis(20), rooms.next()).await;
        assert!(waited.is_err(), "nobody spoke, yet {waited:?} came");
    }
    rooms.expect_nothing().await;
}

#[tokio::test]
async fn who_does_not_answer_a_ping_is_closed_with_4504() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 50\npong_ms = 120\nclose_ms = 50");
    let paths = ["/ws", "/room/a", "/room/a?format=text", "/echo", "/helloworld"];
    join_all(paths.map(|path| {
        let node = &node;
        async move {
            let mut raw = node.upgrade(path).await;
            if path == "/ws" {
                raw.frame().await;
            }
            assert_eq!(raw.frame().await, PING);
            let asked = Instant::now();
            let mut frame = raw.frame().await;
            // The deadline is the first ping's; further ones may come and do not move it.
            while frame == PING {
                frame = raw.frame().await;
            }
            let waited = asked.elapsed();
            let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
            assert_eq!((frame.first, u16::from_be_bytes(*code), reason), (0x88, 4504, &b"no pong within 120 ms"[..]));
            assert!(waited >= Duration::from_millis(100), "given up after {waited:?} already");
            assert!(waited < Duration::from_secs(3), "given up after {waited:?} only");
            raw.end().await;
        }
    }))
    .await;
    node.wait_for_metric("fanfare_closes_total{reason=\"pong_timeout\"}", 5.0).await;
    node.wait_for_metric("fanfare_connections", 0.0).await;
    assert_eq!(node.occupancy("a"), 0);
}
