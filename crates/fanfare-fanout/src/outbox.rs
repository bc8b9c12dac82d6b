//! What is queued for one connection that did not take everything at once.

mod drops;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use self::drops::Droppable;
use self::drops::Kind;

/// What one connection may have queued of what rooms send it. At either bound the slow policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes.
    pub outbox_bytes_max: usize,
    /// Messages.
    pub outbox_messages_max: usize,
}

impl OutboxLimits {
    /// Whether so much more may be queued where so much is.
    pub(crate) fn allow(&self, queued: Queued, more: Queued) -> bool {
        queued.bytes + more.bytes <= self.outbox_bytes_max
            && queued.messages + more.messages <= self.outbox_messages_max
    }
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { outbox_bytes_max: 1_048_576, outbox_messages_max: 4_096 }
    }
}

/// What is queued for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queued {
    /// Bytes not yet taken.
    pub bytes: usize,
    /// Messages not yet wholly taken.
    pub messages: usize,
}

/// Which of the two queues of an outbox a frame joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Goes before data, at the next frame boundary: pong, close, acks, errors.
    Control,
    /// Keeps its place among the room's messages: `subscribed`, `unsubscribed`, echoes.
    Data,
}

/// Most slices handed to one vectored write; the rest follows in the next.
const SLICES_MAX: usize = 16;

/// Less than half of a shared buffer of at least this size is copied out, so that a slow reader of a few bytes does not keep the whole
/// buffer alive.
const COPY_OUT_BYTES: usize = 4_096;

/// Whether `part` bytes of a buffer of `whole` are copied out of it.
pub(crate) fn is_part_of(whole: usize, part: usize) -> bool {
    whole >= COPY_OUT_BYTES && part * 2 < whole
}

/// These bytes of a shared buffer, copied out where that is called for.
pub(crate) fn part_of(whole: &Bytes, range: Range<usize>) -> Bytes {
    if is_part_of(whole.len(), range.len()) { Bytes::copy_from_slice(&whole[range]) } else { whole.slice(range) }
}

/// Where frames end inside a [`Piece`].
#[derive(Debug, Clone)]
pub(crate) enum Ends {
    /// The piece is one frame.
    One,
    /// Ends of many, as offsets into the batch the piece was cut from; the piece begins at `base`.
    Many { ends: Arc<[u32]>, base: u32 },
}

/// Some whole frames, of which the first `sent` bytes were taken.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    sent: usize,
    ends: Ends,
    /// The first byte is not the start of a frame (the rest of a frame whose head was taken).
    starts_inside: bool,
    /// Messages in it that count toward the bound; 0 for replies.
    messages: usize,
    /// Whether it may be dropped.
    kind: Kind,
    /// Bytes that are charged for it besides its own: what a gap's frame may still grow to.
    slack: usize,
}

impl Piece {
    /// Whole frames cut from a batch.
    pub(crate) fn frames(bytes: Bytes, ends: Arc<[u32]>, base: u32, messages: usize) -> Self {
        Self { ends: Ends::Many { ends, base }, ..Self::one(bytes, messages) }
    }

    /// One frame, or several that need not be told apart.
    pub(crate) fn one(bytes: Bytes, messages: usize) -> Self {
        Self { bytes, sent: 0, ends: Ends::One, starts_inside: false, messages, kind: Kind::Fixed, slack: 0 }
    }

    /// The rest of a message whose head was taken.
    pub(crate) fn rest_of_message(bytes: Bytes) -> Self {
        Self { starts_inside: true, ..Self::one(bytes, 1) }
    }

    /// The same piece with its first `sent` bytes taken.
    pub(crate) fn after(mut self, sent: usize) -> Self {
        self.advance(sent);
        self
    }

    /// Marks `used` more bytes as taken, and lets go of a large buffer that is mostly sent.
    fn advance(&mut self, used: usize) {
        let sent = self.sent + used;
        let boundary = self.boundary_at_or_after(sent);
        self.messages = self.messages_from(sent);
        self.sent = sent;
        if is_part_of(self.bytes.len(), self.len()) {
            self.starts_inside = boundary != sent;
            self.bytes = Bytes::copy_from_slice(&self.bytes[sent..]);
            if let Ends::Many { base, .. } = &mut self.ends {
                *base += sent as u32;
            }
            self.sent = 0;
        }
    }

