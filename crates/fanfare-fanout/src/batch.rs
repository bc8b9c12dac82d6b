//! A room's batch: what was said since the last flush, as one contiguous buffer per variant.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::LaneId;
use crate::outbox::{Piece, is_part_of};
use crate::policy::Gap;
use crate::receipt::{Delivery, Receipt};
use crate::room::{Census, RoomId};

/// Most variants an [`Encode`] may have.
pub const VARIANTS_MAX: usize = 16;

/// How an event becomes frames. The seam to the dialects: called once per event, shard and variant present, never per
/// subscriber.
pub trait Encode {
    /// Number of variants, at most [`VARIANTS_MAX`].
    const VARIANTS: u8;

    /// What encoding needs besides the event and keeps from one event to the next. A shard has one.
    type Tools: Default;

    /// What frames about a room have to know of it. A shard keeps one for each room that may drop.
    type Room: std::fmt::Debug;

    /// Appends the event's wire-ready frames in `variant`; appends nothing where the variant has no word for it.
    fn encode(&self, variant: u8, tools: &mut Self::Tools, out: &mut Vec<u8>);

    /// Payload bytes, as reserved at the intake.
    fn payload_bytes(&self) -> usize;

    /// Whether it is a publication: the totals count only these.
    fn is_publication(&self) -> bool {
        true
    }

    /// Its number among the publications of its room: they rise. `None`: it is never dropped, whatever the room's policy.
    fn number(&self) -> Option<u64> {
        None
    }

    /// Appends one wire-ready frame that tells of a gap in `room`; appends nothing where the variant has no word for it: who
    /// takes that variant is closed where another would miss something. No frame is longer than 65,535 bytes, none longer than that
    /// of the largest numbers.
    fn encode_gap(room: &Self::Room, variant: u8, gap: Gap, out: &mut Vec<u8>) {
        let _ = (room, variant, gap, out);
    }

    /// When it was published, on the clock that [`Shard::tell_time`](crate::Shard::tell_time) tells; `None` where nobody measures.
    fn published_at(&self) -> Option<Duration> {
        None
    }

    /// Another form of all of a batch's frames, for variants that merge messages. Members that get only part of a batch get the unmerged
    /// frames.
    fn join(variant: u8, frames: &[u8]) -> Option<Vec<u8>> {
        let _ = (variant, frames);
        None
    }
}

/// One event of a batch.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number in the room's order.
    pub(crate) seq: u64,
    /// The connection it is not for.
    pub(crate) except: Option<LaneId>,
    pub(crate) receipt: Option<Arc<Receipt>>,
    is_publication: bool,
    /// Its number among the room's publications, if it may be dropped.
    number: Option<u64>,
    published_at: Option<Duration>,
    /// Members that did not get the whole batch, by what became of this entry.
    fates: Fates,
}

impl Entry {
    fn is_numbered_up_to(&self, number: u64) -> bool {
        self.number.is_some_and(|own| own <= number)
    }
}

/// What became of an entry, or of a whole batch, for one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Written or queued.
    Delivered,
    /// Left out by the room's policy.
    Dropped,
    /// The member was closed over it.
    Evicted,
}

/// Members by what became of something for them.
#[derive(Debug, Default, Clone, Copy)]
struct Fates {
    delivered: u32,
    dropped: u32,
    evicted: u32,
}

impl Fates {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Delivered => self.delivered += 1,
            Fate::Dropped => self.dropped += 1,
            Fate::Evicted => self.evicted += 1,
        }
    }

    /// What a receipt says where an entry has these and its batch has others.
    fn with(self, batch: Self) -> Delivery {
        Delivery {
            delivered: u64::from(self.delivered + batch.delivered),
            dropped: u64::from(self.dropped + batch.dropped),
            evicted: u64::from(self.evicted + batch.evicted),
        }
    }
}

