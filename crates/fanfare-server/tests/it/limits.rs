//! Limits at the door and on each connection: what is beyond is refused with its reason, and the place comes back.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

#[cfg(target_os = "linux")]
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

#[cfg(target_os = "linux")]
use crate::process::Process;
use crate::support::{Answer, Client, Raw, TestNode, frame, handshake, request, wait_until, within};

/// A bare socket from this address of the loopback net.
async fn open_from(source: [u8; 4], to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((IpAddr::from(source), 0).into()).expect("a loopback address");
    Raw::over(within("a connection", socket.connect(to)).await.expect("a listener"))
}

/// The answer to a handshake on a new connection from this address. Who is let in stays for as long as the socket.
async fn knock(source: [u8; 4], to: SocketAddr) -> (Raw, Answer) {
    let mut raw = open_from(source, to).await;
    raw.send(handshake("/room/a?format=text", to, "").as_bytes()).await;
    let head = raw.head().await;
    (raw, head)
}

async fn expect_refusal((mut raw, head): (Raw, Answer), status: u16, code: &str) {
    let length = head.header("content-length").expect("a length").parse().expect("a number");
    let body = raw.take(length).await;
    let answer = Answer { body, ..head };
    answer.expect_problem(status, code);
    assert_eq!(answer.header("retry-after"), Some("1"));
    raw.end().await;
}

const ONE: [u8; 4] = [127, 0, 0, 1];
const TWO: [u8; 4] = [127, 0, 0, 2];

#[tokio::test]
async fn a_full_node_says_503_and_a_place_that_is_left_comes_back() {
    let node = TestNode::dev("[limits]\nconnections_max = 3");
    let (first, head) = knock(ONE, node.clients).await;
    assert_eq!(head.status, 101);
    let (_second, head) = knock(TWO, node.clients).await;
    assert_eq!(head.status, 101);
    // A socket that has asked for the page alone has a place too, for as long as it stays.
    let mut reader = node.raw().await;
    reader.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(reader.answer().await.status, 200);
    expect_refusal(knock(ONE, node.clients).await, 503, "connections_max").await;
    let plain = request(node.clients, "GET", "/", &[], "").await;
    plain.expect_problem(503, "connections_max");
    assert_eq!(node.metric("fanfare_shed_total").await, 2.0);
    // The admin listener is the operator's: it is never full.
    node.wait_until_ready().await;

    drop(reader);
    let mut third = None;
    wait_until("the reader's place", async || {
        let (raw, head) = knock(ONE, node.clients).await;
        third = Some(raw);
        head.status == 101
    })
    .await;
    expect_refusal(knock(ONE, node.clients).await, 503, "connections_max").await;
    drop(first);
    wait_until("a connection's place", async || knock(ONE, node.clients).await.1.status == 101).await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let node = TestNode::dev("[limits]\nconnections_per_ip_max = 2");
    let (first, head) = knock(ONE, node.clients).await;
    assert_eq!(head.status, 101);
    let (_second, head) = knock(ONE, node.clients).await;
    assert_eq!(head.status, 101);
    for _ in 0..3 {
        expect_refusal(knock(ONE, node.clients).await, 429, "connections_per_ip_max").await;
    }
    let (_third, head) = knock(TWO, node.clients).await;
    assert_eq!(head.status, 101, "another address has places of its own");
    let (_fourth, head) = knock(TWO, node.clients).await;
    assert_eq!(head.status, 101);
    expect_refusal(knock(TWO, node.clients).await, 429, "connections_per_ip_max").await;
    assert_eq!(node.metric("fanfare_shed_total").await, 4.0);
    drop(first);
    wait_until("the place", async || knock(ONE, node.clients).await.1.status == 101).await;
}

