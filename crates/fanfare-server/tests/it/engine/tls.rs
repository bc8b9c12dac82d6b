//! The engine over TLS: a real Redis or NATS with a certificate, and whom a node takes for it.

use std::path::Path;

use serde_json::json;

use super::nats::Nats;
use super::redis::Redis;
use super::{messages, node, published, subscriber};
use crate::authority::Authority;
use crate::process::Process;
use crate::support::{metric, request, within};

/// What keeps a log and speaks TLS.
trait Secured: Sized {
    const KIND: &str;

    /// One with the pair of this name, and its URL.
    async fn with_tls(authority: &Authority, name: &str) -> (Self, String);

    /// Nobody has come as far as a command.
    async fn is_as_new(&self) -> bool;
}

impl Secured for Redis {
    const KIND: &str = "redis";

    async fn with_tls(authority: &Authority, name: &str) -> (Self, String) {
        let (redis, port) = Self::with_tls(authority, name).await;
        (redis, format!("rediss://localhost:{port}"))
    }

    async fn is_as_new(&self) -> bool {
        self.ask("EXISTS {fanfare}:state").await == ":0\r\n"
    }
}

impl Secured for Nats {
    const KIND: &str = "nats";

    async fn with_tls(authority: &Authority, name: &str) -> (Self, String) {
        let [certificate, key] = ["pem", "key"].map(|kind| authority.path(&format!("{name}.{kind}")).into_os_string());
        let nats = Self::with(["--tls".into(), "--tlscert".into(), certificate, "--tlskey".into(), key]).await;
        let url = format!("tls://{}", nats.at());
        (nats, url)
    }

    async fn is_as_new(&self) -> bool {
        let monitor = self.monitor.expect("it runs");
        request(monitor, "GET", "/jsz", &[], "").await.json()["streams"] == 0
    }
}

/// Both names by which the servers are called.
const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

fn toml<S: Secured>(url: &str, authorities: &Path) -> String {
    format!(
        "[engine]\nkind = \"{}\"\nurl = \"{url}\"\ntimeout_ms = 60000\nca_file = {authorities:?}\n\
         [namespaces.default]\nhistory_size = 100\n",
        S::KIND
    )
}

for_each_kind! {
    nodes_share_a_log_over_tls,
    an_engine_that_nobody_vouches_for_is_told_nothing,
}

async fn nodes_share_a_log_over_tls<S: Secured>() {
    let authority = Authority::new();
    authority.write("here", &HERE);
    let (_engine, url) = S::with_tls(&authority, "here").await;
    let toml = toml::<S>(&url, &authority.file());
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

async fn an_engine_that_nobody_vouches_for_is_told_nothing<S: Secured>() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write("here", &HERE);
    authority.write("elsewhere", &["elsewhere.example"]);
    let (engine, url) = S::with_tls(&authority, "here").await;
    let (elsewhere, elsewhere_url) = S::with_tls(&authority, "elsewhere").await;
    let [ours, theirs] = [&authority, &other].map(|authority| authority.file().display().to_string());
    let named = |file: &str| ("FANFARE_ENGINE__CA_FILE", file.to_owned());
    let run = |url: &str, authorities: &(&str, String)| {
        Process::fanfare(
            &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            &[("FANFARE_ENGINE__KIND", S::KIND), ("FANFARE_ENGINE__URL", url), (authorities.0, &authorities.1)],
        )
    };
    for (what, url, authorities, expected) in [
        ("another authority", &url, named(&theirs), &["is away", "in engine.ca_file"][..]),
        // The system trusts the other one.
        ("one the system does not know", &url, ("SSL_CERT_FILE", theirs.clone()), &["is away", "in engine.ca_file"]),
        ("another name", &elsewhere_url, named(&ours), &["is away", "elsewhere.example"]),
    ] {
        let process = run(url, &authorities);
        let said = process.err.clone();
        let line = tokio::task::spawn_blocking(move || said.wait_for(expected));
        let line = within(what, line).await.expect("a line that says why");
        let (_, admin) = process.addresses();
        assert_eq!(metric(admin, "fanfare_engine_connected").await, 0.0, "{what}: {line}");
    }
    for engine in [&engine, &elsewhere] {
        assert!(engine.is_as_new().await, "nobody came as far as a command");
    }
    // With the system's trust it is followed.
    let process = run(&url, &("SSL_CERT_FILE", ours));
    let said = process.err.clone();
    let line = tokio::task::spawn_blocking(move || said.wait_for(&["is followed from entry"]));
    within("the engine to be followed", line).await.expect("a line");
    assert!(!engine.is_as_new().await, "a node leaves something behind");
}
