//! What proxies write into a request about its client: `X-Forwarded-For`, or `Forwarded` (RFC 7239). Pure.
//!
//! Each proxy adds who came to it at the end, so the list is read from there: whatever stands before the first address that is no trusted proxy's was
//! written by strangers, and proves nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use crate::trusted::Trusted;

/// The header that trusted proxies write. Only one is read: a proxy that writes one passes the other on as a stranger wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`: what nearly all write.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239).
    Forwarded,
}

/// For whom a request was forwarded: who came to the last trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardedFor {
    /// A client at this address.
    Client(IpAddr),
    /// All that are named are trusted: the first of them.
    Trusted(IpAddr),
    /// The header is missing, or says at the deciding place what is no address.
    Nothing,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ForwardedHeader {
    /// Reads it.
    pub(crate) fn read(self, headers: &HeaderMap, trusted: &Trusted) -> ForwardedFor {
        let lines = |name: HeaderName| headers.get_all(name).into_iter().rev().map(HeaderValue::as_bytes);
        match self {
            Self::XForwardedFor => last_untrusted(lines(X_FORWARDED_FOR).flat_map(x_forwarded_for), trusted),
            Self::Forwarded => last_untrusted(lines(FORWARDED).flat_map(forwarded), trusted),
        }
    }
}

/// `addresses` come last first; `None` stands for what is no address.
fn last_untrusted(addresses: impl Iterator<Item = Option<IpAddr>>, trusted: &Trusted) -> ForwardedFor {
    let mut found = ForwardedFor::Nothing;
    for address in addresses {
        match address {
            Some(address) if trusted.has(Some(address)) => found = ForwardedFor::Trusted(address),
            Some(address) => return ForwardedFor::Client(address),
            None => return ForwardedFor::Nothing,
        }
    }
    found
}

/// What a line names, last first. It is a plain list: what stands before a comma, quotes or bytes that are no text, changes nothing behind it.
fn x_forwarded_for(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    let elements = line.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty());
    elements.map(|element| str::from_utf8(element).ok().and_then(node))
}

/// The same of a line of RFC 7239. One that is not written so names nobody.
fn forwarded(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    let Some(elements) = str::from_utf8(line).ok().and_then(|line| split(line, ',')) else {
        return vec![None].into_iter();
    };
    let elements = elements.into_iter().rev().map(str::trim).filter(|element| !element.is_empty());
    elements.map(|element| forwarded_for(element).and_then(node)).collect::<Vec<_>>().into_iter()
}