/// What one member has not taken of an entry.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The entry's place in its batch.
    pub(crate) index: usize,
    /// Its frame, or the rest of it.
    pub(crate) bytes: Bytes,
    /// Its frame has been begun.
    pub(crate) is_begun: bool,
    /// Its number among the room's publications, if it may be dropped.
    pub(crate) number: Option<u64>,
}

/// A buffer that is shared only once somebody needs to keep part of it.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    shared: Option<Bytes>,
}

impl Buffer {
    fn as_slice(&self) -> &[u8] {
        self.shared.as_deref().unwrap_or(&self.bytes)
    }

    fn share(&mut self) -> Bytes {
        self.shared.get_or_insert_with(|| std::mem::take(&mut self.bytes).into()).clone()
    }

    fn clear(&mut self) {
        self.shared = None;
        self.bytes.clear();
    }
}

/// The frames of one variant, and where each entry's frames end.
#[derive(Debug, Default)]
struct Frames {
    variant: u8,
    buffer: Buffer,
    ends: Vec<u32>,
    shared_ends: Option<Arc<[u32]>>,
    joined: Option<Buffer>,
}

impl Frames {
    fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
        self.shared_ends = None;
        self.joined = None;
    }

    /// Outboxes have parts of it: it may not grow.
    fn is_shared(&self) -> bool {
        self.shared_ends.is_some() || self.buffer.shared.is_some()
    }

    /// Start and end of entries `from..to` in the buffer.
    fn range(&self, from: usize, to: usize) -> (usize, usize) {
        let end_of = |n: usize| {
            if n == 0 {
                0
            } else {
                self.ends.get(n - 1).copied().unwrap_or_else(|| self.buffer.as_slice().len() as u32) as usize
            }
        };
        (end_of(from), end_of(to))
    }
}

/// Beyond every place in [`Batch::frames`].
const NOWHERE: u8 = u8::MAX;

/// What a room said between two flushes.
#[derive(Debug)]
pub(crate) struct Batch {
    room: RoomId,
    entries: Vec<Entry>,
    /// An entry is not for every member.
    leaves_out: bool,
    /// Of the variants met so far; what follows those is memory for others.
    frames: Vec<Frames>,
    variants: u8,
    /// Where among them those of a variant are; [`NOWHERE`] until it has members.
    places: [u8; VARIANTS_MAX],
    /// Payload bytes, as reserved at the intake.
    payload_bytes: usize,
    /// Members to which one thing became of every entry.
    fates: Fates,
}

impl Batch {
    pub(crate) fn new(room: RoomId) -> Self {
        Self {
            room,
            entries: Vec::new(),
            leaves_out: false,
            frames: Vec::new(),
            variants: 0,
            places: [NOWHERE; VARIANTS_MAX],
            payload_bytes: 0,
            fates: Fates::default(),
        }
    }

    /// An empty batch with this one's memory. What outboxes share of it is let go.
    pub(crate) fn recycle(mut self: Box<Self>) -> Box<Self> {
        self.entries.clear();
        self.leaves_out = false;
        self.used_mut().iter_mut().for_each(Frames::clear);
        (self.variants, self.places) = (0, [NOWHERE; VARIANTS_MAX]);
        (self.payload_bytes, self.fates) = (0, Fates::default());
        self
    }

    /// The same empty batch, for `room`.
    pub(crate) fn given_to(mut self: Box<Self>, room: RoomId) -> Box<Self> {
        debug_assert!(self.entries.is_empty(), "only a recycled batch changes its room");
        self.room = room;
        self
    }

    /// Bytes of capacity that recycling would keep.
    pub(crate) fn capacity(&self) -> usize {
        self.frames.iter().map(|f| f.buffer.bytes.capacity()).sum()
    }

    fn used(&self) -> &[Frames] {
        &self.frames[..self.variants as usize]
    }

    fn used_mut(&mut self) -> &mut [Frames] {
        &mut self.frames[..self.variants as usize]
    }

    /// The frames of `variant`; `None` where it had no members yet.
    fn frames(&self, variant: u8) -> Option<&Frames> {
        self.frames.get(self.places[variant as usize] as usize)
    }

