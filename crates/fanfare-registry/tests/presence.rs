//! Who is in a room, exactly: while users come and go on several threads at once, and over absences that are none.
#![cfg(not(loom))]

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::{RoomEvent, RoomName, UserName};
use fanfare_registry::{Absence, Item, JoinError, NewMember, Registry, RegistryLimits, Room, RoomOptions};
use parking_lot::Mutex;

/// One shard for who listens, the others for who comes and goes.
const SHARDS: usize = 4;
const USERS: usize = 12;
const ROUNDS: usize = 1_000;

fn registry() -> Registry<()> {
    let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
    Registry::new(intakes, RegistryLimits::default(), 1)
}

fn options() -> RoomOptions {
    RoomOptions { presence: true, join_leave: true, ..RoomOptions::default() }
}

fn user(n: usize) -> UserName {
    UserName::parse(&format!("user {n:02}")).expect("a valid name")
}

fn join(registry: &Registry<()>, name: &RoomName, shard: usize, user: Option<&UserName>) -> Arc<Room> {
    registry.join(name, options(), shard, user, Duration::ZERO).expect("there is room for a room").room
}

fn members(room: &Room) -> BTreeSet<UserName> {
    let presence = room.presence("", usize::MAX);
    assert!(!presence.has_more);
    presence.members.into_iter().collect()
}

/// What the witness on shard 0 was told since it was asked last: `+` and `-` with a name.
fn heard(registry: &Registry<()>) -> Vec<String> {
    let intake = &registry.shards()[0];
    let mut heard = Vec::new();
    while let Some(item) = intake.pop() {
        let Item::Event { event, .. } = item else { continue };
        intake.release(1, 0);
        match &event.event {
            RoomEvent::Joined(_, user) => heard.push(format!("+{}", user.as_ref().expect("a user"))),
            RoomEvent::MemberJoined(_, user, info) => heard.push(format!("+{user}={info}")),
            RoomEvent::Left(_, user) => heard.push(format!("-{}", user.as_ref().expect("a user"))),
            RoomEvent::Message(..) | RoomEvent::RoomClosed(_) => {}
        }
    }
    for shard in &registry.shards()[1..] {
        while let Some(item) = shard.pop() {
            if matches!(item, Item::Event { .. }) {
                shard.release(1, 0);
            }
        }
    }
    heard
}

/// All users come at the same time, each with a tab on every shard; then all tabs go at the same time, and those of even number are back
/// before they are missed.
#[test]
fn everybody_is_told_once_and_listed_however_they_race() {
    let registry = registry();
    let threads = SHARDS - 1;
    let start = Barrier::new(threads + 1);
    let absences = Mutex::new(Vec::<Absence>::new());
    let rooms: Vec<_> = (0..ROUNDS).map(|n| RoomName::parse(&format!("room:{n}")).expect("a valid name")).collect();
    let everybody: BTreeSet<_> = (0..USERS).map(user).collect();
    std::thread::scope(|scope| {
        for shard in 1..SHARDS {
            let (registry, start, absences, rooms) = (&registry, &start, &absences, &rooms);
            scope.spawn(move || {
                for name in rooms {
                    // Each shard begins with another user, so that they meet.
                    let order = || (0..USERS).map(|n| user((n + shard * 5) % USERS));
                    start.wait();
                    let room = order().map(|user| join(registry, name, shard, Some(&user))).last().expect("a user");
                    start.wait();
                    start.wait();
                    let lost: Vec<_> = order().filter_map(|user| registry.lose(&room, shard, &user)).collect();
                    absences.lock().extend(lost);
                    start.wait();
                    start.wait();
                    for user in order().filter(|user| user.as_str().ends_with(['0', '2', '4', '6', '8'])) {
                        join(registry, name, shard, Some(&user));
                    }
                    start.wait();
                }
            });
        }
        for (round, name) in rooms.iter().enumerate() {
            let room = join(&registry, name, 0, None);
            start.wait();
            start.wait();
            assert_eq!(members(&room), everybody, "round {round}");
            assert_eq!(room.info().occupancy, (USERS * threads + 1) as u64);
            let mut told = heard(&registry);
            told.sort_unstable();
            let expected: Vec<_> = everybody.iter().map(|user| format!("+{user}")).collect();
            assert_eq!(told, expected, "round {round}: joined, once each");

            start.wait();
            start.wait();
            assert_eq!(members(&room), everybody, "who may be back in a moment has not left");
            assert_eq!((room.info().occupancy, heard(&registry)), (1, vec![]));
            let lost = std::mem::take(&mut *absences.lock());
            assert_eq!(lost.len(), USERS, "the last tab of each");

            start.wait();
            start.wait();
            lost.into_iter().for_each(|absence| registry.miss(absence));
            let back: BTreeSet<_> =
                everybody.iter().filter(|u| u.as_str().ends_with(['0', '2', '4', '6', '8'])).cloned().collect();
            assert_eq!(members(&room), back, "round {round}");
            let mut told = heard(&registry);
            told.sort_unstable();
            let expected: Vec<_> = everybody.difference(&back).map(|user| format!("-{user}")).collect();
            assert_eq!(told, expected, "round {round}: left, once each, and nobody who is back");
        }
    });
}

