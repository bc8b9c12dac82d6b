//! What a NATS asks of who comes to it: a login, and messages that are not too long. And what a node is asked for that speaks another word of TLS.

use std::fs;

use serde_json::{Value, json};

use super::nats::Nats;
use super::{Engine as _, messages, node, published};
use crate::process::Process;
use crate::support::{Answer, Client, request, until_ready, within};

/// A node on the NATS at this URL.
fn run(url: &str) -> Process {
    Process::fanfare(
        &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[("FANFARE_ENGINE__KIND", "nats"), ("FANFARE_ENGINE__URL", url)],
    )
}

/// Waits for a line of its log.
async fn says(process: &Process, words: &'static [&'static str]) -> String {
    let said = process.err.clone();
    let line = tokio::task::spawn_blocking(move || said.wait_for(words));
    within("a line of the log", line).await.expect("a line")
}

#[tokio::test]
async fn who_is_not_let_in_says_so_and_repeats_no_secret() {
    for (arguments, right, wrong) in [
        (&["--user", "me", "--pass", "hunter2"][..], "me:hunter2@", "me:wr0ng@"),
        (&["--auth", "hunter2"], "hunter2@", "wr0ng@"),
    ] {
        let nats = Nats::with(arguments).await;
        for login in [wrong, ""] {
            let refused = run(&format!("nats://{login}{}", nats.at()));
            let (_, admin) = refused.addresses();
            says(&refused, &["is away", "authorization violation", "see engine.url"]).await;
            request(admin, "GET", "/readyz", &[], "").await.expect_problem(503, "engine_unread");
            let log = refused.err.so_far().join("\n");
            assert!(!log.contains("wr0ng") && !log.contains("hunter2"), "{log}");
        }
        let let_in = node(&nats.toml("").replace("nats://", &format!("nats://{right}"))).await;
        assert_eq!(published(&let_in, "lobby", 1).await["offset"], 1);
    }
}

#[tokio::test]
async fn one_that_speaks_no_tls_is_not_spoken_to_without() {
    let nats = Nats::start().await;
    let refused = run(&format!("tls://me:hunter2@{}", nats.at()));
    says(&refused, &["is away", "use nats://"]).await;
}

/// A file that lets a NATS take messages of so many bytes.
fn taking(folder: &tempfile::TempDir, bytes: usize) -> [std::ffi::OsString; 2] {
    let file = folder.path().join("nats.conf");
    fs::write(&file, format!("max_payload: {bytes}\n")).expect("a file");
    ["-c".into(), file.into()]
}

#[tokio::test]
async fn one_that_takes_too_little_is_told_how_much_it_has_to_take() {
    let folder = tempfile::tempdir().expect("a folder");
    let nats = Nats::with(taking(&folder, 66_559)).await;
    let refused = run(&format!("nats://{}", nats.at()));
    says(&refused, &["is away", "66559 bytes at most", "set its max_payload to 66560"]).await;
}

#[tokio::test]
async fn a_message_that_the_engine_would_not_take_is_refused_and_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let nats = Nats::with(taking(&folder, 66_560)).await;
    let file = folder.path().join("fanfare.toml");
    let write = |max: usize| {
        let toml = format!(
            "[api]\nkeys = [\"key\"]\n[auth]\nguests = true\n[limits]\nmessage_bytes_max = {max}\n\
             [engine]\nkind = \"nats\"\nurl = \"nats://{}\"\ntimeout_ms = 60000\n[namespaces.default]\nhistory_size = 100\n",
            nats.at()
        );
        fs::write(&file, toml).expect("a file");
    };
    write(65_536);
    let path = file.display().to_string();
    let process =
        Process::fanfare(&["serve", "--config", &path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &[]);
    let (clients, admin) = process.addresses();
    until_ready(admin).await;
    let call = async |path: &str, body: &str| -> Answer {
        request(admin, "POST", path, &[("Authorization", "Bearer key")], body).await
    };
    let publish =
        async |message: &str| call("/api/publish", &json!({"room": "lobby", "message": message}).to_string()).await;
    let mut reader = Client::connect(clients, "/ws").await;
    reader.event("welcome").await;
    reader.subscribe("lobby").await;
    let mut text = Client::connect(clients, "/room/lobby?format=text").await;
    // What was allowed when it started fits, with its quotes.
    let longest = "x".repeat(65_534);
    assert_eq!(publish(&longest).await.status, 200);
    assert_eq!(messages(&mut reader, 1).await, [(1, json!(longest))]);
    assert_eq!(text.text().await, longest);
    write(200_000);
    let reloaded: Value = call("/api/reload", "").await.json();
    assert_eq!(reloaded["changed"], json!(["limits.message_bytes_max"]), "{reloaded}");
    let longer = "x".repeat(65_535);
    let refused = publish(&longer).await;
    refused.expect_problem(413, "too_large");
    assert!(refused.text().contains("65536 bytes at most"), "{}", refused.text());
    let error = reader.ask(json!({"name": "publish", "room": "lobby", "message": longer, "id": 7})).await;
    assert_eq!(
        (&error["name"], &error["code"], &error["id"]),
        (&json!("error"), &json!("limit_reached"), &json!(7)),
        "{error}"
    );
    text.send("x".repeat(65_537)).await;
    assert_eq!(text.closed().await, (1009, "message over 65536 bytes".to_owned()));
    // Everybody else goes on.
    assert_eq!(publish("short").await.json()["offset"], 2);
    assert_eq!(messages(&mut reader, 1).await, [(2, json!("short"))]);
    for sample in ["failures_total", "restarts_total", "overdue_total", "posts_waiting"] {
        assert_eq!(crate::support::metric(admin, &format!("fanfare_engine_{sample}")).await, 0.0, "{sample}");
    }
}
