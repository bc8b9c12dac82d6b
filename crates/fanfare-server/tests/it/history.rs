//! What was said before: numbers, pages, and coming back without a gap.

use fanfare_edge::Hub;
use fanfare_guard::{NamespacePolicy, Namespaces};
use fanfare_protocol::RoomName;
use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Lines, Process};
use crate::support::{Answer, Client, Raw, TestNode, request, wait_until, within};

const KEEPS_FIVE: &str = "namespaces.default.history_size = 5";

/// Publishes over the API and returns the receipt.
async fn publish(node: &TestNode, room: &str, message: Value) -> Value {
    let body = json!({"room": room, "message": message}).to_string();
    let answer = request(node.admin, "POST", "/api/publish", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn publish_numbers(node: &TestNode, room: &str, numbers: std::ops::RangeInclusive<u64>) -> String {
    let mut epoch = String::new();
    for number in numbers {
        let receipt = publish(node, room, json!(number)).await;
        assert_eq!(receipt["offset"], number);
        epoch = receipt["epoch"].as_str().expect("an epoch").to_owned();
    }
    epoch
}

async fn get(node: &TestNode, path: &str) -> Answer {
    request(node.admin, "GET", path, &[], "").await
}

fn numbers(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["offset"].as_u64().expect("a number")).collect()
}

/// Numbers of the messages that come next; each says its own number.
async fn hear(client: &mut Client, offsets: impl IntoIterator<Item = u64>) {
    for offset in offsets {
        let message = client.event("message").await;
        assert_eq!((&message["offset"], &message["message"]), (&json!(offset), &json!(offset)));
    }
}

fn room(hub: &Hub, name: &str) -> bool {
    hub.registry().get(&RoomName::parse(name).expect("a valid name")).is_some()
}

#[tokio::test]
async fn messages_and_acks_have_numbers_where_a_history_is_kept() {
    let node = TestNode::dev("[namespaces.kept]\nhistory_size = 5");
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    for (name, is_kept) in [("kept:a", true), ("other", false)] {
        assert_eq!(client.subscribe(name).await["offset"], 0);
        for offset in 1..=3 {
            client.say(json!({"name": "publish", "room": name, "message": offset, "id": offset})).await;
            // The ack may overtake the message, and may not.
            let (one, two) = (client.json().await, client.json().await);
            let (ack, message) = if one["name"] == "ack" { (one, two) } else { (two, one) };
            let number = if is_kept { json!(offset) } else { Value::Null };
            assert_eq!((&message["name"], &message["offset"]), (&json!("message"), &number));
            assert_eq!((&ack["name"], &ack["id"], &ack["offset"]), (&json!("ack"), &json!(offset), &number));
            assert_eq!((&ack["delivered"], &ack["evicted"]), (&json!(1), &json!(0)));
        }
    }
    // A room nobody is in answers with the number, too.
    let ack = client.ask(json!({"name": "publish", "room": "kept:b", "message": 1, "id": "x"})).await;
    assert_eq!(ack, json!({"name": "ack", "offset": 1, "delivered": 0, "dropped": 0, "evicted": 0, "id": "x"}));
}

#[tokio::test]
async fn who_comes_back_is_told_what_it_missed_and_then_what_follows() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=8).await;
    for (since, recovered, missed) in [
        (format!("{epoch}:8"), true, 9..9),
        (format!("{epoch}:7"), true, 8..9),
        (format!("{epoch}:3"), true, 4..9),
        (format!("{epoch}:2"), false, 9..9),
        (format!("{epoch}:0"), false, 9..9),
        (format!("{epoch}:9"), false, 9..9),
        (format!("{epoch}:18446744073709551615"), false, 9..9),
        ("0123456789abcdef:8".to_owned(), false, 9..9),
    ] {
        let told = json!({"name": "subscribed", "epoch": epoch, "offset": 8, "recovered": recovered});
        let mut one = node.connect(&format!("/room/a?since={since}")).await;
        assert_eq!(one.json().await, told, "{since}");
        hear(&mut one, missed.clone()).await;
        one.expect_nothing().await;
        let mut many = node.connect("/ws").await;
        many.event("welcome").await;
        let answer = many.ask(json!({"name": "subscribe", "room": "a", "since": since, "id": 1})).await;
        assert_eq!((&answer["name"], &answer["recovered"]), (&json!("subscribed"), &json!(recovered)), "{since}");
        for offset in missed {
            let expected = json!({"name": "message", "message": offset, "room": "a", "offset": offset});
            assert_eq!(many.json().await, expected);
        }
        many.expect_nothing().await;
        one.close().await;
        many.close().await;
    }
    let mut back = node.connect(&format!("/room/a?since={epoch}:6")).await;
    back.event("subscribed").await;
    hear(&mut back, 7..=8).await;
    publish_numbers(&node, "a", 9..=12).await;
    hear(&mut back, 9..=12).await;
    for since in ["", "8", &format!("{epoch}:"), &format!("{epoch}:-1"), &format!("{epoch}:x"), "x:1"] {
        let refused = Client::try_connect(node.clients, &format!("/room/a?since={since}"), &[]).await;
        assert!(refused.is_err(), "{since:?} is no position");
        let refused = back.ask(json!({"name": "history", "since": since})).await;
        assert_eq!((&refused["name"], &refused["code"]), (&json!("error"), &json!("bad_message")), "{since:?}");
    }
    let recoveries = |result: &str| format!("fanfare_recoveries_total{{result=\"{result}\"}}");
    assert_eq!(node.metric(&recoveries("recovered")).await, 7.0);
    assert_eq!(node.metric(&recoveries("gap")).await, 10.0);
    assert_eq!(node.metric("fanfare_replayed_total").await, 14.0);
}

