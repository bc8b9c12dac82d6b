//! The page at `/` with the policy that lets its own script and style run and nothing else, and the script at `/fanfare.js`.
//!
//! `assets/fanfare.js` and `assets/fanfare.page.js` are made of `clients/js` by `make js`, so that cargo needs no node.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_edge::{Page, Script};
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("assets/index.html");

/// The line of the template that stands for the client: the page may load nothing, so it carries it.
const PLACE_OF_CLIENT: &str = "// fanfare.page.js";
const CLIENT_IN_PAGE: &str = include_str!("assets/fanfare.page.js");

/// The client as a module, for everybody else.
const CLIENT: &str = include_str!("assets/fanfare.js");

static HTML: LazyLock<String> = LazyLock::new(|| TEMPLATE.replacen(PLACE_OF_CLIENT, CLIENT_IN_PAGE.trim_end(), 1));

/// The page with its `Content-Security-Policy`.
pub(crate) fn page() -> Page {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self' ws: wss:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    Page { html: Bytes::from_static(HTML.as_bytes()), policy }
}

/// The JavaScript client.
pub(crate) fn script() -> Script {
    let digest = Sha256::digest(CLIENT);
    Script { text: Bytes::from_static(CLIENT.as_bytes()), etag: format!("\"{}\"", STANDARD.encode(&digest[..12])) }
}

/// The hash source of the page's only element of this name (CSP level 3, section 6.7.3.3).
fn hash(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let content = HTML.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(text, _)| text);
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_covers_exactly_one_script_and_one_style() {
        for element in ["script", "style"] {
            assert_eq!(HTML.matches(&format!("<{element}")).count(), 1, "{element}");
            assert_eq!(HTML.matches(&format!("<{element}>")).count(), 1, "{element}");
        }
        let policy = page().policy;
        let empty = STANDARD.encode(Sha256::digest(""));
        assert!(policy.contains("default-src 'none'") && !policy.contains(&empty), "{policy}");
    }

    #[test]
    fn the_page_carries_the_client_once() {
        assert_eq!(TEMPLATE.matches(PLACE_OF_CLIENT).count(), 1);
        assert!(!HTML.contains(PLACE_OF_CLIENT) && HTML.contains(CLIENT_IN_PAGE.trim_end()));
        // Either would end the element before its time.
        assert!(!CLIENT_IN_PAGE.contains("</") && !CLIENT_IN_PAGE.contains("<!--"));
    }

    #[test]
    fn both_builds_of_the_client_are_of_one_version() {
        let banner = |text: &'static str| text.lines().next().filter(|line| line.starts_with("/*! fanfare-client "));
        assert!(banner(CLIENT).is_some() && banner(CLIENT) == banner(CLIENT_IN_PAGE));
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for foreign in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
    }
}
