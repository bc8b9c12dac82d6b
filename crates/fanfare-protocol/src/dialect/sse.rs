//! Server-Sent Events (WHATWG HTML, section 9.2): the JSON dialect's objects as events of a stream.
//!
//! An event is a few lines and an empty one. A message has the type that `EventSource` calls `onmessage` for, everything else its
//! `name` for a type. A message's `id` is its position: browsers send it back as `Last-Event-ID` when they reconnect.

use std::io::Write as _;

use super::json;
use crate::wire::split_frame;
use crate::{CloseReason, Event, Position, RoomEvent};

/// A comment: keeps an idle stream, and what is between, alive. No client sees it.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The type of an `error` event: that one is taken, by the event with which `EventSource` reports a broken connection.
const REFUSED: &str = "refused";

/// Appends the first words on a stream: how long to wait before coming back, the position to come back from if the stream ends
/// before the next message, and `subscribed`, which must be an [`Event::Subscribed`].
///
/// Whoever resumes gives `resume` as it was before the messages that follow for it, not as it is after them. It stands first because
/// a client that reconnects forgets the last id at the first event without one.
pub fn opening(retry_ms: u64, resume: Position, subscribed: &Event<'_>, out: &mut Vec<u8>) {
    line(out, format_args!("retry: {retry_ms}"));
    line(out, format_args!("id: {resume}"));
    encode_event(subscribed, out);
}

/// Appends the last event of a stream: why it ends.
pub fn close_event(reason: CloseReason, out: &mut Vec<u8>) {
    line(out, format_args!("event: close"));
    out.extend_from_slice(b"data: ");
    let (code, text) = (reason.code().0, reason.text());
    let _ = write!(out, r#"{{"name":"close","code":{code},"reason":"#);
    serde_json::to_writer(&mut *out, &text).expect("writing a string to memory does not fail");
    out.extend_from_slice(b"}\n\n");
}

pub(super) fn encode_room_event(event: &RoomEvent, out: &mut Vec<u8>) {
    match event {
        RoomEvent::Message(_, published) => line(out, format_args!("id: {}", published.position)),
        RoomEvent::Joined(..) | RoomEvent::MemberJoined(..) => line(out, format_args!("event: joined")),
        RoomEvent::Left(..) => line(out, format_args!("event: left")),
        RoomEvent::RoomClosed(_) => line(out, format_args!("event: room_closed")),
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    json::encode_room_event(event, false, out);
    let header = split_frame(&out[start..]).map_or(0, |(framed, _)| framed.whole.len() - framed.payload.len());
    debug_assert!(header > 0, "the JSON dialect has a frame for everything a room is told");
    out.drain(start..start + header);
    on_one_line(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

pub(super) fn encode_event(event: &Event<'_>, out: &mut Vec<u8>) {
    let mut frame = Vec::new();
    json::encode_event(event, false, &mut frame);
    let Some((framed, _)) = split_frame(&frame) else { return };
    if let Event::Drain { retry_ms } = event {
        line(out, format_args!("retry: {retry_ms}"));
    }
    line(out, format_args!("event: {}", event_type(framed.payload)));
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(framed.payload);
    on_one_line(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

/// The `name` that our own object begins with.
fn event_type(object: &[u8]) -> &str {
    let name = object.strip_prefix(br#"{"name":""#).and_then(|rest| rest.split(|&byte| byte == b'"').next());
    match name.and_then(|name| str::from_utf8(name).ok()) {
        Some("error") | None => REFUSED,
        Some(name) => name,
    }
}

fn line(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(line);
    out.push(b'\n');
}

/// Within JSON a line end is white space: in a string it is escaped. Here it would end the field, so it becomes a space; a line of
/// data for each would make a long event of a short message.
fn on_one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests;
