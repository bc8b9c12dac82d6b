//! JSON Web Tokens (RFC 7519): whether one holds, and what it grants. Told the time; the signatures are the library's affair.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::{RoomName, UserName};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use crate::Identity;

/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// Shortest HMAC secret, bytes: as long as the hash of HS256 (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Grants one token may carry: they are looked through at each command.
const GRANTS_MAX: usize = 256;

/// What the clocks of whoever mints and whoever checks may differ by.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

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

/// What a token says, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// When it ends, seconds since 1970. Without it a token holds as long as its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Rights by room, or by the beginning of rooms' names where the pattern ends in `*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<String, Vec<RoomRight>>,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// No key is configured: tokens cannot be checked.
    NoKeys,
    /// Over [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not a JSON Web Token, or claims of the wrong kind.
    Malformed,
    /// An algorithm no key here is for; `none` among them.
    Algorithm,
    /// No key here signed it.
    Signature,
    /// Past its `exp`.
    Expired,
    /// Before its `nbf`.
    NotYet,
    /// Its `sub` cannot be a user's name.
    Subject,
}

impl TokenError {
    /// What the client is told; says nothing about keys.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoKeys => "this node checks no tokens: it has no auth.keys",
            Self::TooLong => "token too long",
            Self::Malformed => "token malformed",
            Self::Algorithm => "token algorithm not accepted",
            Self::Signature => "token signature wrong",
            Self::Expired => "token expired",
            Self::NotYet => "token not valid yet",
            Self::Subject => "token subject is not a name",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for TokenError {}

/// Why a key was refused. Never quotes the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An HMAC secret too short to resist guessing.
    #[error("a secret must have at least {SECRET_BYTES_MIN} bytes; make one with `openssl rand -hex 32`")]
    ShortSecret,
    /// A PEM block that is no RSA, EC or Ed25519 public key.
    #[error("the PEM block is not an RSA, EC or Ed25519 public key")]
    Pem,
    /// No secret to mint with: public keys only check.
    #[error("minting needs an HMAC secret among auth.keys; tokens of a key pair are minted where its private key is")]
    NoSecret,
}

/// A key with the algorithms it may be used for: a public key never checks an HMAC, whatever a token says of itself.
#[derive(Clone)]
struct Key {
    algorithms: &'static [Algorithm],
    checks: DecodingKey,
    mints: Option<EncodingKey>,
}

/// The keys that are valid now, several at once so that they can be changed without a gap.
#[derive(Clone, Default)]
pub struct TokenKeys {
    keys: Arc<[Key]>,
}

