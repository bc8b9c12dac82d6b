//! Pages of a list: how long one is, and where the next one begins.

use super::route::{Form, Parameter};

/// Entries in one answer at most, and where no number is asked for.
const ENTRIES_MAX: usize = 1_000;
const ENTRIES_DEFAULT: usize = 100;

/// The parameter `limit` of a list.
pub(super) const fn limit(about: &'static str) -> Parameter {
    Parameter { name: "limit", about, form: Form::Limit(ENTRIES_DEFAULT, ENTRIES_MAX) }
}

/// Cuts what was found to a page of at most `limit`. One more than that was looked for: where it is there the last of the page, which the next
/// one begins behind.
pub(super) fn cut<T>(found: &mut Vec<T>, limit: usize) -> Option<&T> {
    let has_more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| has_more)
}