#[tokio::test]
async fn what_a_connection_kept_from_itself_is_kept_from_it_in_a_replay_too() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=1).await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let own = json!({"name": "publish_no_self", "room": "a", "message": 2, "id": 1});
    assert_eq!(client.ask(own).await["offset"], 2);
    publish(&node, "a", json!(3)).await;
    let subscribe = json!({"name": "subscribe", "room": "a", "since": format!("{epoch}:0")});
    assert_eq!(client.ask(subscribe.clone()).await["recovered"], true);
    hear(&mut client, [1, 3]).await;
    client.expect_nothing().await;
    // It was the connection that was left out, not whoever was behind it.
    let mut next = node.connect("/ws").await;
    next.event("welcome").await;
    assert_eq!(next.ask(subscribe).await["recovered"], true);
    hear(&mut next, [1, 2, 3]).await;
}

#[tokio::test]
async fn who_comes_back_speaking_text_is_told_in_text() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=4).await;
    for query in ["format=text", "format=text&join_newline=1"] {
        let mut client = node.connect(&format!("/room/a?{query}&since={epoch}:2")).await;
        assert_eq!(client.text().await, "3");
        assert_eq!(client.text().await, "4");
        client.close().await;
    }
}

#[tokio::test]
async fn pages_of_history_are_read_by_command_and_over_http() {
    let node = TestNode::dev("[namespaces.default]\nhistory_size = 10\n[namespaces.none]\nhistory_size = 0");
    let epoch = publish_numbers(&node, "a", 1..=12).await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    let mut own = node.enter("a", "").await;
    for (since, limit, recovered, expected) in [
        (None, None, Value::Null, (3..=12).collect::<Vec<u64>>()),
        (None, Some(3), Value::Null, vec![10, 11, 12]),
        (Some(format!("{epoch}:2")), None, json!(true), (3..=12).collect()),
        (Some(format!("{epoch}:5")), Some(2), json!(true), vec![6, 7]),
        (Some(format!("{epoch}:12")), None, json!(true), vec![]),
        (Some(format!("{epoch}:1")), Some(2), json!(false), vec![3, 4]),
        (Some(format!("{epoch}:13")), Some(2), json!(false), vec![3, 4]),
        (Some("0123456789abcdef:5".to_owned()), Some(1), json!(false), vec![3]),
    ] {
        let mut query = String::new();
        let mut command = json!({"name": "history", "room": "a", "id": 7});
        if let Some(since) = &since {
            query += &format!("&since={since}");
            command["since"] = json!(since);
        }
        if let Some(limit) = limit {
            query += &format!("&limit={limit}");
            command["limit"] = json!(limit);
        }
        let mut page = get(&node, &format!("/api/rooms/a/history?{query}")).await.json();
        assert_eq!(numbers(&page), expected, "{query}");
        assert_eq!((&page["epoch"], &page["offset"], &page["recovered"]), (&json!(epoch), &json!(12), &recovered));
        let told = many.ask(command.clone()).await;
        page["name"] = json!("history");
        page["id"] = json!(7);
        let unnamed = page.clone();
        page["room"] = json!("a");
        assert_eq!(told, page, "the same by command");
        command.as_object_mut().expect("an object").remove("room");
        assert_eq!(own.ask(command).await, unnamed, "and on the room's own path");
    }
    // Reading on from the last message of a page, one gets all of it.
    let (mut since, mut read) = (format!("{epoch}:2"), Vec::new());
    loop {
        let page = get(&node, &format!("/api/rooms/a/history?limit=4&since={since}")).await.json();
        let Some(last) = numbers(&page).last().copied() else { break };
        read.extend(numbers(&page));
        since = format!("{epoch}:{last}");
    }
    assert_eq!(read, (3..=12).collect::<Vec<_>>());
    for (path, status, code) in [
        ("/api/rooms/nobody/history", 404, "no_room"),
        ("/api/rooms/none:a/history", 422, "not_available"),
        ("/api/rooms/a/history?since=x", 400, "bad_request"),
        ("/api/rooms/a/history?limit=0", 422, "bad_limit"),
        ("/api/rooms/a/history?limit=1001", 422, "bad_limit"),
        ("/api/rooms/a%20b/history", 422, "bad_room"),
        ("/api/rooms/a/histories", 404, "not_found"),
        ("/api/rooms/a/history/", 404, "not_found"),
    ] {
        get(&node, path).await.expect_problem(status, code);
    }
    request(node.admin, "POST", "/api/rooms/a/history", &[], "").await.expect_problem(405, "method_not_allowed");
    assert!(!room(&node.hub, "nobody"), "asking over HTTP makes no room");
    let refused = many.ask(json!({"name": "history", "room": "none:a", "id": 1})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("not_available"), &json!(1)));
}

