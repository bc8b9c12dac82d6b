//! Who is let in, how it is refused, and how it ends.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::support::{APPS, PATH, Pusher, publish};
use crate::support::{Client, Raw, TestNode, frame, request, wait_until};

#[tokio::test]
async fn a_client_is_greeted_with_an_id_of_its_own_and_may_ask_whether_anybody_is_there() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    let other = Pusher::connect(&node).await;
    assert_ne!(client.socket_id, other.socket_id);
    for data in [json!({}), json!(""), json!("{}"), json!(null)] {
        client.say(json!({"event": "pusher:ping", "data": data})).await;
        assert_eq!(client.next().await, json!({"event": "pusher:pong", "data": {}}));
    }
    client.say(json!({"event": "pusher:ping"})).await;
    assert_eq!(client.next().await, json!({"event": "pusher:pong", "data": {}}));
    client.say(json!({"event": "pusher:pong", "data": {}})).await;
    client.expect_nothing().await;
    for protocol in ["5", "6"] {
        Pusher::connect_to(&node, &format!("/app/k7?protocol={protocol}")).await;
    }
}

#[tokio::test]
async fn who_may_not_come_is_told_by_a_code() {
    let node = TestNode::serve(
        "[[pusher.apps]]\nid = '1'\nkey = 'on'\nsecret = 's'\nconnections_max = 1\n\
         [[pusher.apps]]\nid = '2'\nkey = 'off'\nsecret = 's'\nenabled = false",
    );
    for (path, code) in [
        ("/app/none?protocol=7", 4001),
        ("/app/?protocol=7", 4001),
        ("/app/%ff?protocol=7", 4001),
        ("/app/off?protocol=7", 4003),
        ("/app/on", 4008),
        ("/app/on?protocol=x", 4006),
        ("/app/on?protocol=3", 4007),
    ] {
        let (found, _) = node.connect(path).await.closed().await;
        assert_eq!(found, code, "{path}");
    }
    let (mut foreign, _) =
        Client::try_connect(node.clients, "/app/on?protocol=7", &[("Origin", "https://evil.example")])
            .await
            .expect("it is let in to be told why not");
    assert_eq!(foreign.closed().await.0, 4009);
    let first = Pusher::connect_to(&node, "/app/o%6e?protocol=7").await;
    assert_eq!(node.connect("/app/on?protocol=7").await.closed().await.0, 4100, "all places are taken");
    first.client.close().await;
    let mut is_in = false;
    wait_until("the place to be free again", async || {
        let mut client = node.connect("/app/on?protocol=7").await;
        is_in = matches!(client.next().await, Message::Text(_));
        is_in
    })
    .await;
}

#[tokio::test]
async fn paths_are_there_where_applications_are() {
    let node = TestNode::serve(APPS);
    let plain = request(node.clients, "GET", PATH, &[], "").await;
    assert_eq!(plain.status, 426, "{plain:?}");
    assert_eq!(request(node.clients, "POST", PATH, &[], "").await.status, 405);
    assert_eq!(request(node.clients, "GET", "/app/k7/more?protocol=7", &[], "").await.status, 404);
    assert_eq!(request(node.admin, "GET", "/apps/1001/channels", &[], "").await.status, 404);
    let without = TestNode::serve("");
    for path in [PATH, "/apps/1001/channels"] {
        assert_eq!(request(without.clients, "GET", path, &[], "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_the_connection_stays() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    for text in ["", "{", "[]", "null", r#"{"event":7}"#, r#"{"event":"pusher:subscribe"}"#, r#"{"event":"pusher:x"}"#]
    {
        for _ in 0..5 {
            client.client.send(Message::text(text)).await;
            assert_eq!(client.error("").await, json!(null), "{text}");
        }
    }
    client.client.send(Message::binary(b"\x00\xff".to_vec())).await;
    assert_eq!(client.error("binary").await, json!(null));
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_drain_sends_clients_elsewhere_at_once() {
    let mut node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    client.subscribe("kitchen").await;
    node.leave();
    assert_eq!(client.client.closed().await.0, 4200);
    node.ended().await;
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_keeps_nobody_waiting() {
    // A room that would drop for others: this dialect has no word for what is missing.
    let node = TestNode::serve(&format!("{APPS}\nslow = 'drop_oldest'\n[limits]\noutbox_bytes_max = 200000\n"));
    let mut stalled = Raw::stalled(node.clients, PATH).await;
    stalled.frame().await;
    stalled.send(&frame(0x81, br#"{"event":"pusher:subscribe","data":{"channel":"kitchen"}}"#)).await;
    stalled.frame().await;
    let mut reader = Pusher::connect(&node).await;
    reader.subscribe("kitchen").await;
    let data = "x".repeat(10_000);
    let mut published = 0;
    while node.occupancy("shop:kitchen") == 2 {
        let event = json!({"name": "e", "channel": "kitchen", "data": format!("{published} {data}")});
        publish(&node, event).await;
        let got = reader.next().await;
        assert!(got["data"].as_str().expect("data").starts_with(&format!("{published} ")), "in order and whole");
        published += 1;
        assert!(published < 10_000, "the other one was never closed");
    }
    assert_eq!(node.metric(r#"fanfare_closes_total{reason="slow_consumer"}"#).await, 1.0);
    // Behind what the system had taken for it comes the end, with a code to come back with.
    loop {
        let frame = stalled.frame().await;
        if frame.first == 0x88 {
            assert_eq!(frame.payload[..2], 4100_u16.to_be_bytes());
            break;
        }
    }
}
