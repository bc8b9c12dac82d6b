//! `fanfare dev`.

use std::time::Duration;

use fanfare_protocol::RoomName;

use super::*;

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
