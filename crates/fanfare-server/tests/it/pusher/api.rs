//! `/apps/{id}/…`.

use fanfare_guard::ApplicationKey;
use serde_json::{Value, json};

use super::support::{APPS, Pusher, call, key, publish, signed};
use crate::support::{TestNode, request, wait_until};

#[tokio::test]
async fn an_event_goes_to_all_its_channels_but_not_to_who_caused_it() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    for client in [&mut ada, &mut bea] {
        client.subscribe("kitchen").await;
        client.subscribe("private-kitchen").await;
    }
    let both = json!(["kitchen", "private-kitchen", "kitchen", "nobody-there"]);
    let body = json!({"name": "order-up", "channels": both, "data": "plain", "socket_id": ada.socket_id});
    assert_eq!(publish(&node, body).await, json!({}));
    for channel in ["kitchen", "private-kitchen"] {
        assert_eq!(bea.next().await, json!({"event": "order-up", "channel": channel, "data": "plain"}));
    }
    bea.expect_nothing().await;
    ada.expect_nothing().await;
    // An id that nobody has leaves nobody out.
    publish(&node, json!({"name": "e", "channel": "kitchen", "data": "2", "socket_id": "4711.90125"})).await;
    for client in [&mut ada, &mut bea] {
        assert_eq!(client.next().await["data"], "2");
    }
    let asked = json!({"name": "e", "channels": ["kitchen", "empty"], "data": "3", "info": "subscription_count"});
    let expected = json!({"channels": {"kitchen": {"subscription_count": 2}, "empty": {"subscription_count": 0}}});
    assert_eq!(publish(&node, asked).await, expected);
}

#[tokio::test]
async fn a_batch_is_published_in_its_order() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let event = |channel: &str, data: u64| json!({"name": "e", "channel": channel, "data": data.to_string()});
    let batch: Vec<_> = (0..10).map(|n| event(if n % 2 == 0 { "a" } else { "b" }, n)).collect();
    let answer = call(&node, "POST", "/apps/1001/batch_events", &[], &json!({"batch": batch}).to_string()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    // Each channel has its own order.
    let mut got = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        let event = client.next().await;
        let data: u64 = event["data"].as_str().expect("data").parse().expect("a number");
        got[usize::from(event["channel"] == "b")].push(data);
    }
    assert_eq!(got, [vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]]);
    let mut asked = event("a", 1);
    asked["info"] = json!("subscription_count");
    let batch = json!({"batch": [event("b", 1), asked, event("b", 2)]}).to_string();
    let answer = call(&node, "POST", "/apps/1001/batch_events", &[], &batch).await;
    assert_eq!(answer.json(), json!({"batch": [{}, {"subscription_count": 1}, {}]}));
}

#[tokio::test]
async fn a_body_that_breaks_a_rule_publishes_nothing() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    client.subscribe("a").await;
    let event = |change: fn(&mut Value)| {
        let mut event = json!({"name": "e", "channels": ["a"], "data": "x"});
        change(&mut event);
        event.to_string()
    };
    let events = "/apps/1001/events";
    let batch = "/apps/1001/batch_events";
    for (path, body, status) in [
        (events, "{".to_owned(), 400),
        (events, "[]".to_owned(), 400),
        (events, "7".to_owned(), 400),
        (events, event(|e| e["name"] = json!(7)), 400),
        (events, event(|e| e["name"] = json!("")), 400),
        (events, event(|e| e["name"] = json!("x".repeat(201))), 400),
        (events, event(|e| e["name"] = json!("pusher:error")), 400),
        (events, event(|e| e["name"] = json!("pusher_internal:member_added")), 400),
        (events, event(|e| e["data"] = json!({"a": 1})), 400),
        (events, event(|e| e["data"] = json!(null)), 400),
        (events, event(|e| e["data"] = json!("x".repeat(10_241))), 413),
        (events, event(|e| e["data"] = json!("x".repeat(200_000))), 413),
        (events, event(|e| e["channels"] = json!([])), 400),
        (events, event(|e| e["channels"] = json!("a")), 400),
        (events, event(|e| e["channels"] = json!(["a", "b b"])), 400),
        (events, event(|e| e["channels"] = json!(["a", "x".repeat(201)])), 400),
        (events, event(|e| e["channels"] = json!(["a", 7])), 400),
        (events, event(|e| e["channels"] = (0..101).map(|n| json!(format!("c{n}"))).collect()), 400),
        (events, event(|e| e["socket_id"] = json!("ada")), 400),
        (events, event(|e| e["info"] = json!("everything")), 400),
        (events, json!({"name": "e", "data": "x"}).to_string(), 400),
        (events, json!({"name": "e", "channel": "a"}).to_string(), 400),
        (batch, "{}".to_owned(), 400),
        (batch, json!({"batch": [{"name": "e", "channel": "a", "data": "x"}, {"name": "e", "channel": "a"}]}).to_string(), 400),
        (batch, json!({"batch": [{"name": "e", "channel": "a", "data": "x"}, {"name": "e", "channels": ["a", "b"], "data": "x"}]}).to_string(), 400),
        (batch, json!({"batch": vec![json!({"name": "e", "channel": "a", "data": "x"}); 11]}).to_string(), 400),
    ] {
        let answer = call(&node, "POST", path, &[], &body).await;
        assert_eq!(answer.status, status, "{body:.100}: {answer:?}");
    }
    client.expect_nothing().await;
    let longest = event(|e| e["data"] = json!("x".repeat(10_240)));
    assert_eq!(call(&node, "POST", events, &[], &longest).await.status, 200);
    assert_eq!(client.next().await["data"].as_str().map(str::len), Some(10_240));
}

