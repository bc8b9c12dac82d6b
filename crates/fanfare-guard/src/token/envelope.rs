//! A token's outer form: three parts in base64url, of which the first says how it was signed (RFC 7515 section 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims::{given, is_object};
use super::{TOKEN_BYTES_MAX, TokenError};

/// A token that has been taken apart; nothing in it is believed yet.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) algorithm: Algorithm,
    /// Which key signed it, says the token.
    pub(super) kid: Option<String>,
    /// What was signed: header and claims as they are written.
    pub(super) signed: &'a [u8],
    pub(super) signature: &'a str,
    /// The claims, JSON if the token is well-formed.
    pub(super) claims: Vec<u8>,
}

/// What of the header is looked at. That it names keys (`jwk`, `jku`, `x5c`, …) is passed over: keys come from the configuration alone.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "given")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "given")]
    crit: Option<IgnoredAny>,
}

impl<'a> Envelope<'a> {
    pub(super) fn open(token: &'a str) -> Result<Self, TokenError> {
        let (header, claims) = decode(token)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        if !is_object(&header) {
            return Err(TokenError::Malformed);
        }
        let Header { alg, kid, crit } = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        if crit.is_some() {
            return Err(TokenError::Critical);
        }
        let algorithm = algorithm(&alg).ok_or(TokenError::Algorithm)?;
        Ok(Self { algorithm, kid, signed: signed.as_bytes(), signature, claims })
    }
}

/// Header and claims of a token, decoded; a signature that is no base64url is refused, too.
pub(super) fn decode(token: &str) -> Result<(Vec<u8>, Vec<u8>), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let part = |part: Option<&str>| URL_SAFE_NO_PAD.decode(part?).ok();
    let mut parts = token.split('.');
    let decoded = (part(parts.next()), part(parts.next()), part(parts.next()), parts.next());
    let (Some(header), Some(claims), Some(_), None) = decoded else { return Err(TokenError::Malformed) };
    Ok((header, claims))
}

/// The algorithms that are accepted. The library knows more of them; a token cannot choose those.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "ES256" => Algorithm::ES256,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}
