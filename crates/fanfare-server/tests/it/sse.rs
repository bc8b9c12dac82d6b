//! Rooms as Server-Sent Events, read with a client made by hand.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_guard::{Claims, NamespacePolicy, Namespaces, RoomRight, TokenKeys};
use fanfare_server::config::{Config, Environment, Flags};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::support::{Answer, Raw, TestNode, request, wait_until, within};

/// A block of a stream: what stands between two empty lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    event: Option<String>,
    data: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    comments: usize,
}

impl Block {
    fn read(block: &str) -> Self {
        let mut read = Self::default();
        for line in block.trim_end_matches('\n').lines() {
            let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => read.comments += 1,
                "event" => assert_eq!(read.event.replace(value), None, "{block:?}"),
                "data" => assert_eq!(read.data.replace(value), None, "every event is one line of data: {block:?}"),
                "id" => assert_eq!(read.id.replace(value), None, "{block:?}"),
                "retry" => read.retry = Some(value.parse().expect("digits")),
                _ => panic!("a field that no reader knows: {line:?}"),
            }
        }
        read
    }

    fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data:?}"))
    }
}

struct Stream {
    raw: Raw,
    head: Answer,
}

impl Stream {
    /// Asks for a stream with these header lines, each with its line end.
    async fn ask(mut raw: Raw, path: &str, more: &str) -> Self {
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", raw.stream.peer_addr().unwrap()).as_bytes())
            .await;
        let head = raw.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"), "{head:?}");
        Self { raw, head }
    }

    /// A stream that has begun.
    async fn open(node: &TestNode, path: &str, more: &str) -> (Self, Block) {
        let mut stream = Self::ask(node.raw().await, path, more).await;
        let subscribed = stream.event("subscribed").await;
        (stream, subscribed)
    }

    /// The next block that is an event; comments are passed over. `None` at the end.
    async fn next(&mut self) -> Option<Block> {
        loop {
            let block = self.raw.through(b"\n\n").await?;
            let block = Block::read(str::from_utf8(&block).expect("UTF-8"));
            if block.comments == 0 {
                return Some(block);
            }
        }
    }

    /// The next event, which must be of this type and say so in its data, too.
    async fn event(&mut self, kind: &str) -> Block {
        let block = self.next().await.unwrap_or_else(|| panic!("the stream ended before {kind}"));
        assert_eq!(block.event.as_deref().unwrap_or("message"), kind, "{block:?}");
        assert_eq!(block.json()["name"], kind, "{block:?}");
        block
    }

    async fn message(&mut self) -> Value {
        self.event("message").await.json()["message"].clone()
    }

    /// Code and reason of the last event, which must be next; then the stream ends.
    async fn closed(&mut self) -> (u64, String) {
        let close = self.event("close").await.json();
        self.raw.end().await;
        (close["code"].as_u64().expect("a code"), close["reason"].as_str().expect("a reason").to_owned())
    }
}

