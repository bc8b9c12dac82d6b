use bytes::Bytes;
use fanfare_protocol::{Payload, UserName};

use super::*;

const NOT_AGED: Duration = Duration::ZERO;

fn limits(messages_max: u32, bytes_max: usize, age_max: Duration) -> HistoryLimits {
    HistoryLimits { messages_max, bytes_max, age_max, cached_ms_max: 0 }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A publication of so many bytes.
fn kept(offset: u64, bytes: usize, at: Duration) -> Kept {
    let payload = Payload::Binary(vec![b'-'; bytes].into());
    let position = Position { epoch: 1, offset };
    Kept { published: Published { position, offset: Some(offset), user: None, payload }, at, except: None }
}

/// A ring after the numbers 1 to `last`, each of 100 bytes and a second after the one before.
fn ring(last: u64, limits: &HistoryLimits, budget: &Budget) -> History {
    let mut history = History::default();
    for offset in 1..=last {
        assert_eq!(history.push(kept(offset, 100, seconds(offset)), limits, budget), 0);
    }
    history
}

fn offsets(messages: &[Kept]) -> Vec<u64> {
    messages.iter().map(Kept::offset).collect()
}

fn all(history: &History) -> Vec<u64> {
    history.kept.iter().map(Kept::offset).collect()
}

const CHARGE: usize = 100 + KEPT_OVERHEAD_BYTES;

#[test]
fn a_ring_is_bounded_by_count_bytes_and_age() {
    let budget = Budget::new(1_000_000);
    for (limits, expected) in [
        (limits(4, 100_000, NOT_AGED), vec![7, 8, 9, 10]),
        (limits(1, 100_000, NOT_AGED), vec![10]),
        (limits(100, 3 * CHARGE, NOT_AGED), vec![8, 9, 10]),
        (limits(100, 4 * CHARGE - 1, NOT_AGED), vec![8, 9, 10]),
        (limits(100, CHARGE - 1, NOT_AGED), vec![]),
        // The one of second 8 has been kept for exactly two seconds in second 10.
        (limits(100, 100_000, seconds(2)), vec![9, 10]),
        (limits(2, 5 * CHARGE, seconds(5)), vec![9, 10]),
    ] {
        let mut history = ring(10, &limits, &budget);
        assert_eq!(all(&history), expected, "{limits:?}");
        assert_eq!((history.bytes, budget.used()), (expected.len() * CHARGE, expected.len() * CHARGE));
        history.clear(&budget);
        assert_eq!((history.bytes, budget.used(), history.is_empty()), (0, 0, true));
    }
}

#[test]
fn age_lets_go_of_what_is_due_and_of_nothing_else() {
    let budget = Budget::new(1_000_000);
    let limits = limits(100, 100_000, seconds(5));
    let mut history = ring(4, &limits, &budget);
    assert_eq!(history.due(&limits), Some(seconds(6)));
    history.expire(seconds(6) - Duration::from_nanos(1), &limits, &budget);
    assert_eq!(all(&history), [1, 2, 3, 4]);
    history.expire(seconds(6), &limits, &budget);
    assert_eq!((all(&history), history.due(&limits)), (vec![2, 3, 4], Some(seconds(7))));
    history.expire(seconds(100), &limits, &budget);
    assert_eq!((all(&history), history.due(&limits), budget.used()), (vec![], None, 0));
    // Without a bound on age nothing is ever due.
    let ageless = self::limits(100, 100_000, NOT_AGED);
    let mut history = ring(4, &ageless, &budget);
    history.expire(Duration::MAX, &ageless, &budget);
    assert_eq!((all(&history), history.due(&ageless)), (vec![1, 2, 3, 4], None));
}

#[test]
fn time_that_goes_back_does_not_make_a_later_message_older() {
    let budget = Budget::new(1_000_000);
    let limits = limits(100, 100_000, seconds(5));
    let mut history = History::default();
    // Shards read their clocks once a turn, so the second may be told an earlier time.
    assert_eq!(history.push(kept(1, 1, seconds(10)), &limits, &budget), 0);
    assert_eq!(history.push(kept(2, 1, seconds(9)), &limits, &budget), 0);
    assert_eq!(history.kept[1].at, seconds(10));
    history.expire(seconds(14), &limits, &budget);
    assert_eq!(all(&history), [1, 2]);
}

#[test]
fn the_nodes_bound_takes_the_rooms_own_oldest_and_never_leaves_a_hole() {
    let budget = Budget::new(5 * CHARGE);
    let limits = limits(100, 100_000, NOT_AGED);
    let mut other = ring(3, &limits, &budget);
    let mut history = ring(2, &limits, &budget);
    assert_eq!(budget.used(), 5 * CHARGE);
    assert_eq!(history.push(kept(3, 100, seconds(3)), &limits, &budget), 1);
    assert_eq!((all(&history), all(&other)), (vec![2, 3], vec![1, 2, 3]));
    // Two must go for one that is twice as long; then there is place for none.
    assert_eq!(history.push(kept(4, 2 * CHARGE - KEPT_OVERHEAD_BYTES, seconds(4)), &limits, &budget), 2);
    assert_eq!((all(&history), budget.used()), (vec![4], 5 * CHARGE));
    assert_eq!(history.push(kept(5, 3 * CHARGE, seconds(5)), &limits, &budget), 2, "itself and what was before it");
    assert_eq!((all(&history), history.bytes, budget.used()), (vec![], 0, 3 * CHARGE));
    // What comes next begins anew; nobody is told that number 5 can be had.
    assert_eq!(history.push(kept(6, 1, seconds(6)), &limits, &budget), 0);
    assert!(!history.reaches(4, 6) && history.reaches(5, 6));
    other.clear(&budget);
    history.clear(&budget);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_message_longer_than_the_rooms_bound_leaves_no_hole_either() {
    let budget = Budget::new(1_000_000);
    let limits = limits(100, 3 * CHARGE, NOT_AGED);
    let mut history = ring(3, &limits, &budget);
    assert_eq!(history.push(kept(4, 3 * CHARGE, seconds(4)), &limits, &budget), 0);
    assert_eq!((all(&history), budget.used()), (vec![], 0));
}

#[test]
fn a_ring_that_was_long_gives_its_memory_back() {
    let budget = Budget::new(usize::MAX);
    let limits = limits(100_000, usize::MAX, seconds(1));
    let mut history = History::default();
    for offset in 1..=50_000 {
        assert_eq!(history.push(kept(offset, 0, seconds(1)), &limits, &budget), 0);
    }
    assert_eq!(history.push(kept(50_001, 0, seconds(3)), &limits, &budget), 0);
    assert_eq!(history.kept.len(), 1);
    assert!(history.kept.capacity() < 100, "capacity {}", history.kept.capacity());
}

#[test]
fn the_overhead_covers_a_place_in_a_ring_that_is_half_empty() {
    assert!(2 * size_of::<Kept>() <= KEPT_OVERHEAD_BYTES, "{} bytes a place", size_of::<Kept>());
}

#[test]
fn the_users_name_is_charged_too() {
    let mut long = kept(1, 10, seconds(1));
    long.published.user = Some(UserName::guest("a user's name").expect("a valid name"));
    assert_eq!(long.charge(), 10 + 13 + KEPT_OVERHEAD_BYTES);
}

#[test]
fn a_position_is_reached_exactly_while_nothing_after_it_is_gone() {
    let budget = Budget::new(1_000_000);
    let history = ring(10, &limits(4, 100_000, NOT_AGED), &budget);
    // Kept: 7 to 10.
    for (offset, reaches) in
        [(0, false), (5, false), (6, true), (7, true), (9, true), (10, true), (11, false), (u64::MAX, false)]
    {
        assert_eq!(history.reaches(offset, 10), reaches, "{offset}");
    }
    let empty = History::default();
    for (offset, last, reaches) in [(0, 0, true), (1, 0, false), (3, 3, true), (2, 3, false), (4, 3, false)] {
        assert_eq!(empty.reaches(offset, last), reaches, "{offset} of {last}");
    }
}

#[test]
fn what_was_missed_comes_in_portions_that_join_without_a_hole() {
    let budget = Budget::new(1_000_000);
    let history = ring(10, &limits(100, 100_000, NOT_AGED), &budget);
    for portion in [
        Portion { messages_max: 3, bytes_max: 100_000 },
        Portion { messages_max: 100, bytes_max: 500 },
        Portion { messages_max: 100, bytes_max: 1 },
        Portion { messages_max: 0, bytes_max: 0 },
        Portion { messages_max: 100, bytes_max: 100_000 },
    ] {
        for since in 0..=10 {
            let (mut offset, mut got, mut parts) = (since, Vec::new(), 0);
            loop {
                let missed = history.missed(offset, 10, 77, &portion);
                assert!(missed.lost.is_none());
                assert!(missed.messages.len() <= portion.messages_max.max(1));
                got.extend(offsets(&missed.messages));
                offset = missed.offset;
                parts += 1;
                if let Some(seq) = missed.seq {
                    assert_eq!((seq, offset), (77, 10));
                    break;
                }
                assert!(!missed.messages.is_empty(), "a part goes on or is the last");
            }
            assert_eq!(got, (since + 1..=10).collect::<Vec<_>>(), "{portion:?} since {since}");
            assert!(parts <= 11);
        }
    }
}

#[test]
fn what_went_while_somebody_was_reading_is_told_with_its_numbers() {
    let budget = Budget::new(1_000_000);
    let history = ring(10, &limits(4, 100_000, NOT_AGED), &budget);
    let portion = Portion { messages_max: 2, bytes_max: 100_000 };
    let missed = history.missed(3, 10, 77, &portion);
    assert_eq!(missed.lost, Some((4, 6)));
    assert_eq!((offsets(&missed.messages), missed.offset, missed.seq), (vec![7, 8], 8, None));
    let missed = history.missed(6, 10, 77, &portion);
    assert_eq!((missed.lost, offsets(&missed.messages)), (None, vec![7, 8]));
    // Everything is gone.
    let missed = History::default().missed(3, 10, 77, &portion);
    assert_eq!(missed, Missed { lost: Some((4, 10)), messages: vec![], offset: 10, seq: Some(77) });
}

#[test]
fn pages_are_the_latest_or_what_follows_a_position() {
    let budget = Budget::new(1_000_000);
    let history = ring(10, &limits(6, 100_000, NOT_AGED), &budget);
    let position = Position { epoch: 7, offset: 10 };
    let page = |since: Option<(u64, u64)>, messages_max: usize, bytes_max: usize| {
        let since = since.map(|(epoch, offset)| Position { epoch, offset });
        let page = history.page(&PageQuery { since, portion: Portion { messages_max, bytes_max } }, position);
        assert_eq!(page.position, position);
        (offsets(&page.messages), page.recovered)
    };
    assert_eq!(page(None, 3, 100_000), (vec![8, 9, 10], true), "the latest, in order");
    assert_eq!(page(None, 100, 100_000), (vec![5, 6, 7, 8, 9, 10], true));
    assert_eq!(page(None, 100, 350), (vec![9, 10], true), "164 bytes each");
    assert_eq!(page(None, 100, 1), (vec![10], true), "at least one");
    assert_eq!(page(Some((7, 4)), 2, 100_000), (vec![5, 6], true));
    assert_eq!(page(Some((7, 6)), 2, 100_000), (vec![7, 8], true));
    assert_eq!(page(Some((7, 10)), 2, 100_000), (vec![], true));
    // Too old, of another life, from the future: the oldest there is.
    for since in [(7, 3), (7, 0), (8, 6), (7, 11), (7, u64::MAX)] {
        assert_eq!(page(Some(since), 2, 100_000), (vec![5, 6], false), "{since:?}");
    }
}

#[test]
fn payloads_are_shared_and_not_copied() {
    let budget = Budget::new(1_000_000);
    let payload = Bytes::from(vec![b'x'; 10_000]);
    let place = payload.as_ptr();
    let mut history = History::default();
    let position = Position { epoch: 1, offset: 1 };
    let published = Published { position, offset: Some(1), user: None, payload: Payload::Json(payload) };
    let kept = Kept { published, at: Duration::ZERO, except: None };
    assert_eq!(history.push(kept, &limits(1, 100_000, NOT_AGED), &budget), 0);
    let missed = history.missed(0, 1, 1, &Portion { messages_max: 1, bytes_max: 1 });
    let Payload::Json(told) = &missed.messages[0].published.payload else { panic!("the payload that was kept") };
    assert_eq!(told.as_ptr(), place);
}
