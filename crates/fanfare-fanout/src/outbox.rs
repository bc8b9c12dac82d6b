//! What is queued for one connection that did not take everything at once.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

/// What one connection may have queued of what rooms send it. At either bound the slow policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes.
    pub outbox_bytes_max: usize,
    /// Messages.
    pub outbox_messages_max: usize,
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

/// A tail smaller than half of a shared buffer of at least this size is copied out, so that a slow reader of a few bytes
/// does not keep the whole buffer alive.
pub(crate) const COPY_OUT_BYTES: usize = 4_096;

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
}

impl Piece {
    /// Whole frames cut from a batch.
    pub(crate) fn frames(bytes: Bytes, ends: Arc<[u32]>, base: u32, messages: usize) -> Self {
        Self { bytes, sent: 0, ends: Ends::Many { ends, base }, starts_inside: false, messages }
    }

    /// One frame, or several that need not be told apart.
    pub(crate) fn one(bytes: Bytes, messages: usize) -> Self {
        Self { bytes, sent: 0, ends: Ends::One, starts_inside: false, messages }
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
        if self.bytes.len() >= COPY_OUT_BYTES && self.len() * 2 < self.bytes.len() {
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

    /// The rest of the frame whose head was taken, if one was begun.
    pub(crate) fn begun(&self) -> Option<Bytes> {
        let inside = self.inside();
        (inside > 0).then(|| Bytes::copy_from_slice(&self.rest()[..inside]))
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
    bytes: usize,
    messages: usize,
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

    /// True when `piece` stays within the bounds.
    pub(crate) fn fits(&self, piece: &Piece, limits: &OutboxLimits) -> bool {
        self.bytes + piece.len() <= limits.outbox_bytes_max
            && self.messages + piece.messages <= limits.outbox_messages_max
    }

    /// Queues what a room sent. The caller has checked [`Self::fits`] and charged the budget.
    pub(crate) fn push(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.messages += piece.messages;
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

    /// Forgets everything but the rest of a frame whose head was taken, and queues `last` after it.
    pub(crate) fn replace_by(&mut self, last: Bytes) {
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

    /// Marks `taken` bytes, in the order of [`Self::slices`], as written.
    pub(crate) fn consume(&mut self, mut taken: usize) {
        debug_assert!(taken <= self.bytes, "more was taken than was queued");
        self.bytes -= taken;
        while taken > 0 {
            match self.front() {
                Front::Control => taken -= self.consume_control(taken),
                Front::Data(len) => taken -= self.consume_data(taken.min(len)),
                Front::Nothing => return,
            }
        }
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
        let before = piece.messages;
        piece.advance(used);
        if piece.len() == 0 {
            piece.messages = 0;
        }
        self.messages -= before - piece.messages;
        if before == 0 {
            self.reply_bytes = self.reply_bytes.saturating_sub(used);
        }
        if piece.len() == 0 {
            self.data.pop_front();
        }
        used
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn piece(frames: &[&str]) -> Piece {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(frame.as_bytes());
            ends.push(bytes.len() as u32);
        }
        Piece::frames(bytes.into(), ends.into(), 0, frames.len())
    }

    /// Writes the outbox out, at most `step` bytes at a time.
    fn drain(outbox: &mut Outbox, step: usize) -> String {
        let mut out = Vec::new();
        while !outbox.is_empty() {
            let all: Vec<u8> = outbox.slices().iter().flat_map(|s| s.to_vec()).collect();
            let n = all.len().min(step);
            out.extend_from_slice(&all[..n]);
            outbox.consume(n);
        }
        assert_eq!(outbox.queued(), Queued::default());
        assert_eq!(outbox.reply_bytes(), 0);
        String::from_utf8(out).expect("test frames are text")
    }

    #[test]
    fn data_keeps_its_order_for_any_write_size() {
        for step in 1..12 {
            let mut outbox = Outbox::default();
            outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
            outbox.push(piece(&["[dd]"]));
            outbox.push_reply(Lane::Data, Bytes::from_static(b"[reply]"));
            assert_eq!(outbox.queued(), Queued { bytes: 23, messages: 4 });
            assert_eq!(drain(&mut outbox, step), "[aa][bbb][c][dd][reply]");
        }
    }

    #[test]
    fn control_goes_first_but_only_at_a_frame_boundary() {
        for taken in 0..=12 {
            for step in 1..10 {
                let mut outbox = Outbox::default();
                outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
                let all = "[aa][bbb][c]";
                outbox.consume(taken);
                outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
                outbox.push_reply(Lane::Control, Bytes::from_static(b"<y>"));
                let boundary = [0, 4, 9, 12].into_iter().find(|&b| b >= taken).expect("within");
                let expected = format!("{}<x><y>{}", &all[taken..boundary], &all[boundary..]);
                assert_eq!(drain(&mut outbox, step), expected, "taken {taken} step {step}");
            }
        }
    }

    #[test]
    fn nothing_comes_between_the_parts_of_a_control_frame() {
        let mut outbox = Outbox::default();
        outbox.push_reply(Lane::Control, Bytes::from_static(b"<xyz>"));
        outbox.consume(2);
        outbox.push(piece(&["[a]"]));
        outbox.push_reply(Lane::Control, Bytes::from_static(b"<w>"));
        assert_eq!(drain(&mut outbox, 1), "yz><w>[a]");
    }

    #[test]
    fn a_reply_whose_head_is_out_is_finished_first() {
        let mut outbox = Outbox::default();
        outbox.push_begun(Bytes::from_static(b"bc>"));
        outbox.push_reply(Lane::Control, Bytes::from_static(b"<d>"));
        assert_eq!(drain(&mut outbox, 2), "bc><d>");
    }

    #[test]
    fn the_bounds_are_exact() {
        let limits = OutboxLimits { outbox_bytes_max: 10, outbox_messages_max: 2 };
        let mut outbox = Outbox::default();
        assert!(!outbox.fits(&piece(&["01234567890"]), &limits));
        assert!(!outbox.fits(&piece(&["0", "1", "2"]), &limits));
        outbox.push(piece(&["0123456789"]));
        assert!(!outbox.fits(&piece(&["0"]), &limits));
        outbox.consume(1);
        assert!(outbox.fits(&piece(&["0"]), &limits));
        assert_eq!(outbox.queued().messages, 1, "a message counts until its last byte is taken");
        outbox.consume(9);
        assert_eq!(outbox.queued(), Queued::default());
    }

    #[test]
    fn replacing_keeps_only_the_rest_of_a_frame_that_was_begun() {
        for (taken, expected) in [(0, "!"), (2, "a]!"), (4, "!"), (6, "bb]!")] {
            let mut outbox = Outbox::default();
            outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
            outbox.consume(taken);
            outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
            outbox.replace_by(Bytes::from_static(b"!"));
            assert_eq!(outbox.queued().bytes, expected.len());
            assert_eq!(drain(&mut outbox, 1), expected, "taken {taken}");
        }
    }

    #[test]
    fn a_buffer_that_is_mostly_sent_is_let_go_however_it_was_sent() {
        let frames: Vec<String> = (0..5_000).map(|n| format!("[{n:04}]")).collect();
        let refs: Vec<&str> = frames.iter().map(String::as_str).collect();
        for step in [1, 7, 1_000, 29_999] {
            let mut outbox = Outbox::default();
            outbox.push(piece(&refs));
            while outbox.queued().bytes > step {
                outbox.consume(step);
                let left = &outbox.data[0];
                assert!(left.bytes.len() < COPY_OUT_BYTES || left.bytes.len() <= 2 * left.len(), "step {step}");
                assert_eq!(outbox.queued().messages, outbox.queued().bytes.div_ceil(6));
            }
        }
    }

    #[test]
    fn a_small_tail_does_not_keep_a_large_buffer_and_still_knows_its_boundaries() {
        let frames: Vec<String> = (0..1000).map(|n| format!("[{n:04}]")).collect();
        let refs: Vec<&str> = frames.iter().map(String::as_str).collect();
        for sent in [5_990, 5_988, 5_994] {
            let tail = piece(&refs).after(sent);
            assert!(tail.bytes.len() <= 12);
            let mut outbox = Outbox::default();
            assert_eq!(tail.messages, (6_000 - sent).div_ceil(6));
            outbox.push(tail);
            outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
            let whole = "[0998][0999]";
            let from = whole.len() - (6_000 - sent);
            let boundary = from.div_ceil(6) * 6;
            let expected = format!("{}<x>{}", &whole[from..boundary], &whole[boundary..]);
            assert_eq!(drain(&mut outbox, 1), expected, "sent {sent}");
        }
    }
}
