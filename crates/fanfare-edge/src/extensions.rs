//! What a handshake agrees on about compression.

use fanfare_protocol::wire::{Accepted, Agreement, DeflateTerms, MalformedExtensions, negotiate};
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

/// What both sides will do, and the line of the answer that says so. Without terms every offer is declined.
pub(crate) fn agree(
    headers: &HeaderMap,
    terms: Option<DeflateTerms>,
) -> Result<Option<(Agreement, HeaderValue)>, MalformedExtensions> {
    let lines = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
    Ok(negotiate(lines, terms)?.map(|Accepted { agreement, answer }| {
        (agreement, HeaderValue::try_from(answer).expect("extensions are tokens and numbers"))
    }))
}