#[tokio::test]
async fn there_are_no_more_rooms_than_allowed() {
    let node = TestNode::dev("[limits]\nrooms_max = 2\n[rooms]\nreap_ms = 10");
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let refused = client.ask(json!({"name": "subscribe", "room": "c", "id": 7})).await;
    assert_eq!(
        (&refused["name"], &refused["code"], &refused["id"]),
        (&json!("error"), &json!("limit_reached"), &json!(7))
    );
    let refused = client.ask(json!({"name": "publish", "room": "c", "message": 1, "id": "x"})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("limit_reached"), &json!("x")));
    let body = r#"{"room":"c","message":1}"#;
    let answer = request(node.admin, "POST", "/api/publish", &[], body).await;
    answer.expect_problem(503, "rooms_max");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut late = node.connect("/room/c").await;
    assert_eq!(late.closed().await.0, 4500);
    // The rooms there are go on as before.
    let mut other = node.enter("b", "?format=text").await;
    assert_eq!(request(node.admin, "POST", "/api/publish", &[], r#"{"room":"b","message":"x"}"#).await.status, 200);
    assert_eq!(other.text().await, "x");
    assert_eq!(client.event("message").await["message"], "x");
    assert_eq!(client.ask(json!({"name": "unsubscribe", "room": "a"})).await["name"], "unsubscribed");
    wait_until("the vacant room to make place", async || {
        request(node.admin, "POST", "/api/publish", &[], body).await.status == 200
    })
    .await;
    assert!(node.metric("fanfare_rooms").await <= 2.0);
}

#[tokio::test]
async fn a_connection_is_in_no_more_rooms_than_allowed() {
    let node = TestNode::dev("[limits]\nsubscriptions_per_connection_max = 2");
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let refused = client.ask(json!({"name": "subscribe", "room": "c", "id": 7})).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("limit_reached"), &json!(7)));
    assert_eq!(node.occupancy("c"), 0);
    client.subscribe("a").await;
    assert_eq!(client.ask(json!({"name": "unsubscribe", "room": "a"})).await["name"], "unsubscribed");
    client.subscribe("c").await;
    let mut other = node.connect("/ws").await;
    other.event("welcome").await;
    other.subscribe("a").await;
}

#[tokio::test]
async fn who_sends_too_fast_is_closed_with_4429() {
    let node = TestNode::dev("[limits]\nmessages_per_second_max = 5");
    let mut reader = node.enter("a", "?format=text").await;
    let mut fast = node.upgrade("/room/a?format=text").await;
    let burst: Vec<u8> = (0..200).flat_map(|n| frame(0x81, format!("m{n}").as_bytes())).collect();
    let begun = Instant::now();
    fast.send(&burst).await;
    // It may miss what the room sent it meanwhile: it is told why it must go, and nothing is out of order.
    let mut echoes = 0;
    let closed = loop {
        let frame = fast.frame().await;
        if frame.first == 0x88 {
            break frame.payload;
        }
        assert_eq!(frame.text(), format!("m{echoes}"));
        echoes += 1;
    };
    assert_eq!(closed[..2], 4429_u16.to_be_bytes());
    assert!(closed.len() > 2, "with a reason");
    // What was allowed was said to the others, and nothing beyond: five at once, and one more for each fifth of a second that reading took.
    let allowed = node.metric("fanfare_published_total").await as usize;
    let most = 5 + (begun.elapsed().as_millis() / 200) as usize;
    assert!((5..=most).contains(&allowed) && echoes <= allowed, "{allowed} of {most}, {echoes}");
    for n in 0..allowed {
        assert_eq!(reader.text().await, format!("m{n}"));
    }
    request(node.admin, "POST", "/api/publish", &[], r#"{"room":"a","message":"mark"}"#).await;
    assert_eq!(reader.text().await, "mark");
    node.wait_for_metric("fanfare_closes_total{reason=\"too_fast\"}", 1.0).await;
    // Each connection is counted for itself, and a slow one is never closed.
    let mut slow = node.enter("a", "?format=text").await;
    for n in 0..5 {
        slow.send(n.to_string()).await;
        assert_eq!(slow.text().await, n.to_string());
    }
}

/// Pings are no messages, and who reads each pong would be answered for ever.
#[tokio::test]
async fn who_pings_without_end_is_closed_with_4429() {
    let node = TestNode::dev("limits.control_frames_per_second_max = 5");
    let mut raw = node.upgrade("/echo").await;
    let burst: Vec<u8> = (0..200u8).flat_map(|n| frame(0x89, &[n])).collect();
    let begun = Instant::now();
    raw.send(&burst).await;
    let mut pongs = 0;
    let closed = loop {
        let frame = raw.frame().await;
        if frame.first == 0x88 {
            break frame.payload;
        }
        assert_eq!((frame.first, frame.payload), (0x8a, vec![pongs]));
        pongs += 1;
    };
    assert_eq!(closed[..2], 4429_u16.to_be_bytes());
    assert_eq!(&closed[2..], b"pings too fast, slow down");
    let most = 5 + begun.elapsed().as_millis() / 200;
    assert!((5..=most).contains(&u128::from(pongs)), "{pongs} of {most}");
    // Nobody answers a pong, and it costs all the same.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&(0..200).flat_map(|_| frame(0x8a, b"")).collect::<Vec<u8>>()).await;
    assert_eq!(raw.closed().await.0, 4429);
    node.wait_for_metric("fanfare_closes_total{reason=\"pings_too_fast\"}", 2.0).await;
    let rejected = "fanfare_rejected_total{limit=\"control_frames_per_second_max\"}";
    assert_eq!(node.metric(rejected).await, 2.0);
    // Messages are counted for themselves.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&(0..200).flat_map(|_| frame(0x81, b"x")).collect::<Vec<u8>>()).await;
    for _ in 0..200 {
        assert_eq!(raw.frame().await.text(), "x");
    }
}

#[tokio::test]
async fn a_message_has_a_longest_form() {
    let node = TestNode::dev("[limits]\nmessage_bytes_max = 1000");
    let mut client = node.enter("a", "?format=text").await;
    let fits = "x".repeat(1_000);
    client.send(fits.clone()).await;
    assert_eq!(client.text().await, fits);
    client.send(format!("{fits}x")).await;
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.as_str()), (1009, "message over 1000 bytes"));

    // In fragments it is the sum that counts.
    let mut raw = node.upgrade("/room/a?format=text").await;
    raw.send(&frame(0x01, &[b'x'; 600])).await;
    raw.send(&frame(0x80, &[b'x'; 400])).await;
    assert_eq!(raw.frame().await.payload.len(), 1_000);
    raw.send(&frame(0x01, &[b'x'; 600])).await;
    raw.send(&frame(0x00, &[b'x'; 401])).await;
    assert_eq!(raw.closed().await.0, 1009);

    // A length that is only announced is refused at once, not waited for.
    for announced in [70_000_u64, 1 << 40, (1 << 63) - 1] {
        let mut raw = node.upgrade("/room/a?format=text").await;
        raw.send(&[&[0x81, 0xff][..], &announced.to_be_bytes(), &[0; 4]].concat()).await;
        assert_eq!(raw.closed().await.0, 1009, "{announced}");
    }
    let headers = [("Content-Type", "text/plain")];
    let publish = "/api/publish?room=a";
    assert_eq!(request(node.admin, "POST", publish, &headers, &fits).await.status, 200);
    let long = format!("{fits}x");
    request(node.admin, "POST", publish, &headers, &long).await.expect_problem(413, "too_large");
    node.wait_for_metric("fanfare_closes_total{reason=\"message_too_big\"}", 5.0).await;
}

