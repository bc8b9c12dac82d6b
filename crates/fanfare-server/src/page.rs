//! The page at `/`, and the policy that lets its own script and style run and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_edge::Page;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("assets/index.html");

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
    fn the_page_asks_nobody_else() {
        for foreign in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!HTML.contains(foreign), "{foreign}");
        }
    }
}