async fn publish(node: &TestNode, room: &str, message: &Value) -> Value {
    let body = json!({"room": room, "message": message}).to_string();
    let answer = request(node.admin, "POST", "/api/publish", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Publishes the numbers and returns the room's epoch.
async fn publish_numbers(node: &TestNode, room: &str, numbers: std::ops::RangeInclusive<u64>) -> String {
    let mut epoch = String::new();
    for number in numbers {
        epoch = publish(node, room, &json!(number)).await["epoch"].as_str().expect("an epoch").to_owned();
    }
    epoch
}

#[tokio::test]
async fn a_stream_tells_what_the_room_says_in_its_order() {
    let node = TestNode::dev("[namespaces.default]\nhistory_size = 100\njoin_leave = true");
    let (mut stream, subscribed) = Stream::open(&node, "/room/a/sse", "Accept: text/event-stream\r\n").await;
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        ("vary", "Origin"),
    ] {
        assert_eq!(stream.head.header(name), Some(value), "{:?}", stream.head);
    }
    assert!(stream.head.header("date").is_some_and(|date| date.ends_with(" GMT")), "{:?}", stream.head);
    for name in ["content-length", "transfer-encoding", "access-control-allow-origin"] {
        assert_eq!(stream.head.header(name), None);
    }
    let at = subscribed.json();
    let epoch = at["epoch"].as_str().expect("an epoch");
    assert_eq!(at, json!({"name": "subscribed", "epoch": epoch, "offset": 0, "recovered": true}));
    assert_eq!(subscribed.id, Some(format!("{epoch}:0")));
    let retry = subscribed.retry.expect("a time to wait before coming back");
    assert!((1_000..=2_000).contains(&retry), "{retry}");
    assert_eq!(node.metric("fanfare_connections").await, 1.0);
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"accepted\"}").await, 1.0);

    // From WebSockets, in the JSON and the text dialect.
    let mut json = node.enter("a", "?name=Zo%C3%AB").await;
    assert_eq!(stream.event("joined").await.json()["user"], "Zoë");
    json.say(json!({"name": "publish", "message": {"a": "\r\n\n\0😀"}})).await;
    assert_eq!(json.event("message").await["offset"], 1);
    let message = stream.event("message").await;
    assert_eq!((message.id, message.event, message.retry), (Some(format!("{epoch}:1")), None, None));
    let mut text = node.enter("a", "?format=text").await;
    text.send("\n\ndata: injected\n\n").await;
    assert_eq!(stream.message().await, "\n\ndata: injected\n\n");
    text.send(vec![0, 255]).await;
    let binary = stream.event("message").await.json();
    assert_eq!((&binary["message"], &binary["encoding"]), (&json!("AP8="), &json!("base64")));
    // Over HTTP, with line ends between the parts of a value.
    let body = "{\"room\": \"a\",\r\n \"message\": {\r\n\n\r  \"pretty\":\n true}}";
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], body).await.json()["delivered"], 3);
    let pretty = stream.event("message").await;
    assert_eq!((pretty.json()["message"].clone(), pretty.id), (json!({"pretty": true}), Some(format!("{epoch}:4"))));

    for number in 5..=300 {
        json.say(json!({"name": "publish", "message": number})).await;
    }
    for number in 5..=300_u64 {
        let message = stream.event("message").await;
        assert_eq!((&message.json()["message"], message.id), (&json!(number), Some(format!("{epoch}:{number}"))));
    }
    drop(json);
    assert_eq!(stream.event("left").await.json()["user"], "Zoë");
    let closed = request(node.admin, "DELETE", "/api/rooms/a", &[], "").await;
    assert!(closed.status < 300, "{closed:?}");
    stream.event("room_closed").await;
    assert_eq!(stream.closed().await, (4410, "room closed".to_owned()));
    node.wait_for_metric("fanfare_closes_total{reason=\"room_closed\"}", 2.0).await;
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_broke_off() {
    let node = TestNode::dev("[namespaces.default]\nhistory_size = 5");
    let epoch = publish_numbers(&node, "a", 1..=8).await;
    let header = |id: &str| format!("Last-Event-ID: {id}\r\n");
    let since = |id: &str| format!("?since={id}");
    // Recovered or not, the position before what follows, and what follows.
    for (query, headers, recovered, from) in [
        (String::new(), header(&format!("{epoch}:8")), true, 8),
        (String::new(), header(&format!("{epoch}:3")), true, 3),
        (since(&format!("{epoch}:5")), String::new(), true, 5),
        // EventSource comes back to the same address: the header is the newer of both.
        (since(&format!("{epoch}:3")), header(&format!("{epoch}:6")), true, 6),
        (String::new(), header(&format!("{epoch}:2")), false, 8),
        (String::new(), header(&format!("{epoch}:9")), false, 8),
        (String::new(), header("0123456789abcdef:8"), false, 8),
        // What another server gave, and nothing.
        (since(&format!("{epoch}:3")), header("from-elsewhere"), false, 8),
        (String::new(), header(""), true, 8),
        (String::new(), String::new(), true, 8),
    ] {
        let (mut stream, subscribed) = Stream::open(&node, &format!("/room/a/sse{query}"), &headers).await;
        let told = json!({"name": "subscribed", "epoch": epoch, "offset": 8, "recovered": recovered});
        assert_eq!((subscribed.json(), subscribed.id), (told, Some(format!("{epoch}:{from}"))), "{query} {headers}");
        for offset in from + 1..=8 {
            let message = stream.event("message").await;
            assert_eq!(
                (message.json()["offset"].clone(), message.id),
                (json!(offset), Some(format!("{epoch}:{offset}")))
            );
        }
        drop(stream);
        wait_until("the stream to end", async || node.occupancy("a") == 0).await;
    }
    let answer = request(node.clients, "GET", "/room/a/sse?since=nowhere", &[], "").await;
    answer.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn a_stream_that_comes_back_tells_whether_it_missed_something_where_no_history_is_kept() {
    let node = TestNode::dev("");
    let (mut stream, _) = Stream::open(&node, "/room/a/sse", "").await;
    publish_numbers(&node, "a", 1..=2).await;
    stream.event("message").await;
    let last = stream.event("message").await;
    assert_eq!(last.json().get("offset"), None, "told to nobody but by the id");
    let id = format!("Last-Event-ID: {}\r\n", last.id.expect("an id"));
    let (_second, subscribed) = Stream::open(&node, "/room/a/sse", &id).await;
    assert_eq!(subscribed.json()["recovered"], true);
    publish_numbers(&node, "a", 3..=3).await;
    let (_third, subscribed) = Stream::open(&node, "/room/a/sse", &id).await;
    assert_eq!(subscribed.json()["recovered"], false);
}

#[tokio::test]
async fn who_loses_the_stream_before_the_last_value_came_gets_it_the_next_time() {
    let mut config = Config::dev(&Flags::default(), None, &Environment::default()).expect("a configuration");
    (config.listen, config.admin) = ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let given = *config.namespaces.iter().next().expect("the default namespace").1;
    let policy = NamespacePolicy { history_size: 1, history_bytes_max: 1 << 20, last_value: true, ..given };
    config.namespaces = Namespaces::new(policy, [].into());
    let node = TestNode::start(&config);
    publish_numbers(&node, "a", 1..=3).await;
    let (mut stream, subscribed) = Stream::open(&node, "/room/a/sse", "").await;
    let id = format!("Last-Event-ID: {}\r\n", subscribed.id.expect("an id"));
    assert_eq!(stream.message().await, 3);
    let (mut again, subscribed) = Stream::open(&node, "/room/a/sse", &id).await;
    assert_eq!(subscribed.json()["recovered"], true);
    assert_eq!(again.message().await, 3);
}

#[tokio::test]
async fn an_idle_stream_gets_comments_and_owes_no_answer() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 40\npong_ms = 40");
    let (mut stream, _) = Stream::open(&node, "/room/a/sse", "").await;
    for _ in 0..8 {
        let comment = stream.raw.through(b"\n\n").await.expect("a stream that goes on");
        assert_eq!(comment, b":\n\n");
    }
    publish(&node, "a", &json!("still here")).await;
    assert_eq!(stream.message().await, "still here");
    assert_eq!(node.metric("fanfare_closes_total{reason=\"pong_timeout\"}").await, 0.0);
}

