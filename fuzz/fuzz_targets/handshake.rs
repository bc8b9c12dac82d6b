//! A stranger's first bytes: a request's head however it is cut, the handshake in it, and what stands in its query.
#![no_main]

use fanfare_edge::fuzzing::{decoded, handshake, head};
use fanfare_fuzz::Data;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let (bytes_max, headers_max) = data.pick(&[(16_384, 100), (8_192, 64), (256, 4), (100, 1)]);
    let cut = usize::from(data.byte());
    // Most of the time a request that is nearly right, so that what is behind the head is reached.
    let built = match kind % 4 {
        0 => None,
        _ => Some(request(&mut data)),
    };
    let bytes = built.as_deref().unwrap_or(data.0);
    let whole = head(bytes, 0, bytes_max, headers_max);
    check_cut(bytes, cut, &whole, (bytes_max, headers_max));
    let Ok(Some((request, length))) = whole else { return };
    assert!(length <= bytes.len() && length <= bytes_max && request.headers().len() <= headers_max);
    let query = request.uri().query().unwrap_or("");
    let (parameter, segment) = decoded(query, "token");
    assert!(parameter.is_none_or(|value| value.len() <= query.len()));
    assert!(segment.is_none_or(|value| value.len() <= query.len()));
    check_handshake(&request);
});

/// Read in two parts, a head is the same, unless its end was taken for an end before.
fn check_cut(
    bytes: &[u8],
    cut: usize,
    whole: &Result<Option<(hyper_types::Request, usize)>, bool>,
    (bytes_max, headers_max): (usize, usize),
) {
    let Some((front, _)) = bytes.split_at_checked(cut) else { return };
    if !matches!(head(front, 0, bytes_max, headers_max), Ok(None)) {
        return;
    }
    match (head(bytes, cut, bytes_max, headers_max), whole) {
        (Ok(Some((_, again))), Ok(Some((_, length)))) => assert_eq!(again, *length),
        // What comes after a head that is not whole yet may be looked at later.
        (Ok(None), Ok(None) | Err(_)) | (Err(_), Err(_)) => {}
        (again, whole) => panic!("cut at {cut}: {again:?}, whole: {whole:?}"),
    }
}

mod hyper_types {
    /// What the edge hands out.
    pub type Request = hyper::Request<()>;
}

/// A handshake that is accepted has everything that RFC 6455 section 4.2.1 asks for, looked up here in another way.
fn check_handshake(request: &hyper_types::Request) {
    let lines = |name: &str| -> Vec<String> {
        let lines = request.headers().get_all(name).iter();
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
    };
    let has_word = |name: &str, word: &str| {
        lines(name).join(",").split(',').any(|part| part.trim_matches([' ', '\t']).eq_ignore_ascii_case(word))
    };
    match handshake(request) {
        Ok(accept) => {
            assert!(has_word("upgrade", "websocket") && has_word("connection", "upgrade"));
            assert_eq!(lines("sec-websocket-version"), ["13"]);
            assert_eq!((lines("host").len(), lines("sec-websocket-key").len()), (1, 1));
            assert_eq!(request.version(), hyper::Version::HTTP_11);
            use base64::Engine as _;
            let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
            assert_eq!(decode(&lines("sec-websocket-key")[0]).expect("base64").len(), 16);
            assert_eq!(decode(accept.to_str().expect("ASCII")).expect("base64").len(), 20);
        }
        Err(status) => assert!(matches!(status, 400 | 426), "{status}"),
    }
}

/// A handshake of which fuzz data changes some lines.
fn request(data: &mut Data<'_>) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = [
        "GET /room/lobby?token=a%20b&name=Ann HTTP/1.1",
        "Host: gateway.example",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat, fanfare.token.x",
        "Origin: https://gateway.example",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    for _ in 0..data.byte() % 4 {
        let at = usize::from(data.byte()) % lines.len();
        let length = usize::from(data.byte());
        match data.byte() % 5 {
            0 => _ = lines.remove(at),
            1 => lines.insert(at, lines[at].clone()),
            2 => lines[at] = data.take(length).to_vec(),
            3 => lines.insert(at + 1, data.take(length).to_vec()),
            _ => {
                let place = length.min(lines[at].len());
                let more = data.byte() % 8;
                let inserted = data.take(more.into());
                lines[at].splice(place..place, inserted.iter().copied());
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    let mut request = lines.join(&b"\r\n"[..]);
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(data.0);
    request
}
