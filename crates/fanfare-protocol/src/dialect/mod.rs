//! The message languages, and the wire forms a room's events take in them.

mod json;
mod pusher;
pub mod sse;
mod text;

use crate::wire::{Deflater, Window, close_frame, close_frame_as};
use crate::{CloseReason, Event, RoomEvent};

pub(crate) use json::string as json_string;
pub use pusher::{data_of, is_client_event};

/// The language a connection speaks after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Objects with a `name`.
    Json,
    /// Messages as they are.
    Text,
    /// As [`Dialect::Text`], with queued text messages joined by a newline into one.
    TextJoined,
    /// The objects of [`Dialect::Json`] as Server-Sent Events, for clients that only listen.
    Sse,
    /// Pusher Channels, protocol 7.
    Pusher,
}

/// Number of [`Variant`]s.
pub const VARIANTS: usize = 6;

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
    /// Pusher Channels.
    Pusher = 3,
    /// Text whose queued messages are joined by a newline.
    TextJoined = 4,
    /// Server-Sent Events.
    Sse = 5,
}

impl Variant {
    /// The variant with this number.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::JsonRoom),
            1 => Some(Self::JsonRooms),
            2 => Some(Self::Text),
            3 => Some(Self::Pusher),
            4 => Some(Self::TextJoined),
            5 => Some(Self::Sse),
            _ => None,
        }
    }

    /// Appends `event` to `out` as complete frames (WebSocket's, or events of a stream); appends nothing where the dialect has no word for it.
    pub fn encode(self, event: &RoomEvent, out: &mut Vec<u8>) {
        match self {
            Self::JsonRoom => json::encode_room_event(event, false, out),
            Self::JsonRooms => json::encode_room_event(event, true, out),
            Self::Text | Self::TextJoined => text::encode_room_event(event, out),
            Self::Sse => sse::encode_room_event(event, out),
            Self::Pusher => pusher::encode_room_event(event, out),
        }
    }

    /// Appends what one client is told to `out` as one frame; appends nothing where the dialect has no word for it.
    pub fn encode_event(self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Self::JsonRoom => Dialect::Json.encode_event(event, false, out),
            Self::JsonRooms => Dialect::Json.encode_event(event, true, out),
            Self::Text => Dialect::Text.encode_event(event, false, out),
            Self::TextJoined => Dialect::TextJoined.encode_event(event, false, out),
            Self::Sse => Dialect::Sse.encode_event(event, false, out),
            Self::Pusher => Dialect::Pusher.encode_event(event, true, out),
        }
    }

    /// For [`Variant::TextJoined`] and two or more frames: the same messages, runs of text joined by newlines into one frame
    /// each. `frames` holds whole frames as [`Variant::encode`] wrote them. `None` where nothing is to be joined.
    #[must_use]
    pub fn join(self, frames: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::TextJoined => text::join(frames),
            Self::JsonRoom | Self::JsonRooms | Self::Text | Self::Pusher | Self::Sse => None,
        }
    }
}

/// Variants whose messages may be compressed; [`Variant::TextJoined`] merges its frames, so they stay readable, and
/// [`Variant::Sse`] has none of WebSocket's extensions. [`Variant::Pusher`] would be three forms more than fan-out has places for; its clients may
/// compress what they send.
const DEFLATED: [Variant; 3] = [Variant::JsonRoom, Variant::JsonRooms, Variant::Text];

/// Number of [`WireForm`]s.
pub const WIRE_FORMS: usize = VARIANTS + Window::ALL.len() * DEFLATED.len();

/// What subscribers share bytes by: a variant, plain or compressed with a window. Plain ones have the index of their
/// variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WireForm {
    variant: Variant,
    window: Option<Window>,
}

impl WireForm {
    /// The form for a connection that takes `variant` and agreed to be sent messages compressed with `window`.
    #[must_use]
    pub fn new(variant: Variant, window: Option<Window>) -> Self {
        Self { variant, window: window.filter(|_| DEFLATED.contains(&variant)) }
    }

    /// Its number, below [`WIRE_FORMS`].
    #[must_use]
    pub const fn index(self) -> u8 {
        match self.window {
            None => self.variant as u8,
            // The variants that are compressed are the first ones.
            Some(window) => (VARIANTS + window.index() * DEFLATED.len()) as u8 + self.variant as u8,
        }
    }

    /// The form with this number.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        let Some(deflated) = usize::from(index).checked_sub(VARIANTS) else {
            return Variant::from_index(index).map(|variant| Self { variant, window: None });
        };
        let window = *Window::ALL.get(deflated / DEFLATED.len())?;
        Some(Self { variant: DEFLATED[deflated % DEFLATED.len()], window: Some(window) })
    }

    /// True when messages may be compressed in it.
    #[must_use]
    pub const fn is_deflated(self) -> bool {
        self.window.is_some()
    }

    /// Appends `event` to `out` as complete WebSocket frames; appends nothing where the dialect has no word for it.
    pub fn encode(self, event: &RoomEvent, deflater: &mut Deflater, out: &mut Vec<u8>) {
        match self.window {
            None => self.variant.encode(event, out),
            Some(window) => deflater.frames(window, out, |plain| self.variant.encode(event, plain)),
        }
    }

    /// See [`Variant::encode_event`]. What is for one client alone is not compressed.
    pub fn encode_event(self, event: &Event<'_>, out: &mut Vec<u8>) {
        self.variant.encode_event(event, out);
    }

    /// See [`Variant::join`].
    #[must_use]
    pub fn join(self, frames: &[u8]) -> Option<Vec<u8>> {
        self.variant.join(frames)
    }
}

impl Dialect {
    /// Appends `event` to `out` as one frame; nothing where the dialect has no word for it. `named` says whether
    /// room fields are written (they are left out on `/room/{room}`).
    pub fn encode_event(self, event: &Event<'_>, named: bool, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode_event(event, named, out),
            Self::Text | Self::TextJoined => {}
            Self::Sse => sse::encode_event(event, out),
            Self::Pusher => pusher::encode_event(event, out),
        }
    }

    /// Appends the close frame that tells a client `reason`, with the code that its dialect has for it. An event stream has none: see
    /// [`sse::close_event`].
    pub fn close_frame(self, reason: CloseReason, out: &mut Vec<u8>) {
        match self {
            Self::Pusher => close_frame_as(reason.pusher_code(), &reason.text(), out),
            Self::Json | Self::Text | Self::TextJoined | Self::Sse => close_frame(reason, out),
        }
    }
}

#[cfg(test)]
mod tests;
