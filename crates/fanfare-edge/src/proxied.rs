//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): how a proxy says, before a connection's own first byte, from where it
//! comes. Pure: bytes in, a verdict out, the same however they were cut.
//!
//! Two packages were looked at. Either takes some headers or waits for more depending on how the bytes were cut, or does not notice that a line is
//! complete and short of fields; where who may connect depends on it that will not do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// More is needed to tell.
    Partial,
    /// No header.
    Absent,
    /// A header, so many bytes long.
    Header { names: Named, length: usize },
}

/// From where the connection comes, as the proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// From this address.
    Client(IpAddr),
    /// From the proxy itself, which looks whether we are well (`LOCAL`).
    Itself,
    /// The proxy does not say: `UNKNOWN`, or a Unix socket of its own machine.
    Unknown,
}

/// Bytes that begin like a header and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// First bytes of version 1, and a name that no HTTP method has.
const V1: &[u8] = b"PROXY ";

/// Longest line of version 1 with its end, bytes; section 2.1.
const V1_BYTES_MAX: usize = 107;

/// First bytes of version 2.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 2 that is taken, bytes. Addresses need 232; the rest is for what proxies add, which is skipped.
pub(crate) const V2_BYTES_MAX: usize = 4_096;

/// Before the addresses of version 2: first bytes, command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Reads what a connection begins with. `bytes` is all that has come of it.
pub(crate) fn read(bytes: &[u8]) -> Result<Proxied, Malformed> {
    if begins(bytes, V1) {
        return if bytes.len() < V1.len() { Ok(Proxied::Partial) } else { read_v1(bytes) };
    }
    if begins(bytes, V2) {
        return if bytes.len() < V2_FIXED_BYTES { Ok(Proxied::Partial) } else { read_v2(bytes) };
    }
    Ok(Proxied::Absent)
}

/// True while nothing speaks against `bytes` being `first` and more.
fn begins(bytes: &[u8], first: &[u8]) -> bool {
    let known = bytes.len().min(first.len());
    bytes[..known] == first[..known]
}

fn read_v1(bytes: &[u8]) -> Result<Proxied, Malformed> {
    let may_be = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = may_be.windows(2).position(|two| two == b"\r\n") else {
        return if may_be.len() < V1_BYTES_MAX { Ok(Proxied::Partial) } else { Err(Malformed) };
    };
    let line = std::str::from_utf8(&bytes[V1.len()..end]).map_err(|_| Malformed)?;
    Ok(Proxied::Header { names: v1_source(line)?, length: end + 2 })
}

/// Family, source and destination, ports. What follows `UNKNOWN` is to be ignored.
fn v1_source(line: &str) -> Result<Named, Malformed> {
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Named::Unknown);
    }
    let [source, destination, from_port, to_port] = [(); 4].map(|()| words.next().unwrap_or_default());
    if words.next().is_some() || !is_port(from_port) || !is_port(to_port) {
        return Err(Malformed);
    }
    let source = match family {
        Some("TCP4") => IpAddr::V4(both::<Ipv4Addr>(source, destination)?),
        Some("TCP6") => IpAddr::V6(both::<Ipv6Addr>(source, destination)?),
        Some(_) | None => return Err(Malformed),
    };
    Ok(Named::Client(source.to_canonical()))
}

/// The source, if both are addresses.
fn both<T: std::str::FromStr>(source: &str, destination: &str) -> Result<T, Malformed> {
    destination.parse::<T>().map_err(|_| Malformed)?;
    source.parse().map_err(|_| Malformed)
}

/// Section 2.1: without zeros before it, "to avoid any possible confusion with octal numbers".
fn is_port(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain && text.parse::<u16>().is_ok()
}

