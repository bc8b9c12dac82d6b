//! Several nodes as one gateway, over a real log of each kind: what all drivers promise is asked of each. What only one kind can do or suffer is in
//! a file of its own.

/// Each of these tests for each kind of engine.
macro_rules! for_each_kind {
    ($($test:ident,)*) => {
        mod over_redis {
            $(#[tokio::test] async fn $test() { super::$test::<super::Redis>().await; })*
        }
        mod over_nats {
            $(#[tokio::test] async fn $test() { super::$test::<super::Nats>().await; })*
        }
    };
}

pub(crate) mod nats;
mod nats_cluster;
mod nats_terms;
pub(crate) mod redis;
mod tls;

use std::cell::Cell;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Client, TestNode, metric, request, wait_until};

use nats::Nats;
use redis::Redis;

/// What keeps a log, of a test's own, in a process of its own.
pub(crate) trait Engine: Sized {
    /// One node's way to it.
    type Wire: Wire;

    /// One that is not running yet.
    fn idle() -> Self;

    async fn start() -> Self {
        let mut engine = Self::idle();
        engine.run().await;
        engine
    }

    /// Runs it on what it wrote down before, until it answers.
    async fn run(&mut self);

    /// Ends it at once, as a crash would.
    fn kill(&mut self);

    /// What it wrote down is gone. It does not run.
    fn forget(&self);

    /// A copy of what it wrote down. It does not run.
    fn copy(&self) -> TempDir;

    /// What it wrote down is this copy. It does not run.
    fn restore(&self, copy: &TempDir);

    /// The log is taken away while it runs.
    async fn empty(&self);

    /// The configuration of a node on it.
    fn toml(&self, more: &str) -> String;

    /// A way to it that can be cut.
    fn wire(&self) -> Self::Wire;
}

/// One node's way to an engine, which can be cut while others go on.
pub(crate) trait Wire {
    /// The configuration of a node at its end.
    fn toml(&self, more: &str) -> String;

    /// Whatever is under way is lost, and nobody gets through.
    async fn cut(&mut self);

    /// Connections are taken again.
    fn mend(&mut self);

    /// Whatever is under way is lost.
    async fn drop_calls(&self);
}

/// The configuration of a node on this engine.
fn over(kind: &str, url: &str, more: &str) -> String {
    // As long as an engine may take to start on any machine; a test that waits for the end of it says how long.
    let timeout = if more.contains("timeout_ms") { "" } else { "timeout_ms = 60000\n" };
    format!(
        "[engine]\nkind = \"{kind}\"\nurl = \"{url}\"\n{timeout}{more}\n[namespaces.default]\nhistory_size = 1000\n\
         [namespaces.plain]\nhistory_size = 0\n[rooms]\nreap_ms = 50\n"
    )
}

/// The files of a folder, and of the folders in it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("its files") {
        let file = file.expect("a file");
        let copy = to.join(file.file_name());
        if file.file_type().expect("its type").is_dir() {
            copy_files(&file.path(), &copy);
        } else {
            std::fs::copy(file.path(), copy).expect("a copy");
        }
    }
}

for_each_kind! {
    a_room_has_one_order_on_all_nodes_whoever_publishes,
    who_loses_its_node_resumes_on_another_and_misses_nothing,
    who_was_further_on_another_node_is_told_what_follows_and_nothing_twice,
    receipts_acks_and_the_publisher_left_out_are_as_on_one_node,
    rooms_that_keep_nothing_and_other_dialects_reach_over_nodes_too,
    a_node_that_starts_late_knows_what_was_said,
    while_the_engine_is_away_readers_stay_and_publishers_are_told,
    a_short_absence_of_the_engine_is_not_noticed_by_anybody,
    an_engine_that_lost_everything_begins_anew_and_nobody_is_lied_to,
    an_engine_that_was_emptied_while_it_ran_is_found_out,
    a_log_that_lost_its_end_is_found_out_even_when_it_has_grown_again,
    who_missed_part_of_the_log_says_so,
    each_is_published_exactly_once_however_often_the_connection_breaks,
    a_node_that_has_not_read_the_log_says_so_and_lets_nobody_into_a_room,
    what_was_posted_before_a_node_ends_is_in_the_log,
}

/// A node on this Redis, which knows the rooms.
async fn node(toml: &str) -> TestNode {
    let node = TestNode::dev(toml);
    node.wait_until_ready().await;
    node
}

