//! Which pages may connect: browsers send the page's origin with every handshake, and do not let the page forge it.

use std::net::Ipv6Addr;

/// The origins that may connect besides the same host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginPolicy {
    any: bool,
    entries: Vec<Entry>,
}

/// Why an entry of `origins` cannot be used. The texts say what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Not an origin, a host, or a pattern of one.
    #[error("`{0}` is not an origin; write it like https://app.example, *.example.org, app.example:8443 or *")]
    Malformed(String),
    /// More than scheme, host and port.
    #[error(
        "`{0}` has more than scheme, host and port; browsers send no path with an origin, so leave out what follows"
    )]
    Path(String),
    /// A host that is not ASCII.
    #[error("`{0}` is not ASCII; browsers send the xn-- form of such a host, so write that")]
    NotAscii(String),
    /// The word that browsers send for pages without an origin.
    #[error("`null` is the origin of every sandboxed page and file, so it cannot be allowed alone; `*` opens all")]
    Null,
}

impl OriginPolicy {
    /// Reads entries of the setting `origins`:
    /// - `https://app.example`: this scheme, this host, and this port, or the scheme's own where none is written;
    /// - `app.example`, `app.example:8443`: the same with any scheme;
    /// - `*.example.org`: any subdomain of any depth, but not `example.org` itself; scheme and port may be written too;
    /// - `*`: everything, whatever the other entries say.
    ///
    /// # Errors
    /// [`OriginError`] for the first entry that is none of these.
    pub fn parse(entries: &[String]) -> Result<Self, OriginError> {
        let mut policy = Self::default();
        for entry in entries {
            if entry == "*" {
                policy.any = true;
            } else {
                policy.entries.push(Entry::parse(entry)?);
            }
        }
        Ok(policy)
    }

    /// May a page of this origin connect? `origin` and `host` are the header values as they came. A client that sends no
    /// origin is no browser, and could send whatever it likes: it is allowed. So is a page that came from the host it
    /// connects to.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let Some(origin) = Origin::parse(origin) else { return false };
        let is_same_host = || {
            let host = host.and_then(Authority::parse)?;
            Some(same_host(host.host, origin.authority.host) && origin.has_port(host.port))
        };
        is_same_host().unwrap_or(false) || self.entries.iter().any(|entry| entry.matches(&origin))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// None: any.
    scheme: Option<String>,
    host: HostPattern,
    /// None: the default one of the origin's scheme.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exact(String),
    /// Subdomains of this.
    Under(String),
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, OriginError> {
        let malformed = || OriginError::Malformed(entry.to_owned());
        if entry.eq_ignore_ascii_case("null") {
            return Err(OriginError::Null);
        }
        if !entry.is_ascii() {
            return Err(OriginError::NotAscii(entry.to_owned()));
        }
        let (scheme, rest) = match entry.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, entry),
        };
        if scheme.is_some_and(|scheme| !is_scheme(scheme)) {
            return Err(malformed());
        }
        if let Some(end) = rest.find(['/', '?', '#']) {
            let is_right_before = Authority::parse(rest[..end].trim_start_matches("*.")).is_some();
            return Err(if is_right_before { OriginError::Path(entry.to_owned()) } else { malformed() });
        }
        let under = rest.strip_prefix("*.");
        let authority = Authority::parse(under.unwrap_or(rest)).ok_or_else(malformed)?;
        let host = authority.host.to_owned();
        let host = match under {
            Some(_) if host.starts_with('[') => return Err(malformed()),
            Some(_) => HostPattern::Under(host),
            None => HostPattern::Exact(host),
        };
        Ok(Self { scheme: scheme.map(str::to_owned), host, port: authority.port })
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        let host = origin.authority.host;
        self.scheme.as_deref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme))
            && origin.has_port(self.port)
            && match &self.host {
                HostPattern::Exact(own) => same_host(own, host),
                HostPattern::Under(parent) => is_under(host, parent),
            }
    }
}

