//! The message languages, and the wire forms a room's events take in them.

mod json;
mod text;

use crate::{Event, RoomEvent};

/// The language a connection speaks after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Objects with a `name`.
    Json,
    /// Messages as they are.
    Text,
    /// As [`Dialect::Text`], with queued text messages joined by a newline into one.
    TextJoined,
}

/// Number of [`Variant`]s.
pub const VARIANTS: usize = 4;

/// A wire form of room events: dialect × whether the room must be named. Subscribers of one variant share bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Variant {
    /// JSON on `/room/{room}`: the room is not named.
    JsonRoom = 0,
    /// JSON on `/ws`: the room is named.
    JsonRooms = 1,
    /// Text.
    Text = 2,
    /// Text whose queued messages are joined by a newline.
    TextJoined = 3,
}

impl Variant {
    /// The variant with this number.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::JsonRoom),
            1 => Some(Self::JsonRooms),
            2 => Some(Self::Text),
            3 => Some(Self::TextJoined),
            _ => None,
        }
    }

    /// Appends `event` to `out` as complete WebSocket frames; appends nothing where the dialect has no word for it.
    pub fn encode(self, event: &RoomEvent, out: &mut Vec<u8>) {
        match self {
            Self::JsonRoom => json::encode_room_event(event, false, out),
            Self::JsonRooms => json::encode_room_event(event, true, out),
            Self::Text | Self::TextJoined => text::encode_room_event(event, out),
        }
    }

    /// For [`Variant::TextJoined`] and two or more frames: the same messages, runs of text joined by newlines into one frame
    /// each. `frames` holds whole frames as [`Variant::encode`] wrote them. `None` where nothing is to be joined.
    #[must_use]
    pub fn join(self, frames: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::TextJoined => text::join(frames),
            Self::JsonRoom | Self::JsonRooms | Self::Text => None,
        }
    }
}

impl Dialect {
    /// Appends `event` to `out` as one WebSocket frame; nothing where the dialect has no word for it. `named` says whether
    /// room fields are written (they are left out on `/room/{room}`).
    pub fn encode_event(self, event: &Event<'_>, named: bool, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode_event(event, named, out),
            Self::Text | Self::TextJoined => {}
        }
    }
}

#[cfg(test)]
mod tests;
