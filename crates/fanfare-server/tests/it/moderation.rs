//! Moderation over real sockets: on every way into a room, with each filter, and through a moderator's hands.

use std::path::PathBuf;
use std::sync::Arc;

use fanfare_guard::Moderation;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::support::{Answer, Client, TestNode, request};

const TEXT: [(&str, &str); 1] = [("Content-Type", "text/plain")];

/// Files of moderation in a folder of their own.
struct Files(TempDir);

impl Files {
    fn new(words: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write("words.txt", words);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }

    /// A node with this list, and this filter in all rooms but those of `free:`.
    fn node(&self, filter: &str, more: &str) -> TestNode {
        let words = self.path("words.txt");
        TestNode::dev(&format!(
            "[moderation]\nwords_file = {words:?}\n{more}\n[namespaces.default]\nfilter = \"{filter}\"\n[namespaces.free]\nfilter = \"off\""
        ))
    }
}

async fn publish(node: &TestNode, body: Value) -> Answer {
    request(node.admin, "POST", "/api/publish", &[], &body.to_string()).await
}

/// What a client of `/room/…` got next, as it was written.
async fn heard(client: &mut Client) -> String {
    let text = client.text().await;
    let message = text.strip_prefix(r#"{"name":"message","message":"#).and_then(|rest| rest.strip_suffix('}'));
    message.unwrap_or_else(|| panic!("not a message: {text}")).to_owned()
}

/// The number of messages with this fate so far.
async fn count(node: &TestNode, action: &str, cause: &str) -> f64 {
    node.metric(&format!("fanfare_moderation_total{{action=\"{action}\",cause=\"{cause}\"}}")).await
}

#[tokio::test]
async fn words_are_masked_on_every_way_into_a_room() {
    let node = Files::new("# a list\nbad\n坏蛋\n").node("mask", "");
    let mut reader = node.enter("lobby", "").await;
    let mut one = node.enter("lobby", "").await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    let mut text = node.enter("lobby", "?format=text").await;
    let json = r#"{ "text" : "b.\u0061.d 坏\u200b蛋!", "bad":[1.50, "ＢＡＤ \ud83d\ude00"] }"#;
    let masked = r#"{ "text" : "***** ***!", "bad":[1.50, "*** \ud83d\ude00"] }"#;

    one.send(format!(r#"{{"name":"publish","message":{json}}}"#)).await;
    assert_eq!(heard(&mut reader).await, masked);
    many.send(format!(r#"{{"name":"publish","room":"lobby","message":{json},"id":1}}"#)).await;
    assert_eq!(many.event("ack").await["delivered"], 3);
    assert_eq!(heard(&mut reader).await, masked);
    many.send(format!(r#"{{"name":"publish_no_self","room":"lobby","message":{json}}}"#)).await;
    assert_eq!(heard(&mut reader).await, masked);
    text.send("a bad 坏 蛋\\u0061").await;
    assert_eq!(heard(&mut reader).await, r#""a *** ***\\u0061""#);
    let answer =
        request(node.admin, "POST", "/api/publish", &[], &format!(r#"{{"room":"lobby","message":{json}}}"#)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(heard(&mut reader).await, masked);
    let answer = request(node.admin, "POST", "/api/publish?room=lobby", &TEXT, "plainly bad").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(heard(&mut reader).await, r#""plainly ***""#);
    let batch = format!(r#"{{"publish":[{{"room":"lobby","message":"clean"}},{{"room":"lobby","message":{json}}}]}}"#);
    assert_eq!(request(node.admin, "POST", "/api/batch", &[], &batch).await.status, 200);
    assert_eq!(heard(&mut reader).await, r#""clean""#);
    assert_eq!(heard(&mut reader).await, masked);
    assert_eq!(count(&node, "mask", "words").await, 7.0);

    // Everybody got the same, the text dialect without its quotes.
    for _ in 0..3 {
        assert_eq!(text.text().await, masked);
    }
    assert_eq!(text.text().await, "a *** ***\\u0061");
    // Binary is no text, and other namespaces have rules of their own.
    text.send(b"bad".to_vec()).await;
    assert_eq!(reader.json().await, json!({"name": "message", "message": "YmFk", "encoding": "base64"}));
    let mut free = node.enter("free:1", "").await;
    free.say(json!({"name": "publish", "message": "bad"})).await;
    assert_eq!(heard(&mut free).await, r#""bad""#);
    assert_eq!(count(&node, "mask", "words").await, 7.0);
}

#[tokio::test]
async fn refused_messages_are_told_to_their_sender_and_reach_nobody() {
    let node = Files::new("bad\n").node("reject", "");
    let mut reader = node.enter("lobby", "").await;
    let mut text = node.enter("lobby", "?format=text").await;
    let mut client = node.enter("lobby", "").await;
    let refused = client.ask(json!({"name": "publish", "message": {"text": "so bad"}, "id": "m1"})).await;
    assert_eq!(refused["name"], "error");
    assert_eq!((&refused["code"], &refused["id"]), (&json!("rejected"), &json!("m1")));
    let words = refused["message"].as_str().expect("a text for people");
    assert!(!words.contains("bad"), "the word is not told: {words}");
    assert_eq!(client.ask(json!({"name": "publish_no_self", "message": "bad"})).await["code"], "rejected");

    publish(&node, json!({"room": "lobby", "message": "bad"})).await.expect_problem(422, "rejected");
    request(node.admin, "POST", "/api/publish?room=lobby", &TEXT, "bad").await.expect_problem(422, "rejected");
    let batch = json!({"publish": [{"room": "lobby", "message": "clean"}, {"room": "lobby", "message": "bad"}]});
    request(node.admin, "POST", "/api/batch", &[], &batch.to_string()).await.expect_problem(422, "rejected");

    text.send("bad").await;
    let (code, reason) = text.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "message refused by moderation"));
    assert_eq!(node.metric("fanfare_closes_total{reason=\"rejected\"}").await, 1.0);

    client.say(json!({"name": "publish", "message": "fine"})).await;
    assert_eq!(heard(&mut reader).await, r#""fine""#, "nothing came before it");
    assert_eq!(node.metric("fanfare_published_total").await, 1.0);
    assert_eq!(count(&node, "reject", "words").await, 6.0);
}

#[tokio::test]
async fn observed_messages_are_counted_and_untouched() {
    let node = Files::new("bad\n").node("observe", "");
    let mut client = node.enter("lobby", "").await;
    client.send(r#"{"name":"publish","message":{"b\u0061d" : "b\u0061d"}}"#).await;
    assert_eq!(heard(&mut client).await, r#"{"b\u0061d" : "b\u0061d"}"#);
    client.say(json!({"name": "publish", "message": "good"})).await;
    assert_eq!(heard(&mut client).await, r#""good""#);
    assert_eq!(count(&node, "observe", "words").await, 1.0);
}

async fn held(node: &TestNode, query: &str) -> Value {
    let answer = request(node.admin, "GET", &format!("/api/held{query}"), &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn act(node: &TestNode, id: &str, verb: &str) -> Answer {
    request(node.admin, "POST", &format!("/api/held/{id}/{verb}"), &[], "").await
}

#[tokio::test]
async fn held_messages_wait_for_a_moderator() {
    let node = Files::new("Bad\n").node("hold", "held_max = 3");
    let mut reader = node.enter("lobby", "").await;
    let mut sender = node.enter("lobby", "?name=Zo%C3%AB").await;
    sender.send(r#"{"name":"publish_no_self","message":{"n":1.50,"text":"b\u0061d"},"id":7}"#).await;
    let ack = sender.json().await;
    assert_eq!(ack, json!({"name": "ack", "delivered": 0, "dropped": 0, "evicted": 0, "held": true, "id": 7}));
    let answer = publish(&node, json!({"room": "lobby", "message": "bad 2"})).await;
    assert_eq!((answer.status, answer.json()), (202, json!({"held": 2, "delivered": 0, "dropped": 0, "evicted": 0})));
    let batch = json!({"publish": [{"room": "lobby", "message": "clean"}, {"room": "lobby", "message": "bad 3"}]});
    let answer = request(node.admin, "POST", "/api/batch", &[], &batch.to_string()).await;
    let receipts = &answer.json()["receipts"];
    assert_eq!((&receipts[0]["delivered"], &receipts[1]["held"]), (&json!(2), &json!(3)), "{answer:?}");
    assert_eq!(heard(&mut reader).await, r#""clean""#, "nothing held came before it");
    sender.event("message").await;

    // Three wait; the fourth is refused, whoever sends it.
    let refused = sender.ask(json!({"name": "publish", "message": "bad 4", "id": 8})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("overloaded"), &json!(8)));
    publish(&node, json!({"room": "lobby", "message": "bad 4"})).await.expect_problem(503, "held_full");

    // As its sender wrote it, whatever that was.
    let raw = request(node.admin, "GET", "/api/held?limit=1", &[], "").await;
    assert!(raw.text().contains(r#""message":{"n":1.50,"text":"b\u0061d"},"#), "{raw:?}");
    let list = held(&node, "").await;
    assert_eq!((&list["waiting"], &list["next"]), (&json!(3), &json!(null)));
    let first = &list["held"][0];
    assert!(first["age_ms"].as_u64().is_some_and(|age| age < 60_000), "{first}");
    let expected = json!({"held": 1, "room": "lobby", "user": "Zoë", "message": {"n": 1.5, "text": "bad"}, "cause": "words", "word": "Bad", "spam": null, "age_ms": first["age_ms"]});
    assert_eq!(first, &expected);
    let page = held(&node, "?after=1&limit=1").await;
    assert_eq!((&page["held"][0]["held"], &page["next"]), (&json!(2), &json!(2)));
    assert_eq!(held(&node, "?after=2&limit=1").await["next"], json!(null));
    for (query, code) in [("?limit=0", "bad_limit"), ("?limit=1001", "bad_limit"), ("?after=x", "bad_parameter")] {
        request(node.admin, "GET", &format!("/api/held{query}"), &[], "").await.expect_problem(422, code);
    }

    // Let go, it is published as it was: byte for byte, with its user, not to its sender.
    let answer = act(&node, "1", "release").await;
    assert_eq!((answer.status, &answer.json()["delivered"]), (200, &json!(1)), "{answer:?}");
    assert_eq!(reader.text().await, r#"{"name":"message","message":{"n":1.50,"text":"b\u0061d"},"user":"Zoë"}"#);
    let answer = act(&node, "2", "discard").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"held": 2, "discarded": true})));
    for (id, verb) in [("1", "release"), ("2", "release"), ("2", "discard"), ("99", "discard"), ("x", "release")] {
        act(&node, id, verb).await.expect_problem(404, "no_held");
    }
    act(&node, "3", "eat").await.expect_problem(404, "not_found");
    let wrong = request(node.admin, "GET", "/api/held/3/release", &[], "").await;
    wrong.expect_problem(405, "method_not_allowed");
    sender.say(json!({"name": "publish", "message": "fine"})).await;
    assert_eq!(sender.event("message").await["message"], "fine", "the sender got none of them");

    assert_eq!(node.metric("fanfare_held").await, 1.0);
    for (outcome, times) in [("released", 1.0), ("discarded", 1.0), ("refused", 2.0)] {
        assert_eq!(
            node.metric(&format!("fanfare_held_ended_total{{outcome=\"{outcome}\"}}")).await,
            times,
            "{outcome}"
        );
    }
}

#[tokio::test]
async fn the_text_dialect_is_not_told_of_a_message_that_waits() {
    let node = Files::new("bad\n").node("hold", "held_max = 1");
    let mut text = node.enter("lobby", "?format=text").await;
    text.send("bad").await;
    text.send("fine").await;
    assert_eq!(text.text().await, "fine");
    assert_eq!(act(&node, "1", "release").await.status, 200);
    assert_eq!(text.text().await, "bad");
}

#[tokio::test]
async fn moderators_need_a_key() {
    let files = Files::new("bad\n");
    let words = files.path("words.txt");
    let node = TestNode::serve(&format!(
        "[api]\nkeys = [\"k\"]\n[moderation]\nwords_file = {words:?}\n[namespaces.default]\nfilter = \"hold\""
    ));
    let mut client = node.enter("lobby", "").await;
    client.ask(json!({"name": "publish", "message": "bad", "id": 1})).await;
    request(node.admin, "GET", "/api/held", &[], "").await.expect_problem(401, "key_missing");
    act(&node, "1", "release").await.expect_problem(401, "key_missing");
    let answer = request(node.admin, "POST", "/api/held/1/release", &[("Authorization", "Bearer k")], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(heard(&mut client).await, r#""bad""#);
}

#[tokio::test]
async fn a_list_that_is_put_in_its_place_holds_from_the_next_message_on() {
    let node = Files::new("bad\n").node("mask", "");
    let mut client = node.enter("lobby", "").await;
    let info = |words: &str, count: &str| {
        format!("fanfare_moderation_info{{words_version=\"{words}\",model_version=\"\",words=\"{count}\"}}")
    };
    assert_eq!(node.metric(&info("1d7a363ce124", "1")).await, 1.0);
    client.say(json!({"name": "publish", "message": "bad evil"})).await;
    assert_eq!(heard(&mut client).await, r#""*** evil""#);
    let other = Moderation::default().with_words(b"evil\nugly\n").expect("a good list");
    let version = other.words_version().to_owned();
    node.hub.settings().moderation.store(Arc::new(other));
    client.say(json!({"name": "publish", "message": "bad evil"})).await;
    assert_eq!(heard(&mut client).await, r#""bad ****""#);
    assert_eq!(node.metric(&info(&version, "2")).await, 1.0);
}

/// Tutorial 7: sensitive words are replaced, and what a model trained from a labelled file takes for spam does not get in.
#[tokio::test]
async fn t7_words_are_masked_and_spam_is_refused() {
    let files = Files::new("坏蛋\n");
    let labelled: String = (0..100)
        .map(|n| {
            format!(
                "spam\t加微信{n}领取免费红包 click here for free money\nham\t今天第{n}次一起吃饭 see you at lunch\n"
            )
        })
        .collect();
    let (labelled, model) = (files.write("labelled.tsv", &labelled), files.path("model"));
    let (labelled, model) = (labelled.to_str().expect("a path"), model.to_str().expect("a path"));
    let mut train = Process::fanfare(&["train", labelled, "--output", model], &[]);
    assert!(train.ended().success(), "{:?}", train.err.all());
    let said = train.out.all();
    assert!(said[0].starts_with("learnt from "), "{said:?}");
    assert!(said[1].contains("accuracy 100.0 %, precision 100.0 %, recall 100.0 % at threshold 0.9"), "{said:?}");

    let node = files.node("mask", &format!("model_file = {model:?}"));
    let mut zoe = node.enter("lobby", "?name=Zo%C3%AB").await;
    zoe.say(json!({"name": "publish", "message": {"text": "你这个坏 蛋"}})).await;
    assert_eq!(zoe.event("message").await["message"], json!({"text": "你这个***"}));
    let refused = zoe.ask(json!({"name": "publish", "message": {"text": "免费领取红包，加微信"}, "id": 1})).await;
    assert_eq!(refused["code"], "rejected", "{refused}");
    zoe.say(json!({"name": "publish", "message": {"text": "一起吃饭吗？"}})).await;
    assert_eq!(zoe.event("message").await["message"]["text"], "一起吃饭吗？");
    assert_eq!(count(&node, "mask", "words").await, 1.0);
    assert_eq!(count(&node, "reject", "model").await, 1.0);
}

#[test]
fn check_names_the_lines_of_a_list_that_are_wrong() {
    let files = Files::new("fine\n---\n");
    let config = format!("[moderation]\nwords_file = {:?}\n", files.path("words.txt"));
    let config = files.write("fanfare.toml", &config);
    let mut check = Process::fanfare(&["check", config.to_str().expect("a path")], &[]);
    assert!(!check.ended().success());
    let said = check.err.all().join("\n");
    assert!(said.contains("words.txt:2: a word needs a letter, a digit or an emoji"), "{said}");
}
