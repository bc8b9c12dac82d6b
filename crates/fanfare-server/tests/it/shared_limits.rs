//! Limits that several connections share, those of a user, of a room and of an address: who is beyond is refused with a reason, others are
//! not, and where limits are only observed all pass and are counted.

use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Client, Raw, TestNode, frame, handshake, request, wait_until, within};

/// Its counts of what was beyond a limit: refused, and let pass.
async fn beyond(node: &TestNode, limit: &str) -> (f64, f64) {
    let count = async |name: &str| node.metric(&format!("fanfare_{name}_total{{limit=\"{limit}\"}}")).await;
    (count("rejected").await, count("would_reject").await)
}

#[tokio::test]
async fn a_user_has_no_more_connections_than_allowed() {
    let node = TestNode::dev("[limits]\nconnections_per_user_max = 2");
    let token = node.guest("ann").await;
    // From all shards and doors, by name or not, it is the same user.
    let mut first = node.connect(&format!("/ws?token={token}")).await;
    first.event("welcome").await;
    let second = node.connect(&format!("/room/a?token={token}")).await;
    wait_until("the room to be entered", async || node.occupancy("a") == 1).await;
    for path in ["/ws", "/room/a", "/room/a?format=text"] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut third = node.connect(&format!("{path}{sign}token={token}")).await;
        assert_eq!(third.closed().await, (4429, "this user has 2 connections already".to_owned()), "{path}");
    }
    let mut stream = node.raw().await;
    stream.send(format!("GET /room/a/sse?token={token} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
    let told = String::from_utf8(stream.rest().await).expect("text");
    assert!(told.contains("event: close") && told.contains("4429"), "{told}");
    node.wait_for_metric("fanfare_closes_total{reason=\"too_many_connections\"}", 4.0).await;
    assert_eq!(beyond(&node, "connections_per_user_max").await, (4.0, 0.0));
    // Who is in is not touched, others are not counted, and who has no name is nobody's user.
    first.expect_nothing().await;
    let mut bob = node.connect("/ws?name=bob").await;
    bob.event("welcome").await;
    for _ in 0..3 {
        node.connect("/ws").await.event("welcome").await;
    }
    second.close().await;
    let mut again = node.connect(&format!("/ws?token={token}")).await;
    again.event("welcome").await;
}

#[tokio::test]
async fn observed_connections_of_a_user_are_let_in_and_counted() {
    let node = TestNode::dev("[limits]\nconnections_per_user_max = 1\nmode = \"observe\"");
    let token = node.guest("ann").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = node.connect(&format!("/ws?token={token}")).await;
        client.event("welcome").await;
        clients.push(client);
    }
    assert_eq!(beyond(&node, "connections_per_user_max").await, (0.0, 2.0));
}

