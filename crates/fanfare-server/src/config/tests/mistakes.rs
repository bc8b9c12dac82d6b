//! What is said about each kind of mistake.

use super::*;

#[test]
fn an_unknown_key_names_its_place_and_the_key_that_was_meant() {
    check_complaint(
        "\n[limits]\n  mesage_bytes_max = 5\n",
        "fanfare.toml:3:3: unknown key `limits.mesage_bytes_max`; did you mean `message_bytes_max`?",
    );
    check_complaint("lisen = 'x'", "fanfare.toml:1:1: unknown key `lisen`; did you mean `listen`?");
    check_complaint("colour = 'red'", "fanfare.toml:1:1: unknown key `colour`");
    check_complaint("[limit]\nrooms_max = 1", "fanfare.toml:1:2: unknown table `limit`; did you mean `[limits]`?");
    check_complaint("rooms_max = 1", "fanfare.toml:1:1: unknown key `rooms_max`; did you mean `limits.rooms_max`?");
    // Columns are characters, not bytes.
    check_complaint(
        "namespaces = { 'é' = { pressence = true } }",
        "fanfare.toml:1:24: unknown key `namespaces.\"é\".pressence`; did you mean `presence`?",
    );
}

#[test]
fn a_wrong_type_names_its_place_and_not_the_value() {
    check_complaint("shards = 'four'", "fanfare.toml:1:1: `shards` must be a whole number, not text");
    check_complaint("\nlisten = 80", "fanfare.toml:2:1: `listen` must be text in quotes, not a whole number");
    check_complaint("[listen]", "fanfare.toml:1:2: `listen` must be text in quotes, not a table");
    check_complaint("limits = 5", "fanfare.toml:1:10: `limits` is a table of keys; write [limits]");
    check_complaint(
        "[api]\nkeys = 'hunter2'",
        "fanfare.toml:2:1: `api.keys` must be a list of text, such as [\"a\", \"b\"], not text",
    );
    check_complaint(
        "[limits]\nrooms_max = -1",
        "fanfare.toml:2:1: `limits.rooms_max` must be a whole number of 0 or more",
    );
    check_complaint(
        "[namespaces.a]\nsubscribe = 'anyon'",
        "fanfare.toml:2:1: `namespaces.a.subscribe` must be one of \"anyone\", \"user\", \"token\", \"nobody\"; did you mean \
         \"anyone\"?",
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_order_of_lines() {
    let text = "zzzzzz = 1\n[limits]\nrooms_max = 'many'\nconnections_max = 0\n[heartbeat]\nping = 1\n";
    let error = serve(&Flags::default(), text, &[("FANFARE_NONE_SUCH", "1")]).unwrap_err();
    let lines: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "fanfare.toml:1:1: unknown key `zzzzzz`",
            "fanfare.toml:3:1: `limits.rooms_max` must be a whole number, not text",
            "fanfare.toml:4:1: `limits.connections_max` = 0 is not between 1 and 10000000",
            "fanfare.toml:6:1: unknown key `heartbeat.ping`; did you mean `ping_ms`?",
            "environment FANFARE_NONE_SUCH: unknown key; every variable that begins with FANFARE_ has to be a key",
        ]
    );
    assert_eq!(error.to_string(), lines.join("\n"));
}

#[test]
fn broken_toml_names_its_place_and_does_not_quote_the_line() {
    let lines = complaints("listen = ':1'\n[api]\nkeys = ['hunter2\n");
    assert!(lines[0].starts_with("fanfare.toml:3:"), "{lines:?}");
    assert!(!lines.concat().contains("hunter2"), "{lines:?}");
    let twice = complaints("shards = 1\nshards = 2\n");
    assert!(twice[0].starts_with("fanfare.toml:2:1: duplicate key"), "{twice:?}");
}

