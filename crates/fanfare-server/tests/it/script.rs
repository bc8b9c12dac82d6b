//! The script the gateway serves beside its page.

use crate::support::{TestNode, request};

/// Pages of any origin may import the client; whether they may connect is another question.
#[tokio::test]
async fn the_javascript_client_is_served_and_kept_until_it_changes() {
    let node = TestNode::dev("[diagnostics]\npage = false");
    let get = request(node.clients, "GET", "/fanfare.js", &[], "").await;
    assert_eq!((get.status, get.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    for (name, value) in [
        ("cache-control", "no-cache"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(get.header(name), Some(value), "{name}");
    }
    assert!(get.text().starts_with("/*! fanfare-client ") && get.text().contains("export{"), "{}", get.text());
    let etag = get.header("etag").expect("an entity tag").to_owned();
    assert!(etag.len() > 10 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let again = request(node.clients, "GET", "/fanfare.js", &[("If-None-Match", &known)], "").await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag.as_str())), "{known}");
    }
    let other = request(node.clients, "GET", "/fanfare.js", &[("If-None-Match", "\"other\"")], "").await;
    assert_eq!((other.status, other.body.len()), (200, get.body.len()));
    let head = request(node.clients, "HEAD", "/fanfare.js", &[], "").await;
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, Some(etag.as_str())));
    let post = request(node.clients, "POST", "/fanfare.js", &[], "").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}