/// So many messages at once on a connection, each with an id.
async fn burst(raw: &mut Raw, messages: usize) {
    let one = frame(0x81, br#"{"name":"ping","id":1}"#);
    raw.send(&one.repeat(messages)).await;
}

#[tokio::test]
async fn a_user_may_not_send_too_fast_by_sending_from_many_connections() {
    // So many that it would take half a minute to be let send them.
    const CONNECTIONS: usize = 30;
    const EACH: usize = 5;
    const MAX: usize = 5;
    let node = TestNode::dev("shards = 2\n[limits]\nmessages_per_second_per_user_max = 5");
    let token = node.guest("ann").await;
    let mut own = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = node.upgrade(&format!("/ws?token={token}")).await;
        assert!(raw.frame().await.text().contains("welcome"));
        own.push(raw);
    }
    let mut bob = node.connect("/ws?name=bob").await;
    bob.event("welcome").await;
    let before = node.metric("fanfare_received_total").await;
    let begun = Instant::now();
    // Each alone is within the bound; together they are not.
    for raw in &mut own {
        burst(raw, EACH).await;
    }
    let (mut closed, mut answered) = (0, 0);
    for raw in &mut own {
        for _ in 0..EACH {
            let frame = raw.frame().await;
            if frame.first == 0x88 {
                assert_eq!(frame.payload[..2], 4429_u16.to_be_bytes());
                assert_eq!(&frame.payload[2..], b"messages of this user too fast, slow down");
                closed += 1;
                break;
            }
            assert_eq!(frame.text(), r#"{"name":"pong","id":1}"#);
            answered += 1;
        }
    }
    // Five at once, and five more for each second it took.
    let most = MAX + begun.elapsed().as_secs() as usize * MAX + MAX;
    assert!(closed >= 1 && (MAX..=most).contains(&answered), "{closed} {answered}");
    node.wait_for_metric("fanfare_closes_total{reason=\"user_too_fast\"}", f64::from(closed)).await;
    let received = node.metric("fanfare_received_total").await - before;
    assert!(received >= MAX as f64, "{received}");
    assert_eq!(beyond(&node, "messages_per_second_per_user_max").await, (f64::from(closed), 0.0));
    bob.expect_nothing().await;
}

#[tokio::test]
async fn observed_messages_of_a_user_pass_and_are_counted() {
    let node = TestNode::dev("[limits]\nmessages_per_second_per_user_max = 2\nmode = \"observe\"");
    let mut raw = node.upgrade("/ws?name=ann").await;
    assert!(raw.frame().await.text().contains("welcome"));
    burst(&mut raw, 200).await;
    for _ in 0..200 {
        assert_eq!(raw.frame().await.text(), r#"{"name":"pong","id":1}"#);
    }
    // Two at once, and two more for each second it took: never a minute.
    let (refused, let_pass) = beyond(&node, "messages_per_second_per_user_max").await;
    assert!(refused == 0.0 && (70.0..=198.0).contains(&let_pass), "{let_pass}");
}

#[tokio::test]
async fn a_full_room_refuses_who_comes_and_others_do_not_notice() {
    let node = TestNode::dev("namespaces.small.subscribers_max = 2");
    let mut first = node.enter("small:a", "").await;
    let mut second = node.connect("/ws").await;
    second.event("welcome").await;
    second.subscribe("small:a").await;
    let mut late = node.connect("/ws").await;
    late.event("welcome").await;
    let refused = late.ask(json!({"name": "subscribe", "room": "small:a", "id": 7})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("room_full"), &json!(7)), "{refused}");
    for query in ["", "?format=text", "?since=0000000000000000:0"] {
        let mut late = node.connect(&format!("/room/small:a{query}")).await;
        assert_eq!(late.closed().await, (4505, "room full, come back later".to_owned()), "{query}");
    }
    assert_eq!(beyond(&node, "namespaces.subscribers_max").await, (4.0, 0.0));
    assert_eq!(node.occupancy("small:a"), 2);
    // Who is in may ask again; other rooms and namespaces have places of their own.
    second.subscribe("small:a").await;
    late.subscribe("small:b").await;
    let mut large = Vec::new();
    for _ in 0..3 {
        large.push(node.enter("large", "").await);
    }
    let answer = request(node.admin, "POST", "/api/publish", &[], r#"{"room":"small:a","message":1}"#).await.json();
    assert_eq!(answer["delivered"], 2);
    first.event("message").await;
    assert_eq!(second.ask(json!({"name": "unsubscribe", "room": "small:a"})).await["name"], "message");
    second.event("unsubscribed").await;
    late.subscribe("small:a").await;
}

#[tokio::test]
async fn observed_subscribers_are_let_in_and_counted() {
    let node = TestNode::dev("namespaces.default.subscribers_max = 1\nlimits.mode = \"observe\"");
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(node.enter("a", "").await);
    }
    assert_eq!(beyond(&node, "namespaces.subscribers_max").await, (0.0, 2.0));
}

#[tokio::test]
async fn a_room_takes_no_more_than_its_rate_from_all_who_publish() {
    let node = TestNode::dev("namespaces.calm.messages_per_second_max = 3");
    let mut reader = node.enter("calm:a", "").await;
    let body = |n: usize| json!({"room": "calm:a", "message": n}).to_string();
    let mut publisher = node.connect("/ws").await;
    publisher.event("welcome").await;
    let mut told = Vec::new();
    let mut refused = 0;
    for n in 0..80 {
        if n % 2 == 0 {
            let answer = request(node.admin, "POST", "/api/publish", &[], &body(n)).await;
            if answer.status == 429 {
                answer.expect_problem(429, "messages_per_second_max");
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            } else {
                told.push(n);
            }
        } else {
            let answer = publisher.ask(json!({"name": "publish", "room": "calm:a", "message": n, "id": n})).await;
            assert_eq!(answer["id"], n, "{answer}");
            if answer["name"] == "error" {
                assert_eq!(answer["code"], "too_fast", "{answer}");
                refused += 1;
            } else {
                told.push(n);
            }
        }
    }
    assert!(refused > 0 && told[..3] == [0, 1, 2], "{told:?}");
    assert_eq!(beyond(&node, "namespaces.messages_per_second_max").await, (f64::from(refused), 0.0));
    for n in told {
        assert_eq!(reader.event("message").await["message"], n, "what was taken was told, and nothing else");
    }
    // An entry of a batch is refused in its place; another room is not slowed.
    let entries: Vec<_> = (0..300).map(|n| json!({"room": "calm:b", "message": n})).collect();
    let answer = request(node.admin, "POST", "/api/batch", &[], &json!({"publish": entries}).to_string()).await.json();
    let receipts = answer["receipts"].as_array().expect("receipts");
    assert_eq!((receipts.len(), &receipts[2]["offset"]), (300, &json!(3)), "{answer}");
    let refused: Vec<_> = receipts.iter().filter(|receipt| receipt["offset"].is_null()).collect();
    assert!(!refused.is_empty(), "{answer}");
    assert!(refused.iter().all(|receipt| receipt["error"]["code"] == "messages_per_second_max"), "{answer}");
    // The text dialect has no word for it: a message that vanished would be a lie.
    let mut text = node.enter("calm:c", "?format=text").await;
    let all: Vec<u8> = (0..300).flat_map(|n| frame(0x81, n.to_string().as_bytes())).collect();
    within("the messages to be sent", text.socket.get_mut().write_all(&all)).await.expect("a socket");
    let closed = loop {
        match text.next().await {
            tokio_tungstenite::tungstenite::Message::Close(Some(frame)) => break u16::from(frame.code),
            tokio_tungstenite::tungstenite::Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed, 4429);
    node.wait_for_metric("fanfare_closes_total{reason=\"room_too_fast\"}", 1.0).await;
}

#[tokio::test]
async fn observed_publications_pass_and_are_counted() {
    let node = TestNode::dev("namespaces.default.messages_per_second_max = 1\nlimits.mode = \"observe\"");
    let mut client = node.enter("a", "").await;
    for n in 0..60 {
        client.say(json!({"name": "publish", "message": n})).await;
        assert_eq!(client.event("message").await["message"], n);
    }
    let (refused, let_pass) = beyond(&node, "namespaces.messages_per_second_max").await;
    assert!(refused == 0.0 && (1.0..=59.0).contains(&let_pass), "{let_pass}");
}

#[tokio::test]
async fn a_ticker_takes_nothing_from_what_a_room_may_be_told() {
    let node = TestNode::dev("namespaces.default = { messages_per_second_max = 1, ticker_ms = 10 }");
    let mut client = node.enter("a", "").await;
    for _ in 0..5 {
        client.event("message").await;
    }
    assert_eq!(beyond(&node, "namespaces.messages_per_second_max").await, (0.0, 0.0));
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], r#"{"room":"a","message":1}"#).await.status, 200);
}

async fn knock(node: &TestNode, path: &str, more: &str) -> Raw {
    let mut raw = node.raw().await;
    raw.send(handshake(path, node.clients, more).as_bytes()).await;
    raw
}

#[tokio::test]
async fn an_address_may_not_connect_too_often() {
    let node = TestNode::dev("[limits]\nhandshakes_per_second_per_ip_max = 4");
    let mut refused = 0;
    // So many that it would take a quarter of a minute to be let in with all.
    const KNOCKS: usize = 64;
    for n in 0..KNOCKS {
        let mut raw = knock(&node, "/ws", "").await;
        let head = raw.head().await;
        if head.status == 101 {
            continue;
        }
        assert!(n >= 4, "four at once are allowed");
        let length = head.header("content-length").expect("a length").parse().expect("a number");
        let answer = crate::support::Answer { body: raw.take(length).await, ..head };
        answer.expect_problem(429, "handshakes_per_second_per_ip_max");
        assert_eq!(answer.header("retry-after"), Some("1"));
        refused += 1;
    }
    assert!((1..=KNOCKS as u32 - 4).contains(&refused), "{refused}");
    assert_eq!(beyond(&node, "handshakes_per_second_per_ip_max").await, (f64::from(refused), 0.0));
    // Patience helps.
    wait_until("another to be let in", async || knock(&node, "/ws", "").await.head().await.status == 101).await;
}

#[tokio::test]
async fn clients_behind_a_proxy_come_too_often_each_for_himself() {
    let node = TestNode::dev("[limits]\nhandshakes_per_second_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.1\"]");
    for client in 1..=6 {
        let more = format!("X-Forwarded-For: 198.51.100.{client}\r\n");
        assert_eq!(knock(&node, "/ws", &more).await.head().await.status, 101, "{client}");
    }
    let again = "X-Forwarded-For: 198.51.100.6\r\n";
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(knock(&node, "/ws", again).await.head().await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    // Whom nobody names cannot be counted, and so is not let in.
    assert_eq!(knock(&node, "/ws", "").await.head().await.status, 400);
}

#[tokio::test]
async fn observed_handshakes_pass_and_are_counted() {
    let node = TestNode::dev("[limits]\nhandshakes_per_second_per_ip_max = 1\nmode = \"observe\"");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..30 {
        clients.push(node.connect("/ws").await);
    }
    let (refused, let_pass) = beyond(&node, "handshakes_per_second_per_ip_max").await;
    assert!(refused == 0.0 && (1.0..=29.0).contains(&let_pass), "{let_pass}");
}
