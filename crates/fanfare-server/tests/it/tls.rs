//! TLS on the client listener: who is let in, what a reload does, and that nothing between the client and its room can tell the difference.
#![expect(
    clippy::large_futures,
    reason = "TLS under a WebSocket keeps its buffers in the future; a test has few of them"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{Raw, TestNode, close_frame, frame, handshake, request, wait_until, within};

/// Where a node's pair lies, and what its clients trust.
struct Pair {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificate = write_pair(folder.path());
        Self { folder, certificate }
    }

    /// Another pair in the place of this one.
    fn renew(&mut self) {
        self.certificate = write_pair(self.folder.path());
    }

    fn toml(&self, more: &str) -> String {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| self.folder.path().join(name));
        format!("{more}\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// A socket after the TLS handshake.
    async fn connect(
        &self,
        to: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(to)).await.expect("a listener");
        self.over(stream, versions).await
    }

    async fn over(
        &self,
        stream: TcpStream,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(self.client(versions)));
        within("a TLS handshake", connector.connect(name, stream)).await
    }

    async fn websocket(&self, to: SocketAddr, path: &str) -> WebSocketStream<TlsStream<TcpStream>> {
        let stream = self.connect(to, &[&TLS13]).await.expect("TLS");
        within("a handshake", client_async(format!("ws://{to}{path}"), stream)).await.expect("a connection").0
    }
}

fn write_pair(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    fs::write(folder.join("cert.pem"), cert.pem()).expect("a file");
    fs::write(folder.join("key.pem"), signing_key.serialize_pem()).expect("a file");
    cert.der().clone()
}

/// What comes until the peer has said over TLS that nothing follows.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    within("the end", stream.read_to_end(&mut bytes)).await.expect("an end that was said");
    bytes
}

async fn answer_head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.expect("an open connection"));
    }
    String::from_utf8(head).expect("a head")
}

#[tokio::test]
async fn both_versions_carry_everything_that_plain_connections_carry() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml(""));
    for (version, named) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut stream = pair.connect(node.clients, &[version]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(named));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        // Pages over hyper, on a connection that is kept and then upgraded.
        for _ in 0..2 {
            within("a request", stream.write_all(b"GET /fanfare.js HTTP/1.1\r\nHost: h\r\n\r\n")).await.expect("open");
            let head = answer_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let mut body = vec![0; length.parse().expect("a number")];
            within("a body", stream.read_exact(&mut body)).await.expect("a body");
        }
        stream.write_all(handshake("/echo", node.clients, "").as_bytes()).await.expect("open");
        assert!(answer_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        stream.write_all(&frame(0x81, b"over hyper")).await.expect("open");
        let mut echo = [0; 12];
        within("an echo", stream.read_exact(&mut echo)).await.expect("an echo");
        assert_eq!(&echo[2..], b"over hyper");
        stream.write_all(&close_frame(1000, "")).await.expect("open");
        assert_eq!(rest(&mut stream).await, [0x88, 2, 3, 0xe8]);

        // And by the shard's loop at once, with messages longer than many records.
        let stream = pair.connect(node.clients, &[version]).await.expect("TLS");
        let opened = client_async(format!("ws://{}/echo", node.clients), stream);
        let (mut socket, _) = within("a handshake", opened).await.expect("a connection");
        for size in [0, 1, 16_383, 16_384, 16_385, 65_536] {
            let message = Message::text("x".repeat(size));
            within("a message to be sent", socket.send(message.clone())).await.expect("open");
            let echo = within("an echo", socket.next()).await.expect("an echo").expect("no failure");
            assert!(echo == message, "{size} bytes");
        }
    }
    node.wait_for_metric("fanfare_tls_handshakes_total{result=\"accepted\"}", 4.0).await;
    let expiry = node.metric("fanfare_tls_certificate_expiry_timestamp_seconds").await;
    assert!(expiry > 1.7e9, "{expiry}");
}

#[tokio::test]
async fn an_event_stream_goes_over_tls_too() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml(""));
    for is_kept in [false, true] {
        let mut stream = pair.connect(node.clients, &[&TLS13]).await.expect("TLS");
        if is_kept {
            // hyper has spoken on it before, and gives it away with its state.
            within("a request", stream.write_all(b"HEAD /fanfare.js HTTP/1.1\r\nHost: h\r\n\r\n")).await.expect("open");
            assert!(answer_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
        }
        within("a request", stream.write_all(b"GET /room/a/sse HTTP/1.1\r\nHost: h\r\n\r\n")).await.expect("open");
        let head = answer_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
        wait_until("the room to be entered", async || node.occupancy("a") == 1).await;
        request(node.admin, "POST", "/api/publish?room=a", &[("Content-Type", "text/plain")], "sealed").await;
        request(node.admin, "DELETE", "/api/rooms/a", &[], "").await;
        let events = String::from_utf8(rest(&mut stream).await).expect("UTF-8");
        assert!(
            events.contains("\"message\":\"sealed\"") && events.ends_with("\"reason\":\"room closed\"}\n\n"),
            "{events}"
        );
    }
    node.wait_for_metric("fanfare_closes_total{reason=\"room_closed\"}", 2.0).await;
}

