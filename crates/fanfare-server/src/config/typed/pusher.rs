//! Applications of the Pusher dialect.

use fanfare_edge::PusherAppSettings;
use fanfare_guard::ApplicationKey;
use fanfare_protocol::RoomName;
use fanfare_protocol::pusher::ChannelName;

use crate::config::raw::{DEFAULT_NAMESPACE, Pusher, PusherAppKeys};
use crate::config::value::Setting;

use super::check::{Check, HOUR_MS};

/// Longest id and key, bytes.
const NAME_BYTES_MAX: usize = 64;

/// Largest data of an event that may be configured, bytes.
const EVENT_BYTES_MAX: u64 = 1 << 20;

/// Longest that the last event of a cache channel may be kept, milliseconds: a week.
const CACHE_MS_MAX: u64 = 7 * 24 * HOUR_MS;

/// The applications, and what their clients are told.
#[derive(Debug, Clone)]
pub struct PusherApps {
    /// At least one.
    pub apps: Vec<PusherAppSettings>,
    /// Seconds of silence after which clients ask whether anybody is there.
    pub activity_timeout_s: u64,
}

impl Check {
    pub(super) fn pusher(&mut self, pusher: &Pusher) -> Option<PusherApps> {
        let timeout = &pusher.activity_timeout_ms;
        let timeout_ms = self.number("pusher.activity_timeout_ms", timeout, 1_000..=HOUR_MS);
        let apps = &pusher.apps;
        for (index, app) in apps.value.iter().enumerate() {
            self.pusher_app(apps, index, app);
            let others = &apps.value[..index];
            for (what, is_taken) in [
                ("id", others.iter().any(|other| other.id == app.id)),
                ("key", others.iter().any(|other| other.key == app.key)),
                ("namespace", others.iter().any(|other| other.namespace() == app.namespace())),
            ] {
                if is_taken {
                    self.of_app(apps, index, &format!("has the `{what}` of another; nothing crosses applications"));
                }
            }
        }
        let made = apps.value.iter().map(|app| PusherAppSettings {
            id: app.id.clone(),
            key: ApplicationKey::new(&app.key, app.secret.expose().as_bytes()),
            namespace: app.namespace(),
            is_enabled: app.enabled,
            client_events: app.client_events,
            client_events_per_second_max: u32::try_from(app.client_events_per_second_max).unwrap_or(u32::MAX),
            event_bytes_max: usize::try_from(app.event_bytes_max.min(EVENT_BYTES_MAX)).unwrap_or(usize::MAX),
            presence_members_max: usize::try_from(app.presence_members_max).unwrap_or(usize::MAX),
            user_info_bytes_max: usize::try_from(app.user_info_bytes_max).unwrap_or(usize::MAX),
            connections_max: usize::try_from(app.connections_max).unwrap_or(usize::MAX),
        });
        let made: Vec<_> = made.collect();
        (!made.is_empty()).then_some(PusherApps { apps: made, activity_timeout_s: timeout_ms / 1_000 })
    }

    fn pusher_app(&mut self, apps: &Setting<Vec<PusherAppKeys>>, index: usize, app: &PusherAppKeys) {
        let is_name = |text: &str| {
            text.len() <= NAME_BYTES_MAX
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        for (what, text) in [("id", &app.id), ("key", &app.key)] {
            if !is_name(text) {
                let text = format!("needs as its `{what}` at most {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ .");
                self.of_app(apps, index, &text);
            }
        }
        let namespace = app.namespace();
        let rest = "x".repeat(ChannelName::BYTES_MAX);
        if namespace.contains(':') || namespace == DEFAULT_NAMESPACE || RoomName::parse(&namespace).is_err() {
            self.of_app(apps, index, "needs a `namespace` that rooms may have, not `default` and without a colon");
        } else if RoomName::in_namespace(&namespace, &rest).is_err() {
            let max = RoomName::MADE_BYTES_MAX - 1 - ChannelName::BYTES_MAX;
            self.of_app(apps, index, &format!("needs a `namespace` of at most {max} bytes"));
        }
        self.presence(apps, index, app);
        if !(1..=EVENT_BYTES_MAX).contains(&app.event_bytes_max) {
            self.of_app(apps, index, &format!("needs an `event_bytes_max` from 1 to {EVENT_BYTES_MAX}"));
        }
    }

    /// A list of all members is one message: it must not become the largest of all.
    fn presence(&mut self, apps: &Setting<Vec<PusherAppKeys>>, index: usize, app: &PusherAppKeys) {
        if !(1..=10_000).contains(&app.presence_members_max) {
            self.of_app(apps, index, "needs a `presence_members_max` from 1 to 10000");
        }
        if !(4..=65_536).contains(&app.user_info_bytes_max) {
            self.of_app(apps, index, "needs a `user_info_bytes_max` from 4 to 65536");
        }
        if !(100..=CACHE_MS_MAX).contains(&app.cache_ms) {
            self.of_app(apps, index, &format!("needs a `cache_ms` from 100 to {CACHE_MS_MAX}"));
        }
    }

    fn of_app(&mut self, apps: &Setting<Vec<PusherAppKeys>>, index: usize, what: &str) {
        self.problem(apps, format!("entry {} of `pusher.apps` {what}", index + 1));
    }
}
