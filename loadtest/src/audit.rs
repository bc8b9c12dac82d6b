//! The exact audit: what one receiver got, against what was published. Pure; knows neither sockets nor clocks.
//!
//! Per publisher it keeps the next number expected and the holes below it, as ranges, so a receiver that misses nothing
//! costs a few bytes and a burst of losses costs one range.

use std::collections::BTreeMap;

use crate::stamp::Stamp;

/// What became of one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// The one expected next, or a later one: those between are missing until they arrive.
    InOrder,
    /// It arrived after a later one of the same publisher.
    OutOfOrder,
    /// It had arrived before.
    Duplicate,
}

/// The publications of one publisher as one receiver sees them.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// One above the highest number that arrived.
    next: u64,
    /// Missing numbers below `next`: start → end, end exclusive, apart from each other. Without entries it allocates nothing.
    holes: BTreeMap<u64, u64>,
    /// Numbers below `next` that came while the receiver was away.
    unowed: u64,
}

impl Stream {
    /// Accounts for the arrival of publication `seq`.
    ///
    /// # Panics
    /// On `u64::MAX`, which no publisher reaches; [`Receiver::take`] turns it away.
    pub fn take(&mut self, seq: u64) -> Arrival {
        if seq >= self.next {
            if seq > self.next {
                self.holes.insert(self.next, seq);
            }
            self.next = seq.checked_add(1).expect("numbers stay below u64::MAX");
            return Arrival::InOrder;
        }
        if self.fill(seq) { Arrival::OutOfOrder } else { Arrival::Duplicate }
    }

    /// What lies between the highest number that arrived and `seq` was not owed.
    fn begin_at(&mut self, seq: u64) {
        if seq > self.next {
            self.unowed += seq - self.next;
            self.next = seq;
        }
    }

    /// Takes `seq` out of the hole it lies in; false when it lies in none.
    fn fill(&mut self, seq: u64) -> bool {
        let holes = &mut self.holes;
        let Some((&start, &end)) = holes.range(..=seq).next_back() else { return false };
        if seq >= end {
            return false;
        }
        holes.remove(&start);
        if start < seq {
            holes.insert(start, seq);
        }
        if seq + 1 < end {
            holes.insert(seq + 1, end);
        }
        true
    }

    /// Of the numbers below `published`, how many never arrived.
    #[must_use]
    pub fn missing(&self, published: u64) -> u64 {
        self.holes_in(0, published) + published.saturating_sub(self.next)
    }

    /// How many arrived that were never published: numbers from `published` up.
    #[must_use]
    pub fn invented(&self, published: u64) -> u64 {
        self.next.saturating_sub(published) - self.holes_in(published, self.next.max(published))
    }

    /// One above the highest number that arrived.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    fn holes_in(&self, from: u64, to: u64) -> u64 {
        self.holes.iter().map(|(&start, &end)| end.min(to).saturating_sub(start.max(from))).sum()
    }
}

/// Sums over receivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Deliveries owed: each publication of a room to each member that was subscribed throughout; to a member that was
    /// closed, those up to the last one it got.
    pub expected: u64,
    /// Distinct publications that arrived.
    pub delivered: u64,
    /// Owed, not delivered and not announced by a gap.
    pub missing: u64,
    /// Owed, not delivered, and counted by a gap the gateway announced.
    pub announced: u64,
    /// Announced by a gap beyond what is missing: the gateway's count is wrong.
    pub overannounced: u64,
    /// Arrivals of something that had arrived before.
    pub duplicate: u64,
    /// Arrivals after a later one of the same publisher.
    pub out_of_order: u64,
    /// Arrivals whose checksum or form is broken.
    pub corrupt: u64,
    /// Arrivals of another room or run, or of something never published.
    pub foreign: u64,
}

