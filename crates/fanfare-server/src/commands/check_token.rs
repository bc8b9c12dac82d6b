//! `fanfare token --check`: what a token says, and whether the gateway would take it.

use std::io::Read as _;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use fanfare_guard::{Explanation, Published, RoomRight, Signer, TOKEN_BYTES_MAX};
use fanfare_protocol::UserName;
use serde_json::{Map, Value, json};

use super::token::now;
use crate::config::Config;
use crate::{cli, key_set};

/// Explains `token`, or what stdin brings where it is `-`, as the keys and rules of `config` see it now.
///
/// # Errors
/// When the gateway would refuse it, with the reason; when stdin cannot be read.
pub fn run(config: &Config, token: &str, as_json: bool) -> anyhow::Result<()> {
    let token = if token == "-" { read_token()? } else { token.trim().to_owned() };
    let now = now();
    let set = config.key_set.as_ref().map(|origin| cli::block_on_value(key_set::fetch(origin)));
    let set = set.transpose().context("the published key set cannot be had")?.map(|(set, _)| set);
    let published = set.as_ref().map_or(Published::None, Published::Set);
    let explanation = config.tokens.explain(published, &token, now);
    let text = if as_json { format!("{:#}\n", in_json(&explanation, now)) } else { in_words(&explanation, now) };
    cli::print(&text)?;
    match explanation.verdict {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("the gateway would refuse this token: {error}")),
    }
}

fn read_token() -> anyhow::Result<String> {
    let mut text = String::new();
    // One more than a token may have is enough to see that it is too long.
    let most = TOKEN_BYTES_MAX as u64 + 1;
    std::io::stdin().lock().take(most).read_to_string(&mut text).context("the standard input could not be read")?;
    Ok(text.trim().to_owned())
}

fn in_json(explanation: &Explanation, now: Duration) -> Value {
    let Explanation { header, claims, key, grants, verdict, .. } = explanation;
    let verified = verdict.as_ref().ok();
    let grants: Map<_, _> = grants.iter().map(|(pattern, rights)| (pattern.clone(), json!(rights))).collect();
    json!({
        "holds": verified.is_some(),
        "reason": verdict.as_ref().err().map(|error| error.text()),
        "code": verdict.as_ref().err().map(|error| error.label()),
        "user": verified.and_then(|verified| verified.identity.user.as_ref()).map(UserName::as_str),
        "expires_in": verified.and_then(|verified| verified.expires).map(|at| at.saturating_sub(now).as_secs()),
        "key": key.map(|key| match key {
            Signer::Configured(place) => json!(place + 1),
            Signer::Published => json!("key set"),
        }),
        "header": header,
        "claims": claims,
        "grants": grants,
    })
}

fn in_words(explanation: &Explanation, now: Duration) -> String {
    let Explanation { header, claims, key, grants, verdict, .. } = explanation;
    let mut out = String::new();
    let mut line = |name: &str, text: &str| out.push_str(&format!("{name:<9} {}\n", shown(text)));
    match verdict {
        Ok(verified) => {
            let user = verified.identity.user.as_ref().map_or("nobody in particular", UserName::as_str);
            line("verdict", &format!("it holds, for {user}"));
        }
        Err(error) => line("verdict", &format!("refused: {error}")),
    }
    match key {
        Some(Signer::Configured(place)) => line("key", &format!("signed with entry {} of auth.keys", place + 1)),
        Some(Signer::Published) => line("key", "signed with a key of the published key set"),
        None => line("key", "no key of this configuration signed it: nothing below is to be believed"),
    }
    line("header", &header.as_ref().map_or_else(|| "cannot be read".to_owned(), Value::to_string));
    let Some(claims) = claims else {
        line("claims", "cannot be read");
        return out;
    };
    let Value::Object(claims) = claims else {
        line("claims", &format!("no object: {claims}"));
        return out;
    };
    for (name, value) in claims.iter().filter(|(name, _)| *name != "rooms") {
        let is_time = matches!(name.as_str(), "exp" | "nbf" | "iat");
        let words = is_time.then(|| value.as_f64()).flatten().and_then(|seconds| moment(seconds, now));
        line(name, &words.map_or_else(|| value.to_string(), |words| format!("{value}  {words}")));
    }
    if let (None, Ok(_)) = (claims.get("exp"), verdict) {
        line("exp", "none: it holds as long as its key");
    }
    match (claims.get("rooms"), grants.as_slice()) {
        (None, _) => line("grants", "nothing; rooms that are open to anyone or to users stay so"),
        (Some(rooms), []) => line("grants", &format!("cannot be read: {rooms}")),
        (Some(_), grants) => grants.iter().for_each(|(pattern, rights)| {
            let rights: Vec<_> = rights.iter().map(|&right| word(right)).collect();
            line("grants", &format!("{} in {}", rights.join(", "), rooms_of(pattern)));
        }),
    }
    out
}

