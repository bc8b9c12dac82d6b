//! Proxies before the gateway: who is believed about where a client comes from, and what counts by it.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::support::{Answer, Raw, TestNode, handshake, wait_until, within};

/// A socket from this address of the loopback network.
async fn from(own: &str, to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(own.parse().expect("an address"), 0)).expect("an address of this machine");
    Raw::over(within("a connection", socket.connect(to)).await.expect("a listener"))
}

const CLIENT: &str = "127.0.0.1";
const PROXY: &str = "127.0.0.2";

/// First bytes, then a handshake with more headers: the socket and what is answered.
async fn knock(own: &str, node: &TestNode, first: &[u8], headers: &str) -> (Raw, Answer) {
    let mut raw = from(own, node.clients).await;
    raw.send(&[first, handshake("/ws", node.clients, headers).as_bytes()].concat()).await;
    let head = raw.head().await;
    (raw, head)
}

async fn expect_refusal((mut raw, mut head): (Raw, Answer), status: u16, code: &str) {
    let length = head.header("content-length").expect("a length").parse().expect("a number");
    head.body = raw.take(length).await;
    head.expect_problem(status, code);
}

fn forwarded(clients: &str) -> String {
    format!("X-Forwarded-For: {clients}\r\n")
}

#[tokio::test]
async fn what_strangers_say_of_themselves_is_ignored() {
    let node = TestNode::dev(
        "[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.2\", \"192.0.2.0/24\"]\nprotocol = \"optional\"",
    );
    let (_first, head) = knock(CLIENT, &node, b"", &forwarded("198.51.100.1")).await;
    assert_eq!(head.status, 101);
    for headers in [forwarded("198.51.100.2"), "Forwarded: for=198.51.100.3\r\n".to_owned(), forwarded("192.0.2.1")] {
        expect_refusal(knock(CLIENT, &node, b"", &headers).await, 429, "connections_per_ip_max").await;
    }
    // From one who may not send it a header of the PROXY protocol is no request either.
    let header = b"PROXY TCP4 198.51.100.4 127.0.0.1 4711 80\r\n";
    expect_refusal(knock("127.0.0.3", &node, header, "").await, 400, "bad_request").await;
    assert_eq!(node.metric("fanfare_via_proxy_total{result=\"named\"}").await, 0.0);
}

#[tokio::test]
async fn clients_behind_a_proxy_have_places_of_their_own() {
    let node = TestNode::dev("[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.2/31\"]");
    let (first, head) = knock(PROXY, &node, b"", &forwarded("198.51.100.1")).await;
    assert_eq!(head.status, 101);
    let (_second, head) = knock(PROXY, &node, b"", &forwarded("198.51.100.2")).await;
    assert_eq!(head.status, 101);
    // What the client itself wrote stands to the left, what another trusted proxy wrote to the right.
    for clients in
        ["198.51.100.1", "203.0.113.9, 198.51.100.1", "203.0.113.9, 198.51.100.1, 127.0.0.3", "::ffff:198.51.100.1"]
    {
        expect_refusal(knock(PROXY, &node, b"", &forwarded(clients)).await, 429, "connections_per_ip_max").await;
    }
    // Whom nobody names cannot be counted, and so is not let in.
    for headers in [String::new(), forwarded("unknown"), "Forwarded: for=198.51.100.9\r\n".to_owned()] {
        expect_refusal(knock(PROXY, &node, b"", &headers).await, 400, "client_unknown").await;
    }
    assert_eq!(node.metric("fanfare_via_proxy_total{result=\"unknown\"}").await, 3.0);
    drop(first);
    let again = forwarded("198.51.100.1");
    wait_until("the place", async || knock(PROXY, &node, b"", &again).await.1.status == 101).await;
}

/// A proxy keeps its connections and sends the requests of many clients over them.
#[tokio::test]
async fn a_kept_alive_connection_of_a_proxy_is_nobodys_until_it_is_upgraded() {
    let node = TestNode::dev("[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.2\"]");
    let page = |client: &str| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n");
    let upgrade = |client: &str| handshake("/ws", node.clients, &forwarded(client));
    let mut kept = Vec::new();
    for client in ["198.51.100.1", "198.51.100.1", "198.51.100.2"] {
        let mut raw = from(PROXY, node.clients).await;
        for _ in 0..2 {
            raw.send(page(client).as_bytes()).await;
            assert_eq!(raw.answer().await.status, 200);
        }
        kept.push(raw);
    }
    let [mut first, mut second, _] = <[Raw; 3]>::try_from(kept).ok().expect("three");
    first.send(upgrade("198.51.100.1").as_bytes()).await;
    assert_eq!(first.head().await.status, 101);
    second.send(upgrade("198.51.100.1").as_bytes()).await;
    second.answer().await.expect_problem(429, "connections_per_ip_max");
    second.send(upgrade("198.51.100.3").as_bytes()).await;
    assert_eq!(second.head().await.status, 101, "the refused socket is used for another client");
    drop(first);
    let again = forwarded("198.51.100.1");
    wait_until("the place", async || knock(PROXY, &node, b"", &again).await.1.status == 101).await;
}

#[tokio::test]
async fn forwarded_is_read_where_the_proxy_writes_it() {
    let node = TestNode::dev(
        "[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.2\"]\nheader = \"forwarded\"",
    );
    let header = |client: &str, forged: &str| format!("X-Forwarded-For: {forged}\r\nForwarded: {client}\r\n");
    let (_first, head) = knock(PROXY, &node, b"", &header("for=\"[2001:db8::1]:4711\"", "198.51.100.1")).await;
    assert_eq!(head.status, 101);
    let again = header("for=198.51.100.1, for=\"[2001:db8::1]\";proto=https", "198.51.100.2");
    expect_refusal(knock(PROXY, &node, b"", &again).await, 429, "connections_per_ip_max").await;
}

