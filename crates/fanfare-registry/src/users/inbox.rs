//! What is kept for one user who is away: a ring by count, bytes and age.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::Budget;

/// What keeping a letter is charged besides its frame, bytes.
pub const LETTER_OVERHEAD_BYTES: usize = 128;

/// What a user who is away is charged while he is remembered, bytes: his name of at most 200 and his entry.
pub const REMEMBERED_BYTES: usize = 512;

/// Something said to one user: a whole frame, as it will be told.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The frame.
    pub frame: Bytes,
    /// When it was said, on the registry's clock.
    pub at: Duration,
    /// Which bound on their number it counts toward.
    pub ring: Ring,
}

/// A bound on the letters of one kind in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Which kind: letters of others do not count.
    pub kind: u64,
    /// How many; 0: none is kept.
    pub size: u32,
}

/// Bounds of inboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// Any is kept at all: users who left are remembered.
    pub is_on: bool,
    /// Bytes of one inbox.
    pub bytes_max: usize,
    /// Bytes of all of them.
    pub total_bytes_max: usize,
    /// How long a letter is kept, and a user remembered.
    pub age_max: Duration,
}

/// What was kept for somebody.
#[derive(Debug, Default)]
pub struct Inbox {
    letters: VecDeque<Letter>,
    bytes: usize,
    /// Letters that are not kept any more, or never were for lack of place.
    dropped: u64,
}

impl Inbox {
    /// Its letters, oldest first.
    pub fn letters(&self) -> impl ExactSizeIterator<Item = &Letter> {
        self.letters.iter()
    }

    /// Letters that are not among them, because there was no place for all.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.dropped == 0
    }

    pub(super) fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// When the oldest letter came.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.letters.front().map(|letter| letter.at)
    }

    /// Keeps a letter; the oldest make place for it. `false`: there was no place even so.
    pub(super) fn push(&mut self, letter: Letter, limits: &InboxLimits, budget: &Budget) -> bool {
        let cost = cost(&letter);
        let Ring { kind, size } = letter.ring;
        let same = self.letters.iter().filter(|kept| kept.ring.kind == kind).count();
        if size > 0 && same >= size as usize {
            let oldest = self.letters.iter().position(|kept| kept.ring.kind == kind);
            let first = oldest.and_then(|at| self.letters.remove(at));
            self.let_go(first, budget);
        }
        while self.bytes + cost > limits.bytes_max && self.has_letters() {
            let first = self.letters.pop_front();
            self.let_go(first, budget);
        }
        let fits = size > 0 && self.bytes + cost <= limits.bytes_max && self.charge(cost, budget);
        if fits {
            self.bytes += cost;
            self.letters.push_back(letter);
        } else {
            self.dropped += 1;
        }
        fits
    }

    /// While all inboxes together have no place, this one's oldest letters make some.
    fn charge(&mut self, cost: usize, budget: &Budget) -> bool {
        loop {
            if budget.charge(cost) {
                return true;
            }
            let Some(first) = self.letters.pop_front() else { return false };
            self.let_go(Some(first), budget);
        }
    }

    fn let_go(&mut self, letter: Option<Letter>, budget: &Budget) {
        let Some(letter) = letter else { return };
        self.bytes -= cost(&letter);
        budget.release(cost(&letter));
        self.dropped += 1;
    }

    /// Lets go of what has been kept for so long.
    pub(super) fn expire(&mut self, now: Duration, age_max: Duration, budget: &Budget) {
        while let Some(letter) = self.letters.pop_front_if(|letter| letter.at + age_max <= now) {
            self.let_go(Some(letter), budget);
        }
    }

    /// It is told, or nobody will come for it.
    pub(super) fn release(&self, budget: &Budget) {
        budget.release(self.bytes);
    }
}

fn cost(letter: &Letter) -> usize {
    letter.frame.len() + LETTER_OVERHEAD_BYTES
}
