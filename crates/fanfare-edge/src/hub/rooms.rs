//! What the settings say of a room, by its namespace.

use std::time::Duration;

use fanfare_guard::{Filter, NamespacePolicy, Ruling};
use fanfare_protocol::pusher::{is_cache_room, is_presence_room};
use fanfare_protocol::{HistoryPage, Past, PayloadRef, Rate, RoomName};
use fanfare_registry::{HistoryLimits, Kept, Page, RoomBounds, RoomOptions};

use super::Hub;
use crate::Settings;
use crate::moderation::{HeldOutcome, HeldPublication};

impl Hub {
    pub(crate) fn policy(&self, room: &RoomName) -> NamespacePolicy {
        *self.settings.load().namespaces.get(room)
    }

    /// Options of a room, if it is made now.
    #[must_use]
    pub fn room_options(&self, room: &RoomName) -> RoomOptions {
        let policy = self.policy(room);
        let is_cache = policy.has_channels && is_cache_room(room);
        let has_members = policy.has_channels && is_presence_room(room);
        RoomOptions {
            presence: policy.presence || has_members,
            join_leave: policy.join_leave || has_members,
            offsets: policy.history_size > 0,
            history: HistoryLimits {
                messages_max: policy.history_size,
                cached_ms_max: if is_cache { policy.cache_ms } else { 0 },
                bytes_max: policy.history_bytes_max,
                age_max: Duration::from_millis(policy.history_ms),
            },
            last_value: policy.last_value,
            bounds: RoomBounds {
                subscribers_max: policy.subscribers_max,
                rate: Rate::per_second(policy.messages_per_second_max),
            },
        }
    }

    /// What moderation says of a message for `room`; counted.
    pub(crate) fn judge(&self, room: &RoomName, payload: PayloadRef<'_>) -> Ruling {
        let settings = self.settings.load();
        self.judge_by(&settings, settings.namespaces.get(room).filter, payload)
    }

    /// The same of a message that `filter` is for.
    pub(crate) fn judge_by(&self, settings: &Settings, filter: Filter, payload: PayloadRef<'_>) -> Ruling {
        if filter == Filter::Off {
            return Ruling::Pass;
        }
        let ruling = settings.moderation.load().judge(payload, filter);
        self.moderation_stats.ruled(&ruling);
        ruling
    }

    /// Lets a publication wait for a moderator: its number, or nothing when too many wait.
    pub(crate) fn hold(&self, publication: HeldPublication) -> Option<u64> {
        let id = self.held.hold(publication);
        if id.is_none() {
            self.moderation_stats.ended(HeldOutcome::Refused);
        }
        id
    }

    /// A page of history with the time of day in it. `has_since`: it was asked for from a position.
    pub(crate) fn history_page(&self, page: Page, has_since: bool) -> HistoryPage {
        let at_ms = self.wall_ms();
        let past = |kept: Kept| Past { published: kept.published, at_ms: at_ms(kept.at) };
        HistoryPage {
            messages: page.messages.into_iter().map(past).collect(),
            position: page.position,
            recovered: has_since.then_some(page.recovered),
        }
    }
}
