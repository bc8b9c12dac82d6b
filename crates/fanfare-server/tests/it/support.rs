//! What the integration tests share: a node in this process, an independent WebSocket client,
//! and a socket to which bytes are written by hand. Every wait ends after [`PATIENCE`].

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_edge::{Address, Hub};
use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use fanfare_server::node::Node;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, handshake::client::Response, http};

/// The longest a test waits for anything. It is there so that a test that hangs fails and says at what: no machine that runs the tests at
/// all may be too slow for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The future's value; a failed test when it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// A deadline of the node's that a test has to keep. A machine may be too slow for that; then the test has shown nothing, and tries again
/// with a longer one. So what is asserted holds on every machine, and is asserted on a quick one within the first.
pub(crate) struct Deadline {
    time: Duration,
    last: Instant,
    is_kept: bool,
}

impl Deadline {
    /// From here on it has to be kept.
    pub(crate) fn begin(&mut self) {
        self.last = Instant::now();
    }

    /// The test kept the deadline here. What it then expects of the node it may assert, if it [`Self::was_kept`].
    pub(crate) fn keep(&mut self) {
        self.is_kept &= self.last.elapsed() < self.time / 2;
        self.last = Instant::now();
    }

    /// Whether there was never more than half of it between two calls of [`Self::keep`], and is not now.
    pub(crate) fn was_kept(&mut self) -> bool {
        self.keep();
        self.is_kept
    }

    pub(crate) fn ms(&self) -> u128 {
        self.time.as_millis()
    }
}

/// Runs a test with a deadline of so many milliseconds; while it says that it could not keep that, with twice as many.
pub(crate) async fn with_deadline(first_ms: u64, mut test: impl AsyncFnMut(&mut Deadline) -> bool) {
    let mut time = Duration::from_millis(first_ms);
    loop {
        let mut deadline = Deadline { time, last: Instant::now(), is_kept: true };
        if test(&mut deadline).await {
            return;
        }
        assert!(time < PATIENCE / 2, "this machine is too slow for a deadline of {time:?}");
        time *= 2;
    }
}

/// An address of the loopback network that no other test listens on, nor connects from: a port of it that was closed is nobody else's.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let [_, high, middle, low] = number.to_be_bytes();
    // Neither the network's own numbers nor 127.0.0.…, which tests use as it is.
    format!("127.{}.{middle}.{}:0", high | 1, low.clamp(1, 254))
}

/// A port that nobody listens on for as long as this is kept.
pub(crate) struct Unused {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Unused {
    pub(crate) fn port() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Self { address: socket.local_addr().expect("its address"), _bound: socket }
    }
}

/// Asks until it holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

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

/// A WebSocket client that shares no code with this project.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Self {
        let connected = Self::try_connect(address, path, &[]).await;
        connected.unwrap_or_else(|error| panic!("{path} must let a client in: {error}")).0
    }

    /// A handshake with more headers, which may be refused.
    pub(crate) async fn try_connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Self, Response), tungstenite::Error> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("a header name");
            request.headers_mut().append(name, value.parse().expect("a header value"));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, response) = within("a handshake", tokio_tungstenite::client_async(request, stream)).await?;
        Ok((Self { socket }, response))
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        within("a message to be sent", self.socket.send(message.into())).await.expect("an open connection");
    }

    /// Sends a command of the JSON dialect.
    pub(crate) async fn say(&mut self, command: Value) {
        self.send(command.to_string()).await;
    }

    /// Sends a command and returns what comes next.
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        self.say(command).await;
        self.json().await
    }

    /// The next message, a close frame included; pings and pongs are passed over.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let next = within("a message", self.socket.next()).await.expect("a message before the end");
            match next.expect("a message, not a failure") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The next event, which must have this name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let event = self.json().await;
        assert_eq!(event["name"], name, "{event}");
        event
    }

    pub(crate) async fn binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("expected binary, got {other:?}"),
        }
    }

    /// Code and reason of the close frame, which must be next; the connection is then seen to end.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let closed = match self.next().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.as_str().to_owned()),
            other => panic!("expected a close frame with a code, got {other:?}"),
        };
        let end = within("the end of the connection", self.socket.next()).await;
        assert!(end.is_none_or(|end| end.is_err()), "nothing follows a close frame");
        closed
    }

    /// Subscribes on `/ws` and returns the `subscribed` event.
    pub(crate) async fn subscribe(&mut self, room: &str) -> Value {
        self.say(json!({"name": "subscribe", "room": room})).await;
        let subscribed = self.event("subscribed").await;
        assert_eq!(subscribed["room"], room);
        subscribed
    }

    /// Shows that nothing is under way: the answer to a ping command is what comes next. What *another* connection caused may still
    /// come later; use a further publication as the mark there.
    pub(crate) async fn expect_nothing(&mut self) {
        assert_eq!(self.ask(json!({"name": "ping", "id": "mark"})).await, json!({"name": "pong", "id": "mark"}));
    }

    /// Ends the connection in good manners and waits for the answer.
    pub(crate) async fn close(mut self) {
        within("a close frame to be sent", self.socket.close(None)).await.expect("an open connection");
        within("the answer to it", async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }
}

