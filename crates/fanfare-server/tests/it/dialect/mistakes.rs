//! What is refused, and how.

use super::*;

// ---- what is refused ----

#[tokio::test]
async fn errors_say_what_was_wrong_and_keep_the_connection() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    let long_name = "x".repeat(1_000);
    for (said, code, naming) in [
        (r#"{"name":"fly"}"#, "unknown_command", "`fly`"),
        (r#"{"name":"Publish","room":"a","message":1}"#, "unknown_command", "`Publish`"),
        (r#"{"name":"房\n"}"#, "unknown_command", "房"),
        (&format!(r#"{{"name":"{long_name}"}}"#), "unknown_command", "xxx"),
        ("", "bad_message", ""),
        ("hello", "bad_message", "JSON"),
        ("{", "bad_message", "JSON"),
        (r#"{"name":"ping"}{"name":"ping"}"#, "bad_message", "JSON"),
        ("[]", "bad_message", "object"),
        (r#"["publish"]"#, "bad_message", "object"),
        ("null", "bad_message", "object"),
        (r#"{"room":"a"}"#, "bad_message", "name"),
        (r#"{"name":null}"#, "bad_message", "name"),
        (r#"{"name":"ping","id":{}}"#, "bad_message", "id"),
    ] {
        client.send(said).await;
        let error = client.event("error").await;
        assert_eq!(error["code"], code, "{said}: {error}");
        let message = error["message"].as_str().expect("a text for people");
        assert!(message.contains(naming) && message.len() < 400, "{said}: {message}");
        client.expect_nothing().await;
    }
    for (said, code) in [
        (json!({"name": "subscribe", "id": 1}), "bad_message"),
        (json!({"name": "publish", "room": "a", "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": 5, "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": "a", "since": "yesterday", "id": 1}), "bad_message"),
        (json!({"name": "subscribe", "room": "", "id": 1}), "bad_room"),
        (json!({"name": "subscribe", "room": "a b", "id": 1}), "bad_room"),
        (json!({"name": "publish", "room": "a/b", "message": 1, "id": 1}), "bad_room"),
        (json!({"name": "leave", "room": "a\u{0}", "id": 1}), "bad_room"),
        (json!({"name": "presence", "room": "x".repeat(201), "id": 1}), "bad_room"),
        (json!({"name": "unsubscribe", "room": "a", "id": 1}), "not_subscribed"),
        (json!({"name": "leave", "room": "a", "id": 1}), "not_subscribed"),
        (json!({"name": "presence", "room": "a", "id": 1}), "not_subscribed"),
    ] {
        let error = client.ask(said.clone()).await;
        assert_eq!(
            (&error["name"], &error["code"], &error["id"]),
            (&json!("error"), &json!(code), &json!(1)),
            "{said}"
        );
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn ten_bad_messages_in_a_row_close_the_connection() {
    let node = TestNode::dev("");
    let mut client = welcomed(&node).await;
    for _ in 0..9 {
        client.send("nonsense").await;
        assert_eq!(client.event("error").await["code"], "bad_message");
    }
    // A good one begins a new row; a command nobody knows is no bad message.
    client.expect_nothing().await;
    for number in 0..20 {
        client.send(format!(r#"{{"name":"unknown{number}"}}"#)).await;
        assert_eq!(client.event("error").await["code"], "unknown_command");
    }
    for _ in 0..9 {
        client.send("nonsense").await;
        assert_eq!(client.event("error").await["code"], "bad_message");
    }
    client.send("nonsense").await;
    assert_eq!(client.closed().await, (1008, "too many bad messages in a row".to_owned()));
    node.wait_for_metric("fanfare_closes_total{reason=\"bad_messages\"}", 1.0).await;
}

#[tokio::test]
async fn binary_messages_are_not_json() {
    let node = TestNode::dev("");
    for path in ["/ws", "/room/a"] {
        let mut client = node.connect(path).await;
        if path == "/ws" {
            client.event("welcome").await;
        }
        client.send(b"{\"name\":\"ping\"}".to_vec()).await;
        assert_eq!(client.closed().await.0, 1003, "{path}");
    }
}

#[tokio::test]
async fn rights_of_a_namespace_hold_for_every_way_in() {
    let node = TestNode::dev(
        "[namespaces.news]\npublish = \"nobody\"\n[namespaces.named]\nsubscribe = \"user\"\n[namespaces.shut]\nsubscribe = \"nobody\"",
    );
    let mut client = welcomed(&node).await;
    client.subscribe("news:all").await;
    let error = client.ask(json!({"name": "publish", "room": "news:all", "message": 1, "id": 1})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_allowed"), &json!(1)));
    for room in ["named:a", "shut:a"] {
        let error = client.ask(json!({"name": "subscribe", "room": room})).await;
        assert_eq!(error["code"], "not_allowed", "{room}");
        // A browser learns a close code, but never the status of a refused handshake.
        let mut stranger = node.connect(&format!("/room/{room}")).await;
        assert_eq!(stranger.closed().await, (4403, "not allowed".to_owned()), "{room}");
    }
    node.enter("named:a", "?name=Ada").await;
}
