//! Publishing from one thread: by a member's socket or by a backend's request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Token;

use super::super::nanoseconds;
use super::Worker;
use crate::swarm::member::QUEUED_BYTES_MAX;

impl Worker {
    pub(super) fn publish(&mut self) {
        let shared = self.core.shared.clone();
        for publisher in std::mem::take(&mut self.core.cut) {
            if let Some(index) = self.speakers.places[publisher] {
                self.speakers.all[index].end(&shared);
            }
        }
        while let Some((index, due)) = self.speakers.next(&shared) {
            if !self.speak(index, due) {
                self.speakers.park(index, due);
            }
        }
    }

    /// Makes one publication. False when it cannot be written now.
    fn speak(&mut self, index: usize, due: Duration) -> bool {
        let shared = self.core.shared.clone();
        let speaker = &mut self.speakers.all[index];
        let place = speaker.place;
        let backend = place.checked_sub(self.members.len());
        let busy = match backend {
            Some(backend) => self.backends[backend].is_busy(),
            None => self.members[place].queued_bytes() >= QUEUED_BYTES_MAX,
        };
        if busy {
            return false;
        }
        let lag = shared.origin.elapsed().saturating_sub(due);
        let beside = shared.plan.is_beside(speaker.publisher / shared.plan.publishers_per_room);
        let measured = &mut self.core.measured;
        let lags = if beside { &mut measured.lag_beside } else { &mut measured.lag };
        lags.saturating_record(nanoseconds(lag));
        speaker.begin(&shared, due, &mut self.payload);
        self.speakers.made(&shared, index);
        match backend {
            Some(backend) => {
                self.backends[backend].publish(&self.payload);
                self.backend_ready(place);
            }
            None => {
                self.members[place].publish(&self.payload);
                self.dirty.push(place);
            }
        }
        true
    }

    /// A publisher that could not write can do so again.
    pub(super) fn speak_again(&mut self, place: usize) {
        while let Some((index, due)) = self.speakers.unpark(place) {
            // At a fixed rate what is late is late; in saturation nothing was due before it could be sent.
            let shared = &self.core.shared;
            let late = shared.plan.schedule_of(self.speakers.all[index].publisher).is_some();
            let due = if late { due } else { shared.origin.elapsed() };
            if !self.speak(index, due) {
                return self.speakers.park(index, due);
            }
        }
    }

    pub(super) fn backend_ready(&mut self, place: usize) {
        let backend = &mut self.backends[place - self.members.len()];
        let publisher = backend.publisher;
        let Some(index) = self.speakers.places[publisher] else { return };
        match backend.advance(self.poll.registry(), Token(place), &mut self.buffer, &mut self.core.wire) {
            Ok(None) => return,
            Ok(Some(receipt)) => self.core.measured.add_receipt(&receipt),
            Err(failure) => {
                let speaker = &mut self.speakers.all[index];
                if failure.refused && self.core.shared.plan.returns_min.is_some() {
                    backend.give_up();
                    speaker.take_back(&self.core.shared);
                    self.core.measured.returns.refused += 1;
                    return self.speak_again(place);
                }
                if failure.refused {
                    speaker.take_back(&self.core.shared);
                } else {
                    self.core.shared.publishers[publisher].cut_off.store(true, Ordering::Release);
                }
                self.core.measured.error(format!("publishing: {}", failure.text));
                return speaker.end(&self.core.shared);
            }
        }
        self.speak_again(place);
    }

    /// Publishers whose windows have room are told, each on its thread.
    pub(super) fn hand_over_windows(&mut self) {
        let shared = &self.core.shared;
        let own = std::mem::take(&mut *self.core.lane().opened.lock());
        own.into_iter().for_each(|publisher| self.speakers.opened(publisher));
        for publisher in self.core.windows.drain(..) {
            if self.speakers.places[publisher].is_some() {
                self.speakers.opened(publisher);
                continue;
            }
            let others = shared.lanes.iter().enumerate().filter(|&(thread, _)| thread != self.core.thread);
            for (_, lane) in others {
                lane.opened.lock().push(publisher);
                lane.wake();
            }
        }
    }
}
