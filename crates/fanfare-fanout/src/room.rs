//! One room's members on one shard, and how far its batch has got among them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::LaneId;
use crate::batch::{Batch, VARIANTS_MAX};
use crate::policy::Rules;

/// One life of a room, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomId(pub u64);

/// A map by room id. Ids are a counter's, so nobody outside can choose ones that meet, and one multiplication spreads them.
pub(crate) type ByRoomId<T> = HashMap<RoomId, T, BuildHasherDefault<IdHasher>>;

/// See [`ByRoomId`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        // The map takes its place from the low bits and a tag from the high ones: both get all of the id.
        let spread = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A subscriber: eight bytes, walked by every flush.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) lane: u32,
    pub(crate) variant: u8,
    /// Gets other bytes than the rest in the flush under way. Set when a flush starts, cleared when it ends.
    pub(crate) special: bool,
}

/// Members of each variant.
#[derive(Debug, Default)]
pub(crate) struct Census {
    members: [u32; VARIANTS_MAX],
    /// A bit for each variant that has any: mostly one of many.
    present: u16,
}

const _: () = assert!(VARIANTS_MAX <= u16::BITS as usize, "a bit each");

impl Census {
    /// The variants that have members.
    pub(crate) fn variants(&self) -> impl Iterator<Item = u8> + use<> {
        let mut present = self.present;
        std::iter::from_fn(move || {
            let variant = present.trailing_zeros() as u8;
            present &= present.checked_sub(1)?;
            Some(variant)
        })
    }

    pub(crate) fn add(&mut self, variant: u8) {
        self.members[variant as usize] += 1;
        self.present |= 1 << variant;
    }

    fn remove(&mut self, variant: u8) {
        let members = &mut self.members[variant as usize];
        *members -= 1;
        if *members == 0 {
            self.present &= !(1 << variant);
        }
    }
}

/// How far the flush of the front batch has got. Members `0..next` have been offered it, `next..end` will be, and those from `end` on came
/// after the flush began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) next: usize,
    pub(crate) end: usize,
}

/// A room as one shard sees it. Owned by the shard; no lock. It exists while it has members here.
#[derive(Debug)]
pub(crate) struct LocalRoom<R> {
    pub(crate) id: RoomId,
    pub(crate) members: Vec<Member>,
    pub(crate) census: Census,
    /// Oldest first. While `cursor` is set the front one is sealed and on its way.
    pub(crate) batches: VecDeque<Box<Batch>>,
    pub(crate) cursor: Option<Cursor>,
    /// Members that joined while batches were waiting: each gets only what came after its own number.
    pub(crate) late: Vec<(LaneId, u64)>,
    /// Number of the last event taken in.
    pub(crate) applied: u64,
    /// Waiting in the shard's queue of rooms to flush.
    pub(crate) is_dirty: bool,
    /// When something was last said in it.
    pub(crate) said: Duration,
    /// Latency budget: how long a batch may grow before it is flushed.
    pub(crate) coalesce: Duration,
    /// Has an entry among the shard's waits.
    pub(crate) is_waiting: bool,
    /// What happens to members that do not take everything.
    pub(crate) rules: Rules,
    /// What frames about the room have to know of it. Set where it may drop.
    pub(crate) name: Option<R>,
}

impl<R> LocalRoom<R> {
    pub(crate) fn new(id: RoomId, applied: u64) -> Self {
        Self {
            id,
            members: Vec::new(),
            census: Census::default(),
            batches: VecDeque::new(),
            cursor: None,
            late: Vec::new(),
            applied,
            is_dirty: false,
            said: Duration::ZERO,
            coalesce: Duration::ZERO,
            is_waiting: false,
            rules: Rules::default(),
            name: None,
        }
    }

    /// True when every event up to `seq` has been taken in and offered or is on its way to the members present: one who
    /// joins at `seq` needs no special care.
    pub(crate) fn is_level_with(&self, seq: u64) -> bool {
        let on_its_way = usize::from(self.cursor.is_some());
        self.applied == seq && self.batches.len() == on_its_way
    }

    /// The batch that takes the next event, unless a new one is needed.
    pub(crate) fn open_batch(&mut self, bytes_max: usize, messages_max: usize) -> Option<&mut Batch> {
        let sealed = usize::from(self.cursor.is_some());
        if self.batches.len() <= sealed {
            return None;
        }
        self.batches.back_mut().map(|b| &mut **b).filter(|b| !b.is_full(bytes_max, messages_max))
    }

    /// Takes out the member at `position`. Calls `moved(lane, position)` for each member that changed place: at most three, so
    /// leaving is O(1) and every member stays on its side of the cursor.
    pub(crate) fn remove(&mut self, position: usize, mut moved: impl FnMut(u32, u32)) {
        let mut hole = position;
        let member = self.members[position];
        self.census.remove(member.variant);
        let mut fill = |members: &mut Vec<Member>, hole: &mut usize, from: usize| {
            if *hole != from {
                members[*hole] = members[from];
                moved(members[from].lane, *hole as u32);
                *hole = from;
            }
        };
        if let Some(cursor) = &mut self.cursor {
            if hole < cursor.next {
                fill(&mut self.members, &mut hole, cursor.next - 1);
                cursor.next -= 1;
            }
            if hole < cursor.end {
                fill(&mut self.members, &mut hole, cursor.end - 1);
                cursor.end -= 1;
            }
        }
        let last = self.members.len() - 1;
        fill(&mut self.members, &mut hole, last);
        self.members.pop();
    }
}

/// The number after which a member wants events; 0: all.
pub(crate) fn wants_after(late: &[(LaneId, u64)], lane: LaneId) -> u64 {
    late.iter().find(|(other, _)| *other == lane).map_or(0, |&(_, seq)| seq)
}
