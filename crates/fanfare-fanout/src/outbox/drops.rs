//! What an outbox does for rooms whose policy drops: messages go from the front, and a gap stands where the first of them was.

use bytes::Bytes;

use super::{Ends, Outbox, Piece, SLICES_MAX};
use crate::Budget;
use crate::policy::Gap;

/// What must be known of a message that may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Droppable {
    /// Its room's place in the shard.
    pub(crate) room: u32,
    /// Its number among the room's publications.
    pub(crate) number: u64,
    /// Bytes that a gap in its place may need.
    pub(crate) gap_bytes: u16,
    /// Its room keeps only the newest.
    pub(crate) is_latest: bool,
}

/// Whether a piece may be dropped.
#[derive(Debug)]
pub(super) enum Kind {
    /// It stays until it is taken.
    Fixed,
    /// It may be dropped while it has not been begun.
    Message(Droppable),
    /// It stands for messages that were dropped. Grows until it is begun; its frame is made when it is about to be sent.
    Gap { room: u32, gap: Box<Gap> },
    /// A gap that grows no more: its frame has been begun, or its lane has left the room.
    Told,
}

impl Kind {
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed)
    }

    /// The piece is being sent.
    pub(super) fn fix(&mut self) {
        *self = match self {
            Self::Fixed | Self::Message(_) => Self::Fixed,
            Self::Gap { .. } | Self::Told => Self::Told,
        };
    }
}

impl Piece {
    /// A message that may be dropped: one frame.
    pub(crate) fn droppable(bytes: Bytes, message: Droppable) -> Self {
        Self { kind: Kind::Message(message), ..Self::one(bytes, 1) }
    }

    fn gap(message: &Droppable) -> Self {
        let gap = Box::new(Gap::of(message.number));
        let kind = Kind::Gap { room: message.room, gap };
        Self { kind, slack: message.gap_bytes.into(), ..Self::one(Bytes::new(), 0) }
    }

    pub(super) fn is_droppable(&self) -> bool {
        matches!(self.kind, Kind::Message(_))
    }

    fn message(&self) -> Option<Droppable> {
        match self.kind {
            Kind::Message(message) => Some(message),
            Kind::Fixed | Kind::Gap { .. } | Kind::Told => None,
        }
    }

    fn is_message_of(&self, room: u32) -> bool {
        self.message().is_some_and(|message| message.room == room)
    }

    pub(super) fn is_gap(&self) -> bool {
        matches!(self.kind, Kind::Gap { .. })
    }

    fn is_gap_of(&self, room: u32) -> bool {
        matches!(self.kind, Kind::Gap { room: own, .. } if own == room)
    }

    /// Lets a gap stand for one more.
    fn extend_gap(&mut self, number: u64) {
        if let Kind::Gap { gap, .. } = &mut self.kind {
            gap.extend(number);
            // Its frame must be made anew.
            self.slack += self.bytes.len();
            self.bytes = Bytes::new();
        }
    }

    /// Makes the frame of a gap that has none. `encode` appends it.
    fn tell_gap(&mut self, encode: &mut impl FnMut(u32, Gap, &mut Vec<u8>)) {
        let Kind::Gap { room, gap } = &self.kind else { return };
        if !self.bytes.is_empty() {
            return;
        }
        let mut frame = Vec::with_capacity(self.slack);
        encode(*room, **gap, &mut frame);
        assert!(frame.len() <= self.slack, "room was kept free for the longest gap");
        self.slack -= frame.len();
        self.bytes = frame.into();
        self.ends = Ends::One;
    }
}

impl Outbox {
    /// Drops the oldest message that may be dropped: the newest of a room that keeps only that goes when nothing else is left.
    pub(crate) fn drop_oldest(&mut self, budget: &Budget) -> Option<Droppable> {
        if self.droppable == 0 {
            return None;
        }
        let is_old = |piece: &Piece| piece.message().is_some_and(|message| !message.is_latest);
        let at = self.data.iter().position(is_old).or_else(|| self.data.iter().position(Piece::is_droppable))?;
        self.drop_at(at, budget)
    }

