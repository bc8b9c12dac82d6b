//! `fanfare-load` against a gateway whose faults are known: it must report exactly those, and nothing against an honest one.
//!
//! The gateway is a small broadcast server on an independent WebSocket implementation.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::{Command, Output};
use std::rc::Rc;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Deliveries of a run, and the one among them that goes wrong.
const DELIVERIES: u64 = 100_000;
const FAULTY: u64 = 54_321;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// One delivery is left out.
    Drop,
    /// One delivery is made twice.
    Duplicate,
    /// One delivery comes after the one that follows it.
    Swap,
    /// One byte of one delivery is changed.
    Corrupt,
    /// One delivery goes to a member of another room.
    Misdirect,
    /// One delivery is left out, and its member is told so.
    Gap,
    /// One member is closed as a slow consumer instead of being delivered to.
    Evict,
}

struct Gateway {
    fault: Fault,
    deliveries: u64,
    rooms: HashMap<String, Vec<Member>>,
    text: bool,
}

struct Member {
    queue: mpsc::Sender<Message>,
    /// It is told the room with each message: it came by `/ws`.
    named: bool,
    /// What is held back to be swapped with the next delivery.
    held: Option<Message>,
}

impl Gateway {
    fn broadcast(&mut self, room: &str, payload: &str) {
        let text = if self.text || room.starts_with("/echo") {
            payload.to_owned()
        } else {
            format!(r#"{{"name":"message","message":{payload}}}"#)
        };
        let named = format!(r#"{{"name":"message","message":{payload},"room":"{room}"}}"#);
        let [message, named] = [text, named].map(|text| Message::Text(Utf8Bytes::from(text)));
        let stranger = self.rooms.iter().find(|(name, _)| *name != room).map(|(_, members)| members[0].queue.clone());
        for member in self.rooms.get_mut(room).unwrap() {
            self.deliveries += 1;
            let fault = if self.deliveries == FAULTY { self.fault } else { Fault::None };
            member.deliver(fault, if member.named { &named } else { &message }, stranger.as_ref());
        }
    }
}

impl Member {
    fn deliver(&mut self, fault: Fault, message: &Message, stranger: Option<&mpsc::Sender<Message>>) {
        match fault {
            Fault::None => self.send(message.clone()),
            Fault::Drop => {}
            Fault::Duplicate => {
                self.send(message.clone());
                self.send(message.clone());
            }
            Fault::Swap => {
                self.held = Some(message.clone());
                return;
            }
            Fault::Corrupt => self.send(Message::Text(message.to_text().unwrap().replacen("abc", "aXc", 1).into())),
            Fault::Misdirect => stranger.unwrap().try_send(message.clone()).unwrap(),
            Fault::Gap => self.send(Message::Text(r#"{"name":"gap","from":1,"to":1,"count":1}"#.into())),
            Fault::Evict => {
                let reason = "queued 1048576 bytes, 7 messages".into();
                self.send(Message::Close(Some(CloseFrame { code: 4508.into(), reason })));
            }
        }
        if let Some(held) = self.held.take() {
            self.send(held);
        }
    }

    fn send(&self, message: Message) {
        // A member that was evicted is gone; all others must have room.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            panic!("the queue of a member is full");
        }
    }
}

async fn serve(stream: TcpStream, gateway: Rc<RefCell<Gateway>>) {
    stream.set_nodelay(true).unwrap();
    let mut room = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's form is tungstenite's")]
    let read_path = |request: &Request, response: Response| {
        room = request.uri().path().to_owned();
        Ok(response)
    };
    let port = stream.peer_addr().unwrap().port();
    let socket = accept_hdr_async(stream, read_path).await.unwrap();
    if room == "/echo" {
        // Every connection of the echo path is alone.
        room = format!("/echo/{port}");
    }
    let (mut sink, stream) = socket.split();
    let (queue, mut queued) = mpsc::channel::<Message>(65_536);
    if room == "/ws" {
        let welcome =
            format!(r#"{{"name":"welcome","connection":"{}-7-1","heartbeat_ms":25000,"node":"n"}}"#, port % 2);
        queue.try_send(Message::Text(welcome.into())).unwrap();
    } else {
        let member = Member { queue: queue.clone(), held: None, named: false };
        gateway.borrow_mut().rooms.entry(room.clone()).or_default().push(member);
    }
    tokio::task::spawn_local(async move {
        while let Some(message) = queued.recv().await {
            let close = message.is_close();
            if sink.feed(message).await.is_err() || (queued.is_empty() && sink.flush().await.is_err()) || close {
                let _ = sink.flush().await;
                return;
            }
        }
    });
    read(stream, &gateway, &room, &queue).await;
}

async fn read(
    mut stream: SplitStream<WebSocketStream<TcpStream>>,
    gateway: &RefCell<Gateway>,
    room: &str,
    queue: &mpsc::Sender<Message>,
) {
    #[derive(serde::Deserialize)]
    struct Publish<'a> {
        name: &'a str,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        room: Option<&'a str>,
    }
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Text(text) if room.starts_with("/echo") || gateway.borrow().text => {
                gateway.borrow_mut().broadcast(room, &text);
            }
            Message::Text(text) => {
                let command: Publish<'_> = serde_json::from_str(&text).unwrap();
                let room = command.room.unwrap_or(room);
                if let Some(message) = command.message {
                    assert_eq!(command.name, "publish");
                    gateway.borrow_mut().broadcast(room, message.get());
                    continue;
                }
                assert_eq!(command.name, "subscribe");
                let member = Member { queue: queue.clone(), held: None, named: true };
                gateway.borrow_mut().rooms.entry(room.to_owned()).or_default().push(member);
                let subscribed = r#"{"name":"subscribed","epoch":"e","offset":0,"recovered":true}"#;
                queue.try_send(Message::Text(subscribed.into())).unwrap();
            }
            // Tungstenite answers by itself, but only with the next write.
            Message::Ping(bytes) => queue.try_send(Message::Pong(bytes)).unwrap(),
            Message::Close(frame) => drop(queue.try_send(Message::Close(frame))),
            _ => {}
        }
    }
}

/// Starts the gateway on a thread of its own and returns its address.
fn start(fault: Fault, text: bool) -> String {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let gateway = Gateway { fault, deliveries: 0, rooms: HashMap::new(), text };
            let gateway = Rc::new(RefCell::new(gateway));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("ws://{}", listener.local_addr().unwrap())).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(stream, gateway.clone()));
            }
        });
    });
    told.recv().unwrap()
}

