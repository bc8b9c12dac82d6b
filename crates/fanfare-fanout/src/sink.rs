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

/// Where frames go: sockets in the gateway, plain memory in tests and the simulation. Nothing here may block.
///
/// Contract: a connection that took less than it was offered is reported writable later by whoever owns the sink
/// (the caller then calls [`Shard::writable`](crate::Shard::writable)).
pub trait Sink {
    /// Offers `bytes` to one connection.
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome;

    /// Offers several slices, in order, as one write.
    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome;

    /// Offers the same bytes to many connections; appends one outcome each, in order. An implementation that can submit many
    /// sends at once does so here.
    fn send_each(&mut self, lanes: &[u32], bytes: &[u8], outcomes: &mut Vec<Outcome>) {
        outcomes.extend(lanes.iter().map(|&lane| self.send(lane, bytes)));
    }
}
