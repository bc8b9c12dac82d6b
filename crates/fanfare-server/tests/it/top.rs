//! `fanfare top` where its output is no terminal.

use serde_json::json;

use crate::process::Process;
use crate::support::{Raw, TestNode, request, wait_until};

#[tokio::test]
async fn one_frame_tells_of_rates_rooms_and_who_is_slow() {
    let node = TestNode::dev("shards = 2\n[limits]\noutbox_bytes_max = 8388608");
    let _stalled = Raw::stalled(node.clients, "/room/big?name=sleepy").await;
    let _other = node.enter("small", "").await;
    wait_until("the stalled to be in the room", async || node.occupancy("big") == 1).await;
    let body = json!({"room": "big", "message": "x".repeat(60_000)}).to_string();
    for _ in 0..40 {
        assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.status, 200);
    }
    let mut top =
        Process::fanfare(&["top", "--once", "--interval", "300ms", "--url", &format!("http://{}", node.admin)], &[]);
    let small = json!({"room": "small", "message": 1}).to_string();
    while top.is_running() {
        assert_eq!(request(node.admin, "POST", "/api/publish", &[], &small).await.status, 200);
    }
    assert_eq!(top.ended().code(), Some(0), "{:#?}", top.err.so_far());
    let lines = top.out.all();
    let line =
        |words: &str| lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {lines:#?}"));
    // It is printed and over: there is nothing to quit.
    assert_eq!(lines[0], format!("fanfare top  ready  http://{}  over 300ms", node.admin));
    line("connections 2  rooms 2  subscriptions 2");
    for counter in ["published ", "delivered "] {
        let numbers: Vec<f64> = line(counter).split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
        assert!(numbers[0] > 0.0 && numbers[1] > 40.0, "{lines:#?}");
    }
    line("SLOWEST CONSUMERS");
    assert!(line("sleepy").contains("MiB") && line("sleepy").ends_with("big"), "{lines:#?}");
    line("LARGEST ROOMS, of all 2");
    assert!(line("  small").trim_start().starts_with('1'), "{lines:#?}");
    assert!(!lines.join("\n").contains('\u{1b}'), "{lines:#?}");
}

#[tokio::test]
async fn who_cannot_be_asked_is_told_with_what_to_do() {
    let node = TestNode::serve("[api]\nkeys = [\"0123456789abcdef\"]");
    let url = format!("http://{}", node.admin);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    for (arguments, words) in [
        (vec!["--url", &url, "--key", "wrong-wrong-wrong"], ["401", "--key"]),
        (vec!["--url", &format!("http://{unused}")], ["nothing is listening", "fanfare dev"]),
        (vec!["--url", &format!("http://{}", node.clients)], ["404", "what to do"]),
    ] {
        let mut top = Process::fanfare(&[&["top", "--once"], &arguments[..]].concat(), &[]);
        assert_eq!(top.ended().code(), Some(1), "{words:?}");
        let said = top.err.all().join("\n");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(top.out.all(), [] as [String; 0]);
    }
}
