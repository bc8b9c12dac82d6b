//! The sources against each other, and what is said about each kind of mistake.

use std::time::Duration;

use fanfare_fanout::OutboxLimits;
use fanfare_protocol::wire::DeflaterSettings;
use fanfare_protocol::{HeartbeatLimits, MessageLimits, RoomName};
use toml::de::DeTable;

use super::*;

fn serve(flags: &Flags, file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = ConfigFile::new("fanfare.toml", file);
    Config::serve(flags, Some(&file), &environment.iter().copied().collect())
}

fn file(text: &str) -> Result<Config, ConfigError> {
    serve(&Flags::default(), text, &[])
}

/// The problems of a file, a line each.
fn complaints(text: &str) -> Vec<String> {
    file(text).expect_err("the file is wrong").problems().iter().map(ToString::to_string).collect()
}

fn check_complaint(text: &str, expect: &str) {
    assert_eq!(complaints(text), [expect], "{text}");
}

fn check_variable(name: &str, value: &str, expect: &str) {
    let error = serve(&Flags::default(), "", &[(name, value)]).expect_err("the variable is wrong");
    assert_eq!(error.to_string(), expect, "{name}");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "listen = '127.0.0.1:1'\nadmin = '127.0.0.1:2'\nshards = 3\nnode = 'file'";
    let environment = [("FANFARE_LISTEN", "127.0.0.1:11"), ("FANFARE_SHARDS", "13")];
    let flags = Flags { listen: Some("127.0.0.1:21".parse().unwrap()), ..Flags::default() };
    let config = serve(&flags, text, &environment).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:21");
    assert_eq!(config.shards.get(), 13);
    assert_eq!(config.admin.to_string(), "127.0.0.1:2");
    assert_eq!(config.node, "file");
    assert_eq!(config.reap, Duration::from_secs(10));
    assert_eq!(config.log, LogFormat::Text);

    let flags = Flags { shards: Some(0), log: Some(LogFormat::Json), admin: Some(":7".parse().unwrap()), ..flags };
    let config = serve(&flags, text, &environment).unwrap();
    assert_eq!(config.shards, std::thread::available_parallelism().unwrap());
    assert_eq!(config.log, LogFormat::Json);
    assert_eq!(config.admin.to_string(), "0.0.0.0:7");
}

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
fn the_printed_default_file_parses_back_to_the_defaults() {
    let text = reference::default_file();
    let mut raw = Raw::default();
    let mut problems = Vec::new();
    layer::apply_file(&mut raw, &ConfigFile::new("default", text.as_str()), &mut problems);
    assert_eq!(problems, []);
    let preset = Raw::default();
    assert_eq!(raw.sections().len(), preset.sections().len());
    for ((name, read), (_, preset)) in raw.sections().iter().zip(preset.sections()) {
        for (read, preset) in read.keys().iter().zip(preset.keys()) {
            assert_eq!(read.value, preset.value, "{name}.{}", read.name);
            assert!(matches!(read.origin, Origin::File { .. }), "{name}.{} is not in the file", read.name);
        }
    }
    file(&text).unwrap();
}

/// The keys that the contract lists, with its defaults.
const CONTRACT: &str = r#"
listen = "0.0.0.0:8080"
admin = "127.0.0.1:8081"
shards = 0
origins = []
[limits]
connections_max = 100000
connections_per_ip_max = 0
handshake_ms_max = 10000
header_bytes_max = 16384
message_bytes_max = 65536
messages_per_second_max = 0
subscriptions_per_connection_max = 1000
rooms_max = 1000000
outbox_bytes_max = 1048576
outbox_messages_max = 4096
outbox_total_bytes_max = 0
mode = "enforce"
[heartbeat]
ping_ms = 25000
pong_ms = 10000
write_ms = 10000
[auth]
guests = false
keys = []
jwks_url = ""
[api]
keys = []
on_client_listener = false
[rooms]
reap_ms = 10000
[namespaces.default]
subscribe = "anyone"
publish = "anyone"
history_size = 0
history_ms = 0
presence = false
join_leave = false
coalesce_ms = 0
slow = "evict"
ticker_ms = 0
filter = "off"
inbox_size = 0
[moderation]
words_file = ""
model_file = ""
[diagnostics]
echo = false
page = true
[engine]
kind = "memory"
url = ""
[drain]
grace_ms = 5000
window_ms = 30000
"#;

#[test]
fn the_contract_s_keys_exist_with_its_defaults() {
    file(CONTRACT).unwrap();
    let printed = reference::default_file();
    let printed = DeTable::parse(&printed).unwrap();
    let contract = DeTable::parse(CONTRACT).unwrap();
    check_subset(contract.get_ref(), printed.get_ref());
}

