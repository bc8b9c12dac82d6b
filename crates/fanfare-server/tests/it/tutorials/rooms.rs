//! 4 to 6: rooms in text, rooms with commands, rooms with a clock.

use super::*;

#[tokio::test]
async fn t4_text_rooms_reach_everyone_the_sender_included() {
    let node = TestNode::dev("");
    let mut one = node.enter("hub", "?format=text").await;
    let mut two = node.enter("hub", "?format=text").await;
    let mut elsewhere = node.enter("other", "?format=text").await;
    one.send("hello, all").await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.text().await, "hello, all");
    }
    two.send(vec![0, 255, 10]).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.binary().await, [0, 255, 10]);
    }
    // What looks like a command of the other dialect is a message here.
    two.send(r#"{"name":"close"}"#).await;
    assert_eq!(one.text().await, r#"{"name":"close"}"#);
    // The first thing heard in the other room is what is said there.
    elsewhere.send("quiet here").await;
    assert_eq!(elsewhere.text().await, "quiet here");
}

#[tokio::test]
async fn t4_queued_messages_are_joined_for_those_who_ask_for_it() {
    // On one shard everything that comes in one read is flushed as one batch.
    let node = TestNode::dev("shards = 1");
    let mut plain = node.enter("hub", "?format=text").await;
    let mut joined = node.enter("hub", "?format=text&join_newline=1").await;
    let mut sender = node.upgrade("/room/hub?format=text&join_newline=1").await;
    wait_until("three members", async || node.occupancy("hub") == 3).await;
    let burst = [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x82, b"\0"), frame(0x81, b"three")];
    sender.send(&burst.concat()).await;
    for text in ["one", "two"] {
        assert_eq!(plain.text().await, text);
    }
    assert_eq!(plain.binary().await, [0]);
    assert_eq!(plain.text().await, "three");

    assert_eq!(joined.text().await, "one\ntwo");
    assert_eq!(joined.binary().await, [0]);
    assert_eq!(joined.text().await, "three");
    assert_eq!(sender.frame().await.text(), "one\ntwo");
}

#[tokio::test]
async fn t4_other_paths_and_methods_are_refused() {
    let node = TestNode::dev("");
    for path in ["/rooms", "/room", "/ws/", "/room/a/b", "/wsx", "/index.html", "/metrics", "/api/rooms"] {
        request(node.clients, "GET", path, &[], "").await.expect_problem(404, "not_found");
    }
    for path in ["/", "/ws", "/echo", "/helloworld", "/room/hub"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = request(node.clients, method, path, &[], "").await;
            answer.expect_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), Some(if path == "/" { "GET, HEAD" } else { "GET" }), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn t5_publish_and_publish_no_self_in_a_room_by_url() {
    let node = TestNode::dev("");
    let mut one = node.enter("a", "").await;
    let mut two = node.enter("a", "").await;
    let mut other = node.enter("b", "").await;
    one.say(json!({"name": "publish", "message": "for all"})).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.json().await, json!({"name": "message", "message": "for all"}));
    }
    one.say(json!({"name": "publish_no_self", "message": "for the others"})).await;
    // Said to the gateway only; nobody gets it, so the next of everybody is the mark.
    one.say(json!({"name": "message", "message": "between us"})).await;
    one.say(json!({"name": "publish", "message": "mark"})).await;
    assert_eq!(two.event("message").await["message"], "for the others");
    assert_eq!(two.event("message").await["message"], "mark");
    assert_eq!(one.event("message").await["message"], "mark");
    other.expect_nothing().await;
}

#[tokio::test]
async fn t5_leave_tells_the_others_and_closes() {
    let node = TestNode::dev("");
    let mut leaver = node.enter("a", "?name=Ada").await;
    let mut nameless = node.enter("a", "").await;
    let mut other = node.enter("a", "?name=Bob").await;
    leaver.say(json!({"name": "leave"})).await;
    for client in [&mut nameless, &mut other] {
        assert_eq!(client.event("left").await, json!({"name": "left", "user": "Ada"}));
    }
    let closed = loop {
        match leaver.next().await {
            // It may be told that its own leave was done.
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(event["name"], "unsubscribed", "{event}");
            }
            Message::Close(Some(CloseFrame { code, reason })) => break (u16::from(code), reason.as_str().to_owned()),
            message => panic!("{message:?}"),
        }
    };
    assert_eq!(closed, (1000, "left".to_owned()));
    assert_eq!(node.occupancy("a"), 2);
    node.wait_for_metric("fanfare_closes_total{reason=\"left\"}", 1.0).await;

    nameless.say(json!({"name": "leave"})).await;
    assert_eq!(other.event("left").await, json!({"name": "left"}));
}

