//! What is said, byte for byte and between dialects.

use super::*;

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

#[tokio::test]
async fn ping_is_answered_with_pong() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    assert_eq!(client.ask(json!({"name": "ping"})).await, json!({"name": "pong"}));
    assert_eq!(client.ask(json!({"name": "ping", "id": "x"})).await, json!({"name": "pong", "id": "x"}));
    let mut client = node.connect("/room/a").await;
    assert_eq!(client.ask(json!({"name": "ping", "id": 1})).await, json!({"name": "pong", "id": 1}));
}
