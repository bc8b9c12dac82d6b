//! Keys, each bound to the algorithms it may be used for.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, crypto};

use super::KeyError;
use super::envelope::Envelope;
use super::error::SECRET_BYTES_MIN;

/// A key with the algorithms it may be used for: a public key never checks an HMAC, whatever a token says of itself.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) algorithms: &'static [Algorithm],
    /// Its name, by which tokens may say that they were signed with it. Who names another key is not checked with this one.
    pub(super) id: Option<Box<str>>,
    checks: DecodingKey,
    pub(super) mints: Option<EncodingKey>,
}

impl Key {
    /// An HMAC secret, or a public key in PEM.
    pub(super) fn parse(key: &str) -> Result<Self, KeyError> {
        use Algorithm::{HS256, HS384, HS512};
        if !key.contains("-----BEGIN") {
            if key.len() < SECRET_BYTES_MIN {
                return Err(KeyError::ShortSecret);
            }
            let mints = Some(EncodingKey::from_secret(key.as_bytes()));
            let checks = DecodingKey::from_secret(key.as_bytes());
            return Ok(Self { algorithms: &[HS256, HS384, HS512], id: None, checks, mints });
        }
        let pem = key.as_bytes();
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| KeyError::Pem)?;
        Self::public(key, None).ok_or(KeyError::Pem)
    }

    /// A public key, if it is one that signatures can be checked with.
    pub(super) fn public(checks: DecodingKey, id: Option<Box<str>>) -> Option<Self> {
        let algorithms: &[Algorithm] = match checks.family() {
            AlgorithmFamily::Rsa => &[Algorithm::RS256],
            AlgorithmFamily::Ec => &[Algorithm::ES256],
            // The library takes the first 32 bytes of whatever there is, and panics where there are less.
            AlgorithmFamily::Ed if checks.try_get_as_bytes().is_ok_and(|key| key.len() == 32) => &[Algorithm::EdDSA],
            _ => return None,
        };
        // Keys on another curve, or on none, are found out here and not by the first token.
        crypto::verify("", b"", &checks, algorithms[0]).ok()?;
        Some(Self { algorithms, id, checks, mints: None })
    }

    /// True when a token that says it was signed by `kid` may have been signed by this key.
    pub(super) fn answers_to(&self, kid: Option<&str>) -> bool {
        match (&self.id, kid) {
            (Some(id), Some(kid)) => &**id == kid,
            _ => true,
        }
    }

    /// True when this key signed the token. Its algorithm must be one of this key's.
    pub(super) fn signed(&self, token: &Envelope<'_>) -> bool {
        debug_assert!(self.algorithms.contains(&token.algorithm), "the key decides what it is used for");
        crypto::verify(token.signature, token.signed, &self.checks, token.algorithm).unwrap_or(false)
    }
}
