//! Nchan (an nginx module): a location with `nchan_pubsub websocket`, whose channel is the last part of the path.

use super::{Heard, Outgoing, Session};

/// Messages are as they are, in both directions.
#[derive(Debug)]
pub struct Nchan;

impl Session for Nchan {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        true
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        hear(Heard::Payload(message));
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        out.text(&[payload]);
    }
}