/// Users come and go on all shards as they like; once it is quiet the list is the truth.
#[test]
fn the_list_is_the_truth_after_any_churn() {
    let registry = registry();
    let name = RoomName::parse("churn").expect("a valid name");
    let witness = join(&registry, &name, 0, None);
    let threads: Vec<_> = (1..SHARDS).collect();
    for round in 0..50_u64 {
        let here: Vec<(usize, Vec<bool>)> = std::thread::scope(|scope| {
            let churn = |shard: usize| {
                let (registry, name) = (&registry, &name);
                scope.spawn(move || {
                    let mut here = vec![false; USERS];
                    let mut absences = Vec::new();
                    let mut dice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ shard as u64;
                    for _ in 0..200 {
                        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let (n, way) = ((dice >> 33) as usize % USERS, dice >> 61);
                        let user = user(n);
                        if !here[n] {
                            join(registry, name, shard, Some(&user));
                        } else if way < 4 {
                            let room = registry.get(name).expect("the witness is in it");
                            absences.extend(registry.lose(&room, shard, &user));
                        } else {
                            let room = registry.get(name).expect("the witness is in it");
                            registry.leave(&room, shard, Some(&user), way == 7);
                        }
                        here[n] = !here[n];
                        if way % 2 == 0 {
                            absences.drain(..).for_each(|absence| registry.miss(absence));
                        }
                    }
                    absences.into_iter().for_each(|absence| registry.miss(absence));
                    (shard, here)
                })
            };
            let running: Vec<_> = threads.iter().map(|&shard| churn(shard)).collect();
            running.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
        });
        let truth: BTreeSet<_> = (0..USERS).filter(|&n| here.iter().any(|(_, here)| here[n])).map(user).collect();
        assert_eq!(members(&witness), truth, "round {round}");
        // What was told adds up to the same: nobody joins or leaves twice.
        let mut told = BTreeSet::new();
        for word in heard(&registry) {
            let (sign, user) = word.split_at(1);
            let is_news = if sign == "+" { told.insert(user.to_owned()) } else { told.remove(user) };
            assert!(is_news, "round {round}: {word}");
        }
        assert_eq!(told, truth.iter().map(ToString::to_string).collect(), "round {round}");
        for (shard, here) in here {
            for n in (0..USERS).filter(|&n| here[n]) {
                registry.leave(&witness, shard, Some(&user(n)), false);
            }
        }
        heard(&registry);
        assert_eq!(witness.info().occupancy, 1);
    }
}

