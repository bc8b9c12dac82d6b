//! Settings that were replaced while the shard runs: looked at once a turn, so that within a turn one set of them holds.

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
        let settings = self.settings.clone();
        self.replace_allowances(&before, &settings);
    }
}

/// Bytes of its own replies a connection may have queued: echoes of the largest message, and acks, must fit whatever else is queued.
pub(super) fn reply_bytes_max(settings: &Settings) -> usize {
    settings.outbox.outbox_bytes_max.max(2 * settings.messages.message_bytes_max + 65_536)
}

pub(super) fn head_limits(settings: &Settings) -> HeadLimits {
    HeadLimits { header_bytes_max: settings.header_bytes_max, headers_max: settings.headers_max }
}
