//! Settings that were replaced while the shard runs: looked at once a turn, so that within a turn one set of them holds.

use fanfare_guard::Bucket;

use super::ShardLoop;
use crate::head::HeadLimits;
use crate::settings::Settings;

impl ShardLoop {
    /// Takes over settings that were replaced since the last turn. Costs a load and a comparison when they were not.
    pub(super) fn take_settings(&mut self) {
        let version = self.hub.settings_version();
        if version == self.settings_version {
            return;
        }
        self.settings_version = version;
        let before = std::mem::replace(&mut self.settings, self.hub.settings_kept());
        let settings = &self.settings;
        self.fanout.set_limits(settings.outbox, reply_bytes_max(settings));
        self.newcomers.set_patience(settings.handshake);
        self.head_limits = head_limits(settings);
        let per_second = settings.messages_per_second_max;
        if per_second != before.messages_per_second_max {
            for connection in self.connections.iter_mut().flatten() {
                connection.rate = bucket(per_second);
            }
        }
    }
}

/// Bytes of its own replies a connection may have queued: echoes of the largest message, and acks, must fit whatever else is queued.
pub(super) fn reply_bytes_max(settings: &Settings) -> usize {
    settings.outbox.outbox_bytes_max.max(2 * settings.messages.message_bytes_max + 65_536)
}

pub(super) fn head_limits(settings: &Settings) -> HeadLimits {
    HeadLimits { header_bytes_max: settings.header_bytes_max, headers_max: settings.headers_max }
}

/// What bounds the messages of one connection, where they are bounded.
pub(super) fn bucket(per_second: u32) -> Option<Box<Bucket>> {
    (per_second > 0).then(|| Box::new(Bucket::new(per_second, per_second)))
}
