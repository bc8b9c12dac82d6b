//! `fanfare token`: mints a token from the configured key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use fanfare_guard::{Claims, NumericDate, RoomRight};
use fanfare_protocol::UserName;

use crate::cli::{self, TokenArgs};
use crate::config::Config;

/// Prints a token for `args.user`, signed with the first HMAC secret of `auth.keys`.
///
/// # Errors
/// When there is no such secret, or the user's name cannot be one.
pub fn run(config: &Config, args: &TokenArgs) -> anyhow::Result<()> {
    let user = args.user.as_deref().unwrap_or_default();
    UserName::parse(user).with_context(|| format!("{user:?} cannot be a user's name"))?;
    anyhow::ensure!(
        !config.tokens.is_empty(),
        "there is no key to mint with: set auth.keys in the configuration (make one with `openssl rand -hex 32`)"
    );
    let token = config.tokens.mint(&claims(args, now()))?;
    Ok(cli::print(&format!("{token}\n"))?)
}

/// The time since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn claims(args: &TokenArgs, now: Duration) -> Claims {
    let mut rights = vec![RoomRight::Subscribe, RoomRight::Presence];
    if args.publish {
        rights.push(RoomRight::Publish);
    }
    if args.moderate {
        rights.push(RoomRight::Moderate);
    }
    let rooms = args.room.iter().map(|pattern| (pattern.clone(), rights.clone())).collect();
    let exp = Some(now.saturating_add(args.ttl).as_secs());
    // To the millisecond, so that it can be told from a revocation in the same second; and a name of its own to be revoked by.
    let iat = Some(NumericDate(Duration::from_millis(now.as_millis() as u64)));
    let jti = Some(format!("{:032x}", rand::random::<u128>()));
    Claims { sub: args.user.clone(), exp, iat, jti, rooms, ..Claims::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::RoomName;

    #[test]
    fn the_token_says_what_was_asked_for() {
        let args = TokenArgs {
            user: Some("ann".to_owned()),
            check: None,
            json: false,
            room: vec!["chat:*".to_owned()],
            ttl: Duration::from_secs(60),
            publish: true,
            moderate: false,
            config: None,
        };
        let keys = fanfare_guard::TokenKeys::parse(["0123456789abcdef0123456789abcdef"]).expect("a fit key");
        let token = keys.mint(&claims(&args, Duration::from_secs(1_000))).expect("a token");
        let identity = keys.verify(&token, Duration::from_secs(1_050)).expect("it holds").identity;
        let room = RoomName::parse("chat:1").expect("a valid name");
        assert!(identity.is_granted(&room, RoomRight::Publish) && !identity.is_granted(&room, RoomRight::Moderate));
        assert!(keys.verify(&token, Duration::from_secs(1_100)).is_err());
    }
}
