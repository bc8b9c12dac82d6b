//! RFC 6455 at its edges, with frames written by hand: what is refused, with which code, and what is not.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Client, Frame, Raw, TestNode, close_frame, frame, request, wait_until};

/// A frame with a length written in a form of one's own choice.
fn frame_with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | length[0]], &length[1..], &[0; 4], payload].concat()
}

/// Sends these bytes to `/echo` on a connection of their own; it must be closed with this code and a reason, and end.
async fn check_closed(node: &TestNode, what: &str, bytes: &[u8], code: u16) {
    let mut raw = node.upgrade("/echo").await;
    raw.send(bytes).await;
    let (told, reason) = raw.closed().await;
    assert_eq!(told, code, "{what}: {reason}");
    assert!(!reason.is_empty() && reason.len() <= 123, "{what}: {reason:?}");
    raw.stream.shutdown().await.unwrap();
    raw.end().await;
}

async fn check_all_closed(node: &TestNode, cases: &[(&str, Vec<u8>)], code: u16, label: &str) {
    join_all(cases.iter().map(|(what, bytes)| check_closed(node, what, bytes, code))).await;
    node.wait_for_metric(&format!("fanfare_closes_total{{reason=\"{label}\"}}"), cases.len() as f64).await;
    node.wait_for_metric("fanfare_connections", 0.0).await;
}

/// An echo connection that still works.
async fn check_echoes(raw: &mut Raw) {
    raw.send(&frame(0x81, b"still here")).await;
    assert_eq!(raw.frame().await.text(), "still here");
}

