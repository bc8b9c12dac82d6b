use super::*;
use crate::{Lane, OutboxLimits, Queued};

const GAP_BYTES: u16 = 80;

fn message(room: u32, number: u64, is_latest: bool) -> Droppable {
    Droppable { room, number, gap_bytes: GAP_BYTES, is_latest }
}

fn encode(room: u32, gap: Gap, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<{room}:{}-{}:{}>", gap.from, gap.to, gap.count).as_bytes());
}

/// An outbox, and the budget it is charged to.
struct Stage {
    outbox: Outbox,
    budget: Budget,
}

impl Stage {
    /// With these messages of 100 bytes each queued.
    fn with(messages: &[Droppable]) -> Self {
        let mut stage = Self { outbox: Outbox::default(), budget: Budget::new(1 << 20) };
        messages.iter().for_each(|&message| stage.push(message));
        stage
    }

    fn push(&mut self, message: Droppable) {
        let frame = format!("[{}:{:_>96}]", message.room, message.number);
        assert!(self.budget.charge(frame.len()));
        self.outbox.push(Piece::droppable(frame.into(), message));
    }

    fn take(&mut self, bytes: usize) -> String {
        self.outbox.tell_gaps(encode);
        let all: Vec<u8> = self.outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = all.len().min(bytes);
        self.budget.release(self.outbox.consume(taken));
        assert_eq!(self.budget.used(), self.outbox.queued().bytes);
        String::from_utf8_lossy(&all[..taken]).replace('_', "")
    }

    fn drain(&mut self) -> String {
        let mut out = String::new();
        while !self.outbox.is_empty() {
            out.push_str(&self.take(33));
        }
        assert_eq!((self.outbox.queued(), self.outbox.reply_bytes()), (Queued::default(), 0));
        assert_eq!((self.outbox.droppable, self.outbox.gaps), (0, 0));
        out
    }

    fn drop_oldest(&mut self) -> Option<u64> {
        let number = self.outbox.drop_oldest(&self.budget).map(|message| message.number);
        assert_eq!(self.budget.used(), self.outbox.queued().bytes);
        number
    }
}

#[test]
fn the_oldest_go_and_one_gap_stands_for_them() {
    let mut stage = Stage::with(&[1, 2, 3, 4].map(|number| message(7, number, false)));
    assert_eq!((stage.drop_oldest(), stage.drop_oldest()), (Some(1), Some(2)));
    assert_eq!(stage.outbox.queued(), Queued { bytes: 200 + 80, messages: 2 });
    assert_eq!(stage.drain(), "<7:1-2:2>[7:3][7:4]");
}

#[test]
fn what_has_been_begun_is_finished_and_what_follows_may_go() {
    let mut stage = Stage::with(&[1, 2, 4].map(|number| message(7, number, false)));
    assert_eq!(stage.take(2), "[7");
    assert_eq!((stage.drop_oldest(), stage.drop_oldest(), stage.drop_oldest()), (Some(2), Some(4), None));
    // A gap that has been begun grows no more; the next one begins anew.
    assert_eq!(stage.take(100), ":1]<7");
    stage.push(message(7, 5, false));
    assert_eq!(stage.drop_oldest(), Some(5));
    assert_eq!(stage.drain(), ":2-4:2><7:5-5:1>");
}

#[test]
fn a_gap_whose_frame_was_made_and_not_sent_still_grows() {
    let mut stage = Stage::with(&[1, 2, 3].map(|number| message(7, number, false)));
    assert_eq!(stage.drop_oldest(), Some(1));
    assert_eq!(stage.take(0), "");
    assert_eq!(stage.drop_oldest(), Some(2));
    assert_eq!(stage.drain(), "<7:1-2:2>[7:3]");
}

#[test]
fn rooms_have_gaps_of_their_own_and_others_messages_and_replies_stay() {
    let mut stage = Stage::with(&[message(7, 1, false), message(8, 1, false), message(7, 2, false)]);
    assert!(stage.budget.charge(8));
    stage.outbox.push(Piece::one("[fixed]".into(), 1));
    stage.outbox.push_reply(Lane::Control, ";".into());
    stage.push(message(8, 2, false));
    stage.push(message(7, 3, false));
    for number in [1, 1, 2, 2] {
        assert_eq!(stage.drop_oldest(), Some(number));
    }
    assert_eq!(stage.drain(), ";<7:1-2:2><8:1-2:2>[fixed][7:3]");
}

#[test]
fn the_newest_of_a_room_that_keeps_only_that_goes_last() {
    let mut stage = Stage::with(&[message(1, 5, true), message(2, 1, false), message(2, 2, false)]);
    for number in [1, 2, 5] {
        assert_eq!(stage.drop_oldest(), Some(number));
    }
    assert_eq!(stage.drop_oldest(), None);
    assert_eq!(stage.drain(), "<1:5-5:1><2:1-2:2>");
}

#[test]
fn a_message_that_is_not_even_queued_is_told_in_the_same_gap() {
    let mut stage = Stage::with(&[message(1, 1, false)]);
    assert_eq!(stage.drop_oldest(), Some(1));
    assert!(stage.outbox.skip(&message(1, 2, false), 1_000, &stage.budget));
    assert!(stage.outbox.skip(&message(2, 9, false), 1_000, &stage.budget));
    assert!(!stage.outbox.skip(&message(3, 9, false), 200, &stage.budget), "no place for its gap");
    assert_eq!((stage.outbox.gap_end(1), stage.outbox.gap_end(2), stage.outbox.gap_end(3)), (Some(2), Some(9), None));
    assert_eq!(stage.drain(), "<1:1-2:2><2:9-9:1>");
}

#[test]
fn who_leaves_keeps_what_is_queued_and_is_told_at_once_what_is_missing() {
    let mut stage = Stage::with(&[1, 2, 3].map(|number| message(7, number, false)));
    assert_eq!(stage.drop_oldest(), Some(1));
    let freed = stage.outbox.settle(7, encode);
    stage.budget.release(freed);
    assert_eq!(freed, usize::from(GAP_BYTES) - "<7:1-1:1>".len());
    assert_eq!(stage.drop_oldest(), None, "the room's policy ends with the membership");
    assert_eq!(stage.outbox.settle(7, encode), 0);
    assert_eq!(stage.drain(), "<7:1-1:1>[7:2][7:3]");
}

#[test]
fn a_gap_that_is_longer_than_its_message_is_charged_or_nothing_is_dropped() {
    let limits = OutboxLimits { outbox_bytes_max: 100, outbox_messages_max: 10 };
    let mut stage = Stage { outbox: Outbox::default(), budget: Budget::new(100) };
    for number in 1..=3 {
        assert!(stage.budget.charge(10));
        stage.outbox.push(Piece::droppable("[........]".into(), message(1, number, false)));
    }
    assert_eq!(stage.drop_oldest(), Some(1));
    assert_eq!(stage.outbox.queued(), Queued { bytes: 100, messages: 2 });
    assert!(!limits.allow(stage.outbox.queued(), Queued { bytes: 1, messages: 1 }));
    assert_eq!(stage.drop_oldest(), Some(2));
    assert_eq!(stage.budget.used(), 90);
    let mut poor = Stage { outbox: Outbox::default(), budget: Budget::new(10) };
    assert!(poor.budget.charge(10));
    poor.outbox.push(Piece::droppable("[........]".into(), message(1, 1, false)));
    assert_eq!(poor.drop_oldest(), None);
    assert_eq!(poor.drain(), "[........]");
}