    /// Bytes not yet taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// First frame end at or after `at`, as an offset into the piece.
    fn boundary_at_or_after(&self, at: usize) -> usize {
        match &self.ends {
            Ends::One => self.bytes.len(),
            Ends::Many { ends, base } => {
                let wanted = *base + at as u32;
                let index = ends.partition_point(|&end| end < wanted);
                ends.get(index).map_or(self.bytes.len(), |&end| ((end - base) as usize).min(self.bytes.len()))
            }
        }
    }

    /// Bytes until the frame that is being sent is whole; 0 at a boundary.
    fn inside(&self) -> usize {
        if self.sent == 0 && !self.starts_inside {
            return 0;
        }
        self.boundary_at_or_after(self.sent.max(1)) - self.sent
    }

    /// The rest of the frame whose head was taken, if one was begun. Thousands may be evicted at once in the middle of one large
    /// message: they share it.
    pub(crate) fn begun(&self) -> Option<Bytes> {
        let inside = self.inside();
        (inside > 0).then(|| part_of(&self.bytes, self.sent..self.sent + inside))
    }

    /// Messages not wholly taken.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Messages that are not wholly within the first `sent` bytes.
    fn messages_from(&self, sent: usize) -> usize {
        match &self.ends {
            Ends::One => self.messages,
            Ends::Many { ends, base } => {
                let from = *base + sent as u32;
                let to = *base + self.bytes.len() as u32;
                let first = ends.partition_point(|&end| end <= from);
                let last = ends.partition_point(|&end| end <= to);
                // A batch may hold entries without bytes in this variant; they end where their neighbour ends.
                self.messages.min(last - first)
            }
        }
    }
}

/// The queue of one connection. It exists only while something is queued.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    control: VecDeque<Bytes>,
    /// Bytes of the first control frame that were taken; while over 0 nothing may come between.
    control_sent: usize,
    data: VecDeque<Piece>,
    /// Bytes of everything in it, and those kept free for gaps.
    bytes: usize,
    messages: usize,
    /// Messages that may be dropped: of rooms with such a policy, not begun.
    droppable: usize,
    /// Gaps that may still grow, at most one for each room.
    gaps: usize,
    /// Bytes of replies among the data, and of control frames: the connection's own doing, bounded by not reading it.
    reply_bytes: usize,
}

/// What goes next.
enum Front {
    Control,
    /// So many bytes of the first data piece, up to a frame boundary or its end.
    Data(usize),
    Nothing,
}

impl Outbox {
    pub(crate) fn queued(&self) -> Queued {
        Queued { bytes: self.bytes, messages: self.messages }
    }

    pub(crate) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Queues what a room sent. The caller has checked the bounds and charged the budget.
    pub(crate) fn push(&mut self, piece: Piece) {
        self.bytes += piece.len() + piece.slack;
        self.messages += piece.messages;
        self.droppable += usize::from(piece.is_droppable());
        self.gaps += usize::from(piece.is_gap());
        self.data.push_back(piece);
    }

    /// Queues a reply: whole frames.
    pub(crate) fn push_reply(&mut self, lane: Lane, frames: Bytes) {
        self.bytes += frames.len();
        self.reply_bytes += frames.len();
        match lane {
            Lane::Control => self.control.push_back(frames),
            Lane::Data => self.data.push_back(Piece::one(frames, 0)),
        }
    }

    /// Queues the rest of a reply whose head is out. Only into an outbox that has nothing before it.
    pub(crate) fn push_begun(&mut self, rest: Bytes) {
        debug_assert!(self.data.is_empty() && self.control_sent == 0, "a begun frame comes first");
        self.bytes += rest.len();
        self.reply_bytes += rest.len();
        self.data.push_back(Piece { starts_inside: true, ..Piece::one(rest, 0) });
    }