async fn nodes(engine: &impl Engine) -> [TestNode; 2] {
    let toml = engine.toml("");
    [node(&toml).await, node(&toml).await]
}

async fn publish(node: &TestNode, room: &str, message: &Value) -> Answer {
    let body = json!({"room": room, "message": message}).to_string();
    request(node.admin, "POST", "/api/publish", &[("Content-Type", "application/json")], &body).await
}

async fn published(node: &TestNode, room: &str, message: impl Into<Value>) -> Value {
    let answer = publish(node, room, &message.into()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// On `/ws`, in this room from this position on; and what it was told of that.
async fn subscriber(node: &TestNode, room: &str, since: Option<&str>) -> (Client, Value) {
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client.say(json!({"name": "subscribe", "room": room, "since": since})).await;
    let subscribed = client.event("subscribed").await;
    (client, subscribed)
}

fn position(of: &Value) -> String {
    format!("{}:{}", of["epoch"].as_str().expect("an epoch"), of["offset"])
}

/// The next messages, with their numbers.
async fn messages(client: &mut Client, count: usize) -> Vec<(u64, Value)> {
    let mut messages = Vec::with_capacity(count);
    for _ in 0..count {
        let mut event = client.event("message").await;
        messages.push((event["offset"].as_u64().expect("a number"), event["message"].take()));
    }
    messages
}

fn counted(messages: &[(u64, Value)]) -> Vec<u64> {
    messages.iter().map(|(offset, _)| *offset).collect()
}

async fn a_room_has_one_order_on_all_nodes_whoever_publishes<E: Engine>() {
    const EACH: usize = 60;
    let engine = E::start().await;
    let nodes = nodes(&engine).await;
    let mut subscribers = Vec::new();
    for node in nodes.iter().chain(&nodes) {
        subscribers.push(subscriber(node, "lobby", None).await.0);
    }
    let publish = async |node: &TestNode, who: &str| {
        let mut client = node.connect("/ws").await;
        client.event("welcome").await;
        for n in 0..EACH {
            client.say(json!({"name": "publish", "room": "lobby", "message": format!("{who} {n}")})).await;
        }
        client.expect_nothing().await;
        client
    };
    let publishers = tokio::join!(
        publish(&nodes[0], "a"),
        publish(&nodes[0], "b"),
        publish(&nodes[1], "c"),
        publish(&nodes[1], "d"),
        async {
            for n in 0..EACH {
                published(&nodes[n % 2], "lobby", format!("e {n}")).await;
            }
        }
    );
    let mut orders = Vec::new();
    for subscriber in &mut subscribers {
        orders.push(messages(subscriber, 5 * EACH).await);
        subscriber.expect_nothing().await;
    }
    assert_eq!(counted(&orders[0]), (1..=5 * EACH as u64).collect::<Vec<_>>(), "dense from 1");
    assert!(orders.iter().all(|order| *order == orders[0]), "one order");
    for who in ["a", "b", "c", "d", "e"] {
        let said = orders[0].iter().filter_map(|(_, message)| message.as_str()?.strip_prefix(who)?.trim().parse().ok());
        assert_eq!(said.collect::<Vec<usize>>(), (0..EACH).collect::<Vec<_>>(), "what {who} said is in its order");
    }
    drop(publishers);
    for node in &nodes {
        assert_eq!(node.metric("fanfare_engine_connected").await, 1.0);
        assert_eq!(node.metric("fanfare_engine_applied_total").await, 5.0 * EACH as f64);
        assert_eq!(node.metric("fanfare_engine_posts_waiting").await, 0.0);
    }
    let appended = async |node: &TestNode| node.metric("fanfare_engine_appended_total").await;
    assert_eq!(appended(&nodes[0]).await + appended(&nodes[1]).await, 5.0 * EACH as f64);
}

async fn who_loses_its_node_resumes_on_another_and_misses_nothing<E: Engine>() {
    let engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let (mut client, subscribed) = subscriber(&one, "lobby", None).await;
    assert_eq!((&subscribed["offset"], &subscribed["recovered"]), (&json!(0), &json!(true)));
    for n in 1..=3 {
        published(&one, "lobby", n).await;
    }
    assert_eq!(counted(&messages(&mut client, 3).await), [1, 2, 3]);
    let since = format!("{}:3", subscribed["epoch"].as_str().unwrap());
    drop(client);
    for n in 4..=6 {
        published(&one, "lobby", n).await;
    }
    one.hub.leave(None);
    drop(one);
    wait_until("the other node to know", async || other.metric("fanfare_engine_applied_total").await == 6.0).await;
    let (mut client, subscribed) = subscriber(&other, "lobby", Some(&since)).await;
    assert_eq!((&subscribed["offset"], &subscribed["recovered"]), (&json!(6), &json!(true)));
    published(&other, "lobby", 7).await;
    let told = messages(&mut client, 4).await;
    assert_eq!(told, (4..=7).map(|n| (n, json!(n))).collect::<Vec<_>>());
    let (_, lagging) = subscriber(&other, "lobby", Some(&since.replace(":3", ":0"))).await;
    assert_eq!(lagging["recovered"], true, "from the beginning, too");
}

async fn who_was_further_on_another_node_is_told_what_follows_and_nothing_twice<E: Engine>() {
    let engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let first = published(&one, "lobby", 1).await;
    wait_until("the other node to know", async || other.metric("fanfare_engine_applied_total").await == 1.0).await;
    // As if this node had not applied the second and the third yet.
    let ahead = format!("{}:3", first["epoch"].as_str().unwrap());
    let (mut client, subscribed) = subscriber(&other, "lobby", Some(&ahead)).await;
    assert_eq!((position(&subscribed), &subscribed["recovered"]), (ahead, &json!(true)));
    for n in 2..=5 {
        published(&one, "lobby", n).await;
    }
    assert_eq!(messages(&mut client, 2).await, [(4, json!(4)), (5, json!(5))]);
    published(&other, "lobby", 6).await;
    assert_eq!(messages(&mut client, 1).await, [(6, json!(6))]);
}

async fn receipts_acks_and_the_publisher_left_out_are_as_on_one_node<E: Engine>() {
    let engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let (mut publisher, _) = subscriber(&one, "lobby", None).await;
    let (mut neighbour, _) = subscriber(&one, "lobby", None).await;
    let (mut far, _) = subscriber(&other, "lobby", None).await;
    publisher.say(json!({"name": "publish_no_self", "room": "lobby", "message": "a", "id": 7})).await;
    let ack = publisher.event("ack").await;
    assert_eq!(ack, json!({"name": "ack", "offset": 1, "delivered": 1, "dropped": 0, "evicted": 0, "id": 7}));
    assert_eq!(messages(&mut neighbour, 1).await, [(1, json!("a"))]);
    assert_eq!(messages(&mut far, 1).await, [(1, json!("a"))]);
    publisher.expect_nothing().await;
    let receipt = published(&other, "lobby", "b").await;
    assert_eq!((&receipt["offset"], &receipt["delivered"]), (&json!(2), &json!(1)), "who is here");
    let entry = json!({"room": "lobby", "message": "c", "idempotency_key": "k"});
    let batch = json!({"publish": [entry, {"room": "plain:x", "message": 1}, entry]}).to_string();
    let answer = request(one.admin, "POST", "/api/batch", &[], &batch).await.json();
    let receipts = answer["receipts"].as_array().expect("receipts");
    assert_eq!((&receipts[0]["offset"], &receipts[0]["delivered"]), (&json!(3), &json!(2)), "{answer}");
    assert_eq!((&receipts[2]["offset"], &receipts[2]["repeated"]), (&json!(3), &json!(true)), "{answer}");
    assert_eq!(receipts[1]["offset"], 1, "{answer}");
    assert_eq!(counted(&messages(&mut far, 2).await), [2, 3]);
    far.expect_nothing().await;
}

async fn rooms_that_keep_nothing_and_other_dialects_reach_over_nodes_too<E: Engine>() {
    let engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let mut text = one.enter("plain:a", "?format=text").await;
    let mut binary = other.enter("plain:a", "?format=text").await;
    text.send("hello").await;
    assert_eq!((text.text().await, binary.text().await), ("hello".to_owned(), "hello".to_owned()));
    binary.send(tokio_tungstenite::tungstenite::Message::from(vec![0, 255])).await;
    assert_eq!((text.binary().await, binary.binary().await), (vec![0, 255], vec![0, 255]));
    // A room is closed for all, wherever they are.
    let (mut kept, _) = subscriber(&other, "lobby", None).await;
    assert_eq!(request(one.admin, "DELETE", "/api/rooms/plain:a", &[], "").await.status, 200);
    assert_eq!((text.closed().await.0, binary.closed().await.0), (4410, 4410));
    let mut moderator = one.connect("/ws").await;
    moderator.event("welcome").await;
    moderator.say(json!({"name": "close", "room": "lobby"})).await;
    kept.event("room_closed").await;
}

async fn a_node_that_starts_late_knows_what_was_said<E: Engine>() {
    let engine = E::start().await;
    let toml = engine.toml("");
    let one = node(&toml).await;
    for n in 1..=30 {
        published(&one, "lobby", n).await;
    }
    let late = node(&toml).await;
    let page = request(late.admin, "GET", "/api/rooms/lobby/history?limit=100", &[], "").await.json();
    let told: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["message"].as_u64().unwrap()).collect();
    assert_eq!((told, page["offset"].as_u64()), ((1..=30).collect(), Some(30)));
    let same = request(one.admin, "GET", "/api/rooms/lobby/history?limit=100", &[], "").await.json();
    assert_eq!(same["epoch"], page["epoch"]);
    drop(one);
    let again = node(&toml).await;
    let receipt = published(&again, "lobby", 31).await;
    assert_eq!((&receipt["offset"], &receipt["epoch"]), (&json!(31), &page["epoch"]), "numbers go on");
}

async fn while_the_engine_is_away_readers_stay_and_publishers_are_told<E: Engine>() {
    let mut engine = E::start().await;
    let one = node(&engine.toml("timeout_ms = 2000")).await;
    let (mut reader, _) = subscriber(&one, "lobby", None).await;
    let mut text = one.enter("lobby", "?format=text").await;
    let before = published(&one, "lobby", 1).await;
    engine.kill();
    wait_until("it to be away", async || one.metric("fanfare_engine_connected").await == 0.0).await;
    // What is posted in the first moment waits for it to come back, and is then given up.
    publish(&one, "lobby", &json!(2)).await.expect_problem(503, "engine_away");
    reader.event("message").await;
    let error = reader.ask(json!({"name": "publish", "room": "lobby", "message": 3, "id": "x"})).await;
    assert_eq!((&error["name"], &error["code"], &error["id"]), (&json!("error"), &json!("engine_away"), &json!("x")));
    let error = reader.ask(json!({"name": "publish", "room": "lobby", "message": 3})).await;
    assert_eq!((&error["code"], error.get("id")), (&json!("engine_away"), None));
    let key = json!({"room": "lobby", "message": 4, "idempotency_key": "k"}).to_string();
    request(one.admin, "POST", "/api/publish", &[], &key).await.expect_problem(503, "engine_away");
    request(one.admin, "DELETE", "/api/rooms/lobby", &[], "").await.expect_problem(503, "engine_away");
    assert_eq!(text.text().await, "1");
    text.send("refused").await;
    assert_eq!(text.closed().await.0, 4500, "the text dialect has no word for it");
    // Who is here is served.
    one.wait_until_ready().await;
    let (_, subscribed) = subscriber(&one, "lobby", None).await;
    assert_eq!(subscribed["offset"], 1, "and so are newcomers");
    engine.run().await;
    wait_until("it to be back", async || one.metric("fanfare_engine_connected").await == 1.0).await;
    let again = request(one.admin, "POST", "/api/publish", &[], &key).await.json();
    assert_eq!((&again["epoch"], again.get("repeated")), (&before["epoch"], None), "its key was free again");
    let told = messages(&mut reader, 1).await;
    assert_eq!(told, [(2, json!(4))], "what was refused was not published, and nobody was closed");
    assert_eq!(one.metric("fanfare_engine_restarts_total").await, 0.0);
}

async fn a_short_absence_of_the_engine_is_not_noticed_by_anybody<E: Engine>() {
    let mut engine = E::start().await;
    let nodes = nodes(&engine).await;
    let (mut reader, _) = subscriber(&nodes[1], "lobby", None).await;
    published(&nodes[0], "lobby", 1).await;
    engine.kill();
    let late = async {
        wait_until("it to be away", async || nodes[0].metric("fanfare_engine_connected").await == 0.0).await;
        published(&nodes[0], "lobby", 2).await
    };
    let back = async {
        wait_until("something to wait for it", async || nodes[0].metric("fanfare_engine_posts_waiting").await == 1.0)
            .await;
        engine.run().await;
    };
    let (receipt, ()) = tokio::join!(late, back);
    assert_eq!(receipt["offset"], 2);
    assert_eq!(messages(&mut reader, 2).await, [(1, json!(1)), (2, json!(2))]);
}

async fn an_engine_that_lost_everything_begins_anew_and_nobody_is_lied_to<E: Engine>() {
    let mut engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let (mut client, first) = subscriber(&one, "lobby", None).await;
    for n in 1..=3 {
        published(&other, "lobby", n).await;
    }
    assert_eq!(counted(&messages(&mut client, 3).await), [1, 2, 3]);
    engine.kill();
    engine.forget();
    engine.run().await;
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.as_str()), (4503, "messages were missed here, come back"));
    wait_until("both to know", async || {
        metric(one.admin, "fanfare_engine_restarts_total").await == 1.0
            && metric(other.admin, "fanfare_engine_restarts_total").await == 1.0
    })
    .await;
    one.wait_until_ready().await;
    let since = format!("{}:3", first["epoch"].as_str().unwrap());
    let (mut client, second) = subscriber(&one, "lobby", Some(&since)).await;
    assert_eq!((&second["recovered"], &second["offset"]), (&json!(false), &json!(0)));
    assert_ne!(first["epoch"], second["epoch"]);
    published(&other, "lobby", "again").await;
    assert_eq!(messages(&mut client, 1).await, [(1, json!("again"))]);
}

