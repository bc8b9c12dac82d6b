//! Tokens at the edge: checked against the time of day, and what a connection keeps of the one it came with.

use std::time::Duration;

use fanfare_guard::{Bucket, Identity, Published, TokenError, TokenMark, Verified};
use fanfare_protocol::{CloseReason, UserName};

use crate::hub::Hub;
use crate::wall_clock::wall_clock;

/// Refreshes a connection may try at once; checking a signature is work.
const REFRESHES_BURST: u32 = 10;

/// What is kept of the token that a connection came with. On the heap, for those that have one.
#[derive(Debug)]
pub(crate) struct HeldToken {
    /// When it ends, on the node's clock.
    expires: Option<Duration>,
    /// When it was minted, since 1970, and its own name: what it can be revoked by.
    issued: Option<Duration>,
    id: Option<Box<str>>,
    /// When the client is told that it ends. `None`: it has been, or is not.
    warning: Option<Duration>,
    /// Refreshes that may still be tried: one a second in the long run.
    refreshes: Bucket,
}

/// What is to be done about a connection's token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenBeat {
    /// Nothing before this time.
    Wait(Duration),
    /// Tell the client that it ends after so long, then ask again.
    Warn(Duration),
    /// End the connection.
    Expired,
}

impl HeldToken {
    /// `warning`: how long before the end the client is told; not before half of the time until then is over. Zero: it is not told.
    fn new(now: Duration, expires: Option<Duration>, warning: Duration) -> Self {
        let warning = expires.filter(|_| !warning.is_zero()).map(|expires| {
            let left = expires.saturating_sub(now);
            expires.saturating_sub(warning.min(left / 2))
        });
        Self { expires, warning, issued: None, id: None, refreshes: Bucket::new(1, REFRESHES_BURST) }
    }

    /// What it can be revoked by, with the user it speaks for.
    pub(crate) fn mark<'a>(&'a self, user: Option<&'a UserName>) -> TokenMark<'a> {
        TokenMark { user, id: self.id.as_deref(), issued: self.issued }
    }

    /// When to look at it again.
    pub(crate) fn due(&self) -> Duration {
        self.warning.or(self.expires).unwrap_or(Duration::MAX)
    }

    /// The time until its end.
    pub(crate) fn life(&self, now: Duration) -> Option<Duration> {
        self.expires.map(|expires| expires.saturating_sub(now))
    }

    pub(crate) fn beat(&mut self, now: Duration) -> TokenBeat {
        let Some(life) = self.life(now) else { return TokenBeat::Wait(Duration::MAX) };
        if life.is_zero() {
            return TokenBeat::Expired;
        }
        if self.warning.take_if(|warning| now >= *warning).is_some() {
            return TokenBeat::Warn(life);
        }
        TokenBeat::Wait(self.due())
    }

    /// Whether a refresh may be tried now; counts it.
    pub(crate) fn may_refresh(&mut self, now: Duration) -> bool {
        self.refreshes.take(now, 1)
    }

    /// Takes the place of `former`.
    pub(crate) fn replaces(self, former: &Self) -> Self {
        Self { refreshes: former.refreshes, ..self }
    }
}

/// Seconds as clients are told them: rounded up, so that 0 means that it is over.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// How a connection ends whose token does not hold.
pub(crate) fn refusal(error: TokenError) -> CloseReason {
    match error {
        // Nothing is wrong with the token: it can be brought again.
        TokenError::KeysUnavailable => CloseReason::TokenKeysUnavailable,
        error => CloseReason::TokenRefused(error.text()),
    }
}

impl Hub {
    /// Whether a token holds now: who it speaks for, and what a connection keeps of it. Counted.
    pub(crate) fn verify_token(&self, token: &str) -> Result<(Identity, HeldToken), TokenError> {
        let result = self.judge_token(token);
        self.counters().token(result.as_ref().err().copied());
        result
    }

    fn judge_token(&self, token: &str) -> Result<(Identity, HeldToken), TokenError> {
        let (wall, now) = (wall_clock(), self.now());
        let settings = self.settings();
        let set = settings.key_source.as_ref().map(|source| source.set());
        let published = match set.as_deref() {
            None => Published::None,
            Some(None) => Published::Missing,
            Some(Some(set)) => Published::Set(set),
        };
        let verified = settings.tokens.verify_among(published, token, wall);
        let verified = verified.map_err(|error| match (error, &settings.key_source) {
            // Keys change: the next set may have it.
            (TokenError::KeyUnknown, Some(source)) if source.is_coming(now) => TokenError::KeysUnavailable,
            _ => error,
        });
        let Verified { identity, expires, issued, id } = verified?;
        let expires = expires.map(|expires| now.saturating_add(expires.saturating_sub(wall)));
        let held = HeldToken { issued, id, ..HeldToken::new(now, expires, settings.expiry_warning) };
        if self.revocations().covers(held.mark(identity.user.as_ref())) {
            return Err(TokenError::Revoked);
        }
        Ok((identity, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_client_is_warned_once_and_then_its_time_is_over() {
        let mut token = HeldToken::new(s(100), Some(s(400)), s(60));
        assert_eq!(token.due(), s(340));
        assert_eq!(token.beat(s(339)), TokenBeat::Wait(s(340)));
        assert_eq!(token.beat(s(341)), TokenBeat::Warn(s(59)));
        assert_eq!(token.beat(s(341)), TokenBeat::Wait(s(400)));
        assert_eq!(token.beat(s(400)), TokenBeat::Expired);
    }

    #[test]
    fn a_short_life_is_not_warned_of_before_half_of_it_is_over() {
        assert_eq!(HeldToken::new(s(100), Some(s(110)), s(60)).due(), s(105));
        // Asked too late to warn: that it ends is more important.
        assert_eq!(HeldToken::new(s(100), Some(s(110)), s(60)).beat(s(110)), TokenBeat::Expired);
    }

    #[test]
    fn who_is_not_to_be_warned_or_has_no_end_is_not() {
        let mut silent = HeldToken::new(s(100), Some(s(400)), Duration::ZERO);
        assert_eq!(silent.beat(s(399)), TokenBeat::Wait(s(400)));
        let mut endless = HeldToken::new(s(100), None, s(60));
        assert_eq!((endless.due(), endless.beat(s(1_000_000))), (Duration::MAX, TokenBeat::Wait(Duration::MAX)));
        assert_eq!(endless.life(s(100)), None);
    }

    #[test]
    fn refreshes_are_bounded_and_a_new_token_does_not_change_that() {
        let mut token = HeldToken::new(s(0), Some(s(400)), s(60));
        assert!((0..REFRESHES_BURST).all(|_| token.may_refresh(s(1))));
        let mut next = HeldToken::new(s(1), Some(s(800)), s(60)).replaces(&token);
        assert!(!next.may_refresh(s(1)) && next.may_refresh(s(2)));
        assert_eq!(next.due(), s(740));
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!([0, 1, 999, 1_000, 59_001].map(|ms| seconds(Duration::from_millis(ms))), [0, 1, 1, 1, 60]);
    }
}
