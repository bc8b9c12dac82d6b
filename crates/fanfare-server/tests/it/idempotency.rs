//! Publications that are sent again.

use serde_json::{Value, json};

use crate::support::{Answer, Raw, TestNode, request, wait_until};

async fn publish(node: &TestNode, body: &Value) -> Answer {
    request(node.admin, "POST", "/api/publish", &[], &body.to_string()).await
}

#[tokio::test]
async fn a_publication_sent_again_is_published_once() {
    let node = TestNode::dev("shards = 2");
    let mut client = node.enter("a", "").await;
    let body = json!({"room": "a", "message": {"n": 1}, "idempotency_key": "order-1"});
    let first = publish(&node, &body).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let mut receipt = first.json();
    assert_eq!((&receipt["delivered"], &receipt["offset"], receipt.get("repeated")), (&json!(1), &json!(1), None));
    // Another subscriber changes nothing: it is the receipt of then.
    let mut late = node.enter("a", "").await;
    for _ in 0..3 {
        let again = publish(&node, &body).await;
        receipt["repeated"] = json!(true);
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
        assert_eq!(again.json(), receipt);
    }
    for other in [
        json!({"room": "a", "message": {"n": 2}, "idempotency_key": "order-1"}),
        json!({"room": "b", "message": {"n": 1}, "idempotency_key": "order-1"}),
        json!({"room": "a", "message": {"n": 1}, "except": "0-0-0", "idempotency_key": "order-1"}),
    ] {
        publish(&node, &other).await.expect_problem(409, "idempotency_conflict");
    }
    let other =
        publish(&node, &json!({"room": "a", "message": "mark", "idempotency_key": "x".repeat(255)})).await.json();
    assert_eq!((&other["offset"], &other["delivered"]), (&json!(2), &json!(2)));
    assert_eq!(client.event("message").await["message"], json!({"n": 1}));
    assert_eq!(client.event("message").await["message"], "mark");
    assert_eq!(late.event("message").await["message"], "mark");
    let long = json!({"room": "a", "message": 1, "idempotency_key": "x".repeat(256)});
    publish(&node, &long).await.expect_problem(422, "bad_idempotency_key");
    assert_eq!(node.metric("fanfare_idempotency_keys").await, 2.0);
    assert_eq!(node.metric("fanfare_published_total").await, 2.0);
}

#[tokio::test]
async fn in_a_batch_each_entry_has_its_own_key() {
    let node = TestNode::dev("");
    let entry = |n: u64, key: &str| json!({"room": "a", "message": n, "idempotency_key": key});
    let batch = async |entries: &[Value]| {
        let body = json!({ "publish": entries }).to_string();
        request(node.admin, "POST", "/api/batch", &[], &body).await
    };
    let receipts = batch(&[entry(1, "a"), entry(2, "b"), entry(1, "a")]).await.json()["receipts"].clone();
    let offsets = |receipts: &Value| [0, 1, 2].map(|n| receipts[n]["offset"].as_u64().unwrap_or_default());
    assert_eq!((offsets(&receipts), &receipts[2]["repeated"]), ([1, 2, 1], &json!(true)));
    let receipts = batch(&[entry(2, "b"), entry(3, "c"), entry(1, "a")]).await.json()["receipts"].clone();
    assert_eq!(offsets(&receipts), [2, 3, 1]);
    assert_eq!((&receipts[0]["repeated"], receipts[1].get("repeated")), (&json!(true), None));
    // One conflict, and nothing of the batch happens: its other keys are free.
    for entries in [[entry(4, "d"), entry(9, "a")], [entry(4, "d"), entry(5, "d")]] {
        let refused = batch(&entries).await;
        refused.expect_problem(409, "idempotency_conflict");
        assert!(refused.text().contains("publish[1]"), "{refused:?}");
    }
    assert_eq!(node.metric("fanfare_published_total").await, 3.0);
    assert_eq!(publish(&node, &entry(7, "d")).await.json()["offset"], 4);
}

/// The second call with the same key gets the receipt of the first, which is still under way.
#[tokio::test]
async fn calls_at_the_same_time_publish_once() {
    let node = TestNode::dev("shards = 2\n[api]\non_client_listener = true");
    let mut client = node.enter("a", "?format=text").await;
    for n in 0..20 {
        let body = json!({"room": "a", "message": n, "idempotency_key": format!("k{n}")});
        let call = async |address| {
            let answer = request(address, "POST", "/api/publish", &[], &body.to_string()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()
        };
        // Over the admin thread and over both shards.
        let (a, b, c, d) = tokio::join!(call(node.admin), call(node.clients), call(node.clients), call(node.clients));
        let all = [a, b, c, d];
        assert!(all.iter().all(|receipt| receipt["offset"] == n + 1 && receipt["delivered"] == 1), "{all:?}");
        assert_eq!(all.iter().filter(|receipt| receipt.get("repeated").is_none()).count(), 1, "{all:?}");
        assert_eq!(client.text().await, n.to_string());
    }
    assert_eq!(node.metric("fanfare_published_total").await, 20.0);
}

/// A caller that hangs up before its receipt, and asks again: what keys are for.
#[tokio::test]
async fn a_caller_that_hung_up_gets_its_receipt_later() {
    let node = TestNode::dev("[namespaces.late]\ncoalesce_ms = 200");
    let mut client = node.enter("late:a", "").await;
    let body = json!({"room": "late:a", "message": 1, "idempotency_key": "k"});
    let text = body.to_string();
    let mut raw = Raw::open(node.admin).await;
    let length = text.len();
    raw.send(format!("POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{text}").as_bytes())
        .await;
    wait_until("the publication", async || node.metric("fanfare_published_total").await == 1.0).await;
    drop(raw);
    let again = publish(&node, &body).await.json();
    assert_eq!((&again["offset"], &again["delivered"], &again["repeated"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(client.event("message").await["message"], 1);
    assert_eq!(node.metric("fanfare_published_total").await, 1.0);
}

#[tokio::test]
async fn keys_are_bounded_in_number_and_time() {
    let node = TestNode::dev("[api]\nidempotency_max = 2\nidempotency_ms = 60000");
    let keyed = |key: &str| json!({"room": "a", "message": 1, "idempotency_key": key});
    for (key, offset) in [("a", 1), ("b", 2), ("a", 1), ("c", 3), ("b", 2), ("a", 4)] {
        assert_eq!(publish(&node, &keyed(key)).await.json()["offset"], offset, "{key}");
    }
    assert_eq!(node.metric("fanfare_idempotency_keys").await, 2.0);
    assert_eq!(node.metric("fanfare_idempotency_forgotten_total").await, 2.0);
    drop(node);
    let brief = TestNode::dev("[api]\nidempotency_ms = 1");
    assert_eq!(publish(&brief, &keyed("a")).await.json()["offset"], 1);
    wait_until("the key to be forgotten", async || publish(&brief, &keyed("a")).await.json()["offset"] != 1).await;
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]");
    let key = [("Authorization", "Bearer k")];
    let head = request(node.admin, "HEAD", "/api/rooms", &key, "").await;
    assert_eq!((head.status, head.body.len(), head.header("content-type")), (200, 0, Some("application/json")));
    let options = request(node.admin, "OPTIONS", "/api/rooms/a", &key, "").await;
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, DELETE")));
    request(node.admin, "OPTIONS", "/api/nothing", &key, "").await.expect_problem(404, "not_found");
    request(node.admin, "OPTIONS", "/api/rooms", &[], "").await.expect_problem(401, "key_missing");
}
