//! What one node takes on, and what one connection may have of it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use fanfare_fanout::OutboxLimits;
use fanfare_protocol::MessageLimits;

use crate::config::raw::{self, Mode};
use crate::config::value::Setting;

use super::check::{Check, HOUR_MS, as_usize};

const CONNECTIONS_MAX: u64 = 10_000_000;

/// Limits at the door. `None`: off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_ip_max: Option<NonZeroUsize>,
    /// Connections a second from one address.
    pub handshakes_per_second_per_ip_max: Option<NonZeroU32>,
    /// Connections at once of one user.
    pub connections_per_user_max: Option<NonZeroUsize>,
    /// Time a request or handshake may take.
    pub handshake_max: Duration,
    /// Header lines of a request.
    pub handshake_headers_max: usize,
    /// Bytes of a request's head; at least 8,192, which hyper asks for.
    pub header_bytes_max: usize,
    /// Messages a second from one connection.
    pub messages_per_second_max: Option<NonZeroU32>,
    /// Pings and pongs a second from one connection.
    pub control_frames_per_second_max: Option<NonZeroU32>,
    /// Messages a second of one user.
    pub messages_per_second_per_user_max: Option<NonZeroU32>,
    /// Rooms one connection may be subscribed to.
    pub subscriptions_per_connection_max: usize,
    /// Rooms at once.
    pub rooms_max: usize,
    /// Whether what is beyond some of these limits is let pass, and only counted.
    pub observes: bool,
}

impl Check {
    pub(super) fn limits(&mut self, limits: &raw::Limits) -> Limits {
        let mut per_second =
            |path, setting: &Setting<u64>| NonZeroU32::new(self.number_u32(path, setting, 0..=1_000_000));
        let messages_per_second_max = per_second("limits.messages_per_second_max", &limits.messages_per_second_max);
        let messages_per_second_per_user_max =
            per_second("limits.messages_per_second_per_user_max", &limits.messages_per_second_per_user_max);
        let control_frames_per_second_max =
            per_second("limits.control_frames_per_second_max", &limits.control_frames_per_second_max);
        let handshakes_per_second_per_ip_max =
            per_second("limits.handshakes_per_second_per_ip_max", &limits.handshakes_per_second_per_ip_max);
        Limits {
            messages_per_second_max,
            control_frames_per_second_max,
            messages_per_second_per_user_max,
            handshakes_per_second_per_ip_max,
            connections_per_user_max: NonZeroUsize::new(self.count(
                "limits.connections_per_user_max",
                &limits.connections_per_user_max,
                0..=CONNECTIONS_MAX,
            )),
            connections_max: self.count("limits.connections_max", &limits.connections_max, 1..=CONNECTIONS_MAX),
            connections_per_ip_max: NonZeroUsize::new(self.count(
                "limits.connections_per_ip_max",
                &limits.connections_per_ip_max,
                0..=CONNECTIONS_MAX,
            )),
            handshake_max: self.time("limits.handshake_ms_max", &limits.handshake_ms_max, 10..=HOUR_MS),
            // A browser's handshake behind a proxy has about twenty lines.
            handshake_headers_max: self.count(
                "limits.handshake_headers_max",
                &limits.handshake_headers_max,
                16..=1_024,
            ),
            header_bytes_max: self.count("limits.header_bytes_max", &limits.header_bytes_max, 8_192..=1 << 20),
            subscriptions_per_connection_max: self.count(
                "limits.subscriptions_per_connection_max",
                &limits.subscriptions_per_connection_max,
                1..=1_000_000,
            ),
            rooms_max: self.count("limits.rooms_max", &limits.rooms_max, 1..=100_000_000),
            observes: limits.mode.value == Mode::Observe,
        }
    }

    pub(super) fn messages(&mut self, raw: &raw::Limits) -> MessageLimits {
        MessageLimits {
            message_bytes_max: self.count("limits.message_bytes_max", &raw.message_bytes_max, 1..=64 << 20),
            fragments_max: self.count("limits.fragments_max", &raw.fragments_max, 1..=1 << 20),
            ..MessageLimits::default()
        }
    }

    pub(super) fn outbox(&mut self, raw: &raw::Limits) -> OutboxLimits {
        OutboxLimits {
            outbox_bytes_max: self.count("limits.outbox_bytes_max", &raw.outbox_bytes_max, 1..=1 << 30),
            outbox_messages_max: self.count("limits.outbox_messages_max", &raw.outbox_messages_max, 1..=1 << 20),
        }
    }

    /// Bytes of something that all connections or rooms have together; 0 is a share of the machine's memory.
    pub(super) fn total(&mut self, path: &str, setting: &Setting<u64>, share: u64) -> usize {
        match self.number(path, setting, 0..=1 << 44) {
            0 => as_usize(share),
            bytes => as_usize(bytes),
        }
    }
}
