//! Connections from outside: who is there, and ending one.

use serde_json::json;

use crate::support::{TestNode, request};

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
