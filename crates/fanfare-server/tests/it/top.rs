//! `fanfare top` where its output is no terminal.

use serde_json::json;

use crate::process::Process;
use crate::support::{Raw, TestNode, Unused, request, wait_until};

fn line<'a>(lines: &'a [String], words: &str) -> &'a str {
    lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {lines:#?}"))
}

/// Those behind the first word of a line.
fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
}

#[tokio::test]
async fn one_frame_tells_of_rates_rooms_and_who_is_slow() {
    let node = TestNode::dev("shards = 2\n[limits]\noutbox_bytes_max = 8388608");
    let _stalled = Raw::stalled(node.clients, "/room/big?name=sleepy").await;
    let mut other = node.enter("small", "").await;
    // It reads, or it would soon be slow itself.
    let reading = tokio::spawn(async move {
        loop {
            other.text().await;
        }
    });
    wait_until("the stalled to be in the room", async || node.occupancy("big") == 1).await;
    let body = json!({"room": "big", "message": "x".repeat(60_000)}).to_string();
    for _ in 0..40 {
        assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.status, 200);
    }
    let small = json!({"room": "small", "message": 1}).to_string();
    let url = format!("http://{}", node.admin);
    let mut lines = Vec::new();
    // A machine that holds us up for so long says nothing between the two looks, and a rate of nothing is the truth.
    wait_until("a rate to be seen", async || {
        let mut top = Process::fanfare(&["top", "--once", "--interval", "300ms", "--url", &url], &[]);
        while top.is_running() {
            assert_eq!(request(node.admin, "POST", "/api/publish", &[], &small).await.status, 200);
        }
        assert_eq!(top.ended().code(), Some(0), "{:#?}", top.err.so_far());
        lines = top.out.all();
        ["published ", "delivered "].iter().all(|counter| numbers(line(&lines, counter))[0] > 0.0)
    })
    .await;
    let line = |words: &str| line(&lines, words);
    // It is printed and over: there is nothing to quit.
    assert_eq!(lines[0], format!("fanfare top  ready  http://{}  over 300ms", node.admin));
    line("connections 2  rooms 2  subscriptions 2");
    for counter in ["published ", "delivered "] {
        assert!(numbers(line(counter))[1] > 40.0, "{lines:#?}");
    }
    line("SLOWEST CONSUMERS");
    assert!(line("sleepy").contains("MiB") && line("sleepy").ends_with("big"), "{lines:#?}");
    line("LARGEST ROOMS, of all 2");
    assert!(line("  small").trim_start().starts_with('1'), "{lines:#?}");
    assert!(!lines.join("\n").contains('\u{1b}'), "{lines:#?}");
    reading.abort();
}

#[tokio::test]
async fn who_cannot_be_asked_is_told_with_what_to_do() {
    let node = TestNode::serve("[api]\nkeys = [\"0123456789abcdef\"]");
    let url = format!("http://{}", node.admin);
    let unused = Unused::port();
    for (arguments, words) in [
        (vec!["--url", &url, "--key", "wrong-wrong-wrong"], ["401", "--key"]),
        (vec!["--url", &format!("http://{}", unused.address)], ["nothing is listening", "fanfare dev"]),
        (vec!["--url", &format!("http://{}", node.clients)], ["404", "what to do"]),
    ] {
        let mut top = Process::fanfare(&[&["top", "--once"], &arguments[..]].concat(), &[]);
        assert_eq!(top.ended().code(), Some(1), "{words:?}");
        let said = top.err.all().join("\n");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(top.out.all(), [] as [String; 0]);
    }
}
