//! Where a gateway listens.

use std::fmt;

use fanfare_protocol::RoomName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Error;

/// Everything except the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An address, plain (`ws://`, `http://`) or over TLS (`wss://`, `https://`): host, port, path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    /// Host name or address, without the brackets of an IPv6 literal.
    host: String,
    port: u16,
    /// Starts with `/`, never ends with one unless it is one.
    path: String,
    query: String,
}

impl Url {
    /// Reads `ws://host[:port][/path][?query]`; `http://` means the same. With `wss://` or `https://` TLS is spoken. The port
    /// defaults to 80, with TLS to 443.
    ///
    /// # Errors
    /// [`Error::Url`] for another scheme, user information, a fragment, a missing host, a bad port, or characters that must
    /// be percent-encoded.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why| Error::Url { url: text.to_owned(), why };
        if let Some(why) = text.bytes().find_map(unfit_byte) {
            return Err(refuse(why));
        }
        let (is_tls, rest) = match text.split_once("://") {
            Some(("ws" | "http", rest)) => (false, rest),
            Some(("wss" | "https", rest)) => (true, rest),
            _ => return Err(refuse("it must start with ws:// or http://, or for TLS with wss:// or https://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = parse_authority(authority, if is_tls { 443 } else { 80 }).map_err(refuse)?;
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { is_tls, host, port, path: path.to_owned(), query: query.to_owned() })
    }

    /// The same gateway, at `path` below this one's path. The query is dropped.
    #[must_use]
    pub fn join(&self, path: &str) -> Self {
        let path = format!("{}/{}", self.path.trim_end_matches('/'), path.trim_start_matches('/'));
        Self { is_tls: self.is_tls, host: self.host.clone(), port: self.port, path, query: String::new() }
    }

    /// The address of a room on this gateway: `/room/{room}`, percent-encoded.
    #[must_use]
    pub fn room(&self, room: &RoomName) -> Self {
        self.join(&format!("room/{}", utf8_percent_encode(room.as_str(), RESERVED)))
    }

    /// Adds a query parameter, percent-encoded.
    #[must_use]
    pub fn with_query(mut self, key: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.extend(utf8_percent_encode(key, RESERVED));
        self.query.push('=');
        self.query.extend(utf8_percent_encode(value, RESERVED));
        self
    }

    /// True where TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, with brackets around an IPv6 address: the value of the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Path and query, as they stand in a request line.
    #[must_use]
    pub fn target(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target())
    }
}

fn unfit_byte(byte: u8) -> Option<&'static str> {
    match byte {
        b'#' => Some("a fragment has no meaning here"),
        b'@' => Some("user information is not supported: pass the token apart"),
        b'!'..=b'~' => None,
        _ => Some("spaces, control characters and non-ASCII characters must be percent-encoded"),
    }
}

fn parse_authority(authority: &str, port_default: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("an IPv6 address needs its closing bracket")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in brackets is not an IPv6 address")?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or("the port is not a number")?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = match port {
        None => port_default,
        Some(port) => port.parse().ok().filter(|&p| p != 0).ok_or("the port must be a number from 1 to 65535")?,
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, u16, String)> {
        Url::parse(text).ok().map(|url| (url.host.clone(), url.port, url.target()))
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (text, host, port, target) in [
            ("ws://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
            ("http://localhost", "localhost", 80, "/"),
            ("ws://h:1/", "h", 1, "/"),
            ("ws://h:1/a/b/?x=1&y=2", "h", 1, "/a/b?x=1&y=2"),
            ("ws://h?x=1", "h", 80, "/?x=1"),
            ("ws://[::1]:9/x", "::1", 9, "/x"),
            ("wss://h", "h", 443, "/"),
            ("https://[::1]", "::1", 443, "/"),
            ("wss://h:80/a", "h", 80, "/a"),
        ] {
            assert_eq!(parts(text), Some((host.to_owned(), port, target.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://h",
            "wsss://h",
            "WSS://h",
            "ws://",
            "ws://:80",
            "ws://h:",
            "ws://h:0",
            "ws://h:65536",
            "ws://h:x",
            "ws://[::1",
            "ws://[x]",
            "ws://[::1]9",
            "ws://u@h",
            "ws://h/#f",
            "ws://h/a b",
            "ws://h/\n",
            "ws://hé",
        ] {
            assert!(matches!(Url::parse(bad), Err(Error::Url { .. })), "{bad}");
        }
    }

    #[test]
    fn rooms_and_queries_are_percent_encoded() {
        let base = Url::parse("ws://[::1]:9/base/?old=1").expect("a valid address");
        let room = RoomName::parse("chat:房&%").expect("a valid name");
        let url = base.room(&room).with_query("since", "00:1").with_query("name", "A=b&c");
        assert_eq!(url.target(), "/base/room/chat%3A%E6%88%BF%26%25?since=00%3A1&name=A%3Db%26c");
        assert_eq!(url.to_string(), format!("ws://[::1]:9{}", url.target()));
        assert_eq!(Url::parse(&url.to_string()).expect("what it writes it can read"), url);
        let sealed = Url::parse("https://h:9").expect("a valid address").join("a");
        assert!(sealed.is_tls() && !url.is_tls());
        assert_eq!(sealed.to_string(), "wss://h:9/a");
    }
}
