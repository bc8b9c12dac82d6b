//! Applications of the Pusher dialect, each a table.

use toml::de::DeValue;

use super::section::section;
use crate::config::value::{Literal, Secret, Value, nearest, read_tables};

section! {
    /// Clients and server libraries of Pusher Channels, protocol 7; see docs/pusher.md. Off while there are no applications.
    Pusher {
        /// The applications, a table `[[pusher.apps]]` for each. Its keys: `id`, its name in the paths of the HTTP API, digits for most
        /// libraries; `key`, which clients bring; `secret`, which its backends sign with, never printed; `namespace`, of which its channels are
        /// the rooms (`pusher-` and the id if left out); `enabled` (true); `client_events` (false), whether clients may publish events to
        /// private and presence channels; `client_events_per_second_max` (10), of one connection; `event_bytes_max` (10240), the data of an event;
        /// `presence_members_max` (100), users in a presence channel; `user_info_bytes_max`
        /// (1024), what is told of each; `cache_ms` (1800000), how long the last event of a cache channel is kept; `connections_max` (0: off), of this application on this node.
        apps: Vec<PusherAppKeys> = Vec::new(),
        /// The silence after which clients ask whether anybody is there, milliseconds, told in whole seconds.
        activity_timeout_ms: u64 = 120_000,
    }
}

/// One application as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PusherAppKeys {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: Secret,
    /// Empty: [`Self::namespace`] makes one.
    namespace: String,
    pub(crate) enabled: bool,
    pub(crate) client_events: bool,
    pub(crate) client_events_per_second_max: u64,
    pub(crate) event_bytes_max: u64,
    pub(crate) presence_members_max: u64,
    pub(crate) user_info_bytes_max: u64,
    pub(crate) cache_ms: u64,
    pub(crate) connections_max: u64,
}

impl Default for PusherAppKeys {
    fn default() -> Self {
        Self {
            id: String::new(),
            key: String::new(),
            secret: Secret::new(""),
            namespace: String::new(),
            enabled: true,
            client_events: false,
            client_events_per_second_max: 10,
            event_bytes_max: 10_240,
            presence_members_max: 100,
            user_info_bytes_max: 1_024,
            cache_ms: 1_800_000,
            connections_max: 0,
        }
    }
}

const LIST: &str = "a list of tables, such as [{ id = \"1\", key = \"app-key\", secret = \"app-secret\" }]";

const NAMES: [&str; 12] = [
    "id",
    "key",
    "secret",
    "namespace",
    "enabled",
    "client_events",
    "client_events_per_second_max",
    "event_bytes_max",
    "presence_members_max",
    "user_info_bytes_max",
    "cache_ms",
    "connections_max",
];

impl PusherAppKeys {
    /// The namespace of its channels.
    pub(crate) fn namespace(&self) -> String {
        if self.namespace.is_empty() { format!("pusher-{}", self.id) } else { self.namespace.clone() }
    }

    fn read(literal: &DeValue<'_>) -> Result<Self, String> {
        let table = literal.as_table().ok_or_else(|| format!("{LIST}; this one is no table"))?;
        let mut app = Self::default();
        for (name, value) in table {
            let (name, literal) = (name.get_ref().as_ref(), Literal::Toml(value.get_ref()));
            let read = match name {
                "id" => take(&mut app.id, literal),
                "key" => take(&mut app.key, literal),
                "secret" => take(&mut app.secret, literal),
                "namespace" => take(&mut app.namespace, literal),
                "enabled" => take(&mut app.enabled, literal),
                "client_events" => take(&mut app.client_events, literal),
                "client_events_per_second_max" => take(&mut app.client_events_per_second_max, literal),
                "event_bytes_max" => take(&mut app.event_bytes_max, literal),
                "presence_members_max" => take(&mut app.presence_members_max, literal),
                "user_info_bytes_max" => take(&mut app.user_info_bytes_max, literal),
                "cache_ms" => take(&mut app.cache_ms, literal),
                "connections_max" => take(&mut app.connections_max, literal),
                other => {
                    let hint = nearest(other, NAMES.into_iter());
                    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean `{hint}`?"));
                    return Err(format!("{LIST}; `{other}` is no key of it{hint}"));
                }
            };
            read.map_err(|why| format!("{LIST}; `{name}` must be {why}"))?;
        }
        for (name, is_empty) in
            [("id", app.id.is_empty()), ("key", app.key.is_empty()), ("secret", app.secret.expose().is_empty())]
        {
            if is_empty {
                return Err(format!("{LIST}; `{name}` is missing"));
            }
        }
        Ok(app)
    }

