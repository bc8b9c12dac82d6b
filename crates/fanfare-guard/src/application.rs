//! What applications of Pusher's kind sign with: a public key, and a secret that nobody else has.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The key and the secret of an application: HMAC-SHA-256 (RFC 2104), in lower-case hexadecimal. The secret is not kept as text, and never
/// shown.
#[derive(Clone)]
pub struct ApplicationKey {
    key: Box<str>,
    mac: Hmac<Sha256>,
}

/// Digits of a signature.
const DIGITS: usize = 64;

impl ApplicationKey {
    /// The key, and what is signed with.
    #[must_use]
    pub fn new(key: &str, secret: &[u8]) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("a secret of any length will do");
        Self { key: key.into(), mac }
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The signature of these parts, one behind the other.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; DIGITS / 2] {
        self.over(parts).finalize().into_bytes().into()
    }

    /// Whether `signature`, in hexadecimal, is the one of these parts. Takes the same time whatever it is.
    #[must_use]
    pub fn signed(&self, signature: &str, parts: &[&[u8]]) -> bool {
        let Some(signature) = bytes_of(signature) else { return false };
        self.over(parts).verify_slice(&signature).is_ok()
    }

    /// The same of a word of the form `key:signature`, as the application gives it to its clients.
    #[must_use]
    pub fn vouches(&self, auth: &str, parts: &[&[u8]]) -> bool {
        let signature = auth.strip_prefix(&*self.key).and_then(|rest| rest.strip_prefix(':'));
        signature.is_some_and(|signature| self.signed(signature, parts))
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl fmt::Debug for ApplicationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A whole signature, neither longer nor shorter, in lower case.
fn bytes_of(digits: &str) -> Option<[u8; DIGITS / 2]> {
    let digits: &[u8; DIGITS] = digits.as_bytes().try_into().ok()?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApplicationKey {
        ApplicationKey::new("k7", b"k7-secret")
    }

    #[test]
    fn signatures_are_those_of_the_libraries() {
        // From the worked examples that the libraries of Pusher's kind agree with.
        for (signed, signature) in [
            ("4711.90125:private-kitchen", "a0e41ad1a3ef508d96b9bda64c6cfa56b720248a325c0079cbcb3f23d8229c74"),
            (
                r#"4711.90125:presence-kitchen:{"user_id":"ada","user_info":{"name":"Ada"}}"#,
                "c7c9ad369a5ee6f8c09396db1da5da5baa67454733694bbd21d13a5f322d04b0",
            ),
            (
                r#"4711.90125::user::{"id":"ada","user_info":{"name":"Ada"},"watchlist":["bea","cem"]}"#,
                "662033d0281b416025641036f282d6225850c9d81a05619829b601cc6ea94f32",
            ),
        ] {
            assert!(key().vouches(&format!("k7:{signature}"), &[signed.as_bytes()]), "{signed}");
            let (front, back) = signed.split_at(10);
            assert!(key().vouches(&format!("k7:{signature}"), &[front.as_bytes(), back.as_bytes()]), "{signed}");
        }
    }

    #[test]
    fn only_the_whole_word_holds() {
        let right = "k7:a0e41ad1a3ef508d96b9bda64c6cfa56b720248a325c0079cbcb3f23d8229c74";
        let message: &[&[u8]] = &[b"4711.90125:private-kitchen"];
        assert!(key().vouches(right, message));
        let wrong = [
            String::new(),
            right[3..].to_owned(),
            right[..66].to_owned(),
            format!("{right}0"),
            format!(" {right}"),
            right.to_uppercase(),
            right.replace("k7:", "K7:"),
            right.replace("k7:", "k8:"),
            right.replace("k7:", "k7"),
            right.replace("a0e4", "a0e5"),
            right.replace('a', "A"),
            format!("k7:{}", "0".repeat(64)),
            format!("k7:{}é", "0".repeat(62)),
        ];
        for wrong in wrong {
            assert!(!key().vouches(&wrong, message), "{wrong}");
        }
        assert!(!key().vouches(right, &[b"4711.90125:private-kitchen:"]));
        assert!(!ApplicationKey::new("k7", b"k7-secreT").vouches(right, message));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", key()).contains("secret"));
    }
}