/// The budget of the whole process holds, whoever uses it up; who has taken everything keeps getting everything.
#[tokio::test]
async fn queued_bytes_of_all_connections_stay_within_the_budget() {
    const BUDGET: usize = 150_000;
    let node = TestNode::dev(
        "[limits]\nmessage_bytes_max = 16384\noutbox_bytes_max = 100000\noutbox_total_bytes_max = 150000\n\
         [heartbeat]\nclose_ms = 600000",
    );
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(Raw::stalled(node.clients, "/room/a?format=text").await);
    }
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 4).await;
    let mut healthy: Client = node.enter("a", "?format=text").await;
    let body = "x".repeat(16_000);
    let headers = [("Content-Type", "text/plain")];
    let mut evicted = 0.0;
    let mut peak = 0;
    for published in 0.. {
        assert!(published < 5_000, "nobody was evicted");
        let receipt = request(node.admin, "POST", "/api/publish?room=a", &headers, &body).await.json();
        assert_eq!(healthy.text().await.len(), body.len());
        // Who went to make place for another may have had this message queued before: then it was delivered, as far as could be said.
        let spoken_of = receipt["delivered"].as_f64().expect("a count") + receipt["evicted"].as_f64().expect("a count");
        assert_eq!(spoken_of, 5.0 - evicted);
        evicted = node.metric("fanfare_evicted_total").await;
        let used = node.hub.budget().used();
        assert!(used <= BUDGET, "{used}");
        peak = peak.max(used);
        if evicted == 4.0 {
            break;
        }
    }
    assert!(peak > 100_000, "more than one connection's bound was in use: {peak}");
    assert_eq!(node.metric("fanfare_outbox_bytes_max").await, BUDGET as f64);
    for raw in &mut stalled {
        loop {
            let frame = raw.frame().await;
            if frame.first == 0x88 {
                assert_eq!(frame.payload[..2], 4508_u16.to_be_bytes());
                break;
            }
            assert_eq!(frame.payload.len(), body.len(), "frames stay whole");
        }
    }
    node.wait_for_metric("fanfare_outbox_bytes", 0.0).await;
}

