//! The memory that a node's limits add up to, as a sum of named products.

use std::fmt;

use super::{Config, history, inboxes};

/// Memory one idle connection takes, bytes: its entry, its lane, its timers, and who it belongs to. Measured, with one subscription: 319, with a user and a
/// token 716 (docs/scale.md). Rounded up, because names and tokens may be longer.
const CONNECTION_BYTES: u128 = 1_024;
/// Memory one subscription takes on both its sides, bytes. An estimate, rounded up.
const SUBSCRIPTION_BYTES: u128 = 96;
/// Memory one room takes beside its subscribers, bytes: its name of at most 200 and its state. An estimate, rounded up.
const ROOM_BYTES: u128 = 1_024;

/// Memory one idempotency key takes, bytes: itself, of at most 255, its places in two maps and its receipt. An estimate, rounded up.
const KEY_BYTES: u128 = 768;

/// Memory one closed connection takes in the ledger, bytes: its entry, and names of a user and a room of at most 200 each.
const CLOSE_BYTES: u128 = 640;

/// Memory of a connection's former messages where new ones may refer to them, bytes: the largest window of RFC 7692.
const HISTORY_BYTES: u128 = 32_768;

/// Memory of TLS on a connection at its most, bytes: its state (8.4 KB idle, measured), a record each way, and what waits for the socket.
const TLS_BYTES: u128 = 73_728;

/// One product of the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What the memory is for.
    pub name: &'static str,
    /// The factors in words.
    pub product: String,
    /// Bytes.
    pub bytes: u128,
}

impl Term {
    fn new(name: &'static str, product: String, bytes: u128) -> Self {
        Self { name, product, bytes }
    }
}

/// What the limits add up to when all of them are reached at once. The kernel's socket buffers are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// The products.
    pub terms: Vec<Term>,
}

impl Ceiling {
    /// The sum, bytes.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.terms.iter().map(|term| term.bytes).sum()
    }
}

impl Config {
    /// The memory that the limits add up to.
    #[must_use]
    pub fn ceiling(&self) -> Ceiling {
        let (rooms, shards) = (self.limits.rooms_max as u128, self.shards.get() as u128);
        let intake = self.intake.intake_bytes_max as u128;
        let mut terms = Vec::from(self.connection_terms());
        terms.extend([
            history::term(self),
            inboxes::term(self),
            Term::new("rooms", format!("{rooms} rooms x {ROOM_BYTES} B each"), rooms * ROOM_BYTES),
            Term::new(
                "shard intake",
                format!("{shards} shards x {intake} B of publications on their way"),
                shards * intake,
            ),
        ]);
        terms.extend(self.optional_terms());
        terms.extend(self.kept_terms());
        Ceiling { terms }
    }

    /// What each connection may take.
    fn connection_terms(&self) -> [Term; 4] {
        let connections = self.limits.connections_max as u128;
        let subscriptions = self.limits.subscriptions_per_connection_max as u128;
        let message = self.messages.message_bytes_max as u128;
        // What inflates to the longest message may itself be a little longer.
        let compressed = if self.compression.is_some() { message + message / 8 + 64 } else { message };
        let header = self.limits.header_bytes_max as u128;
        let (outbox, budget) = (self.outbox.outbox_bytes_max as u128, self.outbox_total_bytes_max as u128);
        // A connection has either a request head or a message half received, never both.
        let partial = if compressed > message && compressed >= header {
            format!("{connections} connections x message_bytes_max {message} and an eighth, compressed")
        } else if compressed >= header {
            format!("{connections} connections x message_bytes_max {message}")
        } else {
            format!("{connections} connections x header_bytes_max {header}")
        };
        let outboxes = if connections * outbox < budget {
            format!("{connections} connections x outbox_bytes_max {outbox}")
        } else {
            format!("the process's budget, outbox_total_bytes_max {budget}")
        };
        [
            Term::new(
                "connections",
                format!("{connections} connections x {CONNECTION_BYTES} B each"),
                connections * CONNECTION_BYTES,
            ),
            Term::new(
                "subscriptions",
                format!("{connections} connections x {subscriptions} rooms x {SUBSCRIPTION_BYTES} B each"),
                connections * subscriptions * SUBSCRIPTION_BYTES,
            ),
            Term::new("partial messages", partial, connections * compressed.max(header)),
            Term::new("outboxes", outboxes, (connections * outbox).min(budget)),
        ]
    }

