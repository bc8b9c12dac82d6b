//! Takes a plan through its phases: open, hold or storm, publish, settle, close; and draws up the report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::process::{self, Usage};
use crate::progress::Progress;
use crate::report::{Facts, Report, Samples};
use crate::scenario::{Plan, Stalled, Task};
use crate::swarm::{self, Ended, Measured, Phase, Shared};
use anyhow::{Context, anyhow};

/// Carries out the plan.
///
/// # Errors
/// The run could not take place: too few descriptors, a connection that could not be opened, no such gateway process. What
/// goes wrong during the run stands in the report.
pub fn carry_out(plan: Plan, progress: &Progress) -> anyhow::Result<Report> {
    process::ensure_descriptors(plan.descriptors())?;
    let before = sample(&plan)?;
    let mut run = Run::begin(plan)?;
    let outcome = run.phases(progress, before);
    progress.end();
    if outcome.is_err() {
        run.shared.enter(Phase::Abandoned);
    }
    run.end(outcome)
}

/// Carries out the runs of a task one after the other, and sums up their reports.
///
/// # Errors
/// As [`carry_out`].
pub fn carry_out_all(task: &Task, progress: &Progress) -> anyhow::Result<Report> {
    let reports = task.plans.iter().map(|plan| carry_out(plan.clone(), progress)).collect::<anyhow::Result<_>>()?;
    (task.sum_up)(&task.plans, reports).context("there is nothing to do")
}

type Worker = JoinHandle<anyhow::Result<(Vec<Ended>, Measured)>>;

/// A run whose threads have been started.
struct Run {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    begun: Instant,
    /// Questions asked.
    asked: usize,
    /// The largest resident memory of the gateway that was seen while publishing, KiB.
    peak_kib: u64,
}

/// What the phases brought, before the audits are collected.
struct Outcome {
    opening: Duration,
    storm: Option<Duration>,
    start: Instant,
    /// How long connections came and went.
    churning: Duration,
    samples: Samples,
    flushed: bool,
}

