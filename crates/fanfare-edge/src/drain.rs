//! Leaving service: the plan everyone can read, and the pace at which a shard closes its connections.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

/// Steps of leaving service, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Step {
    Serving = 0,
    /// Not ready, still accepting.
    Draining = 1,
    /// Listeners are closed.
    Closed = 2,
    /// The shards have ended: nobody is here any more.
    Over = 3,
}

/// When what is to happen, on the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPlan {
    /// When readiness was withdrawn.
    pub since: Duration,
    /// The same by the calendar.
    pub since_wall: SystemTime,
    /// New connections are taken until then.
    pub accept_until: Duration,
    /// All connections are closed by then.
    pub ends: Duration,
    /// Connections that were open when it began.
    pub open_at_start: usize,
}

impl DrainPlan {
    /// Half of what is left, of the grace as of the window.
    #[must_use]
    fn halved(self, now: Duration) -> Self {
        let half = |until: Duration| now + until.saturating_sub(now) / 2;
        Self {
            accept_until: self.accept_until.min(half(self.accept_until)),
            ends: self.ends.min(half(self.ends)),
            ..self
        }
    }

    /// Closing all within `window`: from now on, or from the end of the grace. Never longer than before.
    #[must_use]
    fn shortened(self, now: Duration, window: Duration) -> Self {
        Self { ends: self.ends.min(self.accept_until.max(now) + window), ..self }
    }
}

/// Whether this node is leaving service, and how.
#[derive(Debug)]
pub struct Drain {
    step: AtomicU8,
    /// Nothing until it leaves. Written by [`Self::begin`], [`Self::shorten`] and [`Self::halve`].
    plan: watch::Sender<Option<DrainPlan>>,
    /// Connections that did not answer their close in time, or had not when their shard ended. Written by the shards.
    cut: AtomicUsize,
    /// Shards that have ended.
    ended: AtomicUsize,
    /// Another process accepts in the place of this one.
    handed_over: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            step: AtomicU8::new(Step::Serving as u8),
            plan: watch::Sender::new(None),
            cut: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            handed_over: watch::Sender::new(false),
        }
    }
}

impl Drain {
    /// Withdraws readiness and sets the plan, unless there is one.
    pub(crate) fn begin(&self, plan: DrainPlan) {
        self.step.fetch_max(Step::Draining as u8, Ordering::Relaxed);
        self.plan.send_if_modified(|planned| {
            let is_first = planned.is_none();
            planned.get_or_insert(plan);
            is_first
        });
    }

    /// Closes all within `window` if that is sooner than planned.
    pub(crate) fn shorten(&self, now: Duration, window: Duration) {
        self.change(|plan| plan.shortened(now, window));
    }

    /// Halves what is left of the grace and of the window.
    pub(crate) fn halve(&self, now: Duration) {
        self.change(|plan| plan.halved(now));
    }

    /// Another process accepts from the same listeners: this one does not go on doing so for a grace.
    pub(crate) fn hand_over(&self, now: Duration) {
        self.handed_over.send_replace(true);
        self.change(|plan| DrainPlan { accept_until: plan.accept_until.min(now), ..plan });
    }

    /// True once another process accepts in the place of this one.
    pub(crate) fn is_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    /// Waits for that. Cancel safe.
    pub(crate) async fn handed_over(&self) {
        // It ends with this value, which is borrowed here.
        let _ = self.handed_over.subscribe().wait_for(|&is_so| is_so).await;
    }

    fn change(&self, change: impl FnOnce(DrainPlan) -> DrainPlan) {
        self.plan.send_if_modified(|planned| {
            let Some(plan) = planned else { return false };
            let changed = change(*plan);
            let is_other = changed != *plan;
            *plan = changed;
            is_other
        });
    }

    /// The plan, once there is one.
    #[must_use]
    pub fn plan(&self) -> Option<DrainPlan> {
        *self.plan.borrow()
    }

