//! Client events.

use serde_json::{Value, json};

use super::support::{APPS, Pusher};
use crate::support::TestNode;

fn event(channel: &str, data: &Value) -> Value {
    json!({"event": "client-typing", "channel": channel, "data": data})
}

#[tokio::test]
async fn others_in_the_channel_hear_what_a_client_says_and_it_does_not() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    for client in [&mut ada, &mut bea] {
        client.subscribe("private-a").await;
    }
    for data in [json!({"on": true}), json!("text"), json!(12), json!(null), json!([1, "x"])] {
        ada.say(event("private-a", &data)).await;
        assert_eq!(bea.next().await, event("private-a", &data));
    }
    // What does not belong there is not passed on.
    let mut forged = event("private-a", &json!(1));
    forged["user_id"] = json!("eve");
    forged["socket_id"] = json!("1.2");
    ada.say(forged).await;
    assert_eq!(bea.next().await, event("private-a", &json!(1)));
    ada.say(json!({"event": "client-bare", "channel": "private-a"})).await;
    assert_eq!(bea.next().await, json!({"event": "client-bare", "channel": "private-a"}));
    ada.expect_nothing().await;
}

#[tokio::test]
async fn what_a_client_may_not_say_nobody_hears() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    for client in [&mut ada, &mut bea] {
        client.subscribe("private-a").await;
        client.subscribe("kitchen").await;
    }
    let data = json!({});
    for (said, naming) in [
        (event("kitchen", &data), "private or presence"),
        (event("my-private-a", &data), "private or presence"),
        (event("private-b", &data), "subscribe to"),
        (event("private b", &data), "name of a channel"),
        (event("private-a", &json!("x".repeat(10_240))), "at most 10240 bytes"),
        (json!({"event": "typing", "channel": "private-a", "data": {}}), "begin with client-"),
        (json!({"event": "Client-typing", "channel": "private-a", "data": {}}), "begin with client-"),
        (json!({"event": "pusher_internal:member_added", "channel": "private-a", "data": "{}"}), "no event"),
        (json!({"event": format!("client-{}", "x".repeat(194)), "channel": "private-a"}), "at most 200"),
    ] {
        ada.say(said.clone()).await;
        assert_eq!(ada.error(naming).await, json!(null), "{said}");
    }
    ada.say(event("private-a", &json!("x".repeat(10_238)))).await;
    assert_eq!(bea.next().await["data"].as_str().map(str::len), Some(10_238), "the first that is heard");

    let mut off = Pusher::connect_to(&node, "/app/k8?protocol=7").await;
    off.say(event("private-a", &data)).await;
    assert_eq!(off.error("switched off").await, json!(null));
}

#[tokio::test]
async fn client_events_have_a_rate_of_their_own() {
    let app = "[[pusher.apps]]\nid = '1001'\nkey = 'k7'\nsecret = 'k7-secret'\nclient_events = true\n\
               client_events_per_second_max = 1";
    let node = TestNode::serve(app);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    for client in [&mut ada, &mut bea] {
        client.subscribe("private-a").await;
    }
    // However slowly this goes: until one is refused, one a second is heard at most.
    let mut heard = 0;
    loop {
        ada.say(event("private-a", &json!(heard))).await;
        ada.say(json!({"event": "pusher:ping"})).await;
        let answer = ada.next().await;
        if answer["event"] == "pusher:error" {
            assert_eq!(answer["data"]["code"], 4301);
            break;
        }
        assert_eq!(answer["event"], "pusher:pong");
        assert_eq!(bea.next().await["data"], heard);
        heard += 1;
        assert!(heard < 100, "nothing was refused");
    }
    assert!(heard >= 1, "the first is within the rate");
    bea.expect_nothing().await;
}
