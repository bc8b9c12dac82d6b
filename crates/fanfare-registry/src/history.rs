//! What a room has said and still knows: a ring by count, bytes and age, and what somebody who was away gets of it.
//!
//! A ring holds the room's latest publications without a hole: it ends at the room's last number or is empty. So one comparison
//! says whether everything after a position is still there. It lies under the room's lock, where numbers are given: what was
//! missed and the number that live events go on from are read in one step, and nothing can be said in between.

use std::collections::VecDeque;
use std::time::Duration;

use fanfare_fanout::{Budget, LaneId};
use fanfare_protocol::{Position, Published};

/// Bytes a kept publication is charged besides its payload and its user's name: its place in the ring, which may be half empty,
/// and what shares its bytes. Rounded up.
pub const KEPT_OVERHEAD_BYTES: usize = 256;

/// What the frame around a payload is taken for where a part of a history is measured.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Empty places that a short ring may have besides.
const PLACES_FREE: usize = 4;

/// What a room keeps of what was said. The default keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryLimits {
    /// Publications; 0: none are kept.
    pub messages_max: u32,
    /// The last event of a cache channel is kept so long besides, whatever the others are, milliseconds; 0: it is none.
    pub cached_ms_max: u32,
    /// Bytes of them, each with its overhead.
    pub bytes_max: usize,
    /// How long each is kept; zero: as long as there is room.
    pub age_max: Duration,
}

impl HistoryLimits {
    /// Whether anything is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.has_pages() || self.is_cache()
    }

    /// Whether publications are kept that can be asked for.
    #[must_use]
    pub fn has_pages(&self) -> bool {
        self.messages_max > 0
    }

    /// Whether the last event is kept for who enters.
    #[must_use]
    pub fn is_cache(&self) -> bool {
        self.cached_ms_max > 0
    }
}

/// A publication that a room still knows. Its payload is shared with the frames it was sent in until those are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was published; it has its number.
    pub published: Published,
    /// When, on the registry's clock. Never before the one that precedes it.
    pub at: Duration,
    /// The connection it was not for: its shard and its lane.
    pub except: Option<(usize, LaneId)>,
}

impl Kept {
    fn charge(&self) -> usize {
        charge(&self.published)
    }

    fn offset(&self) -> u64 {
        self.published.offset.unwrap_or(0)
    }
}

/// Bytes that keeping a publication is charged.
pub(crate) fn charge(published: &Published) -> usize {
    let user = published.user.as_ref().map_or(0, |user| user.as_str().len());
    published.payload.len() + user + KEPT_OVERHEAD_BYTES
}

/// How much of a history is taken in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Publications.
    pub messages_max: usize,
    /// Bytes of them; one that is longer comes alone.
    pub bytes_max: usize,
}

impl Portion {
    /// How many of `kept` it holds: at least one, if there is one.
    fn count<'a>(&self, kept: impl Iterator<Item = &'a Kept>) -> usize {
        let mut bytes = 0;
        let within = kept.take(self.messages_max.max(1)).take_while(|kept| {
            let is_first = bytes == 0;
            bytes += kept.published.payload.len() + FRAME_OVERHEAD_BYTES;
            is_first || bytes <= self.bytes_max
        });
        within.count()
    }
}

/// A part of what somebody missed, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "who asked has missed it"]
pub struct Missed {
    /// First and last number of publications that were let go before they could be read; they come before the messages.
    pub lost: Option<(u64, u64)>,
    /// What comes next, in order, without a hole.
    pub messages: Vec<Kept>,
    /// Go on after this number.
    pub offset: u64,
    /// Set when nothing more is missed, and the room is no less far: number of the room's last event. Who becomes a member with it gets exactly what follows.
    pub seq: Option<u64>,
}

/// What to read of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// After this position, oldest first; `None`: the latest.
    pub since: Option<Position>,
    /// How much of it.
    pub portion: Portion,
}

/// A page of a room's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the room's order.
    pub messages: Vec<Kept>,
    /// Where the room's stream stands.
    pub position: Position,
    /// False when something between the position asked from and the first message is not kept any more, or never was here.
    pub recovered: bool,
}