#[tokio::test]
async fn frames_that_break_the_rules_are_1002() {
    let node = TestNode::dev("");
    let mut cases = vec![
        ("unmasked text", vec![0x81, 1, b'x']),
        ("unmasked empty text", vec![0x81, 0]),
        ("unmasked close", vec![0x88, 2, 3, 0xe8]),
        ("unmasked pong", vec![0x8a, 0]),
        ("first reserved bit", frame(0xc1, b"x")),
        ("second reserved bit", frame(0xa1, b"x")),
        ("third reserved bit", frame(0x91, b"x")),
        ("reserved bit on a ping", frame(0xc9, b"")),
        ("reserved bit on a continuation", [frame(0x01, b"x"), frame(0xc0, b"x")].concat()),
        ("fragmented close", frame(0x08, b"")),
        ("fragmented ping", frame(0x09, b"")),
        ("fragmented pong", frame(0x0a, b"")),
        ("ping of 126 bytes", frame(0x89, &[b'x'; 126])),
        ("close of 126 bytes", frame(0x88, &[b'x'; 126])),
        ("pong of 65536 bytes", frame(0x8a, &[b'x'; 65_536])),
        ("length with its top bit", frame_with_length(0x82, &[127, 0x80, 0, 0, 0, 0, 0, 0, 1], b"x")),
        ("length of all ones", frame_with_length(0x82, &[127, 255, 255, 255, 255, 255, 255, 255, 255], b"x")),
        ("5 bytes in 16 bits", frame_with_length(0x82, &[126, 0, 5], b"hello")),
        ("125 bytes in 16 bits", frame_with_length(0x82, &[126, 0, 125], &[b'x'; 125])),
        ("126 bytes in 64 bits", frame_with_length(0x82, &[127, 0, 0, 0, 0, 0, 0, 0, 126], &[b'x'; 126])),
        ("65535 bytes in 64 bits", frame_with_length(0x82, &[127, 0, 0, 0, 0, 0, 0, 255, 255], &[b'x'; 65_535])),
        ("continuation of nothing", frame(0x80, b"x")),
        ("unfinished continuation of nothing", frame(0x00, b"x")),
        ("text within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
        ("binary within a message", [frame(0x01, b"x"), frame(0x02, b"y")].concat()),
        ("close with half a code", frame(0x88, &[3])),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("reserved opcode", frame(0x80 | opcode, b"x")));
        cases.push(("reserved opcode, unfinished", frame(opcode, b"")));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65_535] {
        cases.push(("close code that may not be sent", close_frame(code, "")));
    }
    check_all_closed(&node, &cases, 1002, "protocol_error").await;

    // What came before in good order is answered first.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x01, b""), frame(0x80, b""), frame(0x80, b"")].concat()).await;
    assert_eq!(raw.frame().await.text(), "");
    assert_eq!(raw.closed().await.0, 1002);
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_1007() {
    let node = TestNode::dev("");
    let unfinished = |first, payload: &[u8]| {
        // A hundred bytes are announced; these come.
        let mut bytes = frame(first, &[payload, &vec![b'x'; 100 - payload.len()]].concat());
        bytes.truncate(6 + payload.len());
        bytes
    };
    let cases = [
        ("a stray byte", frame(0x81, b"caf\xe9")),
        ("an overlong form", frame(0x81, b"\xc0\x80")),
        ("an overlong form of three", frame(0x81, b"\xe0\x80\xaf")),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80")),
        ("beyond the last character", frame(0x81, b"\xf4\x90\x80\x80")),
        ("a continuation byte alone", frame(0x81, b"\x80")),
        ("cut at the end", frame(0x81, b"x\xe2\x82")),
        ("broken over fragments", [frame(0x01, b"\xe2"), frame(0x80, b"\x28\xa1")].concat()),
        ("cut at the end of the last fragment", [frame(0x01, b"\xe2"), frame(0x80, b"\x82")].concat()),
        ("cut, with an empty last fragment", [frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat()),
        // Not waited out: the rest of the message never comes.
        ("early in a message", frame(0x01, b"caf\xe9 ")),
        ("early in a frame", unfinished(0x81, b"caf\xe9 ")),
        ("early in a later fragment", [frame(0x01, b"ok \xe2"), unfinished(0x00, b"\x28")].concat()),
        ("a surrogate, known by its second byte", unfinished(0x81, b"\xed\xa0")),
        ("a close reason", frame(0x88, b"\x03\xe8caf\xe9")),
    ];
    check_all_closed(&node, &cases, 1007, "bad_utf8").await;
    // Binary may be anything.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&frame(0x82, b"caf\xe9")).await;
    assert_eq!(raw.frame().await, Frame { first: 0x82, payload: b"caf\xe9".to_vec() });
}

#[tokio::test]
async fn messages_over_the_limit_are_1009_as_soon_as_they_are_announced() {
    let node = TestNode::dev("limits.message_bytes_max = 300");
    let announced = |first, bytes: u64| {
        let mut length = vec![127];
        length.extend(bytes.to_be_bytes());
        frame_with_length(first, &length, b"")
    };
    let cases = [
        ("whole", frame(0x82, &[0; 301])),
        ("announced", frame(0x81, &[b'x'; 301])[..8].to_vec()),
        ("gigabytes announced", announced(0x82, 1 << 33)),
        ("all that 63 bits hold", announced(0x82, i64::MAX as u64)),
        ("over fragments", [frame(0x02, &[0; 200]), frame(0x00, &[0; 100]), frame(0x80, &[0; 1])].concat()),
        ("announced by a fragment", [frame(0x02, &[0; 200]), announced(0x00, 1 << 40)].concat()),
    ];
    check_all_closed(&node, &cases, 1009, "message_too_big").await;
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x02, &[1; 200]), frame(0x80, &[2; 100])].concat()).await;
    assert_eq!(raw.frame().await.payload.len(), 300);
    // Control frames are no part of the message and its limit.
    raw.send(&[frame(0x02, &[1; 250]), frame(0x89, &[9; 125]), frame(0x80, &[2; 50])].concat()).await;
    assert_eq!(raw.frame().await.first, 0x8a);
    assert_eq!(raw.frame().await.payload.len(), 300);
}

#[tokio::test]
async fn messages_in_too_many_fragments_are_1008() {
    let node = TestNode::dev("limits.fragments_max = 50");
    let mut raw = node.upgrade("/echo").await;
    let mut bytes = frame(0x01, b"a");
    (0..48).for_each(|_| bytes.extend(frame(0x00, b"b")));
    raw.send(&[bytes.clone(), frame(0x80, b"c")].concat()).await;
    assert_eq!(raw.frame().await.payload.len(), 50);
    raw.send(&bytes).await;
    raw.send(&frame(0x00, b"d")).await;
    raw.send(&frame(0x80, b"e")).await;
    assert_eq!(raw.closed().await, (1008, "message in too many fragments".to_owned()));
}

