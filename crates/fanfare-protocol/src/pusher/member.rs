//! Members of presence channels: what an application says of them, and how all of them are told.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::UserName;
use crate::depth::{JSON_DEPTH_MAX, nests_deeper};
use crate::dialect::json_string;

/// Longest id of a user, characters.
pub const USER_ID_CHARS_MAX: usize = 128;

/// Who a member is, in the application's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberData {
    /// The user.
    pub user: UserName,
    /// What else is told of him: JSON as text.
    pub info: Arc<str>,
}

impl MemberData {
    /// Reads `channel_data`, whose signature holds. `info_bytes_max`: what may be told of a user.
    ///
    /// # Errors
    /// For people: what is wrong with it.
    pub fn read(channel_data: &str, info_bytes_max: usize) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            user_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
        }
        let Fields { user_id, user_info } = object("channel_data", channel_data)?;
        let user_id = user_id.ok_or("channel_data.user_id is missing")?.get();
        let user = match user_id.as_bytes().first() {
            Some(b'"') => serde_json::from_str(user_id).map_err(|error| format!("channel_data.user_id: {error}"))?,
            // A number is its digits.
            Some(b'-' | b'0'..=b'9') => user_id.to_owned(),
            _ => return Err("channel_data.user_id must be a string or a number".to_owned()),
        };
        Self::checked(("channel_data", "user_id"), &user, user_info, info_bytes_max)
    }

    /// Reads `user_data` of who signs in, whose signature holds.
    ///
    /// # Errors
    /// For people: what is wrong with it.
    pub fn of_user(user_data: &str, info_bytes_max: usize) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
        }
        let Fields { id, user_info } = object("user_data", user_data)?;
        let id = id.ok_or("user_data.id is missing")?.get();
        let user: String = serde_json::from_str(id).map_err(|_| "user_data.id must be a string")?;
        Self::checked(("user_data", "id"), &user, user_info, info_bytes_max)
    }

    /// `place`: where it stands, and the name of the id there.
    fn checked(
        (place, id): (&str, &str),
        user: &str,
        info: Option<&RawValue>,
        info_bytes_max: usize,
    ) -> Result<Self, String> {
        if user.chars().count() > USER_ID_CHARS_MAX {
            return Err(format!("{place}.{id} has at most {USER_ID_CHARS_MAX} characters"));
        }
        let user = UserName::parse(user).map_err(|error| format!("{place}.{id}: {error}"))?;
        let info = info.map_or("null", RawValue::get);
        if info.len() > info_bytes_max {
            return Err(format!("{place}.user_info has at most {info_bytes_max} bytes"));
        }
        if nests_deeper(info, JSON_DEPTH_MAX) {
            return Err(format!("{place}.user_info nests more than {JSON_DEPTH_MAX} levels deep"));
        }
        Ok(Self { user, info: info.into() })
    }
}

/// An object: without this look an array would do, whose elements serde takes for the fields in order.
fn object<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, String> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(format!("{what} must be a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| format!("{what} is not JSON: {error}"))
}

/// All members of a channel, as a client is told them when it is one: JSON as text.
pub fn snapshot<'a>(members: impl ExactSizeIterator<Item = (&'a UserName, Option<&'a str>)> + Clone) -> String {
    let mut out = format!(r#"{{"presence":{{"count":{},"ids":["#, members.len()).into_bytes();
    for (index, (user, _)) in members.clone().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json_string(user.as_str(), &mut out);
    }
    out.extend_from_slice(br#"],"hash":{"#);
    for (index, (user, info)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json_string(user.as_str(), &mut out);
        out.push(b':');
        out.extend_from_slice(info.unwrap_or("null").as_bytes());
    }
    out.extend_from_slice(b"}}}");
    String::from_utf8(out).expect("it was made of text")
}

/// Bytes that a member takes in such a list, once that is told as a string in JSON.
#[must_use]
pub fn member_bytes(user: &UserName, info: Option<&str>) -> usize {
    let (user, info) = (user.as_str(), info.unwrap_or("null"));
    let escape = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        // White space between values is one: `\n`, or longer.
        0..=0x1f => 5,
        _ => 0,
    };
    let escaped = |text: &str| text.bytes().map(escape).sum::<usize>();
    // Twice with quotes, each of which is escaped once, and what is escaped in a name is escaped again; two commas and a colon.
    2 * (user.len() + 3 * escaped(user) + 4) + info.len() + escaped(info) + 3
}