/// Who comes while descriptors are short waits for one; the listener is asked now and then, and not all the time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_descriptors_newcomers_wait_and_are_let_in_later() {
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"];
    // A canary is the process's own client: it would hold one of the few descriptors, and wait with it behind the newcomers.
    let process = Process::fanfare(&arguments, &[("FANFARE_READINESS__CANARY_MS", "0")]);
    let (clients, admin) = process.addresses();
    let mut inside = Raw::let_in(clients, "/echo").await;
    let mut operator = Raw::open(admin).await;
    assert_eq!(accept_errors(&mut operator).await, 0.0);
    // The limit is on numbers, and the lowest that is free is taken.
    let used = descriptors_in_use(process.pid());
    let limit = (0..).filter(|number| !used.contains(number)).nth(3).expect("numbers do not end");
    let pid = Pid::from_raw(process.pid() as i32);
    let hard = prlimit(pid, Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(1_024) });
    hard.expect("a limit for our own child");
    let begun = Instant::now();
    let mut knocking = Vec::new();
    for _ in 0..6 {
        let mut raw = Raw::open(clients).await;
        raw.send(handshake("/echo", clients, "").as_bytes()).await;
        knocking.push(raw);
    }
    let mut late = knocking.split_off(3);
    for raw in &mut knocking {
        assert_eq!(raw.head().await.status, 101);
    }
    let mut errors = 0.0;
    wait_until("some tries in vain", async || {
        errors = accept_errors(&mut operator).await;
        errors >= 3.0
    })
    .await;
    let most = 1.0 + begun.elapsed().as_millis() as f64 / 50.0;
    assert!(errors <= most, "{errors} errors in {:?}", begun.elapsed());
    inside.send(&frame(0x81, b"still in")).await;
    assert_eq!(inside.frame().await.text(), "still in");
    drop(knocking);
    for raw in &mut late {
        assert_eq!(raw.head().await.status, 101);
    }
}

/// Asked on a connection that stays open: another one could not be accepted.
#[cfg(target_os = "linux")]
async fn accept_errors(operator: &mut Raw) -> f64 {
    operator.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let page = operator.answer().await;
    let value = page.text().lines().find_map(|line| line.strip_prefix("fanfare_accept_errors_total "));
    value.and_then(|value| value.parse().ok()).expect("the counter")
}

#[cfg(target_os = "linux")]
fn descriptors_in_use(pid: u32) -> Vec<u64> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs");
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[tokio::test]
async fn observed_limits_let_pass_and_count() {
    let node = TestNode::dev(
        "[limits]\nmode = \"observe\"\nconnections_max = 1\nconnections_per_ip_max = 1\nrooms_max = 1\n\
         subscriptions_per_connection_max = 1\nmessages_per_second_max = 4\ncontrol_frames_per_second_max = 4",
    );
    let would_reject =
        async |limit: &str| node.metric(&format!("fanfare_would_reject_total{{limit=\"{limit}\"}}")).await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client.subscribe("a").await;
    for limit in ["connections_max", "connections_per_ip_max", "rooms_max", "subscriptions_per_connection_max"] {
        assert_eq!(would_reject(limit).await, 0.0, "{limit}: nothing was beyond it");
    }
    client.subscribe("b").await;
    assert_eq!((would_reject("rooms_max").await, would_reject("subscriptions_per_connection_max").await), (1.0, 1.0));
    let mut other = node.enter("a", "").await;
    assert_eq!((would_reject("connections_max").await, would_reject("connections_per_ip_max").await), (1.0, 1.0));
    let burst: Vec<u8> = (0..200)
        .flat_map(|n| frame(0x81, json!({"name": "publish", "room": "a", "message": n}).to_string().as_bytes()))
        .collect();
    within("the messages to be sent", client.socket.get_mut().write_all(&burst)).await.expect("a socket");
    for n in 0..200 {
        assert_eq!(other.event("message").await["message"], n, "everybody is heard, however fast");
    }
    let too_fast = would_reject("messages_per_second_max").await;
    assert!((1.0..=198.0).contains(&too_fast), "{too_fast} of 202 messages were beyond four a second");
    assert_eq!(node.metric("fanfare_shed_total").await, 0.0);
    let mut raw = node.upgrade("/echo").await;
    raw.send(&(0..200u8).flat_map(|n| frame(0x89, &[n])).collect::<Vec<u8>>()).await;
    for n in 0..200 {
        assert_eq!(raw.frame().await.payload, [n], "every ping is answered, however fast");
    }
    let pings = would_reject("control_frames_per_second_max").await;
    assert!((1.0..=196.0).contains(&pings), "{pings} of 200 pings were beyond four a second");
    // What bounds memory holds all the same.
    other.say(json!({"name": "message", "message": "x".repeat(70_000)})).await;
    assert_eq!(other.closed().await.0, 1009);
}
