use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GRACE: Duration = Duration::from_secs(1);

fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a valid name")
}

fn place(n: u32) -> Place {
    Place { shard: n as usize % 2, lane: LaneId { index: n, generation: 0 }, hears: true }
}

const AGE: Duration = Duration::from_secs(1_000);

const INBOXES: InboxLimits = InboxLimits { is_on: true, bytes_max: 10_000, total_bytes_max: 100_000, age_max: AGE };

const NO_INBOXES: InboxLimits = InboxLimits { is_on: false, ..INBOXES };

fn users(inboxes: InboxLimits) -> Users<()> {
    Users::new(UserRules { grace: GRACE, known: Duration::ZERO, unseen: None, inboxes })
}

fn come(users: &Users<()>, name: &UserName, owner: Owner, place: Place, now: Duration) -> Result<Places, NotLetIn> {
    users.come(name, (owner, |_| ()), place, usize::MAX, now).map(|came| came.displaced)
}

fn letter(text: &str, size: u32, at: Duration) -> Letter {
    Letter { frame: text.to_owned().into(), at, ring: Ring { kind: 0, size } }
}

fn texts(inbox: &Inbox) -> Vec<String> {
    inbox.letters().map(|letter| String::from_utf8(letter.frame.to_vec()).expect("UTF-8")).collect()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn places(users: &Users<()>, name: &UserName) -> Vec<Place> {
    let mut places: Vec<_> = users.places(name).iter().collect();
    places.sort_unstable_by_key(|place| place.lane.index);
    places
}

#[test]
fn a_guests_name_is_his_while_he_is_online_and_for_the_grace() {
    let users = users(NO_INBOXES);
    let zoe = name("Zoë");
    assert_eq!(come(&users, &zoe, Owner::Guest(1), place(1), s(0)), Ok(Places::default()));
    assert_eq!(come(&users, &zoe, Owner::Guest(2), place(2), s(0)), Err(NotLetIn::NameTaken));
    // His own token lets him in from another tab.
    assert_eq!(come(&users, &zoe, Owner::Guest(1), place(3), s(0)), Ok(Places::default()));
    assert_eq!((places(&users, &zoe), users.online()), (vec![place(1), place(3)], 1));
    users.go(&zoe, place(1), s(5));
    assert_eq!(come(&users, &zoe, Owner::Guest(2), place(2), s(90)), Err(NotLetIn::NameTaken));
    users.go(&zoe, place(3), s(100));
    assert_eq!(users.online(), 0);
    let just_before = s(101) - Duration::from_nanos(1);
    assert_eq!(come(&users, &zoe, Owner::Guest(2), place(2), just_before), Err(NotLetIn::NameTaken));
    assert_eq!(come(&users, &zoe, Owner::Guest(1), place(4), just_before), Ok(Places::default()));
    users.go(&zoe, place(4), s(102));
    assert_eq!(come(&users, &zoe, Owner::Guest(2), place(2), s(103)), Ok(Places::default()));
    assert_eq!(
        come(&users, &zoe, Owner::Guest(1), place(5), s(103)),
        Err(NotLetIn::NameTaken),
        "it is the other's by now"
    );
}

#[test]
fn whoever_has_a_token_has_the_name_and_guests_must_go() {
    let users = users(NO_INBOXES);
    let ann = name("ann");
    assert!(come(&users, &ann, Owner::Guest(1), place(1), s(0)).is_ok());
    assert!(come(&users, &ann, Owner::Guest(1), place(2), s(0)).is_ok());
    let displaced = come(&users, &ann, Owner::Token, place(3), s(0)).expect("a token has a right to the name");
    assert_eq!(displaced.len(), 2);
    assert_eq!(places(&users, &ann), [place(3)]);
    // The guests' ends change nothing.
    users.go(&ann, place(1), s(1));
    users.go(&ann, place(2), s(1));
    assert_eq!((places(&users, &ann), users.online()), (vec![place(3)], 1));
    assert_eq!(come(&users, &ann, Owner::Guest(1), place(4), s(1)), Err(NotLetIn::NameTaken));
    assert_eq!(come(&users, &ann, Owner::Token, place(5), s(1)), Ok(Places::default()));
}

#[test]
fn who_left_is_forgotten_after_the_grace_and_never_before() {
    let users = users(NO_INBOXES);
    let known = || users.stripes.iter().map(|stripe| stripe.lock().users.len()).sum::<usize>();
    let waiting = || users.stripes.iter().map(|stripe| stripe.lock().due.len()).sum::<usize>();
    for n in 0..1_000 {
        assert!(come(&users, &name(&format!("guest {n}")), Owner::Guest(n.into()), place(n), s(0)).is_ok());
    }
    users.sweep(s(50));
    assert_eq!((known(), users.online(), waiting()), (1_000, 1_000, 0));
    // One comes and goes again and again: it waits to be forgotten once.
    for _ in 0..1_000 {
        users.go(&name("guest 0"), place(0), s(60));
        assert!(come(&users, &name("guest 0"), Owner::Guest(0), place(0), s(60)).is_ok());
    }
    assert_eq!(waiting(), 0);
    for n in 0..1_000 {
        users.go(&name(&format!("guest {n}")), place(n), s(60) + Duration::from_millis(n.into()));
    }
    users.sweep(s(61) - Duration::from_nanos(1));
    assert_eq!((known(), users.online()), (1_000, 0));
    users.sweep(s(61) + Duration::from_millis(499));
    assert_eq!(known(), 500);
    users.sweep(s(62));
    assert_eq!((known(), waiting()), (0, 0));
}

#[test]
fn of_many_who_want_a_name_at_the_same_time_one_gets_it() {
    const RIVALS: u32 = 8;
    for round in 0..200 {
        let users = users(NO_INBOXES);
        let zoe = name("Zoë");
        let (start, let_in) = (Barrier::new(RIVALS as usize), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for n in 0..RIVALS {
                let (users, zoe, start, let_in) = (&users, &zoe, &start, &let_in);
                scope.spawn(move || {
                    start.wait();
                    if come(users, zoe, Owner::Guest(n.into()), place(n), s(round)).is_ok() {
                        let_in.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((let_in.into_inner(), users.places(&zoe).len(), users.online()), (1, 1, 1));
    }
}

#[test]
fn the_oldest_letters_make_place_and_are_counted() {
    let users = users(INBOXES);
    let ann = name("ann");
    assert!(come(&users, &ann, Owner::Token, place(1), s(0)).is_ok());
    assert_eq!(users.route(&ann, letter("live", 3, s(0)), s(0)), Routed::To(vec![place(1)]));
    users.go(&ann, place(1), s(1));
    for n in 0..5 {
        assert_eq!(users.route(&ann, letter(&n.to_string(), 3, s(2)), s(2)), Routed::Kept);
    }
    // Another kind has a bound of its own.
    let mention = Letter { ring: Ring { kind: 7, size: 1 }, ..letter("@ann", 1, s(2)) };
    assert_eq!(users.mention("ann", &mention, |()| true, s(2)), Mentioned::Kept);
    assert_eq!(users.mention("ann", &mention, |()| true, s(2)), Mentioned::Kept);
    assert_eq!(users.mention("ann", &mention, |()| false, s(2)), Mentioned::Refused);
    assert_eq!(users.mention("bob", &mention, |()| true, s(2)), Mentioned::Unknown);
    assert_eq!(users.route(&ann, letter("none", 0, s(2)), s(2)), Routed::Refused);
    assert!(come(&users, &ann, Owner::Token, place(2), s(3)).is_ok());
    let inbox = users.collect(&ann, s(3));
    assert_eq!((texts(&inbox), inbox.dropped()), (["2", "3", "4", "@ann"].map(String::from).to_vec(), 3));
    assert!(users.collect(&ann, s(3)).is_empty(), "it is told once");
    assert_eq!(users.inbox_bytes().0, 0);
    let stats = users.inbox_stats();
    let counts = [&stats.kept, &stats.told, &stats.dropped].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [7, 4, 3]);
}

#[test]
fn an_inbox_is_bounded_in_bytes_and_time_and_all_together_too() {
    let users = users(InboxLimits { total_bytes_max: 15_000, ..INBOXES });
    let (ann, bob) = (name("ann"), name("bob"));
    let long = "x".repeat(3_000);
    for at in 0..6 {
        assert_eq!(users.route(&ann, letter(&long, 100, s(at)), s(at)), Routed::Kept);
    }
    // Three of ann's fit; bob gets what is left, then his own oldest make place.
    for at in 0..3 {
        assert_eq!(users.route(&bob, letter(&format!("{at}{long}"), 100, s(6)), s(6)), Routed::Kept);
    }
    assert!(users.inbox_bytes().0 <= 15_000);
    assert_eq!(users.route(&name("carl"), letter(&long, 100, s(6)), s(6)), Routed::Refused, "no place for another");
    assert!(come(&users, &bob, Owner::Token, place(1), s(7)).is_ok());
    let inbox = users.collect(&bob, s(7));
    assert_eq!((inbox.letters().len(), inbox.dropped(), &texts(&inbox)[0][..1]), (1, 2, "2"));
    // What is too old is not told, and who did not come is forgotten with it.
    assert!(come(&users, &ann, Owner::Token, place(2), AGE + s(4)).is_ok());
    let inbox = users.collect(&ann, AGE + s(4));
    assert_eq!((inbox.letters().len(), inbox.dropped()), (1, 5));
    assert_eq!(users.route(&name("carl"), letter("hi", 1, AGE + s(4)), AGE + s(4)), Routed::Kept);
    users.go(&ann, place(2), AGE + s(4));
    users.go(&bob, place(1), AGE + s(4));
    users.sweep(AGE * 2 + s(5));
    assert_eq!(users.inbox_bytes().0, 0);
    assert!(users.stripes.iter().all(|stripe| stripe.lock().users.is_empty() && stripe.lock().due.is_empty()));
}

#[test]
fn what_waits_for_one_is_not_for_another_of_the_name() {
    let users = users(INBOXES);
    let zoe = name("Zoe");
    let route = |text: &str, now| users.route(&zoe, letter(text, 9, now), now);
    assert!(come(&users, &zoe, Owner::Guest(1), place(1), s(0)).is_ok());
    users.go(&zoe, place(1), s(0));
    assert_eq!(route("for the first", s(1)), Routed::Kept);
    // Another guest has the name: it is let go.
    assert!(come(&users, &zoe, Owner::Guest(2), place(2), s(5)).is_ok());
    assert!(users.collect(&zoe, s(5)).is_empty());
    users.go(&zoe, place(2), s(5));
    assert_eq!(route("for the second", s(6)), Routed::Kept);
    assert!(come(&users, &zoe, Owner::Token, place(3), s(9)).is_ok());
    assert!(users.collect(&zoe, s(9)).is_empty(), "the user is not the guest");
    users.go(&zoe, place(3), s(9));
    // What waits for somebody with a token keeps guests from the name.
    assert_eq!(route("for the user", s(10)), Routed::Kept);
    assert_eq!(come(&users, &zoe, Owner::Guest(3), place(4), s(50)), Err(NotLetIn::NameTaken));
    assert!(come(&users, &zoe, Owner::Token, place(5), s(50)).is_ok());
    assert_eq!(texts(&users.collect(&zoe, s(50))), ["for the user"]);
    users.go(&zoe, place(5), s(50));
    assert!(come(&users, &zoe, Owner::Guest(3), place(4), s(60)).is_ok());

    // A name that was never here is whoever's comes first, or a token's where there are tokens.
    for (unseen, expected) in [(None, Ok(Places::default())), (Some(Owner::Token), Err(NotLetIn::NameTaken))] {
        let users: Users<()> = Users::new(UserRules { grace: GRACE, known: Duration::ZERO, unseen, inboxes: INBOXES });
        assert_eq!(users.route(&zoe, letter("hi", 9, s(0)), s(0)), Routed::Kept);
        assert_eq!(come(&users, &zoe, Owner::Guest(1), place(1), s(100)), expected);
    }
}

/// Somebody keeps writing while tabs on two shards come and go together: everything is told once, live or on return, in order for each tab.
#[test]
fn everything_is_told_once_whatever_comes_back_at_the_same_time() {
    const LETTERS: u32 = 4_000;
    let users = users(InboxLimits { bytes_max: 1 << 30, total_bytes_max: 1 << 30, ..INBOXES });
    let ann = name("ann");
    let (is_over, told) = (std::sync::atomic::AtomicBool::new(false), AtomicUsize::new(0));
    let (mut live, mut returned, mut sent) = (0, 0, 0);
    std::thread::scope(|scope| {
        let tabs: Vec<_> = (1..=3)
            .map(|n| {
                let (users, ann, is_over, told) = (&users, &ann, &is_over, &told);
                scope.spawn(move || {
                    let mut last = None;
                    while !is_over.load(Ordering::Relaxed) {
                        assert!(come(users, ann, Owner::Token, place(n), s(1)).is_ok());
                        let inbox = users.collect(ann, s(1));
                        assert_eq!(inbox.dropped(), 0);
                        for text in texts(&inbox) {
                            let number: u32 = text.parse().expect("a number");
                            assert!(last.is_none_or(|last| last < number), "in order");
                            last = Some(number);
                            told.fetch_add(1, Ordering::Relaxed);
                        }
                        std::thread::yield_now();
                        users.go(ann, place(n), s(1));
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let mut n = 0;
        while n < LETTERS || (n < 20 * LETTERS && (live == 0 || returned == 0)) {
            n += 1;
            if n > LETTERS {
                // A busy machine has not let the tabs be both here and away yet.
                #[expect(clippy::disallowed_methods, reason = "threads of a test take turns by the machine's clock")]
                std::thread::sleep(Duration::from_millis(1));
            }
            match users.route(&ann, letter(&n.to_string(), u32::MAX, s(1)), s(1)) {
                Routed::To(places) => live += usize::from(!places.is_empty()),
                Routed::Kept => returned += 1,
                Routed::Refused => panic!("there is place"),
            }
            if n.is_multiple_of(64) {
                std::thread::yield_now();
            }
        }
        sent = n as usize;
        is_over.store(true, Ordering::Relaxed);
        tabs.into_iter().for_each(|tab| tab.join().expect("a tab that does not panic"));
    });
    let rest = users.collect(&ann, s(1)).letters().len();
    assert_eq!(live + returned, sent);
    assert_eq!(told.into_inner() + rest, returned, "what was kept is told once");
    assert!(live > 0 && returned > 0, "{live} {returned}");
}

#[test]
fn a_user_has_no_more_connections_than_allowed_and_guests_that_must_go_do_not_count() {
    let users = users(NO_INBOXES);
    let ann = name("ann");
    let come = |owner, n, max| users.come(&ann, (owner, |_| ()), place(n), max, s(0)).map(|came| came.connections);
    assert_eq!((come(Owner::Guest(1), 1, 2), come(Owner::Guest(1), 2, 2)), (Ok(1), Ok(2)));
    assert_eq!(come(Owner::Guest(1), 3, 2), Err(NotLetIn::ConnectionsMax));
    assert_eq!(places(&users, &ann), [place(1), place(2)], "nothing has changed");
    assert_eq!(come(Owner::Guest(1), 3, usize::MAX), Ok(3), "where the bound is off or only observed");
    assert_eq!(come(Owner::Token, 4, 1), Ok(1), "the guests had to go");
    assert_eq!(come(Owner::Token, 5, 1), Err(NotLetIn::ConnectionsMax));
    users.go(&ann, place(4), s(0));
    assert_eq!(come(Owner::Token, 5, 1), Ok(1), "a place that is left comes back");
}

#[test]
fn what_is_known_of_a_user_outlives_his_connections_for_its_time_and_is_nobody_elses() {
    const KNOWN: Duration = Duration::from_secs(3);
    let users = Users::new(UserRules { grace: GRACE, known: KNOWN, unseen: None, inboxes: NO_INBOXES });
    let zoe = name("zoe");
    let come = |owner, n, now| {
        let mut known = None;
        let came =
            users.come(&zoe, (owner, |former: Option<u32>| former.map_or(n, |former| former * 10)), place(n), 9, now);
        users.know(&zoe, |who| known = Some(*who));
        came.map(|_| known.expect("he is here"))
    };
    assert_eq!(come(Owner::Guest(1), 1, s(0)), Ok(1));
    assert_eq!(come(Owner::Guest(1), 2, s(0)), Ok(10), "made of what was known");
    users.go(&zoe, place(1), s(0));
    users.go(&zoe, place(2), s(0));
    users.sweep(s(2));
    assert_eq!(come(Owner::Guest(1), 3, s(2)), Ok(100));
    users.go(&zoe, place(3), s(10));
    assert_eq!(come(Owner::Guest(2), 4, s(12)), Ok(4), "the name was free, and what was known was another's");
    users.go(&zoe, place(4), s(20));
    users.sweep(s(20) + KNOWN);
    assert_eq!(users.know(&zoe, |_| ()), None, "nobody is known for ever");
}

#[test]
fn other_rules_hold_for_those_who_are_away_and_what_is_kept_for_them() {
    let users = users(NO_INBOXES);
    let (ann, bob) = (name("ann"), name("bob"));
    assert!(come(&users, &ann, Owner::Guest(1), place(1), s(0)).is_ok());
    users.go(&ann, place(1), s(1));
    assert_eq!(users.route(&ann, letter("hi", 9, s(1)), s(1)), Routed::Refused, "nothing is kept");
    let rules = |inboxes| UserRules { grace: s(10), known: Duration::ZERO, unseen: Some(Owner::Token), inboxes };
    users.set_rules(rules(INBOXES));
    assert_eq!(come(&users, &ann, Owner::Guest(2), place(2), s(5)), Err(NotLetIn::NameTaken), "it is kept for longer");
    assert_eq!(users.route(&ann, letter("hi", 9, s(5)), s(5)), Routed::Kept);
    assert_eq!(users.route(&bob, letter("hi", 9, s(5)), s(5)), Routed::Kept);
    assert_eq!(come(&users, &bob, Owner::Guest(3), place(3), s(50)), Err(NotLetIn::NameTaken), "it may be a token's");
    // They were to be looked at in a thousand seconds.
    users.set_rules(rules(InboxLimits { age_max: s(60), ..INBOXES }));
    users.sweep(s(64));
    assert_eq!(users.inbox_stats().dropped.load(Ordering::Relaxed), 0);
    users.sweep(s(65));
    assert_eq!(users.inbox_stats().dropped.load(Ordering::Relaxed), 2);
    users.sweep(s(130));
    assert_eq!(users.inbox_bytes().0, 0, "and forgotten");
    assert!(users.stripes.iter().all(|stripe| stripe.lock().users.is_empty() && stripe.lock().due.is_empty()));
    // A smaller inbox makes place when more comes.
    for at in 0..3 {
        assert_eq!(users.route(&bob, letter(&"x".repeat(2_000), 9, s(200 + at)), s(200 + at)), Routed::Kept);
    }
    users.set_rules(rules(InboxLimits { bytes_max: 5_000, total_bytes_max: 6_000, ..INBOXES }));
    assert!(users.inbox_bytes().0 > 6_000 && users.inbox_bytes().1 == 6_000);
    assert_eq!(users.route(&bob, letter(&"x".repeat(2_000), 9, s(203)), s(203)), Routed::Kept);
    assert!(users.inbox_bytes().0 < 6_000);
    assert_eq!(users.collect(&bob, s(203)).letters().len(), 2);
}
