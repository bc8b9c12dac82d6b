//! The engine over TLS: a real Redis with a certificate, and whom a node takes for it.

use std::path::Path;

use serde_json::json;

use super::redis::Redis;
use super::{messages, node, published, subscriber};
use crate::authority::Authority;
use crate::process::Process;
use crate::support::{metric, within};

fn toml(port: u16, authorities: &Path) -> String {
    format!(
        "[engine]\nkind = \"redis\"\nurl = \"rediss://localhost:{port}\"\nca_file = {authorities:?}\n\
         [namespaces.default]\nhistory_size = 100\n"
    )
}

#[tokio::test]
async fn nodes_share_a_log_over_tls() {
    let authority = Authority::new();
    authority.write("redis", &["localhost"]);
    let (_redis, port) = Redis::with_tls(&authority, "redis").await;
    let toml = toml(port, &authority.file());
    let (one, two) = (node(&toml).await, node(&toml).await);
    let (mut there, _) = subscriber(&two, "a", None).await;
    // Longer than a record, and many.
    let long = "x".repeat(40_000);
    for number in 1..=20 {
        published(&one, "a", json!([number, long])).await;
    }
    let heard = messages(&mut there, 20).await;
    assert!(heard.iter().enumerate().all(|(index, (offset, message))| {
        *offset == index as u64 + 1 && message[0] == *offset && message[1] == long.as_str()
    }));
    assert_eq!(one.metric("fanfare_engine_connected").await, 1.0);
}

#[tokio::test]
async fn an_engine_that_nobody_vouches_for_is_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write("redis", &["localhost"]);
    authority.write("elsewhere", &["elsewhere.example"]);
    let (redis, port) = Redis::with_tls(&authority, "redis").await;
    let (elsewhere, elsewhere_port) = Redis::with_tls(&authority, "elsewhere").await;
    let [ours, theirs] = [&authority, &other].map(|authority| authority.file().display().to_string());
    let named = |file: &str| ("FANFARE_ENGINE__CA_FILE", file.to_owned());
    for (what, port, authorities, expected) in [
        ("another authority", port, named(&theirs), &["is away", "in engine.ca_file"][..]),
        // The system trusts the other one.
        ("one the system does not know", port, ("SSL_CERT_FILE", theirs.clone()), &["is away", "in engine.ca_file"]),
        ("another name", elsewhere_port, named(&ours), &["is away", "elsewhere.example"]),
    ] {
        let url = format!("rediss://localhost:{port}");
        let process = Process::fanfare(
            &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            &[("FANFARE_ENGINE__KIND", "redis"), ("FANFARE_ENGINE__URL", &url), (authorities.0, &authorities.1)],
        );
        let said = process.err.clone();
        let line = tokio::task::spawn_blocking(move || said.wait_for(expected));
        let line = within(what, line).await.expect("a line that says why");
        let (_, admin) = process.addresses();
        assert_eq!(metric(admin, "fanfare_engine_connected").await, 0.0, "{what}: {line}");
    }
    // Nobody came as far as a command.
    for redis in [&redis, &elsewhere] {
        assert_eq!(redis.ask("EXISTS {fanfare}:state").await, ":0\r\n");
    }
    // With the system's trust it is followed.
    let url = format!("rediss://localhost:{port}");
    let process = Process::fanfare(
        &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[("FANFARE_ENGINE__KIND", "redis"), ("FANFARE_ENGINE__URL", &url), ("SSL_CERT_FILE", &ours)],
    );
    let said = process.err.clone();
    let line = tokio::task::spawn_blocking(move || said.wait_for(&["is followed from entry"]));
    within("the engine to be followed", line).await.expect("a line");
}
