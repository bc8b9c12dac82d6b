//! In and out of rooms, and who is there.

use super::*;

#[tokio::test]
async fn subscribing_again_is_answered_behind_the_messages_that_it_counts() {
    let node = TestNode::dev("[namespaces.slow]\ncoalesce_ms = 1000");
    let (mut one, mut other) = (welcomed(&node).await, welcomed(&node).await);
    for client in [&mut one, &mut other] {
        assert_eq!(client.subscribe("slow:a").await["offset"], 0);
    }
    // They wait to be sent together, and the room's only members are these.
    for n in 1..=3 {
        other.say(json!({"name": "publish", "room": "slow:a", "message": n})).await;
    }
    node.wait_for_metric("fanfare_published_total", 3.0).await;
    one.say(json!({"name": "subscribe", "room": "slow:a", "id": "again"})).await;
    for n in 1..=3 {
        assert_eq!(one.event("message").await["message"], n);
    }
    let again = one.event("subscribed").await;
    assert_eq!((&again["offset"], &again["id"], &again["recovered"]), (&json!(3), &json!("again"), &json!(true)));
    other.say(json!({"name": "publish", "room": "slow:a", "message": 4})).await;
    // Nobody gets anything twice: who asked has had the first three.
    for n in 1..=4 {
        assert_eq!(other.event("message").await["message"], n);
    }
    assert_eq!(one.event("message").await["message"], 4);
}

#[tokio::test]
async fn subscribing_is_answered_with_where_the_stream_stands() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    let subscribed = client.ask(json!({"name": "subscribe", "room": "a", "id": 1})).await;
    let epoch = subscribed["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(
        subscribed,
        json!({"name": "subscribed", "room": "a", "epoch": epoch, "offset": 0, "recovered": true, "id": 1})
    );
    for number in 1..=3 {
        client.say(json!({"name": "publish", "room": "a", "message": number})).await;
        client.event("message").await;
    }
    let mut other = welcomed(&node).await;
    let subscribed = other.subscribe("a").await;
    assert_eq!((&subscribed["epoch"], &subscribed["offset"]), (&json!(epoch), &json!(3)));
}

#[tokio::test]
async fn subscribing_twice_changes_nothing() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    let first = client.subscribe("a").await;
    assert_eq!(client.subscribe("a").await, first);
    client.say(json!({"name": "publish", "room": "a", "message": "once", "id": 1})).await;
    let (message, ack) = message_and_ack(&mut client).await;
    assert_eq!((&message["message"], &ack["delivered"]), (&json!("once"), &json!(1)));
    client.expect_nothing().await;
    // And once out is out.
    client.say(json!({"name": "unsubscribe", "room": "a"})).await;
    client.event("unsubscribed").await;
    assert_eq!(node.occupancy("a"), 0);
    let error = client.ask(json!({"name": "unsubscribe", "room": "a", "id": 5})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_subscribed"), &json!(5)));
}

