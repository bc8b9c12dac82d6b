//! A long absence, told part by part.

use super::*;
use crate::slow::Peak;

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
    // Three megabytes are due, and 100 kB may be queued.
    let peak = Peak::watch(&node);
    back.send(&asked).await;
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
    let queued = peak.end();
    assert!(queued <= 200_000, "{queued} bytes were queued");
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
