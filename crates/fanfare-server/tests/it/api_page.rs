//! The lines of docs/api.md, run as they stand but for the port.

use std::process::Command;

use crate::support::TestNode;
use crate::tidy::root;

#[tokio::test]
async fn the_lines_of_the_api_page_work() {
    let node = TestNode::dev("");
    let _client = node.enter("lobby", "?name=alice").await;
    let page = std::fs::read_to_string(root().join("docs/api.md")).expect("the page");
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 14, "{lines:?}");
    for line in lines {
        let admin = node.admin.to_string();
        let line = line.replace("127.0.0.1:8081", &admin).replacen("curl ", "curl -s -w '\\n%{http_code}' ", 1);
        let run = Command::new("sh").args(["-c", &line]).output();
        let output = tokio::task::spawn_blocking(|| run).await.expect("a thread").expect("a shell");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        // Nobody has the connection of the example.
        let expected = if line.contains("/connections/0-1f-3") { "404" } else { "200" };
        assert!(output.status.success() && text.ends_with(expected), "{line}\n{text}");
    }
}
