//! What a stranger's first bytes meet, for the fuzz targets: the parts are private to the edge.

use hyper::Request;
use hyper::header::HeaderValue;

use crate::head::{BadHead, Head, HeadLimits};

/// Reads a request's head: the request and its length, `None` while more is needed, or whether it was too large.
///
/// # Errors
/// `true`: over a bound; `false`: no head of a request.
pub fn head(
    bytes: &[u8],
    seen: usize,
    header_bytes_max: usize,
    headers_max: usize,
) -> Result<Option<(Request<()>, usize)>, bool> {
    match Head::read(bytes, seen, HeadLimits { header_bytes_max, headers_max }) {
        Ok(Head::Whole(request, length)) => Ok(Some((*request, length))),
        Ok(Head::Partial) => Ok(None),
        Err(error) => Err(error == BadHead::TooLarge),
    }
}

/// Checks a handshake: the value of `Sec-WebSocket-Accept`, or the status it is refused with.
///
/// # Errors
/// The status.
pub fn handshake(request: &Request<()>) -> Result<HeaderValue, u16> {
    crate::upgrade::check_handshake(request).map_err(|(_, problem)| problem.answer().status().as_u16())
}

/// A query parameter, and a segment of a path, decoded.
#[must_use]
pub fn decoded(query: &str, name: &str) -> (Option<String>, Option<String>) {
    (crate::query::parameter(Some(query), name), crate::query::segment(query))
}