    /// Forgets everything but the rest of a frame whose head was taken. Returns how many bytes less are queued.
    pub(crate) fn let_go(&mut self) -> usize {
        let before = self.bytes;
        let mut rest = None;
        if self.control_sent > 0 {
            rest = self.control.pop_front().map(|frame| frame.slice(self.control_sent..));
        } else if let Some(piece) = self.data.front() {
            rest = piece.begun();
        }
        *self = Self::default();
        if let Some(rest) = rest {
            self.push_begun(rest);
        }
        before - self.bytes
    }

    /// As [`Self::let_go`], and queues `last` after it.
    pub(crate) fn replace_by(&mut self, last: Bytes) {
        self.let_go();
        self.push_reply(Lane::Data, last);
    }

    /// Bytes until the data frame that was begun is whole: they go before everything. 0 when none was begun.
    fn begun_bytes(&self) -> usize {
        if self.control_sent > 0 { 0 } else { self.data.front().map_or(0, Piece::inside) }
    }

    fn front(&self) -> Front {
        let begun_bytes = self.begun_bytes();
        if begun_bytes > 0 {
            return Front::Data(begun_bytes);
        }
        if !self.control.is_empty() {
            return Front::Control;
        }
        self.data.front().map_or(Front::Nothing, |piece| Front::Data(piece.len()))
    }

    /// The next slices to write, in order.
    pub(crate) fn slices(&self) -> SmallVec<[IoSlice<'_>; SLICES_MAX]> {
        let mut slices = SmallVec::new();
        let head = self.begun_bytes();
        if head > 0
            && let Some(piece) = self.data.front()
        {
            slices.push(IoSlice::new(&piece.rest()[..head]));
        }
        for (index, frame) in self.control.iter().enumerate() {
            if slices.len() == SLICES_MAX {
                return slices;
            }
            let from = if index == 0 { self.control_sent } else { 0 };
            slices.push(IoSlice::new(&frame[from..]));
        }
        for (index, piece) in self.data.iter().enumerate() {
            if slices.len() == SLICES_MAX {
                return slices;
            }
            let from = if index == 0 { head } else { 0 };
            if piece.len() > from {
                slices.push(IoSlice::new(&piece.rest()[from..]));
            }
        }
        slices
    }

    /// Marks `taken` bytes, in the order of [`Self::slices`], as written. Returns how many bytes less are queued: these, and what was
    /// kept free for gaps that are told now.
    pub(crate) fn consume(&mut self, mut taken: usize) -> usize {
        debug_assert!(taken <= self.bytes, "more was taken than was queued");
        let before = self.bytes;
        self.bytes -= taken;
        while taken > 0 {
            match self.front() {
                Front::Control => taken -= self.consume_control(taken),
                Front::Data(len) => taken -= self.consume_data(taken.min(len)),
                Front::Nothing => break,
            }
        }
        before - self.bytes
    }

    fn consume_control(&mut self, taken: usize) -> usize {
        let Some(frame) = self.control.front() else { return taken };
        let used = taken.min(frame.len() - self.control_sent);
        self.control_sent += used;
        self.reply_bytes -= used;
        if self.control_sent == frame.len() {
            self.control.pop_front();
            self.control_sent = 0;
        }
        used
    }

    fn consume_data(&mut self, used: usize) -> usize {
        let Some(piece) = self.data.front_mut() else { return used };
        // What has been begun is finished, whatever its room's policy says.
        self.droppable -= usize::from(piece.is_droppable());
        self.gaps -= usize::from(piece.is_gap());
        let is_reply = piece.messages == 0 && piece.kind.is_fixed();
        self.bytes -= std::mem::take(&mut piece.slack);
        piece.kind.fix();
        let before = piece.messages;
        piece.advance(used);
        if piece.len() == 0 {
            piece.messages = 0;
        }
        self.messages -= before - piece.messages;
        if is_reply {
            self.reply_bytes = self.reply_bytes.saturating_sub(used);
        }
        if piece.len() == 0 {
            self.data.pop_front();
        }
        used
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