#[tokio::test]
async fn history_tells_who_said_what_and_when_and_every_payload() {
    let node = TestNode::dev("auth.guests = true\nnamespaces.default.history_size = 10");
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as u64;
    let mut json_client = node.enter("a", "?name=Zo%C3%AB").await;
    json_client.say(json!({"name": "publish", "message": {"a": [1, 2]}})).await;
    json_client.event("message").await;
    let mut text_client = node.enter("a", "?format=text").await;
    text_client.send("plain \"text\"").await;
    text_client.text().await;
    text_client.send(vec![1_u8, 2, 3]).await;
    text_client.binary().await;
    let page = get(&node, "/api/rooms/a/history").await.json();
    let mut messages = page["messages"].clone();
    for message in messages.as_array_mut().expect("a list") {
        let at = message.as_object_mut().expect("an object").remove("at").and_then(|at| at.as_u64()).expect("a time");
        assert!((before..before + 60_000).contains(&at), "{at} is now");
    }
    let expected = json!([
        {"offset": 1, "message": {"a": [1, 2]}, "user": "Zoë"},
        {"offset": 2, "message": "plain \"text\""},
        {"offset": 3, "message": "AQID", "encoding": "base64"},
    ]);
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn history_needs_the_right_to_subscribe_and_nothing_else() {
    let node = TestNode::serve(
        "api.keys = ['k']\n[namespaces.default]\nhistory_size = 5\nsubscribe = 'user'\n[namespaces.open]\nsubscribe = 'anyone'",
    );
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let refused = client.ask(json!({"name": "history", "room": "a", "id": 1})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("not_allowed"), &json!(1)));
    assert!(!room(&node.hub, "a"));
    // A room nobody is in yet: the answer says where to enter it.
    let page = client.ask(json!({"name": "history", "room": "open:a"})).await;
    assert_eq!((&page["messages"], &page["offset"]), (&json!([]), &json!(0)));
    let since = format!("{}:0", page["epoch"].as_str().expect("an epoch"));
    let mut other = node.connect("/room/open:a").await;
    other.say(json!({"name": "publish", "message": 1, "id": 1})).await;
    let _ = (other.json().await, other.json().await);
    let subscribed = client.ask(json!({"name": "subscribe", "room": "open:a", "since": since})).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    hear(&mut client, 1..=1).await;
    request(node.admin, "GET", "/api/rooms/open:a/history", &[], "").await.expect_problem(401, "key_missing");
    let read = request(node.admin, "GET", "/api/rooms/open:a/history", &[("authorization", "Bearer k")], "").await;
    assert_eq!(numbers(&read.json()), [1]);
}

