//! The sockets of a shard: each takes all, a part that ends anywhere, nothing, or fails.

use std::collections::BTreeMap;
use std::io::IoSlice;

use fanfare_fanout::{LaneId, Outcome, Sink};

#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// How much more it takes; `None`: everything.
    pub(crate) takes: Option<usize>,
    pub(crate) is_broken: bool,
    /// What the client has not looked at.
    pub(crate) received: Vec<u8>,
}

/// The connections of one shard, by their lanes' places.
#[derive(Debug, Default)]
pub(crate) struct Wires(pub(crate) BTreeMap<u32, Wire>);

impl Wires {
    pub(crate) fn at(&mut self, lane: LaneId) -> &mut Wire {
        self.0.get_mut(&lane.index).expect("an open lane has a wire")
    }
}

impl Sink for Wires {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        let wire = self.0.get_mut(&lane).expect("only open lanes are offered anything");
        if wire.is_broken {
            return Outcome::Gone;
        }
        let taken = wire.takes.map_or(bytes.len(), |left| left.min(bytes.len()));
        wire.takes = wire.takes.map(|left| left - taken);
        wire.received.extend_from_slice(&bytes[..taken]);
        Outcome::Taken(taken)
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}
