//! What proxies write into a request: a stranger's part of it never decides who the client is.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use fanfare_edge::fuzzing::forwarded;
use fanfare_edge::{ForwardedHeader, Trusted};
use fanfare_fuzz::Data;
use hyper::header::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

static TRUSTED: LazyLock<Trusted> =
    LazyLock::new(|| Trusted::parse(&["10.0.0.0/8", "fd00::/8", "192.0.2.1"]).expect("fit entries"));

/// As proxies write a client, in the one header and in the other.
const CLIENTS: [(&str, &str, &str); 5] = [
    ("192.0.2.7", "192.0.2.7", "for=192.0.2.7"),
    ("192.0.2.7", "192.0.2.7:4711", "for=\"192.0.2.7:4711\";proto=https"),
    ("2001:db8::7", "2001:db8::7", "for=\"[2001:db8::7]\""),
    ("2001:db8::7", "[2001:db8::7]:80", "by=_proxy;for=\"[2001:db8::7]:_p\";host=\"a,b\\\"c;for=1.1.1.1\""),
    ("192.0.2.7", "::ffff:192.0.2.7", "For=192.0.2.7 ;host=\"\""),
];

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let header = if kind % 2 == 0 { ForwardedHeader::XForwardedFor } else { ForwardedHeader::Forwarded };
    let (address, plain, pair) = data.pick(&CLIENTS);
    let client: IpAddr = address.parse().expect("an address");
    let is_plain = header == ForwardedHeader::XForwardedFor;
    let added = if is_plain { plain } else { pair };
    let lines: Vec<&[u8]> = data.0.split(|&byte| byte == b'\n').take(4).collect();
    if lines.iter().any(|line| HeaderValue::from_bytes(line).is_err()) {
        return;
    }
    let told = read(header, &lines);
    if let Some((address, is_trusted)) = told {
        assert_eq!(TRUSTED.has(Some(address)), is_trusted);
        // Such addresses are written in one way only.
        if let (IpAddr::V4(address), false) = (address, lines.concat().windows(2).any(|two| two == b"::")) {
            let text = String::from_utf8_lossy(&lines.concat()).into_owned();
            assert!(text.contains(&address.to_string()), "{address} is told and was not said: {text}");
        }
    }

    // A trusted proxy writes a line of its own for a client.
    let own_line = [&lines[..], &[added.as_bytes()]].concat();
    assert_eq!(read(header, &own_line), Some((client, false)), "a line of a proxy's own");
    // Or behind what the client itself has written.
    let last = lines.last().copied().unwrap_or_default();
    let longer = [last, b", ", added.as_bytes()].concat();
    let same_line = [&lines[..lines.len() - 1], &[&longer[..]]].concat();
    let found = read(header, &same_line);
    assert!(found == Some((client, false)) || (found.is_none() && !is_plain), "{found:?} of {}", longer.escape_ascii());
    // And its own address added by the next trusted proxy changes nothing.
    let proxy = if is_plain { "10.1.1.1" } else { "for=10.1.1.1" };
    let passed_on = [&lines[..], &[proxy.as_bytes()]].concat();
    let found = read(header, &passed_on);
    let nothing_before = (told.is_none()
        && found.is_none_or(|(address, is_trusted)| is_trusted && address == IpAddr::from([10, 1, 1, 1])))
    .then_some(found);
    assert_eq!(found, nothing_before.unwrap_or(told), "passed on by a trusted proxy");
});

/// Who is told, and whether only trusted ones are.
fn read(header: ForwardedHeader, lines: &[&[u8]]) -> Option<(IpAddr, bool)> {
    let mut headers = HeaderMap::new();
    // The other header is a stranger's.
    headers.insert(
        if header == ForwardedHeader::Forwarded { "x-forwarded-for" } else { "forwarded" },
        HeaderValue::from_static("6.6.6.6"),
    );
    let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
    for line in lines {
        headers.append(name, HeaderValue::from_bytes(line).expect("looked at before"));
    }
    forwarded(header, &headers, &TRUSTED)
}
