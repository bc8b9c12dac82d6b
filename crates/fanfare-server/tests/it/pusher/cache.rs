//! Cache channels: who comes in is told the last event, or that none is known.

use serde_json::{Value, json};

use super::support::{APPS, Pusher, call, publish};
use crate::support::{TestNode, wait_until};

fn miss(channel: &str) -> Value {
    json!({"event": "pusher:cache_miss", "channel": channel, "data": "{}"})
}

async fn cached(node: &TestNode, channel: &str) -> Value {
    let path = format!("/apps/1001/channels/{channel}");
    let answer = call(node, "GET", &path, &[("info", "cache")], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["cache"].clone()
}

#[tokio::test]
async fn who_comes_to_a_cache_channel_is_told_its_last_event() {
    let node = TestNode::serve(APPS);
    for channel in ["cache-kitchen", "private-cache-kitchen", "private-encrypted-cache-kitchen"] {
        let mut first = Pusher::connect(&node).await;
        first.subscribe(channel).await;
        assert_eq!(first.next().await, miss(channel));
        assert_eq!(cached(&node, channel).await, Value::Null);
        for data in ["1", "{\"table\":2}"] {
            publish(&node, json!({"name": "order-up", "channel": channel, "data": data})).await;
            assert_eq!(first.next().await, json!({"event": "order-up", "channel": channel, "data": data}));
        }
        let last = json!({"event": "order-up", "channel": channel, "data": "{\"table\":2}"});
        let mut second = Pusher::connect(&node).await;
        second.subscribe(channel).await;
        assert_eq!(second.next().await, last);
        // What clients say to each other is not kept.
        if channel.starts_with("private-") {
            second.say(json!({"event": "client-x", "channel": channel, "data": 1})).await;
            assert_eq!(first.next().await["event"], "client-x");
        }
        // Once everybody has gone it is known all the same.
        for client in [&mut first, &mut second] {
            client.unsubscribe(channel).await;
            client.expect_nothing().await;
        }
        first.subscribe(channel).await;
        assert_eq!(first.next().await, last);
        first.expect_nothing().await;
        let told = cached(&node, channel).await;
        assert_eq!(told["data"], "{\"table\":2}", "{told}");
        assert!((1..=1_800).contains(&told["ttl"].as_u64().expect("seconds")), "{told}");
    }
    // A channel that only looks like one keeps nothing.
    let mut plain = Pusher::connect(&node).await;
    publish(&node, json!({"name": "e", "channel": "my-cache-room", "data": "1"})).await;
    plain.subscribe("my-cache-room").await;
    plain.expect_nothing().await;
    let wrong = call(&node, "GET", "/apps/1001/channels/kitchen", &[("info", "cache")], "").await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let wrong = call(&node, "GET", "/apps/1001/channels", &[("info", "cache")], "").await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
}

#[tokio::test]
async fn members_of_a_presence_cache_channel_are_told_before_its_last_event() {
    let node = TestNode::serve(APPS);
    let channel = "presence-cache-kitchen";
    publish(&node, json!({"name": "e", "channel": channel, "data": "1"})).await;
    let mut client = Pusher::connect(&node).await;
    let data = json!({"user_id": "ada"}).to_string();
    let auth = client.auth(channel, Some(&data));
    client
        .say(json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth, "channel_data": data}}))
        .await;
    assert_eq!(client.next().await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(client.next().await, json!({"event": "e", "channel": channel, "data": "1"}));
    client.expect_nothing().await;
}

#[tokio::test]
async fn an_event_is_cached_for_so_long_and_no_longer() {
    let node = TestNode::serve(&APPS.replace("client_events = true", "client_events = true\ncache_ms = 100"));
    let channel = "cache-a";
    publish(&node, json!({"name": "e", "channel": channel, "data": "1"})).await;
    wait_until("the event to be forgotten", async || cached(&node, channel).await == Value::Null).await;
    let mut client = Pusher::connect(&node).await;
    client.subscribe(channel).await;
    assert_eq!(client.next().await, miss(channel));
    client.expect_nothing().await;
}

/// Whoever is told a list of members must be able to take it: beyond the bound they are refused, not closed again and again.
#[tokio::test]
async fn a_list_of_members_fits_into_an_outbox() {
    let apps = APPS.replace("client_events = true", "user_info_bytes_max = 60000\npresence_members_max = 1000");
    let node = TestNode::serve(&format!("{apps}\n[limits]\nmessage_bytes_max = 65536\noutbox_bytes_max = 100000"));
    let channel = "presence-a";
    let mut clients = Vec::new();
    for user in ["ada", "bea"] {
        let mut client = Pusher::connect(&node).await;
        let data = json!({"user_id": user, "user_info": "x".repeat(50_000)}).to_string();
        let auth = client.auth(channel, Some(&data));
        let data = json!({"channel": channel, "auth": auth, "channel_data": data});
        if user == "ada" {
            client.say(json!({"event": "pusher:subscribe", "data": data})).await;
            assert_eq!(client.next().await["event"], "pusher_internal:subscription_succeeded");
        } else {
            assert_eq!(client.refused(data, "longer than what may be queued").await, "LimitReached");
        }
        client.expect_nothing().await;
        clients.push(client);
    }
    let users = call(&node, "GET", "/apps/1001/channels/presence-a/users", &[], "").await.json();
    assert_eq!(users, json!({"users": [{"id": "ada"}]}));
}
