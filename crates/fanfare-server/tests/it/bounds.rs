//! Queues that a client could fill by asking alone: each has a bound, and the bound is honest.

use fanfare_fanout::IntakeLimits;
use fanfare_server::config::{Config, Environment, Flags};

use crate::support::{TestNode, frame};

/// A dev configuration on free ports with one shard, so that all that is asked for meets in one intake.
fn one_shard() -> Config {
    let environment: Environment = [
        ("FANFARE_LISTEN", "127.0.0.1:0"),
        ("FANFARE_ADMIN", "127.0.0.1:0"),
        ("FANFARE_SHARDS", "1"),
        ("FANFARE_HEARTBEAT__CLOSE_MS", "500"),
        ("FANFARE_DRAIN__WINDOW_MS", "0"),
    ]
    .into_iter()
    .collect();
    Config::dev(&Flags::default(), None, &environment).expect("a configuration")
}

/// A room nobody is in acknowledges at once: only the shard's own intake stands between a publisher and the memory. Who fills it is not
/// read until there is room again.
#[tokio::test]
async fn who_outruns_the_intake_is_slowed_and_not_refused() {
    const PUBLICATIONS: usize = 1_000;
    const OWED_MAX: usize = 64;
    let mut config = one_shard();
    config.intake = IntakeLimits { intake_items_max: OWED_MAX, ..IntakeLimits::default() };
    let node = TestNode::start(&config);
    let mut raw = node.upgrade("/ws").await;
    raw.frame().await;

    let one = frame(0x81, br#"{"name":"publish","room":"nobody","message":1,"id":1}"#);
    raw.send(&one.repeat(PUBLICATIONS)).await;
    for _ in 0..PUBLICATIONS {
        let answer = raw.frame().await;
        assert!(answer.text().starts_with(r#"{"name":"ack""#), "{answer:?}");
    }
    node.wait_for_metric("fanfare_published_total", PUBLICATIONS as f64).await;
    assert_eq!(node.metric("fanfare_overloaded_total").await, 0.0);

    // Every place was given back: the same number fits again.
    raw.send(&one.repeat(OWED_MAX)).await;
    for _ in 0..OWED_MAX {
        let answer = raw.frame().await;
        assert!(answer.text().starts_with(r#"{"name":"ack""#), "{answer:?}");
    }
}

/// A client that asks for long answers and reads none is evicted while it asks, not after all answers have been made.
#[tokio::test]
async fn answers_that_pile_up_during_one_read_evict_during_that_read() {
    let node = TestNode::start(&one_shard());
    let mut guests = Vec::new();
    for number in 0..100 {
        guests.push(node.enter("crowd", &format!("?name={}{number:04}", "%F0%9F%8E%BA".repeat(16))).await);
    }
    let mut raw = node.upgrade("/room/crowd").await;
    // About 10 kB each, so some 20 MB in all: more than the sockets between us take.
    let mut burst = frame(0x81, br#"{"name":"presence"}"#).repeat(2_300);
    burst.extend(frame(0x81, br#"{"name":"publish","message":"too late"}"#));
    raw.send(&burst).await;
    node.wait_for_metric(r#"fanfare_closes_total{reason="slow_consumer"}"#, 1.0).await;
    assert_eq!(node.metric("fanfare_published_total").await, 0.0);
    drop(raw);
    for guest in guests {
        guest.close().await;
    }
}
