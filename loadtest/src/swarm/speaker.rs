//! The publishers of one thread: what is due, and its stamps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Shared, nanoseconds};
use crate::scenario::Plan;
use crate::stamp::Stamp;

/// A publication that has not reached everyone after this time no longer holds up its publisher.
const STALL: Duration = Duration::from_secs(1);

/// One publisher.
#[derive(Debug)]
pub(super) struct Speaker {
    /// Index over all rooms.
    pub(super) publisher: usize,
    /// Where it writes: a member's or a backend's place on this thread.
    pub(super) place: usize,
    seq: u64,
    /// Publications whose time has come; at a fixed rate they may be more than were sent.
    scheduled: u64,
    quota: u64,
    /// When the window last had room.
    moved: Instant,
    done: bool,
}

impl Speaker {
    pub(super) fn new(plan: &Plan, publisher: usize, place: usize) -> Self {
        Self {
            publisher,
            place,
            seq: 0,
            scheduled: 0,
            quota: plan.quota(publisher),
            moved: Instant::now(),
            done: false,
        }
    }

    /// Counts the next publication as sent and returns its payload.
    pub(super) fn begin(&mut self, shared: &Shared, due: Duration, payload: &mut String) {
        let plan = &shared.plan;
        let (room, within) = (self.publisher / plan.publishers_per_room, self.publisher % plan.publishers_per_room);
        let stamp = Stamp {
            run: plan.run,
            room: room as u32,
            publisher: within as u32,
            seq: self.seq,
            due_ns: nanoseconds(due),
        };
        payload.clear();
        stamp.encode(plan.payload_bytes, payload);
        let publisher = &shared.publishers[self.publisher];
        if let Some(window) = &publisher.window {
            let deaf = usize::from(plan.hears_itself_not());
            window.begin(self.seq, shared.present[room].load(Ordering::Relaxed).saturating_sub(deaf));
        }
        self.seq += 1;
        publisher.published.store(self.seq, Ordering::Release);
    }

    /// The gateway said that it did not take the last publication.
    pub(super) fn take_back(&mut self, shared: &Shared) {
        self.seq -= 1;
        shared.publishers[self.publisher].published.store(self.seq, Ordering::Release);
    }

    /// It publishes nothing more.
    pub(super) fn end(&mut self, shared: &Shared) {
        self.done = true;
        shared.publishers[self.publisher].done.store(true, Ordering::Release);
    }
}

/// The publishers of one thread, and who of them may speak.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    pub(super) all: Vec<Speaker>,
    /// Publisher to its place in `all`; absent for those of other threads.
    pub(super) places: Vec<Option<usize>>,
    /// At a fixed rate: when each is due, nanoseconds since the start.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// In saturation: those whose windows may have room.
    open: Vec<usize>,
    /// Those that cannot write now, with the time that was due.
    parked: Vec<(usize, Duration)>,
    start: Option<Instant>,
    /// Those in saturation may still publish.
    saturates: bool,
    /// When the windows were last looked at for stalls.
    looked: Option<Instant>,
}

impl Speakers {
    pub(super) fn start(&mut self, shared: &Shared, start: Instant) {
        self.start = Some(start);
        self.saturates = true;
        for (index, speaker) in self.all.iter_mut().enumerate() {
            speaker.moved = start;
            if speaker.done || speaker.quota == 0 {
                speaker.end(shared);
                continue;
            }
            match shared.plan.schedule_of(speaker.publisher) {
                Some((schedule, number)) => self.due.push(Reverse((nanoseconds(schedule.due(number, 0)), index))),
                None => self.open.push(index),
            }
        }
    }

    /// How long nothing is due. `None` when nothing is due by the clock.
    pub(super) fn wait(&self) -> Option<Duration> {
        let (start, &Reverse((due_ns, _))) = (self.start?, self.due.peek()?);
        Some((start + Duration::from_nanos(due_ns)).saturating_duration_since(Instant::now()))
    }

