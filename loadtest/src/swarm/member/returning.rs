//! Coming back with a position.

use std::time::Duration;

use fanfare_client::Position;

use super::super::core::Core;
use super::Member;

/// How long one waits that was told nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// What one that comes back keeps between its stays.
#[derive(Debug, Default)]
pub(super) struct Stays {
    /// What it saw last; `None` until it was here.
    seen: Option<Position>,
    /// What the gateway asked it to wait.
    retry: Duration,
}

impl Stays {
    /// The position that it comes with. The first is of no room's life, so that the gateway says where the room stands.
    pub(super) fn since(&self) -> String {
        self.seen.unwrap_or(Position { epoch: 0, offset: 0 }).to_string()
    }
}

/// True for the closes after which a client is to come back.
pub(super) fn is_invited(code: u16) -> bool {
    matches!(code, 1006 | 1011 | 1012 | 4500..=4599)
}

impl Member {
    /// It was subscribed before, and comes back.
    pub(super) fn was_here(&self) -> bool {
        self.stays.as_ref().is_some_and(|stays| stays.seen.is_some())
    }

    /// How long it stays away: what it was asked to, and up to as much again, each another time.
    pub(in super::super) fn pause(&self) -> Duration {
        let Some(stays) = &self.stays else { return Duration::ZERO };
        let spread = (self.index as u32).wrapping_mul(40_503).wrapping_add(self.retries) % 1_000;
        let pause = stays.retry.max(PAUSE);
        pause + pause * spread / 1_000
    }

    /// The gateway leaves service.
    pub(super) fn sent_away(&mut self, retry_ms: u64) {
        if let Some(stays) = &mut self.stays {
            stays.retry = Duration::from_millis(retry_ms);
        }
    }

    /// The gateway said where the room stands. From here on every publication is owed; with `recovered` those from the last
    /// position on as well.
    pub(super) fn placed(&mut self, core: &mut Core, position: Position, recovered: bool) {
        let Some(stays) = &mut self.stays else { return };
        stays.retry = Duration::ZERO;
        self.retries = 0;
        let Some(seen) = stays.seen else {
            stays.seen = Some(position);
            return;
        };
        if recovered {
            core.measured.returns.recovered += 1;
            if seen.epoch != position.epoch || seen.offset > position.offset {
                core.measured.error("recovered from a position that the room never had".to_owned());
            }
            return;
        }
        core.measured.returns.gaps += 1;
        stays.seen = Some(position);
        self.receiver.begin_stay();
    }

    /// A publication of this number comes next: within a stay, and over a recovery, there is no hole.
    pub(super) fn numbered(&mut self, core: &mut Core, offset: u64) {
        let Some(seen) = self.stays.as_mut().and_then(|stays| stays.seen.as_mut()) else { return };
        if offset != seen.offset + 1 {
            core.measured.error("an offset is not the one after the last".to_owned());
        }
        seen.offset = offset;
    }

    /// So many numbers are not to come.
    pub(super) fn passed_over(&mut self, count: u64) {
        if let Some(seen) = self.stays.as_mut().and_then(|stays| stays.seen.as_mut()) {
            seen.offset += count;
        }
    }
}