#[test]
fn pages_follow_one_another_and_hold_everybody_once() {
    let registry = registry();
    let name = RoomName::parse("large").expect("a valid name");
    for n in 0..95 {
        join(&registry, &name, n % SHARDS, Some(&user(n)));
    }
    let room = registry.get(&name).expect("a room");
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = room.presence(&after, 10);
        assert_eq!(page.count, 95);
        after = page.members.last().expect("no page is empty").to_string();
        listed.extend(page.members);
        if !page.has_more {
            break;
        }
        assert_eq!(listed.len() % 10, 0);
        // Who leaves between two pages, the last one told among them, moves nobody else.
        if listed.len() == 20 {
            registry.leave(&room, 19 % SHARDS, Some(&user(19)), false);
            join(&registry, &name, 0, Some(&user(19)));
        }
    }
    assert_eq!(listed, (0..95).map(user).collect::<Vec<_>>());
    assert_eq!(room.presence("user 94", 10).members, []);
    assert_eq!(room.presence("user 940", 10).members, []);
    assert_eq!(room.presence("", 0).members, []);
}

/// What an application says of a member is told with him, to who is there and to who comes; and one user is one member, however many
/// connections he has and however full it is.
#[test]
fn members_are_described_once_and_bounded_by_users() {
    let registry = registry();
    let name = RoomName::parse("shop:presence-a").expect("a valid name");
    let _witness = join(&registry, &name, 0, None);
    let (info, other): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
    let enter = |n: usize, info: &Arc<str>| {
        let user = user(n);
        let member = NewMember { user: &user, info, members_max: 2, list_bytes_max: 10_000 };
        registry.join_as_member(&name, options(), 1, member, Duration::ZERO).map(|(joined, members)| {
            let members: Vec<_> =
                members.iter().map(|(user, info)| format!("{user}={}", info.as_deref().unwrap_or("-"))).collect();
            (joined.room, members)
        })
    };
    let (room, members) = enter(1, &info).expect("there is room");
    assert_eq!((members, heard(&registry)), (vec!["user 01=1".to_owned()], vec!["+user 01=1".to_owned()]));
    let (_, members) = enter(2, &other).expect("there is room");
    assert_eq!(members, ["user 01=1", "user 02=2"]);
    assert_eq!(enter(3, &info).err(), Some(JoinError::MembersMax));
    let (_, members) = enter(1, &other).expect("who is there is not one more");
    assert_eq!(members, ["user 01=1", "user 02=2"], "it has been said before");
    assert_eq!(heard(&registry), ["+user 02=2"]);
    registry.leave(&room, 1, Some(&user(1)), false);
    assert_eq!((heard(&registry), room.users()), (vec![], vec![user(1), user(2)]));
    registry.leave(&room, 1, Some(&user(1)), false);
    assert_eq!(heard(&registry), ["-user 01"]);
    assert!(enter(3, &info).is_ok());
}

/// Who comes is told all members in one message, which must fit into what may be queued for him.
#[test]
fn a_list_of_members_has_a_longest_form() {
    let registry = registry();
    let name = RoomName::parse("shop:presence-a").expect("a valid name");
    let info: Arc<str> = "x".repeat(100).into();
    let enter = |n: usize, list_bytes_max: usize| {
        let user = user(n);
        let member = NewMember { user: &user, info: &info, members_max: 100, list_bytes_max };
        registry.join_as_member(&name, options(), 1, member, Duration::ZERO).map(|(_, members)| members.len())
    };
    let one = fanfare_protocol::pusher::member_bytes(&user(1), Some(&*info));
    assert_eq!(enter(1, one - 1).err(), Some(JoinError::ListMax));
    assert_eq!(registry.get(&name).map_or(0, |room| room.info().occupancy), 0, "nobody came in");
    assert_eq!(enter(1, one).ok(), Some(1));
    assert_eq!(enter(2, 2 * one - 1).err(), Some(JoinError::ListMax));
    assert_eq!(enter(1, one).ok(), Some(1), "who is there makes it no longer");
    assert_eq!(enter(2, 2 * one).ok(), Some(2));
}