    /// Drops the oldest message of `room` that may be dropped.
    pub(crate) fn drop_oldest_of(&mut self, room: u32, budget: &Budget) -> Option<Droppable> {
        if self.droppable == 0 {
            return None;
        }
        let at = self.data.iter().position(|piece| piece.is_message_of(room))?;
        self.drop_at(at, budget)
    }

    /// Every older message of its room that could be dropped has been: what stands before it is one gap, or none. Nothing is dropped
    /// when its gap would need more than it frees, and the budget does not have that.
    fn drop_at(&mut self, at: usize, budget: &Budget) -> Option<Droppable> {
        let message = self.data[at].message()?;
        let freed = self.data[at].len();
        let gap = self.gap_of(message.room);
        let needed = if gap.is_some() { 0 } else { message.gap_bytes.into() };
        if needed > freed && !budget.charge(needed - freed) {
            return None;
        }
        budget.release(freed.saturating_sub(needed));
        self.bytes = self.bytes - freed + needed;
        self.messages -= 1;
        self.droppable -= 1;
        match gap {
            Some(gap) => {
                self.data[gap].extend_gap(message.number);
                self.data.remove(at);
            }
            None => {
                self.data[at] = Piece::gap(&message);
                self.gaps += 1;
            }
        }
        Some(message)
    }

    /// Where the gap of `room` is. There is at most one: what is dropped next follows what was dropped last.
    fn gap_of(&self, room: u32) -> Option<usize> {
        if self.gaps == 0 {
            return None;
        }
        self.data.iter().position(|piece| piece.is_gap_of(room))
    }

    /// A message that comes next is not queued at all; those of its room that could be dropped have been. `false` when there is no
    /// place for its gap within `bytes_max` and the budget.
    pub(crate) fn skip(&mut self, message: &Droppable, bytes_max: usize, budget: &Budget) -> bool {
        // Gaps may have been longer than what they stand for; and where the budget had no bytes for one, older messages are still here.
        if self.bytes > bytes_max || self.droppable > 0 {
            return false;
        }
        if let Some(gap) = self.gap_of(message.room) {
            self.data[gap].extend_gap(message.number);
            return true;
        }
        let gap = Piece::gap(message);
        let fits = self.bytes + gap.slack <= bytes_max && budget.charge(gap.slack);
        if fits {
            self.push(gap);
        }
        fits
    }

    /// Number of the last message that the gap of `room` stands for.
    pub(crate) fn gap_end(&self, room: u32) -> Option<u64> {
        match &self.data[self.gap_of(room)?].kind {
            Kind::Gap { gap, .. } => Some(gap.to),
            Kind::Fixed | Kind::Message(_) | Kind::Told => None,
        }
    }

    /// Makes the frames of the gaps that are about to be sent.
    pub(crate) fn tell_gaps(&mut self, mut encode: impl FnMut(u32, Gap, &mut Vec<u8>)) {
        if self.gaps > 0 {
            self.data.iter_mut().take(SLICES_MAX).for_each(|piece| piece.tell_gap(&mut encode));
        }
    }

    /// Its lane leaves `room`: what is queued of it stays, and its gap is told as it is. Returns how many bytes less are queued.
    pub(crate) fn settle(&mut self, room: u32, mut encode: impl FnMut(u32, Gap, &mut Vec<u8>)) -> usize {
        if self.droppable + self.gaps == 0 {
            return 0;
        }
        let before = self.bytes;
        for piece in &mut self.data {
            if piece.is_message_of(room) {
                piece.kind = Kind::Fixed;
                self.droppable -= 1;
            } else if piece.is_gap_of(room) {
                piece.tell_gap(&mut encode);
                piece.kind = Kind::Told;
                self.gaps -= 1;
                self.bytes -= std::mem::take(&mut piece.slack);
            }
        }
        before - self.bytes
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