impl Tally {
    /// Adds the sums of another receiver.
    pub fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.missing += other.missing;
        self.announced += other.announced;
        self.overannounced += other.overannounced;
        self.duplicate += other.duplicate;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
    }

    /// True when every publication owed was delivered once, in order and whole, or announced as missing.
    #[must_use]
    pub fn is_accounted(&self) -> bool {
        let faults = [self.missing, self.overannounced, self.duplicate, self.out_of_order, self.corrupt, self.foreign];
        faults == [0; 6]
    }
}

/// The audit of one receiver.
#[derive(Debug, Clone)]
pub struct Receiver {
    run: u32,
    room: u32,
    /// By publisher of the room.
    streams: Box<[Stream]>,
    order: u64,
    announced: u64,
    duplicate: u64,
    out_of_order: u64,
    corrupt: u64,
    foreign: u64,
    /// The next arrival is the first of a stay.
    begin_anywhere: bool,
}

impl Receiver {
    /// A receiver in room `room`, which has `publishers` publishers.
    #[must_use]
    pub fn new(run: u32, room: u32, publishers: usize) -> Self {
        let streams = vec![Stream::default(); publishers].into_boxed_slice();
        Self {
            run,
            room,
            streams,
            order: 0,
            announced: 0,
            duplicate: 0,
            out_of_order: 0,
            corrupt: 0,
            foreign: 0,
            begin_anywhere: false,
        }
    }

    /// Accounts for one arrival. Its stamp comes back when it is a delivery: whole, from this room, the first of its number.
    pub fn take(&mut self, payload: &[u8]) -> Option<Stamp> {
        match Stamp::decode(payload) {
            Some(stamp) => self.accept(stamp).then_some(stamp),
            None => {
                self.corrupt += 1;
                None
            }
        }
    }

    /// Accounts for the arrival of a whole payload with this stamp; true when it is a delivery.
    pub fn accept(&mut self, stamp: Stamp) -> bool {
        let known = stamp.run == self.run && stamp.room == self.room && stamp.seq < u64::MAX;
        let stream = self.streams.get_mut(stamp.publisher as usize).filter(|_| known);
        let Some(stream) = stream else {
            self.foreign += 1;
            return false;
        };
        if self.begin_anywhere {
            self.begin_anywhere = false;
            stream.begin_at(stamp.seq);
        }
        match stream.take(stamp.seq) {
            Arrival::InOrder => {}
            Arrival::OutOfOrder => self.out_of_order += 1,
            Arrival::Duplicate => {
                self.duplicate += 1;
                return false;
            }
        }
        self.order = mix(mix(self.order, u64::from(stamp.publisher)), stamp.seq);
        true
    }

    /// The receiver (of a room with one publisher) has just joined, or is about to: what comes first is where its stay
    /// begins, and from there on it is owed everything.
    pub fn begin_stay(&mut self) {
        self.begin_anywhere = true;
    }

    /// Accounts for an arrival that cannot be a publication of this test at all.
    pub fn take_corrupt(&mut self) {
        self.corrupt += 1;
    }

    /// The gateway announced that `count` publications are not delivered to this receiver.
    pub fn announce(&mut self, count: u64) {
        self.announced += count;
    }

    /// The sums, against what each publisher of the room has published. A receiver that was closed early is owed nothing
    /// after the last publication it got.
    #[must_use]
    pub fn tally(&self, published: &[u64], throughout: bool) -> Tally {
        let mut tally = Tally {
            duplicate: self.duplicate,
            out_of_order: self.out_of_order,
            corrupt: self.corrupt,
            foreign: self.foreign,
            ..Tally::default()
        };
        let mut absent = 0;
        for (stream, &published) in self.streams.iter().zip(published) {
            let owed = if throughout { published } else { published.min(stream.next()) };
            let missing = stream.missing(owed);
            let owed = owed - stream.unowed.min(owed);
            absent += missing;
            tally.expected += owed;
            tally.delivered += owed - missing;
            tally.foreign += stream.invented(published);
        }
        tally.announced = self.announced.min(absent);
        tally.missing = absent - tally.announced;
        // A closed receiver may have been told of what would have come after its last message.
        tally.overannounced = if throughout { self.announced - tally.announced } else { 0 };
        tally
    }

