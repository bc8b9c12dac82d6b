//! Reading the log: part of it, or on and on.

use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{InfoError, Stream};
use async_nats::jetstream::{self, ErrorCode};
use fanfare_registry::Entry;
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tracing::warn;

use super::frame::{self, Frame, What};
use super::tally::{Ruling, Tally};
use super::{Pace, Shared, away, bounds};
use crate::cursor::Place;
use crate::envelope;
use crate::relay::{Broken, Following};

/// Messages that NATS sends ahead. With those of the default `message_bytes_max` it is 16 MiB at most.
const READ_COUNT: usize = 256;

/// So long a read waits for the next message. Then the relay looks whether the log is still there.
const BLOCK: Duration = Duration::from_secs(1);

/// Looks at a log that has more than what has come, after which the connection is given up.
const SILENT_LOOKS_MAX: u32 = 3;

/// A consumer that nobody asks is forgotten by NATS.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A message of the log.
pub(super) struct Message {
    pub(super) number: u64,
    at_ns: u64,
    payload: bytes::Bytes,
    /// Messages that NATS has behind it.
    pending: u64,
}

impl Message {
    fn frame(&self) -> Option<Frame<'_>> {
        frame::decode(&self.payload)
    }

    /// What it means, as the next one.
    fn rule(&self, tally: &Tally) -> Ruling {
        tally.rule(self.at_ns, self.frame().as_ref())
    }

    /// Counts it, as the next one.
    pub(super) fn count(&self, tally: &mut Tally) -> Ruling {
        tally.count(self.at_ns, self.frame().as_ref())
    }

    /// Gives what it says to the node. `false`: it was taken, and cannot be understood.
    pub(super) async fn give(&self, ruling: Ruling, epoch: u64, following: &Following) -> bool {
        let stats = following.node.relay_stats();
        let place = Place { epoch, number: self.number };
        let is_understood = match (ruling, self.frame()) {
            (Ruling::Taken { offset }, Some(frame)) => {
                let entry = self.entry(&frame, offset);
                let is_understood = entry.is_some();
                following.give(place, entry).await;
                is_understood
            }
            (Ruling::Unknown, _) => {
                warn!("entry {place} of the engine's log is not of Fanfare");
                stats.unreadable.fetch_add(1, Ordering::Relaxed);
                true
            }
            (Ruling::LeftOut | Ruling::Epoch | Ruling::Nothing | Ruling::Taken { .. }, _) => true,
        };
        stats.position.store(self.number, Ordering::Relaxed);
        stats.known.fetch_max(self.number + self.pending, Ordering::Relaxed);
        is_understood
    }

    fn entry(&self, frame: &Frame<'_>, offset: Option<u64>) -> Option<Entry> {
        match envelope::decode(frame.body.to_vec(), offset.is_some()) {
            Ok(envelope::Letter { node, number, post }) => {
                Some(Entry { node, number, at_ms: self.at_ns / 1_000_000, offset, post })
            }
            Err(unreadable) => {
                warn!("entry {} of the engine's log: {unreadable}", self.number);
                None
            }
        }
    }
}

/// Messages from one on, to one.
pub(super) struct Reader {
    messages: Option<pull::Stream>,
    next: u64,
    last: u64,
    time_max: Duration,
    hole: Option<u64>,
}

impl Reader {
    /// From `next` to `last`, both included; each within this time.
    pub(super) async fn open(log: &Stream, next: u64, last: u64, time_max: Duration) -> Result<Self, Broken> {
        let messages = if next <= last { Some(messages(log, next).await?) } else { None };
        Ok(Self { messages, next, last, time_max, hole: None })
    }

    /// The next message; `None` behind the last.
    ///
    /// # Errors
    /// [`Broken::Anew`] where one is missing: then [`Self::hole`] says behind which.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Broken> {
        let Some(messages) = self.messages.as_mut().filter(|_| self.next <= self.last) else { return Ok(None) };
        let message = timeout(self.time_max, next(messages)).await.map_err(away)??;
        if message.number != self.next {
            self.hole = Some(message.number);
            return Err(Broken::Anew("entries were gone before they were read"));
        }
        self.next += 1;
        Ok(Some(message))
    }

    /// The first message behind a hole that was found.
    pub(super) fn hole(&self) -> Option<u64> {
        self.hole
    }
}

