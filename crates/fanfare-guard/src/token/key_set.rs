//! Public keys as their owner publishes them: a JSON Web Key Set (RFC 7517).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::claims::{given, is_object};
use super::key::Key;

/// Longest set that is read, bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Keys of one set.
const KEYS_MAX: usize = 100;

/// Longest name of a key, bytes.
const KEY_ID_BYTES_MAX: usize = 256;

/// RSA keys from what is safe to what the library checks, bytes of the modulus.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// Public keys that tokens are checked with beside the configured ones.
#[derive(Clone, Default)]
pub struct KeySet {
    pub(super) keys: Arc<[Key]>,
}

/// Why a text is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Over [`KEY_SET_BYTES_MAX`].
    #[error("over {KEY_SET_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JSON object with the list `keys`.
    #[error("not a JSON Web Key Set: an object with the list `keys` is expected")]
    Form,
    /// Too many keys.
    #[error("over {KEYS_MAX} keys")]
    TooMany,
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set, from 0.
    pub place: usize,
    /// Why, for people.
    pub why: &'static str,
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What of a key is looked at (RFC 7517 section 4, RFC 7518 section 6). Members of the wrong type, or there twice, spoil it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default, deserialize_with = "given")]
    kid: Option<String>,
    #[serde(default, rename = "use", deserialize_with = "given")]
    usage: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key_ops: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    alg: Option<String>,
    #[serde(default, deserialize_with = "given")]
    crv: Option<String>,
    #[serde(default, deserialize_with = "given")]
    n: Option<String>,
    #[serde(default, deserialize_with = "given")]
    e: Option<String>,
    #[serde(default, deserialize_with = "given")]
    x: Option<String>,
    #[serde(default, deserialize_with = "given")]
    y: Option<String>,
    /// The private half.
    #[serde(default, deserialize_with = "given")]
    d: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a set. Keys that cannot be used are left out and named; a set may come to nothing.
    ///
    /// # Errors
    /// [`KeySetError`] when it is no set at all.
    pub fn parse(json: &[u8]) -> Result<(Self, Vec<SkippedKey>), KeySetError> {
        if json.len() > KEY_SET_BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        if !is_object(json) {
            return Err(KeySetError::Form);
        }
        let set: Set<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::Form)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (place, key) in set.keys.into_iter().enumerate() {
            match parse_key(key.get()) {
                Ok(key) => keys.push(key),
                Err(why) => skipped.push(SkippedKey { place, why }),
            }
        }
        Ok((Self { keys: keys.into() }, skipped))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// True when a key has this name.
    pub(super) fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(kid))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} public)", self.keys.len())
    }
}

fn parse_key(json: &str) -> Result<Key, &'static str> {
    let malformed = "it is malformed";
    if !is_object(json.as_bytes()) {
        return Err(malformed);
    }
    let jwk: Jwk = serde_json::from_str(json).map_err(|_| malformed)?;
    // Whoever reads the set knows it, and could mint with it.
    if jwk.kty == "oct" {
        return Err("it is a secret (`oct`), which has no place in a public set");
    }
    if jwk.d.is_some() {
        return Err("it has its private half, which has no place in a public set");
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("its `use` is not `sig`");
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("its `key_ops` do not have `verify`");
    }
    if jwk.kid.as_ref().is_some_and(|kid| kid.len() > KEY_ID_BYTES_MAX) {
        return Err("its `kid` is too long");
    }
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => ("RS256", rsa(&jwk)?),
        ("EC", Some("P-256")) => ("ES256", ec(&jwk).ok_or(malformed)?),
        ("OKP", Some("Ed25519")) => ("EdDSA", ed(&jwk).ok_or(malformed)?),
        _ => return Err("its type or curve is not accepted"),
    };
    if jwk.alg.as_deref().is_some_and(|alg| alg != algorithm) {
        return Err("its `alg` is not accepted");
    }
    Key::public(key, jwk.kid.map(String::into_boxed_str)).ok_or(malformed)
}

fn rsa(jwk: &Jwk) -> Result<DecodingKey, &'static str> {
    let (Some(n), Some(e)) = (part(jwk.n.as_ref()), part(jwk.e.as_ref())) else { return Err("it is malformed") };
    let modulus = n.iter().position(|&byte| byte != 0).map_or(&[][..], |first| &n[first..]);
    if !MODULUS_BYTES.contains(&modulus.len()) {
        return Err("its modulus is not 2,048 to 4,096 bits long");
    }
    // 65537 and the like. Large ones only make each check long.
    if e.len() > 4 {
        return Err("its exponent is too large");
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, &e))
}

fn ec(jwk: &Jwk) -> Option<DecodingKey> {
    let (x, y) = (part(jwk.x.as_ref())?, part(jwk.y.as_ref())?);
    let is_whole = x.len() == 32 && y.len() == 32;
    is_whole.then(|| DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?).ok())?
}

fn ed(jwk: &Jwk) -> Option<DecodingKey> {
    DecodingKey::from_ed_components(jwk.x.as_deref()?).ok()
}

fn part(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}