    /// To wait for the plan, and for changes of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<DrainPlan>> {
        self.plan.subscribe()
    }

    /// True once readiness is withdrawn.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Step::Draining as u8
    }

    /// Closes the listeners. A shard sees it in its next turn, at the latest when it is told to close its connections.
    pub fn stop_accepting(&self) {
        self.step.fetch_max(Step::Closed as u8, Ordering::Relaxed);
    }

    /// True until listeners are to be closed.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.step.load(Ordering::Relaxed) < Step::Closed as u8
    }

    /// True once nobody is here any more: what is published from then on could reach nobody, and is refused.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Step::Over as u8
    }

    /// One of so many shards has nobody any more; `cut` had not answered their close.
    pub(crate) fn shard_ended(&self, shards: usize, cut: usize) {
        self.cut_off(cut);
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == shards {
            self.step.fetch_max(Step::Over as u8, Ordering::Release);
        }
    }

    /// So many connections are let go that have not answered their close in time.
    pub(crate) fn cut_off(&self, connections: usize) {
        self.cut.fetch_add(connections, Ordering::Relaxed);
    }

    /// Connections that did not answer their close in time while the node left service.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

/// A shard that looks late at its pace makes up for so much at once; the rest is spread over what is left, so that a pause is
/// not followed by a burst.
const MADE_UP_FOR_MAX: Duration = Duration::from_millis(20);

/// The pace of one shard: at any time the connections that are open are spread evenly over the time that is left. All shards
/// have the same end, so one with more connections closes more of them at a time. A plain value that is told the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    ends: Duration,
    /// When it was last looked at.
    last: Duration,
    /// When the next connection is due.
    next: Duration,
    /// The part of a connection that is due already.
    owed: f64,
}

impl Pace {
    /// Closes `open` connections from now until `ends`.
    pub(crate) fn new(now: Duration, ends: Duration, open: usize) -> Self {
        let mut pace = Self { ends, last: now, next: now, owed: 0.0 };
        pace.plan_next(now, open);
        pace
    }

    /// Another end.
    pub(crate) fn change_end(&mut self, now: Duration, ends: Duration, open: usize) {
        self.ends = ends;
        self.plan_next(now, open);
    }

    /// How many of `open` connections are to be closed now.
    pub(crate) fn due(&mut self, now: Duration, open: usize) -> usize {
        if now >= self.ends {
            return open;
        }
        if now < self.next {
            return 0;
        }
        let counted = now.min(self.next + MADE_UP_FOR_MAX).saturating_sub(self.last).as_secs_f64();
        self.last = now;
        self.owed += open as f64 * counted / (counted + (self.ends - now).as_secs_f64());
        // A hair below a whole one is the arithmetic's, not the pace's.
        let due = ((self.owed + 1e-6).floor().max(0.0) as usize).min(open);
        self.owed = (self.owed - due as f64).max(0.0);
        self.plan_next(now, open - due);
        due
    }

    fn plan_next(&mut self, now: Duration, open: usize) {
        let left = self.ends.saturating_sub(now);
        let step = left.div_f64(open.max(1) as f64).mul_f64((1.0 - self.owed).clamp(0.0, 1.0));
        // Timers are that fine and no finer.
        self.next = (now + step.max(Duration::from_millis(1))).min(self.ends.max(now));
    }

    /// When all are closed.
    pub(crate) fn ends(&self) -> Duration {
        self.ends
    }

    /// When the next connection is due.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Closes `open` connections within `window_ms` and returns how many in each of the bins of `bin_ms`. `looks` says when the shard
    /// looks at its pace, given when it should.
    fn bins(open: usize, window_ms: u64, bin_ms: u64, mut looks: impl FnMut(Duration) -> Duration) -> Vec<usize> {
        let (start, mut open) = (ms(1_000), open);
        let mut pace = Pace::new(start, start + ms(window_ms), open);
        let mut bins = vec![0; (window_ms / bin_ms) as usize + 20];
        let mut now = start;
        while open > 0 {
            now = looks(pace.next()).max(now);
            let due = pace.due(now, open);
            bins[((now - start).as_millis() as u64 / bin_ms) as usize] += due;
            open -= due;
        }
        bins
    }

