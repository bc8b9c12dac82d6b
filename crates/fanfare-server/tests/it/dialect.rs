//! The JSON and text dialects as clients meet them: commands, replies, order, and messages passed through byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Client, TestNode, frame, request, wait_until};

/// A client on `/ws` that has been welcomed.
async fn welcomed(node: &TestNode) -> Client {
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client
}

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
    other.expect_nothing().await;
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

/// The `message` of a message event as it was written, to the byte.
fn raw_message(event: &str) -> &str {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error} in {event}"));
    event.message.get()
}

// ---- coming and going ----

#[tokio::test]
async fn welcome_comes_first_and_says_who_and_where() {
    let node = TestNode::dev("node = \"n1\"\n[heartbeat]\nping_ms = 12345");
    let mut one = node.connect("/ws").await;
    let mut two = node.connect("/ws?name=Ada").await;
    let first = one.event("welcome").await;
    let second = two.event("welcome").await;
    for welcome in [&first, &second] {
        assert_eq!((&welcome["heartbeat_ms"], &welcome["node"]), (&json!(12345), &json!("n1")), "{welcome}");
        assert!(welcome["connection"].as_str().is_some_and(|id| !id.is_empty()), "{welcome}");
    }
    assert_ne!(first["connection"], second["connection"]);
    assert_eq!((&first["user"], &second["user"]), (&Value::Null, &json!("Ada")));
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

/// The two things a subscribed publisher hears, in either order: acks go before data.
async fn message_and_ack(client: &mut Client) -> (Value, Value) {
    let (first, second) = (client.json().await, client.json().await);
    let (message, ack) = if first["name"] == "ack" { (second, first) } else { (first, second) };
    assert_eq!((&message["name"], &ack["name"]), (&json!("message"), &json!("ack")));
    (message, ack)
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

// ---- publishing ----

#[tokio::test]
async fn an_id_brings_an_ack_that_tells_the_truth() {
    let node = TestNode::dev("shards = 3");
    let mut publisher = welcomed(&node).await;
    let mut publish = async |id: &str, name: &str| {
        publisher.send(format!(r#"{{"name":"{name}","room":"a","message":0,"id":{id}}}"#)).await;
        publisher.text().await
    };
    let ack = |delivered: u32, id: &str| {
        format!(r#"{{"name":"ack","delivered":{delivered},"dropped":0,"evicted":0,"id":{id}}}"#)
    };
    // Ids come back exactly as they were written.
    for id in ["1", "-1", "0", "1.50", "1e3", "123456789012345678901234567890", r#""x""#, r#""""#, r#""A\n房""#] {
        assert_eq!(publish(id, "publish").await, ack(0, id));
    }
    let mut others = Vec::new();
    for count in 1..=7 {
        others.push(node.enter("a", if count % 2 == 0 { "?format=text" } else { "" }).await);
        assert_eq!(publish("7", "publish").await, ack(count, "7"));
        // Leaving itself out makes no difference to who is no subscriber.
        assert_eq!(publish("8", "publish_no_self").await, ack(count, "8"));
    }
    publisher.subscribe("a").await;
    publisher.say(json!({"name": "publish_no_self", "room": "a", "message": 1, "id": 1})).await;
    assert_eq!(publisher.event("ack").await["delivered"], 7);
    publisher.expect_nothing().await;
    publisher.say(json!({"name": "publish", "room": "a", "message": 1, "id": 1})).await;
    assert_eq!(message_and_ack(&mut publisher).await.1["delivered"], 8);
}

#[tokio::test]
async fn messages_are_passed_through_byte_for_byte() {
    let node = TestNode::dev("");
    let mut room = node.enter("a", "").await;
    let mut rooms = welcomed(&node).await;
    rooms.subscribe("a").await;
    let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
    let long = format!("\"{}\"", "長".repeat(20_000));
    for message in [
        "null",
        "true",
        "\"\"",
        "{}",
        "-0",
        "1.0",
        "1.50e+300",
        "123456789012345678901234567890.000000000000000000001",
        "{ \"a\" :\t[1 ,2,\n\r 3 ] ,\"a\": \"twice\" }",
        r#""\u0041\/\n\"\\ \ud83c\udfba""#,
        r#""\ud800""#,
        "\"房间 🎺 \u{2028}\u{7f}\"",
        r#"{"name":"close","room":"a","message":{"name":"leave"},"":null}"#,
        r#"[[],[[]],{"x":{"y":{"z":[null,null]}}}]"#,
        &deep,
        &long,
    ] {
        // White space around the value belongs to the command, not to the message.
        room.send(format!("{{ \"message\" : {message} \n, \"name\" : \"publish\" }}")).await;
        let (own, other) = (room.text().await, rooms.text().await);
        assert_eq!(raw_message(&own), message);
        assert_eq!(raw_message(&other), message);
        assert_eq!(own, format!(r#"{{"name":"message","message":{message}}}"#));
        assert_eq!(other, format!(r#"{{"name":"message","message":{message},"room":"a"}}"#));
    }
}

#[tokio::test]
async fn messages_cross_between_dialects() {
    let node = TestNode::dev("");
    let mut json = node.enter("a", "").await;
    let mut text = node.enter("a", "?format=text").await;
    // A JSON string is its content in text; anything else is as it was written.
    for (message, plain) in [
        (r#""hi""#, "hi"),
        (r#""""#, ""),
        (r#""a\nb \"c\" \u0041 \ud83c\udfba""#, "a\nb \"c\" A 🎺"),
        // Half a surrogate pair is no text.
        (r#""\ud800""#, r#""\ud800""#),
        ("1.50", "1.50"),
        ("null", "null"),
        ("{ \"a\": [ 1 ] }", "{ \"a\": [ 1 ] }"),
    ] {
        json.send(format!(r#"{{"name":"publish","message":{message}}}"#)).await;
        assert_eq!(text.text().await, plain);
        assert_eq!(raw_message(&json.text().await), message);
    }
    // Text is a JSON string.
    for plain in ["hi", "", "a\nb \"c\" \\ \u{1} 🎺 </script>", "{\"name\":\"x\"}", "5"] {
        text.send(plain).await;
        assert_eq!(text.text().await, plain);
        assert_eq!(json.event("message").await, json!({"name": "message", "message": plain}));
    }
    for (bytes, base64) in [(&b""[..], ""), (b"\0", "AA=="), (b"\xff\xfe", "//4="), (b"Man", "TWFu")] {
        text.send(bytes.to_vec()).await;
        assert_eq!(text.binary().await, bytes);
        let event = json.json().await;
        assert_eq!(event, json!({"name": "message", "message": base64, "encoding": "base64"}));
    }
}

#[tokio::test]
async fn publications_name_their_user_to_json_clients() {
    let node = TestNode::dev("");
    let mut named = node.enter("a", "?name=Ada%20L").await;
    let mut text = node.enter("a", "?format=text&name=Bob").await;
    named.say(json!({"name": "publish", "message": 1})).await;
    assert_eq!(named.json().await, json!({"name": "message", "message": 1, "user": "Ada L"}));
    assert_eq!(text.text().await, "1");
    text.send("two").await;
    assert_eq!(named.json().await, json!({"name": "message", "message": "two", "user": "Bob"}));
}

// ---- what is refused ----

#[tokio::test]
async fn errors_say_what_was_wrong_and_keep_the_connection() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    let long_name = "x".repeat(1_000);
    for (said, code, naming) in [
        (r#"{"name":"fly"}"#, "unknown_command", "`fly`"),
        (r#"{"name":"Publish","room":"a","message":1}"#, "unknown_command", "`Publish`"),
        (r#"{"name":"房\n"}"#, "unknown_command", "房"),
        (&format!(r#"{{"name":"{long_name}"}}"#), "unknown_command", "xxx"),
        ("", "bad_message", ""),
        ("hello", "bad_message", "JSON"),
        ("{", "bad_message", "JSON"),
        (r#"{"name":"ping"}{"name":"ping"}"#, "bad_message", "JSON"),
        ("[]", "bad_message", "object"),
        (r#"["publish"]"#, "bad_message", "object"),
        ("null", "bad_message", "object"),
        (r#"{"room":"a"}"#, "bad_message", "name"),
        (r#"{"name":null}"#, "bad_message", "name"),
        (r#"{"name":"ping","id":{}}"#, "bad_message", "id"),
    ] {
        client.send(said).await;
        let error = client.event("error").await;
        assert_eq!(error["code"], code, "{said}: {error}");
        let message = error["message"].as_str().expect("a text for people");
        assert!(message.contains(naming) && message.len() < 400, "{said}: {message}");
        client.expect_nothing().await;
    }
    for (said, code) in [
        (json!({"name": "subscribe", "id": 1}), "bad_message"),
        (json!({"name": "publish", "room": "a", "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": 5, "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": "a", "since": "yesterday", "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": "", "id": 1}), "bad_room"),
        (json!({"name": "subscribe", "room": "a b", "id": 1}), "bad_room"),
        (json!({"name": "publish", "room": "a/b", "message": 1, "id": 1}), "bad_room"),
        (json!({"name": "leave", "room": "a\u{0}", "id": 1}), "bad_room"),
        (json!({"name": "presence", "room": "x".repeat(201), "id": 1}), "bad_room"),
        (json!({"name": "unsubscribe", "room": "a", "id": 1}), "not_subscribed"),
        (json!({"name": "leave", "room": "a", "id": 1}), "not_subscribed"),
        (json!({"name": "presence", "room": "a", "id": 1}), "not_subscribed"),
    ] {
        let error = client.ask(said.clone()).await;
        assert_eq!(
            (&error["name"], &error["code"], &error["id"]),
            (&json!("error"), &json!(code), &json!(1)),
            "{said}"
        );
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn ten_bad_messages_in_a_row_close_the_connection() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    for _ in 0..9 {
        client.send("nonsense").await;
        assert_eq!(client.event("error").await["code"], "bad_message");
    }
    // A good one begins a new row; a command nobody knows is no bad message.
    client.expect_nothing().await;
    for number in 0..20 {
        client.send(format!(r#"{{"name":"unknown{number}"}}"#)).await;
        assert_eq!(client.event("error").await["code"], "unknown_command");
    }
    for _ in 0..9 {
        client.send("nonsense").await;
        assert_eq!(client.event("error").await["code"], "bad_message");
    }
    client.send("nonsense").await;
    assert_eq!(client.closed().await, (1008, "too many bad messages in a row".to_owned()));
    node.wait_for_metric("fanfare_closes_total{reason=\"bad_messages\"}", 1.0).await;
}

#[tokio::test]
async fn binary_messages_are_not_json() {
    let node = TestNode::dev("");
    for path in ["/ws", "/room/a"] {
        let mut client = node.connect(path).await;
        if path == "/ws" {
            client.event("welcome").await;
        }
        client.send(b"{\"name\":\"ping\"}".to_vec()).await;
        assert_eq!(client.closed().await.0, 1003, "{path}");
    }
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

#[tokio::test]
async fn rights_of_a_namespace_hold_for_every_way_in() {
    let node = TestNode::dev(
        "[namespaces.news]\npublish = \"nobody\"\n[namespaces.named]\nsubscribe = \"user\"\n[namespaces.shut]\nsubscribe = \"nobody\"",
    );
    let mut client = welcomed(&node).await;
    client.subscribe("news:all").await;
    let error = client.ask(json!({"name": "publish", "room": "news:all", "message": 1, "id": 1})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_allowed"), &json!(1)));
    for room in ["named:a", "shut:a"] {
        let error = client.ask(json!({"name": "subscribe", "room": room})).await;
        assert_eq!(error["code"], "not_allowed", "{room}");
        // A browser learns a close code, but never the status of a refused handshake.
        let mut stranger = node.connect(&format!("/room/{room}")).await;
        assert_eq!(stranger.closed().await, (4403, "not allowed".to_owned()), "{room}");
    }
    node.enter("named:a", "?name=Ada").await;
}

#[tokio::test]
async fn ping_is_answered_with_pong() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    assert_eq!(client.ask(json!({"name": "ping"})).await, json!({"name": "pong"}));
    assert_eq!(client.ask(json!({"name": "ping", "id": "x"})).await, json!({"name": "pong", "id": "x"}));
    let mut client = node.connect("/room/a").await;
    assert_eq!(client.ask(json!({"name": "ping", "id": 1})).await, json!({"name": "pong", "id": 1}));
}

// ---- one room by URL ----

#[tokio::test]
async fn one_room_connections_are_quiet_unless_asked_since_when() {
    let node = TestNode::dev("");
    let mut client = node.connect("/room/a").await;
    // Neither `welcome` nor `subscribed`: the first thing heard is what was asked for.
    client.expect_nothing().await;
    client.say(json!({"name": "publish", "message": 1})).await;
    assert_eq!(client.json().await, json!({"name": "message", "message": 1}));

    let mut many = welcomed(&node).await;
    let here = many.subscribe("a").await;
    let epoch = here["epoch"].as_str().expect("an epoch");
    assert_eq!(here["offset"], 1);
    // Whoever was here has missed nothing; whoever was further back, ahead, or in another life of the room is told of a gap.
    for (since, recovered) in [
        (format!("{epoch}:1"), true),
        (format!("{epoch}:0"), false),
        (format!("{epoch}:2"), false),
        ("0000000000000001:1".to_owned(), false),
    ] {
        let mut client = node.connect(&format!("/room/a?since={since}")).await;
        let told = json!({"name": "subscribed", "epoch": epoch, "offset": 1, "recovered": recovered});
        assert_eq!(client.json().await, told, "{since}");
        client.expect_nothing().await;
        let mut client = welcomed(&node).await;
        let told = client.ask(json!({"name": "subscribe", "room": "a", "since": since})).await;
        assert_eq!((&told["name"], &told["recovered"]), (&json!("subscribed"), &json!(recovered)), "{since}");
    }
    for since in ["", "x", "1:1", "00000000000000zz:1"] {
        let refused = Client::try_connect(node.clients, &format!("/room/a?since={since}"), &[]).await;
        assert!(refused.is_err(), "{since:?} is no position");
    }
}

#[tokio::test]
async fn one_room_connections_may_name_their_room_and_no_other() {
    let node = TestNode::dev("");
    let mut client = node.enter("a", "").await;
    client.say(json!({"name": "publish", "room": "a", "message": 1})).await;
    client.event("message").await;
    let error = client.ask(json!({"name": "publish", "room": "b", "message": 1, "id": 1})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("bad_room"), &json!(1)));
    assert_eq!(client.ask(json!({"name": "subscribe", "room": "b"})).await["code"], "bad_room");
}

#[tokio::test]
async fn room_names_may_be_any_language_and_are_percent_encoded_in_urls() {
    let node = TestNode::dev("");
    let mut many = welcomed(&node).await;
    let longest = "房".repeat(66) + "ab";
    for (name, encoded) in [
        ("房间:1", "%E6%88%BF%E9%97%B4:1"),
        ("a+b", "a+b"),
        ("a+b%", "a%2Bb%25"),
        ("ünïcode🎺", "%C3%BCn%C3%AFcode%F0%9F%8E%BA"),
        ("A&b=c;d", "%41&b=c;d"),
        ("..", ".."),
        (&longest, &percent_encoding::utf8_percent_encode(&longest, percent_encoding::NON_ALPHANUMERIC).to_string()),
    ] {
        many.subscribe(name).await;
        let mut one = node.connect(&format!("/room/{encoded}")).await;
        one.say(json!({"name": "publish", "message": 1})).await;
        assert_eq!(many.json().await, json!({"name": "message", "message": 1, "room": name}));
        assert_eq!(one.json().await, json!({"name": "message", "message": 1}));
    }
}

#[tokio::test]
async fn room_names_that_break_the_rules_are_refused() {
    let node = TestNode::dev("");
    let too_long = "x".repeat(201);
    let headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for name in [
        "",
        "a%20b",
        "a%2Fb",
        "a%3Fb",
        "a%23b",
        "%00",
        "a%7F",
        "%C2%A0",
        "%E3%80%80",
        "%C2%85",
        "%FF",
        "%ED%A0%80",
        &too_long,
    ] {
        // The request helper asks for the connection to be closed; a list may say both.
        let answer = request(node.clients, "GET", &format!("/room/{name}"), &headers, "").await;
        answer.expect_problem(400, "bad_room");
    }
    assert_eq!(node.metric("fanfare_rooms").await, 0.0);
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"bad_room\"}").await, 13.0);
}

// ---- order ----

const PUBLISHERS: usize = 3;
const EACH: usize = 500;
const SUBSCRIBERS: usize = 20;

/// What one subscription heard: where the stream stood when it began, and the messages from then on.
struct Heard {
    offset: usize,
    messages: Vec<String>,
}

/// Hears all of the room's messages.
async fn hear_all(mut client: Client, offset: usize) -> Heard {
    let mut messages = Vec::new();
    while offset + messages.len() < PUBLISHERS * EACH {
        messages.push(raw_message(&client.text().await).to_owned());
    }
    client.expect_nothing().await;
    Heard { offset, messages }
}

/// Comes and goes until `done`, hearing a few messages each time.
async fn come_and_go(mut client: Client, done: Arc<AtomicBool>) -> Vec<Heard> {
    let mut visits = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let subscribed = client.subscribe("busy").await;
        let offset = subscribed["offset"].as_u64().expect("an offset") as usize;
        // Leaves whatever comes, and must then hear what was said up to that point.
        client.say(json!({"name": "unsubscribe", "room": "busy"})).await;
        let mut messages = Vec::new();
        loop {
            let text = client.text().await;
            if text.starts_with(r#"{"name":"unsubscribed""#) {
                break;
            }
            messages.push(raw_message(&text).to_owned());
        }
        client.expect_nothing().await;
        visits.push(Heard { offset, messages });
    }
    visits
}

/// Publishes as far as it is let: a permit a message.
async fn publish_all(mut client: Client, publisher: usize, permits: Arc<Semaphore>) {
    for number in 0..EACH {
        permits.acquire().await.unwrap().forget();
        client.say(json!({"name": "publish", "room": "busy", "message": format!("{publisher}-{number}")})).await;
        // Gives the others their turn, as a network would.
        tokio::task::yield_now().await;
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn all_subscribers_on_all_shards_see_one_order_while_others_come_and_go() {
    let node = TestNode::dev("shards = 3");
    let mut subscribers = Vec::new();
    for index in 0..SUBSCRIBERS {
        // Half of them on /ws, half on /room.
        let client = if index % 2 == 0 {
            let mut client = welcomed(&node).await;
            client.subscribe("busy").await;
            client
        } else {
            node.enter("busy", "").await
        };
        subscribers.push(tokio::spawn(hear_all(client, 0)));
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut visitors = Vec::new();
    for _ in 0..10 {
        visitors.push(tokio::spawn(come_and_go(welcomed(&node).await, done.clone())));
    }
    let part = PUBLISHERS * EACH / 6;
    let permits = Arc::new(Semaphore::new(part));
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        publishers.push(tokio::spawn(publish_all(welcomed(&node).await, publisher, permits.clone())));
    }
    // Some come when much has been said already, and never when all has.
    let mut late = Vec::new();
    for _ in 0..5 {
        let mut client = welcomed(&node).await;
        let offset = client.subscribe("busy").await["offset"].as_u64().expect("an offset") as usize;
        late.push(tokio::spawn(hear_all(client, offset)));
        permits.add_permits(part);
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let heard: Vec<Heard> = join_all(subscribers).await.into_iter().map(Result::unwrap).collect();
    done.store(true, Ordering::Relaxed);

    let order = &heard[0].messages;
    // Nothing missing, nothing double, and every publisher's own order kept.
    for publisher in 0..PUBLISHERS {
        let prefix = format!("\"{publisher}-");
        let own: Vec<&String> = order.iter().filter(|message| message.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..EACH).map(|number| format!("\"{publisher}-{number}\"")).collect();
        assert!(own.into_iter().eq(&expected), "the order of publisher {publisher}");
    }
    assert_eq!(order.len(), PUBLISHERS * EACH);
    for (index, heard) in heard.iter().enumerate() {
        assert!(heard.messages == *order, "subscriber {index} saw another order");
    }
    for heard in join_all(late).await.into_iter().map(Result::unwrap) {
        assert!(heard.messages == order[heard.offset..], "who came at {} missed something", heard.offset);
        assert!(!heard.messages.is_empty());
    }
    let visits: Vec<Heard> = join_all(visitors).await.into_iter().flat_map(Result::unwrap).collect();
    for visit in &visits {
        let end = visit.offset + visit.messages.len();
        assert!(visit.messages == order[visit.offset..end], "a visit from {} to {end}", visit.offset);
    }
    assert!(visits.iter().any(|visit| !visit.messages.is_empty()), "some visits overlapped with publications");
    assert!(visits.len() > 20, "only {} visits", visits.len());
}
