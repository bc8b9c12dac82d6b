//! Rights by room.

use fanfare_protocol::RoomName;
use serde::{Deserialize, Serialize};

/// What a token may grant in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomRight {
    /// Listen.
    Subscribe,
    /// Speak.
    Publish,
    /// Ask who is there.
    Presence,
    /// Close the room for all.
    Moderate,
}

/// Rights in the rooms of one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// A room's name, or its beginning where `is_prefix`.
    pattern: Box<str>,
    is_prefix: bool,
    /// A bit for each [`RoomRight`].
    rights: u8,
}

impl Grant {
    /// Rights in the room called `pattern`, or, where it ends in `*`, in all rooms whose names begin with what stands before.
    #[must_use]
    pub fn new(pattern: &str, rights: &[RoomRight]) -> Self {
        let (pattern, is_prefix) = pattern.strip_suffix('*').map_or((pattern, false), |prefix| (prefix, true));
        let rights = rights.iter().fold(0, |bits, &right| bits | bit(right));
        Self { pattern: pattern.into(), is_prefix, rights }
    }

    /// True when it grants `right` in `room`.
    #[must_use]
    pub fn covers(&self, room: &RoomName, right: RoomRight) -> bool {
        let is_meant =
            if self.is_prefix { room.as_str().starts_with(&*self.pattern) } else { room.as_str() == &*self.pattern };
        is_meant && self.rights & bit(right) != 0
    }
}

const fn bit(right: RoomRight) -> u8 {
    1 << right as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_their_beginnings() {
        let room = |name: &str| RoomName::parse(name).expect("a valid name");
        for (pattern, name, expected) in [
            ("lobby", "lobby", true),
            ("lobby", "lobby2", false),
            ("chat:*", "chat:", true),
            ("chat:*", "chat:1", true),
            ("chat:*", "chat", false),
            ("*", "anything", true),
            ("a*b", "a*b", true),
            ("a*b", "aXb", false),
        ] {
            let grant = Grant::new(pattern, &[RoomRight::Publish]);
            assert_eq!(grant.covers(&room(name), RoomRight::Publish), expected, "{pattern} {name}");
            assert!(!grant.covers(&room(name), RoomRight::Moderate));
        }
    }
}
