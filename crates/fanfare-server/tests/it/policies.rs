//! The four slow-consumer policies: for every client, whatever its room's policy, what it received and what it was told it missed
//! come to what was published.

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Client, Raw, TestNode, close_frame, frame, request, wait_until, within};

const RULES: &str = "shards = 2\n[limits]\nmessage_bytes_max = 8192\noutbox_bytes_max = 65536\n[heartbeat]\nclose_ms = 600000\n\
     [namespaces.default]\n[namespaces.evict]\n[namespaces.drop]\nslow = \"drop_oldest\"\n[namespaces.latest]\n\
     slow = \"latest\"\nhistory_size = 1\n[namespaces.back]\nslow = \"evict_resumable\"\nhistory_size = 10000\n\
     history_bytes_max = 100000000";

const ROOMS: [&str; 4] = ["evict:a", "drop:a", "latest:a", "back:a"];

fn message(n: u64) -> Value {
    json!({ "n": n, "pad": "x".repeat(4_000) })
}

/// Publishes these numbers over the API, and returns the sums of the receipts: delivered, dropped, evicted.
async fn publish(node: &TestNode, room: &str, numbers: impl Iterator<Item = u64>, except: Option<&str>) -> [u64; 3] {
    let one = |n| match except {
        Some(except) => json!({"room": room, "message": message(n), "except": except}),
        None => json!({"room": room, "message": message(n)}),
    };
    let body = json!({"publish": numbers.map(one).collect::<Vec<_>>()}).to_string();
    let answer = request(node.admin, "POST", "/api/batch", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipts = answer.json()["receipts"].as_array().expect("receipts").clone();
    ["delivered", "dropped", "evicted"]
        .map(|name| receipts.iter().map(|receipt| receipt[name].as_u64().expect("a count")).sum())
}

/// What one client heard of one room: numbers of messages are their offsets less one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    received: u64,
    missed: u64,
    /// Offset of the last message received or announced as missing.
    position: u64,
}

impl Account {
    /// A message or a gap; everything before it must be accounted for, but for `not_ours`.
    fn hear(&mut self, event: &Value, not_ours: impl Fn(u64) -> bool) {
        let is_ours = |offset: &u64| !not_ours(offset - 1);
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {event}"));
        if event["name"] == "gap" {
            let (from, to, count) = (number(&event["from"]), number(&event["to"]), number(&event["count"]));
            assert_eq!((self.position + 1..=to).filter(is_ours).count() as u64, count, "{event}");
            assert_eq!((self.position + 1..=to).find(is_ours), Some(from), "{event}");
            assert!(is_ours(&to), "{event}");
            self.missed += count;
            self.position = to;
        } else {
            assert_eq!(event["name"], "message", "{event}");
            let offset = number(&event["message"]["n"]) + 1;
            assert_eq!((self.position + 1..=offset).find(is_ours), Some(offset), "a silent loss before {offset}");
            self.received += 1;
            self.position = offset;
        }
    }

    fn sum(&self) -> u64 {
        self.received + self.missed
    }
}

fn json_of(raw: &crate::support::Frame) -> Value {
    serde_json::from_str(raw.text()).expect("a whole frame is whole JSON")
}

/// Reads everything up to the message with this number.
async fn read_to(raw: &mut Raw, account: &mut Account, last: u64) {
    while account.position <= last {
        account.hear(&json_of(&raw.frame().await), |_| false);
    }
}

/// A member that reads all it gets until `last`, and says how far it is.
fn reader(mut client: Client, last: u64) -> (JoinHandle<Account>, watch::Receiver<u64>) {
    let (position, positions) = watch::channel(0);
    let task = tokio::spawn(async move {
        let mut account = Account::default();
        while account.position <= last {
            account.hear(&client.json().await, |_| false);
            position.send_replace(account.position);
        }
        account
    });
    (task, positions)
}

/// Fewer bytes than an outbox holds: a member that has read every round before this one cannot be slow.
const ROUND: u64 = 12;

