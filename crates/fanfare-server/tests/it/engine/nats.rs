//! A real NATS of a test's own, ways to it that can be cut, and what only NATS can do or suffer.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::{TestNode, request, wait_until, within};

use super::{Engine, Wire, copy_files, counted, messages, node, over, published, subscriber};

/// A NATS with JetStream in a folder of its own. It has another port each time it runs; nodes reach it over a wire whose port stays.
pub(crate) struct Nats {
    folder: TempDir,
    /// What it is started with besides.
    arguments: Vec<OsString>,
    process: Option<Child>,
    at: Arc<Mutex<Option<SocketAddr>>>,
    /// Where it says over HTTP how it is.
    pub(crate) monitor: Option<SocketAddr>,
    front: NatsWire,
}

impl Engine for Nats {
    type Wire = NatsWire;

    fn idle() -> Self {
        let at = Arc::default();
        let front = NatsWire::to(&at);
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            arguments: Vec::new(),
            process: None,
            at,
            monitor: None,
            front,
        }
    }

    async fn run(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let ports = tempfile::tempdir().expect("a folder");
        let mut command = program();
        command.args(["--addr", "127.0.0.1", "--port", "-1", "-m", "-1", "--jetstream", "--store_dir"]);
        command.arg(self.folder.path()).arg("--ports_file_dir").arg(ports.path()).args(&self.arguments);
        self.process = Some(start(&mut command));
        wait_until("NATS to say where it listens", async || {
            let said = std::fs::read_dir(ports.path()).ok().and_then(|mut files| {
                let said: Value = serde_json::from_slice(&std::fs::read(files.next()?.ok()?.path()).ok()?).ok()?;
                let at = |what: &str| said[what][0].as_str()?.split_once("://")?.1.parse().ok();
                Some((at("nats")?, at("monitoring")?))
            });
            (*self.at.lock(), self.monitor) = said.unzip();
            said.is_some()
        })
        .await;
        let monitor = self.monitor.expect("it has said so");
        wait_until("JetStream to be well", async || request(monitor, "GET", "/healthz", &[], "").await.status == 200)
            .await;
    }

    fn kill(&mut self) {
        *self.at.lock() = None;
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("a process that can be killed");
        process.wait().expect("its end");
    }

    fn forget(&self) {
        std::fs::remove_dir_all(self.files()).expect("its files");
    }

    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_files(&self.files(), copy.path());
        copy
    }

    fn restore(&self, copy: &TempDir) {
        self.forget();
        copy_files(copy.path(), &self.files());
    }

    async fn empty(&self) {
        for stream in ["fanfare-log", "fanfare-counts"] {
            self.done(&format!("STREAM.DELETE.{stream}"), "").await;
        }
    }

    fn toml(&self, more: &str) -> String {
        self.front.toml(more)
    }

    fn wire(&self) -> NatsWire {
        NatsWire::to(&self.at)
    }
}

/// The server's program.
pub(crate) fn program() -> Command {
    Command::new(std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned()))
}

pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!(
            "this test needs a NATS, and {:?} cannot be started: {error}. Get it with `tools/need nats-server` (make test does), \
             or name one in NATS_SERVER",
            command.get_program()
        )
    })
}

/// One request to the JetStream of a server, and its answer; null where there is none.
pub(crate) async fn ask(at: SocketAddr, request: &str, body: &str) -> Value {
    let Ok(stream) = TcpStream::connect(at).await else { return Value::Null };
    let mut stream = BufReader::new(stream);
    let said = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
         PUB $JS.API.{request} answer {}\r\n{body}\r\n",
        body.len()
    );
    if stream.write_all(said.as_bytes()).await.is_err() {
        return Value::Null;
    }
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line.starts_with("HMSG") {
            // Nobody is there to answer.
            return Value::Null;
        }
        if let Some(len) = line.strip_prefix("MSG answer 1 ") {
            let mut answer = vec![0; len.trim().parse().expect("a length")];
            return match stream.read_exact(&mut answer).await {
                Ok(_) => serde_json::from_slice(&answer).expect("JSON"),
                Err(_) => Value::Null,
            };
        }
    }
}