    /// The same, with a place for those that had none.
    fn frames_mut(&mut self, variant: u8) -> &mut Frames {
        if self.places[variant as usize] == NOWHERE {
            self.give_place(variant);
        }
        &mut self.frames[self.places[variant as usize] as usize]
    }

    #[cold]
    fn give_place(&mut self, variant: u8) {
        let place = self.variants;
        if place as usize == self.frames.len() {
            self.frames.push(Frames::default());
        }
        self.frames[place as usize].variant = variant;
        self.places[variant as usize] = place;
        self.variants += 1;
    }

    /// Appends an event, encoded in each variant that has members.
    pub(crate) fn append<P: Encode>(
        &mut self,
        seq: u64,
        event: &P,
        members: &Census,
        except: Option<LaneId>,
        receipt: Option<Arc<Receipt>>,
        tools: &mut P::Tools,
    ) {
        let entries = self.entries.len();
        for variant in members.variants() {
            let frames = self.frames_mut(variant);
            // Entries from before this variant had members have no frames in it.
            frames.ends.resize(entries, frames.buffer.bytes.len() as u32);
            event.encode(variant, tools, &mut frames.buffer.bytes);
            frames.ends.push(frames.buffer.bytes.len() as u32);
        }
        self.payload_bytes += event.payload_bytes();
        self.leaves_out |= except.is_some();
        self.entries.push(Entry {
            seq,
            except,
            receipt,
            is_publication: event.is_publication(),
            number: event.number(),
            published_at: event.published_at(),
            fates: Fates::default(),
        });
    }

    /// True when another event must begin a new batch: this one is large enough, or outboxes already share its buffers (a
    /// member that left before the flush could not take its part at once).
    pub(crate) fn is_full(&self, bytes_max: usize, messages_max: usize) -> bool {
        self.entries.len() >= messages_max
            || self.used().iter().any(|f| f.is_shared() || f.buffer.bytes.len() >= bytes_max)
    }

    /// No more events follow: variants that merge messages do it now.
    pub(crate) fn seal<P: Encode>(&mut self) {
        if self.entries.len() < 2 {
            return;
        }
        for frames in self.used_mut() {
            let joined = P::join(frames.variant, frames.buffer.as_slice());
            frames.joined = joined.map(|bytes| Buffer { bytes, shared: None });
        }
    }