async fn an_engine_that_was_emptied_while_it_ran_is_found_out<E: Engine>() {
    let engine = E::start().await;
    let one = node(&engine.toml("")).await;
    let (mut client, _) = subscriber(&one, "lobby", None).await;
    published(&one, "lobby", 1).await;
    messages(&mut client, 1).await;
    engine.empty().await;
    assert_eq!(client.closed().await.0, 4503, "without anybody publishing");
    one.wait_until_ready().await;
    // And by publishing: what was posted goes into the log that is there then.
    let (mut client, _) = subscriber(&one, "lobby", None).await;
    engine.empty().await;
    let receipt = published(&one, "lobby", 2).await;
    assert_eq!(receipt["offset"], 1);
    assert_eq!(client.closed().await.0, 4503);
}

async fn a_log_that_lost_its_end_is_found_out_even_when_it_has_grown_again<E: Engine>() {
    let mut engine = E::start().await;
    let mut wire = engine.wire();
    let one = node(&wire.toml("")).await;
    let (mut client, first) = subscriber(&one, "lobby", None).await;
    published(&one, "lobby", "kept").await;
    // What was written down so far is what a copy would have that is a little late.
    engine.kill();
    let copy = engine.copy();
    engine.run().await;
    published(&one, "lobby", "lost").await;
    assert_eq!(counted(&messages(&mut client, 2).await), [1, 2]);
    wire.cut().await;
    engine.kill();
    engine.restore(&copy);
    engine.run().await;
    // Another node goes on with the late copy, and gives the same number to something else.
    let other = node(&engine.toml("")).await;
    let receipt = published(&other, "lobby", "otherwise").await;
    assert_eq!((&receipt["offset"], &receipt["epoch"]), (&json!(2), &first["epoch"]));
    let (mut bystander, _) = subscriber(&other, "lobby", None).await;
    wire.mend();
    assert_eq!(client.closed().await.0, 4503);
    assert_eq!(bystander.closed().await.0, 4503, "the other node's members heard another truth under that number");
    other.wait_until_ready().await;
    let since = format!("{}:2", first["epoch"].as_str().unwrap());
    let (_, subscribed) = subscriber(&other, "lobby", Some(&since)).await;
    assert_eq!(subscribed["recovered"], false);
}