fn version_2(command: u8, family: u8, after: &[u8]) -> Vec<u8> {
    let length = (after.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, after].concat()
}

fn tcp4(client: [u8; 4]) -> Vec<u8> {
    version_2(0x21, 0x11, &[&client[..], &[127, 0, 0, 1, 0x12, 0x67, 0, 80], b"\x02\x00\x04host"].concat())
}

#[tokio::test]
async fn headers_of_the_proxy_protocol_name_clients() {
    let node = TestNode::dev(
        "[limits]\nconnections_per_ip_max = 1\n[proxy]\ntrusted = [\"127.0.0.2\"]\nprotocol = \"optional\"",
    );
    let line = b"PROXY TCP4 198.51.100.1 127.0.0.1 4711 80\r\n";
    let (_first, head) = knock(PROXY, &node, line, "").await;
    assert_eq!(head.status, 101);
    let (_second, head) = knock(PROXY, &node, &tcp4([198, 51, 100, 2]), "").await;
    assert_eq!(head.status, 101);
    // Both versions count alike, and at once: the request need not come. What the request says counts only behind a further proxy.
    let mut raw = from(PROXY, node.clients).await;
    raw.send(&tcp4([198, 51, 100, 1])).await;
    raw.answer().await.expect_problem(429, "connections_per_ip_max");
    let lie = forwarded("198.51.100.77");
    expect_refusal(knock(PROXY, &node, &tcp4([198, 51, 100, 2]), &lie).await, 429, "connections_per_ip_max").await;
    let (_third, head) = knock(PROXY, &node, &tcp4([127, 0, 0, 2]), &forwarded("198.51.100.3")).await;
    assert_eq!(head.status, 101);
    expect_refusal(
        knock(PROXY, &node, b"PROXY TCP4 198.51.100.3 127.0.0.1 4711 80\r\n", "").await,
        429,
        "connections_per_ip_max",
    )
    .await;
    // The proxy's own connections are as many as it likes; one of which it says nothing is nobody's.
    for _ in 0..3 {
        let mut raw = from(PROXY, node.clients).await;
        raw.send(&[&version_2(0x20, 0, b"")[..], b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"].concat()).await;
        assert_eq!(raw.answer().await.status, 200);
        let (_own, head) = knock(PROXY, &node, &version_2(0x20, 0, b""), "").await;
        assert_eq!(head.status, 101);
    }
    expect_refusal(knock(PROXY, &node, b"PROXY UNKNOWN\r\n", "").await, 400, "client_unknown").await;
    expect_refusal(knock(PROXY, &node, &version_2(0x21, 0x31, &[b'/'; 216]), "").await, 400, "client_unknown").await;
    // Without a header the request says it, as this node is set up.
    let (_fourth, head) = knock(PROXY, &node, b"", &forwarded("198.51.100.4")).await;
    assert_eq!(head.status, 101);
    assert_eq!(node.metric("fanfare_via_proxy_total{result=\"itself\"}").await, 6.0);
    assert_eq!(node.metric("fanfare_via_proxy_total{result=\"named\"}").await, 8.0);
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_may_come_in_any_pieces() {
    let node = TestNode::dev("[proxy]\ntrusted = [\"127.0.0.2\"]\nprotocol = \"required\"");
    for header in [b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(), tcp4([198, 51, 100, 2])] {
        let mut raw = from(PROXY, node.clients).await;
        let bytes = [&header[..], handshake("/room/a?format=text", node.clients, "").as_bytes()].concat();
        for byte in &bytes {
            raw.send(&[*byte]).await;
        }
        assert_eq!(raw.head().await.status, 101);
        // And the request after it may come with the first message.
        let (mut raw, header) = (from(PROXY, node.clients).await, header);
        let handshake = handshake("/echo", node.clients, "");
        let message = crate::support::frame(0x81, b"early");
        raw.send(&[&header[..], handshake.as_bytes(), &message].concat()).await;
        assert_eq!(raw.head().await.status, 101);
        assert_eq!(raw.frame().await.text(), "early");
    }
}

#[tokio::test]
async fn where_the_proxy_protocol_is_required_nothing_else_comes_in() {
    let required = "[proxy]\ntrusted = [\"127.0.0.2\"]\nprotocol = \"required\"";
    let node = TestNode::dev(required);
    expect_refusal(knock(PROXY, &node, b"", &forwarded("198.51.100.1")).await, 400, "proxy_header").await;
    for malformed in
        [&b"PROXY TCP4 198.51.100.1\r\n"[..], &version_2(0x21, 0x11, &[0; 11]), &version_2(0x31, 0x11, &[0; 12])]
    {
        expect_refusal(knock(PROXY, &node, malformed, "").await, 400, "proxy_header").await;
    }
    let mut stranger = from(CLIENT, node.clients).await;
    stranger.answer().await.expect_problem(403, "proxy_untrusted");
    // One that does not come to its end is not waited for.
    let hasty = TestNode::dev(&format!("limits.handshake_ms_max = 300\n{required}"));
    let mut slow = from(PROXY, hasty.clients).await;
    slow.send(b"PROXY TCP4 198.51").await;
    slow.end().await;
    for (result, count) in [("missing", 1.0), ("malformed", 3.0), ("untrusted", 1.0), ("named", 0.0)] {
        assert_eq!(node.metric(&format!("fanfare_via_proxy_total{{result=\"{result}\"}}")).await, count, "{result}");
    }
    // The admin listener is the operator's: nobody stands before it.
    node.wait_until_ready().await;
}