#[tokio::test]
async fn a_room_is_heard_over_tls_and_who_does_not_read_is_evicted_alone() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml("[limits]\noutbox_bytes_max = 100_000\n[heartbeat]\nping_ms = 60_000"));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a socket");
    let stream = within("a connection", socket.connect(node.clients)).await.expect("a listener");
    let mut stalled = pair.over(stream, &[&TLS13]).await.expect("TLS");
    stalled.write_all(handshake("/room/a?format=text", node.clients, "").as_bytes()).await.expect("open");
    answer_head(&mut stalled).await;
    let mut reader = pair.websocket(node.clients, "/room/a?format=text").await;
    crate::support::wait_until("both to be in the room", async || node.occupancy("a") == 2).await;
    let text = "x".repeat(4_000);
    let mut published = 0;
    while node.metric(r#"fanfare_closes_total{reason="slow_consumer"}"#).await == 0.0 {
        for _ in 0..50 {
            let headers = [("content-type", "text/plain")];
            let body = format!("{published} {text}");
            assert_eq!(request(node.admin, "POST", "/api/publish?room=a", &headers, &body).await.status, 200);
            let heard = within("a message", reader.next()).await.expect("a message").expect("no failure");
            assert_eq!(heard, Message::text(body));
            published += 1;
        }
        assert!(published < 10_000, "a reader that stalls is found out");
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 1.0);
}

/// What TLS has made of the last frames goes out by itself once there is room: nothing further is sent that would push it.
#[tokio::test]
async fn who_reads_late_gets_everything() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml("[heartbeat]\nping_ms = 60_000"));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a socket");
    let stream = within("a connection", socket.connect(node.clients)).await.expect("a listener");
    let mut late = pair.over(stream, &[&TLS13]).await.expect("TLS");
    late.write_all(handshake("/room/a?format=text", node.clients, "").as_bytes()).await.expect("open");
    answer_head(&mut late).await;
    crate::support::wait_until("the room to be entered", async || node.occupancy("a") == 1).await;
    let mut expected = Vec::new();
    let mut published = 0_u8;
    // Until something waits in the outbox; and what is in front of it is full then.
    while node.metric("fanfare_outbox_bytes").await < 50_000.0 {
        let body = char::from(b'a' + published % 26).to_string().repeat(10_000);
        let headers = [("content-type", "text/plain")];
        assert_eq!(request(node.admin, "POST", "/api/publish?room=a", &headers, &body).await.status, 200);
        expected.extend([&[0x81, 126], &10_000_u16.to_be_bytes()[..], body.as_bytes()].concat());
        published = published.checked_add(1).expect("a queue that fills up");
    }
    let mut heard = vec![0; expected.len()];
    within("all of it", late.read_exact(&mut heard)).await.expect("an open connection");
    assert!(heard == expected);
    node.wait_for_metric("fanfare_outbox_bytes", 0.0).await;
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate_and_drops_nobody() {
    let mut pair = Pair::new();
    let node = TestNode::dev(&pair.toml(""));
    let mut before = pair.websocket(node.clients, "/echo").await;
    assert_eq!(node.hub.reload_certificates(), Ok(false), "nothing has changed");
    let old = pair.certificate.clone();
    pair.renew();
    assert_eq!(node.hub.reload_certificates(), Ok(true));
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().expect("a chain")[0].clone();
    let stream = pair.connect(node.clients, &[&TLS12]).await.expect("TLS with the new certificate");
    assert!(shown(&stream) == pair.certificate && pair.certificate != old);

    // A key of another certificate changes nothing, and says why; said once, and until it is mended.
    let good = fs::read(pair.folder.path().join("key.pem")).expect("a file");
    let other = Pair::new();
    fs::copy(other.folder.path().join("key.pem"), pair.folder.path().join("key.pem")).expect("a file");
    let refused = node.hub.reload_certificates().expect_err("a wrong pair");
    assert!(refused.contains("cert.pem") && refused.contains("key.pem"), "{refused}");
    assert_eq!(node.hub.reload_certificates(), Ok(false));
    fs::write(pair.folder.path().join("key.pem"), b"-----BEGIN RUBBISH-----\n").expect("a file");
    assert!(node.hub.reload_certificates().expect_err("no key").contains("holds no key"));
    fs::remove_file(pair.folder.path().join("key.pem")).expect("a file");
    assert!(node.hub.reload_certificates().is_err());
    let stream = pair.connect(node.clients, &[&TLS13]).await.expect("TLS with the new certificate");
    assert!(shown(&stream) == pair.certificate);
    fs::write(pair.folder.path().join("key.pem"), good).expect("a file");
    assert_eq!(node.hub.reload_certificates(), Ok(true));

    within("a message to be sent", before.send(Message::text("still here"))).await.expect("open");
    let echo = within("an echo", before.next()).await.expect("an echo").expect("no failure");
    assert_eq!(echo, Message::text("still here"));
}

