//! The arrows between crates, as rules: what may depend on what is written in one table and read from the manifests.
//!
//! A new arrow is a decision: add it here and to docs/architecture.md in the same change.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::tidy::root;

/// One crate's walls. Only what is linked into the crate counts: tests and benches may use anything.
struct Walls {
    crate_name: &'static str,
    /// The workspace crates it may name.
    arrows: &'static [&'static str],
    /// The external crates that must not be in its manifest, in groups.
    never: &'static [&'static [&'static str]],
}

/// Whatever runs tasks, opens sockets or speaks HTTP.
const SOCKETS: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "async-std",
    "smol",
    "hyper",
    "hyper-util",
    "http-body-util",
    "fastwebsockets",
    "tokio-tungstenite",
    "tungstenite",
    "mio",
    "rustix",
    "libc",
    "nix",
    "socket2",
    "io-uring",
    "rustls",
    "tokio-rustls",
];
/// Randomness and calendars: core crates are told the time and the dice.
const DICE: &[&str] = &["rand", "rand_core", "getrandom", "fastrand", "uuid", "chrono", "time", "quanta", "coarsetime"];
/// What only a program needs.
const PROGRAM: &[&str] = &[
    "clap",
    "toml",
    "anyhow",
    "mimalloc",
    "tracing-subscriber",
    "prometheus-client",
    "indicatif",
    "criterion",
    "ratatui",
];
const RELAYS: &[&str] = &["redis", "fred", "nats", "async-nats"];
const SERDE: &[&str] = &["serde", "serde_json"];
const DASHMAP: &[&str] = &["dashmap"];
const TRACING: &[&str] = &["tracing", "log"];

const TABLE: &[Walls] = &[
    Walls {
        crate_name: "fanfare-protocol",
        arrows: &[],
        never: &[SOCKETS, DICE, PROGRAM, RELAYS, DASHMAP, TRACING, &["parking_lot", "crossbeam"]],
    },
    Walls {
        crate_name: "fanfare-fanout",
        arrows: &[],
        never: &[SOCKETS, DICE, PROGRAM, RELAYS, DASHMAP, TRACING, SERDE],
    },
    Walls {
        crate_name: "fanfare-guard",
        arrows: &["fanfare-protocol"],
        never: &[SOCKETS, DICE, PROGRAM, RELAYS, DASHMAP, TRACING],
    },
    Walls {
        crate_name: "fanfare-registry",
        arrows: &["fanfare-fanout", "fanfare-protocol"],
        never: &[SOCKETS, DICE, PROGRAM, RELAYS, SERDE],
    },
    // The two crates with `unsafe`: one speaks to the kernel, one to the allocator, and both to nobody else.
    Walls {
        crate_name: "fanfare-alloc",
        arrows: &[],
        never: &[DICE, RELAYS, DASHMAP, TRACING, SERDE, &["tokio", "hyper", "mio", "parking_lot", "clap"]],
    },
    Walls {
        crate_name: "fanfare-uring",
        arrows: &[],
        never: &[DICE, PROGRAM, RELAYS, DASHMAP, TRACING, SERDE, &["tokio", "hyper", "mio", "rustix", "parking_lot"]],
    },
    Walls {
        crate_name: "fanfare-edge",
        arrows: &["fanfare-registry", "fanfare-guard", "fanfare-fanout", "fanfare-protocol", "fanfare-uring"],
        never: &[PROGRAM, RELAYS],
    },
    // It and the edge never meet: the server introduces them.
    Walls {
        crate_name: "fanfare-backplane",
        arrows: &["fanfare-registry", "fanfare-protocol"],
        never: &[PROGRAM, DASHMAP, &["hyper", "mio", "tokio-tungstenite", "rustix"]],
    },
    Walls {
        crate_name: "fanfare-client",
        arrows: &["fanfare-protocol"],
        never: &[PROGRAM, RELAYS, DASHMAP, &["mio", "rustix"]],
    },
    Walls {
        crate_name: "fanfare-server",
        arrows: &[
            "fanfare-alloc",
            "fanfare-backplane",
            "fanfare-edge",
            "fanfare-registry",
            "fanfare-guard",
            "fanfare-fanout",
            "fanfare-protocol",
            "fanfare-client",
        ],
        never: &[DASHMAP, &["criterion", "mio"]],
    },
    // Instruments: nothing depends on them, which is why no row above names them.
    Walls {
        crate_name: "fanfare-loadtest",
        arrows: &["fanfare-client", "fanfare-protocol", "fanfare-uring"],
        never: &[RELAYS],
    },
    Walls {
        crate_name: "fanfare-benches",
        arrows: &[
            "fanfare-edge",
            "fanfare-registry",
            "fanfare-guard",
            "fanfare-fanout",
            "fanfare-protocol",
            "fanfare-client",
            "fanfare-server",
        ],
        never: &[RELAYS],
    },
];

