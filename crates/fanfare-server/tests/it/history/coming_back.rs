//! Who comes back is told what it missed.

use super::*;

#[tokio::test]
async fn who_comes_back_is_told_what_it_missed_and_then_what_follows() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=8).await;
    for (since, recovered, missed) in [
        (format!("{epoch}:8"), true, 9..9),
        (format!("{epoch}:7"), true, 8..9),
        (format!("{epoch}:3"), true, 4..9),
        (format!("{epoch}:2"), false, 9..9),
        (format!("{epoch}:0"), false, 9..9),
        (format!("{epoch}:9"), false, 9..9),
        (format!("{epoch}:18446744073709551615"), false, 9..9),
        ("0123456789abcdef:8".to_owned(), false, 9..9),
    ] {
        let told = json!({"name": "subscribed", "epoch": epoch, "offset": 8, "recovered": recovered});
        let mut one = node.connect(&format!("/room/a?since={since}")).await;
        assert_eq!(one.json().await, told, "{since}");
        hear(&mut one, missed.clone()).await;
        one.expect_nothing().await;
        let mut many = node.connect("/ws").await;
        many.event("welcome").await;
        let answer = many.ask(json!({"name": "subscribe", "room": "a", "since": since, "id": 1})).await;
        assert_eq!((&answer["name"], &answer["recovered"]), (&json!("subscribed"), &json!(recovered)), "{since}");
        for offset in missed {
            let expected = json!({"name": "message", "message": offset, "room": "a", "offset": offset});
            assert_eq!(many.json().await, expected);
        }
        many.expect_nothing().await;
        one.close().await;
        many.close().await;
    }
    let mut back = node.connect(&format!("/room/a?since={epoch}:6")).await;
    back.event("subscribed").await;
    hear(&mut back, 7..=8).await;
    publish_numbers(&node, "a", 9..=12).await;
    hear(&mut back, 9..=12).await;
    for since in ["", "8", &format!("{epoch}:"), &format!("{epoch}:-1"), &format!("{epoch}:x"), "x:1"] {
        let refused = Client::try_connect(node.clients, &format!("/room/a?since={since}"), &[]).await;
        assert!(refused.is_err(), "{since:?} is no position");
        let refused = back.ask(json!({"name": "history", "since": since})).await;
        assert_eq!((&refused["name"], &refused["code"]), (&json!("error"), &json!("bad_message")), "{since:?}");
    }
    let recoveries = |result: &str| format!("fanfare_recoveries_total{{result=\"{result}\"}}");
    assert_eq!(node.metric(&recoveries("recovered")).await, 7.0);
    assert_eq!(node.metric(&recoveries("gap")).await, 10.0);
    assert_eq!(node.metric("fanfare_replayed_total").await, 14.0);
}

#[tokio::test]
async fn what_a_connection_kept_from_itself_is_kept_from_it_in_a_replay_too() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=1).await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let own = json!({"name": "publish_no_self", "room": "a", "message": 2, "id": 1});
    assert_eq!(client.ask(own).await["offset"], 2);
    publish(&node, "a", json!(3)).await;
    let subscribe = json!({"name": "subscribe", "room": "a", "since": format!("{epoch}:0")});
    assert_eq!(client.ask(subscribe.clone()).await["recovered"], true);
    hear(&mut client, [1, 3]).await;
    client.expect_nothing().await;
    // It was the connection that was left out, not whoever was behind it.
    let mut next = node.connect("/ws").await;
    next.event("welcome").await;
    assert_eq!(next.ask(subscribe).await["recovered"], true);
    hear(&mut next, [1, 2, 3]).await;
}

#[tokio::test]
async fn who_comes_back_speaking_text_is_told_in_text() {
    let node = TestNode::dev(KEEPS_FIVE);
    let epoch = publish_numbers(&node, "a", 1..=4).await;
    for query in ["format=text", "format=text&join_newline=1"] {
        let mut client = node.connect(&format!("/room/a?{query}&since={epoch}:2")).await;
        assert_eq!(client.text().await, "3");
        assert_eq!(client.text().await, "4");
        client.close().await;
    }
}

