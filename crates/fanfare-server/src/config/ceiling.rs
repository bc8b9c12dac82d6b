//! The memory that a node's limits add up to, as a sum of named products.

use std::fmt;

use super::{Config, history, inboxes};

/// Memory one idle connection takes, bytes: its entry, its socket's wrapper, its timers. An estimate, rounded up.
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
        let connections = self.limits.connections_max as u128;
        let subscriptions = self.limits.subscriptions_per_connection_max as u128;
        let message = self.messages.message_bytes_max as u128;
        // What inflates to the longest message may itself be a little longer.
        let compressed = if self.compression.is_some() { message + message / 8 + 64 } else { message };
        let header = self.limits.header_bytes_max as u128;
        let outboxes = connections * self.outbox.outbox_bytes_max as u128;
        let budget = self.outbox_total_bytes_max as u128;
        let rooms = self.limits.rooms_max as u128;
        let shards = self.shards.get() as u128;
        let intake = self.intake.intake_bytes_max as u128;
        let mut terms = vec![
            Term {
                name: "connections",
                product: format!("{connections} connections x {CONNECTION_BYTES} B each"),
                bytes: connections * CONNECTION_BYTES,
            },
            Term {
                name: "subscriptions",
                product: format!("{connections} connections x {subscriptions} rooms x {SUBSCRIPTION_BYTES} B each"),
                bytes: connections * subscriptions * SUBSCRIPTION_BYTES,
            },
            Term {
                // A connection has either a request head or a message half received, never both.
                name: "partial messages",
                product: if compressed > message && compressed >= header {
                    format!("{connections} connections x message_bytes_max {message} and an eighth, compressed")
                } else if compressed >= header {
                    format!("{connections} connections x message_bytes_max {message}")
                } else {
                    format!("{connections} connections x header_bytes_max {header}")
                },
                bytes: connections * compressed.max(header),
            },
            Term {
                name: "outboxes",
                product: if outboxes < budget {
                    format!("{connections} connections x outbox_bytes_max {}", self.outbox.outbox_bytes_max)
                } else {
                    format!("the process's budget, outbox_total_bytes_max {budget}")
                },
                bytes: outboxes.min(budget),
            },
            history::term(self),
            inboxes::term(self),
            Term { name: "rooms", product: format!("{rooms} rooms x {ROOM_BYTES} B each"), bytes: rooms * ROOM_BYTES },
            Term {
                name: "shard intake",
                product: format!("{shards} shards x {intake} B of publications on their way"),
                bytes: shards * intake,
            },
        ];
        if self.tls.is_some() {
            terms.push(Term {
                name: "tls",
                product: format!("{connections} connections x {TLS_BYTES} B, busy ones; idle ones take an eighth"),
                bytes: connections * TLS_BYTES,
            });
        }
        let held = if self.holds_messages() { self.held_max as u128 } else { 0 };
        if self.compression.as_ref().is_some_and(|compression| compression.client_context_takeover) {
            terms.push(Term {
                name: "compression",
                product: format!("{connections} connections x {HISTORY_BYTES} B of what each has sent"),
                bytes: connections * HISTORY_BYTES,
            });
        }
        terms.push(Term {
            name: "held messages",
            product: format!("{held} waiting for a moderator x message_bytes_max {message}"),
            bytes: held * message,
        });
        terms.push(Term {
            name: "idempotency",
            product: format!("idempotency_max {} x {KEY_BYTES} B each", self.idempotency_max),
            bytes: self.idempotency_max as u128 * KEY_BYTES,
        });
        terms.push(Term {
            name: "close ledger",
            product: format!("closes_max {} x {CLOSE_BYTES} B each", self.closes_max),
            bytes: self.closes_max as u128 * CLOSE_BYTES,
        });
        Ceiling { terms }
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
