//! What is kept, for how long, and under which numbers.

use super::*;

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
async fn a_room_is_remembered_while_nobody_is_there_and_forgotten_in_time() {
    let sweeps = "rooms.reap_ms = 10\n[namespaces.default]\nhistory_size = 5\nhistory_ms = ";
    let node = TestNode::dev(&format!("{sweeps}600000\n[namespaces.bare]\nhistory_size = 0"));
    let mut client = node.enter("a", "").await;
    client.say(json!({"name": "publish", "message": 1})).await;
    assert_eq!(client.event("message").await["offset"], 1);
    client.close().await;
    let epoch = publish(&node, "a", json!(2)).await["epoch"].as_str().expect("an epoch").to_owned();
    wait_until("everybody to be gone", async || node.occupancy("a") == 0).await;
    // Several sweeps later it is still there: each of these is swept by one.
    for swept in 1..=3 {
        drop(node.enter("bare:a", "").await);
        node.wait_for_metric("fanfare_rooms_reaped_total", f64::from(swept)).await;
    }
    let mut back = node.connect(&format!("/room/a?since={epoch}:1")).await;
    assert_eq!(back.event("subscribed").await["recovered"], true);
    hear(&mut back, 2..=2).await;
    back.close().await;

    let node = TestNode::dev(&format!("{sweeps}300"));
    publish(&node, "gone", json!(1)).await;
    let epoch = publish(&node, "a", json!(1)).await["epoch"].as_str().expect("an epoch").to_owned();
    node.wait_for_metric("fanfare_rooms_reaped_total", 2.0).await;
    assert!(!room(&node.hub, "a"));
    assert_eq!(node.metric("fanfare_history_bytes").await, 0.0);
    let mut late = node.connect(&format!("/room/a?since={epoch}:1")).await;
    let subscribed = late.event("subscribed").await;
    assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(false), &json!(0)));
    assert_ne!(subscribed["epoch"], epoch);
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

#[tokio::test]
async fn a_room_keeps_no_more_bytes_than_its_namespace_allows() {
    let node = TestNode::dev(
        "limits.message_bytes_max = 1024\n[namespaces.default]\nhistory_size = 100\nhistory_bytes_max = 4096",
    );
    for _ in 0..10 {
        publish(&node, "a", json!("x".repeat(1_000))).await;
    }
    // Each is charged 256 bytes besides its own.
    let page = get(&node, "/api/rooms/a/history").await.json();
    assert_eq!(numbers(&page), [8, 9, 10]);
    assert!(node.metric("fanfare_history_bytes").await <= 4_096.0);
}
