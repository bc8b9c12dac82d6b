//! What a token says and what comes of it, for people.

use std::time::Duration;

use serde_json::Value;

use super::claims::ReadClaims;
use super::envelope::{Envelope, decode};
use super::{CLOCK_SKEW, Published, RoomRight, TokenError, TokenKeys, Verified};

/// Whose key signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// A configured one: its place among them, from 0.
    Configured(usize),
    /// One of the published set.
    Published,
}

/// A token looked at from all sides. Header and claims are what it says, whether it holds or not.
#[derive(Debug)]
pub struct Explanation {
    /// Its header, where that is JSON.
    pub header: Option<Value>,
    /// Its claims, where they are JSON.
    pub claims: Option<Value>,
    /// Which key signed it.
    pub key: Option<Signer>,
    /// When it is taken last, since 1970: its end and the skew of clocks.
    pub taken_until: Option<Duration>,
    /// What it grants, by pattern, where that can be read.
    pub grants: Vec<(String, Vec<RoomRight>)>,
    /// Whether it holds.
    pub verdict: Result<Verified, TokenError>,
}

impl TokenKeys {
    /// Looks at `token` from all sides at `now` (since 1970). Never tells a key.
    #[must_use]
    pub fn explain(&self, published: Published<'_>, token: &str, now: Duration) -> Explanation {
        let (header, claims) = decode(token).ok().unzip();
        let json = |bytes: &Option<Vec<u8>>| serde_json::from_slice(bytes.as_deref()?).ok();
        let read = claims.as_deref().and_then(|claims| ReadClaims::parse(claims).ok()).unwrap_or_default();
        let signer = Envelope::open(token).ok().and_then(|envelope| self.signer(published, &envelope).ok());
        let key = signer.map(|signer| {
            let place = self.keys.iter().position(|key| std::ptr::eq(key, signer));
            place.map_or(Signer::Published, Signer::Configured)
        });
        let taken_until = read.exp.map(|exp| exp.0.saturating_add(CLOCK_SKEW));
        let (header, claims) = (json(&header), json(&claims));
        let verdict = self.verify_among(published, token, now);
        Explanation { header, claims, key, taken_until, grants: read.rooms.0.into_iter().collect(), verdict }
    }
}
