//! JSON Web Tokens (RFC 7519): whether one holds, and what it grants. Told the time; the signatures are the library's affair.
//!
//! The way of a token is short and the same for all: [`Envelope::open`] takes it apart, a key that may check its algorithm must have signed it, and
//! only then are its claims read and judged. Whatever is unclear on the way is an error with a name.

mod claims;
mod envelope;
mod error;
mod explain;
mod grant;
mod key;
mod key_set;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::UserName;
use jsonwebtoken::{Algorithm, Header, encode};

pub use claims::{Claims, NumericDate};
pub use error::{KeyError, TokenError};
pub use explain::{Explanation, Signer};
pub use grant::{Grant, RoomRight};
pub use key_set::{KEY_SET_BYTES_MAX, KeySet, KeySetError, SkippedKey};

use claims::ReadClaims;
use envelope::Envelope;
use key::Key;

use crate::Identity;

/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// What the clocks of whoever mints and whoever checks may differ by.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// What every token must say besides being signed. Empty: it is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// Name that must be in `aud`.
    pub audience: String,
    /// What `iss` must be.
    pub issuer: String,
}

/// Public keys that somebody else publishes, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub enum Published<'a> {
    /// None are asked for.
    None,
    /// They are asked for, and have not been had yet.
    Missing,
    /// These.
    Set(&'a KeySet),
}

/// A token that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who it speaks for, and what it grants.
    pub identity: Identity,
    /// Until when, since 1970: its `exp`, with the skew of clocks where that is over already. `None`: without an end.
    pub expires: Option<Duration>,
    /// When it was minted, since 1970.
    pub issued: Option<Duration>,
    /// Its own name (`jti`).
    pub id: Option<Box<str>>,
}

/// The keys that are valid now, several at once so that they can be changed without a gap.
#[derive(Clone, Default)]
pub struct TokenKeys {
    keys: Arc<[Key]>,
    rules: Arc<TokenRules>,
}

impl TokenKeys {
    /// Takes HMAC secrets, and public keys in PEM.
    ///
    /// # Errors
    /// The place of the first key that is unfit, and why.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, KeyError)> {
        let keys = keys.into_iter().enumerate().map(|(at, key)| Key::parse(key).map_err(|error| (at, error)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, rules: Arc::default() })
    }

    /// The same keys, for tokens that also keep these rules. Tokens that are minted do.
    #[must_use]
    pub fn with_rules(self, rules: TokenRules) -> Self {
        Self { rules: Arc::new(rules), ..self }
    }

    /// What they ask of tokens besides.
    #[must_use]
    pub fn rules(&self) -> &TokenRules {
        &self.rules
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
    pub fn verify(&self, token: &str, now: Duration) -> Result<Verified, TokenError> {
        self.verify_among(Published::None, token, now)
    }

    /// The same with keys that are published elsewhere, too.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_among(&self, published: Published<'_>, token: &str, now: Duration) -> Result<Verified, TokenError> {
        if self.keys.is_empty() && matches!(published, Published::None) {
            return Err(TokenError::NoKeys);
        }
        let envelope = Envelope::open(token)?;
        self.signer(published, &envelope)?;
        self.judge(ReadClaims::parse(&envelope.claims)?, now)
    }

    /// The key that signed the token.
    fn signer<'a>(&'a self, published: Published<'a>, token: &Envelope<'_>) -> Result<&'a Key, TokenError> {
        let others: &[Key] = match published {
            Published::Set(set) => &set.keys,
            Published::None | Published::Missing => &[],
        };
        let keys = self.keys.iter().chain(others);
        let mut error = TokenError::Algorithm;
        for key in keys.filter(|key| key.algorithms.contains(&token.algorithm)) {
            if !key.answers_to(token.kid.as_deref()) {
                // One that was tried says more.
                error = if error == TokenError::Signature { error } else { TokenError::KeyUnknown };
                continue;
            }
            if key.signed(token) {
                return Ok(key);
            }
            error = TokenError::Signature;
        }
        // No set has secrets: who signs with one is none of its owner's.
        let is_secret = matches!(token.algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        Err(match (published, token.kid.as_deref()) {
            (Published::Missing, _) if !is_secret => TokenError::KeysUnavailable,
            (Published::Set(set), Some(kid)) if !is_secret && !set.names(kid) => TokenError::KeyUnknown,
            _ => error,
        })
    }

    /// What claims come to that a key of ours has signed.
    fn judge(&self, claims: ReadClaims, now: Duration) -> Result<Verified, TokenError> {
        let TokenRules { audience, issuer } = &*self.rules;
        if !audience.is_empty() && !claims.aud.is_some_and(|aud| aud.contains(audience)) {
            return Err(TokenError::Audience);
        }
        if !issuer.is_empty() && claims.iss.as_ref() != Some(issuer) {
            return Err(TokenError::Issuer);
        }
        let expires = claims.exp.map(|exp| exp.0);
        if expires.is_some_and(|expires| now >= expires.saturating_add(CLOCK_SKEW)) {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|begins| now.saturating_add(CLOCK_SKEW) < begins.0) {
            return Err(TokenError::NotYet);
        }
        // What its end says holds. Only who comes with one that is over already is granted the skew of clocks.
        let expires = expires.map(|expires| if now < expires { expires } else { expires.saturating_add(CLOCK_SKEW) });
        let user = claims.sub.or(claims.name);
        let user = user.as_deref().map(UserName::parse).transpose().map_err(|_| TokenError::Subject)?;
        let identity = Identity { user, grants: Some(claims.rooms.grants().collect()), guest: None };
        let id = claims.jti.map(String::into_boxed_str);
        Ok(Verified { identity, expires, issued: claims.iat.map(|issued| issued.0), id })
    }

    /// Signs `claims` with the first HMAC secret (HS256), for the audience and in the name of the issuer that the rules ask for.
    ///
    /// # Errors
    /// [`KeyError::NoSecret`] when there are only public keys.
    pub fn mint(&self, claims: &Claims) -> Result<String, KeyError> {
        let key = self.keys.iter().find_map(|key| key.mints.as_ref()).ok_or(KeyError::NoSecret)?;
        let asked = |rule: &String| Some(rule.clone()).filter(|rule| !rule.is_empty());
        let mut claims = claims.clone();
        claims.aud = claims.aud.or_else(|| asked(&self.rules.audience));
        claims.iss = claims.iss.or_else(|| asked(&self.rules.issuer));
        encode(&Header::new(Algorithm::HS256), &claims, key).map_err(|_| KeyError::NoSecret)
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} secret)", self.keys.len())
    }
}

#[cfg(test)]
mod tests;
