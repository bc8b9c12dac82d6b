//! Readiness proves delivery: a shard that does not deliver, or lets nobody in, is named, by the node itself, and nobody else sees how.

use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::process::Process;
use crate::support::{Answer, Raw, TestNode, metric, request, until_ready, wait_until, within};

/// A fault that lasts until it is ended.
const LONG: Duration = Duration::from_secs(3_600);

async fn ready(node: &TestNode) -> Answer {
    request(node.admin, "GET", "/readyz", &[], "").await
}

/// How often a shard's canary has come in by the listener and been answered.
async fn visits(node: &TestNode, shard: usize) -> f64 {
    node.metric(&format!("fanfare_canary_visit_seconds_count{{shard=\"{shard}\"}}")).await
}

async fn each_shard_is_visited(node: &TestNode) {
    wait_until("both shards to be visited", async || visits(node, 0).await >= 1.0 && visits(node, 1).await >= 1.0)
        .await;
}

/// Nothing that canaries do is counted as what clients do.
async fn expect_nobody(node: &TestNode) {
    for sample in [
        "connections",
        "rooms",
        "subscriptions",
        "delivered_total",
        "published_total",
        "shed_total",
        "handshakes_total{result=\"accepted\"}",
        "tls_handshakes_total{result=\"accepted\"}",
        "via_proxy_total{result=\"missing\"}",
        "publish_to_write_seconds_count",
    ] {
        assert_eq!(node.metric(&format!("fanfare_{sample}")).await, 0.0, "{sample}");
    }
    for (list, path) in [("rooms", "/api/rooms"), ("connections", "/api/connections"), ("closes", "/api/closes")] {
        let answer = request(node.admin, "GET", path, &[], "").await.json();
        assert_eq!(answer[list].as_array().map(Vec::len), Some(0), "{answer}");
    }
}

#[tokio::test]
async fn a_shard_that_is_held_up_is_named_and_is_ready_again_after() {
    let node = TestNode::dev("");
    let count = async |shard: usize| node.metric(&format!("fanfare_canary_seconds_count{{shard=\"{shard}\"}}")).await;
    wait_until("both shards to have delivered", async || count(0).await >= 1.0 && count(1).await >= 1.0).await;
    each_shard_is_visited(&node).await;
    node.wait_until_ready().await;
    expect_nobody(&node).await;

    let wedge = node.hub.wedge(1, LONG);
    // Two seconds and a half later on a machine that keeps time; the sum is tried where it is made.
    let seen = async || ready(&node).await.text().contains("shard 1 has not delivered");
    wait_until("it to be seen", seen).await;
    let late = ready(&node).await;
    late.expect_problem(503, "shard_late");
    assert_eq!(node.metric("fanfare_ready").await, 0.0, "the metric and the page say the same");
    assert_eq!(request(node.admin, "GET", "/livez", &[], "").await.status, 200, "it must not be restarted");
    drop(wedge);
    node.wait_until_ready().await;
    node.wait_for_metric("fanfare_ready", 1.0).await;
}

/// A shard whose loop turns, whose connections are served, and which accepts nobody.
#[tokio::test]
async fn a_shard_that_accepts_nobody_is_named() {
    let node = TestNode::dev("shards = 3");
    for shard in 0..3 {
        wait_until("it to be visited", async || visits(&node, shard).await >= 1.0).await;
    }
    node.hub.deafen(2, LONG);
    let seen = async || ready(&node).await.text().contains("shard 2 has let nobody in");
    wait_until("it to be seen", seen).await;
    ready(&node).await.expect_problem(503, "shard_late");
    assert_eq!(request(node.admin, "GET", "/livez", &[], "").await.status, 200);
    let before = visits(&node, 1).await;
    wait_until("another to be visited all the same", async || visits(&node, 1).await > before).await;
    ready(&node).await.expect_problem(503, "shard_late");
    node.hub.deafen(2, Duration::ZERO);
    node.wait_until_ready().await;
    expect_nobody(&node).await;
}

/// Canaries come in where others do not, and take nobody's place.
#[tokio::test]
async fn a_full_node_is_as_ready_as_an_empty_one() {
    let node = TestNode::dev("[limits]\nconnections_max = 2\nconnections_per_ip_max = 2");
    let _clients = [node.upgrade("/echo").await, node.upgrade("/echo").await];
    let refused = request(node.clients, "GET", "/echo", &[], "").await.status;
    assert!([429, 503].contains(&refused), "{refused}");
    let before = [visits(&node, 0).await, visits(&node, 1).await];
    for (shard, before) in before.into_iter().enumerate() {
        wait_until("it to be visited", async || visits(&node, shard).await >= before + 2.0).await;
    }
    node.wait_until_ready().await;
    assert_eq!(node.metric("fanfare_connections").await, 2.0);
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"accepted\"}").await, 2.0);
    assert_eq!(node.metric("fanfare_shed_total").await, 1.0);
}

