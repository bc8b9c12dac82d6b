//! What happens to a member whose outbox is full: chosen per room.

/// What a room does about a member that does not take what it sends fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Slow {
    /// It is closed.
    #[default]
    Evict,
    /// The oldest messages queued for it make place; a gap tells how many.
    DropOldest,
    /// Only the newest message is queued for it; a gap tells how many it took the place of.
    Latest,
    /// It is closed, and can come back to where it was.
    EvictResumable,
}

impl Slow {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Evict, Self::DropOldest, Self::Latest, Self::EvictResumable];

    /// Stable label for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::DropOldest => "drop_oldest",
            Self::Latest => "latest",
            Self::EvictResumable => "evict_resumable",
        }
    }

    /// True when messages are dropped rather than the connection closed.
    #[must_use]
    pub const fn drops(self) -> bool {
        matches!(self, Self::DropOldest | Self::Latest)
    }
}

/// Publications of one room that a member was not given, all that were for it between two that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Number of the first.
    pub from: u64,
    /// Number of the last.
    pub to: u64,
    /// How many: less than from one to the other where some were not for this member.
    pub count: u64,
}

impl Gap {
    /// The one whose frame is longest.
    pub(crate) const LONGEST: Self = Self { from: u64::MAX, to: u64::MAX, count: u64::MAX };

    pub(crate) fn of(number: u64) -> Self {
        Self { from: number, to: number, count: 1 }
    }

    pub(crate) fn extend(&mut self, number: u64) {
        debug_assert!(number > self.to, "a gap grows at its end");
        self.to = number;
        self.count += 1;
    }
}

/// A room's policy as the flush needs it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    pub(crate) slow: Slow,
    /// Bytes of the longest frame of a gap.
    pub(crate) gap_bytes: u16,
    /// A bit for each variant that has a word for a gap. Whose variant has none cannot be told, and is closed instead.
    pub(crate) tells_gaps: u16,
}

impl Rules {
    /// True when messages to members of `variant` are dropped rather than the connection closed.
    pub(crate) fn drops(&self, variant: u8) -> bool {
        self.slow.drops() && self.tells_gaps & (1 << variant) != 0
    }
}
