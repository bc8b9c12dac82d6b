//! What is known at one place of the log, and decides what the next message there means. JetStream orders messages and does nothing else, so every
//! node counts for itself: what is here depends on the log's messages alone, and is the same on all nodes that have read as far.

use std::collections::HashMap;

use super::frame::{Frame, What};

/// A node that has posted nothing for so long posts no more under that number.
const NODE_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// Rooms' counters and nodes' last posts, up to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) epoch: u64,
    /// The last entry that was counted.
    pub(super) number: u64,
    /// When the log took that one, nanoseconds since 1970: so it is known again, after the log has lost its end and has grown another.
    pub(super) mark_ns: u64,
    /// Somebody who starts can begin with what is known up to this entry: a tally up to there is written down, or nothing before counts.
    pub(super) written: u64,
    /// How far each room has counted.
    pub(super) rooms: HashMap<Box<str>, u64>,
    /// The last post that was taken of each node.
    pub(super) nodes: HashMap<u64, Last>,
}

/// A node's last post that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) number: u64,
    pub(super) at_ms: u64,
}

impl Last {
    fn is_kept(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) <= NODE_KEPT_MS
    }
}

/// What a message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// A post is taken, with this number in its room where that counts.
    Taken { offset: Option<u64> },
    /// A post was taken before, or one that was sent before it was not: it has no place.
    LeftOut,
    /// Another epoch has begun.
    Epoch,
    /// It says nothing of rooms.
    Nothing,
    /// It is not of Fanfare.
    Unknown,
}

/// A tally's place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) mark_ns: u64,
}

impl Tally {
    /// Nothing was counted up to this entry.
    pub(super) fn begun(epoch: u64, number: u64, mark_ns: u64) -> Self {
        Self { epoch, number, mark_ns, written: number, rooms: HashMap::new(), nodes: HashMap::new() }
    }

    pub(super) fn head(&self) -> Head {
        Head { epoch: self.epoch, number: self.number, mark_ns: self.mark_ns }
    }

    /// What the next message means; it is not counted yet.
    pub(super) fn rule(&self, at_ns: u64, frame: Option<&Frame<'_>>) -> Ruling {
        let Some(frame) = frame else { return Ruling::Unknown };
        match frame.what {
            What::Post => {}
            What::Epoch => return Ruling::Epoch,
            What::Written => return Ruling::Nothing,
        }
        let at_ms = at_ns / 1_000_000;
        // Whoever has not kept a node of yesterday knows nothing of it.
        let last = self.nodes.get(&frame.node).filter(|last| last.is_kept(at_ms)).map_or(0, |last| last.number);
        if frame.number <= last || frame.after > last {
            return Ruling::LeftOut;
        }
        let offset = (!frame.room.is_empty()).then(|| self.rooms.get(frame.room).map_or(1, |count| count + 1));
        Ruling::Taken { offset }
    }

    /// Counts the next message.
    pub(super) fn count(&mut self, at_ns: u64, frame: Option<&Frame<'_>>) -> Ruling {
        let ruling = self.rule(at_ns, frame);
        self.number += 1;
        self.mark_ns = at_ns;
        let Some(frame) = frame else { return ruling };
        match ruling {
            Ruling::Taken { offset } => {
                self.nodes.insert(frame.node, Last { number: frame.number, at_ms: at_ns / 1_000_000 });
                if let Some(offset) = offset {
                    match self.rooms.get_mut(frame.room) {
                        Some(count) => *count = offset,
                        None => _ = self.rooms.insert(frame.room.into(), offset),
                    }
                }
            }
            Ruling::Epoch => *self = Self::begun(frame.number, self.number, at_ns),
            Ruling::Nothing => self.written = self.written.max(frame.number.min(self.number)),
            Ruling::LeftOut | Ruling::Unknown => {}
        }
        ruling
    }

