//! Connections to one room, and names of rooms.

use super::*;

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
