//! What comes out of a log, as bytes that anybody may have written, for the fuzz targets.

use fanfare_registry::{Entry, Post};
pub use redis::Value;

use crate::answer;
use crate::envelope::{self, Letter as Envelope};
pub use crate::nats::fuzzing::{Message, Tallied, message, sent};

/// Who posted, under which number, and what.
pub type Letter = (u64, u64, Post);

/// Reads an envelope; `is_kept`: the log has counted it.
#[must_use]
pub fn letter(bytes: &[u8], is_kept: bool) -> Option<Letter> {
    let Envelope { node, number, post } = envelope::decode(bytes.to_vec(), is_kept).ok()?;
    Some((node, number, post))
}

/// Writes one.
#[must_use]
pub fn written((node, number, post): &Letter) -> Vec<u8> {
    envelope::encode(*node, *number, post)
}

/// What Redis answers when it is asked for entries: each with its place, and `None` where it cannot be understood.
#[must_use]
pub fn answered(value: Value) -> Option<Vec<((u64, u64), Option<Entry>)>> {
    let found = answer::entries(value)?;
    Some(found.into_iter().map(|found| ((found.place.epoch, found.place.number), found.into_entry())).collect())
}
