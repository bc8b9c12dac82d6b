//! Everything that can go wrong on the client's side, in one enum.

use std::time::Duration;
use std::{fmt, io};

use serde::Deserialize;

use crate::TlsFailure;

/// Why a call failed. The texts are for people and say what to change where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be used.
    #[error("cannot use the address {url:?}: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A header value with characters HTTP does not allow: the token, the key, or one of the caller's own.
    #[error("the {0} holds characters that cannot stand in an HTTP header")]
    HeaderValue(&'static str),
    /// The connection was refused: no process listens there.
    #[error("nothing is listening at {authority}")]
    NothingListening {
        /// `host:port`.
        authority: String,
    },
    /// The connection could not be made for another reason: name not found, no route, no port or descriptor left.
    #[error("cannot connect to {authority}: {source}")]
    Unreachable {
        /// `host:port`.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is nobody who could vouch for a certificate: the authorities cannot be read, or there is none.
    #[error("{0}")]
    Authorities(String),
    /// TLS could not be agreed on, or the certificate does not hold.
    #[error("no TLS with {authority}: {failure}")]
    Tls {
        /// `host:port`.
        authority: String,
        /// What was wrong.
        failure: TlsFailure,
    },
    /// The deadline of the call passed.
    #[error("{what} took longer than {} ms", limit.as_millis())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// The gateway answered with an HTTP error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer to the upgrade breaks RFC 6455 section 4.1.
    #[error("not a WebSocket handshake: {0}")]
    Handshake(&'static str),
    /// What arrived on an open connection breaks RFC 6455.
    #[error("the gateway broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// A message, over all its fragments, longer than this client takes.
    #[error("a message is longer than {max} bytes")]
    MessageTooBig {
        /// The limit, bytes.
        max: usize,
    },
    /// The connection has ended; nothing can be sent any more.
    #[error("the connection has ended")]
    Ended,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The HTTP exchange failed.
    #[error("the HTTP exchange failed: {}{}", .0, hint(.0))]
    Http(#[from] hyper::Error),
    /// The gateway's answer is not what this client knows.
    #[error("cannot read the gateway's answer: {0}")]
    Answer(String),
}

/// What answers without HTTP may answer with an alert of TLS.
fn hint(error: &hyper::Error) -> &'static str {
    if error.is_parse() { "; where TLS is spoken, use wss:// or https://" } else { "" }
}

/// An HTTP error answer: status, and what its `application/problem+json` body (RFC 9457) says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Stable code of the problem, empty when the answer carries none.
    pub code: String,
    /// What was wrong, for people.
    pub detail: String,
    /// When to try again, from `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Longest body that is read of an error answer, bytes.
    pub(crate) const BODY_BYTES_MAX: usize = 65_536;

    pub(crate) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Problem {
            code: String,
            title: String,
            detail: String,
        }
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let detail = if problem.detail.is_empty() { problem.title } else { problem.detail };
        Self { status, code: problem.code, detail, retry_after }
    }

    /// What to do next.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self.status {
            _ if self.code == "tls_required" => "use wss:// or https://",
            400 => "correct the request",
            401 => "present a valid token or API key",
            403 => "use an identity that has the right, or an Origin the gateway allows",
            404 => "check the address: this path does not exist there, or is not switched on",
            405 | 426 => "check the address: something else is served on this path",
            409 => "choose another idempotency key, or send the same body again",
            413 => "send a smaller message, or raise limits.message_bytes_max",
            422 => "correct the field that the detail names",
            429 => "wait, then send more slowly",
            500..=599 => "try again later with back-off",
            _ => "read the detail",
        }
    }

    /// Whether the same request may succeed later without being changed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..=599)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gateway answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        write!(f, " (what to do: {})", self.next_step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_what_to_do() {
        let body =
            br#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"no key","code":"no_key","x":1}"#;
        let refusal = Refusal::read(401, None, body);
        assert_eq!(
            refusal.to_string(),
            "the gateway answered 401 no_key: no key (what to do: present a valid token or API key)"
        );
        let plain = Refusal { status: 400, code: "tls_required".to_owned(), ..Refusal::default() };
        assert_eq!(plain.next_step(), "use wss:// or https://");
        let bare = Refusal::read(404, None, b"<html>");
        assert!(bare.to_string().starts_with("the gateway answered 404 (what to do: check the address"));
    }
}