#[test]
fn every_arrow_between_crates_is_in_the_table() {
    let metadata = metadata();
    let members = metadata["packages"].as_array().expect("cargo metadata lists packages").len();
    assert!(members >= TABLE.len(), "cargo metadata names {members} members, the table {}", TABLE.len());
    let found = violations(&metadata);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_planted_arrow_is_found() {
    let check = |package: &str, dependency: Value, expect: &str| {
        let mut planted = metadata();
        let packages = planted["packages"].as_array_mut().expect("cargo metadata lists packages");
        let package = packages.iter_mut().find(|p| p["name"] == package).expect("the package exists");
        package["dependencies"].as_array_mut().expect("a package lists its dependencies").push(dependency);
        let found = violations(&planted);
        assert!(found.iter().any(|v| v.contains(expect)), "{expect:?} is not in {found:?}");
    };
    check("fanfare-protocol", json!({ "name": "fanfare-edge", "kind": null }), "fanfare-protocol → fanfare-edge");
    check("fanfare-fanout", json!({ "name": "fanfare-protocol", "kind": null }), "fanfare-fanout → fanfare-protocol");
    check("fanfare-client", json!({ "name": "fanfare-registry", "kind": null }), "fanfare-client → fanfare-registry");
    check("fanfare-server", json!({ "name": "fanfare-loadtest", "kind": null }), "fanfare-server → fanfare-loadtest");
    check("fanfare-registry", json!({ "name": "tokio", "kind": "build" }), "fanfare-registry must not use tokio");
    check("fanfare-registry", json!({ "name": "serde", "kind": null }), "fanfare-registry must not use serde");
    check(
        "fanfare-guard",
        json!({ "name": "rand", "rename": "dice", "kind": null, "optional": true }),
        "fanfare-guard must not use rand",
    );
    check("fanfare-edge", json!({ "name": "fanfare-backplane", "kind": null }), "fanfare-edge → fanfare-backplane");
    check("fanfare-edge", json!({ "name": "clap", "kind": null }), "fanfare-edge must not use clap");
}

#[test]
fn a_test_may_use_what_its_crate_may_not() {
    let mut planted = metadata();
    let packages = planted["packages"].as_array_mut().expect("cargo metadata lists packages");
    let protocol = packages.iter_mut().find(|p| p["name"] == "fanfare-protocol").expect("the package exists");
    let dependencies = protocol["dependencies"].as_array_mut().expect("a package lists its dependencies");
    dependencies.push(json!({ "name": "rand", "kind": "dev" }));
    assert_eq!(violations(&planted), violations(&metadata()));
}

#[test]
fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
    let mut planted = metadata();
    let packages = planted["packages"].as_array_mut().expect("cargo metadata lists packages");
    packages.retain(|p| p["name"] != "fanfare-guard");
    packages.push(json!({ "name": "fanfare-bridge", "dependencies": [] }));
    let found = violations(&planted);
    assert!(found.iter().any(|v| v.contains("fanfare-bridge has no row")), "{found:?}");
    assert!(found.iter().any(|v| v.contains("fanfare-guard is not in the workspace")), "{found:?}");
}

/// What the manifests say, of the workspace's own crates only; needs no network and no lock file.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Every breach of the table, one sentence each.
fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let name_of = |value: &Value| value["name"].as_str().expect("it has a name").to_owned();
    let members: BTreeSet<String> = packages.iter().map(name_of).collect();

    let mut found: Vec<String> = TABLE
        .iter()
        .filter(|walls| !members.contains(walls.crate_name))
        .map(|walls| format!("{} is not in the workspace: remove its row", walls.crate_name))
        .collect();
    for package in packages {
        let name = name_of(package);
        let Some(walls) = TABLE.iter().find(|walls| walls.crate_name == name) else {
            found.push(format!("{name} has no row in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a package lists its dependencies") {
            if dependency["kind"] == "dev" {
                continue;
            }
            let on = name_of(dependency);
            // A table row counts as ours too, so that an arrow to a crate that has just left is still an arrow.
            let ours = members.contains(&on) || TABLE.iter().any(|walls| walls.crate_name == on);
            if ours && !walls.arrows.contains(&on.as_str()) {
                found.push(format!("{name} → {on} is not in the table of arrows"));
            }
            if walls.never.iter().any(|group| group.contains(&on.as_str())) {
                found.push(format!("{name} must not use {on}"));
            }
        }
    }
    found
}
