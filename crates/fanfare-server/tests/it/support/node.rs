//! A gateway in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fanfare_edge::{Address, Hub};
use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use fanfare_server::node::Node;
use tokio::sync::mpsc;

use super::{Client, PATIENCE, Raw, handshake, request, wait_until};

/// Under what every test lays its own configuration: free ports, two shards, and a stop that waits for nobody.
///
/// What happens by itself after some time is off for as long as a test may take, however slow the machine: a test that is about a ping, a
/// deadline or the sweep of vacant rooms asks for it.
const BASE: &str = r#"
    listen = "127.0.0.1:0"
    admin = "127.0.0.1:0"
    shards = 2
    [limits]
    handshake_ms_max = 600000
    [heartbeat]
    ping_ms = 3600000
    write_ms = 3600000
    close_ms = 500
    [rooms]
    reap_ms = 3600000
    [drain]
    grace_ms = 0
    window_ms = 0
"#;

/// A gateway in this process, on threads of its own. Dropping it drains it and checks that it ended without error, so declare it
/// before its clients.
pub(crate) struct TestNode {
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) hub: Arc<Hub>,
    signals: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl TestNode {
    /// `fanfare dev` with this TOML laid over its presets and [`BASE`].
    pub(crate) fn dev(toml: &str) -> Self {
        let file = ConfigFile::new("test.toml", over_base(toml));
        Self::start(&Config::dev(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration"))
    }

    /// `fanfare serve` with this TOML laid over [`BASE`].
    pub(crate) fn serve(toml: &str) -> Self {
        let file = ConfigFile::new("test.toml", over_base(toml));
        Self::start(&Config::serve(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration"))
    }

    pub(crate) fn start(config: &Config) -> Self {
        let node = Node::start(config).expect("a node that starts");
        let (Address::Tcp(clients), Address::Tcp(admin)) = (node.clients().clone(), node.admin().clone()) else {
            panic!("this node is for TCP; start one over Unix sockets by hand");
        };
        let hub = node.hub().clone();
        let (signals, received) = mpsc::channel(64);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(node.run(received))
        });
        Self { clients, admin, hub, signals, thread: Some(thread) }
    }

    /// Begins the drain; halves what is left of one that has begun.
    pub(crate) fn signal(&self) {
        // A node that has ended is not told; joining it says whether it should have.
        let _ = self.signals.try_send(());
    }

    /// Begins the drain.
    pub(crate) fn leave(&mut self) {
        self.hub.leave(None);
    }

    /// Ends the drain's waiting: an hour is a microsecond after that many halves.
    pub(crate) fn hurry(&mut self) {
        (0..40).for_each(|_| self.signal());
    }

    /// Waits for the end of a drain that has begun.
    pub(crate) async fn ended(mut self) {
        wait_until("the node to end", async || self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)).await;
        self.join();
    }

    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        thread.join().expect("a node that does not panic").expect("a node that ends without error");
    }

    /// An independent client on this path; it must be let in.
    pub(crate) async fn connect(&self, path: &str) -> Client {
        Client::connect(self.clients, path).await
    }

    /// The token of a guest with this name, who has been here for a moment.
    pub(crate) async fn guest(&self, name: &str) -> String {
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let mut client = self.connect(&format!("/ws?name={name}")).await;
        let token = client.event("welcome").await["token"].as_str().expect("a guest's token").to_owned();
        client.close().await;
        token
    }

    /// A client of `/room/{room}` that has certainly been admitted to the room, which does not say so by itself.
    pub(crate) async fn enter(&self, room: &str, query: &str) -> Client {
        let name = percent_decoded(room);
        let before = self.occupancy(&name);
        let client = self.connect(&format!("/room/{room}{query}")).await;
        wait_until("the room to be entered", async || self.occupancy(&name) > before).await;
        client
    }

    /// Waits until it says that it is ready: a machine that holds a shard up makes it late.
    pub(crate) async fn wait_until_ready(&self) {
        until_ready(self.admin).await;
    }

    /// Subscribers of a room now; 0 when there is none of the name.
    pub(crate) fn occupancy(&self, room: &str) -> u64 {
        let name = fanfare_protocol::RoomName::parse(room).expect("a room's name");
        self.hub.registry().get(&name).map_or(0, |room| room.info().occupancy)
    }

    /// A bare socket to the client listener.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::open(self.clients).await
    }

    /// A bare socket after a handshake on this path.
    pub(crate) async fn upgrade(&self, path: &str) -> Raw {
        let mut raw = self.raw().await;
        raw.send(handshake(path, self.clients, "").as_bytes()).await;
        let head = raw.head().await;
        assert_eq!(head.status, 101, "{head:?}");
        raw
    }

    /// One sample of the metrics page, such as `fanfare_closes_total{reason="left"}`.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        metric(self.admin, sample).await
    }

    pub(crate) async fn wait_for_metric(&self, sample: &str, value: f64) {
        wait_until(&format!("{sample} to be {value}"), async || self.metric(sample).await == value).await;
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.hurry();
        if thread::panicking() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            assert!(Instant::now() < deadline, "the node did not end within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
        self.join();
    }
}

fn over_base(toml: &str) -> String {
    let mut all: toml::Table = BASE.parse().expect("the base is TOML");
    // `make send-paths` runs all tests once more over the portable send path.
    if let Ok(path) = std::env::var("TEST_SEND_PATH") {
        all.insert("send_path".to_owned(), path.into());
    }
    lay_over(&mut all, toml.parse().expect("the test's configuration is TOML"));
    all.to_string()
}

fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => _ = below.insert(key, value),
        }
    }
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned()
}

/// Waits until the node with this admin listener says that it is ready.
pub(crate) async fn until_ready(admin: SocketAddr) {
    wait_until("the node to be ready", async || request(admin, "GET", "/readyz", &[], "").await.status == 200).await;
}

/// One sample of a metrics page.
pub(crate) async fn metric(admin: SocketAddr, sample: &str) -> f64 {
    let answer = request(admin, "GET", "/metrics", &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let value = answer.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("there is no sample {sample} in\n{}", answer.text()))
}