impl Nats {
    /// One that is started with this besides.
    pub(crate) async fn with<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut nats = Self::idle();
        nats.arguments = arguments.into_iter().map(Into::into).collect();
        nats.run().await;
        nats
    }

    /// Where it listens itself.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at.lock().expect("a running NATS")
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("jetstream")
    }

    /// One request to JetStream, which does it.
    async fn done(&self, request: &str, body: &str) {
        let answer = self.ask(request, body).await;
        assert_eq!(answer["success"], true, "{request}: {answer}");
    }

    /// One request to JetStream, and its answer.
    async fn ask(&self, request: &str, body: &str) -> Value {
        within("an answer of NATS", ask(self.at(), request, body)).await
    }

    /// A number of what a stream is now.
    async fn state(&self, stream: &str, what: &str) -> u64 {
        let info = self.ask(&format!("STREAM.INFO.{stream}"), "").await;
        info["state"][what].as_u64().unwrap_or_else(|| panic!("no {what} in {info}"))
    }

    /// Puts something into a stream.
    async fn put(&self, stream: &str, subject: &str, bytes: &[u8]) {
        let before = self.state(stream, "last_seq").await;
        let mut socket = TcpStream::connect(self.at()).await.expect("a running NATS");
        let mut said = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", bytes.len()).into_bytes();
        said.extend_from_slice(bytes);
        said.extend_from_slice(b"\r\n");
        socket.write_all(&said).await.expect("an open connection");
        wait_until("it to be in the stream", async || self.state(stream, "last_seq").await > before).await;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A way to a NATS, on a thread of its own: a test that waits for a node's end does not hold it up.
pub(crate) struct NatsWire {
    at: SocketAddr,
    is_open: Arc<Mutex<bool>>,
    calls: Arc<Mutex<JoinSet<()>>>,
    /// Gone: the thread ends.
    _alive: oneshot::Sender<()>,
}

impl NatsWire {
    pub(crate) fn to(nats: &Arc<Mutex<Option<SocketAddr>>>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let at = listener.local_addr().expect("its address");
        let (is_open, calls) = (Arc::new(Mutex::new(true)), Arc::new(Mutex::new(JoinSet::new())));
        let (alive, ended) = oneshot::channel();
        let (nats, way_open, under_way) = (nats.clone(), is_open.clone(), calls.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let carry = async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((mut near, _)) = listener.accept().await {
                    let far = if *way_open.lock() { *nats.lock() } else { None };
                    let Some(far) = far else { continue };
                    let Ok(mut far) = TcpStream::connect(far).await else { continue };
                    let mut calls = under_way.lock();
                    if !*way_open.lock() {
                        continue;
                    }
                    // Those that have ended need not be kept.
                    while calls.try_join_next().is_some() {}
                    calls.spawn(async move { _ = copy_bidirectional(&mut near, &mut far).await });
                }
            };
            runtime.block_on(async {
                tokio::select! { () = carry => {}, _ = ended => {} }
            });
        });
        Self { at, is_open, calls, _alive: alive }
    }
}

impl Wire for NatsWire {
    fn toml(&self, more: &str) -> String {
        over("nats", &format!("nats://{}", self.at), more)
    }

    async fn cut(&mut self) {
        *self.is_open.lock() = false;
        self.drop_calls().await;
    }

    fn mend(&mut self) {
        *self.is_open.lock() = true;
    }

    async fn drop_calls(&self) {
        let mut calls = std::mem::take(&mut *self.calls.lock());
        calls.shutdown().await;
    }
}

/// Publishes so many messages, in calls of 500.
async fn publish_many(node: &TestNode, room: &str, count: usize) {
    let entry = json!({"room": room, "message": "x"});
    for _ in 0..count / 500 {
        let batch = json!({"publish": vec![&entry; 500]}).to_string();
        assert_eq!(request(node.admin, "POST", "/api/batch", &[], &batch).await.status, 200);
    }
}

#[tokio::test]
async fn who_starts_late_knows_how_far_rooms_had_counted_of_which_the_log_has_nothing_left() {
    let nats = Nats::start().await;
    let toml = nats.toml("log_entries_max = 2000");
    let one = node(&toml).await;
    let (mut reader, _) = subscriber(&one, "quiet", None).await;
    for n in 1..=3 {
        published(&one, "quiet", n).await;
    }
    publish_many(&one, "lobby", 4_000).await;
    let first = nats.state("fanfare-log", "first_seq").await;
    assert!(first > 3, "the log has trimmed what was said in the quiet room: {first}");
    assert!(nats.state("fanfare-log", "messages").await <= 3_000);
    let late = node(&toml).await;
    let receipt = published(&late, "quiet", 4).await;
    assert_eq!(receipt["offset"], 4);
    assert_eq!(published(&late, "lobby", "y").await["offset"], 4_001);
    assert_eq!(counted(&messages(&mut reader, 4).await), [1, 2, 3, 4]);
    let page = request(late.admin, "GET", "/api/rooms/lobby/history?limit=1000", &[], "").await.json();
    assert_eq!(page["messages"].as_array().expect("messages").len(), 1_000, "all that the history keeps");
    assert_eq!(page["epoch"], receipt["epoch"]);
    // Of all that was written down only what can still be of use is left.
    publish_many(&late, "lobby", 4_000).await;
    wait_until("old counts to be gone", async || nats.state("fanfare-counts", "messages").await <= 10).await;
    assert_eq!(
        (one.metric("fanfare_engine_restarts_total").await, one.metric("fanfare_engine_failures_total").await),
        (0.0, 0.0)
    );
}

