//! Where a listener is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix domain socket's absolute path.
    Unix(PathBuf),
}

impl Address {
    /// Longest path of a Unix domain socket, bytes: what fits `sun_path` with its final zero on Linux.
    pub const PATH_BYTES_MAX: usize = 107;

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Reads `host:port`, `:port` (every IPv4 address), `[v6]:port` or `unix:/path`. The host is an IP address or
    /// `localhost`; names are not looked up.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("{text:?} has no port; write host:port, such as 127.0.0.1:8080, or unix:/path"));
        };
        let port: u16 = port.parse().map_err(|_| format!("{port:?} is not a port; it is a number from 0 to 65535"))?;
        let ip = match host {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(host) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            }
            .ok_or_else(|| match host.parse::<Ipv6Addr>() {
                Ok(_) => format!("an IPv6 address stands in brackets: [{host}]:{port}"),
                Err(_) => format!("{host:?} is not an IP address; names other than localhost are not looked up"),
            })?,
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }
}

fn unix(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("unix:{path:?} is not an absolute path; write unix:/path"));
    }
    if path.len() > Address::PATH_BYTES_MAX {
        return Err(format!(
            "the socket path is {} bytes long; at most {} are allowed",
            path.len(),
            Address::PATH_BYTES_MAX
        ));
    }
    Ok(Address::Unix(path.into()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let check = |text: &str, shown: &str, local: bool| {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_local(), local, "{text}");
            assert_eq!(shown.parse::<Address>().unwrap(), address);
        };
        check("127.0.0.1:8080", "127.0.0.1:8080", true);
        check("localhost:0", "127.0.0.1:0", true);
        check(":9000", "0.0.0.0:9000", false);
        check("[::1]:80", "[::1]:80", true);
        check("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true);
        check("[::]:80", "[::]:80", false);
        check("10.0.0.1:80", "10.0.0.1:80", false);
        check("unix:/run/fanfare.sock", "unix:/run/fanfare.sock", true);
    }

    #[test]
    fn bad_addresses_say_what_to_write() {
        let check = |text: &str, expect: &str| {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        };
        check("", "has no port");
        check("8080", "has no port");
        check("127.0.0.1:http", "is not a port");
        check("127.0.0.1:70000", "is not a port");
        check("::1:80", "in brackets");
        check("example.org:80", "not looked up");
        check("unix:run.sock", "absolute path");
        check(&format!("unix:/{}", "x".repeat(107)), "at most 107");
    }
}
