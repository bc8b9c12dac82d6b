//! Pusher Channels, protocol 7: names of channels, what clients ask, and what one client is told. What a whole room is told in this
//! dialect stands with the other dialects.
//!
//! A channel is a room: its application's namespace, a colon, and the channel's name.

mod command;
mod member;
mod reply;
mod user;

use std::borrow::Cow;

use crate::{NameError, RoomName};

pub use crate::dialect::{data_of, is_client_event};
pub use command::PusherCommand;
pub(crate) use command::action;
pub use member::{MemberData, USER_ID_CHARS_MAX, member_bytes, snapshot};
pub use reply::{ChannelRefusal, PusherReply};
pub use user::{user_of_channel, user_room};

/// Longest name of an event, characters.
pub const EVENT_CHARS_MAX: usize = 200;

/// Versions of the protocol that need nothing different from a server.
pub const PROTOCOLS: std::ops::RangeInclusive<u32> = 5..=7;

/// What events that the gateway alone may tell begin with.
const RESERVED: [&str; 2] = ["pusher:", "pusher_internal:"];

/// What a client's own events begin with.
pub const CLIENT_PREFIX: &str = "client-";

/// What names of channels begin with whose members are known.
pub(crate) const PRESENCE_PREFIX: &str = "presence-";

/// Whether backends may give an event this name.
///
/// # Errors
/// For people: why not.
pub fn check_event_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.chars().count() > EVENT_CHARS_MAX {
        return Err("the name of an event has 1 to 200 characters");
    }
    if RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
        return Err("names that begin with pusher: or pusher_internal: are the gateway's own");
    }
    Ok(())
}

/// The name of a channel, checked: 1 to 200 of `A–Z a–z 0–9 _ - = @ , . ;`. Its kind follows from how it begins, and from nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelName<'a>(&'a str);

impl<'a> ChannelName<'a> {
    /// Longest name, bytes.
    pub const BYTES_MAX: usize = 200;

    /// Checks `name`.
    ///
    /// # Errors
    /// For people: what is wrong with it.
    pub fn parse(name: &'a str) -> Result<Self, &'static str> {
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err("the name of a channel has 1 to 200 characters");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte)) {
            return Err("the name of a channel is made of A-Z a-z 0-9 _ - = @ , . ;");
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Its members are known by name, and told to each other.
    #[must_use]
    pub fn is_presence(self) -> bool {
        self.0.starts_with(PRESENCE_PREFIX)
    }

    /// Who subscribes must bring the application's word for it; who is subscribed may publish client events.
    #[must_use]
    pub fn needs_auth(self) -> bool {
        needs_auth(self.0)
    }

    /// Its last event is told to who comes later.
    #[must_use]
    pub fn is_cache(self) -> bool {
        is_cache(self.0)
    }

    /// The room that it is in this namespace, which has no colon.
    ///
    /// # Errors
    /// [`NameError`] when both together are longer than a room's name may be.
    pub fn room(self, namespace: &str) -> Result<RoomName, NameError> {
        RoomName::in_namespace(namespace, self.0)
    }
}

/// Whether a channel of this name is private, for its members alone, or for one user.
fn needs_auth(name: &str) -> bool {
    name.starts_with("private-") || name.starts_with(PRESENCE_PREFIX) || name.starts_with(user::MARK)
}

/// Whether a channel of this name tells its last event to who comes later.
fn is_cache(name: &str) -> bool {
    const CACHES: [&str; 4] = ["cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"];
    CACHES.iter().any(|prefix| name.starts_with(prefix))
}

/// The channel that a room is: what stands behind its namespace.
pub(crate) fn channel_of(room: &RoomName) -> &str {
    let name = room.as_str();
    name.split_once(':').map_or(name, |(_, channel)| channel)
}

/// The name of the channel that a room is, as clients know it.
pub(crate) fn shown_channel_of(room: &RoomName) -> Cow<'_, str> {
    user::shown(channel_of(room))
}

/// Whether a room of an application's namespace is a private channel: in no dialect it is entered without a word of the application's.
#[must_use]
pub fn is_private_room(room: &RoomName) -> bool {
    needs_auth(channel_of(room))
}

/// Whether a room of an application's namespace is a channel whose members are known.
#[must_use]
pub fn is_presence_room(room: &RoomName) -> bool {
    channel_of(room).starts_with(PRESENCE_PREFIX)
}

/// Whether a room of an application's namespace is a channel whose last event is told to who comes later.
#[must_use]
pub fn is_cache_room(room: &RoomName) -> bool {
    is_cache(channel_of(room))
}

#[cfg(test)]
mod tests;
