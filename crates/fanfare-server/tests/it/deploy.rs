//! The files of deploy/ fit the program beside which they lie.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{TestNode, request};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

#[test]
fn the_configuration_example_is_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare")).arg("check").arg(deploy("fanfare.toml")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.starts_with("OK: "), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The configuration inside the manifest, too.
#[test]
fn the_configuration_of_the_manifest_is_one() {
    let manifest = read("kubernetes/fanfare.yaml");
    let (_, rest) = manifest.split_once("fanfare.toml: |\n").expect("the manifest has a configuration");
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanfare.toml");
    fs::write(&file, lines.map(|line| line.trim_start_matches("    ")).collect::<Vec<_>>().join("\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare")).arg("check").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names of metrics in `text`, as they stand there.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = text.match_indices("fanfare_").map(|(at, _)| at);
    let begins = begins.filter(|&at| at == 0 || !is_part(text.as_bytes()[at - 1]));
    let name = |at: usize| text[at..].bytes().take_while(|&byte| is_part(byte)).count();
    begins.map(|at| text[at..at + name(at)].to_owned()).collect()
}

async fn page_of(node: &TestNode) -> String {
    String::from_utf8(request(node.admin, "GET", "/metrics", &[], "").await.body).unwrap()
}

#[tokio::test]
async fn rules_and_dashboard_name_metrics_that_are() {
    // Spans are counted where there is a collector, or should be, and what comes of an engine where there should be one.
    let node = TestNode::dev(
        "[traces]\nurl = \"http://127.0.0.1:9\"\n[engine]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"",
    );
    let page = page_of(&node).await;
    let there: BTreeSet<String> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next().map(str::to_owned))
        .collect();
    for name in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/fanfare.json"] {
        let named = metrics_in(&read(name));
        assert!(named.len() >= 10, "deploy/{name} names {named:?}");
        // That one is there where TLS is on; the test of the alerts has such a node.
        let missing =
            named.difference(&there).filter(|name| *name != "fanfare_tls_certificate_expiry_timestamp_seconds");
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "deploy/{name} names {missing:?}, which /metrics does not have");
    }
}

/// Labels, too: a reason that is none selects nothing, and the alert sleeps for ever.
#[tokio::test]
async fn rules_name_labels_that_are() {
    let node = TestNode::dev("");
    let page = page_of(&node).await;
    let rules = read("prometheus/alerts.yml");
    let mut checked = 0;
    for label in ["reason", "result"] {
        for (operator, selects) in [("=~", true), ("=", false)] {
            for part in rules.split(&format!("{label}{operator}\"")).skip(1) {
                let values = part.split('"').next().unwrap_or_default();
                for value in if selects { values.split('|').collect() } else { vec![values] } {
                    assert!(page.contains(&format!("{label}=\"{value}\"")), "no sample has {label}=\"{value}\"");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 8, "{checked} labels");
}

#[test]
fn every_alert_has_a_run_book_that_is_there() {
    let operations = fs::read_to_string(deploy("../docs/operations.md")).unwrap();
    let anchors: BTreeSet<String> = operations
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect();
    let rules = read("prometheus/alerts.yml");
    let books: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/operations.md#")).collect();
    assert_eq!(books.len(), rules.matches("- alert: ").count());
    for book in books {
        assert!(anchors.contains(book), "operations.md has no heading #{book}");
    }
}

/// As GitHub makes them of headings.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// A supervisor that kills before the drain is over makes it pointless.
#[test]
fn supervisors_wait_longer_than_a_drain_lasts() {
    let seconds = |text: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
        line.trim().trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{key}{line}"))
    };
    let drain = |text: &str| seconds(text, "grace_ms =") / 1_000 + seconds(text, "window_ms =") / 1_000 + 10;
    let manifest = read("kubernetes/fanfare.yaml");
    let pause = 5;
    assert!(seconds(&manifest, "terminationGracePeriodSeconds:") > drain(&manifest) + pause);
    let usual = drain(&read("fanfare.toml"));
    assert!(seconds(&read("systemd/fanfare.service"), "TimeoutStopSec=") > usual);
    assert!(seconds(&read("compose.yaml"), "stop_grace_period:") > usual);
}
