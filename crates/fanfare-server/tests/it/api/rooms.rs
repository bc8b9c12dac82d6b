//! What is told of rooms, and their end.

use super::*;

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
