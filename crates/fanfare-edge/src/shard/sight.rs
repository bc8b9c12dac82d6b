//! How much of what has happened the shard has looked at. A plain value that is told the time.
//!
//! Whether a peer has been silent is judged by what was read of it. A shard that was held up (a machine that was suspended or moved, a
//! stopped process) finds deadlines that are over beside thousands of sockets with the answers in them, and reads some of them in a turn:
//! until it has read the rest, nobody's silence is proven.

use std::time::Duration;

/// How far the shard has looked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sight {
    /// When the last turn asked the poll set.
    asked: Duration,
    /// All that came before this time has been read.
    until: Duration,
    /// Since when there has been more than could be read in a turn.
    behind_since: Option<Duration>,
}

impl Sight {
    /// A turn that asked the poll set at `asked` has read all there was, or has not. `patience` is that of [`Self::proves_silence`].
    pub(super) fn turn(&mut self, asked: Duration, all: bool, patience: Duration) {
        // Time in which it could not read is nobody's silence.
        let was_held_up = asked.saturating_sub(self.asked) >= patience / 2;
        self.asked = asked;
        if all {
            self.until = asked;
            self.behind_since = None;
        } else if was_held_up || self.behind_since.is_none() {
            self.behind_since = Some(asked);
        }
    }

    /// Whether a peer that should have been heard by `due` was silent, or may only not have been read yet. A shard that for `patience` has
    /// been reading and has not come to an end judges by what it knows: it would never let anybody go.
    pub(super) fn proves_silence(&self, due: Duration, now: Duration, patience: Duration) -> bool {
        self.until >= due || self.behind_since.is_some_and(|since| now >= since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_proven_once_all_that_came_before_was_read() {
        let mut sight = Sight::default();
        sight.turn(s(10), true, s(5));
        assert!(sight.proves_silence(s(10), s(10), s(5)) && !sight.proves_silence(s(11), s(11), s(5)));
        // Held up in the middle of its work until 30, and then for some turns with more than one of them reads.
        for asked in [11, 30, 31, 32] {
            sight.turn(s(asked), false, s(5));
            assert!(!sight.proves_silence(s(20), s(asked), s(5)), "{asked}");
        }
        sight.turn(s(33), true, s(5));
        assert!(sight.proves_silence(s(20), s(33), s(5)));
    }

    #[test]
    fn a_shard_that_never_gets_to_the_end_judges_all_the_same() {
        let mut sight = Sight::default();
        for asked in 30..35 {
            sight.turn(s(asked), false, s(5));
            assert!(!sight.proves_silence(s(20), s(asked), s(5)));
        }
        sight.turn(s(35), false, s(5));
        assert!(sight.proves_silence(s(20), s(35), s(5)));
    }
}
