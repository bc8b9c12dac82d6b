//! The admin listener: health, the API of backends, and who may call it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use fanfare_server::node::Node;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Answer, Client, Raw, TestNode, request, within};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");

async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], "").await
}

async fn publish(admin: SocketAddr, body: &Value) -> Answer {
    request(admin, "POST", "/api/publish", &[("Content-Type", "application/json")], &body.to_string()).await
}

/// Publishes and returns the receipt.
async fn receipt(admin: SocketAddr, body: Value) -> Value {
    let answer = publish(admin, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// Delivered, dropped, evicted.
fn counts(receipt: &Value) -> (u64, u64, u64) {
    let count = |name: &str| receipt[name].as_u64().unwrap_or_else(|| panic!("no {name} in {receipt}"));
    (count("delivered"), count("dropped"), count("evicted"))
}

/// A raw request on a connection that stays open.
fn request_text(method: &str, path: &str, more: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{more}\r\n{body}", body.len())
}

#[tokio::test]
async fn health_answers_without_a_key() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]");
    let live = get(node.admin, "/livez").await;
    assert_eq!((live.status, live.text()), (200, "live\n"));
    let ready = get(node.admin, "/readyz").await;
    assert_eq!((ready.status, ready.text()), (200, "ready\n"));
    assert_eq!(get(node.admin, "/metrics").await.status, 200);
    for path in ["/livez", "/readyz", "/metrics"] {
        let head = request(node.admin, "HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
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
async fn rooms_are_listed_page_by_page() {
    let node = TestNode::dev("");
    let mut expected: Vec<String> = (0..250).map(|n| format!("p:{n:03}")).collect();
    expected[17] = "p:房".to_owned();
    expected.sort();
    let mut entries: Vec<_> = expected.iter().map(|room| json!({"room": room, "message": 1})).collect();
    entries.extend([json!({"room": "p", "message": 1}), json!({"room": "q:1", "message": 1})]);
    let body = json!({"publish": entries}).to_string();
    assert_eq!(request(node.admin, "POST", "/api/batch", &[], &body).await.status, 200);

    let mut found = Vec::new();
    let mut pages = 0;
    let mut after = String::new();
    loop {
        let page = get(node.admin, &format!("/api/rooms?prefix=p%3A&limit=100&after={after}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let rooms = page["rooms"].as_array().expect("a list");
        found.extend(rooms.iter().map(|room| room["room"].as_str().expect("a name").to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(Some(next), found.last().map(String::as_str));
        after = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
    }
    assert_eq!((pages, found.len()), (3, 250));
    assert_eq!(found, expected);

    let count = async |query: &str| {
        let page = get(node.admin, &format!("/api/rooms{query}")).await.json();
        (page["rooms"].as_array().expect("a list").len(), !page["next"].is_null())
    };
    assert_eq!(count("").await, (100, true), "a page is 100 rooms by default");
    assert_eq!(count("?limit=1000").await, (252, false));
    assert_eq!(count("?limit=252").await, (252, false), "a full last page has no next one");
    assert_eq!(count("?limit=251").await, (251, true));
    assert_eq!(count("?prefix=q&limit=1").await, (1, false));
    assert_eq!(count("?prefix=none").await, (0, false));
    assert_eq!(count("?after=zzz").await, (0, false));
    for query in ["?prefx=q", "?limit=1&Limit=2", "?%FF=1"] {
        let refused = get(node.admin, &format!("/api/rooms{query}")).await;
        refused.expect_problem(422, "unknown_parameter");
        assert!(refused.text().contains("takes prefix (only rooms"), "{refused:?}");
    }
    for limit in ["0", "1001", "-1", "many", ""] {
        get(node.admin, &format!("/api/rooms?limit={limit}")).await.expect_problem(422, "bad_limit");
    }
}

#[tokio::test]
async fn a_room_is_described_and_closed_for_all() {
    let node = TestNode::dev("shards = 3");
    get(node.admin, "/api/rooms/r%C3%A4ume").await.expect_problem(404, "no_room");
    request(node.admin, "DELETE", "/api/rooms/r%C3%A4ume", &[], "").await.expect_problem(404, "no_room");
    let mut ones = Vec::new();
    for format in ["", "?format=text", "", "?format=text", ""] {
        ones.push((node.enter("r%C3%A4ume", format).await, format.is_empty()));
    }
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    many.subscribe("räume").await;
    many.subscribe("other").await;
    let sent = receipt(node.admin, json!({"room": "räume", "message": "last"})).await;
    assert_eq!(counts(&sent), (6, 0, 0));

    let room = get(node.admin, "/api/rooms/r%C3%A4ume").await.json();
    assert_eq!((&room["room"], &room["occupancy"], &room["offset"]), (&json!("räume"), &json!(6), &json!(1)));
    assert_eq!(room["epoch"], sent["epoch"]);
    assert!(room["age_ms"].is_u64(), "{room}");

    let closed = request(node.admin, "DELETE", "/api/rooms/r%C3%A4ume", &[], "").await;
    assert_eq!((closed.status, closed.json()), (200, json!({"room": "räume", "closed": true})));
    for (client, is_json) in &mut ones {
        if *is_json {
            assert_eq!(client.event("message").await["message"], "last");
            assert_eq!(client.json().await, json!({"name": "room_closed"}));
        } else {
            assert_eq!(client.text().await, "last");
        }
        assert_eq!(client.closed().await, (4410, "room closed".to_owned()));
    }
    assert_eq!(many.event("message").await["message"], "last");
    assert_eq!(many.json().await, json!({"name": "room_closed", "room": "räume"}));
    many.expect_nothing().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"room_closed\"}", 5.0).await;
    node.wait_for_metric("fanfare_subscriptions", 1.0).await;

    get(node.admin, "/api/rooms/r%C3%A4ume").await.expect_problem(404, "no_room");
    request(node.admin, "DELETE", "/api/rooms/r%C3%A4ume", &[], "").await.expect_problem(404, "no_room");
    let again = receipt(node.admin, json!({"room": "räume", "message": "again"})).await;
    assert_eq!((counts(&again), &again["offset"]), ((0, 0, 0), &json!(1)));
    assert_ne!(again["epoch"], sent["epoch"], "another life, another epoch");
    assert_eq!(many.ask(json!({"name": "publish", "room": "other", "message": 1})).await["message"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_has_a_stable_code() {
    let node = TestNode::dev("[limits]\nmessage_bytes_max = 1000");
    let publish = "/api/publish";
    let fits = "x".repeat(998);
    let body = format!(r#"{{"room":"a","message":"{fits}"}}"#);
    assert_eq!(request(node.admin, "POST", publish, &[], &body).await.status, 200, "exactly 1000 bytes");
    let over = format!(r#"{{"room":"a","message":"{fits}x"}}"#);
    let huge = "x".repeat(6_000);
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", publish, "", 400, "bad_json"),
        ("POST", publish, "{", 400, "bad_json"),
        ("POST", publish, "hello", 400, "bad_json"),
        ("POST", publish, r#"{"room":"a","message":1} x"#, 400, "bad_json"),
        ("POST", publish, r#"{"room":"a","message":tru}"#, 400, "bad_json"),
        ("POST", publish, "null", 422, "bad_request"),
        ("POST", publish, "[]", 422, "bad_request"),
        ("POST", publish, "[", 400, "bad_json"),
        ("POST", publish, r#"["a",1,null,null]"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a"}"#, 422, "bad_request"),
        ("POST", publish, r#"{"message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":1,"message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a","message":1,"mesage":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a","room":"b","message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"","message":1}"#, 422, "bad_room"),
        ("POST", publish, r#"{"room":"a/b","message":1}"#, 422, "bad_room"),
        ("POST", publish, r#"{"room":"a","message":1,"idempotency_key":""}"#, 422, "bad_idempotency_key"),
        ("POST", publish, r#"{"room":"a","message":1,"idempotency_key":7}"#, 422, "bad_request"),
        ("POST", "/api/batch", r#"{"publish":[["a",1,null,null]]}"#, 422, "bad_request"),
        ("POST", publish, &over, 413, "too_large"),
        ("POST", publish, &huge, 413, "too_large"),
        ("POST", "/api/batch", "[1]", 422, "bad_request"),
        ("GET", publish, "", 405, "method_not_allowed"),
        ("PUT", "/api/batch", "{}", 405, "method_not_allowed"),
        ("POST", "/api/rooms", "{}", 405, "method_not_allowed"),
        ("POST", "/api/rooms/a", "{}", 405, "method_not_allowed"),
        ("GET", "/api/rooms/a%20b", "", 422, "bad_room"),
        ("GET", "/api/rooms/%FF", "", 422, "bad_room"),
        ("GET", "/api/rooms/none", "", 404, "no_room"),
        ("GET", "/api/rooms/", "", 404, "not_found"),
        ("GET", "/api/rooms/a/b/c", "", 404, "not_found"),
        ("GET", "/api/", "", 404, "not_found"),
        ("GET", "/api/nothing", "", 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = request(node.admin, method, path, &[], body).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        answer.expect_problem(*status, code);
        assert_ne!(answer.json()["detail"], json!(""), "it says what to do");
        let allow = match *path {
            "/api/publish" | "/api/batch" => "POST",
            "/api/rooms" => "GET, HEAD",
            _ => "GET, HEAD, DELETE",
        };
        assert_eq!(answer.header("allow"), (*status == 405).then_some(allow), "{method} {path}");
    }
    // Not UTF-8 is not JSON.
    let mut raw = Raw::open(node.admin).await;
    let body = b"{\"room\":\"a\",\"message\":\"\xff\"}";
    raw.send(format!("POST {publish} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    raw.send(body).await;
    raw.answer().await.expect_problem(400, "bad_json");
    assert_eq!(node.metric("fanfare_published_total").await, 1.0, "nothing but the first was published");
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

#[tokio::test]
async fn a_connection_takes_request_after_request() {
    let node = TestNode::dev("[api]\non_client_listener = true");
    for address in [node.admin, node.clients] {
        let mut raw = Raw::open(address).await;
        for _ in 0..3 {
            raw.send(request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", "x").as_bytes()).await;
            assert_eq!(raw.answer().await.status, 200);
            raw.send(request_text("GET", "/api/rooms/none", "", "").as_bytes()).await;
            raw.answer().await.expect_problem(404, "no_room");
        }
    }
    assert_eq!(node.metric("fanfare_published_total").await, 6.0);
}

/// Requests sent without waiting are answered each, in order (RFC 9112 section 9.3.2).
#[tokio::test]
async fn requests_may_be_sent_without_waiting_for_answers() {
    let node = TestNode::dev("");
    let mut reader = node.enter("a", "?format=text").await;
    let mut raw = Raw::open(node.admin).await;
    let mut all = String::new();
    for n in 0..50 {
        let body = n.to_string();
        all += &request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", &body);
    }
    all += &request_text("GET", "/livez", "Connection: close\r\n", "");
    raw.send(all.as_bytes()).await;
    for offset in 1..=50 {
        let receipt = raw.answer().await.json();
        assert_eq!((counts(&receipt), &receipt["offset"]), ((1, 0, 0), &json!(offset)));
    }
    assert_eq!(raw.answer().await.text(), "live\n");
    raw.end().await;
    for n in 0..50 {
        assert_eq!(reader.text().await, n.to_string());
    }
}

#[tokio::test]
async fn bodies_come_in_chunks_and_after_100_continue() {
    let node = TestNode::dev("");
    let mut raw = Raw::open(node.admin).await;
    let head = "POST /api/publish HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    raw.send(head.as_bytes()).await;
    for chunk in [r#"{"room":"#, r#""a","mess"#, r#"age":1}"#] {
        raw.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await;
    }
    raw.send(b"0\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    // curl asks first where a body is large.
    let body = r#"{"room":"a","message":2}"#;
    let (length, expect) = (body.len(), "Expect: 100-continue");
    raw.send(
        format!("POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{expect}\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(raw.head().await.status, 100);
    raw.send(body.as_bytes()).await;
    assert_eq!(raw.answer().await.json()["offset"], 2);
}

#[tokio::test]
async fn a_body_or_a_head_that_does_not_come_is_not_waited_for() {
    let node = TestNode::dev("[limits]\nhandshake_ms_max = 200");
    let mut slow_body = Raw::open(node.admin).await;
    slow_body.send(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{\"room\":").await;
    let answer = slow_body.answer().await;
    answer.expect_problem(408, "body_timeout");
    slow_body.end().await;
    let mut slow_head = Raw::open(node.admin).await;
    slow_head.send(b"POST /api/publish HTTP/1.1\r\nHost:").await;
    // Whether 408 is said first is up to the server.
    slow_head.rest().await;
    // A body that was announced too long is refused before it comes.
    let mut long = Raw::open(node.admin).await;
    long.send(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n{").await;
    long.answer().await.expect_problem(413, "too_large");
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
}

/// Both listeners over Unix sockets: the same paths, the same handshake, no address to count by.
#[tokio::test]
async fn both_listeners_may_be_unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clients, admin) = (folder.path().join("c"), folder.path().join("a"));
    let toml = format!(
        "listen = \"unix:{}\"\nadmin = \"unix:{}\"\nshards = 2\n[limits]\nconnections_per_ip_max = 1\n\
         [drain]\ngrace_ms = 0\nwindow_ms = 0",
        clients.display(),
        admin.display()
    );
    let file = ConfigFile::new("unix.toml", toml);
    let config = Config::dev(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration");
    let node = Node::start(&config).expect("a node that starts");
    let (leave, signals) = tokio::sync::mpsc::channel(1);
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(node.run(signals))
    });

    let mut sockets = Vec::new();
    for _ in 0..4 {
        let stream = UnixStream::connect(&clients).await.expect("a listener");
        let handshake = tokio_tungstenite::client_async("ws://localhost/room/a?format=text", stream);
        sockets.push(within("a handshake", handshake).await.expect("a connection").0);
    }
    let call = async |text: String| {
        let mut stream = UnixStream::connect(&admin).await.expect("a listener");
        stream.write_all(text.as_bytes()).await.expect("an open connection");
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
        answer
    };
    let rooms = || call(request_text("GET", "/api/rooms/a", "Connection: close\r\n", ""));
    crate::support::wait_until("all to be in the room", async || rooms().await.contains("\"occupancy\":4")).await;
    let headers = "Connection: close\r\nContent-Type: text/plain\r\n";
    let answer = call(request_text("POST", "/api/publish?room=a", headers, "over unix")).await;
    assert!(answer.contains("\"delivered\":4"), "{answer}");
    for socket in &mut sockets {
        let message = within("a message", socket.next()).await.expect("a message").expect("no failure");
        assert_eq!(message, Message::text("over unix"));
    }
    leave.send(()).await.expect("a node that runs");
    for socket in &mut sockets {
        let close = within("a close", socket.next()).await.expect("a close").expect("no failure");
        assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1012), "{close:?}");
        // The library answers a close while it is read on.
        assert!(within("the end", socket.next()).await.is_none());
    }
    let ended = tokio::task::spawn_blocking(move || running.join());
    within("the node's end", ended).await.expect("a thread").expect("no panic").expect("no error");
    assert!(!clients.exists() && !admin.exists(), "the files go with the listeners");
}

/// Whoever hangs up before the answer does not know whether it was published: but it was, once and whole, or it was not.
#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let node = TestNode::dev("");
    let mut client: Client = node.enter("a", "?format=text").await;
    for n in 0..20 {
        let mut raw = Raw::open(node.admin).await;
        let body = n.to_string();
        raw.send(request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", &body).as_bytes()).await;
        if n % 2 == 0 {
            raw.answer().await;
        } else {
            // Gone while the answer is under way, or a moment before.
            tokio::time::timeout(Duration::from_millis(1), raw.answer()).await.ok();
        }
    }
    let mut heard = BTreeSet::new();
    while heard.len() as f64 != node.metric("fanfare_published_total").await {
        let n: u64 = client.text().await.parse().expect("a number");
        assert!(heard.insert(n), "{n} was heard twice");
    }
    assert!((0..20).step_by(2).all(|n| heard.contains(&n)), "what was answered was published: {heard:?}");
    node.wait_for_metric("fanfare_delivered_total", heard.len() as f64).await;
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
