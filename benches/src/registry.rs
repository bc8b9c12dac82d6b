//! Rooms: joining, leaving, publishing, on one thread.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::{Payload, RoomName};
use fanfare_registry::{Draft, Item, Registry, RegistryLimits, RoomOptions};

use crate::dialects::{json, room, user};
use crate::{Amount, Run, Stage, repeat};

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    let mut stages = Vec::new();
    for shards in [1, 4] {
        let name = |what: &str| format!("registry/{what}/{shards}");
        stages.push(Stage::new(name("join_leave"), Amount::One, 2_000, move || join_leave(shards, false)));
        stages.push(Stage::new(name("publish"), Amount::One, 2_000, move || publish(shards)));
    }
    stages.push(Stage::new("registry/join_leave/presence", Amount::One, 2_000, || join_leave(1, true)));
    stages.push(Stage::new("registry/join_leave/new_room", Amount::One, 2_000, new_room));
    stages
}

/// A connection comes to a room where others are, and goes.
fn join_leave(shards: usize, presence: bool) -> Run {
    let options = RoomOptions { presence, ..RoomOptions::default() };
    let (registry, name) = occupied(shards, options);
    let user = presence.then(user);
    let mut shard = 0;
    repeat(move || {
        let joined = registry.join(black_box(&name), options, shard, user.as_ref(), NOW).expect("there is a room");
        registry.leave(&joined.room, shard, user.as_ref(), false);
        shard = (shard + 1) % shards;
    })
}

/// A room comes into being with its first member, and ends after its last.
fn new_room() -> Run {
    let (registry, _) = occupied(1, RoomOptions::default());
    let name = RoomName::parse("chat:short").expect("it follows the rules");
    repeat(move || {
        let joined = registry.join(black_box(&name), RoomOptions::default(), 0, None, NOW).expect("there is a place");
        registry.leave(&joined.room, 0, None, false);
        assert_eq!(registry.reap(), 1);
    })
}

/// A publication of 128 bytes to a room with members on every shard, up to where each shard has it in hand.
fn publish(shards: usize) -> Run {
    let (registry, name) = occupied(shards, RoomOptions::default());
    let payload = json(128);
    repeat(move || {
        let draft = Draft { user: None, payload: Payload::Json(payload.clone()), except: None, receipt: None };
        let published = registry.publish(black_box(&name), RoomOptions::default(), draft, NOW);
        assert!(!published.expect("the intakes are empty").is_pressed);
        for intake in registry.shards() {
            let Some(Item::Event { event, .. }) = intake.pop() else { panic!("every shard has members") };
            drop(black_box(event));
            intake.release(1, payload.len());
        }
    })
}

/// A registry with one room that has a member on every shard.
fn occupied(shards: usize, options: RoomOptions) -> (Registry<()>, RoomName) {
    let intakes = (0..shards).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
    let registry = Registry::new(intakes, RegistryLimits { rooms_max: 1_000, ..RegistryLimits::default() }, 7);
    let name = room();
    for shard in 0..shards {
        // Whoever is in the room stays in it: the place is not given back.
        drop(registry.join(&name, options, shard, None, NOW).expect("there is a place"));
    }
    (registry, name)
}

const NOW: Duration = Duration::from_secs(1);
