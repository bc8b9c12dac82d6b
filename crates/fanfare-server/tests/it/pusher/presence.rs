//! Presence channels: who is there, told once and truly.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::{APPS, Pusher, call, publish};
use crate::support::{TestNode, wait_until};

const CHANNEL: &str = "presence-kitchen";

fn data(user: &str) -> String {
    json!({"user_id": user, "user_info": {"name": user.to_uppercase()}}).to_string()
}

impl Pusher {
    /// Subscribes as a user; the members that it is told, by id.
    async fn enter(&mut self, user: &str) -> BTreeMap<String, Value> {
        let channel_data = data(user);
        let auth = self.auth(CHANNEL, Some(&channel_data));
        let data = json!({"channel": CHANNEL, "auth": auth, "channel_data": channel_data});
        self.say(json!({"event": "pusher:subscribe", "data": data})).await;
        let succeeded = self.next().await;
        assert_eq!(succeeded["event"], "pusher_internal:subscription_succeeded", "{succeeded}");
        let told: Value = serde_json::from_str(succeeded["data"].as_str().expect("a string")).expect("that holds JSON");
        let members: BTreeMap<String, Value> = serde_json::from_value(told["presence"]["hash"].clone()).expect("a map");
        assert_eq!(told["presence"]["count"], members.len());
        let ids: Vec<String> = serde_json::from_value(told["presence"]["ids"].clone()).expect("a list");
        assert!(ids.iter().eq(members.keys()), "{told}");
        members
    }

    /// The next event, which must tell of a member; whether it came, and who it is.
    async fn member(&mut self) -> (bool, String) {
        let event = self.next().await;
        assert_eq!(event["channel"], CHANNEL, "{event}");
        let data: Value = serde_json::from_str(event["data"].as_str().expect("a string")).expect("that holds JSON");
        let user = data["user_id"].as_str().expect("an id").to_owned();
        match event["event"].as_str() {
            Some("pusher_internal:member_added") => {
                assert_eq!(data["user_info"], json!({"name": user.to_uppercase()}));
                (true, user)
            }
            Some("pusher_internal:member_removed") => (false, user),
            _ => panic!("{event}"),
        }
    }
}

fn came(user: &str) -> (bool, String) {
    (true, user.to_owned())
}

fn went(user: &str) -> (bool, String) {
    (false, user.to_owned())
}

