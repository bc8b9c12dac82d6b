//! Payloads as they are, in both directions: Fanfare's text dialect, every echo path, and servers that send each message to everyone
//! on a path, such as Nchan.

use super::{Heard, Outgoing, Session};

/// The path is the room.
#[derive(Debug)]
pub struct AsIs;

impl Session for AsIs {
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
