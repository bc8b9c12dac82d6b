//! A connection against an independent WebSocket implementation, and against raw bytes where the rules are broken.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::future::Future;
use std::time::Duration;

use fanfare_client::{CloseCode, ConnectOptions, Connection, Error, HttpPublisher, Incoming, Message, RoomName, Url};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Theirs;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Serves one connection with `serve` and returns the gateway's address.
async fn gateway<F, S>(serve: S) -> Url
where
    S: FnOnce(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    url
}

async fn connect(url: Url) -> Connection {
    fanfare_client::connect(&ConnectOptions::new(url)).await.unwrap()
}

/// A gateway that shakes hands properly and then sends `bytes` as they are.
async fn raw(bytes: Vec<u8>) -> Url {
    gateway(async move |stream| {
        let mut stream = accept_async(stream).await.unwrap().into_inner();
        stream.write_all(&bytes).await.unwrap();
        // Keeps the socket open until the client goes.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

fn closed(code: u16, reason: &str) -> Incoming {
    Incoming::Closed { code: CloseCode(code), reason: reason.to_owned() }
}

#[tokio::test]
async fn messages_of_all_sizes_come_back_equal() {
    let url = gateway(async |stream| {
        let mut theirs = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = theirs.next().await {
            if message.is_text() || message.is_binary() {
                theirs.send(message).await.unwrap();
            }
        }
    })
    .await;
    let mut ours = connect(url.room(&RoomName::parse("房间").unwrap())).await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let text: String = "añ房🎺".chars().cycle().take(length).collect();
        ours.send_text(&text).await.unwrap();
        assert_eq!(ours.next().await.unwrap(), Incoming::Text(text));
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        ours.send_binary(&bytes).await.unwrap();
        assert_eq!(ours.next().await.unwrap(), Incoming::Binary(bytes.into()));
    }
    ours.queue_ping(b"are you there").unwrap();
    assert_eq!(ours.next().await.unwrap(), Incoming::Pong(b"are you there".as_slice().to_vec().into()));
    assert_eq!(ours.close(CloseCode(1000), "done").await.unwrap(), (CloseCode(1000), "done".to_owned()));
}

#[tokio::test]
async fn pings_are_answered_and_the_close_is_answered_with_its_code() {
    let (told, saw) = tokio::sync::oneshot::channel();
    let url = gateway(async move |stream| {
        let mut theirs: WebSocketStream<TcpStream> = accept_async(stream).await.unwrap();
        theirs.send(Theirs::Ping(b"p1".as_slice().into())).await.unwrap();
        let pong = theirs.next().await.unwrap().unwrap();
        let frame = CloseFrame { code: 4508.into(), reason: "queued 9 bytes".into() };
        theirs.close(Some(frame)).await.unwrap();
        let answer = theirs.next().await.unwrap().unwrap();
        told.send((pong, answer)).unwrap();
    })
    .await;
    let mut ours = connect(url).await;
    assert_eq!(ours.next().await.unwrap(), closed(4508, "queued 9 bytes"));
    assert_eq!(ours.next().await.unwrap(), closed(4508, "queued 9 bytes"), "it stays closed");
    assert!(matches!(ours.send_text("late").await, Err(Error::Ended)));
    let (pong, answer) = saw.await.unwrap();
    assert_eq!(pong, Theirs::Pong(b"p1".as_slice().into()));
    assert!(matches!(answer, Theirs::Close(Some(frame)) if u16::from(frame.code) == 4508));
}

/// Drops `next` between any two bytes of a stream that arrives byte by byte.
#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let long = "x".repeat(300);
    let mut bytes = vec![0x81, 5];
    bytes.extend(b"hello");
    bytes.extend([0x81, 126, 1, 44]);
    bytes.extend(long.as_bytes());
    bytes.extend([0x01, 2, b'a', b'b', 0x80, 1, b'c', 0x88, 2, 0x03, 0xe8]);
    let (give, mut take) = tokio::sync::mpsc::channel::<()>(1);
    let url = gateway(async move |stream| {
        let mut stream = accept_async(stream).await.unwrap().into_inner();
        stream.set_nodelay(true).unwrap();
        for byte in bytes {
            take.recv().await;
            stream.write_all(&[byte]).await.unwrap();
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut ours = connect(url).await;
    let (mut got, mut dropped) = (Vec::new(), 0);
    while !matches!(got.last(), Some(Incoming::Closed { .. })) {
        tokio::select! {
            biased;
            incoming = ours.next() => got.push(incoming.unwrap()),
            () = async { if give.send(()).await.is_err() { std::future::pending().await } } => dropped += 1,
        }
    }
    let text = |text: &str| Incoming::Text(text.to_owned());
    assert_eq!(got, [text("hello"), text(&long), text("abc"), closed(1000, "")]);
    assert!(dropped >= 300, "{dropped} reads were dropped");
}

/// Drops `send_text` while the socket is full.
#[tokio::test]
async fn a_dropped_send_leaves_no_half_frame() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let (told, lengths) = tokio::sync::oneshot::channel();
    let url = gateway(async move |stream| {
        let mut theirs = accept_async(stream).await.unwrap();
        wait.await.unwrap();
        let mut lengths = Vec::new();
        while let Some(Ok(message)) = theirs.next().await {
            lengths.extend(message.is_text().then(|| message.len()));
        }
        told.send(lengths).unwrap();
    })
    .await;
    let mut ours = connect(url).await;
    let mut sent = Vec::new();
    let mut stuck = 0;
    while stuck < 3 {
        let text = "y".repeat(1_000_000 + sent.len());
        tokio::select! {
            biased;
            done = ours.send_text(&text) => done.unwrap(),
            () = tokio::task::yield_now() => stuck += 1,
        }
        sent.push(text.len());
    }
    assert!(ours.queued_bytes() > 2_000_000);
    go.send(()).unwrap();
    ours.close(CloseCode(1000), "").await.unwrap();
    assert_eq!(lengths.await.unwrap(), sent);
}

#[tokio::test]
async fn broken_rules_end_the_connection_with_an_error() {
    let big = |length: u64| [[0x82, 127].as_slice(), &length.to_be_bytes()].concat();
    for (bytes, expected) in [
        (vec![0xc1, 0], "reserved bits"),
        (vec![0x83, 0], "the WebSocket protocol"),
        (vec![0x80, 0], "a continuation without a beginning"),
        (vec![0x01, 0, 0x81, 0], "a new message inside a fragmented one"),
        (vec![0x81, 1, 0xff], "UTF-8"),
        (vec![0x01, 1, 0xc3, 0x80, 1, b'x'], "UTF-8"),
        (vec![0x88, 1, 3], "half a code"),
        (vec![0x88, 3, 0x03, 0xe8, 0xff], "UTF-8"),
        ([vec![0x8a, 126, 0, 126], vec![0; 126]].concat(), "longer than 125 bytes"),
        (big(1_001), "longer than 1000 bytes"),
        (big(u64::MAX), "longer than 1000 bytes"),
        ([vec![0x02, 126, 3, 232], vec![0; 1000], vec![0x80, 1, 0]].concat(), "longer than 1000 bytes"),
    ] {
        let mut options = ConnectOptions::new(raw(bytes.clone()).await);
        options.message_bytes_max = 1_000;
        let mut ours = fanfare_client::connect(&options).await.unwrap();
        let error = ours.next().await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{bytes:?}: {error}");
        assert!(matches!(ours.next().await, Ok(Incoming::Closed { code: CloseCode(1006), .. })));
    }
    let fits = [vec![0x82, 126, 3, 232], vec![7; 1000]].concat();
    let mut options = ConnectOptions::new(raw(fits).await);
    options.message_bytes_max = 1_000;
    let mut ours = fanfare_client::connect(&options).await.unwrap();
    assert_eq!(ours.next().await.unwrap(), Incoming::Binary(vec![7; 1000].into()));
}

#[tokio::test]
async fn a_lost_connection_is_a_close_with_1006() {
    let url = gateway(async |stream| drop(accept_async(stream).await.unwrap())).await;
    let mut ours = connect(url).await;
    assert!(matches!(ours.next().await, Ok(Incoming::Closed { code: CloseCode(1006), .. })));
}

/// Answers each request on a connection with the next of `answers`; returns the heads and bodies it saw.
async fn http(answers: Vec<String>) -> (Url, tokio::sync::mpsc::Receiver<String>) {
    let (tell, saw) = tokio::sync::mpsc::channel(16);
    let url = gateway(async move |mut stream| {
        for answer in answers {
            let mut request = Vec::new();
            while !complete(&request) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the client left early");
            }
            tell.send(String::from_utf8(request).unwrap()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    (url, saw)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).map_or(0, |l| l.lines().next().unwrap().parse().unwrap());
    body.len() >= length
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nretry-after: 7\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn publications_share_one_connection_and_bring_receipts_and_problems() {
    let (url, mut saw) = http(vec![
        answer("200 OK", r#"{"epoch":"00000000000000ab","offset":7,"delivered":3,"dropped":1,"evicted":2,"new":true}"#),
        answer("200 OK", r#"{"delivered":0}"#),
        answer("429 Too Many Requests", r#"{"title":"Too fast","status":429,"code":"rate","detail":"10 a second"}"#),
        answer("200 OK", "no JSON"),
    ])
    .await;
    let room = RoomName::parse("a\"ü").unwrap();
    let mut publisher = HttpPublisher::new(url, Some("secret".to_owned()));
    let receipt = publisher.publish(&room, Message::Json("{\"x\": 1}")).await.unwrap();
    assert_eq!((receipt.offset, receipt.delivered, receipt.dropped, receipt.evicted), (Some(7), 3, 1, 2));
    assert_eq!(receipt.epoch.as_deref(), Some("00000000000000ab"));
    let request = saw.recv().await.unwrap();
    assert!(request.starts_with("POST /api/publish HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"room\":\"a\\\"ü\",\"message\":{\"x\": 1}}"), "{request}");

    assert_eq!(publisher.publish(&room, Message::Text("hi")).await.unwrap().delivered, 0);
    let request = saw.recv().await.unwrap();
    assert!(request.starts_with("POST /api/publish?room=a%22%C3%BC HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("text/plain") && request.ends_with("\r\n\r\nhi"), "{request}");

    match publisher.publish(&room, Message::Text("hi")).await {
        Err(Error::Refused(refusal)) => {
            assert_eq!((refusal.status, &*refusal.code, &*refusal.detail), (429, "rate", "10 a second"));
            assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
            assert!(refusal.is_temporary());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_upgrade_brings_the_problem_and_a_closed_port_its_name() {
    let (url, mut saw) = http(vec![answer("403 Forbidden", r#"{"code":"origin","detail":"not from there"}"#)]).await;
    let mut options = ConnectOptions::new(url.room(&RoomName::parse("lobby").unwrap()));
    options.token = Some("t0ken".to_owned());
    options.name = Some("Zoë".to_owned());
    match fanfare_client::connect(&options).await {
        Err(Error::Refused(refusal)) => assert_eq!((refusal.status, &*refusal.code), (403, "origin")),
        other => panic!("{other:?}"),
    }
    let request = saw.recv().await.unwrap();
    assert!(request.starts_with("GET /room/lobby?name=Zo%C3%AB HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer t0ken\r\n"), "{request}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("ws://{unused}")).unwrap();
    let error = fanfare_client::connect(&ConnectOptions::new(url.clone())).await.unwrap_err();
    assert!(matches!(&error, Error::NothingListening { authority } if *authority == unused.to_string()));
    let mut publisher = HttpPublisher::new(url, None);
    let refused = publisher.publish(&RoomName::parse("x").unwrap(), Message::Text("")).await;
    assert!(matches!(refused, Err(Error::NothingListening { .. })));
}

#[tokio::test]
async fn a_silent_gateway_runs_into_the_deadline() {
    let url = gateway(async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut options = ConnectOptions::new(url);
    options.timeout = Duration::from_millis(50);
    assert!(matches!(fanfare_client::connect(&options).await, Err(Error::Timeout { .. })));
}