async fn users(node: &TestNode) -> Vec<String> {
    let answer = call(node, "GET", &format!("/apps/1001/channels/{CHANNEL}/users"), &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["users"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|user| user["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn a_user_is_one_member_from_the_first_connection_to_the_last() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea, mut again) =
        (Pusher::connect(&node).await, Pusher::connect(&node).await, Pusher::connect(&node).await);
    assert_eq!(ada.enter("ada").await, BTreeMap::from([("ada".to_owned(), json!({"name": "ADA"}))]));
    assert_eq!(bea.enter("bea").await.len(), 2, "who comes is in its own list");
    assert_eq!(ada.member().await, came("bea"));
    assert_eq!(again.enter("bea").await.len(), 2);
    assert_eq!(users(&node).await, ["ada", "bea"]);
    bea.unsubscribe(CHANNEL).await;
    bea.expect_nothing().await;
    ada.expect_nothing().await;
    // The last one ends without a word.
    drop(again);
    assert_eq!(ada.member().await, went("bea"));
    assert_eq!(users(&node).await, ["ada"]);
    assert_eq!(bea.enter("bea").await.len(), 2);
    assert_eq!(ada.member().await, came("bea"));
    let asked =
        call(&node, "GET", &format!("/apps/1001/channels/{CHANNEL}"), &[("info", "user_count,subscription_count")], "")
            .await;
    assert_eq!(asked.json(), json!({"occupied": true, "user_count": 2, "subscription_count": 2}));
    let listed =
        call(&node, "GET", "/apps/1001/channels", &[("filter_by_prefix", "presence-"), ("info", "user_count")], "")
            .await;
    assert_eq!(listed.json(), json!({"channels": {CHANNEL: {"user_count": 2}}}));
}

#[tokio::test]
async fn what_a_member_says_names_the_member() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    ada.enter("ada").await;
    bea.enter("bea").await;
    assert_eq!(ada.member().await, came("bea"));
    bea.say(json!({"event": "client-wave", "channel": CHANNEL, "data": {"to": "ada"}, "user_id": "eve"})).await;
    let told = json!({"event": "client-wave", "channel": CHANNEL, "data": {"to": "ada"}, "user_id": "bea"});
    assert_eq!(ada.next().await, told);
    publish(&node, json!({"name": "e", "channel": CHANNEL, "data": "1"})).await;
    assert_eq!(bea.next().await, json!({"event": "e", "channel": CHANNEL, "data": "1"}));
}

#[tokio::test]
async fn who_is_not_signed_for_is_no_member() {
    let node = TestNode::serve(APPS);
    let (mut ada, mut bea) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    ada.enter("ada").await;
    let other = bea.auth(CHANNEL, Some(&data("eve")));
    for (data, naming) in [
        (json!({"channel": CHANNEL, "channel_data": data("bea")}), "signature"),
        (json!({"channel": CHANNEL, "auth": other, "channel_data": data("bea")}), "signature"),
        (json!({"channel": CHANNEL, "auth": other}), "signature"),
        (json!({"channel": CHANNEL, "auth": bea.auth(CHANNEL, None)}), "channel_data"),
        (
            json!({"channel": CHANNEL, "auth": bea.auth(CHANNEL, Some("{}")), "channel_data": "{}"}),
            "user_id is missing",
        ),
        (json!({"channel": CHANNEL, "auth": bea.auth(CHANNEL, Some("x")), "channel_data": "x"}), "channel_data"),
    ] {
        assert_eq!(bea.refused(data.clone(), naming).await, "AuthError", "{data}");
    }
    assert_eq!(users(&node).await, ["ada"]);
    ada.expect_nothing().await;
}

#[tokio::test]
async fn a_full_channel_lets_in_further_connections_of_those_who_are_there() {
    let app = "[[pusher.apps]]\nid = '1001'\nkey = 'k7'\nsecret = 'k7-secret'\npresence_members_max = 1";
    let node = TestNode::serve(app);
    let (mut ada, mut again, mut bea) =
        (Pusher::connect(&node).await, Pusher::connect(&node).await, Pusher::connect(&node).await);
    ada.enter("ada").await;
    let full = json!({"channel": CHANNEL, "auth": bea.auth(CHANNEL, Some(&data("bea"))), "channel_data": data("bea")});
    assert_eq!(bea.refused(full, "members").await, "LimitReached");
    assert_eq!(again.enter("ada").await.len(), 1);
    ada.expect_nothing().await;
}

/// Forty come at once over two shards, some of them go again: whoever stays ends with the same list, and it is the true one.
#[tokio::test]
async fn simultaneous_joins_and_leaves_end_in_one_list() {
    const COMERS: usize = 40;
    let node = TestNode::serve(APPS);
    let mut clients = Vec::new();
    for n in 0..COMERS {
        clients.push((format!("u{n:02}"), Pusher::connect(&node).await));
    }
    let entering = clients.into_iter().map(|(user, mut client)| async move {
        let mut members: Vec<String> = client.enter(&user).await.into_keys().collect();
        if user.ends_with('7') {
            client.unsubscribe(CHANNEL).await;
        }
        members.sort();
        (user, client, members)
    });
    let entered = futures_util::future::join_all(entering).await;
    let staying: Vec<String> = (0..COMERS).map(|n| format!("u{n:02}")).filter(|user| !user.ends_with('7')).collect();
    wait_until("those who go to be gone", async || users(&node).await == staying).await;
    // A mark behind everything that was told so far.
    publish(&node, json!({"name": "mark", "channel": CHANNEL, "data": "."})).await;
    for (user, mut client, members) in entered {
        if user.ends_with('7') {
            continue;
        }
        let mut known: std::collections::BTreeSet<String> = members.into_iter().collect();
        loop {
            let event = client.next().await;
            if event["event"] == "mark" {
                break;
            }
            let data: Value = serde_json::from_str(event["data"].as_str().expect("a string")).expect("JSON");
            let who = data["user_id"].as_str().expect("an id").to_owned();
            match event["event"].as_str() {
                Some("pusher_internal:member_added") => assert!(known.insert(who), "{user}: twice {event}"),
                Some("pusher_internal:member_removed") => assert!(known.remove(&who), "{user}: never there {event}"),
                _ => panic!("{event}"),
            }
        }
        assert!(known.iter().eq(&staying), "{user} knows {known:?}");
    }
}
