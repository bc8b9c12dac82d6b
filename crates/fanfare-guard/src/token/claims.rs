//! The claims of a token (RFC 7519 section 4): as they are written, and as they are read from strangers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Grant, RoomRight, TokenError};

/// Grants one token may carry: they are looked through at each command.
const GRANTS_MAX: usize = 256;

/// What a token says, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The user where there is no `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it ends, seconds since 1970. Without it a token holds as long as its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// When it was minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<NumericDate>,
    /// Its own name, by which it can be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Who it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Who minted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Rights by room, or by the beginning of rooms' names where the pattern ends in `*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<String, Vec<RoomRight>>,
}

/// A moment as tokens write it: seconds since 1970, perhaps with a fraction (RFC 7519 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericDate(pub Duration);

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.subsec_nanos() {
            0 => serializer.serialize_u64(self.0.as_secs()),
            // Milliseconds are enough, and survive the way through a floating-point number.
            _ => serializer.serialize_f64(self.0.as_millis() as f64 / 1_000.0),
        }
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Moment;

        impl Visitor<'_> for Moment {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(Duration::from_secs(seconds)))
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<NumericDate, E> {
                let wrong = |_| E::invalid_value(Unexpected::Float(seconds), &self);
                Duration::try_from_secs_f64(seconds).map(NumericDate).map_err(wrong)
            }
        }

        deserializer.deserialize_any(Moment)
    }
}

/// The claims that matter here, as they are read. One of the wrong kind refuses the token: a `null` that counted as left out would make one without
/// an end. One that is there twice does, too: whoever minted and whoever checks could take different ones. Claims nobody here knows are passed over.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReadClaims {
    #[serde(default, deserialize_with = "given")]
    pub(super) sub: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(super) exp: Option<NumericDate>,
    #[serde(default, deserialize_with = "given")]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "given")]
    pub(super) iat: Option<NumericDate>,
    #[serde(default, deserialize_with = "given")]
    pub(super) jti: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(super) aud: Option<Audience>,
    #[serde(default, deserialize_with = "given")]
    pub(super) iss: Option<String>,
    #[serde(default)]
    pub(super) rooms: Rooms,
}

impl ReadClaims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenError> {
        if !is_object(json) {
            return Err(TokenError::Claims);
        }
        serde_json::from_slice(json).map_err(|_| TokenError::Claims)
    }
}

/// Serde would take an array for an object, its elements for the fields in order.
pub(super) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

/// A value that is there is of its type: `null` is not.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Who a token is for: one name, or several (RFC 7519 section 4.1.3).
#[derive(Debug)]
pub(super) struct Audience(Vec<String>);

impl Audience {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|audience| audience == name)
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Audience, E> {
                Ok(Audience(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Audience, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(Audience(all))
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// The claim `rooms`: each pattern once, at most [`GRANTS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Rooms(pub(super) BTreeMap<String, Vec<RoomRight>>);

impl Rooms {
    pub(super) fn grants(&self) -> impl Iterator<Item = Grant> {
        self.0.iter().map(|(pattern, rights)| Grant::new(pattern, rights))
    }
}

impl<'de> Deserialize<'de> for Rooms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Patterns;

        impl<'de> Visitor<'de> for Patterns {
            type Value = Rooms;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rights by the pattern of rooms' names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut patterns: A) -> Result<Rooms, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((pattern, rights)) = patterns.next_entry::<String, Vec<RoomRight>>()? {
                    if all.insert(pattern, rights).is_some() {
                        return Err(A::Error::custom("a pattern is there twice"));
                    }
                    if all.len() > GRANTS_MAX {
                        return Err(A::Error::custom("too many patterns"));
                    }
                }
                Ok(Rooms(all))
            }
        }

        deserializer.deserialize_map(Patterns)
    }
}