    /// The window of `publisher` has room.
    pub(super) fn opened(&mut self, publisher: usize) {
        if let Some(index) = self.places.get(publisher).copied().flatten() {
            self.open.push(index);
        }
    }

    /// The next publication that is to be made: its speaker, and when it was due, since the origin. The caller makes it,
    /// or parks the speaker.
    pub(super) fn next(&mut self, shared: &Shared) -> Option<(usize, Duration)> {
        let start = self.start?;
        self.next_due(shared, start).or_else(|| self.next_open(shared, start))
    }

    /// One whose time has come.
    fn next_due(&mut self, shared: &Shared, start: Instant) -> Option<(usize, Duration)> {
        loop {
            let &Reverse((due_ns, index)) = self.due.peek()?;
            let due = start + Duration::from_nanos(due_ns);
            let speaker = &mut self.all[index];
            if !speaker.done && Instant::now() < due {
                return None;
            }
            self.due.pop();
            if speaker.done {
                continue;
            }
            speaker.scheduled += 1;
            if speaker.scheduled < speaker.quota
                && let Some((schedule, number)) = shared.plan.schedule_of(speaker.publisher)
            {
                self.due.push(Reverse((nanoseconds(schedule.due(number, speaker.scheduled)), index)));
            }
            return Some((index, due - shared.origin));
        }
    }

    /// One whose window has room.
    fn next_open(&mut self, shared: &Shared, start: Instant) -> Option<(usize, Duration)> {
        if !self.saturates {
            return None;
        }
        let now = Instant::now();
        if now >= start + shared.plan.duration {
            self.end_saturation(shared);
            return None;
        }
        while let Some(&index) = self.open.last() {
            let speaker = &mut self.all[index];
            let window = shared.publishers[speaker.publisher].window.as_ref();
            if !speaker.done && window.is_some_and(|window| window.try_acquire()) {
                speaker.moved = now;
                return Some((index, now - shared.origin));
            }
            self.open.pop();
        }
        self.next_stalled(shared, now)
    }

    /// A speaker whose window has had no room for too long.
    fn next_stalled(&mut self, shared: &Shared, now: Instant) -> Option<(usize, Duration)> {
        const EVERY: Duration = Duration::from_millis(100);
        if self.looked.is_some_and(|looked| now < looked + EVERY) {
            return None;
        }
        let stalled = |speaker: &Speaker| {
            !speaker.done && now > speaker.moved + STALL && shared.publishers[speaker.publisher].window.is_some()
        };
        let Some(index) = self.all.iter().position(stalled) else {
            self.looked = Some(now);
            return None;
        };
        let speaker = &mut self.all[index];
        speaker.moved = now;
        shared.publishers[speaker.publisher].written_off.fetch_add(1, Ordering::Relaxed);
        Some((index, now - shared.origin))
    }

    /// The speaker has made its publication: at the end of its quota it is done.
    pub(super) fn made(&mut self, shared: &Shared, index: usize) {
        let speaker = &mut self.all[index];
        if speaker.seq >= speaker.quota {
            speaker.end(shared);
        }
    }

    /// The speaker cannot write now what was due at this time.
    pub(super) fn park(&mut self, index: usize, due: Duration) {
        self.parked.push((index, due));
    }

    /// One that was parked and whose place is `place`.
    pub(super) fn unpark(&mut self, place: usize) -> Option<(usize, Duration)> {
        let at = self.parked.iter().position(|&(index, _)| self.all[index].place == place)?;
        Some(self.parked.remove(at))
    }

    fn end_saturation(&mut self, shared: &Shared) {
        self.saturates = false;
        let saturating =
            |speaker: &&mut Speaker| !speaker.done && shared.publishers[speaker.publisher].window.is_some();
        for speaker in self.all.iter_mut().filter(saturating) {
            speaker.end(shared);
        }
    }
}
