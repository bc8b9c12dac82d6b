//! Arbitrary text as names, positions and origins: what is let in keeps the rules, and reads back as it was written.
#![no_main]

use fanfare_guard::OriginPolicy;
use fanfare_protocol::{Position, RoomName, UserName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let is_banned = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '?' | '#');
    let is_room = (1..=RoomName::BYTES_MAX).contains(&text.len()) && !text.chars().any(is_banned);
    match RoomName::parse(text) {
        Ok(room) => {
            assert!(is_room, "{text:?}");
            assert_eq!(room.as_str(), text);
            let namespace = room.namespace();
            assert!(text.strip_prefix(namespace).is_some_and(|rest| rest.starts_with(':')) || !text.contains(':'));
        }
        Err(error) => assert!(!is_room && error.to_string().len() < 200, "{text:?}"),
    }
    let has_control = text.chars().any(char::is_control);
    assert_eq!(UserName::guest(text).is_ok(), (2..=20).contains(&text.chars().count()) && !has_control);
    assert_eq!(UserName::parse(text).is_ok(), (1..=UserName::BYTES_MAX).contains(&text.len()) && !has_control);
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
        assert!(!text.contains(char::is_whitespace) && !text.contains('+'));
    }
    origins(text);
});

/// The first line is an entry of `origins`, the second an `Origin` header, the third a `Host` header.
fn origins(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let (entry, origin, host) = (lines.next().unwrap_or(""), lines.next(), lines.next());
    let closed = OriginPolicy::default();
    assert!(closed.allows(None, host), "a client without an origin is no browser");
    if let (Some(origin), None) = (origin, host) {
        assert!(!closed.allows(Some(origin), None), "without a host no origin is the same");
    }
    let Ok(policy) = OriginPolicy::parse(&[entry.to_owned()]) else { return };
    let Some(origin) = origin else { return };
    assert!(entry == "*" || origin != "null" || !policy.allows(Some(origin), None));
    // An entry opens no more than the hosts that end in what it says.
    if entry != "*" && policy.allows(Some(origin), None) {
        let written = entry.rsplit("//").next().unwrap_or(entry).trim_start_matches("*.").to_ascii_lowercase();
        let written_host = written.split(':').next().unwrap_or(&written).trim_matches(['[', ']', '.']);
        let is_address = entry.contains('[') || origin.contains('[');
        assert!(is_address || origin.to_ascii_lowercase().contains(written_host), "{entry:?} opens {origin:?}");
    }
}