impl Run {
    fn begin(plan: Plan) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let (shared, polls) = Shared::new(plan)?;
        let shared = Arc::new(shared);
        let worker = |(index, poll)| {
            let shared = shared.clone();
            thread::spawn(move || swarm::work(&shared, poll, index))
        };
        let workers = polls.into_iter().enumerate().map(worker).collect();
        Ok(Self { shared, workers, begun, asked: 0, peak_kib: 0 })
    }

    fn phases(&mut self, progress: &Progress, before: Option<Usage>) -> anyhow::Result<Outcome> {
        let connections = self.shared.plan.connections as u64;
        let ours_first = Usage::of(std::process::id()).ok();
        self.open(progress, connections)?;
        let opening = self.begun.elapsed();
        let ours_open = Usage::of(std::process::id()).ok();
        self.ask()?;
        if !self.shared.plan.dialect.answers_in_order() {
            thread::sleep(Duration::from_millis(500));
        }
        if let Some(hold) = self.shared.plan.hold {
            self.hold(progress, hold)?;
        }
        let open = sample(&self.shared.plan)?;
        let storm = match self.shared.plan.storms {
            true => Some(self.storm(progress, connections * 2)?),
            false => None,
        };
        let calm = sample(&self.shared.plan)?;
        let ours = Usage::of(std::process::id()).ok();
        let start = self.publish(progress)?;
        let churning = start.elapsed();
        self.calm()?;
        self.settle(progress)?;
        if matches!(self.shared.plan.stalled, Stalled::Sinks { .. }) {
            // Those who read have everything; what is still being sent to the others counts too.
            thread::sleep(LAST_SENDS);
        }
        let end = sample(&self.shared.plan)?;
        let ours_end = Usage::of(std::process::id()).ok();
        let peak_kib = self.peak_kib;
        let samples = Samples {
            before,
            open,
            calm,
            end,
            after: None,
            peak_kib,
            ours_first,
            ours_open,
            ours_before: ours,
            ours_end,
        };
        let flushed = self.ask()?;
        self.shared.enter(Phase::Closing);
        Ok(Outcome { opening, storm, start, churning, samples, flushed })
    }

    fn hold(&self, progress: &Progress, hold: Duration) -> anyhow::Result<()> {
        progress.begin("holding", millis(hold));
        let begun = Instant::now();
        self.watch(|| {
            progress.update(millis(begun.elapsed()), || "nothing happens".to_owned());
            begun.elapsed() >= hold
        })
    }

    /// Drops all connections and waits until they are back.
    fn storm(&mut self, progress: &Progress, ready: u64) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.shared.enter(Phase::Storm);
        self.open(progress, ready)?;
        let storm = begun.elapsed();
        self.ask()?;
        Ok(storm)
    }

    /// Waits until those that come and go have stopped.
    fn calm(&self) -> anyhow::Result<()> {
        self.shared.enter(Phase::Calming);
        let roamers = self.shared.plan.roamers as u64;
        let mut moved = Moved::new(Instant::now());
        self.watch(|| {
            let calm = self.shared.sum(|lane| &lane.calm);
            calm >= roamers || moved.since(calm) > self.shared.plan.settle
        })
    }

    /// Opens all connections, or returns the first failure.
    fn open(&self, progress: &Progress, wanted: u64) -> anyhow::Result<()> {
        progress.begin("opening", wanted);
        self.watch(|| {
            let ready = self.shared.sum(|lane| &lane.ready);
            progress.update(ready, || format!("{ready} of {wanted} connections"));
            ready >= wanted
        })
    }

    /// Publishes until every publisher is done. At a fixed rate the gateway may hold up publishers beyond the duration;
    /// they are given up when nothing at all has moved for the settling time.
    fn publish(&mut self, progress: &Progress) -> anyhow::Result<Instant> {
        let shared = self.shared.clone();
        let plan = &shared.plan;
        let start = Instant::now();
        shared.enter(Phase::Publishing { start });
        let mut peak_kib = 0;
        let mut looked = start;
        progress.begin("publishing", millis(plan.duration));
        let mut moved = Moved::new(start);
        self.watch(|| {
            let delivered = self.shared.sum(|lane| &lane.delivered);
            let elapsed = start.elapsed();
            progress.update(millis(elapsed), || {
                format!("{delivered} delivered, {:.0} a second", delivered as f64 / elapsed.as_secs_f64().max(0.001))
            });
            if looked.elapsed() > PEAK_INTERVAL {
                looked = Instant::now();
                peak_kib = sample(plan).ok().flatten().map_or(0, |usage| usage.rss_kib).max(peak_kib);
            }
            let done = self.shared.publishers.iter().all(|publisher| publisher.done.load(Ordering::Acquire));
            // Whoever comes and goes does so for the whole time.
            let done = done && (plan.roamers == 0 || elapsed >= plan.duration);
            let since = moved.since(self.shared.sum(|lane| &lane.arrivals) + self.published());
            done || (elapsed > plan.duration && since > plan.settle)
        })?;
        self.peak_kib = peak_kib;
        Ok(start)
    }

    /// Waits until everything published has arrived everywhere, or nothing has arrived for the settling time.
    fn settle(&self, progress: &Progress) -> anyhow::Result<()> {
        let plan = &self.shared.plan;
        let published = self.shared.publishers.iter().map(|publisher| publisher.published.load(Ordering::Acquire));
        let owed = |(index, published): (usize, u64)| {
            let waited_for = plan.waited_for(index / plan.publishers_per_room) - usize::from(plan.hears_itself_not());
            published * waited_for as u64
        };
        let expected: u64 = published.enumerate().map(owed).sum();
        progress.begin("settling", expected);
        let mut moved = Moved::new(Instant::now());
        self.watch(|| {
            let delivered = self.shared.sum(|lane| &lane.delivered) + self.shared.sum(|lane| &lane.announced);
            progress.update(delivered, || format!("{delivered} of {expected} delivered"));
            let since = moved.since(self.shared.sum(|lane| &lane.arrivals));
            delivered >= expected || since > plan.settle
        })
    }

    /// Asks every connection for an answer, behind which nothing is left on its way. False when some gave none.
    fn ask(&mut self) -> anyhow::Result<bool> {
        self.shared.enter(Phase::Asking);
        let question = self.asked;
        self.asked += 1;
        let connections = self.shared.plan.connections as u64;
        let answers = || self.shared.sum(|lane| &lane.answers[question]);
        let mut moved = Moved::new(Instant::now());
        let arrivals = || self.shared.sum(|lane| &lane.arrivals);
        let patience = self.shared.plan.settle;
        self.watch(|| answers() >= connections || moved.since(answers() + arrivals()) > patience)?;
        Ok(answers() >= connections)
    }

    /// Looks again and again until `done`, or until something has failed.
    fn watch(&self, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
        while !done() {
            if let Some(failure) = self.shared.failure.lock().take() {
                return Err(failure);
            }
            if let Some(worker) = self.workers.iter().find(|worker| worker.is_finished()) {
                return Err(anyhow!("worker thread {:?} ended early", worker.thread().id()));
            }
            thread::sleep(Progress::TICK);
        }
        Ok(())
    }

    fn published(&self) -> u64 {
        self.shared.publishers.iter().map(|publisher| publisher.published.load(Ordering::Relaxed)).sum()
    }

    /// Collects the audits. The first failure is the one that is told.
    fn end(self, outcome: anyhow::Result<Outcome>) -> anyhow::Result<Report> {
        let mut measured = Measured::new();
        let mut ended = Vec::with_capacity(self.shared.plan.connections);
        let mut broken = None;
        for worker in self.workers {
            match worker.join().unwrap_or_else(|_| Err(anyhow!("a worker thread panicked"))) {
                Ok((members, part)) => {
                    ended.extend(members);
                    measured.add(part);
                }
                Err(error) => broken = Some(error),
            }
        }
        let mut outcome = outcome?;
        if let Some(error) = broken {
            return Err(error);
        }
        outcome.samples.after = leaving(&self.shared.plan)?;
        let last = Duration::from_nanos(
            self.shared.lanes.iter().map(|l| l.last_ns.load(Ordering::Relaxed)).max().unwrap_or(0),
        );
        let facts = Facts {
            plan: &self.shared.plan,
            opening: outcome.opening,
            storm: outcome.storm,
            churning: outcome.churning,
            joins: self.shared.sum(|lane| &lane.joins),
            delivering: (self.shared.origin + last).saturating_duration_since(outcome.start),
            published: self.shared.publishers.iter().map(|p| p.published.load(Ordering::Acquire)).collect(),
            cut_off: self.shared.publishers.iter().map(|p| p.cut_off.load(Ordering::Acquire)).collect(),
            written_off: self.shared.publishers.iter().map(|p| p.written_off.load(Ordering::Relaxed)).sum(),
            flushed: outcome.flushed,
            samples: outcome.samples,
            ended,
            measured,
        };
        Ok(Report::new(facts))
    }
}

/// Notices when a count has stopped moving.
struct Moved {
    count: u64,
    at: Instant,
}

impl Moved {
    fn new(at: Instant) -> Self {
        Self { count: 0, at }
    }

    /// How long the count has been what it is.
    fn since(&mut self, count: u64) -> Duration {
        if count != self.count {
            *self = Self { count, at: Instant::now() };
        }
        self.at.elapsed()
    }
}

/// Longer than a gateway takes to send to all members of a room once.
const LAST_SENDS: Duration = Duration::from_millis(50);

/// How often the memory of the gateway is looked at.
const PEAK_INTERVAL: Duration = Duration::from_millis(200);

/// The gateway when all have left, and some time has passed.
fn leaving(plan: &Plan) -> anyhow::Result<Option<Usage>> {
    let Some(leaving) = plan.leaving else { return Ok(None) };
    thread::sleep(leaving);
    sample(plan)
}

fn sample(plan: &Plan) -> anyhow::Result<Option<Usage>> {
    let usage =
        plan.pid.map(|pid| Usage::of_family(pid).with_context(|| format!("cannot read the usage of process {pid}")));
    usage.transpose()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