    fn write(&self, secret: &str) -> String {
        let text = |text: &str| text.to_owned().render();
        format!(
            "{{ id = {}, key = {}, secret = {secret}, namespace = {}, enabled = {}, client_events = {}, \
             client_events_per_second_max = {}, event_bytes_max = {}, presence_members_max = {}, \
             user_info_bytes_max = {}, cache_ms = {}, connections_max = {} }}",
            text(&self.id),
            text(&self.key),
            text(&self.namespace()),
            self.enabled,
            self.client_events,
            self.client_events_per_second_max,
            self.event_bytes_max,
            self.presence_members_max,
            self.user_info_bytes_max,
            self.cache_ms,
            self.connections_max,
        )
    }
}

fn take<T: Value>(place: &mut T, literal: Literal<'_>) -> Result<(), String> {
    *place = T::read(literal)?;
    Ok(())
}

impl Value for Vec<PusherAppKeys> {
    const KIND: &'static str = "list of tables";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        read_tables(literal, LIST, PusherAppKeys::read)
    }

    fn render(&self) -> String {
        let apps = self.iter().map(|app| app.write(&app.secret.render()));
        format!("[{}]", apps.collect::<Vec<_>>().join(", "))
    }

    fn exact(&self) -> String {
        let apps = self.iter().map(|app| app.write(&app.secret.exact()));
        format!("[{}]", apps.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<PusherAppKeys>, String> {
        Value::read(Literal::Bare(text))
    }

    #[test]
    fn a_list_is_shown_without_its_secrets_and_read_back() {
        let apps = read(
            r#"[{ id = "7", key = "k\"7", secret = "hunter2", client_events = true, connections_max = 9 },
                { id = "8", key = "k8", secret = "swordfish", namespace = "shop", enabled = false }]"#,
        )
        .unwrap();
        assert_eq!(apps[0].namespace(), "pusher-7");
        assert_eq!((apps[1].namespace(), apps[1].enabled), ("shop".to_owned(), false));
        assert!(!apps.render().contains("hunter2") && !apps.render().contains("swordfish"), "{}", apps.render());
        assert!(!format!("{apps:?}").contains("hunter2"));
        let again = read(&apps.exact()).unwrap();
        assert_eq!(again.exact(), apps.exact());
        assert_ne!(read(&apps.exact().replace("hunter2", "hunter3")).unwrap().exact(), apps.exact());
        assert_eq!(read("[]").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_entry_and_without_secrets() {
        for (text, word) in [
            ("k7", "a list of tables"),
            ("[7]", "this one is no table (entry 1)"),
            (r#"[{id = "1", key = "k", secret = "s"}, {id = "2", key = "k"}]"#, "`secret` is missing (entry 2)"),
            (r#"[{id = "1", key = "", secret = "s"}]"#, "`key` is missing (entry 1)"),
            (r#"[{id = 1}]"#, "`id` must be text in quotes, not a whole number (entry 1)"),
            (r#"[{client_event = true}]"#, "did you mean `client_events`? (entry 1)"),
            (r#"[{enabled = "hunter2"}]"#, "`enabled` must be true or false, not text (entry 1)"),
            (r#"[{connections_max = -1}]"#, "`connections_max` must be a whole number of 0 or more (entry 1)"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
