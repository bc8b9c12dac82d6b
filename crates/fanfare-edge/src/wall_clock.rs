//! The time of day, for what is told to people and signed for elsewhere. All else goes by the node's own clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970; zero before.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
