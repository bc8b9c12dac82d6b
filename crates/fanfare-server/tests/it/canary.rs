//! Readiness proves delivery: a shard that does not deliver is named, by the node itself, and nobody else sees how.

use std::time::{Duration, Instant};

use crate::support::{TestNode, request, wait_until};

#[tokio::test]
async fn a_shard_that_is_held_up_is_named_within_three_seconds_and_is_ready_again_after() {
    let node = TestNode::dev("");
    let ready = async || request(node.admin, "GET", "/readyz", &[], "").await;
    let count = async |shard: usize| node.metric(&format!("fanfare_canary_seconds_count{{shard=\"{shard}\"}}")).await;
    wait_until("both shards to have delivered", async || count(0).await >= 1.0 && count(1).await >= 1.0).await;
    assert_eq!(ready().await.status, 200);
    // It is nobody's: neither counted nor listed.
    for sample in ["connections", "rooms", "subscriptions", "delivered_total", "published_total"] {
        assert_eq!(node.metric(&format!("fanfare_{sample}")).await, 0.0, "{sample}");
    }
    let rooms = request(node.admin, "GET", "/api/rooms", &[], "").await.json();
    assert_eq!(rooms["rooms"].as_array().map(Vec::len), Some(0), "{rooms}");

    let begun = Instant::now();
    node.hub.wedge(1, Duration::from_millis(3_500));
    wait_until("it to be seen", async || ready().await.status == 503).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let late = ready().await;
    late.expect_problem(503, "shard_late");
    assert!(late.text().contains("shard 1 has not delivered"), "{late:?}");
    assert_eq!(node.metric("fanfare_ready").await, 0.0, "the metric and the page say the same");
    assert_eq!(request(node.admin, "GET", "/livez", &[], "").await.status, 200, "it must not be restarted");
    wait_until("it to be ready again", async || ready().await.status == 200).await;
    assert!(begun.elapsed() >= Duration::from_millis(3_500), "{:?}", begun.elapsed());
    assert_eq!(node.metric("fanfare_ready").await, 1.0);
}