async fn who_missed_part_of_the_log_says_so<E: Engine>() {
    let engine = E::start().await;
    let mut wire = engine.wire();
    // The least there may be.
    let limits = "log_entries_max = 2000";
    let one = node(&engine.toml(limits)).await;
    let other = node(&wire.toml(limits)).await;
    let (mut client, _) = subscriber(&other, "lobby", None).await;
    published(&one, "lobby", 1).await;
    let told = messages(&mut client, 1).await;
    wire.cut().await;
    for _ in 0..8 {
        let entry = json!({"room": "lobby", "message": "x"});
        let batch = json!({"publish": vec![entry; 500]}).to_string();
        assert_eq!(request(one.admin, "POST", "/api/batch", &[], &batch).await.status, 200);
    }
    wire.mend();
    assert_eq!(client.closed().await.0, 4503);
    other.wait_until_ready().await;
    let (mut witness, _) = subscriber(&other, "lobby", None).await;
    let receipt = published(&one, "lobby", "last").await;
    assert_eq!(receipt["offset"], 4_002);
    assert_eq!(messages(&mut witness, 1).await, [(4_002, json!("last"))]);
    let since = format!("{}:{}", receipt["epoch"].as_str().unwrap(), told[0].0);
    wait_until("the log to be read", async || other.metric("fanfare_engine_entries_behind").await == 0.0).await;
    let (mut client, subscribed) = subscriber(&other, "lobby", Some(&since)).await;
    assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(false), &json!(4_002)), "not silently");
    assert_eq!(other.metric("fanfare_engine_restarts_total").await, 1.0);
    assert_eq!(other.metric("fanfare_closes_total{reason=\"engine_lost\"}").await, 1.0);
    published(&other, "lobby", "on").await;
    assert_eq!(messages(&mut client, 1).await, [(4_003, json!("on"))]);
}

