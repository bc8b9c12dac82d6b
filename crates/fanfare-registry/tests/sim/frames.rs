//! Frames that say what they are: `[room|M|offset|text]`, `[room|J|user]`, `[room|L|user]`, `[room|C]`.

use std::io::Write;
use std::sync::Arc;

use fanfare_fanout::Encode;
use fanfare_protocol::{Payload, RoomEvent, UserName};
use fanfare_registry::Said;

/// The variant that has no word for who comes and goes.
pub(crate) const PLAIN: u8 = 2;

/// What a room says, spelled.
pub(crate) struct Spelled(pub(crate) Arc<Said>);

/// Appends an event's frame, if `variant` has one.
pub(crate) fn spell(event: &RoomEvent, variant: u8, out: &mut Vec<u8>) {
    let user = |user: &Option<UserName>| user.as_ref().map_or(String::new(), ToString::to_string);
    match event {
        RoomEvent::Message(room, published) => {
            let offset = published.offset.map_or(String::new(), |offset| offset.to_string());
            let (Payload::Text(text) | Payload::Json(text) | Payload::Binary(text)) = &published.payload;
            write!(out, "[{room}|M|{offset}|{}]", String::from_utf8_lossy(text))
        }
        RoomEvent::MemberJoined(..) => unreachable!("no application has rooms here"),
        RoomEvent::Joined(..) | RoomEvent::Left(..) if variant == PLAIN => Ok(()),
        RoomEvent::Joined(room, who) => write!(out, "[{room}|J|{}]", user(who)),
        RoomEvent::Left(room, who) => write!(out, "[{room}|L|{}]", user(who)),
        RoomEvent::RoomClosed(room) => write!(out, "[{room}|C]"),
    }
    .expect("memory takes everything");
}

impl Encode for Spelled {
    const VARIANTS: u8 = 3;
    type Tools = ();
    type Room = ();

    fn encode(&self, variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        spell(&self.0.event, variant, out);
    }

    fn payload_bytes(&self) -> usize {
        self.0.payload_bytes()
    }
}