#[tokio::test]
async fn a_room_is_remembered_while_nobody_is_there_and_forgotten_in_time() {
    let node = TestNode::dev("rooms.reap_ms = 10\n[namespaces.default]\nhistory_size = 5\nhistory_ms = 1500");
    let mut client = node.enter("a", "").await;
    client.say(json!({"name": "publish", "message": 1})).await;
    assert_eq!(client.event("message").await["offset"], 1);
    client.close().await;
    let epoch = publish(&node, "a", json!(2)).await["epoch"].as_str().expect("an epoch").to_owned();
    wait_until("everybody to be gone", async || node.occupancy("a") == 0).await;
    // Several sweeps later it is still there.
    let reaped = || node.metric("fanfare_rooms_reaped_total");
    publish(&node, "gone", json!(1)).await;
    let mut back = node.connect(&format!("/room/a?since={epoch}:1")).await;
    assert_eq!(back.event("subscribed").await["recovered"], true);
    hear(&mut back, 2..=2).await;
    back.close().await;
    wait_until("the rooms to be forgotten", async || reaped().await == 2.0).await;
    assert!(!room(&node.hub, "a"));
    assert_eq!(node.metric("fanfare_history_bytes").await, 0.0);
    let mut late = node.connect(&format!("/room/a?since={epoch}:2")).await;
    let subscribed = late.event("subscribed").await;
    assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(false), &json!(0)));
    assert_ne!(subscribed["epoch"], epoch);
}

#[tokio::test]
async fn in_a_last_value_room_who_enters_is_told_the_last_value() {
    let file = ConfigFile::new(
        "test.toml",
        "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndrain.grace_ms = 0\ndrain.window_ms = 0",
    );
    let mut config = Config::dev(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration");
    let policy = NamespacePolicy {
        history_size: 1,
        history_bytes_max: 1 << 20,
        last_value: true,
        ..*config.namespaces.iter().next().expect("the default namespace").1
    };
    config.namespaces = Namespaces::new(policy, [].into());
    let node = TestNode::start(&config);
    let epoch = publish_numbers(&node, "a", 1..=3).await;
    let mut quiet = node.connect("/room/a").await;
    hear(&mut quiet, 3..=3).await;
    let mut text = node.connect("/room/a?format=text").await;
    assert_eq!(text.text().await, "3");
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    assert_eq!(many.subscribe("a").await["offset"], 3);
    hear(&mut many, 3..=3).await;
    let mut knows = node.connect(&format!("/room/a?since={epoch}:3")).await;
    assert_eq!(knows.event("subscribed").await["recovered"], true);
    knows.expect_nothing().await;
    publish_numbers(&node, "a", 4..=4).await;
    for client in [&mut quiet, &mut many, &mut knows] {
        hear(client, 4..=4).await;
    }
}

/// A room with far more history than a connection may have queued.
const LONG: &str = "shards = 1\n[limits]\noutbox_bytes_max = 100000\n[namespaces.default]\nhistory_size = 100000\n\
                    history_bytes_max = 100000000\nclient_close = true";
const LONG_MESSAGES: u64 = 400;

/// Publishes messages of 20 KB each that begin with their number, and returns the epoch.
async fn publish_long(node: &TestNode, offsets: std::ops::RangeInclusive<u64>) -> String {
    let mut epoch = String::new();
    for offset in offsets {
        let receipt = publish(node, "a", json!(format!("{offset} {}", "x".repeat(20_000)))).await;
        assert_eq!(receipt["offset"], offset);
        epoch = receipt["epoch"].as_str().expect("an epoch").to_owned();
    }
    epoch
}

async fn hear_long(raw: &mut Raw, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        let message: Value = serde_json::from_str(raw.frame().await.text()).expect("JSON");
        assert_eq!((&message["name"], &message["offset"]), (&json!("message"), &json!(offset)));
        assert!(message["message"].as_str().expect("text").starts_with(&format!("{offset} ")));
    }
}