#[tokio::test]
async fn in_a_last_value_room_who_enters_is_told_the_last_value() {
    let file = ConfigFile::new(
        "test.toml",
        "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndrain.grace_ms = 0\ndrain.window_ms = 0",
    );
    let mut config = Config::dev(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration");
    let policy = NamespacePolicy {
        history_size: 1,
        history_bytes_max: 1 << 20,
        last_value: true,
        ..*config.namespaces.iter().next().expect("the default namespace").1
    };
    config.namespaces = Namespaces::new(policy, [].into());
    let node = TestNode::start(&config);
    let epoch = publish_numbers(&node, "a", 1..=3).await;
    let mut quiet = node.connect("/room/a").await;
    hear(&mut quiet, 3..=3).await;
    let mut text = node.connect("/room/a?format=text").await;
    assert_eq!(text.text().await, "3");
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    assert_eq!(many.subscribe("a").await["offset"], 3);
    hear(&mut many, 3..=3).await;
    let mut knows = node.connect(&format!("/room/a?since={epoch}:3")).await;
    assert_eq!(knows.event("subscribed").await["recovered"], true);
    knows.expect_nothing().await;
    publish_numbers(&node, "a", 4..=4).await;
    for client in [&mut quiet, &mut many, &mut knows] {
        hear(client, 4..=4).await;
    }
}

/// Enough dice for a test, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Comes and goes at random; every number it hears must follow the one before, over all its connections.
async fn come_and_go(clients: std::net::SocketAddr, seed: u64, resumes: usize) -> (usize, u64) {
    let mut dice = Dice(seed);
    let (mut epoch, mut known) = (String::new(), 0);
    let mut heard = 0;
    for visit in 0..=resumes {
        let query = if visit == 0 { "?since=0000000000000000:0".to_owned() } else { format!("?since={epoch}:{known}") };
        let mut client = Client::connect(clients, &format!("/room/busy{query}")).await;
        let subscribed = client.event("subscribed").await;
        if visit == 0 {
            epoch = subscribed["epoch"].as_str().expect("an epoch").to_owned();
            known = subscribed["offset"].as_u64().expect("a number");
        }
        assert_eq!((&subscribed["epoch"], &subscribed["recovered"]), (&json!(epoch), &json!(visit > 0)), "seed {seed}");
        for _ in 0..dice.below(40) {
            let message = client.event("message").await;
            let offset = message["offset"].as_u64().expect("a number");
            assert_eq!(offset, known + 1, "seed {seed}, visit {visit}");
            (known, heard) = (offset, heard + 1);
        }
        // Half of them just go, with whatever is under way.
        if dice.below(2) == 0 {
            client.close().await;
        }
    }
    (heard, known)
}

#[tokio::test]
async fn hundreds_of_resumes_under_load_have_neither_a_gap_nor_a_duplicate() {
    const CLIENTS: u64 = 24;
    const RESUMES: usize = 25;
    // A visitor may be slow on a busy machine; that is not what this is about.
    let node = TestNode::dev(
        "shards = 2\n[limits]\noutbox_bytes_max = 100000000\noutbox_messages_max = 1000000\n\
         [namespaces.default]\nhistory_size = 1000000\nhistory_bytes_max = 1000000000",
    );
    let clients = node.clients;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let is_over = is_over.clone();
            tokio::spawn(async move {
                let mut publisher = Client::connect(clients, "/room/busy?format=text").await;
                let mut said = 0_u64;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..4 {
                        publisher.send("said").await;
                        said += 1;
                    }
                    // It hears itself: so it is no faster than the gateway.
                    for _ in 0..4 {
                        publisher.text().await;
                    }
                }
                publisher.close().await;
                said
            })
        })
        .collect();
    let visitors: Vec<_> = (0..CLIENTS).map(|seed| tokio::spawn(come_and_go(clients, seed, RESUMES))).collect();
    let (mut heard, mut last) = (0, 0);
    for visitor in visitors {
        let (count, known) = visitor.await.expect("a visitor that hears everything");
        heard += count;
        last = last.max(known);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut said = 0;
    for publisher in publishers {
        said += publisher.await.expect("a publisher");
    }
    assert!(last <= said && heard > 1_000, "{heard} heard, up to {last} of {said}");
    assert_eq!(
        node.metric("fanfare_recoveries_total{result=\"recovered\"}").await,
        (CLIENTS as usize * RESUMES) as f64
    );
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0);
}

/// Lets one connection through to the node until it is dropped.
async fn let_through(listener: &TcpListener, node: std::net::SocketAddr) -> AbortOnDrop {
    let (mut outside, _) = within("a connection", listener.accept()).await.expect("a connection");
    let copying = tokio::spawn(async move {
        let mut inside = TcpStream::connect(node).await.expect("a node that listens");
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    });
    AbortOnDrop(copying)
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn fanfare_sub_goes_on_from_its_last_message_and_says_what_it_missed() {
    for (kept, lines, gap) in
        [(100, vec!["1", "2", "3", "4", "5"], None), (1, vec!["1", "2", "5"], Some("gap: 2 messages"))]
    {
        let node = TestNode::dev(&format!("namespaces.default.history_size = {kept}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let sub = Process::fanfare(&["sub", "a", "--url", &url], &[]);
        let (out, err) = (sub.out.clone(), sub.err.clone());
        let waits = |lines: &Lines, words: &'static str| {
            let lines = lines.clone();
            async move { tokio::task::spawn_blocking(move || lines.wait_for(&[words])).await.expect("a line") }
        };
        let first = let_through(&listener, node.clients).await;
        waits(&err, "connected to").await;
        publish_numbers(&node, "a", 1..=2).await;
        waits(&out, "2").await;
        drop(first);
        wait_until("it to be gone", async || node.occupancy("a") == 0).await;
        publish_numbers(&node, "a", 3..=4).await;
        let _second = let_through(&listener, node.clients).await;
        wait_until("it to be back", async || node.occupancy("a") == 1).await;
        publish_numbers(&node, "a", 5..=5).await;
        waits(&out, "5").await;
        assert_eq!(out.so_far(), lines);
        assert_eq!(err.so_far().iter().any(|line| line.contains("gap")), gap.is_some());
        if let Some(gap) = gap {
            assert!(err.so_far().iter().any(|line| line.contains(gap)), "{:?}", err.so_far());
        }
    }
}