#[tokio::test]
async fn t5_close_tells_all_and_closes_the_room() {
    let node = TestNode::dev("");
    let mut one = node.enter("a", "").await;
    let mut two = node.enter("a", "").await;
    let mut text = node.enter("a", "?format=text").await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    let first = many.subscribe("a").await;
    many.subscribe("b").await;

    one.say(json!({"name": "publish", "message": "last"})).await;
    one.say(json!({"name": "close"})).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.event("message").await["message"], "last");
        assert_eq!(client.json().await, json!({"name": "room_closed"}));
        assert_eq!(client.closed().await, (4410, "room closed".to_owned()));
    }
    assert_eq!(text.text().await, "last");
    assert_eq!(text.closed().await.0, 4410);
    // On /ws the room is gone and the connection stays, with its other rooms.
    assert_eq!(many.event("message").await["message"], "last");
    assert_eq!(many.json().await, json!({"name": "room_closed", "room": "a"}));
    assert_eq!(many.ask(json!({"name": "presence", "room": "a"})).await["code"], "not_subscribed");
    many.say(json!({"name": "publish", "room": "b", "message": 1})).await;
    assert_eq!(many.event("message").await["room"], "b");
    // The name is free for a room that begins anew.
    let again = many.subscribe("a").await;
    assert_ne!(first["epoch"], again["epoch"]);
    assert_eq!(again["offset"], 0);
}

#[tokio::test]
async fn t5_who_may_not_close_a_room_is_told_so() {
    let node = TestNode::serve("");
    let mut client = node.enter("a", "").await;
    let error = client.ask(json!({"name": "close", "id": "x"})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_allowed"), &json!("x")), "{error}");
    client.say(json!({"name": "publish", "message": "still open"})).await;
    assert_eq!(client.event("message").await["message"], "still open");
}

#[tokio::test]
async fn t5_empty_rooms_are_reaped_and_occupied_ones_never() {
    let node = TestNode::dev("rooms.reap_ms = 20");
    let mut staying = node.connect("/ws").await;
    staying.event("welcome").await;
    let before = staying.subscribe("stays").await;
    // Each of these is gone with a sweep, so several sweeps pass.
    for reaped in 1..=5 {
        let guest = node.enter("passing", "").await;
        assert_eq!(node.metric("fanfare_rooms").await, 2.0);
        guest.close().await;
        node.wait_for_metric("fanfare_rooms", 1.0).await;
        node.wait_for_metric("fanfare_rooms_reaped_total", f64::from(reaped)).await;
    }
    let after = staying.ask(json!({"name": "subscribe", "room": "stays"})).await;
    assert_eq!(before["epoch"], after["epoch"], "the same life of the room");
    // A room that was made by a publication alone goes too.
    staying.say(json!({"name": "publish", "room": "nobody", "message": 1})).await;
    node.wait_for_metric("fanfare_rooms_reaped_total", 6.0).await;
    staying.say(json!({"name": "unsubscribe", "room": "stays"})).await;
    node.wait_for_metric("fanfare_rooms", 0.0).await;
}

#[tokio::test]
async fn t5_whoever_enters_while_rooms_are_swept_is_never_lost() {
    // Two shards, a sweep every 10 ms, and a room that is vacated and entered all the time.
    let node = TestNode::dev("rooms.reap_ms = 10");
    let mut one = node.connect("/ws").await;
    let mut two = node.connect("/ws").await;
    one.event("welcome").await;
    two.event("welcome").await;
    for round in 0..300 {
        for client in [&mut one, &mut two] {
            client.subscribe("busy").await;
        }
        let (sender, other) = if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        sender.say(json!({"name": "publish", "room": "busy", "message": round})).await;
        assert_eq!(sender.event("message").await["message"], round);
        assert_eq!(other.event("message").await["message"], round, "a member that the room does not know");
        for client in [&mut one, &mut two] {
            client.say(json!({"name": "unsubscribe", "room": "busy"})).await;
            client.event("unsubscribed").await;
        }
        if round % 10 == 0 {
            // Lets a sweep come between the lives.
            wait_until("the room to be reaped", async || node.metric("fanfare_rooms").await == 0.0).await;
        }
    }
}

#[tokio::test]
async fn t6_the_time_arrives_in_every_occupied_room() {
    let node = TestNode::dev("[namespaces.clock]\nticker_ms = 20");
    let mut one = node.enter("clock:one", "").await;
    let mut two = node.enter("clock:two", "?format=text").await;
    let mut other = node.enter("quiet", "").await;
    let mut last = String::new();
    for _ in 0..3 {
        let event = one.event("message").await;
        let time = event["message"].as_str().unwrap().to_owned();
        assert_time(&time);
        assert!(time > last, "{time} after {last}");
        last = time;
        assert_time(&two.text().await);
    }
    other.expect_nothing().await;
}

#[tokio::test]
async fn t6_the_time_stops_with_the_room() {
    let node = TestNode::dev("[namespaces.clock]\nticker_ms = 20");
    let mut witness = node.enter("clock:other", "").await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let subscribed = client.subscribe("clock:one").await;
    client.event("message").await;
    client.say(json!({"name": "unsubscribe", "room": "clock:one"})).await;
    let mut heard = 1;
    while client.json().await["name"] == "message" {
        heard += 1;
    }
    for _ in 0..4 {
        witness.event("message").await;
    }
    // Its stream stands where the client left it: nothing was published to nobody.
    let again = client.subscribe("clock:one").await;
    assert_eq!(again["epoch"], subscribed["epoch"]);
    assert_eq!(again["offset"].as_u64().unwrap(), subscribed["offset"].as_u64().unwrap() + heard);
}

/// `2026-11-20T22:00:00.000Z`.
fn assert_time(text: &str) {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}
