//! Names that have been checked once: nothing behind the door re-checks them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A room's name: 1–200 bytes of UTF-8, no control characters, no white space, no `/`, `?` or `#`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

/// Why a name was refused. The texts are for people and say what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No characters at all.
    #[error("the name is empty")]
    Empty,
    /// Over the byte limit.
    #[error("the name is {bytes} bytes long; at most {max} are allowed")]
    TooLong {
        /// Length found, bytes.
        bytes: usize,
        /// Length allowed, bytes.
        max: usize,
    },
    /// Outside the guest name's length in characters.
    #[error("the name has {chars} characters; 2 to 20 are allowed")]
    Length {
        /// Length found, characters.
        chars: usize,
    },
    /// A control character, white space, or one of `/ ? #`.
    #[error("the character {0:?} is not allowed in a name")]
    Character(char),
}

fn check_length(name: &str, max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > max => Err(NameError::TooLong { bytes, max }),
        _ => Ok(()),
    }
}

impl RoomName {
    /// Longest room name, bytes.
    pub const BYTES_MAX: usize = 200;

    /// Checks `name` and takes a copy of it.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, or has a character that is not allowed.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        Self::checked(name, Self::BYTES_MAX)
    }

    /// Longest name that the gateway makes itself, bytes: the namespace of an application and the name of its channel. Who is asked for
    /// a name may use those of [`Self::BYTES_MAX`] alone.
    pub const MADE_BYTES_MAX: usize = 255;

    /// A name that the gateway has made, or another node of it: as [`Self::parse`], up to [`Self::MADE_BYTES_MAX`].
    ///
    /// # Errors
    /// See [`Self::parse`].
    pub fn parse_made(name: &str) -> Result<Self, NameError> {
        Self::checked(name, Self::MADE_BYTES_MAX)
    }

    /// The name of `rest` in a namespace.
    ///
    /// # Errors
    /// See [`Self::parse_made`].
    pub fn in_namespace(namespace: &str, rest: &str) -> Result<Self, NameError> {
        Self::parse_made(&format!("{namespace}:{rest}"))
    }

    fn checked(name: &str, bytes_max: usize) -> Result<Self, NameError> {
        check_length(name, bytes_max)?;
        // Most names are plain ASCII, where a look at each byte is enough.
        if name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#')) {
            return Ok(Self(name.into()));
        }
        match name.chars().find(|&c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '?' | '#')) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, which chooses the room's rules; `default` when there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("default", |(namespace, _)| namespace)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's name as others see it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

impl UserName {
    /// Checks a name a guest chose for itself: 2–20 characters, no control characters.
    ///
    /// # Errors
    /// [`NameError::Length`] or [`NameError::Character`].
    pub fn guest(name: &str) -> Result<Self, NameError> {
        let chars = name.chars().count();
        if !(2..=20).contains(&chars) {
            return Err(NameError::Length { chars });
        }
        match name.chars().find(|c| c.is_control()) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// Longest name a token may give, bytes.
    pub const BYTES_MAX: usize = 200;

    /// Checks the name a token gives its user: 1–200 bytes, no control characters.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, or has a control character.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check_length(name, Self::BYTES_MAX)?;
        match name.chars().find(|c| c.is_control()) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that users in a map can be looked up, and gone through from a place on, by text.
impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_are_checked_at_the_door() {
        for good in ["lobby", "chat:42", "房间", "a", "комната-7", "emoji🎺", &"x".repeat(200)] {
            assert_eq!(RoomName::parse(good).map(|r| r.to_string()), Ok(good.to_string()), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\nb",
            "a\u{7f}b",
            "a\u{3000}b",
            "a\u{85}b",
            &"x".repeat(201),
            &"é".repeat(101),
        ] {
            assert!(RoomName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_namespace_is_the_part_before_the_first_colon() {
        for (room, namespace) in [("lobby", "default"), ("chat:1", "chat"), ("a:b:c", "a"), (":x", "")] {
            assert_eq!(RoomName::parse(room).expect("a valid name").namespace(), namespace);
        }
    }

    #[test]
    fn guest_names_have_2_to_20_characters() {
        assert!(UserName::guest("Al").is_ok() && UserName::guest(&"名".repeat(20)).is_ok());
        assert_eq!(UserName::guest("A"), Err(NameError::Length { chars: 1 }));
        assert_eq!(UserName::guest(&"a".repeat(21)), Err(NameError::Length { chars: 21 }));
        assert_eq!(UserName::guest("a\u{0}b"), Err(NameError::Character('\u{0}')));
    }
}