#[tokio::test]
async fn whatever_the_policy_received_and_announced_missing_are_what_was_published() {
    const HEALTHY: usize = 9;
    const ROUNDS: u64 = 100;
    const PUBLISHED: u64 = ROUND * ROUNDS;
    let node = TestNode::dev(RULES);
    let (mut stalled, mut healthy, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for room in ROOMS {
        stalled.push(Raw::stalled(node.clients, &format!("/room/{room}")).await);
        wait_until("a stalled member", async || node.occupancy(room) == 1).await;
        for _ in 0..HEALTHY {
            let (task, position) = reader(node.enter(room, "").await, PUBLISHED - 1);
            healthy.push(task);
            positions.push(position);
        }
    }
    let mut sums = [[0; 3]; ROOMS.len()];
    for round in 0..ROUNDS {
        for (room, sums) in ROOMS.iter().zip(&mut sums) {
            let receipts = publish(&node, room, (0..ROUND).map(|n| round * ROUND + n), None).await;
            sums.iter_mut().zip(receipts).for_each(|(sum, count)| *sum += count);
        }
        for position in &mut positions {
            let read = position.wait_for(|&position| position >= (round + 1) * ROUND);
            within("a healthy member", read).await.expect("its reader lives");
        }
    }
    let mut behind = 0;
    for (n, reader) in healthy.into_iter().enumerate() {
        let account = within("a reader", reader).await.expect("no panic");
        assert_eq!((account.sum(), account.position), (PUBLISHED, PUBLISHED));
        // Only of a room of `latest` may it have missed anything: there a moment of a full socket is enough.
        assert!(account.missed == 0 || ROOMS[n / HEALTHY].starts_with("latest"), "{account:?}");
        behind += account.missed;
    }
    let everybody = (HEALTHY as u64 + 1) * PUBLISHED;
    let [mut evicted, mut dropped, mut latest, mut back]: [Raw; 4] = stalled.try_into().ok().expect("four");

    let mut account = Account::default();
    read_to(&mut dropped, &mut account, PUBLISHED - 1).await;
    assert_eq!(account.sum(), PUBLISHED);
    assert!(account.missed > 0 && account.received > 8, "the newest that fit are kept: {account:?}");
    assert_eq!(node.metric("fanfare_dropped_total{policy=\"drop_oldest\"}").await, account.missed as f64);
    // Every message was queued first: that is what its receipt could say.
    assert_eq!(sums[1], [everybody, 0, 0]);

    let mut account = Account::default();
    read_to(&mut latest, &mut account, PUBLISHED - 1).await;
    assert_eq!(account.sum(), PUBLISHED);
    assert!(account.missed > PUBLISHED / 2, "only the newest is queued: {account:?}");
    let missed = (account.missed + behind) as f64;
    assert_eq!(node.metric("fanfare_dropped_total{policy=\"latest\"}").await, missed);
    assert_eq!((sums[2][0] + sums[2][1], sums[2][2]), (everybody, 0));

    for (raw, label, sums) in
        [(&mut evicted, "slow_consumer", sums[0]), (&mut back, "slow_consumer_resumable", sums[3])]
    {
        let mut account = Account::default();
        let (code, reason) = loop {
            let frame = raw.frame().await;
            if frame.first == 0x88 {
                let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
                break (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8"));
            }
            account.hear(&json_of(&frame), |_| false);
        };
        raw.send(&close_frame(1000, "")).await;
        assert_eq!((code, account.missed), (4508, 0), "{label}");
        assert!(reason.starts_with("queued ") && reason.contains(" bytes, "), "{reason}");
        assert_eq!(reason.ends_with("; come back with since"), label == "slow_consumer_resumable", "{reason}");
        assert_eq!(node.metric(&format!("fanfare_closes_total{{reason=\"{label}\"}}")).await, 1.0);
        let [delivered, dropped, evicted] = sums;
        assert_eq!((dropped, evicted > 0), (0, true));
        assert!(delivered + evicted < everybody, "who is gone is not spoken of");
        if label == "slow_consumer" {
            continue;
        }
        // Back to where it was, nothing is lost.
        let answer = request(node.admin, "GET", "/api/rooms/back:a", &[], "").await.json();
        let epoch = answer["epoch"].as_str().expect("an epoch");
        let mut again = node.connect(&format!("/room/back:a?since={epoch}:{}", account.position)).await;
        assert_eq!(again.event("subscribed").await["recovered"], true);
        while account.position < PUBLISHED {
            account.hear(&again.json().await, |_| false);
        }
        assert_eq!((account.received, account.missed), (PUBLISHED, 0));
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 2.0);
}

/// A connection in rooms of several policies, which was left out of some messages: each room has its own account, what drops makes
/// place for what does not, and what was not for it is not counted.
#[tokio::test]
async fn a_connection_in_rooms_of_several_policies_has_an_account_of_each() {
    let node = TestNode::dev(RULES);
    let mut raw = Raw::stalled(node.clients, "/ws").await;
    let welcome = json_of(&raw.frame().await);
    let own = welcome["connection"].as_str().expect("a connection").to_owned();
    for room in ["evict:a", "drop:a", "latest:a"] {
        raw.send(&frame(0x81, json!({"name": "subscribe", "room": room}).to_string().as_bytes())).await;
        assert_eq!(json_of(&raw.frame().await)["name"], "subscribed");
    }
    let (mut n, not_ours) = (0, |n: u64| n % ROUND == ROUND - 1);
    while node.metric("fanfare_dropped_total{policy=\"drop_oldest\"}").await < 100.0 {
        assert!(n < 4_000, "nothing was ever dropped");
        for room in ["drop:a", "latest:a"] {
            publish(&node, room, n..n + ROUND - 1, None).await;
            publish(&node, room, n + ROUND - 1..n + ROUND, Some(&own)).await;
        }
        n += ROUND;
    }
    // What drops has filled the outbox; these few would otherwise not fit.
    assert_eq!(publish(&node, "evict:a", 0..4, None).await, [4, 0, 0]);
    let mut accounts: [Account; 3] = Default::default();
    let ours = n / ROUND * (ROUND - 1);
    while accounts[0].received < 4 || accounts[1].sum() < ours || accounts[2].sum() < ours {
        let event = json_of(&raw.frame().await);
        let room = ROOMS.iter().position(|&room| event["room"] == room).expect("one of the rooms");
        accounts[room].hear(&event, |n| room > 0 && not_ours(n));
    }
    assert_eq!((accounts[0].received, accounts[0].missed), (4, 0));
    for (account, label) in accounts[1..].iter().zip(["drop_oldest", "latest"]) {
        assert_eq!(account.sum(), ours, "{label}");
        let sample = format!("fanfare_dropped_total{{policy=\"{label}\"}}");
        assert_eq!(node.metric(&sample).await, account.missed as f64);
    }
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

#[tokio::test]
async fn the_text_dialect_has_no_word_for_a_gap_so_its_clients_are_closed() {
    let node = TestNode::dev(RULES);
    let mut stalled = Vec::new();
    for path in ["/room/drop:t?format=text", "/room/latest:t?format=text&join_newline=1"] {
        stalled.push(Raw::stalled(node.clients, path).await);
    }
    wait_until("both to be in", async || node.occupancy("drop:t") + node.occupancy("latest:t") == 2).await;
    let mut n = 0;
    while node.metric("fanfare_evicted_total").await < 2.0 {
        assert!(n < 4_000, "they were never evicted");
        for room in ["drop:t", "latest:t"] {
            publish(&node, room, n..n + ROUND, None).await;
        }
        n += ROUND;
    }
    for mut raw in stalled {
        let close = loop {
            let frame = raw.frame().await;
            if frame.first == 0x88 {
                break frame;
            }
        };
        assert_eq!(close.payload[..2], 4508_u16.to_be_bytes());
    }
    for policy in ["drop_oldest", "latest"] {
        assert_eq!(node.metric(&format!("fanfare_dropped_total{{policy=\"{policy}\"}}")).await, 0.0);
    }
}

#[tokio::test]
async fn who_enters_a_last_value_room_is_told_its_last_value() {
    let node = TestNode::dev(RULES);
    for n in 0..3 {
        publish(&node, "latest:price", n..n + 1, None).await;
    }
    let mut one = node.connect("/room/latest:price").await;
    assert_eq!(one.event("message").await["offset"], 3);
    one.expect_nothing().await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    assert_eq!(many.subscribe("latest:price").await["offset"], 3);
    assert_eq!(many.event("message").await["message"]["n"], 2);
    publish(&node, "latest:price", 3..4, None).await;
    assert_eq!(many.event("message").await["offset"], 4);
}

/// What `serve` says of a configuration.
fn complaint(toml: &str) -> String {
    let file = ConfigFile::new("fanfare.toml", toml.to_owned());
    match Config::serve(&Flags::default(), Some(&file), &Environment::default()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_policy_that_lets_clients_come_back_needs_a_history() {
    let refused = complaint("[namespaces.chat]\nslow = \"evict_resumable\"");
    assert!(refused.contains("fanfare.toml:2:1: `namespaces.chat.slow = \"evict_resumable\"`"), "{refused}");
    assert!(refused.contains("`namespaces.chat.history_size` is 0"), "{refused}");
    assert_eq!(complaint("[namespaces.chat]\nslow = \"evict_resumable\"\nhistory_size = 1"), "");
    assert_eq!(complaint("[namespaces.default]\nhistory_size = 1\n[namespaces.chat]\nslow = \"evict_resumable\""), "");
    let refused = complaint(
        "[namespaces.default]\nhistory_size = 1\nslow = \"evict_resumable\"\n[namespaces.chat]\nhistory_size = 0",
    );
    assert!(refused.contains("fanfare.toml:5:1: `namespaces.chat.slow"), "{refused}");
}
