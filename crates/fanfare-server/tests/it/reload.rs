//! Reading the configuration again: what may change does so all at once, what is wrong changes nothing, and both are told.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::process::Process;
use crate::support::{Answer, Client, metric, request, wait_until};

/// `fanfare serve` with a configuration file that can be written again.
struct Gateway {
    process: Process,
    folder: TempDir,
    clients: SocketAddr,
    admin: SocketAddr,
}

const FIRST: &str = r#"
    shards = 2
    [api]
    keys = ["old"]
    [auth]
    guests = true
    [drain]
    grace_ms = 0
    window_ms = 0
    [limits]
    message_bytes_max = 2000
    handshake_ms_max = 600000
    [heartbeat]
    ping_ms = 3600000
    write_ms = 3600000
    [namespaces.default]
    filter = "mask"
    [moderation]
    words_file = "WORDS"
"#;

impl Gateway {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        fs::write(folder.path().join("words"), "damn\n").expect("a file");
        fs::write(&file, Self::write_to(&folder, FIRST)).expect("a file");
        let path = file.display().to_string();
        let arguments = ["serve", "--config", &path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let process = Process::fanfare(&arguments, variables);
        let (clients, admin) = process.addresses();
        Self { process, folder, clients, admin }
    }

    fn write_to(folder: &TempDir, toml: &str) -> String {
        toml.replace("WORDS", &folder.path().join("words").display().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration again, with these replacements in the first one.
    fn rewrite(&self, replacements: &[(&str, &str)]) {
        let mut toml = Self::write_to(&self.folder, FIRST);
        for (from, to) in replacements {
            assert!(toml.contains(from), "{from}");
            toml = toml.replace(from, to);
        }
        // At once: a signal sent before may still be on its way, and would find half of it.
        fs::write(self.path("next.toml"), toml).expect("a file");
        fs::rename(self.path("next.toml"), self.path("fanfare.toml")).expect("a file");
    }

    async fn call(&self, method: &str, path: &str, key: &str, body: &str) -> Answer {
        request(self.admin, method, path, &[("Authorization", &format!("Bearer {key}"))], body).await
    }

    async fn reload(&self, key: &str) -> Answer {
        self.call("POST", "/api/reload", key, "").await
    }

    async fn publish(&self, key: &str, text: &str) -> Answer {
        let body = json!({"room": "a", "message": text}).to_string();
        self.call("POST", "/api/publish", key, &body).await
    }

    async fn version(&self, key: &str) -> Value {
        self.call("GET", "/api/reload", key, "").await.json()
    }
}

#[tokio::test]
async fn a_reload_takes_over_keys_rights_limits_and_words_also_for_those_who_are_connected() {
    let gateway = Gateway::start(&[]);
    let mut client = Client::connect(gateway.clients, "/room/a").await;
    let mut fast = Client::connect(gateway.clients, "/room/b").await;
    client.say(json!({"name": "publish", "message": "damn"})).await;
    assert_eq!(client.event("message").await["message"], "****");
    assert_eq!(gateway.reload("old").await.json(), json!({"version": 1, "changed": [], "restart": []}));
    let before = gateway.version("old").await;

    fs::write(gateway.path("words"), "darn\n").expect("a file");
    gateway.rewrite(&[
        ("\"old\"", "\"new\""),
        ("shards = 2", "shards = 3\norigins = [\"https://app.example\"]"),
        ("message_bytes_max = 2000", "message_bytes_max = 1000\nmessages_per_second_max = 2"),
        ("filter = \"mask\"", "filter = \"mask\"\npublish = \"token\"\n[namespaces.b]\npublish = \"anyone\""),
    ]);
    let reloaded = gateway.reload("old").await.json();
    assert_eq!((&reloaded["version"], &reloaded["restart"]), (&json!(2), &json!(["shards"])), "{reloaded}");
    let changed = reloaded["changed"].as_array().expect("a list");
    for key in [
        "api.keys",
        "limits.message_bytes_max",
        "limits.messages_per_second_max",
        "moderation.words_file",
        "namespaces.default.publish",
        "origins",
    ] {
        assert!(changed.contains(&json!(key)), "{key}: {reloaded}");
    }

    gateway.publish("old", "x").await.expect_problem(401, "key_wrong");
    assert_eq!(gateway.publish("new", "damn darn").await.status, 200);
    assert_eq!(client.event("message").await["message"], "damn ****");
    client.say(json!({"name": "publish", "message": "x"})).await;
    assert_eq!(client.event("error").await["code"], "not_allowed");
    for n in 0..100 {
        // The gateway may close before all of them are sent.
        let _ = futures_util::SinkExt::send(&mut fast.socket, n.to_string().into()).await;
    }
    let closed = loop {
        if let Message::Close(Some(frame)) = fast.next().await {
            break u16::from(frame.code);
        }
    };
    assert_eq!(closed, 4429, "the bound on messages holds for who was here before");
    let headers = [("Origin", "https://app.example")];
    assert!(Client::try_connect(gateway.clients, "/room/a", &headers).await.is_ok(), "origins");
    client.send("x".repeat(1_001)).await;
    assert_eq!(client.closed().await.0, 1009);

    let after = gateway.version("new").await;
    assert_eq!((&after["version"], &after["refused"]), (&json!(2), &json!([])));
    assert_ne!(after["digest"], before["digest"]);
    let sample = format!("fanfare_config_version{{digest={}}}", after["digest"]);
    assert_eq!(metric(gateway.admin, &sample).await, 2.0);
    assert_eq!(metric(gateway.admin, "fanfare_config_reloads_total{result=\"ok\"}").await, 2.0);
}

#[tokio::test]
async fn what_is_wrong_changes_nothing_and_is_told_in_full() {
    let gateway = Gateway::start(&[]);
    gateway
        .rewrite(&[("\"old\"", "\"new\""), ("message_bytes_max = 2000", "message_bytes_max = 0\nconections_max = 5")]);
    let refused = gateway.reload("old").await;
    refused.expect_problem(422, "bad_configuration");
    let problems = refused.json()["problems"].clone();
    let has =
        |words: &str| problems.as_array().expect("a list").iter().any(|p| p.as_str().expect("text").contains(words));
    assert!(has("did you mean `connections_max`?") && has("limits.message_bytes_max"), "{problems}");
    assert!(has("fanfare.toml:"), "{problems}");
    let version = gateway.version("old").await;
    assert_eq!((&version["version"], &version["refused"]), (&json!(1), &problems));
    assert_eq!(gateway.publish("old", "still served").await.status, 200);
    assert_eq!(metric(gateway.admin, "fanfare_config_reloads_total{result=\"refused\"}").await, 1.0);

    // By signal, the same: told in the log.
    gateway.process.signal(Signal::HUP);
    gateway.process.err.wait_for(&["WARN", "the configuration is not reloaded", "conections_max"]);
    gateway.rewrite(&[("\"old\"", "\"new\"")]);
    gateway.process.signal(Signal::HUP);
    gateway.process.err.wait_for(&["configuration reloaded", "api.keys"]);
    assert_eq!(gateway.version("new").await["refused"], json!([]));
    fs::remove_file(gateway.path("fanfare.toml")).expect("a file");
    gateway.reload("new").await.expect_problem(422, "bad_configuration");
}

#[tokio::test]
async fn the_environment_wins_after_a_reload_too_and_new_namespaces_have_their_tickers() {
    let gateway = Gateway::start(&[("FANFARE_LIMITS__MESSAGE_BYTES_MAX", "3000")]);
    gateway.rewrite(&[
        ("message_bytes_max = 2000", "message_bytes_max = 1000"),
        ("[moderation]", "[namespaces.clock]\nticker_ms = 20\n[moderation]"),
    ]);
    let mut clock = Client::connect(gateway.clients, "/room/clock:a").await;
    wait_until("it to be in", async || metric(gateway.admin, "fanfare_subscriptions").await == 1.0).await;
    let reloaded = gateway.reload("old").await.json();
    assert!(!reloaded["changed"].to_string().contains("message_bytes_max"), "{reloaded}");
    assert!(clock.event("message").await["message"].is_string(), "the time");
    assert_eq!(gateway.publish("old", &"x".repeat(2_900)).await.status, 200);
    gateway.rewrite(&[]);
    gateway.reload("old").await.json();
    let published = async || metric(gateway.admin, "fanfare_published_total").await;
    let mut last = published().await;
    wait_until("the ticker to end", async || {
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        let now = published().await;
        now == std::mem::replace(&mut last, now)
    })
    .await;
}

#[tokio::test]
async fn limits_of_users_and_rooms_hold_at_once_also_for_those_who_are_here() {
    let gateway = Gateway::start(&[]);
    let mut ann = Client::connect(gateway.clients, "/ws?name=ann").await;
    let token = ann.event("welcome").await["token"].as_str().expect("a guest's token").to_owned();
    ann.subscribe("a").await;
    gateway.rewrite(&[
        ("[limits]", "[limits]\nmessages_per_second_per_user_max = 5\nconnections_per_user_max = 1"),
        ("filter = \"mask\"", "filter = \"mask\"\nsubscribers_max = 1\nmessages_per_second_max = 1"),
    ]);
    let answer = gateway.reload("old").await;
    let changed = [
        "limits.connections_per_user_max",
        "limits.messages_per_second_per_user_max",
        "namespaces.default.messages_per_second_max",
        "namespaces.default.subscribers_max",
    ];
    assert_eq!((answer.status, answer.json()), (200, json!({"version": 2, "changed": changed, "restart": []})));
    // Whole reasons, not their codes alone: this once failed, and did not say at what.
    let mut second = Client::connect(gateway.clients, &format!("/ws?token={token}")).await;
    assert_eq!(second.closed().await, (4429, "this user has 1 connections already".to_owned()));
    let mut late = Client::connect(gateway.clients, "/room/a").await;
    assert_eq!(late.closed().await, (4505, "room full, come back later".to_owned()));
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(gateway.publish("old", "x").await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert!(
        statuses[0] == 200 && statuses.contains(&429),
        "{:?}",
        answers.iter().map(Answer::text).collect::<Vec<_>>()
    );
    for _ in 0..400 {
        // The gateway may close before all of them are sent.
        let _ = futures_util::SinkExt::send(&mut ann.socket, r#"{"name":"ping"}"#.into()).await;
    }
    let closed = loop {
        if let Message::Close(Some(frame)) = ann.next().await {
            break (u16::from(frame.code), frame.reason.to_string());
        }
    };
    assert_eq!(closed, (4429, "messages of this user too fast, slow down".to_owned()));
}

/// What was built at the start and holds all connections, rooms or calls together takes other bounds all the same.
#[tokio::test]
async fn bounds_of_the_whole_node_hold_after_a_reload_too() {
    let gateway = Gateway::start(&[]);
    let send = async || gateway.call("POST", "/api/users/zoe/send", "old", r#"{"message":1}"#).await.json();
    let revoke =
        async |user: &str| gateway.call("POST", "/api/revoke", "old", &json!({"user": user}).to_string()).await;
    let keyed = async |key: &str| {
        let body = json!({"room": "a", "message": 1, "idempotency_key": key}).to_string();
        gateway.call("POST", "/api/publish", "old", &body).await.json()["repeated"] == true
    };
    let number = async |name: &str| metric(gateway.admin, name).await;
    let room = async |name: &str| gateway.call("GET", &format!("/api/rooms/{name}"), "old", "").await.status;
    let mut ann = Client::connect(gateway.clients, "/ws?name=ann").await;
    ann.event("welcome").await;
    let to_bob = json!({"name": "send", "user": "bob", "message": 1, "id": 1});
    assert_eq!(ann.ask(to_bob.clone()).await["name"], "ack");
    assert_eq!(send().await["queued"], false, "nothing is kept for who is away");
    assert_eq!((revoke("one").await.status, keyed("one").await, keyed("two").await), (200, false, false));

    let namespaces = "inbox_size = 5\n[namespaces.h]\nhistory_size = 10";
    let reloads = |rooms: &str| {
        [
            ("filter = \"mask\"", format!("filter = \"mask\"\n{namespaces}")),
            ("guests = true", "guests = true\nsend = \"nobody\"\nrevocations_max = 1".to_owned()),
            (
                "[limits]",
                format!(
                    "[rooms]\n{rooms}\n[limits]\noutbox_total_bytes_max = 5000000\nhistory_total_bytes_max = 3000000\n\
                 inbox_total_bytes_max = 2000000\ninbox_bytes_max = 100000\ninbox_ms_max = 86400000"
                ),
            ),
            ("[api]", "[api]\nidempotency_max = 1\nidempotency_ms = 200000\ncloses_max = 4".to_owned()),
            ("[moderation]", "[moderation]\nheld_max = 3".to_owned()),
        ]
    };
    let rewrite = |rooms: &str| {
        let reloads = reloads(rooms);
        gateway.rewrite(&reloads.each_ref().map(|(from, to)| (*from, to.as_str())));
    };
    rewrite("reap_ms = 3600000");
    let reloaded = gateway.reload("old").await.json();
    assert_eq!(reloaded["restart"], json!([]), "{reloaded}");
    for key in ["limits.inbox_ms_max", "auth.send", "auth.revocations_max", "api.closes_max", "rooms.reap_ms"] {
        assert!(reloaded["changed"].as_array().expect("a list").contains(&json!(key)), "{key}: {reloaded}");
    }
    assert_eq!(number("fanfare_outbox_bytes_max").await, 5e6);
    assert_eq!(number("fanfare_history_bytes_max").await, 3e6);
    assert_eq!(number("fanfare_inbox_bytes_max").await, 2e6);
    assert_eq!(ann.ask(to_bob).await["code"], "not_allowed");
    assert_eq!(send().await["queued"], true);
    revoke("two").await.expect_problem(503, "revocations_full");
    assert!(!keyed("three").await && keyed("three").await && !keyed("one").await, "one key is remembered");

    // The sweep takes its new time at once, however long it would have waited.
    assert_eq!((keyed("four").await, room("a").await), (false, 200));
    rewrite("reap_ms = 20");
    let reloaded = gateway.reload("old").await.json();
    assert_eq!(reloaded["changed"], json!(["rooms.reap_ms"]), "{reloaded}");
    wait_until("the vacant room to be swept away", async || room("a").await == 404).await;
}
