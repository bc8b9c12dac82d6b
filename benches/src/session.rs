//! Messages into actions, in each mode of a connection.

use std::hint::black_box;

use fanfare_protocol::wire::{Decoder, Input, Message};
use fanfare_protocol::{Action, Dialect, MessageLimits, Mode, PayloadRef, Session};

use crate::dialects::{json, room};
use crate::wire::text_frame;
use crate::{Amount, Run, Stage, repeat};

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    vec![
        Stage::new("session/handle/room_text", Amount::One, 2_000, || handle(Mode::Room(room()), Dialect::Text)),
        Stage::new("session/handle/room_json", Amount::One, 2_000, || handle(Mode::Room(room()), Dialect::Json)),
        Stage::new("session/handle/rooms_json", Amount::One, 2_000, || handle(Mode::Rooms, Dialect::Json)),
        Stage::new("session/handle/echo", Amount::One, 2_000, || handle(Mode::Echo, Dialect::Text)),
        Stage::new("session/read/publish", Amount::One, 2_000, read_publish),
    ]
}

/// A publication of 128 bytes on a connection that has been talking for a while.
fn handle(mode: Mode, dialect: Dialect) -> Run {
    let limits = MessageLimits::default();
    let text = command();
    let mut session = Session::new(mode, dialect);
    repeat(move || {
        let action = session.handle(Message::Text(black_box(&text)), &limits);
        assert!(matches!(black_box(action), Action::Publish { .. } | Action::Reply(_)));
    })
}

/// Everything between the socket's bytes and a publication that rooms can share: decoder, session, and the one copy of the
/// payload. The frame is copied into the read buffer each time, as the kernel would.
fn read_publish() -> Run {
    let limits = MessageLimits::default();
    let frame = text_frame(command().as_bytes(), [0x37, 0xfa, 0x21, 0x3d]);
    let mut read_buffer = frame.clone();
    let mut decoder = Decoder::new();
    let mut session = Session::new(Mode::Rooms, Dialect::Json);
    repeat(move || {
        read_buffer.copy_from_slice(&frame);
        let decoded = decoder.next(black_box(&mut read_buffer), &limits);
        let Ok((_, Some(Input::Message(message)))) = decoded else { panic!("one message") };
        let Action::Publish { payload: payload @ PayloadRef::Json(_), .. } = session.handle(message, &limits) else {
            panic!("a publication")
        };
        assert!(!black_box(payload.to_payload()).is_empty());
    })
}

fn command() -> String {
    let message = json(128);
    let message = str::from_utf8(&message).expect("it is JSON");
    format!(r#"{{"name":"publish","room":"chat:lobby","message":{message}}}"#)
}
