//! Who gets into which channel, and what it is told there.

use serde_json::json;

use super::support::{APPS, Pusher, call, publish};
use crate::support::{TestNode, request};

#[tokio::test]
async fn subscribers_of_a_channel_get_its_events_until_they_leave() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    client.subscribe("kitchen").await;
    let order = |n: u64| json!({"name": "order-up", "channel": "kitchen", "data": format!("{{\"table\":{n}}}")});
    let told = |n: u64| json!({"event": "order-up", "channel": "kitchen", "data": format!("{{\"table\":{n}}}")});
    publish(&node, order(1)).await;
    assert_eq!(client.next().await, told(1));
    // A second subscription does not double anything, and one unsubscribe ends both.
    client.say(json!({"event": "pusher:subscribe", "data": {"channel": "kitchen"}})).await;
    assert_eq!(client.error("already").await, json!(null));
    publish(&node, order(2)).await;
    assert_eq!(client.next().await, told(2));
    client.expect_nothing().await;
    client.unsubscribe("kitchen").await;
    client.unsubscribe("kitchen").await;
    client.unsubscribe("no such channel").await;
    client.expect_nothing().await;
    publish(&node, order(3)).await;
    client.expect_nothing().await;
    // Back to back, as one burst.
    client.subscribe("kitchen").await;
    client.unsubscribe("kitchen").await;
    client.subscribe("kitchen").await;
    publish(&node, order(4)).await;
    assert_eq!(client.next().await, told(4));
}

#[tokio::test]
async fn a_private_channel_is_entered_with_the_applications_word_and_with_no_other() {
    let node = TestNode::serve(APPS);
    let (mut client, other) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    let channel = "private-kitchen";
    let right = client.auth(channel, None);
    let wrong = [
        json!({"channel": channel}),
        json!({"channel": channel, "auth": ""}),
        json!({"channel": channel, "auth": "k7:"}),
        json!({"channel": channel, "auth": &right[..right.len() - 1]}),
        json!({"channel": channel, "auth": format!("{right}0")}),
        json!({"channel": channel, "auth": right.to_uppercase()}),
        json!({"channel": channel, "auth": right.replace("k7:", "k8:")}),
        json!({"channel": channel, "auth": other.auth(channel, None)}),
        json!({"channel": channel, "auth": client.auth("private-office", None)}),
        json!({"channel": channel, "auth": right, "channel_data": "{}"}),
        json!({"channel": "private-encrypted-a", "auth": right}),
    ];
    for data in wrong {
        assert_eq!(client.refused(data.clone(), "signature").await, "AuthError", "{data}");
    }
    publish(&node, json!({"name": "e", "channel": channel, "data": "1"})).await;
    client.expect_nothing().await;
    client.subscribe(channel).await;
    let signed = client.auth("private-b", Some("{\"x\": 1}"));
    client
        .say(json!({"event": "pusher:subscribe", "data": {"channel": "private-b", "auth": signed, "channel_data": "{\"x\": 1}"}}))
        .await;
    assert_eq!(client.next().await["event"], "pusher_internal:subscription_succeeded");
    publish(&node, json!({"name": "e", "channel": channel, "data": "2"})).await;
    assert_eq!(client.next().await, json!({"event": "e", "channel": channel, "data": "2"}));
    // The kind follows from the beginning alone.
    client.subscribe("my-private-room").await;
}

