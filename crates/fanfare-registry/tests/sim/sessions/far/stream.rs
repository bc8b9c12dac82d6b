//! Server-Sent Events as WHATWG HTML section 9.2.6 reads them, but strict: what a browser would pass over is a failure of the run.

use fanfare_protocol::Position;
use serde_json::Value;

use super::Heard;

/// The event at the front, once its empty line is there, and how many bytes it has.
pub(super) fn event(bytes: &[u8]) -> Option<(Heard, usize)> {
    let length = bytes.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let text = str::from_utf8(&bytes[..length - 2]).expect("a stream is UTF-8");
    assert!(!text.contains('\r'), "another line end: {text:?}");
    if text == ":" {
        return Some((Heard::Comment, length));
    }
    let (mut id, mut kind, mut data, mut retry) = (None, None, None, None);
    for line in text.split('\n') {
        let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("a line {line:?}"));
        let place = match field {
            "id" => &mut id,
            "event" => &mut kind,
            "data" => &mut data,
            "retry" => &mut retry,
            other => panic!("a field {other}"),
        };
        assert!(place.replace(value).is_none(), "one line of {field}: {text:?}");
    }
    assert!(retry.is_none_or(|retry| retry.parse::<u64>().is_ok()), "a time to wait");
    let object: Value = serde_json::from_str(data.expect("every event has data")).expect("JSON");
    // Messages are what `onmessage` is called for; `error` means something else to browsers.
    let named = object["name"].as_str().map(|name| if name == "error" { "refused" } else { name });
    assert_eq!(kind.unwrap_or("message"), named.expect("a name"), "an event has the type of its name");
    if kind == Some("close") {
        let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).expect("a code");
        return Some((Heard::Close(code, object["reason"].as_str().expect("a reason").to_owned()), length));
    }
    let id = id.map(|id| id.parse::<Position>().expect("an id is a position"));
    Some((Heard::Streamed(object, id), length))
}
