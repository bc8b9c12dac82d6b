//! A shard's audience: batches offered to members whose sockets take everything, or half of it.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{
    Budget, Delivery, FlushQuota, Intake, IntakeLimits, Lane, LaneEvent, LaneId, OutboxLimits, Outcome, Receipt,
    RoomId, Shard, ShardStats, Sink,
};
use fanfare_protocol::wire::Window;
use fanfare_protocol::{Payload, Published, RoomEvent, VARIANTS, Variant, WireForm};
use fanfare_registry::{Item, Said};

use crate::dialects::{POSITION, json, room};
use crate::wire::json_list;
use crate::{Amount, Run, Stage, repeat};

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (members, counted) in [(1, 2_000), (10, 2_000), (1_000, 100), (10_000, 10)] {
        for publications in [1, 16] {
            let amount = Amount::Deliveries((members * publications) as u64);
            let name = format!("fanout/flush/{members}/{publications}");
            stages.push(Stage::new(name, amount, counted, move || flush(members, publications)));
        }
    }
    let thousand = Amount::Deliveries(1_000);
    let sixteen_thousand = Amount::Deliveries(16_000);
    stages.extend([
        Stage::new("fanout/flush/1000/four_variants", thousand, 100, four_variants),
        Stage::new("fanout/flush/1000/deflated", thousand, 50, deflated),
        Stage::new("fanout/flush/1000/receipt", thousand, 100, receipt),
        Stage::new("fanout/flush/1000/left_out", sixteen_thousand, 50, left_out),
        Stage::new("fanout/slow/1000/1", thousand, 50, || slow(1)),
        Stage::new("fanout/slow/1000/16", sixteen_thousand, 20, || slow(16)),
        Stage::new("fanout/join_leave/1000", Amount::One, 2_000, join_leave),
        Stage::new("fanout/open_close/1000", Amount::One, 2_000, open_close),
        Stage::new("fanout/reply", Amount::One, 2_000, reply),
        Stage::new("fanout/intake/push_pop", Amount::One, 3_100, push_pop),
        Stage::new("fanout/intake/wake", Amount::One, 3_100, wake),
    ]);
    stages
}

/// Publications in one batch, then one flush.
fn flush(members: usize, publications: usize) -> Run {
    let mut audience = Audience::new(members, 1);
    repeat(move || {
        for _ in 0..publications {
            audience.accept(None, None);
        }
        audience.flush(publications);
    })
}

/// Members speak all dialects.
fn four_variants() -> Run {
    let mut audience = Audience::new(1_000, VARIANTS);
    repeat(move || {
        audience.accept(None, None);
        audience.flush(1);
    })
}

/// Members agreed to compression: 2 KiB of JSON are compressed once, and sent a thousand times.
fn deflated() -> Run {
    let form = WireForm::new(Variant::JsonRoom, Some(Window::Bits15)).index();
    let mut audience = Audience::of(vec![form; 1_000]);
    let payload: Bytes = json_list(2_048).into();
    repeat(move || {
        let published =
            Published { position: POSITION, offset: None, user: None, payload: Payload::Json(payload.clone()) };
        audience.event = Arc::new(Said::new(RoomEvent::Message(room(), published), Some(NOW)));
        audience.accept(None, None);
        audience.flush(1);
    })
}

/// The publisher wants to know what became of it.
fn receipt() -> Run {
    let mut audience = Audience::new(1_000, 1);
    repeat(move || {
        let receipt = Arc::new(Receipt::new(|delivery| assert_eq!(delivery.delivered, 1_000)));
        receipt.expect();
        audience.accept(None, Some(receipt.clone()));
        audience.flush(1);
        receipt.report(Delivery::default());
    })
}

/// A batch that leaves out 1 % of the members, each from its own publication.
fn left_out() -> Run {
    let mut audience = Audience::new(1_000, 1);
    repeat(move || {
        for n in 0..16 {
            let sender = audience.lanes[(n % 10) * 100];
            audience.accept(Some(sender), None);
        }
        audience.flush(16);
    })
}

/// Every socket takes half of a flush and blocks; then it can take the rest.
fn slow(flushes: usize) -> Run {
    let mut audience = Audience::new(1_000, 1);
    let mut events = Vec::with_capacity(2_000);
    repeat(move || {
        for _ in 0..flushes {
            audience.accept(None, None);
            audience.shard.flush_room(ROOM, &mut Reluctant);
        }
        audience.shard.measure(|| NOW);
        for &lane in &audience.lanes {
            assert!(audience.shard.writable(lane, &mut audience.sink).is_empty);
        }
        assert_eq!(audience.shard.take_released().items, flushes);
        audience.shard.take_events(&mut events);
        assert!(events.len() == 1_000 && matches!(events[0], LaneEvent::Blocked(_)));
        events.clear();
    })
}