/// Messages from this one on; the first there is, where that is gone.
async fn messages(log: &Stream, from: u64) -> Result<pull::Stream, Broken> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = log.create_consumer(config).await.map_err(away)?;
    consumer.stream().max_messages_per_batch(READ_COUNT).messages().await.map_err(away)
}

/// The next one. Cancel safe.
async fn next(messages: &mut pull::Stream) -> Result<Message, Broken> {
    let message = messages.next().await.ok_or_else(|| Broken::Away("it sends no more".into()))?.map_err(away)?;
    let info = message.info().map_err(|_| Broken::Answer)?;
    let (number, pending) = (info.stream_sequence, info.pending);
    let at_ns = u64::try_from(info.published.unix_timestamp_nanos()).map_err(|_| Broken::Answer)?;
    Ok(Message { number, at_ns, payload: message.message.payload, pending })
}

/// Reads the log and gives it to the node, for as long as nothing is wrong with it.
pub(super) async fn read_on(
    log: &Stream,
    shared: &Shared,
    pace: Pace,
    following: &Following,
) -> Result<std::convert::Infallible, Broken> {
    let node = following.node.number();
    let from = shared.tally.borrow().number + 1;
    let mut messages = messages(log, from).await?;
    let mut silent = 0;
    loop {
        let Ok(message) = timeout(BLOCK, next(&mut messages)).await else {
            look_after(log, shared, following, &mut silent).await?;
            continue;
        };
        silent = 0;
        let message = message?;
        let (head, ruling) = {
            let tally = shared.tally.borrow();
            (tally.head(), message.rule(&tally))
        };
        if message.number <= head.number {
            continue;
        }
        if message.number != head.number + 1 {
            return Err(shared.ends(message.number, "entries were gone before they were read"));
        }
        if ruling == Ruling::Epoch {
            return Err(shared.ends(0, "another epoch has begun"));
        }
        if !message.give(ruling, head.epoch, following).await {
            // Begun anew, it is one of the past, and rooms learn from the counters whether they miss it.
            return Err(shared.ends(0, "an entry could not be understood"));
        }
        // Not before: where this is broken off, it has not been given.
        let (counted, written) = {
            let mut tally = shared.tally.borrow_mut();
            message.count(&mut tally);
            (tally.number, tally.written)
        };
        if let Some(frame) = message.frame().filter(|frame| frame.node == node) {
            if frame.what == What::Post {
                shared.seen.set(shared.seen.get().max(frame.number));
            }
            if matches!(ruling, Ruling::Taken { .. }) {
                following.node.relay_stats().appended.fetch_add(1, Ordering::Relaxed);
            }
            // Whoever has sent the entry at such a place writes the tally, so that not all do.
            if counted - written >= pace.due && counted % (pace.due / 4).max(1) == 0 {
                shared.due.notify_one();
            }
        }
        shared.moved.notify_one();
    }
}

/// Nothing has come for a while: is the log still there?
async fn look_after(log: &Stream, shared: &Shared, following: &Following, silent: &mut u32) -> Result<(), Broken> {
    let info = match log.get_info().await {
        Ok(info) => info,
        Err(error) if is_no_stream(&error) => return Err(Broken::Anew("it was taken away")),
        Err(error) => return Err(away(error)),
    };
    let (life, first, last) = bounds(&info);
    let number = shared.tally.borrow().number;
    following.node.relay_stats().known.store(last.max(number), Ordering::Relaxed);
    if life != shared.life {
        return Err(Broken::Anew("it was taken away"));
    }
    if last < number {
        return Err(Broken::Anew("it has lost its end"));
    }
    if last > number && first > number + 1 {
        return Err(shared.ends(first, "entries were gone before they were read"));
    }
    *silent = if last > number { *silent + 1 } else { 0 };
    if *silent > SILENT_LOOKS_MAX { Err(Broken::Away("it does not send what it has".into())) } else { Ok(()) }
}

fn is_no_stream(error: &InfoError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    source.is_some_and(|error| error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
