//! What the keys of histories mean together: with the longest message, and with the machine's memory.

use fanfare_guard::{NamespacePolicy, SlowPolicy};
use fanfare_registry::KEPT_OVERHEAD_BYTES;

use super::ceiling::Term;
use super::raw::{DEFAULT_NAMESPACE, Raw, key_path, namespace_path};
use super::typed::later;
use super::{Config, Problem};

/// Bytes of a history that must remain beside the longest message: what keeping it is charged besides, and its user's name.
const OVERHEAD_BYTES: usize = 1_024;

/// A message that was accepted must fit the history that it is to be kept in.
pub(super) fn too_small(raw: &Raw, config: &Config, problems: &mut Vec<Problem>) {
    let message = config.messages.message_bytes_max;
    let needed = message + OVERHEAD_BYTES;
    let mut complain = |path: &str, bytes, blamed| {
        let text = format!(
            "`{path}` comes to {bytes}, too little to keep one message of `limits.message_bytes_max` = {message}; raise it \
             to {needed} or more, or lower the latter"
        );
        problems.push(Problem { origin: Some(blamed), text });
    };
    let mut keeping = config.namespaces.iter().filter(|(_, policy)| policy.history_size > 0).peekable();
    let total = config.history_total_bytes_max;
    if keeping.peek().is_some() && total < needed {
        let blamed = later(&raw.limits.history_total_bytes_max, &raw.limits.message_bytes_max);
        complain("limits.history_total_bytes_max", total, blamed);
    }
    let fallback = &raw.namespaces[DEFAULT_NAMESPACE].history_bytes_max;
    for (name, policy) in keeping.filter(|(_, policy)| policy.history_bytes_max < needed) {
        let own = raw.namespaces.get(name).map(|rules| &rules.history_bytes_max).filter(|own| own.is_given());
        let blamed = later(own.unwrap_or(fallback), &raw.limits.message_bytes_max);
        complain(&key_path(&namespace_path(name), "history_bytes_max"), policy.history_bytes_max, blamed);
    }
}

/// Who is closed to come back must find what it missed.
pub(super) fn not_resumable(raw: &Raw, config: &Config, problems: &mut Vec<Problem>) {
    let is_lost = |policy: &NamespacePolicy| policy.slow == SlowPolicy::EvictResumable && policy.history_size == 0;
    let fallback = &raw.namespaces[DEFAULT_NAMESPACE];
    for (name, _) in config.namespaces.iter().filter(|(_, policy)| is_lost(policy)) {
        let own = raw.namespaces.get(name).unwrap_or(fallback);
        let slow = if own.slow.is_given() { &own.slow } else { &fallback.slow };
        let size = if own.history_size.is_given() { &own.history_size } else { &fallback.history_size };
        let path = |key| key_path(&namespace_path(name), key);
        let text = format!(
            "`{} = \"evict_resumable\"` closes clients so that they come back for what they missed, but `{}` is 0: keep \
             at least 1 message, or choose \"evict\"",
            path("slow"),
            path("history_size")
        );
        problems.push(Problem { origin: Some(later(slow, size)), text });
    }
}

/// What all histories come to in the memory ceiling.
pub(super) fn term(config: &Config) -> Term {
    let most = |policy: &NamespacePolicy| {
        let message = config.messages.message_bytes_max + KEPT_OVERHEAD_BYTES;
        policy.history_bytes_max.min((policy.history_size as usize).saturating_mul(message)) as u128
    };
    let room = config.namespaces.iter().map(|(_, policy)| most(policy)).max().unwrap_or(0);
    let (rooms, budget) = (config.limits.rooms_max as u128, config.history_total_bytes_max as u128);
    let product = if room == 0 {
        "no namespace keeps a history".to_owned()
    } else if rooms * room < budget {
        format!("{rooms} rooms x {room} B of messages at most")
    } else {
        format!("the process's budget, history_total_bytes_max {budget}")
    };
    Term { name: "histories", product, bytes: (rooms * room).min(budget) }
}