fn read_v2(bytes: &[u8]) -> Result<Proxied, Malformed> {
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let is_local = match bytes[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    let (address_bytes, family) = (if is_local { Some(0) } else { address_bytes(bytes[13]) }, bytes[13] >> 4);
    if length > V2_BYTES_MAX || address_bytes.is_none_or(|needed| length < V2_FIXED_BYTES + needed) {
        return Err(Malformed);
    }
    let Some(after) = bytes.get(V2_FIXED_BYTES..length) else { return Ok(Proxied::Partial) };
    let names = match family {
        // What the addresses of a connection of the proxy itself say does not count.
        _ if is_local => Named::Itself,
        1 => after.first_chunk::<4>().map_or(Named::Unknown, |source| Named::Client((*source).into())),
        2 => after
            .first_chunk::<16>()
            .map_or(Named::Unknown, |source| Named::Client(IpAddr::from(*source).to_canonical())),
        _ => Named::Unknown,
    };
    Ok(Proxied::Header { names, length })
}

/// Bytes of both addresses and ports of a family, of streams and of datagrams, which QUIC is.
fn address_bytes(family: u8) -> Option<usize> {
    match family {
        0x00 => Some(0),
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(216),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, after: &[u8]) -> Vec<u8> {
        let length = (after.len() as u16).to_be_bytes();
        [&V2[..], &[command, family], &length, after].concat()
    }

    fn check(bytes: &[u8], expect: Result<Named, Malformed>) {
        let found = read(bytes);
        let expect = expect.map(|names| Proxied::Header { names, length: bytes.len() });
        assert_eq!(found, expect, "{}", bytes.escape_ascii());
        let with_more = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(read(&with_more), expect, "{}", with_more.escape_ascii());
    }

    fn client(address: &str) -> Result<Named, Malformed> {
        Ok(Named::Client(address.parse().unwrap()))
    }

    #[test]
    fn lines_of_version_1_are_read() {
        check(b"PROXY TCP4 255.255.255.255 10.0.0.1 65535 0\r\n", client("255.255.255.255"));
        check(b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", client("2001:db8::1"));
        check(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443\r\n", client("192.0.2.7"));
        check(b"PROXY UNKNOWN\r\n", Ok(Named::Unknown));
        check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Ok(Named::Unknown));
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
        check(longest.as_bytes(), Ok(Named::Unknown));
    }

    #[test]
    fn lines_that_only_look_like_it_are_malformed() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.7\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 \r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +4711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 65536\r\n",
            "PROXY TCP4 192.0.2.07 10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 04711 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 00\r\n",
            "PROXY TCP4 2001:db8::1 ::1 4711 443\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY TCP5 192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY tcp4 192.0.2.7 10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7\n10.0.0.1 4711 443\r\n",
        ] {
            check(line.as_bytes(), Err(Malformed));
        }
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 \xff443\r\n", Err(Malformed));
        let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
        check(too_long.as_bytes(), Err(Malformed));
        let endless = vec![b'x'; V1_BYTES_MAX - V1.len()];
        check(&[V1, &endless].concat(), Err(Malformed));
    }

    #[test]
    fn headers_of_version_2_are_read_and_their_additions_skipped() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        check(&v2(0x21, 0x11, &four), client("192.0.2.7"));
        check(&v2(0x21, 0x12, &four), client("192.0.2.7"));
        check(&v2(0x21, 0x21, &six), client("2001:db8::1"));
        // An authority, and rubbish: what is added is not looked at.
        check(&v2(0x21, 0x11, &[&four[..], b"\x02\x00\x04host"].concat()), client("192.0.2.7"));
        check(&v2(0x21, 0x21, &[&six[..], &[0xff; 7]].concat()), client("2001:db8::1"));
        check(&v2(0x21, 0x31, &[b'/'; 216]), Ok(Named::Unknown));
        check(&v2(0x21, 0x00, b""), Ok(Named::Unknown));
        check(&v2(0x21, 0x00, b"\x04\x00\x01\0"), Ok(Named::Unknown));
        check(&v2(0x20, 0x00, b""), Ok(Named::Itself));
        check(&v2(0x20, 0x11, &four), Ok(Named::Itself));
        check(&v2(0x20, 0xff, b"abc"), Ok(Named::Itself));
        check(&v2(0x21, 0x11, &[&four[..], &vec![0; V2_BYTES_MAX - 28]].concat()), client("192.0.2.7"));
    }

    #[test]
    fn headers_of_version_2_that_are_none_are_malformed() {
        for (command, family, bytes) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x00, 0x00, 0),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x31, 215),
            (0x21, 0x10, 12),
            (0x21, 0x13, 12),
            (0x21, 0x41, 64),
            (0x21, 0x11, V2_BYTES_MAX - 15),
            (0x20, 0x00, V2_BYTES_MAX - 15),
            (0x21, 0x11, 65_535),
        ] {
            let header = v2(command, family, &vec![0; bytes]);
            check(&header, Err(Malformed));
            // Seen from the first 16 bytes: nothing is waited for, or kept.
            assert_eq!(read(&header[..V2_FIXED_BYTES]), Err(Malformed), "{command:x} {family:x} {bytes}");
        }
    }

    #[test]
    fn what_is_no_header_is_left_alone() {
        for bytes in
            ["GET / HTTP/1.1\r\n\r\n", "PROXY\r\n", "PROPFIND / HTTP/1.1\r\n", "\r\n\r\nGET /", "\u{16}\u{3}\u{1}"]
        {
            assert_eq!(read(bytes.as_bytes()), Ok(Proxied::Absent), "{bytes:?}");
        }
        for bytes in ["", "P", "PROXY", "\r", "\r\n\r\n", "\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(read(bytes.as_bytes()), Ok(Proxied::Partial), "{bytes:?}");
        }
    }

    /// Something like a header, whole, cut off, or with a byte changed.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec()),
            Just(b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec()),
            "PROXY UNKNOWN[ -~]{0,120}\r\n".prop_map(String::into_bytes),
            "PROXY [TCP46 0-9.:\r\n]{0,120}".prop_map(String::into_bytes),
        ];
        let binary = (0x1f..=0x22_u8, any::<u8>(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(command, family, after)| v2(command, family, &after));
        let header = prop_oneof![line, binary, prop::collection::vec(any::<u8>(), 0..40)];
        let change = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
        (header, change, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(mut bytes, change, rest)| {
            if let Some((place, byte)) = change.filter(|_| !bytes.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.extend(rest);
            bytes
        })
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_how_the_bytes_are_cut(bytes in stream()) {
            let mut verdict = None;
            for end in 0..=bytes.len() {
                let found = read(&bytes[..end]);
                match verdict {
                    None if found == Ok(Proxied::Partial) => prop_assert!(end < V2_BYTES_MAX, "memory is bounded"),
                    None => verdict = Some(found),
                    Some(verdict) => prop_assert_eq!(found, verdict, "after {} bytes", end),
                }
                if let Ok(Proxied::Header { length, .. }) = found {
                    prop_assert!(length <= end, "no byte is taken that has not come");
                }
            }
        }
    }
}