/// A connection comes to a large room, and goes.
fn join_leave() -> Run {
    let mut audience = Audience::new(1_000, 1);
    let lane = audience.shard.open(0);
    repeat(move || {
        assert!(audience.shard.join(black_box(lane), ROOM, 0));
        assert!(audience.shard.leave(lane, ROOM, &mut audience.sink));
    })
}

/// A connection's whole life beside a large room it visits.
fn open_close() -> Run {
    let mut audience = Audience::new(1_000, 1);
    repeat(move || {
        let lane = audience.shard.open(0);
        assert!(audience.shard.join(lane, ROOM, 0));
        assert_eq!(audience.shard.close(black_box(lane)).len(), 1);
    })
}

/// An answer that its connection takes at once.
fn reply() -> Run {
    let mut audience = Audience::new(1, 1);
    let lane = audience.lanes[0];
    repeat(move || {
        audience.shard.reply(black_box(lane), Lane::Control, b"\x81\x0f{\"name\":\"pong\"}", &mut audience.sink);
    })
}

/// One publication through the queue of a shard that is awake.
fn push_pop() -> Run {
    let intake = Intake::new(IntakeLimits::default(), || {});
    let event = said();
    repeat(move || {
        intake.reserve(128).expect("the intake is empty");
        intake.push_quietly(item(&event));
        intake.wake();
        assert!(black_box(intake.pop()).is_some());
        intake.release(1, 128);
    })
}

/// The same for a shard that sleeps; ending the sleep costs nothing here, and a system call in the gateway.
fn wake() -> Run {
    let intake = Intake::new(IntakeLimits::default(), || {});
    let event = said();
    repeat(move || {
        assert!(intake.prepare_sleep());
        intake.reserve(128).expect("the intake is empty");
        intake.push(item(&event));
        intake.awake();
        assert!(black_box(intake.pop()).is_some());
        intake.release(1, 128);
    })
}

fn item(event: &Arc<Said>) -> Item<()> {
    Item::Event { room: ROOM, seq: 1, event: event.clone(), except: None, receipt: None }
}

const ROOM: RoomId = RoomId(7);
const NOW: Duration = Duration::from_secs(1);

/// A shard with one room.
struct Audience {
    shard: Shard<Said>,
    lanes: Vec<LaneId>,
    sink: Drained,
    event: Arc<Said>,
    seq: u64,
}

impl Audience {
    /// A room of `members` that take the first `variants` in turn.
    fn new(members: usize, variants: usize) -> Self {
        Self::of((0..members).map(|n| (n % variants) as u8).collect())
    }

    /// A room with a member for each of these, who takes it.
    fn of(forms: Vec<u8>) -> Self {
        let budget = Arc::new(Budget::new(1 << 30));
        let mut shard = Shard::new(OutboxLimits::default(), 65_536, budget, Arc::new(ShardStats::default()));
        let lanes: Vec<_> = forms.into_iter().map(|form| shard.open(form)).collect();
        for &lane in &lanes {
            assert!(shard.join(lane, ROOM, 0));
        }
        Self { shard, lanes, sink: Drained, event: said(), seq: 0 }
    }

    fn accept(&mut self, except: Option<LaneId>, receipt: Option<Arc<Receipt>>) {
        self.seq += 1;
        self.shard.accept(ROOM, self.seq, black_box(&self.event), except, receipt);
    }

    /// Turns of the default quota until everybody has everything.
    fn flush(&mut self, publications: usize) {
        while self.shard.flush(&mut self.sink, FlushQuota::default()) {}
        self.shard.measure(|| NOW);
        assert_eq!(self.shard.take_released().items, publications);
    }
}

/// A publication of 128 bytes.
fn said() -> Arc<Said> {
    let said = Published { position: POSITION, offset: None, user: None, payload: Payload::Json(json(128)) };
    Arc::new(Said::new(RoomEvent::Message(room(), said), Some(NOW)))
}

/// Sockets with room for everything.
struct Drained;

impl Sink for Drained {
    fn send(&mut self, _lane: u32, bytes: &[u8]) -> Outcome {
        Outcome::Taken(black_box(bytes).len())
    }

    fn send_vectored(&mut self, _lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        Outcome::Taken(black_box(slices).iter().map(|slice| slice.len()).sum())
    }
}

/// Sockets with room for half of what they are offered.
struct Reluctant;

impl Sink for Reluctant {
    fn send(&mut self, _lane: u32, bytes: &[u8]) -> Outcome {
        Outcome::Taken(black_box(bytes).len() / 2)
    }

    fn send_vectored(&mut self, _lane: u32, _slices: &[IoSlice<'_>]) -> Outcome {
        Outcome::Taken(0)
    }
}
