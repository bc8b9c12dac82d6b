//! What was beyond a bound, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of what was beyond one bound, since the start.
#[derive(Debug, Default)]
pub struct Beyond {
    refused: AtomicU64,
    let_pass: AtomicU64,
}

impl Beyond {
    /// One more was beyond the bound, which is only observed or holds. Says whether it is let pass.
    pub(crate) fn count(&self, observes: bool) -> bool {
        let counter = if observes { &self.let_pass } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        observes
    }

    /// How many were refused, and how many were let pass because the bound was only observed.
    #[must_use]
    pub fn totals(&self) -> [u64; 2] {
        [&self.refused, &self.let_pass].map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use fanfare_fanout::{Intake, IntakeLimits};
    use fanfare_protocol::{Payload, Rate, RoomName};

    use crate::{Draft, JoinError, PublishError, Registry, RegistryLimits, RoomBounds, RoomOptions};

    fn registry() -> Registry<()> {
        let intake = Arc::new(Intake::new(IntakeLimits::default(), || {}));
        Registry::new(vec![intake], RegistryLimits::default(), 7)
    }

    fn name(text: &str) -> RoomName {
        RoomName::parse(text).expect("a name")
    }

    fn bounded(bounds: RoomBounds) -> RoomOptions {
        RoomOptions { bounds, ..RoomOptions::default() }
    }

    #[test]
    fn a_full_room_lets_nobody_in_until_somebody_leaves_or_the_bound_is_raised() {
        let registry = registry();
        let max = |subscribers_max| bounded(RoomBounds { subscribers_max, rate: None });
        let join = |room: &str, max| registry.join(&name(room), max, 0, None, Duration::ZERO).map(|joined| joined.room);
        let first = join("a", max(2)).expect("a place");
        join("a", max(2)).expect("a place");
        assert_eq!(join("a", max(2)).err(), Some(JoinError::SubscribersMax));
        join("b", max(2)).expect("another room has places of its own");
        registry.leave(&first, 0, None, false);
        join("a", max(2)).expect("the place that was left");
        join("a", max(3)).expect("a bound that was raised holds at once");
        assert_eq!(join("a", max(1)).err(), Some(JoinError::SubscribersMax), "one that was lowered, too");
        join("a", max(0)).expect("without a bound");
        assert_eq!(registry.stats().beyond_subscribers.totals(), [2, 0]);
        registry.set_limits(&RegistryLimits { observes: true, ..RegistryLimits::default() });
        join("a", max(1)).expect("it is only observed");
        assert_eq!(registry.stats().beyond_subscribers.totals(), [2, 1]);
        assert_eq!(registry.get(&name("a")).expect("the room").info().occupancy, 5);
    }

    #[test]
    fn a_room_takes_its_rate_and_what_is_refused_has_no_number() {
        let registry = registry();
        let publish = |room: &str, per_second, ms| {
            let draft = Draft { user: None, payload: Payload::Json("1".into()), except: None, receipt: None };
            let options = bounded(RoomBounds { subscribers_max: 0, rate: Rate::per_second(per_second) });
            registry.publish(&name(room), options, draft, Duration::from_millis(ms)).map(|said| said.position.offset)
        };
        assert_eq!((publish("a", 2, 0), publish("a", 2, 0)), (Ok(1), Ok(2)));
        assert_eq!(publish("a", 2, 499), Err(PublishError::TooFast));
        assert_eq!(publish("b", 2, 499), Ok(1), "another room has a rate of its own");
        assert_eq!(publish("a", 2, 500), Ok(3), "no number was lost");
        assert_eq!(publish("a", 2, 500), Err(PublishError::TooFast));
        assert_eq!(publish("a", 0, 500), Ok(4), "without a bound");
        assert_eq!(registry.stats().beyond_rate.totals(), [2, 0]);
        registry.set_limits(&RegistryLimits { observes: true, ..RegistryLimits::default() });
        assert_eq!((publish("a", 1, 500), publish("a", 1, 500)), (Ok(5), Ok(6)), "it is only observed");
        assert_eq!(registry.stats().beyond_rate.totals(), [2, 1]);
    }
}