fn rooms_of(pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some("") => "every room".to_owned(),
        Some(prefix) => format!("rooms that begin with {prefix}"),
        None => format!("the room {pattern}"),
    }
}

const fn word(right: RoomRight) -> &'static str {
    match right {
        RoomRight::Subscribe => "subscribe",
        RoomRight::Publish => "publish",
        RoomRight::Presence => "presence",
        RoomRight::Moderate => "moderate",
    }
}

/// A time as people read it, and how far off it is.
fn moment(seconds: f64, now: Duration) -> Option<String> {
    /// The end of the year 9999, where dates get longer.
    const END: f64 = 253_402_300_799.0;
    if !(0.0..END).contains(&seconds) {
        return None;
    }
    let at = Duration::from_secs(seconds as u64);
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + at);
    let now = Duration::from_secs(now.as_secs());
    let off = |time: Duration| humantime::format_duration(time).to_string();
    Some(match at.checked_sub(now) {
        Some(left) => format!("{date}, in {}", off(left)),
        None => format!("{date}, {} ago", off(now - at)),
    })
}

/// What a stranger wrote, without what a terminal would obey.
fn shown(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|c| if is_odd(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use fanfare_guard::{Claims, TokenKeys};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: Duration = Duration::from_secs(1_795_219_200);

    fn keys() -> TokenKeys {
        TokenKeys::parse(["ffffffffffffffffffffffffffffffff", SECRET]).expect("fit keys")
    }

    fn minted(claims: &Claims) -> String {
        TokenKeys::parse([SECRET]).expect("a fit key").mint(claims).expect("a token")
    }

    fn ann() -> Claims {
        let rooms = [("chat:*".to_owned(), vec![RoomRight::Subscribe, RoomRight::Publish])].into();
        Claims { sub: Some("ann".to_owned()), exp: Some(NOW.as_secs() + 3_600), rooms, ..Claims::default() }
    }

    #[test]
    fn a_token_that_holds_is_explained() {
        let text = in_words(&keys().explain(Published::None, &minted(&ann()), NOW), NOW);
        assert_eq!(
            text,
            "verdict   it holds, for ann\n\
             key       signed with entry 2 of auth.keys\n\
             header    {\"alg\":\"HS256\",\"typ\":\"JWT\"}\n\
             exp       1795222800  2026-11-21T01:00:00Z, in 1h\n\
             sub       \"ann\"\n\
             grants    subscribe, publish in rooms that begin with chat:\n"
        );
        assert!(!text.contains(SECRET));
    }

    #[test]
    fn a_refusal_has_its_reason_and_what_can_be_read_is_shown() {
        let late = NOW + Duration::from_secs(3_690);
        let text = in_words(&keys().explain(Published::None, &minted(&ann()), late), late);
        assert!(text.starts_with("verdict   refused: token expired\n"), "{text}");
        assert!(text.contains("01:00:00Z, 1m 30s ago\n"), "{text}");
        let stranger = TokenKeys::parse(["stranger stranger stranger stranger"]).expect("a fit key");
        let text = in_words(&keys().explain(Published::None, &stranger.mint(&ann()).expect("a token"), NOW), NOW);
        assert!(text.contains("refused: token signature wrong\nkey       no key of this"), "{text}");
        let text = in_words(&keys().explain(Published::None, "nonsense", NOW), NOW);
        assert!(text.contains("refused: token malformed") && text.ends_with("claims    cannot be read\n"), "{text}");
    }

    #[test]
    fn what_strangers_wrote_does_not_reach_the_terminal_as_it_is() {
        let claims = Claims { sub: Some("a\u{9b}2J\u{202e}b\u{1b}[31m".to_owned()), ..ann() };
        let text = in_words(&keys().explain(Published::None, &minted(&claims), NOW), NOW);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn programs_get_json() {
        let value = in_json(&keys().explain(Published::None, &minted(&ann()), NOW), NOW);
        assert_eq!((&value["holds"], &value["user"], &value["key"]), (&json!(true), &json!("ann"), &json!(2)));
        assert_eq!((&value["expires_in"], &value["reason"]), (&json!(3_600), &Value::Null));
        assert_eq!(value["grants"], json!({"chat:*": ["subscribe", "publish"]}));
        let value = in_json(&TokenKeys::default().explain(Published::None, &minted(&ann()), NOW), NOW);
        assert_eq!((&value["holds"], &value["code"], &value["key"]), (&json!(false), &json!("no_keys"), &Value::Null));
        assert_eq!(value["claims"]["sub"], "ann");
    }

    #[test]
    fn times_beyond_the_calendar_have_no_words() {
        assert_eq!(moment(1e15, NOW), None);
        assert_eq!(moment(-1.0, NOW), None);
        assert_eq!(moment(f64::NAN, NOW), None);
    }
}