    /// What connections take besides, where it is configured.
    fn optional_terms(&self) -> impl Iterator<Item = Term> {
        let connections = self.limits.connections_max as u128;
        let keeps_context = self.compression.as_ref().is_some_and(|compression| compression.client_context_takeover);
        let tls = self.tls.is_some().then(|| {
            let product = format!("{connections} connections x {TLS_BYTES} B, busy ones; idle ones take an eighth");
            Term::new("tls", product, connections * TLS_BYTES)
        });
        let compression = keeps_context.then(|| {
            let product = format!("{connections} connections x {HISTORY_BYTES} B of what each has sent");
            Term::new("compression", product, connections * HISTORY_BYTES)
        });
        tls.into_iter().chain(compression)
    }

    /// What the node remembers for a while.
    fn kept_terms(&self) -> [Term; 3] {
        let message = self.messages.message_bytes_max as u128;
        let held = if self.holds_messages() { self.held_max as u128 } else { 0 };
        let (keys, closes) = (self.idempotency_max as u128, self.closes_max as u128);
        [
            Term::new(
                "held messages",
                format!("{held} waiting for a moderator x message_bytes_max {message}"),
                held * message,
            ),
            Term::new("idempotency", format!("idempotency_max {keys} x {KEY_BYTES} B each"), keys * KEY_BYTES),
            Term::new("close ledger", format!("closes_max {closes} x {CLOSE_BYTES} B each"), closes * CLOSE_BYTES),
        ]
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for term in &self.terms {
            writeln!(f, "  {:<18}{:>12}   {}", term.name, bytes(term.bytes), term.product)?;
        }
        write!(f, "  {:<18}{:>12}", "total", bytes(self.total()))
    }
}

/// A number of bytes for people.
#[must_use]
pub fn bytes(count: u128) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1_024.0 && unit + 1 < UNITS.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags};

    #[test]
    fn the_sum_is_that_of_its_terms() {
        let environment: Environment = [
            ("FANFARE_LIMITS__CONNECTIONS_MAX", "10"),
            ("FANFARE_LIMITS__SUBSCRIPTIONS_PER_CONNECTION_MAX", "2"),
            ("FANFARE_LIMITS__ROOMS_MAX", "3"),
            ("FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX", "2000000"),
            ("FANFARE_SHARDS", "1"),
        ]
        .into_iter()
        .collect();
        let config = Config::serve(&Flags::default(), None, &environment).unwrap();
        let ceiling = config.ceiling();
        let expected = 10 * 1_024
            + 20 * 96
            + 10 * (65_536 + 8_192 + 64)
            + 2_000_000
            + 3 * 1_024
            + (64 << 20)
            + 10_000 * 640
            + 65_536 * 768;
        assert_eq!(ceiling.total(), expected);
        assert_eq!(ceiling.to_string().lines().count(), ceiling.terms.len() + 1);
    }

    #[test]
    fn outboxes_are_bounded_by_the_smaller_of_both_limits() {
        let environment: Environment =
            [("FANFARE_LIMITS__CONNECTIONS_MAX", "2"), ("FANFARE_LIMITS__OUTBOX_TOTAL_BYTES_MAX", "1000000000")]
                .into_iter()
                .collect();
        let config = Config::serve(&Flags::default(), None, &environment).unwrap();
        let outboxes = config.ceiling().terms.into_iter().find(|term| term.name == "outboxes").unwrap();
        assert_eq!(outboxes.bytes, 2 * 1_048_576);
    }

    #[test]
    fn bytes_are_shown_in_fitting_units() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(6_553_600_000), "6.1 GiB");
        assert_eq!(bytes(u128::from(u64::MAX)), "16777216.0 TiB");
    }
}
