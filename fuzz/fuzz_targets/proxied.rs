//! A connection's first bytes as a proxy's header, versions 1 and 2: the same verdict however they are cut, what a proxy wrote read back as it
//! was meant, and the same client as an independent reader finds.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fanfare_edge::fuzzing::{Proxied, proxied};
use fanfare_fuzz::Data;
use libfuzzer_sys::fuzz_target;
use ppp::{HeaderResult, v1, v2};

/// Longest header that is waited for, bytes.
const HEADER_BYTES_MAX: usize = 4_096;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let (mut bytes, expect) = match kind % 4 {
        0 => (Vec::new(), None),
        1 => line(&mut data),
        _ => binary(&mut data),
    };
    let length = bytes.len();
    // What a proxy wrote, with a byte of it changed now and then.
    let is_changed = kind & 0x10 != 0 && !bytes.is_empty();
    if is_changed {
        let place = data.number() % bytes.len();
        bytes[place] = data.byte();
    }
    bytes.extend_from_slice(data.0);
    let verdict = check_cuts(&bytes);
    if let (Some(expect), false) = (expect, is_changed) {
        assert_eq!(verdict, Ok(Proxied::Header { names: expect, length }), "{}", bytes.escape_ascii());
    }
    compare(&bytes, verdict);
});

type Verdict = Result<Proxied, ()>;

/// The verdict on the whole, which is that on each beginning of it from which one can tell.
fn check_cuts(bytes: &[u8]) -> Verdict {
    let whole = proxied(bytes);
    let mut is_told = false;
    for end in 0..=bytes.len() {
        let found = proxied(&bytes[..end]);
        if found == Ok(Proxied::Partial) {
            assert!(!is_told && end < HEADER_BYTES_MAX, "waited for more after {end} bytes");
        } else {
            is_told = true;
            assert_eq!(found, whole, "after {end} bytes of {}", bytes.escape_ascii());
        }
        if let Ok(Proxied::Header { length, .. }) = found {
            assert!(length <= end, "a byte was taken that has not come");
        }
    }
    whole
}

/// A line of version 1, and whom it names.
fn line(data: &mut Data<'_>) -> (Vec<u8>, Option<Option<IpAddr>>) {
    let (from, to) = (data.number() as u16, data.number() as u16);
    let (line, client) = match data.byte() % 4 {
        0 => {
            let text: String = data.take(90).iter().map(|&byte| char::from(byte % 95 + 32)).collect();
            (format!("PROXY UNKNOWN {text}\r\n"), None)
        }
        1 => {
            let [source, destination] = [v4(data), v4(data)];
            (format!("PROXY TCP4 {source} {destination} {from} {to}\r\n"), Some(source.into()))
        }
        _ => {
            let [source, destination] = [v6(data), v6(data)];
            (format!("PROXY TCP6 {source} {destination} {from} {to}\r\n"), Some(IpAddr::from(source).to_canonical()))
        }
    };
    let is_whole = line.len() <= 107;
    (line.into_bytes(), is_whole.then_some(client))
}

/// A header of version 2, and whom it names.
fn binary(data: &mut Data<'_>) -> (Vec<u8>, Option<Option<IpAddr>>) {
    let kind = data.byte();
    let is_local = kind % 8 == 0;
    let (family, addresses, client) = match kind >> 4 {
        0 => (0x00, Vec::new(), None),
        1 | 2 => (0x31, vec![b'/'; 216], None),
        3..=8 => {
            let source = v4(data);
            let addresses = [&source.octets()[..], data.take(8)].concat();
            (0x11 + kind / 4 % 2, addresses, Some(source.into()))
        }
        _ => {
            let source = v6(data);
            let addresses = [&source.octets()[..], data.take(20)].concat();
            (0x21 + kind / 4 % 2, addresses, Some(IpAddr::from(source).to_canonical()))
        }
    };
    let length_min = match family {
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        _ => addresses.len(),
    };
    let mut after = addresses;
    after.resize(length_min, 0);
    let count = usize::from(data.byte());
    after.extend_from_slice(data.take(count));
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend_from_slice(&[if is_local { 0x20 } else { 0x21 }, family]);
    bytes.extend_from_slice(&(after.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&after);
    (bytes, Some(client.filter(|_| !is_local)))
}

fn v4(data: &mut Data<'_>) -> Ipv4Addr {
    Ipv4Addr::from([0; 4].map(|_: u8| data.byte()))
}

/// Often with zeros in a row, which are written short.
fn v6(data: &mut Data<'_>) -> Ipv6Addr {
    let is_sparse = data.byte();
    Ipv6Addr::from([0, 1, 2, 3, 4, 5, 6, 7].map(|bit| if is_sparse >> bit & 1 == 0 { 0 } else { data.number() as u16 }))
}

/// Where ours has found a header, the package `ppp` finds the same client in exactly those bytes; and where ours refuses one, `ppp` has found none
/// either, but in what ours is stricter about.
fn compare(bytes: &[u8], verdict: Verdict) {
    match verdict {
        Ok(Proxied::Header { names, length }) => match HeaderResult::parse(&bytes[..length]) {
            HeaderResult::V1(Ok(header)) => {
                let theirs = match header.addresses {
                    v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
                    v1::Addresses::Tcp6(addresses) => Some(IpAddr::from(addresses.source_address).to_canonical()),
                    v1::Addresses::Unknown => None,
                };
                assert_eq!(names, theirs, "{}", bytes.escape_ascii());
            }
            HeaderResult::V2(Ok(header)) => {
                let theirs = match header.addresses {
                    _ if header.command == v2::Command::Local => None,
                    v2::Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
                    v2::Addresses::IPv6(addresses) => Some(IpAddr::from(addresses.source_address).to_canonical()),
                    v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
                };
                assert_eq!(names, theirs, "{}", bytes.escape_ascii());
            }
            // What says nothing of a client need not be well-formed.
            refused => assert!(names.is_none(), "{refused:?}: {}", bytes.escape_ascii()),
        },
        Err(()) => {
            let is_taken = match HeaderResult::parse(bytes) {
                HeaderResult::V1(Ok(header)) => !is_laxer_line(&header.header),
                // Combinations that no registry has, and headers over our bound.
                HeaderResult::V2(Ok(header)) => {
                    header.len() <= HEADER_BYTES_MAX && matches!(bytes[13], 0 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32)
                }
                _ => false,
            };
            assert!(!is_taken, "refused, but taken by another reader: {}", bytes.escape_ascii());
        }
        Ok(Proxied::Partial | Proxied::Absent) => {}
    }
}

/// Ports with a sign or zeros before them.
fn is_laxer_line(line: &str) -> bool {
    let ports = line.trim_end().rsplit(' ').take(2);
    ports.into_iter().any(|port| port.starts_with(['+', '0']) && port != "0")
}