/// The parts of `text` between separators; those within quotes do not part. `None` where a quote is anywhere but around a whole value: a proxy adds
/// itself to a line as a stranger wrote it, and with a quote left open the stranger could make of that a part of his own element.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut before, mut is_quoted, mut is_escaped, mut is_over) = ('\0', false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' if is_quoted => (is_quoted, is_over) = (false, true),
            _ if is_quoted => {}
            '"' if before == '=' => is_quoted = true,
            '"' => return None,
            ',' | ';' => is_over = false,
            ' ' | '\t' => {}
            _ if is_over => return None,
            _ => {}
        }
        if c == separator && !is_quoted {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        before = c;
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

/// The value of `for` in an element such as `for="[2001:db8::1]:80";proto=https`, without its quotes. Addresses need no escapes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut values = split(element, ';')?.into_iter().filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address as proxies write it: with a port or without, of IPv6 in brackets or without. `unknown` and invented names are none.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    // A port may be an invented name as well (RFC 7239 section 6).
    let named_port = || {
        let (host, port) = text.rsplit_once(":_")?;
        let is_name = port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map_or_else(
            || host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            |host| host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        );
        host.filter(|_| is_name)
    };
    bare().or_else(with_port).or_else(bracketed).or_else(named_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: ForwardedHeader, lines: &[&str], expect: ForwardedFor) {
        let trusted = Trusted::parse(&["10.0.0.0/8", "fd00::/8"]).unwrap();
        let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.insert("forwarded", "for=6.6.6.6".parse().unwrap());
        headers.remove(name);
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        assert_eq!(header.read(&headers, &trusted), expect, "{lines:?}");
    }

    fn client(address: &str) -> ForwardedFor {
        ForwardedFor::Client(address.parse().unwrap())
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        let check = |lines: &[&str], expect| check(ForwardedHeader::XForwardedFor, lines, expect);
        check(&["192.0.2.7"], client("192.0.2.7"));
        check(&["6.6.6.6, 192.0.2.7"], client("192.0.2.7"));
        check(&["6.6.6.6, 192.0.2.7,10.1.1.1 , 10.2.2.2"], client("192.0.2.7"));
        check(&["6.6.6.6", "192.0.2.7", "10.1.1.1"], client("192.0.2.7"));
        check(&["<script>, 192.0.2.7"], client("192.0.2.7"));
        check(&["10.9.9.9, 192.0.2.7, 10.1.1.1"], client("192.0.2.7"));
        check(&["192.0.2.7:4711"], client("192.0.2.7"));
        check(&["2001:db8::1"], client("2001:db8::1"));
        check(&["[2001:db8::1]"], client("2001:db8::1"));
        check(&["[2001:db8::1]:4711"], client("2001:db8::1"));
        check(&["::ffff:192.0.2.7"], client("192.0.2.7"));
        check(&["192.0.2.7, ::ffff:10.1.1.1, fd00::1"], client("192.0.2.7"));
        check(&["10.3.3.3, 10.1.1.1"], ForwardedFor::Trusted("10.3.3.3".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_where_it_counts_tells_nothing() {
        let check = |lines: &[&str]| check(ForwardedHeader::XForwardedFor, lines, ForwardedFor::Nothing);
        for line in [
            "",
            ",",
            "unknown",
            "192.0.2.7, unknown",
            "192.0.2.7, x, 10.1.1.1",
            "192.0.2",
            "192.0.2.7:",
            "for=192.0.2.7",
        ] {
            check(&[line]);
        }
        check(&[]);
        check(&["192.0.2.7", "nobody"]);
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let check = |lines: &[&str], expect| check(ForwardedHeader::Forwarded, lines, expect);
        check(&["for=192.0.2.7"], client("192.0.2.7"));
        check(&["For=\"[2001:db8:cafe::17]:4711\""], client("2001:db8:cafe::17"));
        check(&["for=\"[2001:db8::1]:_port\""], client("2001:db8::1"));
        check(&["for=192.0.2.60;proto=http;by=203.0.113.43"], client("192.0.2.60"));
        check(
            &["for=6.6.6.6, by=10.1.1.1; for=192.0.2.7 ;host=\"a,b;for=6.6.6.6\", for=10.1.1.1"],
            client("192.0.2.7"),
        );
        check(&["for=6.6.6.6;host=\"\\\", for=6.6.6.6\", for=192.0.2.7"], client("192.0.2.7"));
        check(&["for=10.1.1.1"], ForwardedFor::Trusted("10.1.1.1".parse().unwrap()));
        for line in [
            "for=unknown",
            "for=_hidden",
            "by=192.0.2.7",
            "for=1.1.1.1;for=2.2.2.2",
            "for",
            "192.0.2.7",
            "for=\"\\192.0.2.7\"",
        ] {
            check(&[line], ForwardedFor::Nothing);
        }
    }

    #[test]
    fn what_a_stranger_wrote_before_does_not_hide_what_a_proxy_adds() {
        for stranger in [r#"""#, r#"x=""#, r#"6.6.6.6, ""#, "\\", r#"for="6.6.6.6"#, "\u{e9}"] {
            let line = format!("{stranger}, 192.0.2.7");
            check(ForwardedHeader::XForwardedFor, &[&line], client("192.0.2.7"));
        }
        for added in ["for=192.0.2.7", r#"for="192.0.2.7:80""#, r#"for=192.0.2.7;host="a\"b""#] {
            let told = |stranger: &str, expect| {
                check(ForwardedHeader::Forwarded, &[&format!("{stranger}, {added}")], expect);
            };
            for stranger in ["for=6.6.6.6", "for", "=;=", r#"x="\"";y="for=6.6.6.6""#, r#"for="6.6.6.6" "#] {
                told(stranger, client("192.0.2.7"));
            }
            // Of these the end of a quoted value is not where the stranger's part ends.
            for stranger in
                [r#"for=6.6.6.6;x=""#, r#"for=6.6.6.6;x="\"#, r#"for=6.6.6.6, x="a"b"#, r#"for=6.6.6.6;x=a""#]
            {
                told(stranger, ForwardedFor::Nothing);
            }
        }
    }
}
