//! What the keys of inboxes mean together: with the longest message, with an outbox, and with the machine's memory.

use std::time::Duration;

use fanfare_registry::InboxLimits;

use super::ceiling::Term;
use super::machine::Machine;
use super::raw::Raw;
use super::typed::later;
use super::{Config, Problem};

/// Bytes of an inbox that must remain beside the longest message: what the dialect puts around it.
const OVERHEAD_BYTES: usize = 8_192;

/// A year.
const MS_MAX: u64 = 365 * 24 * 3_600_000;

pub(super) fn limits(raw: &Raw, machine: &Machine, problems: &mut Vec<Problem>) -> InboxLimits {
    let limits = &raw.limits;
    if !(1_000..=MS_MAX).contains(&limits.inbox_ms_max.value) {
        let text = format!("`limits.inbox_ms_max` = {} is not between 1000 and {MS_MAX}", limits.inbox_ms_max.value);
        problems.push(Problem { origin: Some(limits.inbox_ms_max.origin.clone()), text });
    }
    let total = match limits.inbox_total_bytes_max.value {
        0 => machine.memory_bytes / 32,
        bytes => bytes,
    };
    let bytes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    InboxLimits {
        is_on: raw.namespaces.values().any(|rules| rules.inbox_size.value > 0),
        bytes_max: bytes(limits.inbox_bytes_max.value),
        total_bytes_max: bytes(total),
        age_max: Duration::from_millis(limits.inbox_ms_max.value.min(MS_MAX)),
    }
}

/// What is kept must fit, and must be told in one go.
pub(super) fn check(raw: &Raw, config: &Config, problems: &mut Vec<Problem>) {
    if !config.inboxes.is_on {
        return;
    }
    let (kept, limits) = (config.inboxes.bytes_max, &raw.limits);
    let needed = config.messages.message_bytes_max + OVERHEAD_BYTES;
    if kept < needed {
        let blamed = later(&limits.inbox_bytes_max, &limits.message_bytes_max);
        let text = format!(
            "`limits.inbox_bytes_max` is {kept}, too little to keep one message of `limits.message_bytes_max`; raise it to \
             {needed} or more, or lower the latter"
        );
        problems.push(Problem { origin: Some(blamed), text });
    }
    let most = config.outbox.outbox_bytes_max / 2;
    if kept > most {
        let blamed = later(&limits.inbox_bytes_max, &limits.outbox_bytes_max);
        let text = format!(
            "`limits.inbox_bytes_max` is {kept}, more than half of `limits.outbox_bytes_max`: who comes back could not take it \
             in one go; lower it to {most}, or raise the latter"
        );
        problems.push(Problem { origin: Some(blamed), text });
    }
}

/// What all inboxes come to in the memory ceiling.
pub(super) fn term(config: &Config) -> Term {
    let total = config.inboxes.total_bytes_max as u128;
    if config.inboxes.is_on {
        Term { name: "inboxes", product: format!("the process's budget, inbox_total_bytes_max {total}"), bytes: total }
    } else {
        Term { name: "inboxes", product: "no namespace keeps any".to_owned(), bytes: 0 }
    }
}
