//! Connections from outside: who is there, and ending one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Raw, TestNode, request, wait_until};

async fn get(node: &TestNode, path: &str) -> Answer {
    request(node.admin, "GET", path, &[], "").await
}

async fn listed(node: &TestNode, query: &str) -> Vec<Value> {
    let answer = get(node, &format!("/api/connections{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["connections"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_connection_is_described() {
    let node = TestNode::dev("shards = 2");
    let mut many = node.connect("/ws?name=Al%20Bob").await;
    let id = many.event("welcome").await["connection"].as_str().expect("an id").to_owned();
    for n in 0..12 {
        many.subscribe(&format!("r{n}")).await;
    }
    let _one = node.enter("%E6%88%BF", "?format=text").await;
    let seen = get(&node, &format!("/api/connections/{id}")).await.json();
    assert_eq!(
        (&seen["connection"], &seen["user"], &seen["address"]),
        (&json!(id), &json!("Al Bob"), &json!("127.0.0.1"))
    );
    assert_eq!((&seen["path"], &seen["dialect"], &seen["rooms_count"]), (&json!("/ws"), &json!("json"), &json!(12)));
    assert_eq!(seen["rooms"].as_array().map(Vec::len), Some(10), "names are bounded: {seen}");
    assert_eq!((&seen["queued_bytes"], &seen["queued_messages"]), (&json!(0), &json!(0)));
    assert!(seen["age_ms"].as_u64().is_some_and(|age| age < 60_000), "{seen}");
    let others = listed(&node, "").await;
    let one = others.iter().find(|seen| seen["path"] == "/room/房").expect("the other one");
    assert_eq!((&one["user"], &one["dialect"], &one["rooms"]), (&Value::Null, &json!("text"), &json!(["房"])));
    let his = listed(&node, "?user=Al+Bob").await;
    assert_eq!((his.len(), &his[0]["connection"]), (1, &json!(id)));
    assert_eq!(listed(&node, "?user=nobody").await, [] as [Value; 0]);
    for id in ["9-0-0", "0-ffff-1", "x"] {
        get(&node, &format!("/api/connections/{id}")).await.expect_problem(404, "no_connection");
    }
    for (query, code) in [
        ("?usr=a", "unknown_parameter"),
        ("?limit=0", "bad_limit"),
        ("?after=x", "bad_parameter"),
        ("?slow=yes", "bad_parameter"),
        ("?slow=1&after=0-0-0", "bad_parameter"),
        ("?user=", "bad_user"),
    ] {
        get(&node, &format!("/api/connections{query}")).await.expect_problem(422, code);
    }
}

/// A walk over the pages tells each connection once, on whatever shard it is.
#[tokio::test]
async fn connections_are_listed_page_by_page() {
    let node = TestNode::dev("shards = 3");
    let mut clients = Vec::new();
    let mut ids = BTreeSet::new();
    for _ in 0..25 {
        let mut client = node.connect("/ws").await;
        ids.insert(client.event("welcome").await["connection"].as_str().expect("an id").to_owned());
        clients.push(client);
    }
    for limit in [1, 7, 25, 1000] {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = get(&node, &format!("/api/connections?limit={limit}{after}")).await.json();
            let connections = page["connections"].as_array().expect("a list");
            assert!(connections.len() <= limit, "{page}");
            found.extend(connections.iter().map(|seen| seen["connection"].as_str().expect("an id").to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found.len(), 25, "{found:?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids);
    }
}

#[tokio::test]
async fn the_slowest_are_told_first() {
    let node = TestNode::dev("shards = 2\n[limits]\noutbox_bytes_max = 8388608");
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Raw::stalled(node.clients, "/room/a").await);
    }
    let _fast = node.enter("b", "").await;
    wait_until("all to be in the room", async || node.occupancy("a") == 3).await;
    let body = json!({"room": "a", "message": "x".repeat(60_000)}).to_string();
    for _ in 0..40 {
        assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.json()["delivered"], 3);
    }
    let slow = listed(&node, "?slow=1").await;
    assert_eq!(slow.len(), 3, "who has nothing queued is not slow: {slow:?}");
    let bytes: Vec<_> = slow.iter().map(|seen| seen["queued_bytes"].as_u64().expect("a number")).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b) && bytes.iter().all(|&bytes| bytes > 100_000), "{bytes:?}");
    assert!(slow.iter().all(|seen| seen["queued_messages"].as_u64() > Some(1)), "{slow:?}");
    assert_eq!(listed(&node, "?slow=1&limit=1").await.len(), 1);
    assert_eq!(listed(&node, "").await.len(), 4);
}

#[tokio::test]
async fn presence_is_told_over_http_too() {
    let node = TestNode::dev("[namespaces.default]\npresence = true\n[namespaces.quiet]\npresence = false");
    let mut clients = Vec::new();
    let (bo, al) = (node.guest("bo").await, node.guest("al").await);
    for (token, room) in [(&bo, "a"), (&al, "a"), (&al, "a"), (&al, "quiet:1")] {
        clients.push(node.enter(room, &format!("?token={token}")).await);
    }
    let told = get(&node, "/api/rooms/a/presence").await.json();
    assert_eq!(told["count"], 3);
    assert_eq!(told["members"], json!([{"user": "al"}, {"user": "bo"}]));
    assert_eq!(
        get(&node, "/api/rooms/quiet:1/presence").await.json(),
        json!({"count": 1, "members": [], "next": null})
    );
    get(&node, "/api/rooms/none/presence").await.expect_problem(404, "no_room");
}

#[tokio::test]
async fn a_kicked_connection_is_told_and_gone() {
    let node = TestNode::dev("shards = 3");
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = node.connect("/ws").await;
        let id = client.event("welcome").await["connection"].as_str().expect("an id").to_owned();
        client.subscribe("a").await;
        clients.push((client, id));
    }
    let (mut kicked, id) = clients.swap_remove(2);
    let path = format!("/api/connections/{id}");
    // What was said to it before comes before the close.
    let body = json!({"room": "a", "message": "last"}).to_string();
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.json()["delivered"], 6);
    let answer = request(node.admin, "DELETE", &path, &[], "").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"connection": id, "kicked": true})));
    assert_eq!(kicked.event("message").await["message"], "last");
    assert_eq!(kicked.closed().await, (4420, "kicked".to_owned()));
    request(node.admin, "DELETE", &path, &[], "").await.expect_problem(404, "no_connection");
    node.wait_for_metric("fanfare_closes_total{reason=\"kicked\"}", 1.0).await;
    node.wait_for_metric("fanfare_connections", 5.0).await;
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.json()["delivered"], 5);
    for (client, _) in &mut clients {
        assert_eq!(client.event("message").await["message"], "last");
        assert_eq!(client.event("message").await["message"], "last");
    }
    // Neither a place nobody has, nor a shard that is not there, nor what is no id at all.
    for id in ["0-ffff-1", "77-0-1", "0-0-0", "x", "0-0", "0-0-1-2", "%FF"] {
        let path = format!("/api/connections/{id}");
        request(node.admin, "DELETE", &path, &[], "").await.expect_problem(404, "no_connection");
    }
}