fn check_subset(part: &DeTable<'_>, whole: &DeTable<'_>) {
    for (key, value) in part {
        let found = whole.get(key.get_ref().as_ref()).unwrap_or_else(|| panic!("no key {}", key.get_ref())).get_ref();
        match value.get_ref().as_table() {
            Some(table) => check_subset(table, found.as_table().unwrap()),
            None => assert_eq!(format!("{:?}", value.get_ref()), format!("{found:?}"), "{}", key.get_ref()),
        }
    }
}

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
fn the_environment_nests_with_two_underscores() {
    let environment = [
        ("FANFARE_LIMITS__MESSAGE_BYTES_MAX", "1024"),
        ("FANFARE_API__KEYS", "one,two"),
        ("FANFARE_ORIGINS", r#"["https://app.example"]"#),
        ("FANFARE_NAMESPACES__CHAT__TICKER_MS", "3000"),
        ("FANFARE_NAMESPACES__TEAM_ROOM__PRESENCE", "true"),
        ("FANFARE_NAMESPACES__TEAM_ROOM__JOIN_LEAVE", "true"),
        ("FANFARE_AUTH__GUESTS", "true"),
    ];
    let config = serve(&Flags::default(), "[namespaces.Team-Room]\nticker_ms = 50", &environment).unwrap();
    assert_eq!(config.messages.message_bytes_max, 1024);
    assert_eq!(config.api_keys, [Secret::new("one"), Secret::new("two")]);
    assert!(config.guests);
    let policy = |room: &str| *config.namespaces.get(&RoomName::parse(room).unwrap());
    assert_eq!(policy("chat:1").ticker_ms, 3000);
    // The file's spelling of the name counts.
    assert!(policy("Team-Room:1").presence && policy("Team-Room:1").join_leave);
    assert_eq!(policy("Team-Room:1").ticker_ms, 50);
    assert!(!policy("team_room:1").presence);
}

#[test]
fn an_unknown_variable_stops_the_start_and_is_guessed_at() {
    check_variable(
        "FANFARE_LIMITS__MESAGE_BYTES_MAX",
        "1",
        "environment FANFARE_LIMITS__MESAGE_BYTES_MAX: unknown key; did you mean FANFARE_LIMITS__MESSAGE_BYTES_MAX?",
    );
    check_variable(
        "FANFARE_LIMITS_ROOMS_MAX",
        "1",
        "environment FANFARE_LIMITS_ROOMS_MAX: unknown key; did you mean FANFARE_LIMITS__ROOMS_MAX?",
    );
    check_variable(
        "FANFARE_X",
        "1",
        "environment FANFARE_X: unknown key; every variable that begins with FANFARE_ has to be a key",
    );
    check_variable("FANFARE_listen", ":1", "environment FANFARE_listen: unknown key; did you mean FANFARE_LISTEN?");
    check_variable(
        "FANFARE_NAMESPACES__CHAT__TICKER",
        "1",
        "environment FANFARE_NAMESPACES__CHAT__TICKER: unknown key; did you mean FANFARE_NAMESPACES__CHAT__TICKER_MS?",
    );
    check_variable("FANFARE_SHARDS", "x", "environment FANFARE_SHARDS: `shards` must be a whole number of 0 or more");
    check_variable(
        "FANFARE_AUTH__GUESTS",
        "1",
        "environment FANFARE_AUTH__GUESTS: `auth.guests` must be true or false, not other text",
    );
}

#[test]
fn every_printed_variable_is_taken() {
    let mut checked = 0;
    for line in reference::environment().lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once("  ").unwrap();
        let value = rest.rsplit_once("  ").unwrap().1.trim();
        // Text is quoted where it is shown as TOML, and bare in the environment.
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        serve(&Flags::default(), "", &[(name, value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        checked += 1;
    }
    assert!(checked > 45, "{checked}");
}

#[test]
fn the_page_has_every_key() {
    let page = reference::page();
    for (_, section) in Raw::default().sections() {
        for key in section.keys() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
            assert!(row.is_some(), "{}", key.name);
        }
    }
}

#[test]
fn the_page_and_the_file_say_which_keys_are_refused() {
    let marks = |text: &str| text.matches("Not available in this version").count();
    assert_eq!(marks(&reference::page()), typed::UNAVAILABLE.len());
    assert_eq!(marks(&reference::default_file()), typed::UNAVAILABLE.len());
}

#[test]
fn features_that_are_not_built_are_refused() {
    let refused = |table: &str, key: &str, value: &str, only: &str| {
        check_complaint(
            &format!("[{table}]\n{key} = {value}\n"),
            &format!("fanfare.toml:2:1: `{table}.{key} = {value}` is not available in this version; only {only} is"),
        );
    };
    refused("engine", "kind", r#""redis""#, r#""memory""#);
    refused("engine", "url", r#""redis://x""#, r#""""#);
}

#[test]
fn a_history_is_kept_by_namespace_and_fits_a_message() {
    let config = file(
        "[limits]\nhistory_total_bytes_max = 5000000\n[namespaces.default]\nhistory_size = 10\n[namespaces.chat]\n\
         history_ms = 60000\nhistory_bytes_max = 100000\n[namespaces.off]\nhistory_size = 0\nhistory_bytes_max = 1",
    )
    .unwrap();
    let kept: Vec<_> = config
        .namespaces
        .iter()
        .map(|(name, policy)| {
            (name, policy.history_size, policy.history_ms, policy.history_bytes_max, policy.last_value)
        })
        .collect();
    let expected =
        [("default", 10, 0, 1_048_576, false), ("chat", 10, 60_000, 100_000, false), ("off", 0, 0, 1, false)];
    assert_eq!(kept, expected);
    assert_eq!(config.history_total_bytes_max, 5_000_000);
    let small = |text: &str, place: &str, path: &str| {
        check_complaint(
            text,
            &format!(
                "fanfare.toml:{place}: `{path}` comes to 66559, too little to keep one message of \
                 `limits.message_bytes_max` = 65536; raise it to 66560 or more, or lower the latter"
            ),
        );
    };
    let on = "[namespaces.a]\nhistory_size = 1\n[namespaces.b]\nhistory_size = 1\nhistory_bytes_max = 70000\n";
    let total = "limits.history_total_bytes_max";
    small(&format!("{total} = 66559\n{on}"), "1:8", total);
    small(&format!("namespaces.default.history_bytes_max = 66559\n{on}"), "1:20", "namespaces.a.history_bytes_max");
    small(
        &format!("{on}[namespaces.c]\nhistory_size = 1\nhistory_bytes_max = 66559"),
        "8:1",
        "namespaces.c.history_bytes_max",
    );
    file("[namespaces.a]\nhistory_size = 1\nhistory_bytes_max = 66560").unwrap();
    check_complaint(
        "[namespaces.a]\nhistory_size = 1000001\n",
        "fanfare.toml:2:1: `namespaces.a.history_size` = 1000001 is not between 0 and 1000000",
    );
}

#[test]
fn histories_are_part_of_the_memory_ceiling() {
    let histories = |toml: &str| {
        let ceiling = file(toml).unwrap().ceiling();
        ceiling.terms.into_iter().find(|term| term.name == "histories").unwrap()
    };
    assert_eq!(histories("").bytes, 0);
    let total = "limits.history_total_bytes_max = 10000000\n";
    let few = histories(&format!("{total}limits.rooms_max = 2\nnamespaces.a.history_size = 3"));
    assert_eq!(few.bytes, 2 * 3 * (65_536 + 256), "{few:?}");
    let bounded = histories(&format!("{total}limits.rooms_max = 2\nnamespaces.a.history_size = 1000"));
    assert_eq!(bounded.bytes, 2 * 1_048_576, "{bounded:?}");
    let many = histories(&format!("{total}namespaces.a.history_size = 3"));
    assert_eq!(many.bytes, 10_000_000, "{many:?}");
}

#[test]
fn files_of_moderation_are_read_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (words, model) = (path("words", b"bad\nevil\n"), path("model", b"fanfare-model 1\n0.9 1 1\n1\t0\tfree\n"));
    let files = format!("[moderation]\nwords_file = '{words}'\nmodel_file = '{model}'");
    let namespaces =
        "[namespaces.default]\nfilter = 'mask'\n[namespaces.a]\nfilter = 'hold'\n[namespaces.b]\npresence = true";
    let config = file(&format!("{files}\n{namespaces}")).unwrap();
    assert_eq!(config.moderation.words().map(fanfare_guard::words::WordList::len), Some(2));
    assert_eq!(config.moderation.model().map(fanfare_guard::words::Model::len), Some(1));
    let filter = |room| config.namespaces.get(&RoomName::parse(room).unwrap()).filter;
    assert_eq!((filter("a:1"), filter("b:1")), (fanfare_guard::Filter::Hold, fanfare_guard::Filter::Mask));
    assert_eq!(file(&files).unwrap().namespaces.get(&RoomName::parse("a").unwrap()).filter, fanfare_guard::Filter::Off);
    assert!(config.warnings().iter().any(|warning| warning.contains("nobody can release them")));
    assert!(config.ceiling().terms.iter().any(|term| term.name == "held messages" && term.bytes == 1_000 * 65_536));

    let wrong = path("wrong", b"fine\n\xff\n\n...\n");
    let complaint =
        |line: usize, what: &str| format!("fanfare.toml:2:1: `moderation.words_file`: {wrong}:{line}: {what}");
    assert_eq!(
        complaints(&format!("[moderation]\nwords_file = '{wrong}'")),
        [complaint(2, "not UTF-8; save the list as UTF-8"), complaint(4, "a word needs a letter, a digit or an emoji")]
    );
    check_complaint(
        &format!("[moderation]\nmodel_file = '{words}'"),
        &format!(
            "fanfare.toml:2:1: `moderation.model_file`: {words}: this is no model of this version: the first line must be \
             `fanfare-model 1`; make one with `fanfare train`"
        ),
    );
    check_complaint(
        "[moderation]\nwords_file = '/nowhere/words'",
        "fanfare.toml:2:1: `moderation.words_file`: /nowhere/words: No such file or directory (os error 2)",
    );
    check_complaint(
        "[namespaces.chat]\nfilter = 'mask'",
        "fanfare.toml:2:1: `namespaces.chat.filter` needs a word list or a model: set `moderation.words_file` or \
         `moderation.model_file`",
    );
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

#[test]
fn a_namespace_takes_from_default_what_its_table_leaves_out() {
    let config =
        file("[namespaces.default]\npublish = 'nobody'\nticker_ms = 100\n[namespaces.chat]\nticker_ms = 0\n").unwrap();
    let policy = |room: &str| *config.namespaces.get(&RoomName::parse(room).unwrap());
    assert_eq!(policy("lobby").ticker_ms, 100);
    assert_eq!(policy("other:1").publish, fanfare_guard::Right::Nobody);
    assert_eq!(policy("chat:1").publish, fanfare_guard::Right::Nobody);
    assert_eq!(policy("chat:1").ticker_ms, 0);
}

#[test]
fn dev_is_open_and_quick() {
    let config = Config::dev(&Flags::default(), None, &Environment::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.to_string(), "127.0.0.1:8081");
    assert!(config.guests && config.api_open && config.diagnostics.echo && config.diagnostics.page);
    assert_eq!(config.drain.grace, Duration::ZERO);
    assert_eq!(config.drain.window, Duration::from_millis(500));
    let policy = config.namespaces.get(&RoomName::parse("lobby").unwrap());
    assert!(policy.presence && policy.client_close);

    let with = |name: &str, value: &str| Config::dev(&Flags::default(), None, &[(name, value)].into_iter().collect());
    assert!(!with("FANFARE_AUTH__GUESTS", "false").unwrap().guests);
    let keyed = with("FANFARE_API__KEYS", "k").unwrap();
    assert!(!keyed.api_open, "who configures a key wants it asked for");
}

#[test]
fn dev_refuses_to_be_reached_from_elsewhere() {
    let dev = |flags: Flags| Config::dev(&flags, None, &Environment::default());
    let error = dev(Flags { listen: Some("0.0.0.0:8080".parse().unwrap()), ..Flags::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "flag --listen: `listen` is 0.0.0.0:8080, but `fanfare dev` lets everybody in and so listens on loopback only: use \
         127.0.0.1:PORT, [::1]:PORT or unix:/path, or start `fanfare serve`"
    );
    let error = dev(Flags { admin: Some("10.1.2.3:1".parse().unwrap()), ..Flags::default() }).unwrap_err();
    assert!(error.to_string().starts_with("flag --admin: `admin` is 10.1.2.3:1"), "{error}");
    let error = Config::dev(&Flags::default(), None, &[("FANFARE_LISTEN", ":80")].into_iter().collect()).unwrap_err();
    assert!(error.to_string().starts_with("environment FANFARE_LISTEN: `listen` is 0.0.0.0:80"), "{error}");
    dev(Flags { listen: Some("[::1]:0".parse().unwrap()), ..Flags::default() }).unwrap();
    dev(Flags { listen: Some("unix:/tmp/f.sock".parse().unwrap()), ..Flags::default() }).unwrap();
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

#[test]
fn a_missing_file_is_named() {
    let error = ConfigFile::read(std::path::Path::new("/nowhere/fanfare.toml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/fanfare.toml: "), "{error}");
}

#[test]
fn the_committed_reference_page_is_the_generated_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference::page(),
        "docs/configuration.md is not what `fanfare config docs` prints: run `make docs-configuration`"
    );
}

#[test]
fn limits_that_are_only_observed_are_warned_of() {
    let config = file("[limits]\nmode = \"observe\"").unwrap();
    assert!(config.limits.observes);
    assert!(config.warnings().iter().any(|warning| warning.contains("limits.mode is observe")));
    assert!(!file("").unwrap().limits.observes);
}
