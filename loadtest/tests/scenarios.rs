//! Every scenario against `fanfare-floor`, in each of its modes: what a server without any fault gets is a report without any.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

struct Floor {
    child: Child,
    url: String,
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Starts the floor; `None` where this machine does not allow the mode, and says so.
fn floor(mode: &str) -> Option<Floor> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare-floor"))
        .args(["--port", &port.to_string(), "--mode", mode])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    if said.starts_with("listening on") {
        return Some(Floor { child, url: format!("ws://127.0.0.1:{port}") });
    }
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(mode == "uring" && complaint.contains("io_uring is not allowed here"), "{mode}: {complaint}");
    None
}

/// Runs a scenario in the broadcast dialect; the report, which must be without fault.
fn run(floor: &Floor, scenario: &str) -> Value {
    let name = scenario.split(' ').next().unwrap();
    let pid = floor.child.id().to_string();
    let file = std::env::temp_dir().join(format!("fanfare-load-{pid}-{name}-{:p}.json", &raw const pid));
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare-load"))
        .args(scenario.split(' '))
        .args(["--dialect", "broadcast", "--url", &floor.url, "--pid", &pid, "--json", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap_or_else(|_| panic!("{said}"))).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((output.status.code(), &report["faults"]), (Some(0), &json!([])), "{scenario}: {said}");
    assert_eq!(report["audit"]["expected"], report["audit"]["delivered"], "{scenario}: {said}");
    report
}

#[test]
fn messages_of_all_sizes_and_paces_in_every_mode() {
    for mode in ["send", "coalesce", "uring"] {
        let Some(floor) = floor(mode) else { continue };
        let report = run(&floor, "fanout --connections 50 --outstanding 8 --publications 400");
        assert_eq!(report["audit"]["expected"], 20_000);
        let report = run(&floor, "rate --connections 20 --rate 500 --publications 100");
        assert_eq!((&report["published"], &report["audit"]["expected"]), (&json!(100), &json!(2_000)));
        // More than a socket takes at once: what is left over must follow in order.
        let report = run(&floor, "large --connections 4 --payload 4000000 --publications 4");
        assert_eq!(report["audit"]["expected"], 16);
        let report = run(&floor, "echo --connections 10 --outstanding 4 --publications 1000");
        assert_eq!(report["audit"]["expected"], 1_000);
    }
}

#[test]
fn idle_connections_are_weighed_and_proved_to_be_there() {
    let floor = floor("coalesce").unwrap();
    let report = run(&floor, "idle --connections 200 --rooms 4 --hold 10ms --leaving 10ms");
    assert_eq!((&report["published"], &report["audit"]["expected"]), (&json!(4), &json!(200)));
    assert!(report["gateway"]["rss_kib_after"].is_u64() && report["opened_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn everyone_is_back_after_a_storm() {
    let floor = floor("coalesce").unwrap();
    let report = run(&floor, "storm --connections 200 --rooms 10 --publications 50 --rate 500");
    assert_eq!((&report["audit"]["expected"], &report["closes"]), (&json!(1_000), &json!([])));
    assert!(report["storm"]["per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn who_comes_and_goes_is_audited_too() {
    let floor = floor("coalesce").unwrap();
    let report = run(&floor, "churn --connections 20 --rooms 2 --roamers 10 --rate 500 --duration 400ms");
    let joins = report["churn"]["joins"].as_u64().unwrap();
    assert!(joins >= 10 && report["churn"]["by"] == "connection", "{report:#}");
    let staying = report["published"].as_u64().unwrap() * 10;
    assert!(report["audit"]["expected"].as_u64().unwrap() >= staying, "{report:#}");
    assert_eq!(report["latency_us"]["count"], staying, "only those who stay are timed: {report:#}");
}

#[test]
fn those_that_do_not_read_get_everything_in_the_end() {
    let floor = floor("coalesce").unwrap();
    let report = run(&floor, "slow --connections 20 --stalled-percent 10 --rate 200 --payload 20000 --duration 500ms");
    assert_eq!((&report["slow"]["stalled"], &report["slow"]["closed"]), (&json!(2), &json!(0)));
    assert_eq!(report["audit"]["expected"], 2_000);
    assert_eq!(report["latency_us"]["count"], 1_800, "the stalled ones are not timed: {report:#}");
    assert!(report["slow"]["ratio"].as_f64().unwrap() > 0.0);
}
