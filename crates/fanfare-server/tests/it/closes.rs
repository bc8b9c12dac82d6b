//! The close ledger: every close is in it, with what was known of the connection.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Raw, TestNode, request, wait_until};

async fn ledger(node: &TestNode, query: &str) -> Value {
    let answer: Answer = request(node.admin, "GET", &format!("/api/closes{query}"), &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn until_closed(node: &TestNode, total: u64) -> Value {
    wait_until("closes", async || ledger(node, "").await["total"] == total).await;
    ledger(node, "").await
}

fn reasons(ledger: &Value) -> Vec<&str> {
    ledger["closes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|close| close["reason"].as_str().expect("a label"))
        .collect()
}

#[tokio::test]
async fn every_close_is_remembered_with_its_circumstances() {
    let node = TestNode::dev("shards = 2\n[limits]\nmessage_bytes_max = 100");
    assert_eq!(ledger(&node, "").await, json!({"closes": [], "next": null, "kept": 0, "total": 0, "reasons": {}}));
    let alice = node.guest("alice").await;
    until_closed(&node, 1).await;
    let mut big = node.enter("%E6%88%BF", "?name=bob").await;
    big.send("x".repeat(101)).await;
    assert_eq!(big.closed().await.0, 1009);
    until_closed(&node, 2).await;
    let mut refused = node.connect("/ws?token=none").await;
    assert_eq!(refused.closed().await.0, 4401);
    until_closed(&node, 3).await;
    drop(node.connect(&format!("/ws?token={alice}")).await);
    let all = until_closed(&node, 4).await;
    assert_eq!(
        reasons(&all),
        ["connection_lost", "token_refused", "message_too_big", "client_closed"],
        "the latest first"
    );
    assert_eq!(
        all["reasons"],
        json!({"client_closed": 1, "connection_lost": 1, "message_too_big": 1, "token_refused": 1})
    );
    assert_eq!((&all["kept"], &all["next"]), (&json!(4), &Value::Null));

    let big = &all["closes"][2];
    assert_eq!((&big["number"], &big["user"], &big["room"]), (&json!(2), &json!("bob"), &json!("房")));
    assert_eq!((&big["code"], &big["text"]), (&json!(1009), &json!("message over 100 bytes")));
    assert_eq!((&big["address"], &big["queued_bytes"]), (&json!("127.0.0.1"), &json!(0)));
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as u64;
    let at_ms = big["at_ms"].as_u64().expect("a number");
    assert!(at_ms <= now_ms + 1_000 && at_ms > now_ms - 60_000, "{at_ms} {now_ms}");
    assert!(big["age_ms"].as_u64().is_some_and(|age| age < 60_000), "{big}");
    let id = big["connection"].as_str().expect("an id");

    for (query, expected) in [
        ("?user=alice", vec!["connection_lost", "client_closed"]),
        ("?reason=token_refused", vec!["token_refused"]),
        (&format!("?connection={id}"), vec!["message_too_big"]),
        ("?user=alice&reason=client_closed", vec!["client_closed"]),
        ("?user=bob&reason=client_closed", vec![]),
    ] {
        let found = ledger(&node, query).await;
        assert_eq!(reasons(&found), expected, "{query}");
        assert_eq!(found["total"], 4, "totals are of all");
    }
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = ledger(&node, &format!("?limit=3{after}")).await;
        pages.extend(reasons(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, reasons(&all));
    for (query, code) in
        [("?reason=tired", "bad_reason"), ("?connection=x", "bad_connection"), ("?after=x", "bad_parameter")]
    {
        let path = format!("/api/closes{query}");
        request(node.admin, "GET", &path, &[], "").await.expect_problem(422, code);
    }
}

/// What has fallen out of the ring stays in the totals, which are those of the metrics.
#[tokio::test]
async fn the_ring_is_bounded_and_the_totals_are_not() {
    let node = TestNode::dev("shards = 2\n[api]\ncloses_max = 6");
    for n in 0..12 {
        let client = node.connect("/ws").await;
        client.close().await;
        until_closed(&node, n + 1).await;
    }
    let all = ledger(&node, "").await;
    let kept = all["kept"].as_u64().expect("a number");
    assert!((3..=6).contains(&kept), "three of each shard that closed so many: {all}");
    assert_eq!(reasons(&all).len() as u64, kept);
    assert_eq!(all["closes"][0]["number"], 12, "the latest is kept: {all}");
    assert_eq!((&all["total"], &all["reasons"]), (&json!(12), &json!({"client_closed": 12})));
    assert_eq!(node.metric("fanfare_closes_total{reason=\"client_closed\"}").await, 12.0);
    drop(node);
    let off = TestNode::dev("[api]\ncloses_max = 0");
    off.connect("/ws").await.close().await;
    let none = until_closed(&off, 1).await;
    assert_eq!((&none["kept"], &none["closes"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn a_slow_consumer_is_remembered_with_its_queue() {
    let node = TestNode::dev("[limits]\noutbox_bytes_max = 131072");
    let _slow = Raw::stalled(node.clients, "/room/a?name=snail").await;
    wait_until("it to be in the room", async || node.occupancy("a") == 1).await;
    let body = json!({"room": "a", "message": "x".repeat(30_000)}).to_string();
    wait_until("its end", async || {
        request(node.admin, "POST", "/api/publish", &[], &body).await;
        ledger(&node, "").await["total"] == 1
    })
    .await;
    let close = ledger(&node, "?reason=slow_consumer&user=snail").await["closes"][0].clone();
    assert_eq!((&close["code"], &close["room"]), (&json!(4508), &json!("a")));
    let (bytes, messages) = (&close["queued_bytes"], &close["queued_messages"]);
    assert_eq!(close["text"], format!("queued {bytes} bytes, {messages} messages"));
    assert!(bytes.as_u64() > Some(1_000), "{close}");
}

#[tokio::test]
async fn the_command_tells_why() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]\n[auth]\nguests = true");
    node.connect("/ws?name=alice").await.close().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", 1.0).await;
    let why = async |args: &[&str]| {
        let url = format!("http://{}", node.admin);
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.args(["why", "--url", &url]).args(args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread").expect("a program");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let (is_well, told, _) = why(&["--key", "k", "--user", "alice"]).await;
    assert!(is_well && told.contains("alice") && told.contains("client_closed: The client said goodbye"), "{told}");
    let (is_well, told, _) = why(&["--key", "k", "--reason", "kicked"]).await;
    assert!(is_well && told.starts_with("No connection") && told.contains("client_closed 1"), "{told}");
    let (is_well, told, _) = why(&["--key", "k", "--json"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(is_well && told["closes"][0]["user"] == "alice", "{told}");
    let (is_well, _, wrong) = why(&[]).await;
    assert!(!is_well && wrong.contains("--key"), "{wrong}");
    let (is_well, _, wrong) = why(&["--key", "k", "--reason", "tired"]).await;
    assert!(!is_well && wrong.contains("slow_consumer"), "{wrong}");
}