/// A handshake that is right in every point; `more` is whole header lines, each with its line end.
pub(crate) fn handshake(path: &str, host: SocketAddr, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame: `first` is the whole first byte (0x81: final text), the length in its shortest form, and a mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A client's close frame.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A frame as it came from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.first, 0x81, "a final text frame: {self:?}");
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }
}

/// A socket to which bytes are written by hand.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Read, but not taken yet.
    pub(crate) unread: Vec<u8>,
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(within("a connection", TcpStream::connect(address)).await.expect("a listener"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, unread: Vec::new() }
    }

    /// After a handshake on this path, with so small a window that not reading is soon felt on the other side.
    pub(crate) async fn stalled(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Before connecting: the window is agreed on then.
        socket.set_recv_buffer_size(2_048).expect("a socket");
        let mut raw = Self::over(within("a connection", socket.connect(address)).await.expect("a listener"));
        raw.send(handshake(path, address, "").as_bytes()).await;
        let head = raw.head().await;
        assert_eq!(head.status, 101, "{head:?}");
        raw
    }

    /// After a handshake on this path, once there is a place: who has left may hold it a moment longer.
    pub(crate) async fn let_in(address: SocketAddr, path: &str) -> Self {
        loop {
            let mut raw = Self::open(address).await;
            raw.send(handshake(path, address, "").as_bytes()).await;
            match raw.head().await.status {
                101 => return raw,
                status => assert_eq!(status, 503),
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("bytes to be sent", self.stream.write_all(bytes)).await.expect("an open socket");
    }

    /// Takes exactly so many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_more().await, "the socket ended after {:?}", String::from_utf8_lossy(&self.unread));
        }
        self.unread.drain(..count).collect()
    }

    /// Takes everything up to and with the first of these bytes; `None` where the stream ends before they come.
    pub(crate) async fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|bytes| bytes == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// `false` at the end of the stream. A reset counts as an end: who sends more than is read may get one.
    async fn read_more(&mut self) -> bool {
        within("bytes to come", self.stream.read_buf(&mut self.unread)).await.is_ok_and(|count| count > 0)
    }

    /// Takes everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.unread)
    }

    /// The stream ends here, without a further byte.
    pub(crate) async fn end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits for the first bytes of an answer; `false` where the socket ends instead.
    pub(crate) async fn is_answered(&mut self) -> bool {
        self.read_more().await
    }

    /// Status line and headers of an answer.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read_more().await, "no answer, only {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head = String::from_utf8(self.take(end).await).expect("a head in UTF-8");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status: status.expect("a status line"), headers, body: Vec::new() }
    }

    /// A whole answer with a length.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").expect("a length").parse().expect("a number");
        answer.body = self.take(length).await;
        answer
    }

    /// The next frame, which as every server frame must be unmasked (RFC 6455 section 5.1) and its length in the shortest form.
    pub(crate) async fn frame(&mut self) -> Frame {
        let header = self.take(2).await;
        assert_eq!(header[1] & 0x80, 0, "a server frame is never masked");
        let length = match header[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).await.try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.take(8).await.try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        let shortest = match length {
            0..126 => length as u8,
            126..0x1_0000 => 126,
            _ => 127,
        };
        assert_eq!(header[1], shortest, "{length} bytes are announced in the shortest form");
        Frame { first: header[0], payload: self.take(length as usize).await }
    }

    /// Code and reason of the close frame, which must be next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = self.frame().await;
        assert_eq!(frame.first, 0x88, "expected a close frame, got {frame:?}");
        let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"))
    }
}

/// An HTTP answer. Names of headers are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// An error as RFC 9457 has it, with this status and code.
    pub(crate) fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
    }
}

/// One HTTP request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    let mut raw = Raw::open(address).await;
    raw.send(format!("{head}\r\n{body}").as_bytes()).await;
    let mut answer = raw.head().await;
    answer.body = raw.rest().await;
    answer
}
