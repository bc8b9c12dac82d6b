//! What differs between two configurations, key by key, and which keys may change while a node runs.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sha2::{Digest as _, Sha256};

use super::Config;
use super::raw::{NAMESPACES, Raw, key_path};

/// Keys that a reload takes over; `*` stands for all of a section. Every other key waits for a restart: it has been built into something.
const RELOADABLE: &[(&str, &str)] = &[
    ("", "origins"),
    ("limits", "*"),
    ("proxy", "*"),
    ("tls", "*"),
    ("heartbeat", "*"),
    ("auth", "guests"),
    ("auth", "send"),
    ("auth", "keys"),
    ("auth", "audience"),
    ("auth", "issuer"),
    ("auth", "expiry_warning_ms"),
    ("auth", "revocations_max"),
    ("api", "*"),
    ("rooms", "*"),
    (NAMESPACES, "*"),
    ("moderation", "*"),
    ("diagnostics", "*"),
    ("drain", "*"),
];

fn is_reloadable(section: &str, key: &str) -> bool {
    let section = if section.starts_with(NAMESPACES) { NAMESPACES } else { section };
    RELOADABLE.iter().any(|&(of, name)| of == section && (name == "*" || name == key))
}

/// Every key with what was configured for it, without its secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configured {
    /// By full name: whether it may be reloaded, and what stands for its value.
    keys: BTreeMap<String, (bool, u64)>,
    /// Of all values that are no secrets.
    digest: String,
}

/// Keys that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Those that a reload takes over.
    pub(crate) reloadable: Vec<String>,
    /// Those that wait for a restart.
    pub(crate) restart: Vec<String>,
}

impl Configured {
    pub(super) fn of(raw: &Raw) -> Self {
        let mut keys = BTreeMap::new();
        let mut shown = Sha256::new();
        for (section, table) in raw.sections() {
            for key in table.keys() {
                let path = key_path(&section, key.name);
                shown.update(format!("{path} = {}\n", key.value));
                let mut hasher = DefaultHasher::new();
                key.exact.hash(&mut hasher);
                keys.insert(path, (is_reloadable(&section, key.name), hasher.finish()));
            }
        }
        let digest = shown.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { keys, digest }
    }
}

impl Config {
    /// Tells this configuration from others, also on other nodes. Secrets have no part in it.
    #[must_use]
    pub fn digest(&self) -> String {
        let contents = [self.moderation.words_version(), self.moderation.model_version()];
        format!("{}-{}-{}", self.configured.digest, contents[0], contents[1]).trim_end_matches('-').to_owned()
    }

    /// What differs from the configuration that `self` is to take the place of.
    pub(crate) fn changes_from(&self, running: &Self) -> Changes {
        let (new, old) = (&self.configured.keys, &running.configured.keys);
        let mut changes = Changes::default();
        let names: std::collections::BTreeSet<_> = new.keys().chain(old.keys()).collect();
        for name in names {
            if new.get(name) == old.get(name) {
                continue;
            }
            let is_reloadable = new.get(name).or_else(|| old.get(name)).is_some_and(|&(reloadable, _)| reloadable);
            if is_reloadable { &mut changes.reloadable } else { &mut changes.restart }.push(name.clone());
        }
        // The same name may stand for other words.
        let files = [
            ("moderation.words_file", self.moderation.words_version() != running.moderation.words_version()),
            ("moderation.model_file", self.moderation.model_version() != running.moderation.model_version()),
        ];
        for (name, has_changed) in files {
            if has_changed && !changes.reloadable.iter().any(|known| known == name) {
                changes.reloadable.push(name.to_owned());
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Environment, Flags};

    fn config(toml: &str) -> Config {
        Config::serve(&Flags::default(), Some(&ConfigFile::new("a.toml", toml)), &Environment::default()).unwrap()
    }

    #[test]
    fn what_differs_is_named_and_told_apart() {
        let before =
            config("[api]\nkeys = [\"one\"]\n[limits]\nconnections_max = 10\n[namespaces.gone]\npresence = true");
        let after = config(
            "shards = 3\n[api]\nkeys = [\"two\"]\n[limits]\nconnections_max = 11\noutbox_total_bytes_max = 99999999\n[auth]\njwks_url = \"http://127.0.0.1/keys\"",
        );
        let changes = after.changes_from(&before);
        assert!(changes.reloadable.contains(&"api.keys".to_owned()), "{changes:?}");
        assert!(changes.reloadable.contains(&"limits.connections_max".to_owned()));
        assert!(changes.reloadable.contains(&"namespaces.gone.presence".to_owned()));
        assert!(changes.reloadable.contains(&"limits.outbox_total_bytes_max".to_owned()));
        assert_eq!(changes.restart, ["auth.jwks_url", "shards"]);
        assert_eq!(after.changes_from(&after.clone()), Changes::default());
        let rotated =
            config("[api]\nkeys = [\"uno\"]\n[limits]\nconnections_max = 10\n[namespaces.gone]\npresence = true");
        assert_eq!(rotated.digest(), before.digest(), "a digest says nothing of secrets");
        assert_ne!(after.digest(), before.digest());
    }

    #[test]
    fn every_reloadable_key_exists() {
        let raw = Raw::default();
        for &(section, key) in RELOADABLE {
            let is_there = raw.sections().iter().any(|(name, table)| {
                (name == section || (section == NAMESPACES && name.starts_with(NAMESPACES)))
                    && (key == "*" || table.keys().iter().any(|known| known.name == key))
            });
            assert!(is_there, "{section}.{key}");
        }
    }
}