#[tokio::test]
async fn names_of_channels_are_bounded() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    let longest = "x".repeat(200);
    client.subscribe(&longest).await;
    client.subscribe("aZ09_-=@,.;").await;
    publish(&node, json!({"name": "e", "channel": longest, "data": ""})).await;
    assert_eq!(client.next().await, json!({"event": "e", "channel": longest, "data": ""}));
    for name in ["", "a b", "a/b", "ä", "#server-ada", "a:b", &format!("{longest}x")] {
        assert_eq!(client.refused(json!({"channel": name}), "").await, "BadName", "{name}");
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_connection_has_so_many_channels_at_most() {
    let node = TestNode::serve(&format!("{APPS}\n[limits]\nsubscriptions_per_connection_max = 2"));
    let mut client = Pusher::connect(&node).await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    assert_eq!(client.refused(json!({"channel": "c"}), "2 channels").await, "LimitReached");
    client.unsubscribe("a").await;
    client.subscribe("c").await;
}

#[tokio::test]
async fn applications_hear_nothing_of_each_other() {
    let node = TestNode::serve(APPS);
    let mut ours = Pusher::connect(&node).await;
    let mut theirs = Pusher::connect_to(&node, "/app/k8?protocol=7").await;
    ours.subscribe("kitchen").await;
    theirs.subscribe("kitchen").await;
    let (secret, channel) = ("k7-secret", "private-a");
    assert!(!secret.is_empty());
    let auth = theirs.auth(channel, None);
    assert_eq!(theirs.refused(json!({"channel": channel, "auth": auth}), "signature").await, "AuthError");
    publish(&node, json!({"name": "e", "channel": "kitchen", "data": "ours"})).await;
    assert_eq!(ours.next().await["data"], "ours");
    theirs.expect_nothing().await;
    // Another application's id of a connection leaves nobody out.
    publish(&node, json!({"name": "e", "channel": "kitchen", "data": "2", "socket_id": theirs.socket_id})).await;
    assert_eq!(ours.next().await["data"], "2");
}

#[tokio::test]
async fn a_channel_is_a_room_for_clients_of_other_dialects() {
    let node = TestNode::serve(&format!("{APPS}\n[api]\nkeys = ['operator']"));
    let mut pusher = Pusher::connect(&node).await;
    pusher.subscribe("kitchen").await;
    let mut json_client = node.connect("/ws").await;
    json_client.event("welcome").await;
    json_client.subscribe("shop:kitchen").await;
    publish(&node, json!({"name": "order-up", "channel": "kitchen", "data": "{\"table\":7}"})).await;
    let event = json_client.event("message").await;
    assert_eq!(event["message"], json!({"event": "order-up", "data": "{\"table\":7}"}));
    assert_eq!(pusher.next().await["event"], "order-up");
    for (message, event, data) in [
        (json!({"event": "ready", "data": {"table": 7}}), "ready", json!("{\"table\":7}")),
        (json!("hello"), "message", json!("\"hello\"")),
        (json!({"event": "pusher:error", "data": 1}), "message", json!(r#"{"data":1,"event":"pusher:error"}"#)),
    ] {
        json_client.say(json!({"name": "publish_no_self", "room": "shop:kitchen", "message": message})).await;
        assert_eq!(pusher.next().await, json!({"event": event, "channel": "kitchen", "data": data}));
    }
    // A private channel stays private whatever the namespace allows.
    let refused = json_client.ask(json!({"name": "subscribe", "room": "shop:private-a"})).await;
    assert_eq!(refused["code"], "not_allowed");
    let refused = json_client.ask(json!({"name": "publish", "room": "shop:private-a", "message": 1})).await;
    assert_eq!(refused["code"], "not_allowed");
    // And a namespace without a table of its own is shut.
    let refused = json_client.ask(json!({"name": "subscribe", "room": "pusher-1002:kitchen"})).await;
    assert_eq!(refused["code"], "not_allowed");
    let closed =
        request(node.admin, "DELETE", "/api/rooms/shop:kitchen", &[("Authorization", "Bearer operator")], "").await;
    assert!((200..300).contains(&closed.status), "{closed:?}");
    let told = pusher.next().await;
    assert_eq!((&told["event"], &told["data"]["type"]), (&json!("pusher:subscription_error"), &json!("Closed")));
    let channel = call(&node, "GET", "/apps/1001/channels/kitchen", &[], "").await.json();
    assert_eq!(channel, json!({"occupied": false}));
    pusher.subscribe("kitchen").await;
}
