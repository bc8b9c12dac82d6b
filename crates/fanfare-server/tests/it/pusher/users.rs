//! Users of an application: who signs in, what is said to one, and the end of all his connections.

use serde_json::{Value, json};

use super::support::{APPS, Pusher, call, hex, key, publish};
use crate::support::TestNode;

fn user(id: &str) -> String {
    json!({"id": id, "user_info": {"name": id.to_uppercase()}}).to_string()
}

impl Pusher {
    /// The application's word that this client is a user.
    fn word(&self, user_data: &str) -> String {
        format!("k7:{}", hex(&key().sign(&[format!("{}::user::{user_data}", self.socket_id).as_bytes()])))
    }

    async fn try_sign_in(&mut self, auth: &str, user_data: &str) {
        self.say(json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})).await;
    }

    async fn sign_in(&mut self, id: &str) {
        let user_data = user(id);
        self.try_sign_in(&self.word(&user_data), &user_data).await;
        assert_eq!(self.next().await, json!({"event": "pusher:signin_success", "data": {"user_data": user_data}}));
    }
}

fn channel(id: &str) -> String {
    format!("#server-to-user-{id}")
}

async fn terminate(node: &TestNode, id: &str) -> Value {
    let answer = call(node, "POST", &format!("/apps/1001/users/{id}/terminate_connections"), &[], "{}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_client_signs_in_with_the_applications_word_and_with_no_other() {
    let node = TestNode::serve(APPS);
    let (mut client, other) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    let ada = user("ada");
    let right = client.word(&ada);
    for (auth, data) in [
        (String::new(), ada.clone()),
        (right[..right.len() - 1].to_owned(), ada.clone()),
        (right.clone(), user("bea")),
        (other.word(&ada), ada.clone()),
        (client.auth("private-a", None), ada.clone()),
        (right.replace("k7:", "k8:"), ada.clone()),
    ] {
        client.try_sign_in(&auth, &data).await;
        assert_eq!(client.error("").await, Value::Null, "{auth}");
        assert_eq!(client.refused(json!({"channel": channel("ada")}), "sign in").await, "AuthError");
    }
    for bad in ["{}", "7", r#"{"id":7}"#, r#"{"id":""}"#] {
        client.try_sign_in(&client.word(bad), bad).await;
        client.error("user_data").await;
    }
    client.sign_in("ada").await;
    client.sign_in("ada").await;
    let bea = user("bea");
    client.try_sign_in(&client.word(&bea), &bea).await;
    client.error("somebody else").await;
    assert_eq!(client.refused(json!({"channel": channel("bea")}), "sign in").await, "AuthError");
    client.subscribe(&channel("ada")).await;
}

#[tokio::test]
async fn what_is_said_to_a_user_reaches_all_his_connections_and_nobody_else() {
    let node = TestNode::serve(APPS);
    for id in ["ada", "a/b c#ü%20"] {
        let mut clients = [Pusher::connect(&node).await, Pusher::connect(&node).await];
        let mut other = Pusher::connect(&node).await;
        other.sign_in("other").await;
        other.subscribe(&channel("other")).await;
        for client in &mut clients {
            client.sign_in(id).await;
            client.subscribe(&channel(id)).await;
        }
        publish(&node, json!({"name": "hello", "channel": channel(id), "data": "{\"n\":1}"})).await;
        for client in &mut clients {
            assert_eq!(client.next().await, json!({"event": "hello", "channel": channel(id), "data": "{\"n\":1}"}));
        }
        other.expect_nothing().await;
        let [leaver, stayer] = &mut clients;
        leaver.unsubscribe(&channel(id)).await;
        leaver.expect_nothing().await;
        publish(&node, json!({"name": "again", "channels": [channel(id), "kitchen"], "data": ""})).await;
        assert_eq!(stayer.next().await["event"], "again");
        leaver.expect_nothing().await;
        // Nobody says something there but the backend.
        stayer.say(json!({"event": "client-x", "channel": channel(id), "data": 1})).await;
        stayer.error("").await;
        // What is one user's is no channel that is told of.
        let channels = call(&node, "GET", "/apps/1001/channels", &[], "").await.json();
        assert_eq!(channels, json!({"channels": {}}));
    }
    for bad in ["#server-to-user-", "#server-to-user-a\n", &channel(&"x".repeat(300))] {
        let body = json!({"name": "e", "channel": bad, "data": ""}).to_string();
        let answer = call(&node, "POST", "/apps/1001/events", &[], &body).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    // In other dialects it takes a token, whatever the namespace allows.
    let mut json_client = node.connect("/ws").await;
    json_client.event("welcome").await;
    let refused = json_client.ask(json!({"name": "subscribe", "room": "shop:~ada"})).await;
    assert_eq!(refused["code"], "not_allowed");
}

#[tokio::test]
async fn who_has_signed_in_is_a_member_without_more_words() {
    let node = TestNode::serve(APPS);
    let mut client = Pusher::connect(&node).await;
    let channel = "presence-kitchen";
    let data = json!({"channel": channel, "auth": client.auth(channel, None)});
    assert_eq!(client.refused(data.clone(), "nobody has signed in").await, "AuthError");
    client.sign_in("ada").await;
    client.say(json!({"event": "pusher:subscribe", "data": data})).await;
    let succeeded = client.next().await;
    assert_eq!(succeeded["event"], "pusher_internal:subscription_succeeded", "{succeeded}");
    let told = succeeded["data"].as_str().expect("a string");
    assert_eq!(told, r#"{"presence":{"count":1,"ids":["ada"],"hash":{"ada":{"name":"ADA"}}}}"#);
}

#[tokio::test]
async fn all_connections_of_a_user_are_ended_and_no_others() {
    let node = TestNode::serve(APPS);
    let (mut first, mut second) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    let (mut other, mut named) = (Pusher::connect(&node).await, Pusher::connect(&node).await);
    first.sign_in("ada").await;
    second.sign_in("ada").await;
    other.sign_in("bea").await;
    // Being called so in a channel is not to have signed in.
    let data = json!({"user_id": "ada"}).to_string();
    let auth = named.auth("presence-a", Some(&data));
    let data = json!({"channel": "presence-a", "auth": auth, "channel_data": data});
    named.say(json!({"event": "pusher:subscribe", "data": data})).await;
    assert_eq!(named.next().await["event"], "pusher_internal:subscription_succeeded");
    assert_eq!(terminate(&node, "nobody").await, json!({}));
    assert_eq!(terminate(&node, "ada").await, json!({}));
    for client in [&mut first, &mut second] {
        assert_eq!(client.client.closed().await.0, 4009);
    }
    other.expect_nothing().await;
    named.expect_nothing().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"kicked\"}", 2.0).await;
    // Who comes back is a user like before.
    let mut again = Pusher::connect(&node).await;
    again.sign_in("ada").await;
    assert_eq!(terminate(&node, "ada").await, json!({}));
    assert_eq!(again.client.closed().await.0, 4009);
    let unsigned =
        crate::support::request(node.clients, "POST", "/apps/1001/users/bea/terminate_connections", &[], "{}");
    assert_eq!(unsigned.await.status, 401);
    other.expect_nothing().await;
}