#[tokio::test]
async fn only_calls_that_the_application_signed_are_answered() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    client.subscribe("a").await;
    let body = json!({"name": "e", "channel": "a", "data": "x"}).to_string();
    let post = async |path: &str, body: &str| request(node.clients, "POST", path, &[], body).await.status;
    let events = "/apps/1001/events";
    let right = signed(&key(), "POST", events, &[], &body);
    assert_eq!(post(&right, &body.replace('x', "y")).await, 401, "another body");
    assert_eq!(post(events, &body).await, 401, "no signature");
    assert_eq!(post(&format!("{right}&more=1"), &body).await, 401, "another query");
    assert_eq!(post(&right.replace("1001", "1002"), &body).await, 401, "another application's path");
    assert_eq!(post(&right.replace("1001", "1003"), &body).await, 404, "no application's path");
    let other = ApplicationKey::new("k8", b"k8-secret");
    assert_eq!(post(&signed(&other, "POST", events, &[], &body), &body).await, 401, "another application's key");
    let wrong = ApplicationKey::new("k7", b"k8-secret");
    assert_eq!(post(&signed(&wrong, "POST", events, &[], &body), &body).await, 401, "another secret");
    let unsigned_body = signed(&key(), "POST", events, &[], "");
    assert_eq!(post(&unsigned_body, &body).await, 401, "a body that is not signed");
    assert_eq!(post("/apps/1001/nothing", &body).await, 404);
    assert_eq!(request(node.clients, "GET", events, &[], "").await.status, 405);
    client.expect_nothing().await;
    assert_eq!(post(&right, &body).await, 200);
    assert_eq!(client.next().await["data"], "x");
}

#[tokio::test]
async fn channels_are_told_as_they_are() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    let mut other = Pusher::connect_to(&node, "/app/k8?protocol=7").await;
    other.subscribe("theirs").await;
    for client in [&mut ada, &mut bea] {
        client.subscribe("kitchen").await;
    }
    ada.subscribe("private-a").await;
    publish(&node, json!({"name": "e", "channel": "vacant", "data": ""})).await;
    let get =
        async |path: &str, query: &[(&str, &str)]| call(&node, "GET", &format!("/apps/1001/{path}"), query, "").await;
    assert_eq!(get("channels", &[]).await.json(), json!({"channels": {"kitchen": {}, "private-a": {}}}));
    let private = get("channels", &[("filter_by_prefix", "private-")]).await;
    assert_eq!(private.json(), json!({"channels": {"private-a": {}}}));
    let kitchen = get("channels/kitchen", &[("info", "subscription_count")]).await;
    assert_eq!(kitchen.json(), json!({"occupied": true, "subscription_count": 2}));
    for vacant in ["vacant", "never-seen", "theirs"] {
        let answer = get(&format!("channels/{vacant}"), &[]).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"occupied": false})), "{vacant}");
    }
    for (path, query) in [
        ("channels", [("info", "user_count")]),
        ("channels/kitchen", [("info", "user_count")]),
        ("channels/kitchen", [("info", "x")]),
        ("channels/kitchen/users", [("x", "y")]),
        ("channels/a%20b", [("x", "y")]),
    ] {
        assert_eq!(get(path, &query).await.status, 400, "{path} {query:?}");
    }
    bea.unsubscribe("kitchen").await;
    bea.expect_nothing().await;
    let kitchen = get("channels/kitchen", &[("info", "subscription_count")]).await;
    assert_eq!(kitchen.json(), json!({"occupied": true, "subscription_count": 1}));
    ada.client.close().await;
    wait_until("the channels to be left", async || get("channels", &[]).await.json() == json!({"channels": {}})).await;
}