fn fanfare_load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare-load")).args(arguments).output().unwrap()
}

/// How long it waits, where all that is published comes: until it has come, on whatever machine.
const PATIENCE: &str = "60s";

/// Where something never comes, that is waited out. A machine that stands still for a moment must not lose more.
const STILL: &str = "5s";

/// Runs 100,000 deliveries through a gateway with `fault`; returns the exit code and the report.
fn run(fault: Fault, scenario: &[&str]) -> (Option<i32>, Value) {
    let url = start(fault, scenario.contains(&"text"));
    let file = std::env::temp_dir().join(format!("fanfare-load-{}-{fault:?}-{}.json", std::process::id(), scenario[0]));
    let mut arguments = scenario.to_vec();
    let settle = match fault {
        Fault::None | Fault::Duplicate | Fault::Swap | Fault::Gap => PATIENCE,
        Fault::Drop | Fault::Corrupt | Fault::Misdirect | Fault::Evict => STILL,
    };
    let json = file.to_str().unwrap();
    arguments.extend(["--url", &url, "--duration", PATIENCE, "--settle", settle, "--json", json]);
    let output = fanfare_load(&arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(&file).unwrap_or_else(|_| panic!("no report: {said}"));
    std::fs::remove_file(&file).unwrap();
    (output.status.code(), serde_json::from_slice(&report).unwrap())
}

/// 5 rooms of 20 members, 5,000 publications: 100,000 deliveries.
const ROOMS: &[&str] =
    &["rooms", "--connections", "100", "--rooms", "5", "--outstanding", "16", "--publications", "5000"];

fn check(fault: Fault, expected: &Value) {
    let (code, report) = run(fault, ROOMS);
    let mut audit = json!({
        "expected": DELIVERIES, "delivered": DELIVERIES, "missing": 0, "announced": 0, "overannounced": 0,
        "duplicate": 0, "out_of_order": 0, "corrupt": 0, "foreign": 0,
    });
    for (name, count) in expected.as_object().unwrap() {
        audit[name] = count.clone();
    }
    assert_eq!(report["audit"], audit, "{report:#}");
    let faultless = matches!(fault, Fault::None | Fault::Gap);
    assert_eq!((code, &report["accounted"]), (Some(i32::from(!faultless)), &json!(faultless)), "{report:#}");
    assert_eq!(report["published"], 5_000);
    assert_eq!(report["latency_us"]["count"], report["audit"]["delivered"]);
}

#[test]
fn an_honest_gateway_is_accounted_for() {
    check(Fault::None, &json!({}));
}

#[test]
fn one_lost_delivery_in_100_000_is_found() {
    check(Fault::Drop, &json!({"delivered": DELIVERIES - 1, "missing": 1}));
}

#[test]
fn one_doubled_delivery_in_100_000_is_found() {
    check(Fault::Duplicate, &json!({"duplicate": 1}));
}

#[test]
fn one_swap_of_neighbours_in_100_000_is_found() {
    check(Fault::Swap, &json!({"out_of_order": 1}));
}

#[test]
fn one_changed_byte_in_100_000_deliveries_is_found() {
    check(Fault::Corrupt, &json!({"delivered": DELIVERIES - 1, "missing": 1, "corrupt": 1}));
}

#[test]
fn one_delivery_to_the_wrong_room_is_found() {
    check(Fault::Misdirect, &json!({"delivered": DELIVERIES - 1, "missing": 1, "foreign": 1}));
}

/// 100,000 deliveries to those who read later; one after the other, so that those who read at once come first.
const BURST: &[&str] =
    &["shards", "--connections", "100", "--publications", "1000", "--bursts", "1", "--opening", "1", "--threads", "1"];

#[test]
fn who_reads_later_must_not_be_closed_for_it() {
    let (code, report) = run(Fault::Evict, &[BURST, &["--format", "text"]].concat());
    assert_eq!((code, &report["audit"]["missing"]), (Some(1), &json!(0)), "{report:#}");
    assert_eq!(report["faults"], json!(["burst 1 to gateway 1: 1 connections closed before the end"]), "{report:#}");
}

#[test]
fn one_loss_among_those_that_read_later_is_found() {
    for (fault, dialect, missing) in [(Fault::None, "json", 0), (Fault::Drop, "json", 1), (Fault::Drop, "text", 1)] {
        let (code, report) = run(fault, &[BURST, &["--format", dialect]].concat());
        assert_eq!((code, &report["audit"]["missing"]), (Some(missing), &json!(missing)), "{report:#}");
        assert_eq!(report["audit"]["expected"], DELIVERIES);
        assert_eq!(report["latency_us"]["count"], 8_000, "what is missing belongs to one that read later: {report:#}");
        let shards = report["connections_by_shard"].as_object().unwrap();
        let told: u64 = shards.values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(told, if dialect == "json" { 100 } else { 0 }, "only this dialect says it: {report:#}");
    }
}

#[test]
fn a_loss_that_is_announced_is_accounted_for() {
    check(Fault::Gap, &json!({"delivered": DELIVERIES - 1, "announced": 1}));
}

#[test]
fn a_closed_connection_is_reported_with_code_and_reason() {
    let (code, report) = run(Fault::Evict, ROOMS);
    assert_eq!(code, Some(1), "{report:#}");
    let close = json!([{"code": 4508, "reason": "queued 1048576 bytes, 7 messages", "count": 1}]);
    assert_eq!(report["closes"], close);
    assert_eq!(report["audit"]["missing"], 0, "it was owed nothing after its close: {report:#}");
    assert_eq!(report["audit"]["expected"], report["audit"]["delivered"]);
    assert_eq!(report["faults"], json!(["1 connections closed before the end"]));
}

#[test]
fn a_fixed_rate_in_the_text_dialect_with_several_publishers_is_accounted_for() {
    let scenario = [
        "rooms",
        "--format",
        "text",
        "--connections",
        "40",
        "--rooms",
        "4",
        "--publishers-per-room",
        "3",
        "--rate",
        "4000",
        "--publications",
        "2000",
        "--threads",
        "1",
        "--payload",
        "1000",
    ];
    let (code, report) = run(Fault::None, &scenario);
    assert_eq!((code, &report["published"], &report["unsent"]), (Some(0), &json!(2_000), &json!(0)), "{report:#}");
    assert_eq!(report["audit"]["expected"], 20_000);
    assert!(report["seconds"].as_f64().unwrap() >= 0.499, "the rate is kept: {report:#}");
}

#[test]
fn echoes_are_accounted_for() {
    let scenario = ["echo", "--connections", "20", "--outstanding", "4", "--publications", "2000"];
    let (code, report) = run(Fault::None, &scenario);
    assert_eq!((code, &report["audit"]["delivered"]), (Some(0), &json!(2_000)), "{report:#}");
}

#[test]
fn a_run_that_cannot_take_place_says_why() {
    // Bound for as long as this is tried: nobody else gets it and listens.
    let unused = tokio::net::TcpSocket::new_v4().unwrap();
    unused.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("ws://{}", unused.local_addr().unwrap());
    for (arguments, expected) in [
        (&["rooms", "--connections", "10", "--rooms", "2", "--url", &url][..], "nothing is listening at"),
        (&["rooms", "--connections", "10", "--rooms", "20"], "cannot fill 20 rooms"),
        (&["rooms", "--connections", "1600000000"], "the descriptor limit is"),
        (&["echo", "--pid", "4294967295"], "cannot read the usage of process"),
    ] {
        let output = fanfare_load(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