#[tokio::test]
async fn counts_that_were_written_down_of_another_end_of_the_log_are_not_begun_with() {
    let nats = Nats::start().await;
    let toml = nats.toml("log_entries_max = 2000");
    let one = node(&toml).await;
    for n in 1..=3 {
        published(&one, "quiet", n).await;
    }
    publish_many(&one, "lobby", 4_000).await;
    let first = nats.state("fanfare-log", "first_seq").await;
    assert!(first > 3, "the log has trimmed what was said in the quiet room: {first}");
    // As if the log had lost its end and had grown again: an entry of this number was taken at another time.
    let info = nats.ask("STREAM.INFO.fanfare-counts", r#"{"subjects_filter": ">"}"#).await;
    let copies = info["state"]["subjects"].as_object().expect("subjects").keys();
    let copies = copies.filter_map(|subject| {
        let [_, _, life, number, _, _] = subject.split('.').collect::<Vec<_>>()[..] else { return None };
        Some((number.parse::<u64>().ok().filter(|number| *number >= first)?, life.parse::<u64>().ok()?))
    });
    let (number, life) = copies.min().expect("counts that can be begun with");
    let mut counts = vec![1];
    for head in [life, number, 1] {
        counts.extend(head.to_be_bytes());
    }
    counts.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 5]);
    counts.extend(b"quiet");
    counts.extend(77_u64.to_be_bytes());
    // Its node's number is the lowest, so that it is looked at first.
    nats.put("fanfare-counts", &format!("fanfare.counts.{life}.{number}.{:016x}.0", 0), &counts).await;
    let late = node(&toml).await;
    assert_eq!(published(&late, "quiet", 4).await["offset"], 4);
    assert_eq!(one.metric("fanfare_engine_restarts_total").await, 0.0, "nobody begins anew for that");
}

#[tokio::test]
async fn a_log_that_was_purged_harms_nobody_who_has_read_it_and_who_has_not_begins_anew_with_all() {
    let nats = Nats::start().await;
    let toml = nats.toml("");
    let one = node(&toml).await;
    let (mut reader, first) = subscriber(&one, "lobby", None).await;
    published(&one, "lobby", 1).await;
    nats.done("STREAM.PURGE.fanfare-log", "").await;
    published(&one, "lobby", 2).await;
    assert_eq!(counted(&messages(&mut reader, 2).await), [1, 2]);
    nats.done("STREAM.PURGE.fanfare-log", "").await;
    // Nobody can tell this one how far rooms had counted.
    let late = node(&toml).await;
    assert_eq!(reader.closed().await.0, 4503);
    one.wait_until_ready().await;
    let since = format!("{}:2", first["epoch"].as_str().expect("an epoch"));
    let (mut reader, again) = subscriber(&one, "lobby", Some(&since)).await;
    assert_eq!(again["recovered"], false);
    let receipt = published(&late, "lobby", 3).await;
    assert_eq!((&receipt["offset"], &receipt["epoch"]), (&json!(1), &again["epoch"]));
    assert_eq!(messages(&mut reader, 1).await, [(1, json!(3))]);
}

#[tokio::test]
async fn an_entry_that_was_taken_out_of_the_log_is_missed_by_who_had_not_read_it_and_once() {
    let nats = Nats::start().await;
    let one = node(&nats.toml("")).await;
    let mut wire = nats.wire();
    let other = node(&wire.toml("")).await;
    let (mut reader, _) = subscriber(&other, "lobby", None).await;
    published(&one, "lobby", 1).await;
    messages(&mut reader, 1).await;
    wire.cut().await;
    for n in 2..=4 {
        published(&one, "lobby", n).await;
    }
    let seq = nats.state("fanfare-log", "last_seq").await - 1;
    nats.done("STREAM.MSG.DELETE.fanfare-log", &json!({"seq": seq}).to_string()).await;
    wire.mend();
    assert_eq!(messages(&mut reader, 1).await, [(2, json!(2))]);
    assert_eq!(reader.closed().await.0, 4503, "the third is gone, and so the fourth is not told");
    other.wait_until_ready().await;
    // Nothing is known of what the room had counted by then: all begin anew, and once.
    wait_until("the other one to begin anew", async || one.metric("fanfare_engine_restarts_total").await == 1.0).await;
    one.wait_until_ready().await;
    let (mut reader, subscribed) = subscriber(&one, "lobby", None).await;
    let receipt = published(&other, "lobby", 5).await;
    assert_eq!(receipt["epoch"], subscribed["epoch"]);
    assert_eq!(
        published(&other, "lobby", 6).await["offset"].as_u64(),
        receipt["offset"].as_u64().map(|offset| offset + 1)
    );
    let told: Vec<_> = messages(&mut reader, 2).await.into_iter().map(|(_, message)| message).collect();
    assert_eq!(told, [5, 6]);
}

#[tokio::test]
async fn what_is_not_of_fanfare_is_counted_and_left_out() {
    let nats = Nats::start().await;
    let one = node(&nats.toml("")).await;
    let (mut reader, _) = subscriber(&one, "lobby", None).await;
    published(&one, "lobby", 1).await;
    nats.put("fanfare-log", "fanfare.log", b"hello").await;
    assert_eq!(published(&one, "lobby", 2).await["offset"], 2);
    let late = node(&nats.toml("")).await;
    assert_eq!(published(&late, "lobby", 3).await["offset"], 3);
    assert_eq!(counted(&messages(&mut reader, 3).await), [1, 2, 3]);
    for node in [&one, &late] {
        assert_eq!(node.metric("fanfare_engine_unreadable_total").await, 1.0);
    }
}