async fn each_is_published_exactly_once_however_often_the_connection_breaks<E: Engine>() {
    const BREAKS: usize = 10;
    let engine = E::start().await;
    let wire = engine.wire();
    let one = node(&wire.toml("")).await;
    let other = node(&engine.toml("")).await;
    let (mut reader, _) = subscriber(&other, "lobby", None).await;
    let (mut publisher, _) = subscriber(&one, "room", None).await;
    let is_over = Cell::new(false);
    let breaking = async {
        for n in 1..=BREAKS {
            wait_until("a connection", async || one.metric("fanfare_engine_connected").await == 1.0).await;
            wire.drop_calls().await;
            wait_until("its end", async || one.metric("fanfare_engine_failures_total").await >= n as f64).await;
        }
        is_over.set(true);
    };
    let publishing = async {
        let mut offsets = Vec::new();
        while !is_over.get() {
            for n in offsets.len()..offsets.len() + 8 {
                publisher.say(json!({"name": "publish", "room": "lobby", "message": n, "id": n})).await;
            }
            for _ in 0..8 {
                offsets.push(publisher.event("ack").await["offset"].as_u64().expect("a number"));
            }
        }
        offsets
    };
    let (offsets, ()) = tokio::join!(publishing, breaking);
    let count = offsets.len();
    assert_eq!(offsets, (1..=count as u64).collect::<Vec<_>>());
    let told = messages(&mut reader, count).await;
    assert_eq!(told, (0..count).map(|n| (n as u64 + 1, json!(n))).collect::<Vec<_>>());
    reader.expect_nothing().await;
    assert_eq!(one.metric("fanfare_engine_restarts_total").await, 0.0);
}

