//! Messages of the log in NATS, and what is counted of them, for the fuzz targets.

use super::frame::{self, Frame, What};
use super::tally::{Ruling, Tally};
use super::written::{self, Assembly};

/// A message in its parts: what it says (0 a post, 1 an epoch, 2 a tally), who, its number and the one before, the room, the rest.
pub type Message<'a> = (u8, [u64; 3], &'a str, &'a [u8]);

/// Reads a message.
#[must_use]
pub fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let Frame { what, node, number, after, room, body } = frame::decode(bytes)?;
    Some((what as u8, [node, number, after], room, body))
}

/// What was counted up to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tallied(Tally);

impl Tallied {
    /// Nothing yet.
    #[must_use]
    pub fn begun(epoch: u64) -> Self {
        Self(Tally::begun(epoch, 0, 0))
    }

    /// Reads one that was written down in these parts.
    #[must_use]
    pub fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut assembly = Assembly::default();
        let mut parts = parts.into_iter();
        while assembly.is_open() {
            assembly.add(parts.next()?)?;
        }
        assembly.finish().map(Self)
    }

    /// Writes it down, nodes of yesterday left out.
    #[must_use]
    pub fn written(&self, part_bytes_max: usize) -> Vec<Vec<u8>> {
        let mut tally = self.0.clone();
        tally.forget_nodes();
        written::encode(&tally, part_bytes_max)
    }

    /// Counts the next message, which the log took at this time. `None`: it is no post, or not taken; otherwise its number in its room, where
    /// that counts.
    pub fn count(&mut self, at_ns: u64, bytes: &[u8]) -> Option<Option<u64>> {
        match self.0.count(at_ns, frame::decode(bytes).as_ref()) {
            Ruling::Taken { offset } => Some(offset),
            Ruling::LeftOut | Ruling::Epoch | Ruling::Nothing | Ruling::Unknown => None,
        }
    }

    /// Its epoch and the last message counted.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.0.epoch, self.0.number)
    }

    /// Rooms and nodes that it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rooms.len() + self.0.nodes.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes a message.
#[must_use]
pub fn sent(&(what, [node, number, after], room, body): &Message<'_>) -> Vec<u8> {
    let what = match what {
        0 => What::Post,
        1 => What::Epoch,
        _ => What::Written,
    };
    Frame { what, node, number, after, room, body }.encode()
}