#[tokio::test]
async fn fragments_are_put_together() {
    let node = TestNode::dev("");
    let mut raw = node.upgrade("/echo").await;
    for (fragments, expected) in [
        (vec![frame(0x01, b"one"), frame(0x80, b"two")], "onetwo"),
        (vec![frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")], ""),
        (vec![frame(0x01, b""), frame(0x00, b"x"), frame(0x00, b""), frame(0x80, b"y")], "xy"),
        // A character over three fragments.
        (vec![frame(0x01, b"\xf0\x9f"), frame(0x00, b"\x8e"), frame(0x80, b"\xba!")], "🎺!"),
    ] {
        // In one write, and in a write each.
        raw.send(&fragments.concat()).await;
        assert_eq!(raw.frame().await.text(), expected);
        for fragment in &fragments {
            raw.send(fragment).await;
        }
        assert_eq!(raw.frame().await.text(), expected);
    }
    let parts: Vec<Vec<u8>> = (0u8..=255).map(|byte| vec![byte; 250]).collect();
    for (index, part) in parts.iter().enumerate() {
        let first = if index == 0 { 0x02 } else { 0x00 };
        raw.send(&frame(if index == 255 { 0x80 } else { first }, part)).await;
    }
    assert_eq!(raw.frame().await, Frame { first: 0x82, payload: parts.concat() });
}

#[tokio::test]
async fn frames_may_come_byte_by_byte() {
    let node = TestNode::dev("");
    let mut raw = node.upgrade("/echo").await;
    let long = vec![7; 65_536];
    for (bytes, expected) in [
        (frame(0x81, b""), &b""[..]),
        (frame(0x81, b"hello"), b"hello"),
        (frame(0x82, &[5; 300]), &[5; 300]),
        ([frame(0x01, b"caf\xc3"), frame(0x89, b""), frame(0x80, b"\xa9")].concat(), "café".as_bytes()),
        (frame(0x82, &long), &long),
    ] {
        // The header and the first of the payload bit by bit; what is long follows in one.
        let slow = bytes.len().min(400);
        for byte in &bytes[..slow] {
            raw.send(&[*byte]).await;
        }
        raw.send(&bytes[slow..]).await;
        let mut echo = raw.frame().await;
        if echo.first == 0x8a {
            echo = raw.frame().await;
        }
        assert_eq!(echo.payload, expected);
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_even_within_a_message() {
    let node = TestNode::dev("");
    let mut raw = node.upgrade("/echo").await;
    for length in [0, 1, 124, 125] {
        let payload = vec![0xee; length];
        raw.send(&frame(0x89, &payload)).await;
        assert_eq!(raw.frame().await, Frame { first: 0x8a, payload });
    }
    raw.send(&[frame(0x01, b"one "), frame(0x89, b"in between")].concat()).await;
    assert_eq!(raw.frame().await, Frame { first: 0x8a, payload: b"in between".to_vec() });
    raw.send(&[frame(0x8a, b"unasked"), frame(0x80, b"two")].concat()).await;
    assert_eq!(raw.frame().await.text(), "one two");
    // Answers come in the order of what they answer.
    raw.send(&[frame(0x81, b"1"), frame(0x89, b"2"), frame(0x81, b"3"), frame(0x89, b"4")].concat()).await;
    for (first, payload) in [(0x81, b"1"), (0x8a, b"2"), (0x81, b"3"), (0x8a, b"4")] {
        assert_eq!(raw.frame().await, Frame { first, payload: payload.to_vec() });
    }
    raw.send(&[frame(0x01, b"5"), frame(0x89, b"6"), frame(0x80, b"7")].concat()).await;
    assert_eq!(raw.frame().await, Frame { first: 0x8a, payload: b"6".to_vec() });
    assert_eq!(raw.frame().await.text(), "57");
    // Each of many, in order.
    let pings: Vec<u8> = (0..200u8).flat_map(|number| frame(0x89, &[number])).collect();
    raw.send(&pings).await;
    for number in 0..200 {
        assert_eq!(raw.frame().await, Frame { first: 0x8a, payload: vec![number] });
    }
}

#[tokio::test]
async fn close_frames_are_answered_with_their_code_and_the_connection_ends() {
    let node = TestNode::dev("");
    let mut closes = 0.0;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let mut raw = node.upgrade("/echo").await;
        raw.send(&close_frame(code, "a reason, up to 123 bytes")).await;
        let answer = raw.frame().await;
        assert_eq!((answer.first, &answer.payload[..2]), (0x88, &code.to_be_bytes()[..]), "{code}");
        raw.end().await;
        closes += 1.0;
    }
    // None is answered with none; the longest reason is no reason to refuse.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&frame(0x88, b"")).await;
    assert_eq!(raw.frame().await, Frame { first: 0x88, payload: Vec::new() });
    raw.end().await;
    let mut raw = node.upgrade("/echo").await;
    raw.send(&close_frame(1000, &"x".repeat(123))).await;
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", closes + 2.0).await;
}

#[tokio::test]
async fn what_follows_a_close_frame_is_not_looked_at() {
    let node = TestNode::dev("");
    for after in [frame(0x81, b"more"), frame(0x89, b""), vec![0xff; 1_000], close_frame(1001, "")] {
        let mut raw = node.upgrade("/echo").await;
        raw.send(&[frame(0x81, b"before"), close_frame(1000, ""), after].concat()).await;
        assert_eq!(raw.frame().await.text(), "before");
        assert_eq!(raw.closed().await.0, 1000);
        raw.end().await;
    }
    // A close frame within a message gives the message up.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x01, b"unfinished"), close_frame(1000, "")].concat()).await;
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
}

#[tokio::test]
async fn after_its_own_close_frame_the_gateway_takes_the_answer_and_nothing_else() {
    let node = TestNode::dev("heartbeat.close_ms = 10000");
    let mut raw = node.upgrade("/helloworld").await;
    raw.send(&frame(0x81, b"close")).await;
    assert_eq!(raw.closed().await.0, 1000);
    // Neither answered nor an offence.
    raw.send(&[frame(0x81, b"helloworld"), frame(0x89, b"ping")].concat()).await;
    raw.send(&close_frame(1000, "")).await;
    raw.end().await;

    // Who does not answer is not waited for longer than that takes.
    let hasty = TestNode::dev("heartbeat.close_ms = 50");
    let mut raw = hasty.upgrade("/helloworld").await;
    raw.send(&frame(0x81, b"close")).await;
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
}

#[tokio::test]
async fn after_a_broken_frame_the_answer_to_the_close_still_ends_the_connection() {
    let node = TestNode::dev("heartbeat.close_ms = 60000");
    for broken in [frame(0xf1, b"x"), vec![0x81, 3, b'a', b'b', b'c'], frame(0x81, b"\xff"), frame(0x80, b"x")] {
        let mut raw = node.upgrade("/echo").await;
        raw.send(&broken).await;
        raw.closed().await;
        raw.send(&close_frame(1000, "")).await;
        raw.end().await;
    }
}

#[tokio::test]
async fn who_is_closed_while_sending_is_told_why_instead_of_being_reset() {
    let node = TestNode::dev("heartbeat.close_ms = 600000");
    let long = vec![0; 4 << 20];
    for (bytes, code) in [
        (frame(0x82, &long), 1009),
        ([frame(0x81, b"\xff"), frame(0x82, &long)].concat(), 1007),
        ([frame(0xf1, b""), long].concat(), 1002),
    ] {
        let mut raw = node.upgrade("/echo").await;
        // A reset would break this write, or take what was to be read away.
        raw.send(&bytes).await;
        assert_eq!(raw.closed().await.0, code);
        raw.end().await;
    }
    node.wait_for_metric("fanfare_connections", 0.0).await;

    // The same with a client that waits for the end in its own way.
    let mut client = node.connect("/echo").await;
    client.send(vec![0; 4 << 20]).await;
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test]
async fn who_is_closed_and_does_not_go_loses_its_place_all_the_same() {
    let pinging = "[heartbeat]\nping_ms = 50\npong_ms = 50\nclose_ms = 50";
    for (heartbeat, bytes, code) in [
        ("heartbeat.close_ms = 50", frame(0xf1, b""), 1002),
        ("heartbeat.close_ms = 50", frame(0x81, b"close"), 1000),
        // Says nothing at all, a pong neither.
        (pinging, Vec::new(), 4504),
    ] {
        let node = TestNode::dev(&format!("limits.connections_max = 1\n{heartbeat}"));
        let mut raw = Raw::let_in(node.clients, "/helloworld").await;
        raw.send(&bytes).await;
        let mut last = raw.frame().await;
        while last.first == 0x89 {
            last = raw.frame().await;
        }
        assert_eq!(last.payload[..2], u16::to_be_bytes(code));
        let has_place = async || Client::try_connect(node.clients, "/helloworld", &[]).await.is_ok();
        wait_until("a place for another", has_place).await;
        wait_until("the other to be gone", async || has_gone(&node).await).await;
        // Not because it went.
        drop(raw);
    }
}

/// Nobody is connected, and the one place of the node is free.
async fn has_gone(node: &TestNode) -> bool {
    node.metric("fanfare_connections").await == 0.0 && request(node.clients, "GET", "/", &[], "").await.status == 200
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_its_answers() {
    let node = TestNode::dev("");
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x81, b"one"), frame(0x82, &[2; 60_000])].concat()).await;
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.frame().await.text(), "one");
    assert_eq!(raw.frame().await.payload.len(), 60_000);
    raw.end().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"connection_lost\"}", 1.0).await;

    // Also when it ends it in good manners.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x81, b"one"), close_frame(1000, "")].concat()).await;
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.frame().await.text(), "one");
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", 1.0).await;
}