async fn a_node_that_has_not_read_the_log_says_so_and_lets_nobody_into_a_room<E: Engine>() {
    let mut engine = E::idle();
    let one = TestNode::dev(&engine.toml("timeout_ms = 2000"));
    request(one.admin, "GET", "/readyz", &[], "").await.expect_problem(503, "engine_unread");
    assert_eq!(one.metric("fanfare_ready").await, 0.0);
    let mut client = one.connect("/ws").await;
    client.event("welcome").await;
    let error = client.ask(json!({"name": "subscribe", "room": "lobby", "id": 1})).await;
    assert_eq!((&error["name"], &error["code"]), (&json!("error"), &json!("engine_away")));
    let mut own = one.connect("/room/lobby").await;
    assert_eq!(own.closed().await.0, 4500);
    publish(&one, "lobby", &json!(1)).await.expect_problem(503, "engine_away");
    engine.run().await;
    one.wait_until_ready().await;
    assert_eq!(client.subscribe("lobby").await["offset"], 0);
    published(&one, "lobby", 2).await;
    assert_eq!(messages(&mut client, 1).await, [(1, json!(2))]);
}

async fn what_was_posted_before_a_node_ends_is_in_the_log<E: Engine>() {
    let engine = E::start().await;
    let [one, other] = nodes(&engine).await;
    let (mut reader, _) = subscriber(&other, "lobby", None).await;
    let mut publisher = one.connect("/ws").await;
    publisher.event("welcome").await;
    for n in 0..500 {
        publisher.say(json!({"name": "publish", "room": "lobby", "message": n})).await;
    }
    publisher.expect_nothing().await;
    drop(one);
    assert_eq!(counted(&messages(&mut reader, 500).await), (1..=500).collect::<Vec<_>>());
}
