//! Keys as others write them: a JSON Web Key Set from somewhere, PEM from an operator. Whatever is read of them, no secret becomes a key that
//! strangers know, no token that nobody signed holds, and a good key among bad ones keeps its place.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fanfare_fuzz::Data;
use fanfare_guard::{KeySet, Published, TokenError, TokenKeys};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A good key (RFC 8037, appendix A.2), named `good`.
const GOOD: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// What it has signed.
static SIGNED: LazyLock<String> = LazyLock::new(|| {
    use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
    // Its private half, as PKCS #8.
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64");
    let der = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    let text = format!("{}.{}", encode(br#"{"alg":"EdDSA","kid":"good"}"#), encode(b"{}"));
    let signature = sign(text.as_bytes(), &EncodingKey::from_ed_der(&der), Algorithm::EdDSA).expect("a signature");
    format!("{text}.{signature}")
});

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    match data.byte() % 4 {
        0 => set(data.0),
        1 => set(&composed(&mut data)),
        2 => {
            let Ok(pem) = str::from_utf8(data.0) else { return };
            configured(pem);
        }
        _ => {
            let label = data.pick(&["PUBLIC KEY", "RSA PUBLIC KEY", "PRIVATE KEY", "EC PRIVATE KEY", "CERTIFICATE"]);
            configured(&format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(data.0)));
        }
    }
});

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A set of keys whose members fuzz data chooses, most of them nearly right.
fn composed(data: &mut Data<'_>) -> Vec<u8> {
    let mut keys = Vec::new();
    while !data.is_empty() && keys.len() < 4 {
        let kind = data.byte();
        let mut members = vec![
            [
                "\"kty\":\"RSA\"",
                "\"kty\":\"EC\",\"crv\":\"P-256\"",
                "\"kty\":\"OKP\",\"crv\":\"Ed25519\"",
                "\"kty\":\"oct\"",
            ][usize::from(kind % 4)]
            .to_owned(),
        ];
        let length = match kind % 4 {
            0 => data.pick(&[256, 512, 128, 257]),
            _ => data.pick(&[32, 32, 32, 31, 33]),
        };
        let mut number = |length: usize| {
            let mut bytes = data.take(length.min(40)).to_vec();
            bytes.resize(length, 0xa5);
            encode(&bytes)
        };
        members.push(format!("\"n\":\"{0}\",\"x\":\"{0}\"", number(length)));
        members.push(format!("\"y\":\"{}\"", number(32)));
        members.push(format!(
            "\"e\":\"{}\"",
            if kind & 4 == 0 { "AQAB".to_owned() } else { number(usize::from(kind >> 4)) }
        ));
        for _ in 0..data.byte() % 4 {
            let more = [
                "\"kid\":\"good\"",
                "\"kid\":\"b\"",
                "\"use\":\"sig\"",
                "\"use\":\"enc\"",
                "\"key_ops\":[\"verify\"]",
                "\"key_ops\":[]",
                "\"alg\":\"RS256\"",
                "\"alg\":\"ES256\"",
                "\"alg\":\"EdDSA\"",
                "\"alg\":\"HS256\"",
                "\"d\":\"AQ\"",
                "\"d\":null",
                "\"k\":\"c2VjcmV0\"",
                "\"x5c\":[\"x\"]",
                "\"kty\":\"RSA\"",
                "\"kid\":7",
            ];
            members.push(data.pick(&more).to_owned());
        }
        keys.push(format!("{{{}}}", members.join(",")));
    }
    format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes()
}

fn set(json: &[u8]) {
    let Ok((set, skipped)) = KeySet::parse(json) else { return };
    let places: Vec<usize> = skipped.iter().map(|key| key.place).collect();
    assert!(places.is_sorted_by(|one, next| one < next));
    // Numbers out of range are let through where nobody reads them.
    if let Ok(value) = serde_json::from_slice::<Value>(json) {
        let keys = value["keys"].as_array().expect("a list");
        assert_eq!(keys.len(), set.len() + skipped.len());
        for (place, key) in keys.iter().enumerate() {
            let is_private = key["kty"] == "oct" || !key["d"].is_null();
            assert!(!is_private || places.contains(&place), "a secret is taken for public: {key}");
        }
    }
    refuses_what_nobody_signed(&TokenKeys::default(), Published::Set(&set), json);
    // The same set with a good key at its end: what was before does not keep it from checking what it signed.
    let text = str::from_utf8(json).expect("JSON").trim_end();
    let Some(front) = text.strip_suffix("]}") else { return };
    let separator = if front.trim_end().ends_with('[') { "" } else { "," };
    let with_good = format!("{front}{separator}{GOOD}]}}");
    let Ok((with_good, _)) = KeySet::parse(with_good.as_bytes()) else { return };
    if with_good.len() == set.len() + 1 {
        TokenKeys::default()
            .verify_among(Published::Set(&with_good), &SIGNED, Duration::ZERO)
            .expect("the good key signed it");
    }
}

fn configured(key: &str) {
    let Ok(keys) = TokenKeys::parse([key]) else { return };
    assert!(!format!("{keys:?}").contains(key), "a key is printed");
    refuses_what_nobody_signed(&keys, Published::None, key.as_bytes());
}

/// Checking a signature takes many times as long as reading the key: each document is asked about some of them, and about the slowest rarely.
fn refuses_what_nobody_signed(keys: &TokenKeys, published: Published<'_>, document: &[u8]) {
    let dice = document.iter().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    let some = [("HS256", 32), ("EdDSA", 64), ("ES256", 64), ("RS256", 256)];
    let asked = match dice {
        0..=7 => &some[..],
        8..=63 => &some[..3],
        _ => &some[..1],
    };
    for &(algorithm, length) in asked {
        let header = format!("{{\"alg\":\"{algorithm}\"}}");
        let token = format!("{}.{}.{}", encode(header.as_bytes()), encode(b"{}"), encode(&vec![0x5a; length]));
        let refused = keys.verify_among(published, &token, Duration::ZERO).expect_err("nobody signed this");
        assert!(!matches!(refused, TokenError::TooLong), "{refused:?}");
    }
}
