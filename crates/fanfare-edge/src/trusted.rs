//! The proxies that are believed.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    nets: Vec<IpNet>,
    /// Whoever comes over a Unix socket.
    unix: bool,
}

impl Trusted {
    /// Reads networks (`10.0.0.0/8`), addresses (`127.0.0.1`, `::1`) and `unix`, which stands for whoever comes over a Unix socket.
    ///
    /// # Errors
    /// What is wrong with which entry.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, String> {
        let mut trusted = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            match entry {
                "unix" => trusted.unix = true,
                _ => trusted.nets.push(net(entry)?),
            }
        }
        Ok(trusted)
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty() && !self.unix
    }

    /// Whether a far end is one of them. `None` is that of a Unix socket.
    #[must_use]
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.nets.iter().any(|net| net.contains(&address)),
            None => self.unix,
        }
    }
}

fn net(entry: &str) -> Result<IpNet, String> {
    let net = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
    let net =
        net.ok_or_else(|| format!("{entry:?} is neither an address, nor a network such as 10.0.0.0/8, nor unix"))?;
    // Bits that do not count are a slip of the pen: the network may be larger than was meant.
    if net.trunc() != net {
        return Err(format!("{entry:?} has bits set beyond its prefix; write {}, or the address alone", net.trunc()));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_addresses_and_unix_sockets_are_known() {
        let trusted = Trusted::parse(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", " ::1 "]).unwrap();
        for (address, is_trusted) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(trusted.has(Some(address.parse().unwrap())), is_trusted, "{address}");
        }
        assert!(!trusted.has(None) && Trusted::parse(&["unix"]).unwrap().has(None));
        assert!(Trusted::parse::<&str>(&[]).unwrap().is_empty() && !Trusted::default().has(None));
    }

    #[test]
    fn bad_entries_say_what_to_write() {
        for (entry, expect) in [
            ("", "neither"),
            ("localhost", "neither"),
            ("10.0.0.0/33", "neither"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("unix:/x", "neither"),
        ] {
            let error = Trusted::parse(&[entry]).unwrap_err();
            assert!(error.contains(expect), "{entry}: {error}");
        }
    }
}
