//! Where it goes: connections that take all, a part that ends anywhere, or fail.

use std::collections::BTreeMap;
use std::io::IoSlice;

use fanfare_fanout::{LaneId, Outcome, Sink};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    Only(usize),
    Fails,
}

/// One connection: takes all, a part that ends anywhere, or fails.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) takes: Takes,
    pub(crate) received: Vec<u8>,
    /// What had been received when the last plain send came.
    pub(crate) before_last_send: usize,
    /// It took less than it was offered: only what is queued may be offered next.
    pub(crate) is_short: bool,
    pub(crate) has_failed: bool,
}

impl Wire {
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Outcome {
        assert!(!self.has_failed, "something was offered to a connection that had failed");
        let taken = match &mut self.takes {
            Takes::All => bytes.len(),
            Takes::Only(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                taken
            }
            Takes::Fails => {
                self.has_failed = true;
                return Outcome::Gone;
            }
        };
        self.received.extend_from_slice(&bytes[..taken]);
        self.is_short = taken < bytes.len();
        Outcome::Taken(taken)
    }
}

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
        assert!(!bytes.is_empty(), "an offer of nothing is a system call for nothing");
        assert!(!wire.is_short, "an offer that passes by what is queued");
        wire.before_last_send = wire.received.len();
        wire.take(bytes)
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let wire = self.0.get_mut(&lane).expect("only open lanes are offered anything");
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        wire.take(&bytes)
    }
}
