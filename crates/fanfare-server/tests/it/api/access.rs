//! Who may call it, and where.

use super::*;

#[tokio::test]
async fn health_answers_without_a_key() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]");
    let live = get(node.admin, "/livez").await;
    assert_eq!((live.status, live.text()), (200, "live\n"));
    node.wait_until_ready().await;
    assert_eq!(get(node.admin, "/readyz").await.text(), "ready\n");
    assert_eq!(get(node.admin, "/metrics").await.status, 200);
    for path in ["/livez", "/readyz", "/metrics"] {
        let head = request(node.admin, "HEAD", path, &[], "").await;
        assert_eq!(head.body.len(), 0, "{path}");
        assert!(head.status == 200 || path == "/readyz" && head.status == 503, "{path}: {head:?}");
        let post = request(node.admin, "POST", path, &[], "x").await;
        post.expect_problem(405, "method_not_allowed");
        assert_eq!(post.header("allow"), Some("GET, HEAD"), "{path}");
        // Health is nobody's business on the client listener.
        get(node.clients, path).await.expect_problem(404, "not_found");
    }
    for path in ["/", "/nothing", "/livez/", "/api", "/ws"] {
        get(node.admin, path).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn each_of_several_keys_opens_the_api_and_nothing_else_does() {
    let node = TestNode::serve("[api]\nkeys = [\"first-key-0123456789\", \"second-key-0123456789\"]");
    let with = async |authorization: &str| {
        let headers = [("Authorization", authorization)];
        let body = r#"{"room":"a","message":1}"#;
        let answer = request(node.admin, "POST", "/api/publish", &headers, body).await;
        let listed = request(node.admin, "GET", "/api/rooms", &headers, "").await;
        assert_eq!(answer.status, listed.status, "every call asks for a key");
        answer
    };
    for good in ["Bearer first-key-0123456789", "Bearer second-key-0123456789", "bearer  first-key-0123456789"] {
        assert_eq!(with(good).await.status, 200, "{good}");
    }
    for (bad, code) in [
        ("Bearer first-key-012345678", "key_wrong"),
        ("Bearer first-key-01234567890", "key_wrong"),
        ("Bearer FIRST-KEY-0123456789", "key_wrong"),
        ("Bearer first-key-0123456789,second-key-0123456789", "key_wrong"),
        ("Bearer x", "key_wrong"),
        ("Bearer ", "key_missing"),
        ("Bearer", "key_missing"),
        ("first-key-0123456789", "key_missing"),
        ("Basic Zmlyc3Qta2V5LTAxMjM0NTY3ODk=", "key_missing"),
    ] {
        let answer = with(bad).await;
        answer.expect_problem(401, code);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{bad}");
    }
    // Who has no key is not told what there is.
    for path in ["/api/rooms", "/api/rooms/a", "/api/nothing", "/api/publish"] {
        get(node.admin, path).await.expect_problem(401, "key_missing");
    }
    assert_eq!(node.metric("fanfare_published_total").await, 3.0);
}

#[tokio::test]
async fn serve_without_keys_refuses_every_call_and_dev_needs_none() {
    let body = r#"{"room":"a","message":1}"#;
    let serve = TestNode::serve("");
    for key in ["Bearer ", "Bearer x", ""] {
        let headers = [("Authorization", key)];
        request(serve.admin, "POST", "/api/publish", &headers, body).await.expect_problem(401, "no_api_keys");
    }
    assert_eq!(serve.metric("fanfare_published_total").await, 0.0);
    drop(serve);
    let dev = TestNode::dev("");
    assert_eq!(request(dev.admin, "POST", "/api/publish", &[], body).await.status, 200);
    assert_eq!(request(dev.admin, "POST", "/api/publish", &[("Authorization", "Bearer x")], body).await.status, 200);
    drop(dev);
    let with_key = TestNode::dev("[api]\nkeys = [\"k\"]");
    request(with_key.admin, "POST", "/api/publish", &[], body).await.expect_problem(401, "key_missing");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]\non_client_listener = true");
    let answer = get(node.admin, "/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let publish = &document["paths"]["/api/publish"]["post"];
    assert_eq!(publish["requestBody"]["content"]["text/plain"]["schema"]["type"], "string");
    let schema = &document["components"]["schemas"]["PublishBody"];
    assert_eq!((&schema["additionalProperties"], &schema["required"]), (&json!(false), &json!(["room", "message"])));
    get(node.clients, "/openapi.json").await.expect_problem(404, "not_found");
}

/// A developer's open API must not be a way in for any page in the same browser.
#[tokio::test]
async fn pages_of_a_foreign_origin_cannot_call_the_api() {
    let node = TestNode::dev("origins = [\"https://app.example\"]");
    let own = format!("http://{}", node.admin);
    let with = async |origins: &[&str]| {
        let headers: Vec<_> = origins.iter().map(|origin| ("Origin", *origin)).collect();
        request(node.admin, "POST", "/api/publish", &headers, r#"{"room":"a","message":1}"#).await
    };
    for good in [&[own.as_str()][..], &["https://app.example"], &["https://app.example", &own], &[]] {
        assert_eq!(with(good).await.status, 200, "{good:?}");
    }
    for bad in [
        &["https://evil.example"][..],
        &["null"],
        &["http://app.example"],
        &["https://app.example", "https://evil.example"],
        &["not an origin"],
    ] {
        with(bad).await.expect_problem(403, "origin_not_allowed");
    }
    assert_eq!(node.metric("fanfare_published_total").await, 4.0);
}

#[tokio::test]
async fn the_api_is_on_the_client_listener_where_that_is_asked_for() {
    let body = r#"{"room":"a","message":1}"#;
    let key = [("Authorization", "Bearer k")];
    let apart = TestNode::serve("[api]\nkeys = [\"k\"]");
    request(apart.clients, "POST", "/api/publish", &key, body).await.expect_problem(404, "not_found");
    drop(apart);
    let both = TestNode::serve("[api]\nkeys = [\"k\"]\non_client_listener = true");
    let mut client = both.enter("a", "").await;
    for address in [both.clients, both.admin] {
        let answer = request(address, "POST", "/api/publish", &key, body).await;
        assert_eq!(counts(&answer.json()), (1, 0, 0));
        assert_eq!(client.event("message").await["message"], 1);
        request(address, "POST", "/api/publish", &[], body).await.expect_problem(401, "key_missing");
        assert_eq!(request(address, "GET", "/api/rooms", &key, "").await.json()["rooms"][0]["room"], "a");
    }
    get(both.clients, "/metrics").await.expect_problem(404, "not_found");
}