#[tokio::test]
async fn what_is_no_tls_gets_a_clear_end() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml(""));
    let mut plain = node.raw().await;
    plain.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    plain.answer().await.expect_problem(400, "tls_required");
    // A greeting that is none, and one that does not go on.
    let mut broken = node.raw().await;
    broken.send(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff]).await;
    let alert = broken.rest().await;
    assert_eq!(alert.first(), Some(&0x15), "an alert of TLS: {alert:?}");
    node.wait_for_metric("fanfare_tls_handshakes_total{result=\"not_tls\"}", 1.0).await;
    node.wait_for_metric("fanfare_tls_handshakes_total{result=\"failed\"}", 1.0).await;
    // Time enough for a handshake of TLS on a busy machine.
    let hasty = TestNode::dev(&pair.toml("[limits]\nhandshake_ms_max = 2000"));
    let mut slow = hasty.raw().await;
    slow.send(&[0x16, 3, 1]).await;
    // The handshake alone is no request: the same time is for both.
    let mut silent = pair.connect(hasty.clients, &[&TLS13]).await.expect("TLS");
    slow.end().await;
    within("the end", async { while silent.read_u8().await.is_ok() {} }).await;
    hasty.wait_for_metric("fanfare_tls_handshakes_total{result=\"failed\"}", 1.0).await;
    for node in [&node, &hasty] {
        assert_eq!(node.metric("fanfare_connections").await, 0.0);
    }
}

#[tokio::test]
async fn the_least_version_is_the_operators_choice() {
    let pair = Pair::new();
    let node = TestNode::dev(&pair.toml("").replace("[tls]", "[tls]\nmin_version = \"1.3\""));
    assert!(pair.connect(node.clients, &[&TLS12]).await.is_err());
    assert!(pair.connect(node.clients, &[&TLS13]).await.is_ok());
}

/// A TCP balancer says from where a connection comes, and the client's TLS follows.
#[tokio::test]
async fn a_proxys_header_stands_before_tls() {
    let pair = Pair::new();
    let more = "[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.1\"]\nprotocol = \"required\"";
    let node = TestNode::dev(&pair.toml(more));
    let mut raw = Raw::open(node.clients).await;
    raw.send(b"PROXY TCP4 198.51.100.1 127.0.0.1 4711 443\r\n").await;
    let stream = pair.over(raw.stream, &[&TLS13]).await.expect("TLS");
    let opened = client_async(format!("ws://{}/ws", node.clients), stream);
    let (_socket, _) = within("a handshake", opened).await.expect("a connection");
    let mut again = Raw::open(node.clients).await;
    again.send(b"PROXY TCP4 198.51.100.1 127.0.0.1 4711 443\r\n").await;
    again.answer().await.expect_problem(429, "connections_per_ip_max");
}

#[test]
fn a_pair_that_does_not_fit_stops_the_start() {
    let (one, two) = (Pair::new(), Pair::new());
    let refused = |toml: String| {
        let file = ConfigFile::new("test.toml", toml);
        let config = Config::serve(&Flags::default(), Some(&file), &Environment::default());
        config.expect_err("a configuration that is refused").to_string()
    };
    let path = |pair: &Pair, name: &str| pair.folder.path().join(name);
    let pair = |certificate, key| format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let error = refused(pair(path(&one, "cert.pem"), path(&two, "key.pem")));
    assert!(error.contains("test.toml:2:1") && error.contains("cert.pem and"), "{error}");
    let error = refused(pair(path(&one, "key.pem"), path(&one, "key.pem")));
    assert!(error.contains("holds no certificate"), "{error}");
    let error = refused(pair(path(&one, "cert.pem"), path(&one, "none.pem")));
    assert!(error.contains("none.pem: No such file"), "{error}");
    let error = refused(format!("[tls]\ncertificate = {:?}\n", path(&one, "cert.pem")));
    assert!(error.contains("without `tls.key`"), "{error}");
    let error = refused(format!("listen = \"unix:/run/x\"\n{}", one.toml("")));
    assert!(error.contains("needs TCP"), "{error}");
}
