//! What arrives at a shard's intake.

use std::array;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fanfare_fanout::{Encode, Gap, LaneId, Receipt, RoomId};
use fanfare_protocol::wire::Deflater;
use fanfare_protocol::{Event, RoomEvent, RoomName, VARIANTS, Variant, WIRE_FORMS, WireForm};

/// A room event as fan-out sees it: something that can be encoded once per wire form.
#[derive(Debug)]
pub struct Said {
    /// What is said.
    pub event: RoomEvent,
    /// When, on the registry's clock, where it is a publication.
    pub at: Option<Duration>,
    /// Its number among the room's publications, where it is one.
    number: Option<u64>,
    deflated: OnceLock<Box<DeflatedFrames>>,
}

/// The frames of each compressed form, made by the shard that needs them first. The others wait for it, at most as long as
/// making them would take.
type DeflatedFrames = [OnceLock<Box<[u8]>>; WIRE_FORMS - VARIANTS];

impl Said {
    /// Something said; `at` is when, where it is a publication.
    #[inline]
    #[must_use]
    pub fn new(event: RoomEvent, at: Option<Duration>) -> Self {
        Self { event, at, number: None, deflated: OnceLock::new() }
    }

    /// The same with its number among the room's publications, which is told where it is not delivered.
    #[inline]
    #[must_use]
    pub fn numbered(self, number: u64) -> Self {
        Self { number: Some(number), ..self }
    }

    /// The frames of a compressed form: compressed once, however many shards send them.
    #[inline(never)] // Compressing is dear enough; plain frames need not pay for it.
    fn deflated(&self, form: WireForm, deflater: &mut Deflater) -> &[u8] {
        let forms = self.deflated.get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        forms[usize::from(form.index()) - VARIANTS].get_or_init(|| {
            let mut frames = Vec::new();
            form.encode(&self.event, deflater, &mut frames);
            frames.into()
        })
    }
}

impl Encode for Said {
    const VARIANTS: u8 = WIRE_FORMS as u8;

    type Tools = Deflater;
    type Room = RoomName;

    #[inline]
    fn encode(&self, variant: u8, deflater: &mut Deflater, out: &mut Vec<u8>) {
        if let Some(variant) = Variant::from_index(variant) {
            return variant.encode(&self.event, out);
        }
        if let Some(form) = WireForm::from_index(variant) {
            out.extend_from_slice(self.deflated(form, deflater));
        }
    }

    fn payload_bytes(&self) -> usize {
        match &self.event {
            RoomEvent::Message(_, published) => published.payload.len(),
            RoomEvent::Joined(..) | RoomEvent::MemberJoined(..) | RoomEvent::Left(..) | RoomEvent::RoomClosed(_) => 0,
        }
    }

    fn is_publication(&self) -> bool {
        matches!(self.event, RoomEvent::Message(..))
    }

    fn number(&self) -> Option<u64> {
        self.number
    }

    fn encode_gap(room: &RoomName, variant: u8, gap: Gap, out: &mut Vec<u8>) {
        let Gap { from, to, count } = gap;
        if let Some(form) = WireForm::from_index(variant) {
            form.encode_event(&Event::Gap { room, from, to, count }, out);
        }
    }

    fn published_at(&self) -> Option<Duration> {
        self.at
    }

    fn join(variant: u8, frames: &[u8]) -> Option<Vec<u8>> {
        WireForm::from_index(variant)?.join(frames)
    }
}

/// One item of a shard's intake. `O` is what the owner of the shards tells them besides.
#[derive(Debug)]
pub enum Item<O> {
    /// A room says something to its members on this shard.
    Event {
        /// The room's life.
        room: RoomId,
        /// Number in the room's order.
        seq: u64,
        /// What is said, shared by all shards.
        event: Arc<Said>,
        /// The connection it is not for.
        except: Option<LaneId>,
        /// Where to report what became of it.
        receipt: Option<Arc<Receipt>>,
    },
    /// The room has ended: its members on this shard must leave it.
    CloseRoom(RoomId),
    /// Something else.
    Order(O),
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::io::IoSlice;

    use bytes::Bytes;
    use fanfare_fanout::{Budget, FlushQuota, OutboxLimits, Outcome, Shard, Sink};
    use fanfare_protocol::wire::Window;
    use fanfare_protocol::{Payload, Position, Published, RoomName};

    use super::*;

    /// Takes everything, and keeps who took what.
    #[derive(Default)]
    struct Taken(BTreeMap<u32, Vec<u8>>);

    impl Sink for Taken {
        fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
            self.0.entry(lane).or_default().extend_from_slice(bytes);
            Outcome::Taken(bytes.len())
        }
        fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
            slices.iter().map(|slice| self.send(lane, slice)).count();
            Outcome::Taken(slices.iter().map(|slice| slice.len()).sum())
        }
    }

    #[test]
    fn a_publication_is_compressed_once_however_many_members_and_shards_there_are() {
        const MEMBERS: usize = 1_000;
        let windows = [None, Some(Window::Bits15), Some(Window::Bits12)];
        let form = |n: usize| WireForm::new(Variant::JsonRoom, windows[n % 3]).index();
        let room = RoomId(1);
        let mut shards: [Shard<Said>; 2] = array::from_fn(|_| {
            let budget = Arc::new(Budget::new(1 << 20));
            Shard::new(OutboxLimits::default(), 1_000, budget, Arc::default())
        });
        for shard in &mut shards {
            for n in 0..MEMBERS {
                let lane = shard.open(form(n));
                assert!(shard.join(lane, room, 0));
            }
        }
        for seq in 1..=3 {
            let text = format!("{seq}: {}", "How do you do? ".repeat(200));
            let position = Position { epoch: 1, offset: seq };
            let published = Published { position, offset: None, user: None, payload: Payload::Text(Bytes::from(text)) };
            let name = RoomName::parse("lobby").expect("a valid name");
            let said = Said::new(RoomEvent::Message(name, published), None);
            let mut frames = BTreeMap::<_, Vec<u8>>::new();
            for shard in &mut shards {
                shard.accept(room, seq, &said, None, None);
                let mut taken = Taken::default();
                while shard.flush(&mut taken, FlushQuota::default()) {}
                assert_eq!(taken.0.len(), MEMBERS);
                for (lane, bytes) in taken.0 {
                    let first = frames.entry(form(lane as usize)).or_insert_with(|| bytes.clone());
                    assert!(*first == bytes, "one frame for all who agreed on the same");
                }
            }
            let messages: u64 = shards.iter_mut().map(|shard| shard.tools().messages()).sum();
            assert_eq!(messages, 2 * seq, "once for each of two windows");
            let plain = &frames[&form(0)];
            assert!(frames[&form(1)].len() * 2 < plain.len() && frames[&form(2)].len() * 2 < plain.len());
        }
    }
}