/// After a request, with so small a window that not reading is soon felt on the other side.
async fn stalled(address: SocketAddr, path: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a socket");
    let mut raw = Raw::over(within("a connection", socket.connect(address)).await.expect("a listener"));
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await;
    raw
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_evicted_and_keeps_nobody_waiting() {
    let node = TestNode::dev(
        "shards = 1\n[limits]\nmessage_bytes_max = 8192\noutbox_bytes_max = 65536\n[namespaces.default]\nhistory_size = 5000\nhistory_bytes_max = 20000000\n[heartbeat]\nclose_ms = 600000",
    );
    let raw = stalled(node.clients, "/room/a/sse").await;
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 1).await;
    let mut healthy = node.enter("a", "").await;
    let (mut reads, _) = Stream::open(&node, "/room/a/sse", "").await;
    let mut published: u64 = 0;
    let mut evicted = 0.0;
    while evicted == 0.0 || published < 500 {
        published += 1;
        let message = json!({"n": published, "pad": "x".repeat(2_000)});
        healthy.say(json!({"name": "publish", "message": message})).await;
        assert_eq!(healthy.event("message").await["message"]["n"], published, "at once, whoever stalls");
        assert_eq!(reads.message().await["n"], published);
        if published.is_multiple_of(50) {
            evicted = node.metric("fanfare_closes_total{reason=\"slow_consumer\"}").await;
        }
        assert!(published < 5_000, "it must be evicted some time");
    }
    assert_eq!((evicted, node.occupancy("a")), (1.0, 2));
    assert_eq!(node.metric("fanfare_evicted_total").await, 1.0);
    // What it took before is whole, and the last word says why. It comes back to the rest.
    let mut stream = Stream { raw, head: Answer { status: 200, headers: Vec::new(), body: Vec::new() } };
    stream.raw.head().await;
    stream.event("subscribed").await;
    let mut last = None;
    let close = loop {
        let block = stream.next().await.expect("a last word");
        if block.event.as_deref() == Some("close") {
            break block.json();
        }
        let n = block.json()["message"]["n"].as_u64().expect("a number");
        assert_eq!(n, last.map_or(1, |(last, _)| last + 1), "in order, without a hole");
        last = Some((n, block.id.expect("an id")));
    };
    stream.raw.end().await;
    assert_eq!(close["code"], 4508);
    let reason = close["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("queued ") && reason.ends_with(" messages"), "{reason}");
    let (n, id) = last.expect("something was sent before");
    let (mut again, subscribed) = Stream::open(&node, "/room/a/sse", &format!("Last-Event-ID: {id}\r\n")).await;
    assert_eq!(subscribed.json()["recovered"], true);
    for expected in n + 1..=published {
        assert_eq!(again.message().await["n"], expected);
    }
}

#[tokio::test]
async fn where_messages_may_be_dropped_a_stream_is_told_which() {
    const PUBLISHED: u64 = 3_000;
    let node = TestNode::dev(
        "shards = 1\n[limits]\nmessage_bytes_max = 8192\noutbox_bytes_max = 65536\n\
         [namespaces.default]\nslow = \"drop_oldest\"\nhistory_size = 1",
    );
    let raw = stalled(node.clients, "/room/a/sse").await;
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 1).await;
    let mut healthy = node.enter("a", "").await;
    for n in 1..=PUBLISHED {
        healthy.say(json!({"name": "publish", "message": {"n": n, "pad": "x".repeat(2_000)}})).await;
        assert_eq!(healthy.event("message").await["offset"], n);
    }
    let mut stream = Stream { raw, head: Answer { status: 200, headers: Vec::new(), body: Vec::new() } };
    stream.raw.head().await;
    stream.event("subscribed").await;
    let (mut last, mut missing) = (0, 0);
    while last < PUBLISHED {
        let block = stream.next().await.expect("a stream that goes on");
        let event = block.json();
        let number = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("no {field} in {event}"));
        if block.event.as_deref() == Some("gap") {
            assert_eq!((number("from"), number("to") + 1), (last + 1, last + 1 + number("count")));
            // Who loses the stream here may still get what was dropped.
            assert_eq!(block.id, None);
            (last, missing) = (number("to"), missing + number("count"));
            continue;
        }
        assert_eq!(number("offset"), last + 1, "in order, each told or announced as missing");
        last += 1;
    }
    assert!(missing > 0, "nothing was dropped: the reader has not stalled");
    assert_eq!(node.metric("fanfare_closes_total{reason=\"slow_consumer\"}").await, 0.0);
}