    /// One above the highest number that arrived from a publisher of the room.
    #[must_use]
    pub fn next(&self, publisher: usize) -> u64 {
        self.streams[publisher].next()
    }

    /// Publications that came while the receiver was away, by its own word.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.streams.iter().map(|stream| stream.unowed).sum()
    }

    /// A digest of the order in which the deliveries came. Within one room it must be equal for all receivers that got
    /// everything.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.order
    }
}

fn mix(state: u64, value: u64) -> u64 {
    let x = (state ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same bookkeeping in the most obvious way.
    #[derive(Default)]
    struct Model {
        arrived: BTreeSet<u64>,
        duplicate: u64,
        out_of_order: u64,
    }

    impl Model {
        fn take(&mut self, seq: u64) -> Arrival {
            let late = self.arrived.last().is_some_and(|&highest| seq < highest);
            if !self.arrived.insert(seq) {
                self.duplicate += 1;
                return Arrival::Duplicate;
            }
            self.out_of_order += u64::from(late);
            if late { Arrival::OutOfOrder } else { Arrival::InOrder }
        }

        fn missing(&self, published: u64) -> u64 {
            (0..published).filter(|seq| !self.arrived.contains(seq)).count() as u64
        }

        fn invented(&self, published: u64) -> u64 {
            self.arrived.range(published..).count() as u64
        }
    }

    /// What a faulty gateway makes of `0..published`: some dropped, some doubled, some displaced.
    fn faulty() -> impl Strategy<Value = (u64, Vec<u64>)> {
        (1..200_u64).prop_flat_map(|published| {
            let fate = prop::collection::vec((0..20_u8, 0..200_usize), published as usize);
            (Just(published), fate).prop_map(|(published, fates)| {
                let mut arrivals = Vec::new();
                for (seq, (fate, at)) in (0..published).zip(fates) {
                    match fate {
                        0 => {}
                        1 => arrivals.extend([seq, seq]),
                        2 => arrivals.insert(at % (arrivals.len() + 1), seq),
                        3 => arrivals.insert(0, seq + published / 2),
                        _ => arrivals.push(seq),
                    }
                }
                (published, arrivals)
            })
        })
    }

    proptest! {
        #[test]
        fn a_stream_agrees_with_the_model((published, arrivals) in faulty()) {
            let (mut stream, mut model) = (Stream::default(), Model::default());
            for seq in arrivals {
                prop_assert_eq!(stream.take(seq), model.take(seq));
                prop_assert_eq!(stream.missing(published), model.missing(published));
                prop_assert_eq!(stream.invented(published), model.invented(published));
            }
        }

        #[test]
        fn a_receiver_adds_up((published, arrivals) in faulty(), throughout: bool) {
            let (mut receiver, mut model) = (Receiver::new(7, 3, 2), Model::default());
            for seq in arrivals {
                let first = model.take(seq) != Arrival::Duplicate;
                prop_assert_eq!(receiver.take(payload(7, 3, 1, seq).as_bytes()).is_some(), first);
            }
            let tally = receiver.tally(&[0, published], throughout);
            let owed = if throughout { published } else { model.arrived.last().map_or(0, |last| (last + 1).min(published)) };
            prop_assert_eq!(tally.expected, owed);
            prop_assert_eq!(tally.missing, model.missing(owed));
            prop_assert_eq!(tally.expected, tally.delivered + tally.missing);
            prop_assert_eq!((tally.duplicate, tally.out_of_order), (model.duplicate, model.out_of_order));
            prop_assert_eq!(tally.foreign, model.invented(published));
        }
    }

    fn payload(run: u32, room: u32, publisher: u32, seq: u64) -> String {
        let mut text = String::new();
        Stamp { run, room, publisher, seq, due_ns: 0 }.encode(100, &mut text);
        text
    }

    fn check(arrivals: &[u64], published: u64) -> Tally {
        let mut receiver = Receiver::new(1, 2, 1);
        for &seq in arrivals {
            receiver.take(payload(1, 2, 0, seq).as_bytes());
        }
        receiver.tally(&[published], true)
    }

    #[test]
    fn each_fault_has_its_own_name() {
        let honest = Tally { expected: 4, delivered: 4, ..Tally::default() };
        assert_eq!(check(&[0, 1, 2, 3], 4), honest);
        assert!(honest.is_accounted());
        for (arrivals, expected) in [
            (&[0, 1, 3][..], Tally { delivered: 3, missing: 1, ..honest }),
            (&[0, 1, 2], Tally { delivered: 3, missing: 1, ..honest }),
            (&[0, 1, 1, 2, 3], Tally { duplicate: 1, ..honest }),
            (&[0, 2, 1, 3], Tally { out_of_order: 1, ..honest }),
            (&[0, 1, 2, 3, 4], Tally { foreign: 1, ..honest }),
        ] {
            assert_eq!(check(arrivals, 4), expected, "{arrivals:?}");
            assert!(!expected.is_accounted());
        }
    }

    #[test]
    fn strangers_and_broken_payloads_are_told_apart() {
        let mut receiver = Receiver::new(1, 2, 1);
        for foreign in [payload(9, 2, 0, 0), payload(1, 9, 0, 0), payload(1, 2, 1, 0), payload(1, 2, 0, u64::MAX)] {
            assert_eq!(receiver.take(foreign.as_bytes()), None);
        }
        let broken = payload(1, 2, 0, 0).replace("abc", "abd");
        assert_eq!(receiver.take(broken.as_bytes()), None);
        assert_eq!(receiver.take(b""), None);
        receiver.take_corrupt();
        let tally = receiver.tally(&[0], true);
        assert_eq!((tally.foreign, tally.corrupt, tally.expected), (4, 3, 0));
    }

    #[test]
    fn an_announced_gap_accounts_for_what_is_missing_and_for_no_more() {
        let mut receiver = Receiver::new(1, 2, 1);
        for seq in [0, 4] {
            receiver.take(payload(1, 2, 0, seq).as_bytes());
        }
        receiver.announce(2);
        let tally = receiver.tally(&[5], true);
        assert_eq!((tally.missing, tally.announced, tally.overannounced), (1, 2, 0));
        receiver.announce(1);
        assert!(receiver.tally(&[5], true).is_accounted());
        receiver.announce(1);
        let tally = receiver.tally(&[5], true);
        assert_eq!((tally.missing, tally.announced, tally.overannounced), (0, 3, 1));
        assert!(!tally.is_accounted());
    }

    #[test]
    fn the_order_shows_when_two_publishers_are_seen_differently() {
        let order = |arrivals: &[(u32, u64)]| {
            let mut receiver = Receiver::new(1, 2, 2);
            for &(publisher, seq) in arrivals {
                receiver.take(payload(1, 2, publisher, seq).as_bytes());
            }
            assert!(receiver.tally(&[1, 1], true).is_accounted());
            receiver.order()
        };
        assert_eq!(order(&[(0, 0), (1, 0)]), order(&[(0, 0), (1, 0)]));
        assert_ne!(order(&[(0, 0), (1, 0)]), order(&[(1, 0), (0, 0)]));
    }

    #[test]
    fn who_comes_and_goes_is_owed_what_came_between() {
        let mut receiver = Receiver::new(1, 2, 1);
        for (joins, seq) in [(true, 5), (false, 6), (false, 8), (true, 20), (false, 21)] {
            if joins {
                receiver.begin_stay();
            }
            receiver.take(payload(1, 2, 0, seq).as_bytes());
        }
        let tally = receiver.tally(&[100], false);
        assert_eq!((tally.expected, tally.delivered, tally.missing, tally.foreign), (6, 5, 1, 0));
    }

    #[test]
    fn a_burst_of_losses_costs_one_range() {
        let mut stream = Stream::default();
        assert_eq!(stream.take(u64::MAX - 1), Arrival::InOrder);
        assert_eq!(stream.missing(u64::MAX), u64::MAX - 1);
        assert_eq!(stream.holes.len(), 1);
    }
}
