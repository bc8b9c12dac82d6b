//! What a stranger's first bytes meet, for the fuzz targets: the parts are private to the edge.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{HeaderMap, HeaderValue};

pub use crate::api::fuzzing::{Publication, api_call, publication};
use crate::forwarded::ForwardedFor;
use crate::head::{BadHead, Head, HeadLimits};
use crate::proxied::Named;
pub use crate::pusher::fuzzing::{PublicIds, SentEvent, refused_protocol, sent_events, signed_call};
use crate::{ForwardedHeader, Trusted};

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

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// More is needed to tell.
    Partial,
    /// No header of a proxy.
    Absent,
    /// A header, so many bytes long, and the client where it names one.
    Header {
        /// The client.
        names: Option<IpAddr>,
        /// Bytes.
        length: usize,
    },
}

/// Reads the PROXY protocol.
///
/// # Errors
/// When it begins like a header and is none.
pub fn proxied(bytes: &[u8]) -> Result<Proxied, ()> {
    match crate::proxied::read(bytes) {
        Ok(crate::proxied::Proxied::Partial) => Ok(Proxied::Partial),
        Ok(crate::proxied::Proxied::Absent) => Ok(Proxied::Absent),
        Ok(crate::proxied::Proxied::Header { names, length }) => {
            let names = match names {
                Named::Client(address) => Some(address),
                Named::Itself | Named::Unknown => None,
            };
            Ok(Proxied::Header { names, length })
        }
        Err(crate::proxied::Malformed) => Err(()),
    }
}

/// Who is told in a header that proxies write, and whether only trusted ones are; `None`: nobody.
#[must_use]
pub fn forwarded(header: ForwardedHeader, headers: &HeaderMap, trusted: &Trusted) -> Option<(IpAddr, bool)> {
    match header.read(headers, trusted) {
        ForwardedFor::Client(address) => Some((address, false)),
        ForwardedFor::Trusted(address) => Some((address, true)),
        ForwardedFor::Nothing => None,
    }
}