/// The same where the answers are more than the sockets between us take: its end is seen while they wait.
#[tokio::test]
async fn a_client_that_ends_its_side_and_reads_later_gets_its_answers() {
    const EACH: u8 = 60;
    let node = TestNode::dev("heartbeat.close_ms = 600000");
    let mut raw = Raw::stalled(node.clients, "/echo").await;
    // All of them are less than what makes the gateway pause, and more than the sockets take.
    for number in 0..EACH {
        raw.send(&frame(0x82, &[number; 1_000])).await;
    }
    raw.stream.shutdown().await.unwrap();
    node.wait_for_metric("fanfare_closes_total{reason=\"connection_lost\"}", 1.0).await;
    assert!(node.hub.budget().used() > 0, "something waits for it");
    for number in 0..EACH {
        assert_eq!(raw.frame().await, Frame { first: 0x82, payload: vec![number; 1_000] });
    }
    raw.end().await;
    node.wait_for_metric("fanfare_outbox_bytes", 0.0).await;

    // Who never takes them is not waited for for longer than a close may take.
    let hasty = TestNode::dev("heartbeat.close_ms = 50");
    let mut raw = Raw::stalled(hasty.clients, "/echo").await;
    for number in 0..EACH {
        raw.send(&frame(0x82, &[number; 1_000])).await;
    }
    raw.stream.shutdown().await.unwrap();
    hasty.wait_for_metric("fanfare_closes_total{reason=\"connection_lost\"}", 1.0).await;
    hasty.wait_for_metric("fanfare_outbox_bytes", 0.0).await;
}

#[tokio::test]
async fn one_clients_broken_frames_are_nobody_elses_affair() {
    let node = TestNode::dev("shards = 1");
    let mut bystander = node.upgrade("/echo").await;
    for round in 0u8..50 {
        let mut raw = node.upgrade("/echo").await;
        let garbage: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(round).wrapping_add(round ^ 0x5a)).collect();
        raw.send(&garbage).await;
        drop(raw);
        check_echoes(&mut bystander).await;
    }
    node.wait_for_metric("fanfare_connections", 1.0).await;
}