/// The value of an `Origin` header (RFC 6454 section 7). Whatever is not exactly scheme, host and port is none; `null` too.
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = Authority::parse(rest)?;
        is_scheme(scheme).then_some(Self { scheme, authority })
    }

    /// Is it at this port? Where either is not written it is the default one of the scheme.
    fn has_port(&self, port: Option<u16>) -> bool {
        let default = match self.scheme {
            scheme if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") => Some(443),
            scheme if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") => Some(80),
            _ => None,
        };
        self.authority.port.or(default) == port.or(default)
    }
}

/// `host` or `host:port`, with no user, path or anything else. An IPv6 host keeps its brackets.
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // Only an IPv6 address has colons of its own, and it ends with its bracket.
        let host_end = text.rfind(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |bracket| bracket + 1);
        let (host, port) = text.split_at(host_end);
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            _ => return None,
        };
        (ipv6(host).is_some() || is_host(host)).then_some(Self { host, port })
    }
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// A domain name or an IPv4 address: labels that are not empty. A dot at the end is kept, as browsers keep it: it makes
/// another origin.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// IPv6 addresses are compared as addresses, because they can be written in several ways.
fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || ipv6(a).is_some_and(|address| ipv6(b) == Some(address))
}

fn is_under(host: &str, parent: &str) -> bool {
    let Some(dot) = host.len().checked_sub(parent.len() + 1) else { return false };
    dot > 0 && host.as_bytes()[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> OriginPolicy {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        OriginPolicy::parse(&entries).expect("valid entries")
    }

    #[track_caller]
    fn check(entries: &[&str], host: &str, allowed: &[&str], refused: &[&str]) {
        let policy = policy(entries);
        for origin in allowed {
            assert!(policy.allows(Some(origin), Some(host)), "{entries:?} must allow {origin} at {host}");
        }
        for origin in refused {
            assert!(!policy.allows(Some(origin), Some(host)), "{entries:?} must refuse {origin} at {host}");
        }
    }

    /// No list of origins may ever let these in.
    const NEVER: &[&str] = &[
        "",
        "null",
        "https://",
        "://app.example",
        "app.example",
        "//app.example",
        "https:app.example",
        "https:/app.example",
        "https:///app.example",
        "https://app.example@evil.com",
        "https://evil.com@app.example",
        "https://user:word@app.example",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?query",
        "https://app.example#fragment",
        "https://evil.com/app.example",
        "https://evil.com\\app.example",
        "https://evil.com?.app.example",
        "https://evil.com#.example.org",
        "https://app.example:",
        "https://app.example:+443",
        "https://app.example:443:443",
        "https://app.example:99999",
        "https://app.example:x",
        "https://app.example ",
        " https://app.example",
        "https://app.example https://evil.com",
        "https://evil.com, https://app.example",
        "https://app.example\u{0}.evil.com",
        "https://app.example%00.evil.com",
        "https://app\u{3002}example",
        "https://.example.org",
        "https://a..example.org",
        "https://*.example.org",
        "https://example.org..",
        "1https://app.example",
        "https://[::1",
        "https://::1",
        "https://[::1]evil",
        "https://[app.example]",
        "https://[::1].example.org",
    ];

    #[test]
    fn without_entries_only_the_same_host() {
        check(
            &[],
            "app.example",
            &["https://app.example", "http://app.example", "https://app.example:443", "http://APP.Example:80"],
            &["https://app.example:80", "https://app.example:8443", "https://app.example.", "https://www.app.example"],
        );
        check(&[], "app.example:443", &["https://app.example"], &["http://app.example"]);
        check(&[], "app.example:80", &["http://app.example"], &["https://app.example"]);
        check(
            &[],
            "localhost:8080",
            &["http://localhost:8080", "https://localhost:8080"],
            &["http://localhost", "http://localhost:8081", "http://127.0.0.1:8080", "http://evil-localhost:8080"],
        );
        check(
            &[],
            "[::1]:8080",
            &["http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080"],
            &["http://[::1]", "http://[::2]:8080", "http://[::1]:80"],
        );
        check(&[], "[::FFFF]", &["http://[::ffff]"], &[]);
        check(&[], "app.example.", &["https://app.example."], &["https://app.example"]);
        check(
            &[],
            "app.example",
            &[],
            &["https://app.example.evil.com", "https://evilapp.example", "https://evil.com"],
        );
        for host in ["app.example", "example.org", "evil.com", "[::1]"] {
            check(&[], host, &[], NEVER);
        }
    }

    #[test]
    fn who_sends_no_origin_is_no_browser() {
        assert!(policy(&[]).allows(None, Some("app.example")) && policy(&[]).allows(None, None));
        assert!(!policy(&[]).allows(Some("https://app.example"), None));
        for host in ["", "app.example/", "x@app.example", "app.example:", "app.example,app.example"] {
            assert!(!policy(&[]).allows(Some("https://app.example"), Some(host)), "{host:?}");
        }
    }

    #[test]
    fn full_origins_are_compared_whole() {
        check(
            &["https://app.example", "http://Dev.Example:3000", "https://other.example:443", "https://[::1]:9"],
            "gateway.example",
            &[
                "https://app.example",
                "https://app.example:443",
                "HTTPS://APP.EXAMPLE",
                "http://dev.example:3000",
                "https://other.example",
                "https://[0::1]:9",
            ],
            &[
                "http://app.example",
                "https://app.example:8443",
                "https://app.example.",
                "https://app.example.evil.com",
                "https://evilapp.example",
                "https://www.app.example",
                "https://dev.example:3000",
                "http://dev.example",
                "http://other.example",
                "https://[::1]",
            ],
        );
        check(&["https://app.example", "*.example.org"], "gateway.example", &[], NEVER);
        check(&["chrome-extension://abcdef"], "h", &["chrome-extension://abcdef"], &["https://abcdef"]);
    }

    #[test]
    fn bare_hosts_take_any_scheme() {
        check(
            &["app.example", "dev.example:3000"],
            "gateway.example",
            &["https://app.example", "http://app.example", "http://app.example:80", "https://dev.example:3000"],
            &[
                "https://app.example:3000",
                "http://app.example:443",
                "http://dev.example",
                "http://evil.com:3000",
                "https://sub.app.example",
            ],
        );
        check(&["app.example", "app.example:443"], "gateway.example", &[], NEVER);
    }

    #[test]
    fn subdomains_begin_at_a_label() {
        check(
            &["*.example.org"],
            "gateway.example",
            &[
                "https://a.example.org",
                "http://a.b.example.org",
                "https://A.EXAMPLE.ORG",
                "https://xn--bcher-kva.example.org",
            ],
            &[
                "https://example.org",
                "https://evilexample.org",
                "https://evil-example.org",
                "https://a.example.org.evil.com",
                "https://a.example.org.",
                "https://a.example.org:8443",
                "https://a.example.com",
                "https://org",
            ],
        );
        check(
            &["https://*.example.org:8443"],
            "gateway.example",
            &["https://a.example.org:8443"],
            &["http://a.example.org:8443", "https://a.example.org", "https://example.org:8443"],
        );
    }

    #[test]
    fn a_star_opens_all() {
        check(&["https://app.example", "*"], "gateway.example", &["https://evil.com", "null", ""], &[]);
        check(&["*"], "gateway.example", NEVER, &[]);
    }

    #[test]
    fn entries_that_could_never_match_are_refused_with_advice() {
        let parse = |entry: &str| OriginPolicy::parse(&["*".to_owned(), entry.to_owned()]);
        for entry in
            ["https://app.example/", "https://app.example/chat", "app.example/", "*.example.org/", "app.example?x"]
        {
            assert_eq!(parse(entry), Err(OriginError::Path(entry.to_owned())), "{entry}");
        }
        for entry in ["null", "NULL"] {
            assert_eq!(parse(entry), Err(OriginError::Null));
        }
        assert_eq!(parse("https://bücher.example"), Err(OriginError::NotAscii("https://bücher.example".to_owned())));
        for entry in [
            "",
            " ",
            "**",
            "*.",
            "*.*.org",
            "*example.org",
            "a.*.org",
            "https://*",
            "https://",
            "://x",
            "/",
            "https:///x",
            "a b",
            "app.example:",
            "app.example:*",
            "app.example:70000",
            "user@app.example",
            "::1",
            "*.[::1]",
            "https://a.example,https://b.example",
        ] {
            assert_eq!(parse(entry), Err(OriginError::Malformed(entry.to_owned())), "{entry:?}");
        }
    }
}
