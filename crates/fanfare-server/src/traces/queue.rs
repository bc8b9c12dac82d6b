//! The queue of spans, and the thread that empties it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use fanfare_edge::SpanStats;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use super::collector::Collector;

/// The most spans in one request.
const BATCH_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// Takes spans that have ended, without ever waiting: at the bound they are lost, and counted.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    stats: Arc<SpanStats>,
    /// Says by when the thread has to end.
    ends: watch::Sender<Option<Instant>>,
    /// Hangs up when it has.
    ended: Mutex<blocking::Receiver<()>>,
}

impl SpanQueue {
    /// Starts the thread that sends spans to `collector`. `max` of them may wait.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn start(collector: Collector, max: usize, stats: Arc<SpanStats>) -> std::io::Result<Self> {
        let (spans, waiting) = mpsc::channel(max);
        let batch_max = BATCH_MAX.min(max);
        let (ends, told) = watch::channel(None);
        let (tell_ended, ended) = blocking::sync_channel::<()>(1);
        let sender = Sender { waiting, ends: told, batch_max, collector, stats: stats.clone(), lost: 0 };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(sender.run());
            drop(tell_ended);
        })?;
        Ok(Self { spans, stats, ends, ended: Mutex::new(ended) })
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.stats.dropped_at_queue.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure("what waits is sent within a second, and at the end".to_owned()))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let _ = self.ends.send(Some(Instant::now() + timeout));
        // A little longer than the thread has: then it has counted what it could not send.
        match self.ended.lock().recv_timeout(timeout + Duration::from_secs(1)) {
            Err(blocking::RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(timeout)),
            Ok(()) | Err(blocking::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    fn set_resource(&mut self, _resource: &Resource) {
        // The collector was made with it.
    }
}

/// What runs on the thread.
struct Sender {
    waiting: mpsc::Receiver<SpanData>,
    ends: watch::Receiver<Option<Instant>>,
    batch_max: usize,
    collector: Collector,
    stats: Arc<SpanStats>,
    /// Since the collector last took a batch.
    lost: u64,
}

impl Sender {
    /// Sends until it is told to end and nothing waits any more, or the time for that is over.
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            self.gather(&mut batch).await;
            if batch.is_empty() {
                return;
            }
            let count = batch.len() as u64;
            let mut ends = self.ends.clone();
            let sent = tokio::select! {
                sent = self.collector.send(std::mem::take(&mut batch)) => sent,
                () = over(&mut ends) => Err(anyhow::anyhow!("the node ended")),
            };
            self.tell(count, sent);
        }
    }

    /// Fills `batch` with what waits and what comes along with it. Leaves it empty when there is nothing, and never will be.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let told = async |ends: &mut watch::Receiver<Option<Instant>>| {
            // Who could tell is gone: that is the end, too.
            let _ = ends.wait_for(Option::is_some).await;
        };
        let mut until = None;
        while batch.len() < self.batch_max {
            let missing = self.batch_max - batch.len();
            let full = async {
                match until {
                    None => Some(self.waiting.recv_many(batch, missing).await),
                    Some(until) => timeout_at(until, self.waiting.recv_many(batch, missing)).await.ok(),
                }
            };
            let taken = tokio::select! {
                biased;
                () = told(&mut self.ends) => None,
                taken = full => taken,
            };
            if taken.is_none_or(|taken| taken == 0) {
                break;
            }
            until.get_or_insert_with(|| Instant::now() + GATHER);
        }
        // Told to end: what is there, and no waiting.
        while batch.len() < self.batch_max
            && let Ok(span) = self.waiting.try_recv()
        {
            batch.push(span);
        }
    }

    /// Counts a batch, and says when the collector begins and ends to fail: once each, however many batches are lost.
    fn tell(&mut self, count: u64, sent: anyhow::Result<u64>) {
        let rejected = *sent.as_ref().unwrap_or(&count);
        self.stats.exported.fetch_add(count - rejected, Ordering::Relaxed);
        self.stats.dropped_by_collector.fetch_add(rejected, Ordering::Relaxed);
        let failed_before = self.lost > 0;
        self.lost += rejected;
        let place = self.collector.place();
        match sent {
            Ok(0) if failed_before => {
                info!(lost = self.lost, "the collector of traces takes spans again");
                self.lost = 0;
            }
            Ok(0) => {}
            _ if failed_before => {}
            Ok(rejected) => warn!(rejected, "the collector of traces at {place} does not take all spans"),
            Err(error) => {
                warn!(
                    "the collector of traces at {place} cannot be had: {error:#}; spans are lost, publishing goes on"
                );
            }
        }
    }
}

/// Done at the time that was told.
async fn over(ends: &mut watch::Receiver<Option<Instant>>) {
    let at = ends.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        sleep_until(at).await;
    }
}
