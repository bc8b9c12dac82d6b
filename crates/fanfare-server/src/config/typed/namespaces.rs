//! Rules by namespace.

use std::collections::BTreeMap;

use fanfare_guard::{NamespacePolicy, Namespaces, Right, SlowPolicy};

use crate::config::moderation;
use crate::config::raw::{self, DEFAULT_NAMESPACE, Namespace, Raw, Who, key_path, namespace_path};
use crate::config::value::Setting;

use super::check::{Check, HOUR_MS};

/// A year.
const HISTORY_MS_MAX: u64 = 365 * 24 * HOUR_MS;

impl Check {
    pub(super) fn namespaces(&mut self, raw: &Raw) -> Namespaces {
        let fallback = &raw.namespaces[DEFAULT_NAMESPACE];
        let default = self.namespace(DEFAULT_NAMESPACE, fallback, fallback);
        let others = raw.namespaces.iter().filter(|(name, _)| *name != DEFAULT_NAMESPACE);
        let mut others: BTreeMap<_, _> =
            others.map(|(name, rules)| (name.clone(), self.namespace(name, rules, fallback))).collect();
        for app in &raw.pusher.apps.value {
            let name = app.namespace();
            let rules = raw.namespaces.get(&name).filter(|_| name != DEFAULT_NAMESPACE);
            let policy = others.entry(name).or_insert(default);
            *policy = of_channels(*policy, rules, app.cache_ms);
        }
        Namespaces::new(default, others)
    }

    /// The policy of one namespace; what its table leaves out comes from the default namespace.
    fn namespace(&mut self, name: &str, rules: &Namespace, fallback: &Namespace) -> NamespacePolicy {
        fn given<'a, T>(own: &'a Setting<T>, fallback: &'a Setting<T>) -> &'a Setting<T> {
            if own.is_given() { own } else { fallback }
        }
        let path = |key: &str| key_path(&namespace_path(name), key);
        let ticker = given(&rules.ticker_ms, &fallback.ticker_ms);
        if (1..10).contains(&ticker.value) {
            self.problem(ticker, format!("`{}` must be 0 or at least 10", path("ticker_ms")));
        }
        NamespacePolicy {
            subscribe: right(given(&rules.subscribe, &fallback.subscribe).value),
            publish: right(given(&rules.publish, &fallback.publish).value),
            presence: given(&rules.presence, &fallback.presence).value,
            join_leave: given(&rules.join_leave, &fallback.join_leave).value,
            history_size: self.number_u32(
                &path("history_size"),
                given(&rules.history_size, &fallback.history_size),
                0..=1_000_000,
            ),
            history_bytes_max: self.count(
                &path("history_bytes_max"),
                given(&rules.history_bytes_max, &fallback.history_bytes_max),
                1..=1 << 40,
            ),
            history_ms: self.number(
                &path("history_ms"),
                given(&rules.history_ms, &fallback.history_ms),
                0..=HISTORY_MS_MAX,
            ),
            slow: slow(given(&rules.slow, &fallback.slow).value),
            last_value: given(&rules.history_size, &fallback.history_size).value == 1
                && given(&rules.slow, &fallback.slow).value == raw::Slow::Latest,
            ticker_ms: self.number(&path("ticker_ms"), ticker, 0..=24 * HOUR_MS),
            coalesce_ms: self.number(&path("coalesce_ms"), given(&rules.coalesce_ms, &fallback.coalesce_ms), 0..=1_000),
            inbox_size: self.number_u32(
                &path("inbox_size"),
                given(&rules.inbox_size, &fallback.inbox_size),
                0..=10_000,
            ),
            client_close: given(&rules.client_close, &fallback.client_close).value,
            subscribers_max: self.number_u32(
                &path("subscribers_max"),
                given(&rules.subscribers_max, &fallback.subscribers_max),
                0..=10_000_000,
            ),
            messages_per_second_max: self.number_u32(
                &path("messages_per_second_max"),
                given(&rules.messages_per_second_max, &fallback.messages_per_second_max),
                0..=1_000_000,
            ),
            has_channels: false,
            cache_ms: 0,
            filter: moderation::filter(given(&rules.filter, &fallback.filter).value),
        }
    }
}

/// The policy where rooms are channels of an application: it says who may enter them, so clients of other dialects may only where its
/// own table says so.
fn of_channels(policy: NamespacePolicy, rules: Option<&Namespace>, cache_ms: u64) -> NamespacePolicy {
    let is_given = |setting: fn(&Namespace) -> &Setting<Who>| rules.is_some_and(|rules| setting(rules).is_given());
    NamespacePolicy {
        subscribe: if is_given(|rules| &rules.subscribe) { policy.subscribe } else { Right::Nobody },
        publish: if is_given(|rules| &rules.publish) { policy.publish } else { Right::Nobody },
        has_channels: true,
        cache_ms: u32::try_from(cache_ms).unwrap_or(u32::MAX),
        ..policy
    }
}

pub(super) fn right(who: Who) -> Right {
    match who {
        Who::Anyone => Right::Anyone,
        Who::User => Right::User,
        Who::Token => Right::Token,
        Who::Nobody => Right::Nobody,
    }
}

fn slow(policy: raw::Slow) -> SlowPolicy {
    match policy {
        raw::Slow::Evict => SlowPolicy::Evict,
        raw::Slow::DropOldest => SlowPolicy::DropOldest,
        raw::Slow::Latest => SlowPolicy::Latest,
        raw::Slow::EvictResumable => SlowPolicy::EvictResumable,
    }
}
