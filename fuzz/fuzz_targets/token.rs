//! Tokens: arbitrary text is never believed; arbitrary claims under a good signature are believed exactly when their times hold.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_fuzz::Data;
use fanfare_guard::{RoomRight, TOKEN_BYTES_MAX, TokenError, TokenKeys, Verified};
use fanfare_protocol::RoomName;
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SIGNING: &str = "a secret that the fuzz target signs with itself";
const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8=\n-----END PUBLIC KEY-----\n";
/// Skew that the gateway grants, seconds.
const SKEW: u64 = 30;

/// Keys that have signed nothing that exists: whatever holds under them is forged.
static UNUSED: LazyLock<TokenKeys> = LazyLock::new(|| {
    let secret = format!("{:032x}{:032x}", std::process::id(), 0x5eed_u32);
    TokenKeys::parse([secret.as_str(), ED_PUBLIC]).expect("fit keys")
});
static KEYS: LazyLock<TokenKeys> = LazyLock::new(|| TokenKeys::parse([ED_PUBLIC, SIGNING]).expect("fit keys"));

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let now = u64::from(data.byte()) * 16;
    match kind % 4 {
        // Anything at all.
        0 => {
            let Ok(token) = str::from_utf8(data.0) else { return };
            let refused = UNUSED.verify(token, Duration::from_secs(now)).expect_err("nobody signed this");
            assert_eq!(refused == TokenError::TooLong, token.len() > TOKEN_BYTES_MAX);
        }
        // Any header and claims, and a signature that is of the right length but not made with a key.
        1 => {
            let header = header(&mut data);
            let token = format!("{}.{}.{}", encode(&header), encode(data.0), encode(&[kind; 32]));
            UNUSED.verify(&token, Duration::from_secs(now)).expect_err("nobody signed this");
        }
        _ => signed(&header(&mut data), data.0, now),
    }
});

/// Mostly one that can hold.
fn header(data: &mut Data<'_>) -> Vec<u8> {
    match data.byte() {
        0..=199 => br#"{"alg":"HS256","typ":"JWT"}"#.to_vec(),
        200..=209 => br#"{"alg":"none"}"#.to_vec(),
        210..=219 => br#"{"alg":"EdDSA"}"#.to_vec(),
        220..=229 => br#"{"alg":"HS512"}"#.to_vec(),
        length => data.take(usize::from(length) - 200).to_vec(),
    }
}

/// Claims that are signed well, whatever they say.
fn signed(header: &[u8], claims: &[u8], now: u64) {
    let text = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(text.as_bytes(), &EncodingKey::from_secret(SIGNING.as_bytes()), Algorithm::HS256);
    let token = format!("{text}.{}", signature.expect("a signature"));
    let Ok(Verified { identity, expires, .. }) = KEYS.verify(&token, Duration::from_secs(now)) else { return };
    // In fields that nobody reads the library lets bytes pass that are not UTF-8, numbers out of range, and any depth.
    let Ok(claims) = serde_json::from_str::<Value>(&String::from_utf8_lossy(claims)) else { return };
    let time = |name: &str| claims.get(name).and_then(Value::as_u64);
    // To the second: an end may have a fraction.
    if let Some(exp) = time("exp") {
        let end = if now < exp { exp } else { exp.saturating_add(SKEW) };
        assert_eq!(expires.map(|at| at.as_secs()), Some(end), "{claims}");
    }
    assert!(expires.is_none_or(|at| at.as_secs() > now), "it has expired at {now}: {claims}");
    assert!(time("nbf").is_none_or(|begins| begins <= now + SKEW), "it has not begun at {now}: {claims}");
    let sub = claims.get("sub").or(claims.get("name")).and_then(Value::as_str);
    assert_eq!(identity.user.as_ref().map(|user| user.as_str()), sub);
    check_rights(&identity, &claims);
}

/// A right is granted only where a pattern of the claims covers the room and names the right.
fn check_rights(identity: &fanfare_guard::Identity, claims: &Value) {
    let rights = [
        (RoomRight::Subscribe, "subscribe"),
        (RoomRight::Publish, "publish"),
        (RoomRight::Presence, "presence"),
        (RoomRight::Moderate, "moderate"),
    ];
    for name in ["lobby", "chat:1", "a", "*"] {
        let room = RoomName::parse(name).expect("a valid name");
        for (right, word) in rights {
            let is_written = claims.get("rooms").and_then(Value::as_object).is_some_and(|rooms| {
                rooms.iter().any(|(pattern, words)| {
                    let covers = match pattern.strip_suffix('*') {
                        Some(prefix) => name.starts_with(prefix),
                        None => name == pattern,
                    };
                    covers && words.as_array().is_some_and(|words| words.iter().any(|found| found == word))
                })
            });
            assert_eq!(identity.is_granted(&room, right), is_written, "{word} in {name}: {claims}");
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
