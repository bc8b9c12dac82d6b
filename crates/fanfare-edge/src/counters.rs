//! Counters of the edge: plain atomics next to the code that counts, read by whoever writes metrics.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fanfare_guard::TokenError;
use fanfare_protocol::CloseReason;
use fanfare_protocol::wire::Squeezed;

/// Labels of [`Counters::handshakes`].
pub const HANDSHAKE_RESULTS: [&str; 6] = ["accepted", "malformed", "origin", "bad_room", "failed", "refused"];

/// Labels of what proxies said of their clients, in the order of `Counters::via`.
pub const VIA_PROXY: [&str; 6] = ["named", "itself", "malformed", "missing", "untrusted", "unknown"];

/// What a proxy said of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// A header of the PROXY protocol, of a client.
    Named = 0,
    /// The same, of a connection of the proxy's own.
    Itself = 1,
    /// A header that cannot be read. Ended.
    Malformed = 2,
    /// No header where one is required. Ended.
    Missing = 3,
    /// A header is required, and who connected may not send one. Ended.
    Untrusted = 4,
    /// Neither such a header nor the request says who the client is.
    Unknown = 5,
}

/// Labels of handshakes over TLS, in the order of `Counters::tls`.
pub const TLS_RESULTS: [&str; 3] = ["accepted", "failed", "not_tls"];

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsHandshake {
    Accepted = 0,
    /// Broken off, by either side or by time.
    Failed = 1,
    /// Something else was spoken.
    NotTls = 2,
}

/// How a WebSocket handshake, or a request for an event stream, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Accepted = 0,
    Malformed = 1,
    Origin = 2,
    BadRoom = 3,
    Failed = 4,
    /// An event stream's client may not listen, or is not believed. A WebSocket's is let in and told a close code.
    Refused = 5,
}

/// A count for each reason in the order of [`CloseReason::LABELS`].
#[derive(Debug)]
pub struct ByReason([AtomicU64; CloseReason::LABELS.len()]);

impl Default for ByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl std::ops::Deref for ByReason {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Totals since start, but for gauges.
#[derive(Debug, Default)]
pub struct Counters {
    /// WebSocket connections and event streams now (gauge).
    pub connections: AtomicI64,
    /// Handshakes by result, in the order of [`HANDSHAKE_RESULTS`].
    pub handshakes: [AtomicU64; HANDSHAKE_RESULTS.len()],
    /// Closed connections by reason, in the order of [`CloseReason::LABELS`].
    pub closes: ByReason,
    /// Tokens that were checked: those that hold, then those that do not, in the order of [`TokenError::ALL`].
    pub tokens: [AtomicU64; 1 + TokenError::ALL.len()],
    /// Messages received from clients.
    pub received: AtomicU64,
    /// Publications told to connections that came back.
    pub replayed: AtomicU64,
    /// Messages that were compressed.
    pub deflated: Compressed,
    /// Compressed messages received.
    pub inflated: Compressed,
    /// Errors of `accept`.
    pub accept_errors: AtomicU64,
    /// Sockets refused at the door.
    pub shed: AtomicU64,
    /// TLS handshakes by result, in the order of [`TLS_RESULTS`].
    pub tls: [AtomicU64; TLS_RESULTS.len()],
    /// What proxies said, in the order of [`VIA_PROXY`].
    pub via: [AtomicU64; VIA_PROXY.len()],
}

/// Messages in both forms.
#[derive(Debug, Default)]
pub struct Compressed {
    /// How many.
    pub messages: AtomicU64,
    /// Their bytes as they are.
    pub plain_bytes: AtomicU64,
    /// Their bytes as they are on the wire.
    pub deflated_bytes: AtomicU64,
}

impl Compressed {
    pub(crate) fn count(&self, squeezed: Squeezed) {
        let Squeezed { messages, plain_bytes, deflated_bytes } = squeezed;
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.plain_bytes.fetch_add(plain_bytes, Ordering::Relaxed);
        self.deflated_bytes.fetch_add(deflated_bytes, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn handshake(&self, result: Handshake) {
        self.handshakes[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tls(&self, result: TlsHandshake) {
        self.tls[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn via(&self, said: Via) {
        self.via[said as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn token(&self, error: Option<TokenError>) {
        let place = error.map_or(0, |error| 1 + error as usize);
        self.tokens[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closes[reason.index()].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_its_own_label() {
        for (result, label) in [
            (Handshake::Accepted, "accepted"),
            (Handshake::Malformed, "malformed"),
            (Handshake::Origin, "origin"),
            (Handshake::BadRoom, "bad_room"),
            (Handshake::Failed, "failed"),
            (Handshake::Refused, "refused"),
        ] {
            assert_eq!(HANDSHAKE_RESULTS[result as usize], label);
        }
        for (result, label) in
            [(TlsHandshake::Accepted, "accepted"), (TlsHandshake::Failed, "failed"), (TlsHandshake::NotTls, "not_tls")]
        {
            assert_eq!(TLS_RESULTS[result as usize], label);
        }
        for (said, label) in [
            (Via::Named, "named"),
            (Via::Itself, "itself"),
            (Via::Malformed, "malformed"),
            (Via::Missing, "missing"),
            (Via::Untrusted, "untrusted"),
            (Via::Unknown, "unknown"),
        ] {
            assert_eq!(VIA_PROXY[said as usize], label);
        }
    }
}