#[tokio::test]
async fn what_was_said_before_unsubscribing_arrives_and_nothing_after() {
    let node = TestNode::dev("shards = 3");
    let mut leaver = welcomed(&node).await;
    let mut publishers = join_all((0..6).map(|_| welcomed(&node))).await;
    for round in 0..20 {
        leaver.subscribe("a").await;
        let publisher = &mut publishers[round % 6];
        for number in 0..5 {
            publisher.say(json!({"name": "publish", "room": "a", "message": number})).await;
        }
        // The answer tells that all five have been accepted; where the publisher is on another shard the ack is the proof
        // that they are on their way.
        publisher.say(json!({"name": "publish", "room": "a", "message": 5, "id": 1})).await;
        assert_eq!(publisher.event("ack").await["delivered"], 1);
        leaver.say(json!({"name": "unsubscribe", "room": "a", "id": round})).await;
        for number in 0..=5 {
            assert_eq!(leaver.event("message").await["message"], number);
        }
        let gone = leaver.event("unsubscribed").await;
        assert_eq!(gone, json!({"name": "unsubscribed", "room": "a", "id": round}));
        publisher.say(json!({"name": "publish", "room": "a", "message": "too late", "id": 2})).await;
        assert_eq!(publisher.event("ack").await["delivered"], 0);
        leaver.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_publisher_that_unsubscribes_in_the_same_breath_hears_itself_first() {
    let node = TestNode::dev("");
    let mut raw = node.upgrade("/ws").await;
    raw.frame().await;
    let mut breath = frame(0x81, br#"{"name":"subscribe","room":"a"}"#);
    for number in 0..50 {
        breath.extend(frame(0x81, format!(r#"{{"name":"publish","room":"a","message":{number}}}"#).as_bytes()));
    }
    breath.extend(frame(0x81, br#"{"name":"unsubscribe","room":"a"}"#));
    breath.extend(frame(0x81, br#"{"name":"publish","room":"a","message":"too late"}"#));
    breath.extend(frame(0x81, br#"{"name":"subscribe","room":"b"}"#));
    raw.send(&breath).await;
    assert!(raw.frame().await.text().starts_with(r#"{"name":"subscribed""#));
    for number in 0..50 {
        let event = raw.frame().await;
        assert_eq!(raw_message(event.text()), number.to_string());
    }
    assert!(raw.frame().await.text().starts_with(r#"{"name":"unsubscribed""#));
    assert!(raw.frame().await.text().starts_with(r#"{"name":"subscribed","room":"b""#));
}

#[tokio::test]
async fn leave_on_many_rooms_tells_the_others_and_keeps_the_connection() {
    let node = TestNode::dev("");
    let mut leaver = node.connect("/ws?name=Ada").await;
    leaver.event("welcome").await;
    leaver.subscribe("a").await;
    leaver.subscribe("b").await;
    let mut other = welcomed(&node).await;
    other.subscribe("a").await;
    leaver.say(json!({"name": "leave", "room": "a", "id": "l"})).await;
    assert_eq!(leaver.event("unsubscribed").await, json!({"name": "unsubscribed", "room": "a", "id": "l"}));
    assert_eq!(other.event("left").await, json!({"name": "left", "room": "a", "user": "Ada"}));
    assert_eq!(leaver.ask(json!({"name": "leave", "room": "a"})).await["code"], "not_subscribed");
    leaver.say(json!({"name": "publish", "room": "b", "message": 1})).await;
    assert_eq!(leaver.event("message").await["room"], "b");
}

#[tokio::test]
async fn users_are_announced_once_not_once_a_tab() {
    let node = TestNode::dev("namespaces.default.join_leave = true");
    let mut witness = node.enter("a", "").await;
    let token = node.guest("Ada").await;
    let tab = node.enter("a", &format!("?token={token}")).await;
    assert_eq!(witness.event("joined").await, json!({"name": "joined", "user": "Ada"}));
    let second_tab = node.enter("a", &format!("?token={token}")).await;
    let bob = node.enter("a", "?name=Bob").await;
    assert_eq!(witness.event("joined").await["user"], "Bob");
    tab.close().await;
    bob.close().await;
    assert_eq!(witness.event("left").await["user"], "Bob");
    drop(second_tab);
    assert_eq!(witness.event("left").await["user"], "Ada");
}

#[tokio::test]
async fn presence_counts_subscribers_and_names_users() {
    let node = TestNode::dev("");
    let mut client = node.connect("/ws?name=Zoe").await;
    let token = client.event("welcome").await["token"].as_str().expect("a token").to_owned();
    client.subscribe("a").await;
    let _same_user = node.enter("a", &format!("?token={token}")).await;
    let _other = node.enter("a", "?name=Ada").await;
    let nameless = node.enter("a", "").await;
    let reply = client.ask(json!({"name": "presence", "room": "a", "id": 1})).await;
    let members = json!([{"user": "Ada"}, {"user": "Zoe"}]);
    assert_eq!(reply, json!({"name": "presence", "room": "a", "count": 4, "members": members, "id": 1}));
    nameless.close().await;
    wait_until("three to be left", async || node.occupancy("a") == 3).await;
    assert_eq!(client.ask(json!({"name": "presence", "room": "a"})).await["count"], 3);
    assert_eq!(client.ask(json!({"name": "presence", "room": "b"})).await["code"], "not_subscribed");

    let without = TestNode::dev("namespaces.default.presence = false");
    let mut client = without.enter("a", "?name=Zoe").await;
    let reply = client.ask(json!({"name": "presence"})).await;
    assert_eq!(reply, json!({"name": "presence", "count": 1, "members": []}));
}

#[tokio::test]
async fn a_connection_may_be_in_so_many_rooms() {
    let node = TestNode::dev("limits.subscriptions_per_connection_max = 3");
    let mut client = welcomed(&node).await;
    for room in ["a", "b", "c"] {
        client.subscribe(room).await;
    }
    let error = client.ask(json!({"name": "subscribe", "room": "d", "id": 1})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("limit_reached"), &json!(1)));
    // One it is in already is no further one; and a place that is given back can be taken.
    client.subscribe("a").await;
    client.say(json!({"name": "unsubscribe", "room": "b"})).await;
    client.event("unsubscribed").await;
    client.subscribe("d").await;
    assert_eq!(node.metric("fanfare_subscriptions").await, 3.0);
}
