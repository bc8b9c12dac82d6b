//! What is agreed with each connection: compression and heartbeat.

use fanfare_protocol::HeartbeatLimits;

use crate::config::raw::{self, Compress};

use super::check::{Check, HOUR_MS};

/// How messages are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Shorter messages are sent as they are.
    pub threshold_bytes: usize,
    /// From 1, the fastest, to 9, the shortest.
    pub level: u8,
    /// Whether clients may refer to what they have sent before.
    pub client_context_takeover: bool,
}

impl Check {
    pub(super) fn compression(&mut self, raw: &raw::Compression) -> Option<Compression> {
        let threshold = self.count("compression.threshold_bytes", &raw.threshold_bytes, 1..=1 << 20);
        let level = self.number("compression.level", &raw.level, 1..=9);
        let threshold_bytes = match raw.mode.value {
            Compress::Off => return None,
            Compress::On => 0,
            Compress::Threshold => threshold,
        };
        Some(Compression {
            threshold_bytes,
            level: u8::try_from(level).unwrap_or(9),
            client_context_takeover: raw.client_context_takeover.value,
        })
    }

    pub(super) fn heartbeat(&mut self, raw: &raw::Heartbeat) -> HeartbeatLimits {
        HeartbeatLimits {
            ping: self.time("heartbeat.ping_ms", &raw.ping_ms, 10..=HOUR_MS),
            pong: self.time("heartbeat.pong_ms", &raw.pong_ms, 10..=HOUR_MS),
            write: self.time("heartbeat.write_ms", &raw.write_ms, 10..=HOUR_MS),
            close: self.time("heartbeat.close_ms", &raw.close_ms, 10..=HOUR_MS),
        }
    }
}
