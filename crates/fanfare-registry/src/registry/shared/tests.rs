use bytes::Bytes;
use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::{Payload, RoomEvent};

use super::*;
use crate::{HistoryLimits, Joined, PageQuery, Portion, RegistryLimits};

const NOW: Duration = Duration::from_secs(100);
const EPOCH: u64 = 7;

fn name(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn keeps(messages_max: u32) -> RoomOptions {
    let history =
        HistoryLimits { messages_max, bytes_max: 1_000_000, age_max: Duration::from_secs(60), cached_ms_max: 0 };
    RoomOptions { offsets: messages_max > 0, history, ..RoomOptions::default() }
}

/// A node of one shard. Orders are the rooms that were lost.
struct Node(Registry<RoomId>);

impl Node {
    fn new(items_max: usize, rooms_max: usize) -> Self {
        let intake = IntakeLimits { intake_items_max: items_max, intake_bytes_max: 1 << 20 };
        let limits = RegistryLimits { rooms_max, ..RegistryLimits::default() };
        Self(Registry::new(vec![Arc::new(Intake::new(intake, || {}))], limits, 1))
    }

    /// One that has read all of an empty log, in which rooms had counted so far.
    fn serving(offsets: &[(&str, u64)]) -> Self {
        let node = Self::new(100, 10);
        node.begin(offsets);
        node.0.caught_up(|room| room);
        node
    }

    fn begin(&self, offsets: &[(&str, u64)]) {
        let offsets = offsets.iter().map(|&(room, offset)| (name(room), offset)).collect();
        self.0.share(EPOCH, offsets, |room| room);
    }

    fn try_apply(&self, room: &str, offset: Option<u64>, options: RoomOptions, is_own: bool) -> Option<Position> {
        let payload = Payload::Binary(Bytes::from_static(b"x"));
        let draft = Draft { user: None, payload, except: None, receipt: None };
        let stamped = Stamped { offset, at: NOW, is_own };
        self.0.apply(&name(room), options, draft, &stamped, |room| room, NOW).ok().map(|receipted| receipted.position)
    }

    fn apply(&self, room: &str, offset: u64) {
        let position = self.try_apply(room, Some(offset), keeps(3), false).expect("a place in the intake");
        assert_eq!(position, Position { epoch: EPOCH, offset });
    }

    fn join(&self, room: &str, since: Option<u64>) -> Joined {
        let since = since.map(|offset| Position { epoch: EPOCH, offset });
        self.0.rejoin(&name(room), keeps(3), 0, None, since, NOW).expect("a place")
    }

    fn leave(&self, joined: &Joined) {
        self.0.leave(&joined.room, 0, None, false);
    }

    /// Comes and goes: whether nothing was missed, what is told of it, and where it stands then.
    fn visit(&self, room: &str, since: u64) -> (bool, Vec<u64>, u64) {
        let joined = self.join(room, Some(since));
        self.leave(&joined);
        let told = joined.missed.messages.iter().filter_map(|kept| kept.published.offset).collect();
        (joined.recovered, told, joined.position.offset)
    }

    /// Numbers that members are told, and rooms that were lost, since it was asked last.
    fn said(&self) -> (Vec<Option<u64>>, Vec<RoomId>) {
        let (mut told, mut lost) = (Vec::new(), Vec::new());
        while let Some(item) = self.0.shards()[0].pop() {
            match item {
                Item::Event { event, .. } => {
                    let RoomEvent::Message(_, published) = &event.event else { continue };
                    self.0.shards()[0].release(1, published.payload.len());
                    told.push(published.offset);
                }
                Item::CloseRoom(_) => {}
                Item::Order(room) => lost.push(room),
            }
        }
        (told, lost)
    }
}

#[test]
fn what_the_log_says_has_the_log_s_numbers() {
    let node = Node::serving(&[("a", 41)]);
    let member = node.join("a", None);
    assert_eq!(member.position, Position { epoch: EPOCH, offset: 41 }, "counted before this node was here");
    (42..=45).for_each(|offset| node.apply("a", offset));
    assert_eq!(node.said(), ((42..=45).map(Some).collect(), vec![]));
    assert_eq!(node.visit("a", 43), (true, vec![44, 45], 45));
    assert_eq!(node.visit("a", 41), (false, vec![], 45), "three are kept");
    let elsewhere = Node::serving(&[]);
    (42..=45).for_each(|offset| _ = elsewhere.try_apply("a", Some(offset), keeps(3), false));
    assert_eq!(elsewhere.visit("a", 43), (true, vec![44, 45], 45), "nodes agree");
}

#[test]
fn a_node_that_begins_learns_how_far_rooms_have_counted() {
    let node = Node::new(100, 10);
    node.begin(&[("read", 5), ("cut", 9), ("quiet", 70)]);
    // What is read of the past may begin anywhere, and may end before what is known.
    for (room, offset) in [("read", 4), ("cut", 6), ("read", 5), ("cut", 7)] {
        node.apply(room, offset);
    }
    node.0.caught_up(|room| room);
    assert_eq!(node.visit("read", 3), (true, vec![4, 5], 5));
    assert_eq!(node.visit("cut", 6), (false, vec![], 9), "two are counted and not there");
    assert_eq!(node.visit("quiet", 70), (true, vec![], 70));
    assert_eq!(node.visit("quiet", 69), (false, vec![], 70));
    assert_eq!(node.visit("new", 0), (true, vec![], 0));
    node.apply("cut", 10);
    node.apply("quiet", 71);
    assert_eq!((node.visit("cut", 9), node.visit("quiet", 70)), ((true, vec![10], 10), (true, vec![71], 71)));
}

#[test]
fn a_room_that_was_reaped_is_no_younger_when_it_returns() {
    let node = Node::serving(&[]);
    node.apply("a", 1);
    node.apply("a", 2);
    assert_eq!(node.0.expire(NOW + Duration::from_secs(60)), 1, "what it kept is old");
    assert_eq!(node.visit("a", 1), (false, vec![], 2));
    assert_eq!(node.visit("a", 2), (true, vec![], 2));
    assert!(node.0.close(&name("a")));
    assert_eq!(node.visit("a", 2), (true, vec![], 2), "and one that was closed");
    node.apply("a", 3);
    assert_eq!(node.visit("a", 2), (true, vec![3], 3));
}

#[test]
fn who_was_further_on_another_node_waits_and_misses_nothing() {
    let node = Node::serving(&[]);
    node.apply("a", 1);
    let member = node.join("a", Some(3));
    assert!(member.recovered);
    assert_eq!((member.position.offset, member.missed.offset, member.missed.seq), (3, 3, None));
    let look = |after| {
        let missed = node.0.missed(&member.room, after, NOW);
        let told: Vec<_> = missed.messages.iter().filter_map(|kept| kept.published.offset).collect();
        (told, missed.offset, missed.seq.is_some())
    };
    assert_eq!(look(3), (vec![], 3, false));
    node.apply("a", 2);
    assert_eq!(look(3), (vec![], 3, false));
    node.apply("a", 3);
    assert_eq!(look(3), (vec![], 3, true), "from here on it is told like the others");
    node.apply("a", 4);
    assert_eq!(look(3), (vec![4], 4, true));
    // Not so far, and not in another epoch, nor where this node makes the order.
    assert!(!node.join("a", Some(AHEAD_MAX + 5)).recovered);
    let alone = Node::new(100, 10);
    let first = alone.join("a", None).position;
    let ahead = Position { offset: first.offset + 1, ..first };
    let joined = alone.0.rejoin(&name("a"), keeps(3), 0, None, Some(ahead), NOW).expect("a place");
    assert!(!joined.recovered && joined.missed.seq.is_some());
}

#[test]
fn a_hole_ends_the_room_for_its_members_and_for_nobody_else() {
    let node = Node::serving(&[]);
    let member = node.join("a", None);
    let other = node.join("b", None);
    node.apply("a", 1);
    node.apply("a", 3);
    node.apply("b", 1);
    assert_eq!(node.said(), (vec![Some(1), Some(1)], vec![member.room.id()]));
    node.leave(&member);
    assert_eq!(node.visit("a", 1), (false, vec![], 3));
    assert_eq!(node.visit("a", 2), (true, vec![3], 3));
    assert_eq!(node.join("b", None).room.id(), other.room.id());
}

#[test]
fn beginning_anew_ends_all_rooms_and_none_comes_back_with_a_lie() {
    let node = Node::serving(&[]);
    let member = node.join("a", None);
    let listener = node.0.join(&name("plain"), keeps(0), 0, None, NOW).expect("a place");
    node.apply("a", 1);
    node.said();
    node.begin(&[("a", 4)]);
    let mut lost = node.said().1;
    lost.sort_by_key(|room| room.0);
    assert_eq!(lost, [member.room.id(), listener.room.id()]);
    node.0.caught_up(|room| room);
    assert_eq!(node.visit("a", 1), (false, vec![], 4));
    // Another epoch: what was counted before does not hold.
    node.0.share(EPOCH + 1, HashMap::new(), |room| room);
    node.0.caught_up(|room| room);
    let since = Some(Position { epoch: EPOCH, offset: 4 });
    let joined = node.0.rejoin(&name("a"), keeps(3), 0, None, since, NOW).expect("a place");
    assert_eq!((joined.recovered, joined.position), (false, Position { epoch: EPOCH + 1, offset: 0 }));
    assert_eq!(node.0.history_bytes().0, 0);
}

#[test]
fn who_enters_while_the_past_is_read_is_sent_back_when_it_turns_out_later() {
    let node = Node::new(100, 10);
    node.begin(&[("a", 4)]);
    let early = node.join("a", None);
    node.0.caught_up(|room| room);
    assert_eq!(node.said().1, [early.room.id()]);
    assert_eq!(node.visit("a", 4), (true, vec![], 4));
}

#[test]
fn an_entry_waits_for_a_place_in_the_intake_and_is_applied_once() {
    let node = Node::new(1, 10);
    node.begin(&[]);
    node.0.caught_up(|room| room);
    let member = node.join("a", None);
    node.apply("a", 1);
    assert_eq!(node.try_apply("a", Some(2), keeps(3), false), None);
    assert_eq!(node.said().0, [Some(1)]);
    node.apply("a", 2);
    assert_eq!(node.said(), (vec![Some(2)], vec![]));
    assert_eq!(node.0.stats().overloaded.load(Ordering::Relaxed), 0, "nobody was refused");
    node.leave(&member);
}

#[test]
fn rooms_that_keep_nothing_are_made_for_who_is_here() {
    let node = Node::serving(&[]);
    assert!(node.try_apply("plain", None, keeps(0), false).is_some());
    assert!(node.0.get(&name("plain")).is_none(), "nobody is here");
    let own = node.try_apply("plain", None, keeps(0), true).expect("a place");
    assert_eq!(own.offset, 1);
    assert_ne!(own.epoch, EPOCH, "its numbers are this node's alone");
    let before = own;
    let joined = node.0.rejoin(&name("plain"), keeps(0), 0, None, Some(before), NOW).expect("a place");
    assert!(joined.recovered);
    assert!(node.try_apply("plain", None, keeps(0), false).is_some());
    assert_eq!(node.said().0, [None]);
}

#[test]
fn what_was_posted_without_a_number_is_delivered_and_nobody_relies_on_it() {
    let node = Node::serving(&[]);
    let _member = node.join("a", None);
    node.apply("a", 1);
    assert!(node.try_apply("a", None, keeps(3), false).is_some());
    node.apply("a", 2);
    assert_eq!(node.said(), (vec![Some(1), None, Some(2)], vec![]));
    assert_eq!(node.visit("a", 0), (false, vec![], 2), "what is kept does not reach over it");
    assert_eq!(node.0.stats().unnumbered.load(Ordering::Relaxed), 1);
}

#[test]
fn a_room_for_which_there_is_no_place_is_counted_all_the_same() {
    let node = Node::new(100, 1);
    node.begin(&[]);
    node.0.caught_up(|room| room);
    let member = node.join("a", None);
    assert!(node.try_apply("b", Some(1), keeps(3), true).is_some());
    assert!(node.0.get(&name("b")).is_none());
    node.leave(&member);
    assert_eq!(node.0.reap(), 1);
    assert_eq!(node.visit("b", 0), (false, vec![], 1));
    let query = PageQuery { since: None, portion: Portion { messages_max: 10, bytes_max: 1_000 } };
    assert_eq!(node.0.history(&name("b"), keeps(3), &query, NOW).expect("a page").position.offset, 1);
}
