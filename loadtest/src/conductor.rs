//! Takes a plan through its phases: open, publish, settle, close; and draws up the report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::sync::watch;

use crate::process::{self, Usage};
use crate::progress::Progress;
use crate::report::{Facts, Report, Samples};
use crate::scenario::{Pace, Plan};
use crate::swarm::{self, Ended, Measured, Phase, Shared};

/// Carries out the plan.
///
/// # Errors
/// The run could not take place: too few descriptors, a connection that could not be opened, no such gateway process. What
/// goes wrong during the run stands in the report.
pub fn carry_out(plan: Plan, progress: &Progress) -> anyhow::Result<Report> {
    process::ensure_descriptors(plan.descriptors())?;
    let before = sample(&plan)?;
    let run = Run::begin(plan);
    let outcome = run.phases(progress, before);
    progress.end();
    if outcome.is_err() {
        run.phase.send_replace(Phase::Abandoned);
    }
    run.end(outcome)
}

type Worker = JoinHandle<anyhow::Result<(Vec<Ended>, Measured)>>;

/// A run whose threads have been started.
struct Run {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    workers: Vec<Worker>,
    begun: Instant,
}

/// What the phases brought, before the audits are collected.
struct Outcome {
    opening: Duration,
    start: Instant,
    samples: Samples,
    flushed: bool,
}

impl Run {
    fn begin(plan: Plan) -> Self {
        let shared = Arc::new(Shared::new(plan));
        let (phase, watched) = watch::channel(Phase::Opening);
        let worker = |index| {
            let (shared, watched) = (shared.clone(), watched.clone());
            thread::spawn(move || swarm::work(&shared, watched, index))
        };
        let workers = (0..shared.plan.threads).map(worker).collect();
        Self { shared, phase, workers, begun: Instant::now() }
    }

    fn phases(&self, progress: &Progress, before: Option<Usage>) -> anyhow::Result<Outcome> {
        self.open(progress)?;
        let opening = self.begun.elapsed();
        let open = sample(&self.shared.plan)?;
        let ours = Usage::of(std::process::id()).ok();
        let start = self.publish(progress)?;
        self.settle(progress)?;
        let end = sample(&self.shared.plan)?;
        let samples = Samples { before, open, end, ours_before: ours, ours_end: Usage::of(std::process::id()).ok() };
        let flushed = self.flush()?;
        self.phase.send_replace(Phase::Closing);
        Ok(Outcome { opening, start, samples, flushed })
    }

    /// Opens all connections, or returns the first failure.
    fn open(&self, progress: &Progress) -> anyhow::Result<()> {
        let connections = self.shared.plan.connections as u64;
        progress.begin("opening", connections);
        self.watch(|| {
            let ready = self.shared.sum(|lane| &lane.ready);
            progress.update(ready, || format!("{ready} of {connections} connections"));
            ready == connections
        })
    }

    /// Publishes until every publisher is done. At a fixed rate the gateway may hold up publishers beyond the duration;
    /// they are given up when nothing at all has moved for the settling time.
    fn publish(&self, progress: &Progress) -> anyhow::Result<Instant> {
        let plan = &self.shared.plan;
        let start = Instant::now();
        self.phase.send_replace(Phase::Publishing { start });
        let pacer = self.pacer(start);
        progress.begin("publishing", millis(plan.duration));
        let mut moved = Moved::new(start);
        self.watch(|| {
            let delivered = self.shared.sum(|lane| &lane.delivered);
            let elapsed = start.elapsed();
            progress.update(millis(elapsed), || {
                format!("{delivered} delivered, {:.0} a second", delivered as f64 / elapsed.as_secs_f64().max(0.001))
            });
            let done = self.shared.publishers.iter().all(|publisher| publisher.done.load(Ordering::Acquire));
            let since = moved.since(self.shared.sum(|lane| &lane.arrivals) + self.published());
            done || (elapsed > plan.duration && since > plan.settle)
        })?;
        if let Some(pacer) = pacer {
            // It has done its last turn, or notices the end of the watch within 100 ms.
            pacer.join().map_err(|_| anyhow!("the pacer panicked"))?;
        }
        Ok(start)
    }

    fn pacer(&self, start: Instant) -> Option<JoinHandle<()>> {
        let Pace::Rate(schedule) = self.shared.plan.pace else { return None };
        let shared = self.shared.clone();
        Some(thread::spawn(move || {
            let publishers = &shared.publishers;
            let over = || publishers.iter().all(|publisher| publisher.done.load(Ordering::Acquire));
            schedule.run(start, |index| &publishers[index as usize].wake, over);
        }))
    }

    /// Waits until everything published has arrived everywhere, or nothing has arrived for the settling time.
    fn settle(&self, progress: &Progress) -> anyhow::Result<()> {
        let plan = &self.shared.plan;
        let published = self.shared.publishers.iter().map(|publisher| publisher.published.load(Ordering::Acquire));
        let owed = |(index, published): (usize, u64)| published * plan.members(index / plan.publishers_per_room) as u64;
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

    /// Asks every connection for a pong, behind which nothing is left on its way. False when some did not answer.
    fn flush(&self) -> anyhow::Result<bool> {
        self.phase.send_replace(Phase::Flushing);
        let connections = self.shared.plan.connections as u64;
        let flushed = || self.shared.sum(|lane| &lane.flushed);
        let mut moved = Moved::new(Instant::now());
        let patience = self.shared.plan.settle;
        self.watch(|| flushed() >= connections || moved.since(flushed()) > patience)?;
        Ok(flushed() >= connections)
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
        let outcome = outcome?;
        if let Some(error) = broken {
            return Err(error);
        }
        let last = Duration::from_nanos(
            self.shared.lanes.iter().map(|l| l.last_ns.load(Ordering::Relaxed)).max().unwrap_or(0),
        );
        let facts = Facts {
            plan: &self.shared.plan,
            opening: outcome.opening,
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

fn sample(plan: &Plan) -> anyhow::Result<Option<Usage>> {
    let usage = plan.pid.map(|pid| Usage::of(pid).with_context(|| format!("cannot read the usage of process {pid}")));
    usage.transpose()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
