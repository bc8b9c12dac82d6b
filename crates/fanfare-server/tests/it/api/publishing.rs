//! Publishing, one by one and in batches.

use super::*;

/// With more shards than one, subscribers sit on several of them, and one receipt counts them all.
#[tokio::test]
async fn a_receipt_counts_the_subscribers_of_all_shards() {
    let node = TestNode::dev("shards = 4");
    let mut shards = BTreeSet::new();
    let mut many = Vec::new();
    for _ in 0..24 {
        let mut client = node.connect("/ws").await;
        let welcome = client.event("welcome").await;
        let connection = welcome["connection"].as_str().expect("an id").to_owned();
        shards.insert(connection.split('-').next().expect("a shard").to_owned());
        client.subscribe("房间:1").await;
        many.push(client);
    }
    assert!(shards.len() >= 2, "24 connections are spread over 4 shards, not all on {shards:?}");
    let mut one = Vec::new();
    for _ in 0..8 {
        one.push(node.enter("%E6%88%BF%E9%97%B4:1", "").await);
    }
    // Byte for byte: neither the spaces nor the numbers' forms are touched.
    let message = r#"{"b" :1,  "a":[1.0, 1e2,"\u0041"] }"#;
    let mut epoch = Value::Null;
    for offset in 1..=3 {
        let body = format!(r#"{{"message": {message}, "room": "房间:1"}}"#);
        let answer = request(node.admin, "POST", "/api/publish", &[], &body).await;
        let receipt = answer.json();
        assert_eq!(counts(&receipt), (32, 0, 0), "{receipt}");
        assert_eq!(receipt["offset"], offset);
        if offset > 1 {
            assert_eq!(receipt["epoch"], epoch, "one life, one epoch");
        }
        epoch = receipt["epoch"].clone();
        assert_eq!(epoch.as_str().map(str::len), Some(16));
    }
    let answer = request(node.admin, "POST", "/api/publish", &[], r#"{"room":"房间:1","message":"end"}"#).await;
    assert_eq!(counts(&answer.json()), (32, 0, 0));
    for client in &mut many {
        for _ in 0..3 {
            let text = client.text().await;
            assert!(text.contains(&format!("\"message\":{message}")), "{text}");
            assert!(text.contains("\"room\":\"房间:1\""), "{text}");
        }
        assert_eq!(client.event("message").await["message"], "end");
    }
    for client in &mut one {
        for _ in 0..3 {
            let text = client.text().await;
            assert!(text.contains(&format!("\"message\":{message}")), "{text}");
            assert!(!text.contains("\"room\""), "{text}");
        }
        assert_eq!(client.event("message").await["message"], "end");
    }
    // Into a room nobody is in: accepted, delivered to nobody, and its order begins.
    let empty = receipt(node.admin, json!({"room": "empty", "message": null})).await;
    assert_eq!((counts(&empty), &empty["offset"]), ((0, 0, 0), &json!(1)));
}

#[tokio::test]
async fn a_plain_text_body_is_the_message() {
    let node = TestNode::dev("");
    let mut text = node.enter("%E6%88%BF", "?format=text").await;
    let mut json_client = node.enter("%E6%88%BF", "").await;
    let body = "hello \"world\"\n房 \\ \t😀";
    for kind in ["text/plain", "text/plain; charset=utf-8", "TEXT/Plain;charset=UTF-8"] {
        let answer = request(node.admin, "POST", "/api/publish?room=%E6%88%BF", &[("Content-Type", kind)], body).await;
        assert_eq!(counts(&answer.json()), (2, 0, 0), "{kind}");
        assert_eq!(text.text().await, body);
        assert_eq!(json_client.event("message").await["message"], body);
    }
    // JSON to a text client: strings as their content, everything else as it is written.
    receipt(node.admin, json!({"room": "房", "message": "a\nb"})).await;
    receipt(node.admin, json!({"room": "房", "message": {"a": 1}})).await;
    assert_eq!(text.text().await, "a\nb");
    assert_eq!(text.text().await, r#"{"a":1}"#);

    let bad = |path: &'static str| request(node.admin, "POST", path, &[TEXT], "x");
    bad("/api/publish").await.expect_problem(422, "room_missing");
    bad("/api/publish?romm=a").await.expect_problem(422, "unknown_parameter");
    bad("/api/publish?room=a&room=b").await.expect_problem(422, "repeated_parameter");
    bad("/api/publish?room=%FF").await.expect_problem(422, "bad_parameter");
    bad("/api/publish?room=").await.expect_problem(422, "bad_room");
    bad("/api/publish?room=a%20b").await.expect_problem(422, "bad_room");
    let mut raw = Raw::open(node.admin).await;
    let head = "POST /api/publish?room=a HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n";
    raw.send(head.as_bytes()).await;
    raw.send(b"\xff\xfe").await;
    raw.answer().await.expect_problem(422, "bad_utf8");
}

#[tokio::test]
async fn except_leaves_one_connection_out() {
    let node = TestNode::dev("shards = 3");
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..6 {
        let mut client = node.connect("/ws").await;
        ids.push(client.event("welcome").await["connection"].clone());
        client.subscribe("a").await;
        clients.push(client);
    }
    for (left_out, id) in ids.iter().enumerate() {
        let body = json!({"room": "a", "message": left_out, "except": id});
        assert_eq!(counts(&receipt(node.admin, body).await), (5, 0, 0));
    }
    // One that is gone, or never was, leaves nobody out.
    for id in ["0-ffff-1", "77-0-1"] {
        let body = json!({"room": "a", "message": "all", "except": id});
        assert_eq!(counts(&receipt(node.admin, body).await), (6, 0, 0), "{id}");
    }
    for (own, client) in clients.iter_mut().enumerate() {
        for other in (0..6).filter(|&other| other != own) {
            assert_eq!(client.event("message").await["message"], other);
        }
        for _ in 0..2 {
            assert_eq!(client.event("message").await["message"], "all");
        }
    }
    for id in ["", "me", "1-2", "1-2-3-4"] {
        let body = json!({"room": "a", "message": 1, "except": id});
        publish(node.admin, &body).await.expect_problem(422, "bad_connection");
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let node = TestNode::dev("");
    let mut a = node.enter("a", "").await;
    let mut b = [node.enter("b", "").await, node.enter("b", "").await];
    let entries: Vec<_> = (0..300).map(|n| json!({"room": (["a", "b", "nobody"][n % 3]), "message": n})).collect();
    let body = json!({"publish": entries}).to_string();
    let answer = request(node.admin, "POST", "/api/batch", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let receipts = answer["receipts"].as_array().expect("a list");
    assert_eq!(receipts.len(), 300);
    for (n, receipt) in receipts.iter().enumerate() {
        assert_eq!(counts(receipt), ([1, 2, 0][n % 3], 0, 0), "{n}: {receipt}");
        assert_eq!(receipt["offset"], n / 3 + 1, "{n}");
    }
    for n in (0..300).step_by(3) {
        assert_eq!(a.event("message").await["message"], n);
    }
    for client in &mut b {
        for n in (1..300).step_by(3) {
            assert_eq!(client.event("message").await["message"], n);
        }
    }
    let empty = request(node.admin, "POST", "/api/batch", &[], r#"{"publish":[]}"#).await;
    assert_eq!((empty.status, empty.json()), (200, json!({"receipts": []})));
}

#[tokio::test]
async fn one_bad_entry_leaves_a_batch_without_a_trace() {
    let node = TestNode::dev("[limits]\nmessage_bytes_max = 100");
    let mut client = node.enter("a", "").await;
    let good = json!({"room": "a", "message": "never"});
    let long = "x".repeat(99);
    let bad = [
        (json!({"room": "a b", "message": 1}), 422, "bad_room"),
        (json!({"room": "new", "message": 1, "except": "x"}), 422, "bad_connection"),
        (json!({"room": "new", "message": long}), 413, "too_large"),
        (json!({"room": "new"}), 422, "bad_request"),
        (json!({"room": "new", "message": 1, "mesage": 2}), 422, "bad_request"),
        (json!(7), 422, "bad_request"),
    ];
    for (entry, status, code) in &bad {
        for entries in [[&good, entry], [entry, &good]] {
            let body = json!({"publish": entries}).to_string();
            request(node.admin, "POST", "/api/batch", &[], &body).await.expect_problem(*status, code);
        }
    }
    let many = vec![&good; 1_001];
    let small = json!({"publish": many}).to_string();
    request(node.admin, "POST", "/api/batch", &[], &small).await.expect_problem(422, "batch_too_long");
    request(node.admin, "POST", "/api/batch", &[], "{}").await.expect_problem(422, "bad_request");
    assert_eq!(node.metric("fanfare_published_total").await, 0.0);
    assert_eq!(node.metric("fanfare_rooms").await, 1.0, "the bad entry's room was not made either");
    let mark = receipt(node.admin, json!({"room": "a", "message": "mark"})).await;
    assert_eq!(mark["offset"], 1);
    assert_eq!(client.event("message").await["message"], "mark");
}

#[tokio::test]
async fn a_message_that_nests_deeper_than_a_command_may_is_refused_by_both_doors() {
    let node = TestNode::dev("");
    let mut client = node.connect("/room/a").await;
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let body = |levels| format!(r#"{{"room": "a", "message": {}}}"#, nested(levels));
    request(node.admin, "POST", "/api/publish", &[], &body(100)).await.expect_problem(422, "too_deep");
    request(node.admin, "POST", "/api/publish", &[], &body(30_000)).await.expect_problem(422, "too_deep");
    client.send(format!(r#"{{"name":"publish","message":{}}}"#, nested(100))).await;
    assert_eq!(client.event("error").await["code"], "bad_message");
    // As deep as it may be it goes through, and a parser with the usual bound reads the event.
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body(99)).await.status, 200);
    assert!(client.event("message").await["message"].is_array());
}
