//! Why a token was refused, and why a key.

use std::fmt;

/// Shortest HMAC secret, bytes: as long as the hash of HS256 (RFC 7518 section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// No key is configured: tokens cannot be checked.
    NoKeys,
    /// Over [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    TooLong,
    /// Not a JSON Web Token in compact form (RFC 7515 section 7.1), or its header is no JSON object with an `alg`.
    Malformed,
    /// Its header has `crit`: it asks for an extension to be understood, and none is (RFC 7515 section 4.1.11).
    Critical,
    /// An algorithm no key here is for; `none` among them.
    Algorithm,
    /// Its key may be among those that are published elsewhere, and they have not been had.
    KeysUnavailable,
    /// Its `kid` names a key that is not here.
    KeyUnknown,
    /// No key here signed it.
    Signature,
    /// Its claims are no JSON object, or one of them is of the wrong kind, there twice, or too much.
    Claims,
    /// Past its `exp`.
    Expired,
    /// Before its `nbf`.
    NotYet,
    /// Its `aud` is missing or does not name this gateway.
    Audience,
    /// Its `iss` is missing or somebody else.
    Issuer,
    /// Its `sub` (or `name`, where there is no `sub`) cannot be a user's name.
    Subject,
    /// Taken back before its end.
    Revoked,
}

impl TokenError {
    /// Every one, for tables of documentation.
    pub const ALL: [Self; 15] = [
        Self::NoKeys,
        Self::TooLong,
        Self::Malformed,
        Self::Critical,
        Self::Algorithm,
        Self::KeysUnavailable,
        Self::KeyUnknown,
        Self::Signature,
        Self::Claims,
        Self::Expired,
        Self::NotYet,
        Self::Audience,
        Self::Issuer,
        Self::Subject,
        Self::Revoked,
    ];

    /// What the client is told; says nothing about keys.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoKeys => "this node checks no tokens: it has no auth.keys",
            Self::TooLong => "token too long",
            Self::Malformed => "token malformed",
            Self::Critical => "token has a critical header that is not understood here",
            Self::Algorithm => "token algorithm not accepted",
            Self::KeysUnavailable => "token keys not available",
            Self::KeyUnknown => "token key not known",
            Self::Signature => "token signature wrong",
            Self::Claims => "token claims malformed",
            Self::Expired => "token expired",
            Self::NotYet => "token not valid yet",
            Self::Audience => "token audience wrong",
            Self::Issuer => "token issuer wrong",
            Self::Subject => "token subject is not a name",
            Self::Revoked => "token revoked",
        }
    }

    /// Stable label for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoKeys => "no_keys",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::KeysUnavailable => "keys_unavailable",
            Self::KeyUnknown => "key_unknown",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Revoked => "revoked",
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
    /// A PEM block that is no RSA, P-256 or Ed25519 public key.
    #[error("the PEM block is not an RSA, P-256 or Ed25519 public key")]
    Pem,
    /// No secret to mint with: public keys only check.
    #[error("minting needs an HMAC secret among auth.keys; tokens of a key pair are minted where its private key is")]
    NoSecret,
}
