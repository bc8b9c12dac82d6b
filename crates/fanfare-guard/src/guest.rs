//! Guest tokens: what brings a guest who chose a name back as the same user.
//!
//! They are JSON Web Tokens (HS256) whose key is made from a secret and is not the secret itself: a guest's token never passes for one of
//! the operator's, here or at a backend that checks tokens with the same secret.

use std::fmt;
use std::time::Duration;

use fanfare_protocol::UserName;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::TokenError;

/// Value of `typ` in a guest token's header (RFC 7519 section 5.1).
const TYPE: &str = "fanfare-guest+jwt";

/// Keeps the key apart from every other use of the secret.
const LABEL: &[u8] = b"fanfare guest token 1\0";

/// Longest token that is looked at, bytes: a name of 200 bytes and a number come to less.
const BYTES_MAX: usize = 1_024;

/// So long a guest may stay away and come back as the same user.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The key of guest tokens.
#[derive(Clone)]
pub struct GuestKey {
    mints: EncodingKey,
    checks: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// The guest's number, 16 hexadecimal digits: who takes the name when it is free again is somebody else.
    guest: String,
    exp: u64,
}

impl GuestKey {
    /// The key that is made from `secret`.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let key = Sha256::new().chain_update(LABEL).chain_update(secret).finalize();
        Self { mints: EncodingKey::from_secret(&key), checks: DecodingKey::from_secret(&key) }
    }

    /// True when `token` says of itself that it is a guest's. Whether it holds is [`Self::verify`]'s to say.
    #[must_use]
    pub fn is_meant(token: &str) -> bool {
        token.len() <= BYTES_MAX && decode_header(token).is_ok_and(|header| header.typ.as_deref() == Some(TYPE))
    }

    /// A token for the guest with this name and number. `now` is since 1970.
    #[must_use]
    pub fn mint(&self, user: &UserName, guest: u64, now: Duration) -> Option<String> {
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let exp = now.saturating_add(LIFE).as_secs();
        let claims = Claims { sub: user.to_string(), guest: format!("{guest:016x}"), exp };
        encode(&header, &claims, &self.mints).ok()
    }

    /// The guest that a token speaks for at `now` (since 1970).
    ///
    /// # Errors
    /// [`TokenError`]; whatever is unclear is an error.
    pub fn verify(&self, token: &str, now: Duration) -> Result<(UserName, u64), TokenError> {
        if token.len() > BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would read the clock; times are checked against the one we are told.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let data = decode::<Claims>(token, &self.checks, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
                _ => TokenError::Malformed,
            }
        })?;
        if data.header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Malformed);
        }
        let Claims { sub, guest, exp } = data.claims;
        if now.as_secs() >= exp {
            return Err(TokenError::Expired);
        }
        let guest = u64::from_str_radix(&guest, 16).map_err(|_| TokenError::Malformed)?;
        Ok((UserName::guest(&sub).map_err(|_| TokenError::Subject)?, guest))
    }
}

impl fmt::Debug for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenKeys;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn zoe() -> UserName {
        UserName::guest("Zoë").expect("a valid name")
    }

    #[test]
    fn a_guests_token_brings_the_same_guest_back() {
        let key = GuestKey::new(SECRET.as_bytes());
        let token = key.mint(&zoe(), 0xfeed, at(1_000)).expect("a token");
        assert!(GuestKey::is_meant(&token));
        assert_eq!(key.verify(&token, at(1_000)), Ok((zoe(), 0xfeed)));
        assert_eq!(key.verify(&token, at(1_000) + LIFE), Err(TokenError::Expired));
        assert_eq!(GuestKey::new(b"another").verify(&token, at(1_000)), Err(TokenError::Signature));
        assert!(!format!("{key:?}").contains(SECRET));
    }

    #[test]
    fn a_guests_token_is_none_of_the_operators_and_the_other_way_round() {
        let key = GuestKey::new(SECRET.as_bytes());
        let keys = TokenKeys::parse([SECRET]).expect("a fit key");
        let guests = key.mint(&zoe(), 1, at(0)).expect("a token");
        assert!(keys.verify(&guests, at(0)).is_err(), "it would pass for the operator's");
        // Signed with the secret itself, with the right type: still not by this key.
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let claims = Claims { sub: "root".to_owned(), guest: "1".to_owned(), exp: u64::MAX };
        let forged = encode(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
        assert_eq!(key.verify(&forged, at(0)), Err(TokenError::Signature));
    }

    #[test]
    fn whatever_is_damaged_is_refused() {
        let key = GuestKey::new(SECRET.as_bytes());
        let token = key.mint(&zoe(), 1, at(0)).expect("a token");
        for at_byte in 0..token.len() - 1 {
            let mut damaged = token.clone().into_bytes();
            damaged[at_byte] = if damaged[at_byte] == b'A' { b'Q' } else { b'A' };
            let damaged = String::from_utf8(damaged).expect("ASCII");
            assert!(key.verify(&damaged, at(0)).is_err(), "byte {at_byte}");
        }
        // {"alg":"none","typ":"fanfare-guest+jwt"}
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiZmFuZmFyZS1ndWVzdCtqd3QifQ.eyJzdWIiOiJyb290In0.";
        for bad in ["", ".", "..", "a.b.c", none, &format!("{token}.x"), &"x".repeat(BYTES_MAX + 1)] {
            assert!(key.verify(bad, at(0)).is_err(), "{bad}");
            assert!(!GuestKey::is_meant(bad), "{bad}");
        }
    }
}