#[test]
fn every_refused_key_exists() {
    let preset = Raw::default();
    for (table, key) in typed::UNAVAILABLE {
        let table = table.replace('*', "default");
        let (_, section) = preset.sections().into_iter().find(|(name, _)| *name == table).unwrap();
        assert!(section.keys().iter().any(|known| known.name == *key), "{table}.{key}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    check_complaint(
        "[limits]\nmessage_bytes_max = 67108865\noutbox_bytes_max = 100000000",
        "fanfare.toml:2:1: `limits.message_bytes_max` = 67108865 is not between 1 and 67108864",
    );
    check_complaint(
        "listen = 'example.org:80'",
        "fanfare.toml:1:1: `listen`: \"example.org\" is not an IP address; names other than localhost are not looked up",
    );
    check_complaint(
        "log_level = 'inof'",
        "fanfare.toml:1:1: `log_level`: \"inof\" is none of off, error, warn, info, debug, trace; did you mean \"info\"?",
    );
    for (line, complaint) in [
        ("sample_ratio = 1.5", "`traces.sample_ratio` = 1.5 is not between 0 and 1"),
        ("sample_ratio = nan", "`traces.sample_ratio` must be a number"),
        ("sample_ratio = 'all'", "`traces.sample_ratio` must be a number, not text"),
        ("url = 'otel.example'", "`traces.url` must be an https or http address, without a user in it"),
        (
            "url = 'http://me:hunter2@otel.example'",
            "`traces.url` must be an https or http address, without a user in it",
        ),
        ("service_name = ''", "`traces.service_name` must not be empty"),
        ("headers = ['X-A: 1', 'hunter2']", "entry 2 of `traces.headers` must be of the form `Name: value`"),
        ("queue_max = 15", "`traces.queue_max` = 15 is not between 16 and 1048576"),
    ] {
        check_complaint(&format!("[traces]\n{line}"), &format!("fanfare.toml:2:1: {complaint}"));
    }
    let level = complaints("log_level = 'info,fanfare_edge=loud'");
    assert!(level[0].starts_with("fanfare.toml:1:1: `log_level`: "), "{level:?}");
    check_complaint(
        "[api]\nkeys = ['good', '']",
        "fanfare.toml:2:1: entry 2 of `api.keys` must be visible ASCII without spaces, at least 1 character",
    );
    check_complaint(
        "[namespaces.a]\nticker_ms = 5",
        "fanfare.toml:2:1: `namespaces.a.ticker_ms` must be 0 or at least 10",
    );
    let origins = complaints("origins = ['not an origin']");
    assert!(origins[0].starts_with("fanfare.toml:1:1: `origins`: "), "{origins:?}");
    file("log_level = 'info,fanfare_edge=debug,hyper=off'").unwrap();
}

#[test]
fn namespaces_that_can_never_match_are_refused() {
    let check = |text: &str, expect: &str| {
        let lines = complaints(text);
        assert!(lines.len() == 1 && lines[0].contains(expect), "{lines:?}");
    };
    check("[namespaces.'a:b']\npresence = true", "can never match");
    check("[namespaces.'a b']\npresence = true", "cannot be a namespace");
    check("[namespaces]\npresence = true", "write it under [namespaces.default]");
    check("namespaces = 1", "holds a table for each namespace");
}

#[test]
fn limits_that_contradict_each_other_say_what_to_change() {
    check_complaint(
        "[limits]\nmessage_bytes_max = 1048576\n",
        "fanfare.toml:2:1: one message of `limits.message_bytes_max` = 1048576 with its overhead of 4096 does not fit \
         `limits.outbox_bytes_max` = 1048576; raise the latter to 1052672 or more, or lower the former",
    );
    check_complaint(
        "[limits]\noutbox_total_bytes_max = 1000\n",
        "fanfare.toml:2:1: `limits.outbox_total_bytes_max` comes to 1000, less than the 1048576 of one connection's \
         `limits.outbox_bytes_max`; raise the former or lower the latter",
    );
    check_complaint(
        "[limits]\nconnections_max = 5\nconnections_per_ip_max = 6\n",
        "fanfare.toml:3:1: `limits.connections_per_ip_max` = 6 can never be reached: `limits.connections_max` is 5; lower \
         the former (0: off) or raise the latter",
    );
    check_complaint(
        "listen = ':8081'",
        "fanfare.toml:1:1: `listen` and `admin` are both 127.0.0.1:8081; give them different ports",
    );
    file("listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'").unwrap();
}
