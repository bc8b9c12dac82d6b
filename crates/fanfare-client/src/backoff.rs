//! Whether to come back after a close, and when.

use std::time::Duration;

use fanfare_protocol::CloseCode;

/// Delays before reconnecting: each is drawn from the whole window (full jitter), and the window doubles from 0.5 s to
/// 20 s. The caller rolls the dice and resets it once a connection has held.
#[derive(Debug, Clone)]
pub struct Backoff {
    window: Duration,
}

impl Backoff {
    /// The first window.
    pub const FIRST: Duration = Duration::from_millis(500);
    /// The last window.
    pub const LAST: Duration = Duration::from_secs(20);

    /// Starts with the first window.
    #[must_use]
    pub fn new() -> Self {
        Self { window: Self::FIRST }
    }

    /// The next delay. `dice` is taken from 0 up to 1 evenly; values outside are clamped.
    #[must_use]
    pub fn delay(&mut self, dice: f64) -> Duration {
        let dice = if dice.is_finite() { dice.clamp(0.0, 1.0) } else { 1.0 };
        let delay = self.window.mul_f64(dice);
        self.window = (self.window * 2).min(Self::LAST);
        delay
    }

    /// Back to the first window: the connection held.
    pub fn reset(&mut self) {
        self.window = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a client that was closed with `code` may come back unchanged, with back-off. False for 44xx (fix something
/// first), for a normal close, and for the codes that say the client itself broke the rules. 1006 is a lost connection.
#[must_use]
pub fn may_return(code: CloseCode) -> bool {
    !matches!(code.0, 1000 | 1002 | 1003 | 1007..=1010 | 4400..=4499)
}

/// What to do after a close with `code`, for people.
#[must_use]
pub fn advice(code: CloseCode) -> &'static str {
    match code.0 {
        1000 => "the conversation was ended normally",
        1002 | 1007 => "this client broke the protocol: please report it",
        1003 => "send text here, not binary",
        1008 => "the gateway's policy forbids what was sent",
        1009 => "send smaller messages, or raise limits.message_bytes_max",
        4401 => "pass a valid token",
        4403 => "use a token that grants the right, or open the namespace in the configuration",
        4409 => "choose another name",
        4410 => "the room was closed by a moderator: open another one",
        4420 => "an operator ended this connection: ask before coming back",
        4429 => "send more slowly",
        4400..=4499 => "correct the request before coming back",
        _ => "come back with back-off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_up_to_the_last_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new();
        let full: Vec<u128> = (0..8).map(|_| backoff.delay(1.0).as_millis()).collect();
        assert_eq!(full, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
        assert_eq!(backoff.delay(0.25), Duration::from_secs(5));
        backoff.reset();
        assert_eq!(backoff.delay(0.0), Duration::ZERO);
        assert_eq!(backoff.delay(0.5), Duration::from_millis(500));
        assert_eq!(backoff.delay(f64::NAN), Duration::from_secs(2));
    }

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for code in [1001, 1006, 1011, 1012, 1013, 4500, 4504, 4508] {
            assert!(may_return(CloseCode(code)), "{code}");
        }
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403, 4409, 4410, 4420, 4429, 4499] {
            assert!(!may_return(CloseCode(code)), "{code}");
        }
    }
}
