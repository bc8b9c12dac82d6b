//! Published keys.

use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

use super::*;

/// The text of a set with these keys.
fn set_of(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn key_set(keys: &[Value]) -> KeySet {
    let (set, skipped) = KeySet::parse(&set_of(keys)).expect("a set");
    assert_eq!(skipped, [], "{keys:?}");
    set
}

/// An Ed25519 key made of one byte: the half that signs, and the other as it is published.
fn ed_key(seed: u8, kid: Option<&str>) -> (EncodingKey, Value) {
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = EncodingKey::from_ed_der(&[&prefix[..], &[seed; 32]].concat());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a public half");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    let fields = jwk.as_object_mut().expect("an object");
    fields.retain(|name, value| name != "kid" && !value.is_null());
    kid.map(|kid| fields.insert("kid".to_owned(), kid.into()));
    (key, jwk)
}

fn signed_by(key: &EncodingKey, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims("ann", None, None), key).expect("a token")
}

fn rsa_key() -> Value {
    json!({ "kty": "RSA", "kid": "rsa1", "use": "sig", "alg": "RS256", "n": RSA_MODULUS, "e": "AQAB" })
}

fn ec_key() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "kid": "ec1", "key_ops": ["verify"], "x": EC_X, "y": EC_Y })
}

#[test]
fn published_keys_check_tokens_of_all_three_kinds() {
    let (ed, ed_public) = ed_key(1, Some("ed1"));
    let set = key_set(&[rsa_key(), ec_key(), ed_public]);
    for token in [RSA_TOKEN.to_owned(), EC_TOKEN.to_owned(), signed_by(&ed, Some("ed1")), signed_by(&ed, None)] {
        let verified = TokenKeys::default().verify_among(Published::Set(&set), &token, at(0));
        assert_eq!(verified.expect("it holds").identity.user.as_ref().map(UserName::as_str), Some("ann"), "{token}");
        assert!(keys(&[SECRET]).verify_among(Published::Set(&set), &token, at(0)).is_ok());
        assert_eq!(keys(&[SECRET]).verify(&token, at(0)), Err(TokenError::Algorithm), "and none without the set");
    }
}

#[test]
fn the_key_is_chosen_by_its_name() {
    let ((one, one_public), (two, two_public)) = (ed_key(1, Some("one")), ed_key(2, Some("two")));
    let (nameless, nameless_public) = ed_key(3, None);
    let set = key_set(&[one_public, two_public, nameless_public]);
    let verify = |token: String| TokenKeys::default().verify_among(Published::Set(&set), &token, at(0)).map(|_| ());
    for (key, kid, expected) in [
        (&one, Some("one"), Ok(())),
        (&two, Some("two"), Ok(())),
        (&one, None, Ok(())),
        // Signed by a key that is here, but not by the one it names.
        (&one, Some("two"), Err(TokenError::Signature)),
        (&nameless, Some("two"), Ok(())),
        (&one, Some("three"), Err(TokenError::KeyUnknown)),
        (&ed_key(4, None).0, None, Err(TokenError::Signature)),
    ] {
        assert_eq!(verify(signed_by(key, kid)), expected, "{kid:?}");
    }
}

#[test]
fn rotation_takes_keys_in_and_out() {
    let ((old, old_public), (new, new_public)) = (ed_key(1, Some("old")), ed_key(2, Some("new")));
    let (old_token, new_token) = (signed_by(&old, Some("old")), signed_by(&new, Some("new")));
    let verify = |keys: &[Value], token: &str| {
        TokenKeys::default().verify_among(Published::Set(&key_set(keys)), token, at(0)).map(|_| ())
    };
    let (before, both, after) = ([old_public.clone()], [old_public, new_public.clone()], [new_public]);
    for (set, old, new) in [
        (&before[..], Ok(()), Err(TokenError::KeyUnknown)),
        (&both[..], Ok(()), Ok(())),
        (&after[..], Err(TokenError::KeyUnknown), Ok(())),
        (&[], Err(TokenError::KeyUnknown), Err(TokenError::KeyUnknown)),
    ] {
        assert_eq!((verify(set, &old_token), verify(set, &new_token)), (old, new));
    }
}