#[tokio::test]
async fn a_long_absence_is_made_up_for_as_fast_as_it_is_read_and_costs_nobody_the_connection() {
    let node = TestNode::dev(LONG);
    let epoch = publish_long(&node, 1..=LONG_MESSAGES).await;
    let mut back = Raw::stalled(node.clients, &format!("/room/a?since={epoch}:0")).await;
    wait_until("it to be in the room", async || node.occupancy("a") == 1).await;
    // It does not read, and the room goes on: what is queued for it stays within a part.
    publish_long(&node, LONG_MESSAGES + 1..=LONG_MESSAGES + 20).await;
    let queued = node.metric("fanfare_outbox_bytes").await;
    assert!(queued > 0.0 && queued <= 100_000.0, "{queued} bytes are queued");
    let subscribed: Value = serde_json::from_str(back.frame().await.text()).expect("JSON");
    let told = json!({"name": "subscribed", "epoch": epoch, "offset": LONG_MESSAGES, "recovered": true});
    assert_eq!(subscribed, told);
    hear_long(&mut back, 1..=LONG_MESSAGES + 20).await;
    publish_long(&node, LONG_MESSAGES + 21..=LONG_MESSAGES + 23).await;
    hear_long(&mut back, LONG_MESSAGES + 21..=LONG_MESSAGES + 23).await;
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
    let receipt = publish(&node, "a", json!(0)).await;
    assert_eq!(receipt["delivered"], 1, "it is a member like any other now");
}

