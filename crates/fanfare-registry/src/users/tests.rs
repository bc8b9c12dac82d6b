use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GRACE: Duration = Duration::from_secs(1);

fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a valid name")
}

fn place(n: u32) -> Place {
    Place { shard: n as usize % 2, lane: LaneId { index: n, generation: 0 } }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn places(users: &Users, name: &UserName) -> Vec<Place> {
    let mut places: Vec<_> = users.places(name).iter().collect();
    places.sort_unstable_by_key(|place| place.lane.index);
    places
}

#[test]
fn a_guests_name_is_his_while_he_is_online_and_for_the_grace() {
    let users = Users::new(GRACE);
    let zoe = name("Zoë");
    assert_eq!(users.come(&zoe, Owner::Guest(1), place(1), s(0)), Ok(Places::default()));
    assert_eq!(users.come(&zoe, Owner::Guest(2), place(2), s(0)), Err(NameTaken));
    // His own token lets him in from another tab.
    assert_eq!(users.come(&zoe, Owner::Guest(1), place(3), s(0)), Ok(Places::default()));
    assert_eq!((places(&users, &zoe), users.online()), (vec![place(1), place(3)], 1));
    users.go(&zoe, place(1), s(5));
    assert_eq!(users.come(&zoe, Owner::Guest(2), place(2), s(90)), Err(NameTaken));
    users.go(&zoe, place(3), s(100));
    assert_eq!(users.online(), 0);
    let just_before = s(101) - Duration::from_nanos(1);
    assert_eq!(users.come(&zoe, Owner::Guest(2), place(2), just_before), Err(NameTaken));
    assert_eq!(users.come(&zoe, Owner::Guest(1), place(4), just_before), Ok(Places::default()));
    users.go(&zoe, place(4), s(102));
    assert_eq!(users.come(&zoe, Owner::Guest(2), place(2), s(103)), Ok(Places::default()));
    assert_eq!(users.come(&zoe, Owner::Guest(1), place(5), s(103)), Err(NameTaken), "it is the other's by now");
}

#[test]
fn whoever_has_a_token_has_the_name_and_guests_must_go() {
    let users = Users::new(GRACE);
    let ann = name("ann");
    assert!(users.come(&ann, Owner::Guest(1), place(1), s(0)).is_ok());
    assert!(users.come(&ann, Owner::Guest(1), place(2), s(0)).is_ok());
    let displaced = users.come(&ann, Owner::Token, place(3), s(0)).expect("a token has a right to the name");
    assert_eq!(displaced.len(), 2);
    assert_eq!(places(&users, &ann), [place(3)]);
    // The guests' ends change nothing.
    users.go(&ann, place(1), s(1));
    users.go(&ann, place(2), s(1));
    assert_eq!((places(&users, &ann), users.online()), (vec![place(3)], 1));
    assert_eq!(users.come(&ann, Owner::Guest(1), place(4), s(1)), Err(NameTaken));
    assert_eq!(users.come(&ann, Owner::Token, place(5), s(1)), Ok(Places::default()));
}

#[test]
fn who_left_is_forgotten_after_the_grace_and_never_before() {
    let users = Users::new(GRACE);
    let known = || users.stripes.iter().map(|stripe| stripe.lock().users.len()).sum::<usize>();
    let waiting = || users.stripes.iter().map(|stripe| stripe.lock().due.len()).sum::<usize>();
    for n in 0..1_000 {
        assert!(users.come(&name(&format!("guest {n}")), Owner::Guest(n.into()), place(n), s(0)).is_ok());
    }
    users.sweep(s(50));
    assert_eq!((known(), users.online(), waiting()), (1_000, 1_000, 0));
    // One comes and goes again and again: it waits to be forgotten once.
    for _ in 0..1_000 {
        users.go(&name("guest 0"), place(0), s(60));
        assert!(users.come(&name("guest 0"), Owner::Guest(0), place(0), s(60)).is_ok());
    }
    assert_eq!(waiting(), 1);
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
        let users = Users::new(GRACE);
        let zoe = name("Zoë");
        let (start, let_in) = (Barrier::new(RIVALS as usize), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for n in 0..RIVALS {
                let (users, zoe, start, let_in) = (&users, &zoe, &start, &let_in);
                scope.spawn(move || {
                    start.wait();
                    if users.come(zoe, Owner::Guest(n.into()), place(n), s(round)).is_ok() {
                        let_in.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((let_in.into_inner(), users.places(&zoe).len(), users.online()), (1, 1, 1));
    }
}
