//! Calls of the HTTP API: paths and queries against the table of routes, and the body of a publication. What is read is what an independent reader finds there,
//! and what is no JSON is told apart from what is no publication.
#![no_main]

use fanfare_edge::fuzzing::{api_call, publication};
use fanfare_fuzz::Data;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    match data.byte() % 3 {
        0 => body(data.0),
        1 => body(&composed(&mut data)),
        _ => {
            let Ok(text) = str::from_utf8(data.0) else { return };
            let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
            let path = path.to_owned();
            call(&path, query);
            call(&format!("/api/{path}"), query);
        }
    }
});

/// Members that a publication has, or nearly.
fn composed(data: &mut Data<'_>) -> Vec<u8> {
    let mut members = Vec::new();
    for _ in 0..data.byte() % 6 {
        let name = data.pick(&["room", "message", "message", "except", "idempotency_key", "r\\u006fom", "user"]);
        let length = usize::from(data.byte());
        let value = match data.byte() % 6 {
            0 => String::from_utf8_lossy(data.take(length)).into_owned(),
            1 => "null".to_owned(),
            2 => format!("{:x}-{:x}-{:x}", data.byte(), data.number(), data.byte()),
            _ => serde_json::to_string(&String::from_utf8_lossy(data.take(length))).expect("a string"),
        };
        let value = if value.contains('-') && !value.starts_with('"') { format!("\"{value}\"") } else { value };
        members.push(format!("\"{name}\": {value}"));
    }
    format!("{{{}}}", members.join(", ")).into_bytes()
}

fn body(bytes: &[u8]) {
    let value = serde_json::from_slice::<Value>(bytes);
    match publication(bytes) {
        Err(status) => {
            assert!(matches!(status, 400 | 422), "{status}");
            assert!(status == 422 || value.is_err(), "JSON is refused as none: {}", bytes.escape_ascii());
        }
        Ok(read) => {
            // Numbers out of range are passed on and not looked at.
            let Ok(value) = value else { return };
            let members = value.as_object().expect("an object and nothing else");
            assert!(
                members.keys().all(|name| ["room", "message", "except", "idempotency_key"].contains(&name.as_str()))
            );
            assert_eq!(Some(read.room.as_str()), value["room"].as_str());
            assert_eq!(serde_json::from_str::<Value>(&read.message).ok().as_ref(), members.get("message"));
            assert!(bytes.windows(read.message.len()).any(|part| part == read.message.as_bytes()), "byte for byte");
            assert_eq!(read.idempotency_key.as_deref(), value["idempotency_key"].as_str());
            assert_eq!(read.except.as_ref().map(|(written, _)| written.as_str()), value["except"].as_str());
            if let Some((written, Some(named))) = read.except {
                let plain = |text: &str| -> Vec<String> {
                    text.split('-').map(|part| part.trim_start_matches('0').to_ascii_lowercase()).collect()
                };
                assert_eq!(plain(&written), plain(&named), "another connection is named");
            }
        }
    }
}

fn call(path: &str, query: Option<&str>) {
    let found = api_call(path, query);
    for (at, (route, verb, places, taken)) in found.iter().enumerate() {
        assert!(!found[..at].iter().any(|(_, other, ..)| other == verb), "{verb} {path} is of two routes");
        let (segments, expected): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
        assert_eq!(segments.len(), expected.len());
        let mut places = places.iter();
        for (segment, expected) in segments.into_iter().zip(expected) {
            if expected.starts_with('{') {
                assert_eq!(places.next(), Some(&decoded(segment, false).unwrap_or_default()));
            } else {
                assert_eq!(segment, expected);
            }
        }
        assert_eq!(places.next(), None);
        match taken {
            Ok(()) => {
                let mut names: Vec<_> = pairs(query)
                    .into_iter()
                    .map(|(name, value)| {
                        assert!(value.is_some(), "a value that is no text is let in");
                        name.expect("a name that is no text is let in")
                    })
                    .collect();
                let count = names.len();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), count, "a parameter is let in twice");
            }
            Err(status) => assert_eq!((*status, query.is_some()), (422, true)),
        }
    }
}

fn pairs(query: Option<&str>) -> Vec<(Option<String>, Option<String>)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.find('=').unwrap_or(pair.len());
            (decoded(&pair[..at], true), decoded(pair.get(at + 1..).unwrap_or_default(), true))
        })
        .collect()
}

/// Per cent and two digits are a byte. Written here anew on purpose.
fn decoded(text: &str, is_form: bool) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = || Some([char::from(*after.first()?).to_digit(16)?, char::from(*after.get(1)?).to_digit(16)?]);
        match (first, digits()) {
            (b'%', Some([high, low])) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
                continue;
            }
            (b'+', _) if is_form => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