    #[test]
    fn the_pace_is_even() {
        for (open, window_ms) in [(4_000, 20_000), (2_037, 20_000), (400, 2_000), (100_000, 30_000)] {
            let ideal = open as f64 * 100.0 / window_ms as f64;
            let bins = bins(open, window_ms, 100, |next| next);
            let inside = &bins[..(window_ms / 100) as usize];
            let (least, most) = (*inside.iter().min().unwrap(), *inside.iter().max().unwrap());
            assert!(
                least as f64 >= ideal * 0.9 - 1.0 && most as f64 <= ideal * 1.1 + 1.0,
                "{open} in {window_ms}: {bins:?}"
            );
        }
        assert_eq!(bins(3, 30_000, 10_000, |next| next)[..4], [0, 1, 1, 1]);
    }

    #[test]
    fn a_pause_is_not_followed_by_a_burst() {
        // Every second or so the shard looks 90 ms too late.
        let mut looks = 0;
        let late = |next: Duration| {
            looks += 1;
            if looks % 200 == 0 { next + ms(90) } else { next + ms(1) }
        };
        let bins = bins(4_000, 20_000, 100, late);
        assert!(bins.iter().all(|&bin| bin <= 30), "{bins:?}");
        assert_eq!(bins.iter().sum::<usize>(), 4_000);
        assert!(bins[201..].iter().all(|&bin| bin == 0), "the end is kept: {bins:?}");
    }

    #[test]
    fn all_are_due_at_the_end_and_a_nearer_end_makes_it_faster() {
        let mut pace = Pace::new(ms(0), ms(10_000), 100);
        assert_eq!((pace.due(ms(0), 100), pace.due(ms(10_000), 100), pace.due(ms(20_000), 3)), (0, 100, 3));
        assert_eq!(Pace::new(ms(5), ms(5), 7).due(ms(5), 7), 7);
        let mut pace = Pace::new(ms(0), ms(10_000), 100);
        pace.change_end(ms(0), ms(1_000), 100);
        assert_eq!(pace.next(), ms(10));
    }

    #[test]
    fn a_plan_is_halved_and_shortened_and_never_lengthened() {
        let plan = DrainPlan {
            since: ms(0),
            since_wall: SystemTime::UNIX_EPOCH,
            accept_until: ms(4_000),
            ends: ms(24_000),
            open_at_start: 1,
        };
        let times = |plan: DrainPlan| (plan.accept_until, plan.ends);
        assert_eq!(times(plan.halved(ms(2_000))), (ms(3_000), ms(13_000)));
        assert_eq!(times(plan.halved(ms(14_000))), (ms(4_000), ms(19_000)));
        assert_eq!(times(plan.halved(ms(30_000))), (ms(4_000), ms(24_000)));
        assert_eq!(times(plan.shortened(ms(1_000), ms(5_000))), (ms(4_000), ms(9_000)));
        assert_eq!(times(plan.shortened(ms(10_000), ms(5_000))), (ms(4_000), ms(15_000)));
        assert_eq!(times(plan.shortened(ms(10_000), ms(50_000))), (ms(4_000), ms(24_000)));
    }

    #[test]
    fn the_first_plan_holds_until_it_is_changed() {
        let drain = Drain::default();
        let plan = |ends| DrainPlan {
            since: ms(0),
            since_wall: SystemTime::UNIX_EPOCH,
            accept_until: ms(0),
            ends: ms(ends),
            open_at_start: 0,
        };
        drain.halve(ms(0));
        assert!(drain.plan().is_none() && !drain.has_begun());
        drain.begin(plan(100));
        drain.begin(plan(50));
        assert_eq!(drain.plan(), Some(plan(100)));
        assert!(drain.has_begun() && drain.is_accepting());
        drain.halve(ms(0));
        assert_eq!(drain.plan(), Some(plan(50)));
    }
}
