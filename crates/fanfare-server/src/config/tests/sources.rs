//! Where values come from, and which source wins.

use std::time::Duration;

use fanfare_protocol::RoomName;

use super::*;

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
fn a_missing_file_is_named() {
    let error = ConfigFile::read(std::path::Path::new("/nowhere/fanfare.toml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/fanfare.toml: "), "{error}");
}