/// The ring of one room. Under the room's lock.
#[derive(Debug, Default)]
pub(crate) struct History {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The last event of a cache channel. No part of the ring: clients' own events come between.
    cached: Option<Box<Kept>>,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.cached.is_none()
    }

    /// When the first of what is kept will have been kept long enough; `None` where age is no bound, or nothing is kept.
    pub(crate) fn due(&self, limits: &HistoryLimits) -> Option<Duration> {
        [self.oldest_due(limits), self.cached_due(limits)].into_iter().flatten().min()
    }

    fn oldest_due(&self, limits: &HistoryLimits) -> Option<Duration> {
        let oldest = self.kept.front().filter(|_| !limits.age_max.is_zero())?;
        Some(oldest.at.saturating_add(limits.age_max))
    }

    fn cached_due(&self, limits: &HistoryLimits) -> Option<Duration> {
        let age_max = Duration::from_millis(limits.cached_ms_max.into());
        self.cached.as_deref().map(|cached| cached.at.saturating_add(age_max))
    }

    /// Number of the oldest that is kept; the next one to be given where none is.
    fn first(&self, last: u64) -> u64 {
        self.kept.front().map_or(last + 1, Kept::offset)
    }

    /// Whether everything after `offset` is here, in a room whose last number is `last`.
    pub(crate) fn reaches(&self, offset: u64, last: u64) -> bool {
        offset <= last && offset + 1 >= self.first(last)
    }

    /// Keeps the room's latest publication, and lets go of what it takes the place of. Returns how many publications are lost to
    /// the node's bound on all histories: the oldest of this room, or, where that is not enough, all of them and this one.
    pub(crate) fn push(&mut self, mut kept: Kept, limits: &HistoryLimits, budget: &Budget) -> usize {
        let charge = kept.charge();
        if let Some(latest) = self.kept.back() {
            debug_assert_eq!(latest.offset() + 1, kept.offset(), "a ring has no holes");
            kept.at = kept.at.max(latest.at);
        }
        self.expire(kept.at, limits, budget);
        while self.kept.len() >= limits.messages_max as usize || self.bytes + charge > limits.bytes_max {
            if !self.pop(budget) {
                // Longer than all the room may keep; what preceded it would leave a hole.
                return 0;
            }
        }
        let mut cut = 0;
        while !budget.charge(charge) {
            cut += 1;
            if !self.pop(budget) {
                return cut;
            }
        }
        self.bytes += charge;
        self.kept.push_back(kept);
        cut
    }

    /// Lets go of what has been kept long enough.
    pub(crate) fn expire(&mut self, now: Duration, limits: &HistoryLimits, budget: &Budget) {
        while self.oldest_due(limits).is_some_and(|due| due <= now) {
            self.pop(budget);
        }
        if self.cached_due(limits).is_some_and(|due| due <= now) {
            self.uncache(budget);
        }
        let len = self.kept.len();
        if self.kept.capacity() > 2 * (len + PLACES_FREE) {
            self.kept.shrink_to(len + len / 2);
        }
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        self.uncache(budget);
        budget.release(self.bytes);
        *self = Self::default();
    }

    /// Keeps the last event of a cache channel in the place of the one before. False, and none is known, where the node's bound on all
    /// histories has no place for it.
    pub(crate) fn cache(&mut self, kept: Kept, budget: &Budget) -> bool {
        self.uncache(budget);
        let has_place = budget.charge(kept.charge());
        self.cached = has_place.then(|| Box::new(kept));
        has_place
    }

    fn uncache(&mut self, budget: &Budget) {
        if let Some(cached) = self.cached.take() {
            budget.release(cached.charge());
        }
    }

    /// The last event of a cache channel, while it is kept.
    pub(crate) fn cached(&self) -> Option<&Kept> {
        self.cached.as_deref()
    }

    /// The same as what is told to who enters.
    pub(crate) fn cached_value(&self, last: u64, seq: u64) -> Missed {
        Missed { lost: None, messages: self.cached().cloned().into_iter().collect(), offset: last, seq: Some(seq) }
    }

    fn pop(&mut self, budget: &Budget) -> bool {
        let Some(oldest) = self.kept.pop_front() else { return false };
        self.bytes -= oldest.charge();
        budget.release(oldest.charge());
        true
    }

    /// What follows `offset` in a room whose last numbers are `last` and, of events of any kind, `seq`.
    pub(crate) fn missed(&self, offset: u64, last: u64, seq: u64, portion: &Portion) -> Missed {
        let first = self.first(last);
        let lost = (offset + 1 < first).then(|| (offset + 1, first - 1));
        let after = offset.max(first - 1);
        let messages = self.after(after, portion);
        let offset = after + messages.len() as u64;
        // Who was further on another node waits until this one is there.
        Missed { lost, messages, offset, seq: (offset == last).then_some(seq) }
    }

    /// The last one alone, for who has missed nothing but should know it.
    pub(crate) fn last_value(&self, last: u64, seq: u64) -> Missed {
        Missed { lost: None, messages: self.kept.back().cloned().into_iter().collect(), offset: last, seq: Some(seq) }
    }

    /// What follows `offset`, which is the number before the oldest or a later one.
    fn after(&self, offset: u64, portion: &Portion) -> Vec<Kept> {
        let Some(oldest) = self.kept.front() else { return Vec::new() };
        let skipped = usize::try_from(offset + 1 - oldest.offset()).unwrap_or(usize::MAX).min(self.kept.len());
        let count = portion.count(self.kept.range(skipped..));
        self.kept.range(skipped..skipped + count).cloned().collect()
    }

    /// A page, in a room that stands at `position`.
    pub(crate) fn page(&self, query: &PageQuery, position: Position) -> Page {
        let Some(since) = query.since else {
            let count = query.portion.count(self.kept.iter().rev());
            let messages = self.kept.range(self.kept.len() - count..).cloned().collect();
            return Page { messages, position, recovered: true };
        };
        let last = position.offset;
        let recovered = since.epoch == position.epoch && self.reaches(since.offset, last);
        let from = if recovered { since.offset } else { self.first(last) - 1 };
        Page { messages: self.after(from, &query.portion), position, recovered }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
