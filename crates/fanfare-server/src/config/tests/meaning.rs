//! What values mean.

use fanfare_fanout::OutboxLimits;
use fanfare_protocol::wire::DeflaterSettings;
use fanfare_protocol::{HeartbeatLimits, MessageLimits};

use super::*;

#[test]
fn the_defaults_are_those_of_the_core_crates() {
    let config = file("").unwrap();
    assert_eq!(config.messages, MessageLimits::default());
    assert_eq!(config.outbox, OutboxLimits::default());
    assert_eq!(config.heartbeat, HeartbeatLimits::default());
    assert_eq!(config.outbox_total_bytes_max as u64, config.memory_bytes / 4);
    assert_eq!(config.limits.messages_per_second_max, None);
    assert!(!config.guests && !config.api_open && !config.diagnostics.echo);
}

#[test]
fn compression_is_off_for_all_or_from_a_size_on() {
    let compression = |text: &str| file(&format!("[compression]\n{text}")).unwrap().compression;
    let preset = compression("").expect("it is on by default");
    let DeflaterSettings { threshold_bytes, level } = DeflaterSettings::default();
    assert_eq!((preset.threshold_bytes, preset.level, preset.client_context_takeover), (threshold_bytes, level, false));
    assert_eq!(compression("mode = 'off'\nthreshold_bytes = 5"), None);
    let on = compression("mode = 'on'\nthreshold_bytes = 5\nlevel = 9\nclient_context_takeover = true").unwrap();
    assert_eq!((on.threshold_bytes, on.level, on.client_context_takeover), (0, 9, true));
    assert_eq!(compression("threshold_bytes = 5").map(|compression| compression.threshold_bytes), Some(5));
    let history = file("[compression]\nclient_context_takeover = true").unwrap().ceiling();
    assert!(history.terms.iter().any(|term| term.name == "compression" && term.bytes == 100_000 * 32_768));
    for (key, value, low, high) in [("level", 0, 1, 9), ("level", 10, 1, 9), ("threshold_bytes", 0, 1, 1 << 20)] {
        check_complaint(
            &format!("[compression]\n{key} = {value}"),
            &format!("fanfare.toml:2:1: `compression.{key}` = {value} is not between {low} and {high}"),
        );
    }
}

#[test]
fn unfit_token_keys_are_named_by_their_place_and_never_quoted() {
    check_complaint(
        "[auth]\nkeys = ['0123456789abcdef0123456789abcdef', 'hunter2']",
        "fanfare.toml:2:1: entry 2 of `auth.keys`: a secret must have at least 32 bytes; make one with `openssl rand -hex 32`",
    );
    assert!(!file("[auth]\nkeys = ['0123456789abcdef0123456789abcdef']").unwrap().tokens.is_empty());
}

#[test]
fn spans_go_where_the_address_says_and_to_the_usual_path_where_it_says_none() {
    assert!(file("").unwrap().traces.is_none());
    let traces = |url: &str| file(&format!("[traces]\nurl = '{url}'")).unwrap().traces.unwrap();
    for (url, asked) in [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://otel.example/", "https://otel.example/v1/traces"),
        ("http://[::1]:4318/otlp/v1/traces?tenant=a", "http://[::1]:4318/otlp/v1/traces?tenant=a"),
    ] {
        assert_eq!(traces(url).url.to_string(), asked);
    }
    let config = file(
        "[traces]\nurl = 'http://otel.example'\nsample_ratio = 0\nheaders = ['Authorization: Bearer hunter2', 'X-A: b:c']",
    );
    let config = config.unwrap();
    let traces = config.traces.as_ref().unwrap();
    assert_eq!((traces.sample_ratio, &traces.headers["x-a"]), (0.0, &"b:c".parse().unwrap()));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.warnings().iter().any(|warning| warning.contains("traces.url is not https")));
    let shares = [("0.25", 0.25), ("1", 1.0), ("1e-3", 0.001)];
    for (text, share) in shares {
        let config = serve(&Flags::default(), "traces.url = 'http://a'", &[("FANFARE_TRACES__SAMPLE_RATIO", text)]);
        assert_eq!(config.unwrap().traces.unwrap().sample_ratio, share, "{text}");
    }
}

#[test]
fn limits_that_are_only_observed_are_warned_of() {
    let config = file("[limits]\nmode = \"observe\"").unwrap();
    assert!(config.limits.observes);
    assert!(config.warnings().iter().any(|warning| warning.contains("limits.mode is observe")));
    assert!(!file("").unwrap().limits.observes);
}

#[test]
fn serve_without_keys_keeps_the_api_shut_and_says_so() {
    let config = file("").unwrap();
    assert!(!config.api_open);
    assert_eq!(config.warnings(), ["api.keys is empty: every call of the HTTP API is refused"]);
    let config = file("admin = '0.0.0.0:8081'\n[api]\nkeys = ['k']").unwrap();
    assert!(config.warnings()[0].contains("can be reached from other machines"));
    assert!(!format!("{config:?}").contains("\"k\""));
}