/// Only proxies may connect, and whoever comes says for whom; a token is needed, and other pages are not let in.
#[tokio::test]
async fn canaries_come_in_where_only_proxies_may() {
    let node = TestNode::serve(
        "[api]\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n\
         [namespaces.default]\nsubscribe = \"nobody\"\npublish = \"nobody\"\n\
         [proxy]\nprotocol = \"required\"\ntrusted = [\"192.0.2.0/24\"]",
    );
    assert_eq!(request(node.clients, "GET", "/", &[], "").await.status, 403);
    each_shard_is_visited(&node).await;
    node.wait_until_ready().await;
}

/// Shards that share one socket: whoever is free accepts.
#[tokio::test]
async fn canaries_come_in_by_a_unix_socket_and_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = format!("unix:{}", folder.path().join("clients").display());
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&certificate, cert.pem()).expect("a file");
    std::fs::write(&key, signing_key.serialize_pem()).expect("a file");
    let tls = [("FANFARE_TLS__CERTIFICATE", certificate.as_str()), ("FANFARE_TLS__KEY", key.as_str())];
    for (listen, more) in [(listen.as_str(), &[][..]), ("[::]:0", &[]), ("127.0.0.1:0", &tls), ("[::1]:0", &tls)] {
        let arguments = ["serve", "--listen", listen, "--admin", "127.0.0.1:0", "--shards", "2"];
        let variables = [&[("FANFARE_READINESS__CANARY_MS", "200")], more].concat();
        let node = Process::fanfare(&arguments, &variables);
        let said = node.err.wait_for(&["API on"]);
        let admin = said.rsplit(' ').next().and_then(|admin| admin.parse().ok()).expect("an address");
        let visits = async || {
            let [a, b] = [0, 1].map(|shard| format!("fanfare_canary_visit_seconds_count{{shard=\"{shard}\"}}"));
            (metric(admin, &a).await, metric(admin, &b).await)
        };
        let is_shared = listen.starts_with("unix:");
        let is_enough = |(a, b): (f64, f64)| if is_shared { a + b >= 4.0 } else { a >= 4.0 && b >= 4.0 };
        wait_until("canaries to come in", async || is_enough(visits().await)).await;
        until_ready(admin).await;
        assert_eq!(metric(admin, "fanfare_tls_handshakes_total{result=\"accepted\"}").await, 0.0);
        assert!(!node.err.so_far().iter().any(|line| line.contains("cannot connect")), "{:?}", node.err.so_far());
    }
}

/// Who may not connect to its own listener cannot tell whether others can: it is no less ready than it was.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_node_that_cannot_reach_its_listener_says_so_and_is_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clients");
    // As when a service manager has opened it where the service cannot see it.
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::fs::remove_file(&path).expect("a file");
    let arguments = ["serve", "--admin", "127.0.0.1:0", "--shards", "2"];
    let variables = [("FANFARE_READINESS__CANARY_MS", "200")];
    let node = Process::activated("fanfare.socket", listener.into(), &arguments, &variables);
    node.err.wait_for(&["this process cannot connect to unix:", "readiness does not prove"]);
    let said = node.err.wait_for(&["API on"]);
    let admin = said.rsplit(' ').next().and_then(|admin| admin.parse().ok()).expect("an address");
    let count = async || metric(admin, "fanfare_canary_seconds_count{shard=\"0\"}").await;
    wait_until("the other canaries to go on", async || count().await >= 5.0).await;
    until_ready(admin).await;
}

/// Without canaries nothing is asked and nothing is late.
#[tokio::test]
async fn canaries_can_be_turned_off() {
    let node = TestNode::dev("[readiness]\ncanary_ms = 0");
    let _wedge = node.hub.wedge(1, Duration::from_millis(300));
    let turned = node.hub.clone();
    within("the shard to turn again", turned.every_shard_turns()).await;
    assert_eq!(ready(&node).await.status, 200);
    for shard in 0..2 {
        assert_eq!(visits(&node, shard).await, 0.0);
        assert_eq!(node.metric(&format!("fanfare_canary_seconds_count{{shard=\"{shard}\"}}")).await, 0.0);
    }
}

/// A stranger that asks for what canaries ask for is a client like any other.
#[tokio::test]
async fn who_asks_as_canaries_do_is_counted() {
    let node = TestNode::dev("");
    each_shard_is_visited(&node).await;
    let client = node.upgrade("/room/canary").await;
    node.wait_for_metric("fanfare_connections", 1.0).await;
    assert_eq!(node.occupancy("canary"), 1);
    drop::<Raw>(client);
}
