//! The seam to the sockets.

use std::io::IoSlice;

/// What became of one offer of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were taken from the front; 0 when the connection cannot take any now.
    Taken(usize),
    /// The connection has failed; it will take nothing again.
    Gone,
}

/// The same bytes for several connections.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The connections.
    pub lanes: &'a [u32],
    /// Whole frames.
    pub bytes: &'a [u8],
}

/// Where frames go: sockets in the gateway, plain memory in tests and the simulation. Nothing here may block.
///
/// Contract: a connection that took less than it was offered is reported writable later by whoever owns the sink
/// (the caller then calls [`Shard::writable`](crate::Shard::writable)).
pub trait Sink {
    /// Offers `bytes` to one connection.
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome;

    /// Offers several slices, in order, as one write.
    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome;

    /// Offers bytes to many connections, none of them twice; appends one outcome for each, in order. An implementation that can submit
    /// many sends at once does so here.
    fn send_each(&mut self, offers: &[Offer<'_>], outcomes: &mut Vec<Outcome>) {
        for offer in offers {
            outcomes.extend(offer.lanes.iter().map(|&lane| self.send(lane, offer.bytes)));
        }
    }
}
