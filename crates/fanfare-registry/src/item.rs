//! What arrives at a shard's intake.

use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Encode, LaneId, Receipt, RoomId};
use fanfare_protocol::{RoomEvent, VARIANTS, Variant};

/// A room event as fan-out sees it: something that can be encoded once per variant.
#[derive(Debug)]
pub struct Said {
    /// What is said.
    pub event: RoomEvent,
    /// When, on the registry's clock, where it is a publication.
    pub at: Option<Duration>,
}

impl Encode for Said {
    const VARIANTS: u8 = VARIANTS as u8;

    fn encode(&self, variant: u8, out: &mut Vec<u8>) {
        if let Some(variant) = Variant::from_index(variant) {
            variant.encode(&self.event, out);
        }
    }

    fn payload_bytes(&self) -> usize {
        match &self.event {
            RoomEvent::Message(_, published) => published.payload.len(),
            RoomEvent::Joined(..) | RoomEvent::Left(..) | RoomEvent::RoomClosed(_) => 0,
        }
    }

    fn is_publication(&self) -> bool {
        matches!(self.event, RoomEvent::Message(..))
    }

    fn published_at(&self) -> Option<Duration> {
        self.at
    }

    fn join(variant: u8, frames: &[u8]) -> Option<Vec<u8>> {
        Variant::from_index(variant)?.join(frames)
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
