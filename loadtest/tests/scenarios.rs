//! Every scenario against `fanfare-floor`, in each of its modes: what a server without any fault gets is a report without any.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
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
    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare-floor"))
        .args(["--port", "0", "--mode", mode])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    if let Some(address) = said.strip_prefix("listening on ") {
        return Some(Floor { child, url: format!("ws://{}", address.trim()) });
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
        // Everything comes: until it has, on whatever machine.
        .args(["--settle", "60s"])
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
    let scenario = "slow --connections 20 --stalled-percent 5,10 --rate 200 --payload 20000 --duration 500ms --memory-max 100000000";
    let report = run(&floor, scenario);
    let stalled: Vec<&Value> = report["slow"].as_array().unwrap().iter().map(|slow| &slow["stalled"]).collect();
    assert_eq!(stalled, [&json!(1), &json!(2)]);
    assert_eq!(report["audit"]["expected"], 2_000);
    assert_eq!(report["latency_us"]["count"], 1_800, "the stalled ones are not timed: {report:#}");
    let slow = &report["slow"][1];
    assert!(slow["ratio"].as_f64().unwrap() > 0.0 && slow["grown_kib_with"].is_u64(), "{report:#}");
    assert_eq!((&slow["closed"], &slow["memory_max_kib"]), (&json!(0), &json!(97_656)));
}

#[test]
fn a_small_room_beside_a_big_one_is_timed_apart() {
    let floor = floor("coalesce").unwrap();
    let scenario = "fairness --connections 50 --small 3 --small-rate 200 --publications 1600 --duration 500ms";
    let report = run(&floor, scenario);
    // 1,600 publications at most of the big room, and 100 of the small one.
    let big = report["published"].as_u64().unwrap() - 100;
    assert!((1..=1_600).contains(&big), "{report:#}");
    assert_eq!(report["latency_us"]["count"], big * 50, "{report:#}");
    let small = &report["fairness"];
    assert_eq!((&small["latency_us"]["count"], &small["send_lag_us"]["count"]), (&json!(300), &json!(100)));
    assert!(report["seconds"].as_f64().unwrap() >= 0.494, "the small room's rate is kept: {report:#}");
    assert!(small["latency_us"]["p50"].as_f64().unwrap() > 0.0);
    assert!(small["big_delivered_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn bursts_lie_in_the_sockets_until_they_are_read() {
    let (one, other) = (floor("coalesce").unwrap(), floor("send").unwrap());
    let scenario = format!(
        "shards --connections 60 --readers 8 --publications 400 --bursts 2 --other-url {} --other-pid {}",
        other.url,
        other.child.id()
    );
    let report = run(&one, &scenario);
    // The audit of the last burst: those that did not read got all of it, too.
    assert_eq!((&report["audit"]["expected"], &report["latency_us"]["count"]), (&json!(24_000), &json!(3_200)));
    let shards = &report["shards"];
    assert_eq!((&shards["bursts"], &shards["one"]["bursts"].as_array().unwrap().len()), (&json!(2), &2));
    // The last burst is the last of the second.
    assert_eq!(shards["other"]["bursts"][1], report["delivered_per_second"], "{report:#}");
    assert_ne!(shards["one"]["bursts"][1], report["delivered_per_second"], "{report:#}");
    assert!(shards["ratio"].as_f64().unwrap() > 0.0 && shards["other"]["cpu_us_per_delivery"].is_f64(), "{report:#}");
}
