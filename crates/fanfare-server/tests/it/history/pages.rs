//! Pages of what was said, by command and over HTTP.

use super::*;

#[tokio::test]
async fn pages_of_history_are_read_by_command_and_over_http() {
    let node = TestNode::dev("[namespaces.default]\nhistory_size = 10\n[namespaces.none]\nhistory_size = 0");
    let epoch = publish_numbers(&node, "a", 1..=12).await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    let mut own = node.enter("a", "").await;
    for (since, limit, recovered, expected) in [
        (None, None, Value::Null, (3..=12).collect::<Vec<u64>>()),
        (None, Some(3), Value::Null, vec![10, 11, 12]),
        (Some(format!("{epoch}:2")), None, json!(true), (3..=12).collect()),
        (Some(format!("{epoch}:5")), Some(2), json!(true), vec![6, 7]),
        (Some(format!("{epoch}:12")), None, json!(true), vec![]),
        (Some(format!("{epoch}:1")), Some(2), json!(false), vec![3, 4]),
        (Some(format!("{epoch}:13")), Some(2), json!(false), vec![3, 4]),
        (Some("0123456789abcdef:5".to_owned()), Some(1), json!(false), vec![3]),
    ] {
        let mut query = String::new();
        let mut command = json!({"name": "history", "room": "a", "id": 7});
        if let Some(since) = &since {
            query += &format!("&since={since}");
            command["since"] = json!(since);
        }
        if let Some(limit) = limit {
            query += &format!("&limit={limit}");
            command["limit"] = json!(limit);
        }
        let mut page = get(&node, &format!("/api/rooms/a/history?{query}")).await.json();
        assert_eq!(numbers(&page), expected, "{query}");
        assert_eq!((&page["epoch"], &page["offset"], &page["recovered"]), (&json!(epoch), &json!(12), &recovered));
        let told = many.ask(command.clone()).await;
        page["name"] = json!("history");
        page["id"] = json!(7);
        let unnamed = page.clone();
        page["room"] = json!("a");
        assert_eq!(told, page, "the same by command");
        command.as_object_mut().expect("an object").remove("room");
        assert_eq!(own.ask(command).await, unnamed, "and on the room's own path");
    }
    // Reading on from the last message of a page, one gets all of it.
    let (mut since, mut read) = (format!("{epoch}:2"), Vec::new());
    loop {
        let page = get(&node, &format!("/api/rooms/a/history?limit=4&since={since}")).await.json();
        let Some(last) = numbers(&page).last().copied() else { break };
        read.extend(numbers(&page));
        since = format!("{epoch}:{last}");
    }
    assert_eq!(read, (3..=12).collect::<Vec<_>>());
    for (path, status, code) in [
        ("/api/rooms/nobody/history", 404, "no_room"),
        ("/api/rooms/none:a/history", 422, "not_available"),
        ("/api/rooms/a/history?since=x", 400, "bad_request"),
        ("/api/rooms/a/history?limit=0", 422, "bad_limit"),
        ("/api/rooms/a/history?limit=1001", 422, "bad_limit"),
        ("/api/rooms/a%20b/history", 422, "bad_room"),
        ("/api/rooms/a/histories", 404, "not_found"),
        ("/api/rooms/a/history/", 404, "not_found"),
    ] {
        get(&node, path).await.expect_problem(status, code);
    }
    request(node.admin, "POST", "/api/rooms/a/history", &[], "").await.expect_problem(405, "method_not_allowed");
    assert!(!room(&node.hub, "nobody"), "asking over HTTP makes no room");
    let refused = many.ask(json!({"name": "history", "room": "none:a", "id": 1})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("not_available"), &json!(1)));
}

#[tokio::test]
async fn history_tells_who_said_what_and_when_and_every_payload() {
    let node = TestNode::dev("auth.guests = true\nnamespaces.default.history_size = 10");
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as u64;
    let mut json_client = node.enter("a", "?name=Zo%C3%AB").await;
    json_client.say(json!({"name": "publish", "message": {"a": [1, 2]}})).await;
    json_client.event("message").await;
    let mut text_client = node.enter("a", "?format=text").await;
    text_client.send("plain \"text\"").await;
    text_client.text().await;
    text_client.send(vec![1_u8, 2, 3]).await;
    text_client.binary().await;
    let page = get(&node, "/api/rooms/a/history").await.json();
    let mut messages = page["messages"].clone();
    for message in messages.as_array_mut().expect("a list") {
        let at = message.as_object_mut().expect("an object").remove("at").and_then(|at| at.as_u64()).expect("a time");
        assert!((before..before + 60_000).contains(&at), "{at} is now");
    }
    let expected = json!([
        {"offset": 1, "message": {"a": [1, 2]}, "user": "Zoë"},
        {"offset": 2, "message": "plain \"text\""},
        {"offset": 3, "message": "AQID", "encoding": "base64"},
    ]);
    assert_eq!(messages, expected);
}

#[tokio::test]
async fn history_needs_the_right_to_subscribe_and_nothing_else() {
    let node = TestNode::serve(
        "api.keys = ['k']\n[namespaces.default]\nhistory_size = 5\nsubscribe = 'user'\n[namespaces.open]\nsubscribe = 'anyone'",
    );
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let refused = client.ask(json!({"name": "history", "room": "a", "id": 1})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("not_allowed"), &json!(1)));
    assert!(!room(&node.hub, "a"));
    // A room nobody is in yet: the answer says where to enter it.
    let page = client.ask(json!({"name": "history", "room": "open:a"})).await;
    assert_eq!((&page["messages"], &page["offset"]), (&json!([]), &json!(0)));
    let since = format!("{}:0", page["epoch"].as_str().expect("an epoch"));
    let mut other = node.connect("/room/open:a").await;
    other.say(json!({"name": "publish", "message": 1, "id": 1})).await;
    let _ = (other.json().await, other.json().await);
    let subscribed = client.ask(json!({"name": "subscribe", "room": "open:a", "since": since})).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    hear(&mut client, 1..=1).await;
    request(node.admin, "GET", "/api/rooms/open:a/history", &[], "").await.expect_problem(401, "key_missing");
    let read = request(node.admin, "GET", "/api/rooms/open:a/history", &[("authorization", "Bearer k")], "").await;
    assert_eq!(numbers(&read.json()), [1]);
}