#[tokio::test]
async fn a_stream_is_told_to_come_back_when_the_node_leaves() {
    let mut node = TestNode::dev("drain.retry_ms = 3000");
    let (mut stream, _) = Stream::open(&node, "/room/a/sse", "").await;
    node.leave();
    let drain = stream.event("drain").await;
    let retry = drain.json()["retry_ms"].as_u64();
    assert!(drain.retry.is_some() && drain.retry == retry, "{drain:?}");
    assert_eq!(stream.closed().await, (1012, "node is leaving service, reconnect".to_owned()));
    drop(stream);
    node.ended().await;
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out_and_allowed_ones_may_read() {
    let node = TestNode::dev("origins = [\"https://app.example\"]");
    let ask = async |method: &str, path: &str, origin: &str| {
        request(node.clients, method, path, &[("Origin", origin)], "").await
    };
    let refused = ask("GET", "/room/a/sse", "https://evil.example").await;
    refused.expect_problem(403, "origin_not_allowed");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"origin\"}").await, 1.0);
    ask("OPTIONS", "/room/a/sse", "https://evil.example").await.expect_problem(403, "origin_not_allowed");

    let (stream, _) = Stream::open(&node, "/room/a/sse", "Origin: https://app.example\r\n").await;
    assert_eq!(stream.head.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(stream.head.header("access-control-allow-credentials"), None);
    // Whoever could have been let in may read why it was not.
    let bad = ask("GET", "/room/a%20b/sse", "https://app.example").await;
    bad.expect_problem(400, "bad_room");
    assert_eq!(bad.header("access-control-allow-origin"), Some("https://app.example"));

    let preflight = ask("OPTIONS", "/room/a/sse", "https://app.example").await;
    assert_eq!((preflight.status, preflight.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
        ("access-control-allow-headers", "authorization, cache-control, last-event-id"),
        ("allow", "GET, HEAD, OPTIONS"),
        ("vary", "Origin"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{preflight:?}");
    }
    let head = ask("HEAD", "/room/a/sse", "https://app.example").await;
    assert_eq!((head.status, head.header("content-type"), head.body.len()), (200, Some("text/event-stream"), 0));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let post = ask("POST", "/room/a/sse", "https://app.example").await;
    post.expect_problem(405, "method_not_allowed");
    assert_eq!(post.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(node.metric("fanfare_connections").await, 1.0, "only one of these is a stream");
}

const TOKENS: &str = "auth.keys = [\"0123456789abcdef0123456789abcdef\"]\n\
    [namespaces.staff]\nsubscribe = \"token\"\n[namespaces.shut]\nsubscribe = \"nobody\"";

/// A token for ann that ends `seconds` from now and lets her listen to the rooms of `staff:`.
fn token(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let exp = Some(now.saturating_add_signed(seconds));
    let rooms = [("staff:*".to_owned(), vec![RoomRight::Subscribe])].into();
    let claims = Claims { sub: Some("ann".to_owned()), exp, rooms, ..Claims::default() };
    TokenKeys::parse(["0123456789abcdef0123456789abcdef"]).expect("a fit key").mint(&claims).expect("a token")
}

#[tokio::test]
async fn who_may_not_listen_gets_a_status_and_does_not_come_back() {
    let node = TestNode::serve(TOKENS);
    let expired = token(-60);
    for (path, headers, status, code) in [
        ("/room/lobby/sse?token=abc".to_owned(), vec![], 401, "token_refused"),
        (format!("/room/staff:1/sse?token={expired}"), vec![], 401, "token_refused"),
        ("/room/lobby/sse".to_owned(), vec![("Authorization", "Bearer abc")], 401, "token_refused"),
        // A name without a token needs `auth.guests`.
        ("/room/lobby/sse?name=Ada".to_owned(), vec![], 401, "token_refused"),
        ("/room/staff:1/sse".to_owned(), vec![], 403, "not_allowed"),
        (format!("/room/shut:1/sse?token={}", token(60)), vec![], 403, "not_allowed"),
        ("/room//sse".to_owned(), vec![], 400, "bad_room"),
        ("/room/a%2Fb/sse".to_owned(), vec![], 400, "bad_room"),
        ("/room/%FF/sse".to_owned(), vec![], 400, "bad_room"),
        ("/room/lobby/sse?format=text".to_owned(), vec![], 400, "bad_request"),
        ("/room/lobby/sse/".to_owned(), vec![], 404, "not_found"),
        ("/room/a/b/sse".to_owned(), vec![], 404, "not_found"),
    ] {
        let answer = request(node.clients, "GET", &path, &headers, "").await;
        answer.expect_problem(status, code);
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{path}");
    }
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"refused\"}").await, 6.0);
    assert_eq!(node.metric("fanfare_connections").await, 0.0);

    let bearer = format!("Authorization: Bearer {}\r\n", token(60));
    let (_by_header, _) = Stream::open(&node, "/room/staff:1/sse", &bearer).await;
    let (_by_query, _) = Stream::open(&node, &format!("/room/staff:1/sse?token={}", token(60)), "").await;
    // The skew between clocks is granted on top: this one has some seconds left of it.
    let (mut ends, _) = Stream::open(&node, &format!("/room/staff:1/sse?token={}", token(-26)), "").await;
    ends.event("expires").await;
    assert_eq!(ends.closed().await, (4401, "token expired, connect with a new one".to_owned()));
}

#[tokio::test]
async fn what_a_listener_says_is_passed_over_within_a_bound() {
    let node = TestNode::dev("");
    // A body that nobody asked for, and more later.
    let (mut stream, _) = Stream::open(&node, "/room/a/sse", "Content-Length: 5\r\n").await;
    stream.raw.send(b"hello").await;
    stream.raw.send(&[b'x'; 4_000]).await;
    publish(&node, "a", &json!(1)).await;
    assert_eq!(stream.message().await, 1);
    stream.raw.send(&[b'x'; 200]).await;
    assert_eq!(stream.closed().await, (1002, "an event stream only listens".to_owned()));
    assert_eq!(node.metric("fanfare_closes_total{reason=\"protocol_error\"}").await, 1.0);
    // Who says everything at once, too.
    let mut raw = node.raw().await;
    let head = format!("GET /room/a/sse HTTP/1.1\r\nHost: {}\r\n\r\n{}", node.clients, "y".repeat(5_000));
    raw.send(head.as_bytes()).await;
    assert_eq!(raw.head().await.status, 200);
    let mut stream = Stream { raw, head: Answer { status: 200, headers: Vec::new(), body: Vec::new() } };
    stream.event("subscribed").await;
    assert_eq!(stream.closed().await.0, 1002);
}

#[tokio::test]
async fn a_listener_that_leaves_is_gone_at_once() {
    let node = TestNode::dev("limits.connections_max = 2");
    let (mut one, _) = Stream::open(&node, "/room/a/sse", "").await;
    let (_two, _) = Stream::open(&node, "/room/a/sse", "").await;
    // It has a place like every connection.
    request(node.clients, "GET", "/room/a/sse", &[], "").await.expect_problem(503, "connections_max");
    one.raw.stream.shutdown().await.expect("an open socket");
    one.raw.end().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", 1.0).await;
    node.wait_for_metric("fanfare_connections", 1.0).await;
    wait_until("its place in the room to be given back", async || node.occupancy("a") == 1).await;
}

#[tokio::test]
async fn a_stream_begins_on_a_connection_that_was_used_before_and_for_http_1_0() {
    let node = TestNode::dev("");
    let mut raw = node.raw().await;
    let host = node.clients;
    // Both at once, and the answer to the first is not lost.
    raw.send(
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\nGET /room/a/sse HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
    )
    .await;
    let page = raw.answer().await;
    assert_eq!((page.status, page.text().contains("<html")), (200, true));
    let mut stream = Stream { head: raw.head().await, raw };
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    stream.event("subscribed").await;
    publish(&node, "a", &json!("kept alive")).await;
    assert_eq!(stream.message().await, "kept alive");
    stream.raw.stream.shutdown().await.expect("an open socket");
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", 1.0).await;

    let mut raw = node.raw().await;
    raw.send(b"GET /room/a/sse HTTP/1.0\r\n\r\n").await;
    let mut stream = Stream { head: raw.head().await, raw };
    assert_eq!((stream.head.status, stream.head.header("transfer-encoding")), (200, None));
    stream.event("subscribed").await;
    publish(&node, "a", &json!("old")).await;
    assert_eq!(stream.message().await, "old");
}