    /// Forgets nodes that have posted nothing for a day.
    pub(super) fn forget_nodes(&mut self) {
        let now_ms = self.mark_ns / 1_000_000;
        self.nodes.retain(|_, last| last.is_kept(now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn post(node: u64, number: u64, after: u64, room: &str) -> Frame<'_> {
        Frame { what: What::Post, node, number, after, room, body: b"" }
    }

    fn offset(offset: u64) -> Ruling {
        Ruling::Taken { offset: Some(offset) }
    }

    #[test]
    fn each_post_is_counted_once_however_often_it_was_sent() {
        let mut tally = Tally::begun(5, 0, 0);
        let mut count = |frame: &Frame<'_>| tally.count(SECOND, Some(frame));
        assert_eq!(count(&post(1, 1, 0, "a")), offset(1));
        assert_eq!(count(&post(1, 2, 1, "b")), offset(1));
        assert_eq!(count(&post(2, 1, 0, "a")), offset(2), "another node's numbers are its own");
        assert_eq!(count(&post(1, 1, 0, "a")), Ruling::LeftOut);
        assert_eq!(count(&post(1, 2, 1, "b")), Ruling::LeftOut);
        assert_eq!(count(&post(1, 3, 2, "")), Ruling::Taken { offset: None });
        assert_eq!(count(&post(1, 7, 0, "a")), offset(3), "some were given up before they were sent");
        assert_eq!((tally.number, tally.rooms["a"], tally.rooms["b"]), (7, 3, 1));
    }

    #[test]
    fn nothing_overtakes_a_post_that_was_lost_on_its_way() {
        let mut tally = Tally::begun(5, 0, 0);
        let mut count = |frame: &Frame<'_>| tally.count(SECOND, Some(frame));
        assert_eq!(count(&post(1, 1, 0, "a")), offset(1));
        assert_eq!(count(&post(1, 3, 2, "a")), Ruling::LeftOut, "2 was sent and is not here");
        assert_eq!(count(&post(1, 4, 3, "a")), Ruling::LeftOut);
        assert_eq!(count(&post(1, 2, 0, "a")), offset(2), "all are sent again");
        assert_eq!(count(&post(1, 3, 2, "a")), offset(3));
        assert_eq!(count(&post(1, 4, 3, "a")), offset(4));
    }

    #[test]
    fn another_epoch_counts_from_one() {
        let mut tally = Tally::begun(5, 0, 0);
        assert_eq!(tally.count(SECOND, Some(&post(1, 1, 0, "a"))), offset(1));
        let epoch = Frame { what: What::Epoch, number: 9, ..post(2, 0, 0, "") };
        assert_eq!(tally.count(SECOND, Some(&epoch)), Ruling::Epoch);
        assert_eq!(tally, Tally::begun(9, 2, SECOND));
        assert_eq!(tally.count(SECOND, Some(&post(1, 2, 0, "a"))), offset(1));
        assert_eq!(tally.count(SECOND, None), Ruling::Unknown);
        let written = Frame { what: What::Written, number: 3, ..post(2, 0, 0, "") };
        assert_eq!((tally.count(SECOND, Some(&written)), tally.written), (Ruling::Nothing, 3));
    }

    #[test]
    fn who_has_forgotten_a_node_rules_like_who_has_not() {
        let mut kept = Tally::begun(5, 0, 0);
        let _ = kept.count(SECOND, Some(&post(1, 4, 0, "a")));
        let late = SECOND * 100_000;
        let _ = kept.count(late, Some(&post(2, 1, 0, "a")));
        let mut forgot = kept.clone();
        forgot.forget_nodes();
        assert_eq!((kept.nodes.len(), forgot.nodes.len()), (2, 1));
        for tally in [&mut kept, &mut forgot] {
            assert_eq!(tally.count(late, Some(&post(1, 3, 0, "a"))), offset(3));
            assert_eq!(tally.count(late, Some(&post(1, 4, 3, "a"))), offset(4));
        }
        assert_eq!(kept, forgot);
    }
}
