//! Whether a connection lives. A plain value that is told the time.

use std::time::Duration;

use fanfare_protocol::HeartbeatLimits;

use super::moment::Moment;

/// What is known of one connection's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// When the last byte came in.
    heard: Moment,
    /// When the next ping is due.
    ping: Moment,
    /// When the ping that has not been answered was sent.
    asked: Option<Moment>,
    /// When queued bytes last moved, while there are any.
    blocked: Option<Moment>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before this time.
    Wait(Duration),
    /// Send a ping, then ask again.
    Ping,
    /// The pong did not come until this time.
    PongTimeout(Duration),
    /// Queued bytes did not move until this time.
    WriteTimeout(Duration),
}

impl Heartbeat {
    /// `jitter` (0..1) moves the first ping, so that connections that came together are not asked together.
    pub(super) fn new(now: Duration, limits: &HeartbeatLimits, jitter: f64) -> Self {
        let ping = now + limits.ping.mul_f64(0.5 + jitter / 2.0);
        Self { heard: now.into(), ping: ping.into(), asked: None, blocked: None }
    }

    /// Bytes came in.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now.into();
    }

    /// Bytes are queued, or some of them were taken.
    pub(super) fn moved(&mut self, now: Duration) {
        self.blocked = Some(now.into());
    }

    /// Nothing is queued any more.
    pub(super) fn unblocked(&mut self) {
        self.blocked = None;
    }

    /// Nobody answers the ping that is sent now.
    pub(super) fn expects_nothing(&mut self) {
        self.asked = None;
    }

    pub(super) fn beat(&mut self, now: Duration, limits: &HeartbeatLimits) -> Beat {
        if self.asked.is_some_and(|asked| self.heard > asked) {
            self.asked = None;
        }
        let write = self.blocked.map(|moved| Duration::from(moved) + limits.write);
        if let Some(due) = write.filter(|&due| now >= due) {
            return Beat::WriteTimeout(due);
        }
        let pong = self.asked.map(|asked| Duration::from(asked) + limits.pong);
        if let Some(due) = pong.filter(|&due| now >= due) {
            return Beat::PongTimeout(due);
        }
        let ping = Duration::from(self.ping);
        if now >= ping {
            // An unanswered ping keeps its own deadline; another one would only move it.
            self.asked.get_or_insert(now.into());
            self.ping = (now + limits.ping).into();
            return Beat::Ping;
        }
        Beat::Wait([pong, write].into_iter().flatten().fold(ping, Duration::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeartbeatLimits = HeartbeatLimits {
        ping: Duration::from_secs(25),
        pong: Duration::from_secs(10),
        write: Duration::from_secs(7),
        close: Duration::from_secs(5),
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_connection_is_asked_and_then_given_up() {
        let mut heart = Heartbeat::new(s(0), &LIMITS, 1.0);
        assert_eq!(heart.beat(s(0), &LIMITS), Beat::Wait(s(25)));
        assert_eq!(heart.beat(s(25), &LIMITS), Beat::Ping);
        assert_eq!(heart.beat(s(25), &LIMITS), Beat::Wait(s(35)));
        assert_eq!(heart.beat(s(36), &LIMITS), Beat::PongTimeout(s(35)));
    }

    #[test]
    fn an_answer_starts_the_next_round() {
        let mut heart = Heartbeat::new(s(0), &LIMITS, 1.0);
        assert_eq!(heart.beat(s(25), &LIMITS), Beat::Ping);
        heart.heard(s(30));
        assert_eq!(heart.beat(s(35), &LIMITS), Beat::Wait(s(50)));
        assert_eq!(heart.beat(s(50), &LIMITS), Beat::Ping);
    }

    #[test]
    fn a_ping_while_one_is_unanswered_does_not_move_the_deadline() {
        let limits = HeartbeatLimits { ping: s(3), ..LIMITS };
        let mut heart = Heartbeat::new(s(0), &limits, 1.0);
        for second in [3, 6, 9, 12] {
            assert_eq!(heart.beat(s(second), &limits), Beat::Ping);
        }
        assert_eq!(heart.beat(s(13), &limits), Beat::PongTimeout(s(13)));
    }

    #[test]
    fn queued_bytes_that_do_not_move_end_it() {
        let mut heart = Heartbeat::new(s(0), &LIMITS, 1.0);
        heart.moved(s(1));
        assert_eq!(heart.beat(s(2), &LIMITS), Beat::Wait(s(8)));
        heart.moved(s(7));
        assert_eq!(heart.beat(s(8), &LIMITS), Beat::Wait(s(14)));
        assert_eq!(heart.beat(s(14), &LIMITS), Beat::WriteTimeout(s(14)));
        heart.unblocked();
        assert_eq!(heart.beat(s(14), &LIMITS), Beat::Wait(s(25)));
    }

    #[test]
    fn the_first_ping_comes_between_half_an_interval_and_a_whole_one() {
        for (jitter, expected) in [(0.0, 12_500), (0.5, 18_750), (1.0, 25_000)] {
            let mut heart = Heartbeat::new(s(0), &LIMITS, jitter);
            assert_eq!(heart.beat(s(0), &LIMITS), Beat::Wait(Duration::from_millis(expected)));
        }
    }
}
