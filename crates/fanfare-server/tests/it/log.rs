//! What the program writes to stderr when it has to say the same things over and over.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::Process;
use crate::support::request;

/// A file with two mistakes is read again and again: two lines in turn. Each is written once a second, and counted.
#[tokio::test]
async fn lines_that_come_in_turn_are_collapsed_and_counted() {
    const RELOADS: u64 = 40;
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        let good = "[api]\nkeys = [\"key\"]\n[drain]\ngrace_ms = 0\nwindow_ms = 0\n";
        fs::write(&file, good).expect("a file");
        let path = file.display().to_string();
        let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", format];
        let mut gateway = Process::fanfare(&[&["serve", "--config", &path], &listen[..]].concat(), &[]);
        let admin = match format {
            "text" => gateway.addresses().1,
            _ => {
                let said: Value = serde_json::from_str(&gateway.err.wait_for(&["API on "])).expect("JSON");
                let message = said["message"].as_str().expect("a message");
                message.rsplit(' ').next().expect("an address").parse().expect("an address")
            }
        };
        fs::write(&file, format!("{good}[limits]\nfirst_key = 1\nsecond_key = 2\n")).expect("a file");
        let began = Instant::now();
        for _ in 0..RELOADS {
            let answer = request(admin, "POST", "/api/reload", &[("Authorization", "Bearer key")], "").await;
            answer.expect_problem(422, "bad_configuration");
        }
        // The last count is written at the end at the latest.
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0));
        let said = gateway.err.all();
        let seconds = began.elapsed().as_secs() + 2;
        for key in ["first_key", "second_key"] {
            let lines: Vec<&String> = said.iter().filter(|line| line.contains(key)).collect();
            let counts: Vec<u64> = lines.iter().filter_map(|line| repeated(format, line)).collect();
            let written = (lines.len() - counts.len()) as u64;
            assert_eq!(written + counts.iter().sum::<u64>(), RELOADS, "{said:#?}");
            assert!(lines.iter().all(|line| line.contains("WARN") && line.contains("not reloaded")), "{said:#?}");
            assert!(written <= seconds, "{written} lines in {seconds} s: {said:#?}");
        }
    }
}

/// How often the line before this one was said again, where this one tells.
fn repeated(format: &str, line: &str) -> Option<u64> {
    if format == "text" {
        return line.rsplit_once(" repeated=")?.1.parse().ok();
    }
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    line["repeated"].as_u64()
}