#[tokio::test]
async fn what_the_room_forgets_while_somebody_reads_slowly_is_told_as_a_gap_with_its_numbers() {
    let node = TestNode::dev(&LONG.replace("history_size = 100000", "history_size = 200"));
    let epoch = publish_long(&node, 1..=200).await;
    let mut back = Raw::stalled(node.clients, &format!("/room/a?since={epoch}:0")).await;
    wait_until("it to be in the room", async || node.occupancy("a") == 1).await;
    publish_long(&node, 201..=350).await;
    let subscribed: Value = serde_json::from_str(back.frame().await.text()).expect("JSON");
    assert_eq!(subscribed["recovered"], true);
    let mut next = 1;
    let mut gaps = 0;
    while next <= 350 {
        let event: Value = serde_json::from_str(back.frame().await.text()).expect("JSON");
        if event["name"] == "gap" {
            let to = event["to"].as_u64().expect("a number");
            assert_eq!(event, json!({"name": "gap", "from": next, "to": to, "count": to + 1 - next}));
            assert!(to <= 150, "what is kept is told");
            (next, gaps) = (to + 1, gaps + 1);
        } else {
            assert_eq!((&event["name"], &event["offset"]), (&json!("message"), &json!(next)));
            next += 1;
        }
    }
    assert_eq!(gaps, 1);
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

#[tokio::test]
async fn who_is_still_behind_is_in_the_room_and_can_leave_it() {
    let node = TestNode::dev(LONG);
    let epoch = publish_long(&node, 1..=LONG_MESSAGES).await;
    // One goes while it is behind, one is told that the room was closed.
    let gone = Raw::stalled(node.clients, &format!("/room/a?since={epoch}:0")).await;
    let mut stays = Raw::stalled(node.clients, &format!("/room/a?since={epoch}:0")).await;
    wait_until("both to be in the room", async || node.occupancy("a") == 2).await;
    drop(gone);
    wait_until("one to be gone", async || node.occupancy("a") == 1).await;
    assert_eq!(request(node.admin, "DELETE", "/api/rooms/a", &[], "").await.status, 200);
    let first: Value = serde_json::from_str(stays.frame().await.text()).expect("JSON");
    assert_eq!(first["recovered"], true);
    let mut last = Value::Null;
    while last["name"] != "room_closed" {
        last = serde_json::from_str(stays.frame().await.text()).expect("JSON");
    }
    assert_eq!(last, json!({"name": "room_closed"}));
    assert_eq!(stays.closed().await.0, 4410);
    node.wait_for_metric("fanfare_subscriptions", 0.0).await;
    node.wait_for_metric("fanfare_history_bytes", 0.0).await;
}

#[tokio::test]
async fn unsubscribing_while_behind_ends_the_replay_and_subscribing_again_begins_it_anew() {
    let node = TestNode::dev(LONG);
    let epoch = publish_long(&node, 1..=LONG_MESSAGES).await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    for _ in 0..3 {
        client.say(json!({"name": "subscribe", "room": "a", "since": format!("{epoch}:0")})).await;
        client.say(json!({"name": "unsubscribe", "room": "a", "id": 1})).await;
        assert_eq!(client.event("subscribed").await["recovered"], true);
        let mut next = 1;
        loop {
            let event = client.json().await;
            if event["name"] == "unsubscribed" {
                break;
            }
            assert_eq!(event["offset"], next, "without a hole as far as it goes");
            next += 1;
        }
        assert!(next < LONG_MESSAGES, "it left long before the end");
        client.expect_nothing().await;
    }
    client.say(json!({"name": "subscribe", "room": "a", "since": format!("{epoch}:100")})).await;
    client.event("subscribed").await;
    for offset in 101..=LONG_MESSAGES {
        assert_eq!(client.event("message").await["offset"], offset);
    }
    assert_eq!(node.occupancy("a"), 1);
}

#[tokio::test]
async fn coming_back_to_many_rooms_in_one_breath_is_told_of_one_after_the_other() {
    const ROOMS: u64 = 60;
    const EACH: u64 = 5;
    let node = TestNode::dev(LONG);
    let mut epochs = Vec::new();
    for number in 0..ROOMS {
        let mut epoch = String::new();
        for _ in 0..EACH {
            let receipt = publish(&node, &format!("r:{number}"), json!("x".repeat(10_000))).await;
            epoch = receipt["epoch"].as_str().expect("an epoch").to_owned();
        }
        epochs.push(epoch);
    }
    let mut back = Raw::stalled(node.clients, "/ws").await;
    let mut asked = Vec::new();
    for (number, epoch) in epochs.iter().enumerate() {
        let command = json!({"name": "subscribe", "room": format!("r:{number}"), "since": format!("{epoch}:0")});
        asked.extend(crate::support::frame(0x81, command.to_string().as_bytes()));
    }
    back.send(&asked).await;
    node.wait_for_metric("fanfare_subscriptions", ROOMS as f64).await;
    // Three megabytes are due, and 100 kB may be queued.
    let queued = node.metric("fanfare_outbox_bytes").await;
    assert!(queued <= 200_000.0, "{queued} bytes are queued");
    let mut known = std::collections::BTreeMap::new();
    while known.values().filter(|&&offset| offset == EACH).count() < ROOMS as usize {
        let event: Value = serde_json::from_str(back.frame().await.text()).expect("JSON");
        match event["name"].as_str() {
            Some("subscribed") => {
                assert_eq!((&event["recovered"], &event["offset"]), (&json!(true), &json!(EACH)));
                known.insert(event["room"].as_str().expect("a room").to_owned(), 0);
            }
            Some("message") => {
                let offset = known.get_mut(event["room"].as_str().expect("a room")).expect("`subscribed` comes first");
                *offset += 1;
                assert_eq!(event["offset"], *offset);
            }
            _ => assert_eq!(event["name"], "welcome"),
        }
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

#[tokio::test]
async fn asking_for_page_after_page_without_reading_slows_who_asks_and_ends_nobody() {
    let node = TestNode::dev(LONG);
    publish_long(&node, 1..=50).await;
    let mut greedy = Raw::stalled(node.clients, "/room/a").await;
    let mut asked = Vec::new();
    for id in 0..200 {
        let command = json!({"name": "history", "id": id}).to_string();
        asked.extend(crate::support::frame(0x81, command.as_bytes()));
    }
    greedy.send(&asked).await;
    for id in 0..200 {
        let page: Value = serde_json::from_str(greedy.frame().await.text()).expect("JSON");
        assert_eq!((&page["name"], &page["id"]), (&json!("history"), &json!(id)));
        assert!(numbers(&page).ends_with(&[50]));
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

/// Enough dice for a test, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Comes and goes at random; every number it hears must follow the one before, over all its connections.
async fn come_and_go(clients: std::net::SocketAddr, seed: u64, resumes: usize) -> (usize, u64) {
    let mut dice = Dice(seed);
    let (mut epoch, mut known) = (String::new(), 0);
    let mut heard = 0;
    for visit in 0..=resumes {
        let query = if visit == 0 { "?since=0000000000000000:0".to_owned() } else { format!("?since={epoch}:{known}") };
        let mut client = Client::connect(clients, &format!("/room/busy{query}")).await;
        let subscribed = client.event("subscribed").await;
        if visit == 0 {
            epoch = subscribed["epoch"].as_str().expect("an epoch").to_owned();
            known = subscribed["offset"].as_u64().expect("a number");
        }
        assert_eq!((&subscribed["epoch"], &subscribed["recovered"]), (&json!(epoch), &json!(visit > 0)), "seed {seed}");
        for _ in 0..dice.below(40) {
            let message = client.event("message").await;
            let offset = message["offset"].as_u64().expect("a number");
            assert_eq!(offset, known + 1, "seed {seed}, visit {visit}");
            (known, heard) = (offset, heard + 1);
        }
        // Half of them just go, with whatever is under way.
        if dice.below(2) == 0 {
            client.close().await;
        }
    }
    (heard, known)
}

#[tokio::test]
async fn hundreds_of_resumes_under_load_have_neither_a_gap_nor_a_duplicate() {
    const CLIENTS: u64 = 24;
    const RESUMES: usize = 25;
    // A visitor may be slow on a busy machine; that is not what this is about.
    let node = TestNode::dev(
        "shards = 2\n[limits]\noutbox_bytes_max = 100000000\noutbox_messages_max = 1000000\n\
         [namespaces.default]\nhistory_size = 1000000\nhistory_bytes_max = 1000000000",
    );
    let clients = node.clients;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let is_over = is_over.clone();
            tokio::spawn(async move {
                let mut publisher = Client::connect(clients, "/room/busy?format=text").await;
                let mut said = 0_u64;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..4 {
                        publisher.send("said").await;
                        said += 1;
                    }
                    // It hears itself: so it is no faster than the gateway.
                    for _ in 0..4 {
                        publisher.text().await;
                    }
                }
                publisher.close().await;
                said
            })
        })
        .collect();
    let visitors: Vec<_> = (0..CLIENTS).map(|seed| tokio::spawn(come_and_go(clients, seed, RESUMES))).collect();
    let (mut heard, mut last) = (0, 0);
    for visitor in visitors {
        let (count, known) = visitor.await.expect("a visitor that hears everything");
        heard += count;
        last = last.max(known);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut said = 0;
    for publisher in publishers {
        said += publisher.await.expect("a publisher");
    }
    assert!(last <= said && heard > 1_000, "{heard} heard, up to {last} of {said}");
    assert_eq!(
        node.metric("fanfare_recoveries_total{result=\"recovered\"}").await,
        (CLIENTS as usize * RESUMES) as f64
    );
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

#[tokio::test]
async fn the_histories_of_a_node_stay_within_their_bound_and_say_what_was_cut() {
    let node = TestNode::dev(
        "limits.history_total_bytes_max = 200000\nlimits.message_bytes_max = 20000\n[namespaces.default]\nhistory_size = 1000",
    );
    let mut epochs = Vec::new();
    let here: Vec<Client> = vec![node.enter("here:0", "").await, node.enter("here:1", "").await];
    for round in 0..10 {
        for name in ["vacant:0", "vacant:1", "here:0", "here:1"] {
            let receipt = publish(&node, name, json!("x".repeat(5_000))).await;
            if round == 0 {
                epochs.push(receipt["epoch"].as_str().expect("an epoch").to_owned());
            }
            assert!(node.metric("fanfare_history_bytes").await <= 200_000.0);
        }
    }
    assert_eq!(node.metric("fanfare_history_bytes_max").await, 200_000.0);
    let evicted = node.metric("fanfare_rooms_evicted_total").await;
    assert!(evicted > 0.0, "vacant rooms made place");
    // Now those with somebody in them grow until nothing else is left.
    for _ in 0..40 {
        for name in ["here:0", "here:1"] {
            publish(&node, name, json!("x".repeat(5_000))).await;
        }
    }
    assert!(node.metric("fanfare_history_cut_total").await > 0.0);
    assert!(node.metric("fanfare_history_bytes").await > 150_000.0, "the bound is made use of");
    let page = get(&node, "/api/rooms/here:0/history").await.json();
    assert_eq!((&page["offset"], page["epoch"].as_str()), (&json!(50), Some(epochs[2].as_str())));
    assert!(numbers(&page).ends_with(&[49, 50]), "the latest stay");
    drop(here);
}

/// Lets one connection through to the node until it is dropped.
async fn let_through(listener: &TcpListener, node: std::net::SocketAddr) -> AbortOnDrop {
    let (mut outside, _) = within("a connection", listener.accept()).await.expect("a connection");
    let copying = tokio::spawn(async move {
        let mut inside = TcpStream::connect(node).await.expect("a node that listens");
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    });
    AbortOnDrop(copying)
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn fanfare_sub_goes_on_from_its_last_message_and_says_what_it_missed() {
    for (kept, lines, gap) in
        [(100, vec!["1", "2", "3", "4", "5"], None), (1, vec!["1", "2", "5"], Some("gap: 2 messages"))]
    {
        let node = TestNode::dev(&format!("namespaces.default.history_size = {kept}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let sub = Process::fanfare(&["sub", "a", "--url", &url], &[]);
        let (out, err) = (sub.out.clone(), sub.err.clone());
        let waits = |lines: &Lines, words: &'static str| {
            let lines = lines.clone();
            async move { tokio::task::spawn_blocking(move || lines.wait_for(&[words])).await.expect("a line") }
        };
        let first = let_through(&listener, node.clients).await;
        waits(&err, "listening from").await;
        publish_numbers(&node, "a", 1..=2).await;
        waits(&out, "2").await;
        drop(first);
        wait_until("it to be gone", async || node.occupancy("a") == 0).await;
        publish_numbers(&node, "a", 3..=4).await;
        let _second = let_through(&listener, node.clients).await;
        wait_until("it to be back", async || node.occupancy("a") == 1).await;
        publish_numbers(&node, "a", 5..=5).await;
        waits(&out, "5").await;
        assert_eq!(out.so_far(), lines);
        assert_eq!(err.so_far().iter().any(|line| line.contains("gap")), gap.is_some());
        if let Some(gap) = gap {
            assert!(err.so_far().iter().any(|line| line.contains(gap)), "{:?}", err.so_far());
        }
    }
}

#[tokio::test]
async fn every_life_of_a_room_has_its_own_epoch_over_restarts_too() {
    let mut epochs = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let node = TestNode::dev(KEEPS_FIVE);
        for name in ["a", "b"] {
            epochs.insert(publish_numbers(&node, name, 1..=1).await);
            assert_eq!(request(node.admin, "DELETE", &format!("/api/rooms/{name}"), &[], "").await.status, 200);
            epochs.insert(publish_numbers(&node, name, 1..=1).await);
        }
    }
    assert_eq!(epochs.len(), 12, "no two lives share one");
}
