use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_protocol::RoomName;
use jsonwebtoken::{EncodingKey, crypto::sign};

use super::*;

mod key_set;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8=\n-----END PUBLIC KEY-----\n";

fn keys(keys: &[&str]) -> TokenKeys {
    TokenKeys::parse(keys.iter().copied()).expect("fit keys")
}

fn claims(sub: &str, exp: Option<u64>, nbf: Option<u64>) -> Claims {
    let rooms = [("chat:*".to_owned(), vec![RoomRight::Subscribe])].into();
    Claims { sub: Some(sub.to_owned()), exp, nbf, rooms, ..Claims::default() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

/// A token of these parts, signed well with `secret`.
fn signed(header: &str, claims: &str, secret: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let algorithm = if header.contains("HS512") { Algorithm::HS512 } else { Algorithm::HS256 };
    let signature = sign(text.as_bytes(), &EncodingKey::from_secret(secret.as_bytes()), algorithm);
    format!("{text}.{}", signature.expect("a signature"))
}

/// A token whose claims are `claims`.
fn saying(claims: &str) -> String {
    signed(r#"{"alg":"HS256"}"#, claims, SECRET)
}

#[test]
fn a_minted_token_holds_and_grants_what_it_says() {
    let keys = keys(&[SECRET]);
    let issued = NumericDate(Duration::from_millis(400_250));
    let minted = Claims { iat: Some(issued), jti: Some("a1".to_owned()), ..claims("ann", Some(1_000), None) };
    let verified = keys.verify(&keys.mint(&minted).expect("a token"), at(500)).expect("it holds");
    let Verified { identity, expires, issued, id } = verified;
    assert_eq!(identity.user.as_ref().map(UserName::as_str), Some("ann"));
    assert_eq!((expires, issued, id.as_deref()), (Some(at(1_000)), Some(Duration::from_millis(400_250)), Some("a1")));
    assert!(identity.is_granted(&room("chat:1"), RoomRight::Subscribe));
    assert!(!identity.is_granted(&room("chat:1"), RoomRight::Publish));
    assert!(!identity.is_granted(&room("chats"), RoomRight::Subscribe));
}

#[test]
fn time_is_judged_with_a_little_skew() {
    let keys = keys(&[SECRET]);
    let token = keys.mint(&claims("ann", Some(1_000), Some(900))).expect("a token");
    for (now, expected) in [
        (869, Err(TokenError::NotYet)),
        (870, Ok(Some(at(1_000)))),
        (999, Ok(Some(at(1_000)))),
        // Over, but for the skew that is granted to who comes now.
        (1_000, Ok(Some(at(1_030)))),
        (1_029, Ok(Some(at(1_030)))),
        (1_030, Err(TokenError::Expired)),
        (u64::MAX, Err(TokenError::Expired)),
    ] {
        assert_eq!(keys.verify(&token, at(now)).map(|verified| verified.expires), expected, "at {now}");
    }
}

#[test]
fn several_keys_hold_at_once_and_a_stranger_does_not() {
    let token = keys(&[OTHER]).mint(&claims("ann", None, None)).expect("a token");
    assert_eq!(keys(&[SECRET]).verify(&token, at(0)), Err(TokenError::Signature));
    assert!(keys(&[SECRET, OTHER]).verify(&token, at(0)).is_ok());
    assert_eq!(TokenKeys::default().verify(&token, at(0)), Err(TokenError::NoKeys));
}

#[test]
fn who_the_user_is() {
    for (claims, user) in [
        (r#"{"sub":"ann","name":"Ann Example"}"#, Ok(Some("ann"))),
        (r#"{"name":"Ann Example"}"#, Ok(Some("Ann Example"))),
        ("{}", Ok(None)),
        (r#"{"sub":"","name":"ann"}"#, Err(TokenError::Subject)),
        (r#"{"sub":"a\nb"}"#, Err(TokenError::Subject)),
    ] {
        let verified = keys(&[SECRET]).verify(&saying(claims), at(0));
        let found = verified.map(|verified| verified.identity.user.map(|user| user.to_string()));
        assert_eq!(found, user.map(|user| user.map(str::to_owned)), "{claims}");
    }
}

#[test]
fn audience_and_issuer_are_asked_for_where_they_are_configured() {
    let rules = TokenRules { audience: "chat".to_owned(), issuer: "https://id.example".to_owned() };
    let strict = keys(&[SECRET]).with_rules(rules);
    for (claims, expected) in [
        (r#"{"aud":"chat","iss":"https://id.example"}"#, Ok(())),
        (r#"{"aud":["mail","chat"],"iss":"https://id.example"}"#, Ok(())),
        (r#"{"aud":["mail"],"iss":"https://id.example"}"#, Err(TokenError::Audience)),
        (r#"{"aud":[],"iss":"https://id.example"}"#, Err(TokenError::Audience)),
        (r#"{"aud":"chat2","iss":"https://id.example"}"#, Err(TokenError::Audience)),
        (r#"{"iss":"https://id.example"}"#, Err(TokenError::Audience)),
        (r#"{"aud":"chat"}"#, Err(TokenError::Issuer)),
        (r#"{"aud":"chat","iss":"https://id.example/"}"#, Err(TokenError::Issuer)),
        (r#"{"aud":"chat","iss":["https://id.example"]}"#, Err(TokenError::Claims)),
        (r#"{"aud":7,"iss":"https://id.example"}"#, Err(TokenError::Claims)),
    ] {
        assert_eq!(strict.verify(&saying(claims), at(0)).map(|_| ()), expected, "{claims}");
    }
    assert!(keys(&[SECRET]).verify(&saying(r#"{"aud":"other"}"#), at(0)).is_ok());
    let token = strict.mint(&claims("ann", None, None)).expect("a token");
    assert!(strict.verify(&token, at(0)).is_ok(), "what is minted here holds here");
}

/// What attackers try, and the name each is refused by.
#[test]
fn attacks_are_refused_by_name() {
    let hs256 = r#"{"alg":"HS256"}"#;
    let unsigned =
        |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#));
    let grants: Vec<_> = (0..257).map(|number| format!(r#""r{number}":[]"#)).collect();
    let long = format!(r#"{{"sub":"ann","x":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX));
    let deep = format!(r#"{{"sub":"ann","x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
    let cases = [
        ("no algorithm", unsigned(r#"{"alg":"none"}"#), TokenError::Algorithm),
        ("the same in other letters", unsigned(r#"{"alg":"NoNe"}"#), TokenError::Algorithm),
        ("an empty algorithm", unsigned(r#"{"alg":""}"#), TokenError::Algorithm),
        ("no alg at all", unsigned(r#"{"typ":"JWT"}"#), TokenError::Malformed),
        ("alg of the wrong type", unsigned(r#"{"alg":["HS256"]}"#), TokenError::Malformed),
        ("alg null", unsigned(r#"{"alg":null}"#), TokenError::Malformed),
        ("alg twice", signed(r#"{"alg":"HS256","alg":"none"}"#, "{}", SECRET), TokenError::Malformed),
        ("a header that is an array", signed(r#"["HS256"]"#, "{}", SECRET), TokenError::Malformed),
        ("an empty signature", unsigned(hs256), TokenError::Signature),
        ("an algorithm the library knows and we do not take", unsigned(r#"{"alg":"PS256"}"#), TokenError::Algorithm),
        ("an algorithm no key is for", unsigned(r#"{"alg":"ES256"}"#), TokenError::Algorithm),
        ("a critical header", signed(r#"{"alg":"HS256","crit":["exp"]}"#, "{}", SECRET), TokenError::Critical),
        ("an empty one", signed(r#"{"alg":"HS256","crit":[]}"#, "{}", SECRET), TokenError::Critical),
        ("a null one", signed(r#"{"alg":"HS256","crit":null}"#, "{}", SECRET), TokenError::Critical),
        ("kid of the wrong type", signed(r#"{"alg":"HS256","kid":7}"#, "{}", SECRET), TokenError::Malformed),
        (
            "a key of its own",
            signed(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, "{}", OTHER),
            TokenError::Signature,
        ),
        ("signed by another secret", signed(hs256, r#"{"sub":"root"}"#, OTHER), TokenError::Signature),
        ("exp as text", saying(r#"{"exp":"9999999999"}"#), TokenError::Claims),
        ("exp null, which is no end at all", saying(r#"{"exp":null}"#), TokenError::Claims),
        ("exp negative", saying(r#"{"exp":-1}"#), TokenError::Claims),
        ("exp beyond all numbers", saying(r#"{"exp":1e400}"#), TokenError::Claims),
        ("exp beyond all time", saying(r#"{"exp":1e300}"#), TokenError::Claims),
        ("exp twice", saying(r#"{"exp":1,"exp":9999999999}"#), TokenError::Claims),
        ("exp twice, once escaped", saying(r#"{"exp":1,"\u0065xp":9999999999}"#), TokenError::Claims),
        ("nbf null", saying(r#"{"nbf":null}"#), TokenError::Claims),
        ("iat as text", saying(r#"{"iat":"now"}"#), TokenError::Claims),
        ("sub of the wrong type", saying(r#"{"sub":{"name":"root"}}"#), TokenError::Claims),
        ("sub null", saying(r#"{"sub":null,"name":"root"}"#), TokenError::Claims),
        ("sub twice", saying(r#"{"sub":"ann","sub":"root"}"#), TokenError::Claims),
        ("jti of the wrong type", saying(r#"{"jti":7}"#), TokenError::Claims),
        ("rooms of the wrong type", saying(r#"{"rooms":["*"]}"#), TokenError::Claims),
        ("rooms null", saying(r#"{"rooms":null}"#), TokenError::Claims),
        ("a right nobody knows", saying(r#"{"rooms":{"*":["everything"]}}"#), TokenError::Claims),
        ("rights that are no list", saying(r#"{"rooms":{"*":"publish"}}"#), TokenError::Claims),
        ("a pattern twice", saying(r#"{"rooms":{"a":[],"a":["moderate"]}}"#), TokenError::Claims),
        ("too many patterns", saying(&format!(r#"{{"rooms":{{{}}}}}"#, grants.join(","))), TokenError::Claims),
        ("claims that are an array", saying(r#"["root"]"#), TokenError::Claims),
        ("claims that are no JSON", saying("sub=root"), TokenError::Claims),
        ("two objects", saying(r#"{"sub":"ann"}{"sub":"root"}"#), TokenError::Claims),
        ("no UTF-8", signed_bytes(b"{\"sub\":\"\xff\"}"), TokenError::Claims),
        ("oversized", saying(&long), TokenError::TooLong),
        ("five parts, as encrypted ones have", "a.b.c.d.e".to_owned(), TokenError::Malformed),
        ("two parts", "e30.e30".to_owned(), TokenError::Malformed),
        ("padding", saying("{}").replacen('.', "=.", 1), TokenError::Malformed),
        ("the other alphabet", format!("{}.+/+/.AAAA", URL_SAFE_NO_PAD.encode(hs256)), TokenError::Malformed),
        ("white space", format!(" {}", saying("{}")), TokenError::Malformed),
        ("nothing", String::new(), TokenError::Malformed),
    ];
    for (attack, token, expected) in cases {
        assert_eq!(keys(&[SECRET]).verify(&token, at(0)), Err(expected), "{attack}: {token}");
        assert!(expected.text().len() <= 100, "it fits a close frame");
    }
    // A claim that nobody reads may be as deep as it likes: it is passed over without recursion.
    assert!(keys(&[SECRET]).verify(&saying(&deep), at(0)).is_ok());
}

fn signed_bytes(claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(text.as_bytes(), &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256);
    format!("{text}.{}", signature.expect("a signature"))
}

#[test]
fn the_key_decides_the_algorithm_and_not_the_token() {
    // An attacker signs with the public key's text as if it were an HMAC secret.
    for public in [ED_PUBLIC, RSA_PUBLIC, EC_PUBLIC] {
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS512"}"#] {
            for secret in [public, public.trim_end()] {
                let forged = signed(header, r#"{"sub":"root"}"#, secret);
                assert_eq!(keys(&[public]).verify(&forged, at(0)), Err(TokenError::Algorithm), "{public}");
            }
        }
        assert_eq!(keys(&[public]).mint(&claims("ann", None, None)), Err(KeyError::NoSecret));
    }
}

const RSA_PUBLIC: &str = include_str!("test-keys/rsa-public.pem");
const EC_PUBLIC: &str = include_str!("test-keys/p256-public.pem");

#[test]
fn damaged_tokens_are_refused() {
    let keys = keys(&[SECRET]);
    let token = keys.mint(&claims("ann", None, None)).expect("a token");
    for at_byte in 0..token.len() {
        let mut damaged = token.clone().into_bytes();
        damaged[at_byte] = if damaged[at_byte] == b'A' { b'Q' } else { b'A' };
        let damaged = String::from_utf8(damaged).expect("ASCII");
        assert!(keys.verify(&damaged, at(0)).is_err(), "byte {at_byte}");
    }
    for bad in ["", ".", "..", "a.b.c", "eyJhbGciOiJIUzI1NiJ9", &token[1..], &format!("{token}.x")] {
        assert!(keys.verify(bad, at(0)).is_err(), "{bad}");
    }
}

#[test]
fn unfit_keys_are_named_by_their_place_and_never_quoted() {
    let refused = |keys: &[&str]| TokenKeys::parse(keys.iter().copied()).map(|_| ()).expect_err("unfit");
    assert_eq!(refused(&[SECRET, "hunter2"]), (1, KeyError::ShortSecret));
    for unfit in [
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        // Ed25519 with a key of 31 bytes.
        "-----BEGIN PUBLIC KEY-----\nMCkwBQYDK2VwAyAA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVg==\n-----END PUBLIC KEY-----",
        include_str!("test-keys/p384-public.pem"),
    ] {
        assert_eq!(refused(&[unfit]), (0, KeyError::Pem), "{unfit}");
    }
    assert!(!format!("{:?}", keys(&[SECRET])).contains(SECRET));
}

#[test]
fn every_refusal_is_documented() {
    let page = include_str!("../../../../docs/auth.md");
    for (place, error) in TokenError::ALL.into_iter().enumerate() {
        assert_eq!(error as usize, place, "counters are kept by it");
        assert!(page.contains(&format!("\n| `{error}` | ")), "{error:?}");
    }
}

#[test]
fn seconds_may_have_a_fraction() {
    let verified = keys(&[SECRET]).verify(&saying(r#"{"exp":1000.5,"iat":1}"#), at(10)).expect("it holds");
    assert_eq!((verified.expires, verified.issued), (Some(Duration::from_millis(1_000_500)), Some(at(1))));
    let written = |ms| serde_json::to_string(&NumericDate(Duration::from_millis(ms))).expect("JSON");
    assert_eq!(
        (written(1_795_219_200_000), written(1_795_219_200_123)),
        ("1795219200".into(), "1795219200.123".into())
    );
}
