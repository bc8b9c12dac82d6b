//! The channel that is for one user alone: a name that applications use, and the room that it is.

use std::borrow::Cow;

use crate::{NameError, RoomName, UserName};

/// What names of such channels begin with. Behind it stands the user's id, with whatever characters it has.
const PREFIX: &str = "#server-to-user-";

/// What such a room's name begins with behind its namespace; names of other channels never do.
pub(super) const MARK: char = '~';

/// The id of the user whose channel this is; `None`: it is another channel.
#[must_use]
pub fn user_of_channel(channel: &str) -> Option<&str> {
    channel.strip_prefix(PREFIX)
}

/// The room that a user's channel is in this namespace, which has no colon.
///
/// # Errors
/// [`NameError`] when both together are longer than a room's name may be.
pub fn user_room(namespace: &str, user: &UserName) -> Result<RoomName, NameError> {
    let mut name = String::from(MARK);
    for character in user.as_str().chars() {
        if !character.is_whitespace() && !character.is_control() && !matches!(character, '%' | '/' | '?' | '#') {
            name.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    RoomName::in_namespace(namespace, &name)
}

/// What stands behind a room's namespace as clients know it.
pub(super) fn shown(channel: &str) -> Cow<'_, str> {
    let Some(user) = channel.strip_prefix(MARK) else { return channel.into() };
    let mut id = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind.first_chunk::<2>().filter(|_| first == b'%');
        let byte = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        id.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    format!("{PREFIX}{}", String::from_utf8_lossy(&id)).into()
}