impl TokenKeys {
    /// Takes HMAC secrets, and public keys in PEM.
    ///
    /// # Errors
    /// The place of the first key that is unfit, and why.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, KeyError)> {
        let keys = keys.into_iter().enumerate().map(|(at, key)| parse_key(key).map_err(|error| (at, error)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether `token` holds at `now` (since 1970): who it speaks for, and until when.
    ///
    /// # Errors
    /// [`TokenError`]; whatever is unclear is an error.
    pub fn verify(&self, token: &str, now: Duration) -> Result<(Identity, Option<Duration>), TokenError> {
        if self.keys.is_empty() {
            return Err(TokenError::NoKeys);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let algorithm = decode_header(token).map_err(|_| TokenError::Malformed)?.alg;
        let claims = self.check(token, algorithm)?;
        let expires = claims.exp.map(Duration::from_secs);
        if expires.is_some_and(|expires| now >= expires.saturating_add(CLOCK_SKEW)) {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|begins| now.saturating_add(CLOCK_SKEW) < Duration::from_secs(begins)) {
            return Err(TokenError::NotYet);
        }
        if claims.rooms.len() > GRANTS_MAX {
            return Err(TokenError::Malformed);
        }
        let user = claims.sub.as_deref().map(UserName::parse).transpose().map_err(|_| TokenError::Subject)?;
        let grants = claims.rooms.iter().map(|(pattern, rights)| Grant::new(pattern, rights)).collect();
        Ok((Identity { user, grants: Some(grants) }, expires.map(|expires| expires.saturating_add(CLOCK_SKEW))))
    }

    fn check(&self, token: &str, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let mut error = TokenError::Algorithm;
        for key in self.keys.iter().filter(|key| key.algorithms.contains(&algorithm)) {
            let mut validation = Validation::new(algorithm);
            // The library would read the clock; times are checked against the one we are told.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            match decode::<Claims>(token, &key.checks, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(cause) => {
                    use jsonwebtoken::errors::ErrorKind;
                    error = match cause.kind() {
                        ErrorKind::InvalidSignature => TokenError::Signature,
                        _ => TokenError::Malformed,
                    };
                }
            }
        }
        Err(error)
    }

    /// Signs `claims` with the first HMAC secret (HS256).
    ///
    /// # Errors
    /// [`KeyError::NoSecret`] when there are only public keys.
    pub fn mint(&self, claims: &Claims) -> Result<String, KeyError> {
        let key = self.keys.iter().find_map(|key| key.mints.as_ref()).ok_or(KeyError::NoSecret)?;
        encode(&Header::new(Algorithm::HS256), claims, key).map_err(|_| KeyError::NoSecret)
    }
}

fn parse_key(key: &str) -> Result<Key, KeyError> {
    use Algorithm::{ES256, EdDSA, HS256, HS384, HS512, RS256};
    if !key.contains("-----BEGIN") {
        if key.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret);
        }
        let mints = Some(EncodingKey::from_secret(key.as_bytes()));
        let checks = DecodingKey::from_secret(key.as_bytes());
        return Ok(Key { algorithms: &[HS256, HS384, HS512], checks, mints });
    }
    let pem = key.as_bytes();
    let public = |algorithms: &'static [Algorithm], checks: DecodingKey| Key { algorithms, checks, mints: None };
    DecodingKey::from_rsa_pem(pem)
        .map(|key| public(&[RS256], key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| public(&[ES256], key)))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| public(&[EdDSA], key)))
        .map_err(|_| KeyError::Pem)
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} secret)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8=\n-----END PUBLIC KEY-----\n";

    fn keys(keys: &[&str]) -> TokenKeys {
        TokenKeys::parse(keys.iter().copied()).expect("fit keys")
    }

    fn claims(sub: &str, exp: Option<u64>, nbf: Option<u64>) -> Claims {
        let rooms = [("chat:*".to_owned(), vec![RoomRight::Subscribe])].into();
        Claims { sub: Some(sub.to_owned()), exp, nbf, rooms }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).expect("a valid name")
    }

    #[test]
    fn a_minted_token_holds_and_grants_what_it_says() {
        let keys = keys(&[SECRET]);
        let token = keys.mint(&claims("ann", Some(1_000), None)).expect("a token");
        let (identity, expires) = keys.verify(&token, at(500)).expect("it holds");
        assert_eq!(identity.user.as_ref().map(UserName::as_str), Some("ann"));
        assert_eq!(expires, Some(at(1_030)));
        assert!(identity.is_granted(&room("chat:1"), RoomRight::Subscribe));
        assert!(!identity.is_granted(&room("chat:1"), RoomRight::Publish));
        assert!(!identity.is_granted(&room("chats"), RoomRight::Subscribe));
    }

    #[test]
    fn time_is_judged_with_a_little_skew() {
        let keys = keys(&[SECRET]);
        let token = keys.mint(&claims("ann", Some(1_000), Some(900))).expect("a token");
        for (now, expected) in [
            (869, Err(TokenError::NotYet)),
            (870, Ok(())),
            (1_029, Ok(())),
            (1_030, Err(TokenError::Expired)),
            (u64::MAX, Err(TokenError::Expired)),
        ] {
            assert_eq!(keys.verify(&token, at(now)).map(|_| ()), expected, "at {now}");
        }
    }

    #[test]
    fn several_keys_hold_at_once_and_a_stranger_does_not() {
        let token = keys(&[OTHER]).mint(&claims("ann", None, None)).expect("a token");
        assert_eq!(keys(&[SECRET]).verify(&token, at(0)), Err(TokenError::Signature));
        assert!(keys(&[SECRET, OTHER]).verify(&token, at(0)).is_ok());
        assert_eq!(TokenKeys::default().verify(&token, at(0)), Err(TokenError::NoKeys));
    }

    #[test]
    fn the_key_decides_the_algorithm_and_not_the_token() {
        // An attacker signs with the public key's text as if it were an HMAC secret.
        let forged = encode(
            &Header::new(Algorithm::HS256),
            &claims("root", None, None),
            &EncodingKey::from_secret(ED_PUBLIC.as_bytes()),
        )
        .expect("a token");
        assert_eq!(keys(&[ED_PUBLIC]).verify(&forged, at(0)), Err(TokenError::Algorithm));
        // {"alg":"none"} . {"sub":"root"} . nothing
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.";
        for keys in [keys(&[SECRET]), keys(&[ED_PUBLIC])] {
            assert!(matches!(keys.verify(none, at(0)), Err(TokenError::Malformed | TokenError::Algorithm)));
        }
        assert_eq!(keys(&[ED_PUBLIC]).mint(&claims("ann", None, None)), Err(KeyError::NoSecret));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let keys = keys(&[SECRET]);
        let token = keys.mint(&claims("ann", None, None)).expect("a token");
        for at_byte in 0..token.len() {
            let mut damaged = token.clone().into_bytes();
            damaged[at_byte] = if damaged[at_byte] == b'A' { b'Q' } else { b'A' };
            let damaged = String::from_utf8(damaged).expect("ASCII");
            // The last character of a signature carries bits that do not count.
            if at_byte + 1 < token.len() {
                assert!(keys.verify(&damaged, at(0)).is_err(), "byte {at_byte}");
            }
        }
        for bad in ["", ".", "..", "a.b.c", "eyJhbGciOiJIUzI1NiJ9", &token[1..], &format!("{token}.x")] {
            assert!(keys.verify(bad, at(0)).is_err(), "{bad}");
        }
        assert_eq!(keys.verify(&"x".repeat(TOKEN_BYTES_MAX + 1), at(0)), Err(TokenError::TooLong));
        let nameless = keys.mint(&claims("a\nb", None, None)).expect("a token");
        assert_eq!(keys.verify(&nameless, at(0)), Err(TokenError::Subject));
    }

    #[test]
    fn unfit_keys_are_named_by_their_place_and_never_quoted() {
        let refused = |keys: &[&str]| TokenKeys::parse(keys.iter().copied()).map(|_| ()).expect_err("unfit");
        assert_eq!(refused(&[SECRET, "hunter2"]), (1, KeyError::ShortSecret));
        assert_eq!(refused(&["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]), (0, KeyError::Pem));
        assert!(!format!("{:?}", keys(&[SECRET])).contains(SECRET));
    }

    #[test]
    fn patterns_are_names_or_their_beginnings() {
        let grant = |pattern: &str| Grant::new(pattern, &[RoomRight::Publish]);
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
            assert_eq!(grant(pattern).covers(&room(name), RoomRight::Publish), expected, "{pattern} {name}");
            assert!(!grant(pattern).covers(&room(name), RoomRight::Moderate));
        }
    }
}