    /// Members that entries are not for, one per such entry.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = LaneId> {
        let entries = if self.leaves_out { self.entries.as_slice() } else { &[] };
        entries.iter().filter_map(|entry| entry.except)
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.seq)
    }

    /// Everything, as a member of `variant` gets it.
    pub(crate) fn whole(&self, variant: u8) -> &[u8] {
        self.frames(variant).map_or(&[], |frames| frames.joined.as_ref().unwrap_or(&frames.buffer).as_slice())
    }

    /// The same, to be kept in an outbox.
    pub(crate) fn whole_piece(&mut self, variant: u8) -> Piece {
        let messages = self.entries.len();
        let frames = self.frames_mut(variant);
        if let Some(joined) = &mut frames.joined {
            return Piece::one(joined.share(), messages);
        }
        self.piece(variant, 0, messages)
    }

    /// Entries `from..to`.
    pub(crate) fn slice(&self, variant: u8, from: usize, to: usize) -> &[u8] {
        let Some(frames) = self.frames(variant) else { return &[] };
        let (start, end) = frames.range(from, to);
        &frames.buffer.as_slice()[start..end]
    }

    /// Entries `from..to`, to be kept in an outbox.
    pub(crate) fn piece(&mut self, variant: u8, from: usize, to: usize) -> Piece {
        let frames = self.frames_mut(variant);
        let (start, end) = frames.range(from, to);
        let ends = frames.shared_ends.get_or_insert_with(|| frames.ends.as_slice().into()).clone();
        let whole = frames.buffer.as_slice().len();
        let bytes = if is_part_of(whole, end - start) {
            Bytes::copy_from_slice(&frames.buffer.as_slice()[start..end])
        } else {
            frames.buffer.share().slice(start..end)
        };
        Piece::frames(bytes, ends, start as u32, to - from)
    }

    /// What a member that took `sent` bytes of entries `entries` has not taken, entry by entry, to be kept in an outbox.
    pub(crate) fn rests(&mut self, variant: u8, entries: Range<usize>, sent: usize) -> SmallVec<[Rest; 4]> {
        let numbers: SmallVec<[Option<u64>; 4]> = self.entries[entries.clone()].iter().map(|e| e.number).collect();
        let frames = self.frames_mut(variant);
        let (start, end) = frames.range(entries.start, entries.end);
        let whole = frames.buffer.as_slice().len();
        let from = start + sent;
        let is_copied = is_part_of(whole, end - from);
        let shared = if is_copied {
            Bytes::copy_from_slice(&frames.buffer.as_slice()[from..end])
        } else {
            frames.buffer.share().slice(from..end)
        };
        let mut rests = SmallVec::new();
        for (index, number) in entries.zip(numbers) {
            let (first, last) = frames.range(index, index + 1);
            // Taken whole, or without a word in this variant.
            if last <= from || first == last {
                continue;
            }
            let is_begun = first < from;
            let bytes = shared.slice(first.max(from) - from..last - from);
            // What has been begun stays longest, and should not keep the others' bytes.
            let bytes =
                if is_begun && is_part_of(shared.len(), bytes.len()) { Bytes::copy_from_slice(&bytes) } else { bytes };
            rests.push(Rest { index, bytes, is_begun, number });
        }
        rests
    }

    /// So many more members were given every entry.
    pub(crate) fn count_delivered(&mut self, members: u32) {
        self.fates.delivered += members;
    }

    /// One thing became of every entry for one more member.
    pub(crate) fn count_whole(&mut self, fate: Fate) {
        self.fates.count(fate);
    }

    /// One thing became of these entries for one more member.
    pub(crate) fn count_part(&mut self, entries: Range<usize>, fate: Fate) {
        self.entries[entries].iter_mut().for_each(|entry| entry.fates.count(fate));
    }

    /// Whether one of these entries has a number up to `number`.
    pub(crate) fn has_number_up_to(&self, number: u64, entries: Range<usize>) -> bool {
        self.entries[entries].iter().any(|entry| entry.is_numbered_up_to(number))
    }

    /// One more member was not given those of these entries that have numbers up to `number`, and was given the rest.
    pub(crate) fn count_dropped_up_to(&mut self, number: u64, entries: Range<usize>) {
        for entry in &mut self.entries[entries] {
            let is_dropped = entry.is_numbered_up_to(number);
            entry.fates.count(if is_dropped { Fate::Dropped } else { Fate::Delivered });
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Runs of entries that `lane` should get: those after `from_seq` that do not leave it out.
    pub(crate) fn ranges_for(&self, lane: LaneId, from_seq: u64) -> SmallVec<[(usize, usize); 4]> {
        let mut ranges = SmallVec::<[(usize, usize); 4]>::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.seq <= from_seq || entry.except == Some(lane) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, to)) if *to == index => *to = index + 1,
                _ => ranges.push((index, index + 1)),
            }
        }
        ranges
    }

    /// Every member has been offered the batch: reports all receipts, and appends when its publications were made. Returns the totals, and what to release at the intake.
    pub(crate) fn finish(&mut self, waits: &mut Vec<Duration>) -> Finished {
        let mut finished = Finished { items: self.entries.len(), bytes: self.payload_bytes, ..Finished::default() };
        for entry in &mut self.entries {
            let delivery = entry.fates.with(self.fates);
            if entry.is_publication {
                finished.delivered += delivery.delivered;
            }
            waits.extend(entry.published_at);
            if let Some(receipt) = entry.receipt.take() {
                receipt.report(delivery);
            }
        }
        finished
    }
}

/// Totals of a batch.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
    pub(crate) delivered: u64,
}
