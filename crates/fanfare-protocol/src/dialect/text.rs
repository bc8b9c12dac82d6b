//! The text dialect: messages as they are.

use std::borrow::Cow;

use crate::wire::{Framed, Opcode, frame, frame_header, split_frame};
use crate::{Payload, RoomEvent};

pub(super) fn encode_room_event(event: &RoomEvent, out: &mut Vec<u8>) {
    match event {
        RoomEvent::Message(_, published) => match &published.payload {
            Payload::Json(json) => frame(Opcode::Text, &plain(json), out),
            Payload::Text(text) => frame(Opcode::Text, text, out),
            Payload::Binary(bytes) => frame(Opcode::Binary, bytes, out),
        },
        RoomEvent::Joined(..) | RoomEvent::MemberJoined(..) | RoomEvent::Left(..) | RoomEvent::RoomClosed(_) => {}
    }
}

/// A JSON value as people read it: a string's content, anything else as it is written. A string that is no Unicode text
/// (half a surrogate pair) has no content that a text message could carry, so it stays as it is written too.
fn plain(json: &[u8]) -> Cow<'_, [u8]> {
    let Some(content) = json.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(json);
    };
    if !content.contains(&b'\\') {
        return Cow::Borrowed(content);
    }
    serde_json::from_slice(json).map_or(Cow::Borrowed(json), |text: String| Cow::Owned(text.into_bytes()))
}

/// See [`crate::Variant::join`].
pub(super) fn join(frames: &[u8]) -> Option<Vec<u8>> {
    let runs = || Frames(frames);
    let texts = || runs().map(|frame| frame.opcode == Opcode::Text);
    if !texts().zip(texts().skip(1)).any(|pair| pair == (true, true)) {
        return None;
    }
    debug_assert_eq!(runs().map(|frame| frame.whole.len()).sum::<usize>(), frames.len(), "whole frames of our own");

    let mut out = Vec::with_capacity(frames.len());
    let mut rest = Frames(frames);
    while let Some(first) = rest.next() {
        let run = rest;
        let others = if first.opcode == Opcode::Text { run.take_while(is_text).count() } else { 0 };
        let more = run.take(others);
        let length = more.clone().map(|frame| 1 + frame.payload.len()).sum::<usize>() + first.payload.len();
        frame_header(first.opcode, length, &mut out);
        out.extend_from_slice(first.payload);
        for frame in more {
            out.push(b'\n');
            out.extend_from_slice(frame.payload);
            rest.next();
        }
    }
    Some(out)
}

fn is_text(frame: &Framed<'_>) -> bool {
    frame.opcode == Opcode::Text
}

/// The frames that our own bytes hold.
#[derive(Clone, Copy)]
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Framed<'a>;

    fn next(&mut self) -> Option<Framed<'a>> {
        let (frame, rest) = split_frame(self.0)?;
        self.0 = rest;
        Some(frame)
    }
}