#[test]
fn before_the_set_is_had_only_configured_secrets_check() {
    let (key, _) = ed_key(1, Some("one"));
    let keys = keys(&[SECRET]);
    let verify = |token: &str| keys.verify_among(Published::Missing, token, at(0)).map(|_| ());
    assert_eq!(verify(&signed_by(&key, Some("one"))), Err(TokenError::KeysUnavailable));
    assert_eq!(verify(&signed_by(&key, None)), Err(TokenError::KeysUnavailable));
    assert_eq!(verify(&saying("{}")), Ok(()));
    assert_eq!(verify(&signed(r#"{"alg":"HS256"}"#, "{}", OTHER)), Err(TokenError::Signature));
    assert_eq!(verify(&signed(r#"{"alg":"none"}"#, "{}", OTHER)), Err(TokenError::Algorithm));
}

#[test]
fn keys_that_have_no_place_in_a_public_set_are_left_out() {
    let with = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let without = |mut key: Value, name: &str| {
        key.as_object_mut().expect("an object").remove(name);
        key
    };
    let (_, ed) = ed_key(1, Some("ed1"));
    let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
    for (key, why) in [
        (json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode(SECRET) }), "secret"),
        (with(ed.clone(), "d", json!("AAAA")), "private half"),
        (with(rsa_key(), "use", json!("enc")), "`use`"),
        (with(rsa_key(), "use", json!(["sig"])), "malformed"),
        (with(ec_key(), "key_ops", json!(["sign"])), "`key_ops`"),
        (with(rsa_key(), "alg", json!("RS512")), "`alg`"),
        (with(rsa_key(), "alg", json!("HS256")), "`alg`"),
        (with(rsa_key(), "alg", json!("none")), "`alg`"),
        (with(ec_key(), "crv", json!("P-384")), "curve"),
        (with(ed.clone(), "crv", json!("X25519")), "curve"),
        (with(rsa_key(), "kty", json!("AKP")), "type"),
        (with(rsa_key(), "n", json!(short)), "2,048"),
        (with(rsa_key(), "e", json!(short)), "exponent"),
        (with(rsa_key(), "n", json!("no base64!")), "malformed"),
        (with(ec_key(), "x", json!("AAAA")), "malformed"),
        // On no curve at all.
        (with(ec_key(), "y", json!(EC_X)), "malformed"),
        // The library would panic on it.
        (with(ed.clone(), "x", json!("AAAA")), "malformed"),
        (with(ed.clone(), "kid", json!("x".repeat(257))), "too long"),
        (with(ed.clone(), "kid", json!(7)), "malformed"),
        (without(ed.clone(), "kty"), "malformed"),
        (json!("a string"), "malformed"),
        (json!(["RSA"]), "malformed"),
    ] {
        let (set, skipped) = KeySet::parse(&set_of(&[key.clone(), ed.clone()])).expect("a set");
        assert_eq!((set.len(), skipped.len()), (1, 1), "the good one stays: {key}");
        assert!(skipped[0].place == 0 && skipped[0].why.contains(why), "{key}: {}", skipped[0].why);
    }
    // Twice the same member: who knows which one counts.
    let twice = br#"{"keys":[{"kty":"oct","kty":"RSA","n":"AAAA","e":"AQAB"}]}"#;
    assert_eq!(KeySet::parse(twice).expect("a set").1[0].why, "it is malformed");
}

#[test]
fn what_is_no_set_is_refused_as_a_whole() {
    let many: Vec<Value> = (0..101).map(|_| json!({})).collect();
    for (text, expected) in [
        (b"".to_vec(), KeySetError::Form),
        (b"[]".to_vec(), KeySetError::Form),
        (b"{}".to_vec(), KeySetError::Form),
        (br#"{"keys":{}}"#.to_vec(), KeySetError::Form),
        (br#"{"keys":[],"keys":[]}"#.to_vec(), KeySetError::Form),
        (br#"{"keys":[]} x"#.to_vec(), KeySetError::Form),
        (b"<html>".to_vec(), KeySetError::Form),
        (set_of(&many), KeySetError::TooMany),
        (vec![b' '; KEY_SET_BYTES_MAX + 1], KeySetError::TooLong),
    ] {
        assert_eq!(
            KeySet::parse(&text).map(|_| ()),
            Err(expected),
            "{}",
            String::from_utf8_lossy(&text[..text.len().min(40)])
        );
    }
    assert!(KeySet::parse(br#"{"keys":[]}"#).expect("a set").0.is_empty());
}

const RSA_MODULUS: &str = "wX9zc9ul6BUpsYqcVHtFv2gc5mGflEyIptFjDz71UhXhDqGfxhZpAaFU3GuleuUP17a1lOA5RJjGfIraKGihyjWzrmrJNl6tnsVMDySNvGcGNyEkQ0NgR1yX6ZXGU9AohCGh7QkZB4aZdzRYRg-UcZdayUZ9Y70rTNgkZ9YPyfGS2VJsocEa3gkW3zl5TEekQ9lcHCWFblRKMVDx4aXyERG62VBGrDVzNeeNskxNEa9sEVC3o4afAoslBqjGwOlJGVPzCI9zSfouBqQAv2f4fvjrM-DqsAi1Ix-Al5mERjKgUwkHjrLKMyh_JifuTuOs4hcFn8lJsMsjQu_J8dJPPQ";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYTEifQ.eyJzdWIiOiJhbm4ifQ.SkW_2JIaeypmcy_V1LJazeVehZBNoeXpBUcYLpNi9RCNccR4hnS0K6y_IqY5TSmzED9Co9CK2kunwmF7vMptRlR0N6tk-Dm07l80pSWFS3bn4MjWZbxcwx0LS9TBZQiHec_S3-Z7RW4eIuMVvaPJC4AtNPBJwsd9zT5lRKdjDfje9535jajK-9SVlNUYBYnXXMG2otEX3jQrY0fa4VPbC8TvInJy1WLgQL9FXkEt-vkhyOFMF5gdFrrCtJecNF5MjQWwjvcz2Z_KZogW9YuDjsuAFqnau8LDGgCa-qyae79LlMKigIt5BYV3wF07AIS03wLHfg-7gIWevNEJdWjqvQ";
const EC_X: &str = "92kLBD3hZZ3RxRmzrXm8UjreuT5fCmuki5Pux6v8YiY";
const EC_Y: &str = "L5030toEZ17jhTVDEh9RJqwRqlYQtMpIESLyGegvpn8";
const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjMSJ9.eyJzdWIiOiJhbm4ifQ.N4x-IgJTYwb0EC1yfyXZTj9l4iIioxSYnlSGNsDj9YOg_4qYtZ6cWGk-Z-dQlWxDNlKLix0vSlSpLDo6YhQmcg";
