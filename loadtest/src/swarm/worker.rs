//! The loop of one thread: wait, read what came, publish what is due, write what is waiting.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fanfare_client::Url;
use mio::{Events, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::Backend;
use super::member::{End, Member, Ports, QUEUED_BYTES_MAX, Roaming, Stage, key_and_answer};
use super::speaker::{Speaker, Speakers};
use super::{Ended, Lane, Measured, Phase, Shared, nanoseconds};
use crate::frame::http_header;
use crate::pace::wait_precisely;
use crate::scenario::{Pace, Via};
use crate::stamp::{Stamp, Stamps};

/// What wakes a thread. All other tokens are places of connections.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Read from one socket at a time, bytes.
const BUFFER_BYTES: usize = 256 * 1_024;

/// How long a turn waits at most, so that windows that stall are seen.
const TURN: Duration = Duration::from_millis(20);

/// How long the gateway may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the connections of one thread share.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    thread: usize,
    pub(super) measured: Measured,
    pub(super) stamps: Stamps,
    /// When the bytes at hand were read, since the origin.
    pub(super) now_ns: u64,
    pub(super) ports: Ports,
    /// Connections that are being opened.
    pub(super) opening: usize,
    /// A storm has been: who does not come back at once tries again.
    pub(super) stormy: bool,
    /// Of this turn.
    pub(super) arrivals: u64,
    delivered: u64,
    /// Publishers whose windows have room.
    windows: Vec<usize>,
    /// Publishers that were cut off.
    cut: Vec<usize>,
    key: String,
    answer: String,
}

impl Core {
    pub(super) fn lane(&self) -> &Lane {
        &self.shared.lanes[self.thread]
    }

    /// The request for the upgrade at `url`.
    pub(super) fn upgrade_request(&self, url: &Url) -> Vec<u8> {
        use std::fmt::Write;
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            url.target(),
            url.authority(),
            self.key
        );
        if let Some(token) = &self.shared.plan.token {
            write!(request, "Authorization: Bearer {token}\r\n").expect("writing to a string cannot fail");
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Checks the answer to the upgrade (RFC 6455 section 4.1).
    pub(super) fn check_answer(&self, head: &[u8]) -> anyhow::Result<()> {
        let head = String::from_utf8_lossy(head);
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            bail!("the gateway answered {status:?}");
        }
        let accept = http_header(&head, "sec-websocket-accept");
        ensure!(accept == Some(&self.answer), "the gateway's Sec-WebSocket-Accept is wrong");
        ensure!(
            http_header(&head, "sec-websocket-extensions").is_none(),
            "the gateway chose an extension that was not offered"
        );
        Ok(())
    }

    /// A delivery to one that is waited for.
    pub(super) fn delivered(&mut self, room: usize, stamp: Stamp) {
        self.measured.latency.saturating_record(self.now_ns.saturating_sub(stamp.due_ns));
        self.delivered += 1;
        let publisher = room * self.shared.plan.publishers_per_room + stamp.publisher as usize;
        if let Some(window) = &self.shared.publishers[publisher].window
            && window.delivered(stamp.seq)
        {
            self.windows.push(publisher);
        }
    }

    /// A connection ended before its time.
    pub(super) fn cut_off(&mut self, member: &Member, code: u16, reason: String, stage: Stage) {
        let plan = &self.shared.plan;
        if stage == Stage::Open && member.is_waited_for() {
            self.shared.present[member.room].fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(within) = member.publishes {
            let publisher = member.room * plan.publishers_per_room + within;
            self.shared.publishers[publisher].cut_off.store(true, Ordering::Release);
            self.cut.push(publisher);
        }
        self.measured.closes_of_stalled += u64::from(member.is_stalled_for_good());
        *self.measured.closes.entry((code, reason)).or_default() += 1;
    }

    /// Tells the other threads what this turn brought.
    fn tell(&mut self) {
        let lane = &self.shared.lanes[self.thread];
        if self.arrivals > 0 {
            lane.arrivals.fetch_add(std::mem::take(&mut self.arrivals), Ordering::Relaxed);
        }
        if self.delivered > 0 {
            lane.last_ns.store(self.now_ns, Ordering::Relaxed);
            lane.delivered.fetch_add(std::mem::take(&mut self.delivered), Ordering::Relaxed);
        }
    }
}

/// One thread.
struct Worker {
    core: Core,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    backends: Vec<Backend>,
    speakers: Speakers,
    /// Members that are to be opened.
    away: VecDeque<usize>,
    /// Members that come and go and rest.
    resting: VecDeque<usize>,
    /// Members that may have something to write.
    dirty: Vec<usize>,
    buffer: Box<[u8]>,
    payload: String,
    turn: u32,
    /// Those that come and go do so.
    roam: Roam,
    /// When to stop waiting for close frames.
    deadline: Option<Instant>,
    abandoned: bool,
}

/// Whether those that come and go do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roam {
    NotYet,
    Now,
    NoMore,
}

/// Runs the connections and publishers of one thread until the phase says to end.
///
/// # Errors
/// The poll fails.
pub fn work(shared: &Arc<Shared>, poll: Poll, thread: usize) -> anyhow::Result<(Vec<Ended>, Measured)> {
    wait_precisely();
    let mut worker = Worker::new(shared.clone(), poll, thread)?;
    while !worker.is_over() {
        worker.turn()?;
    }
    worker.core.tell();
    let plan = &shared.plan;
    let ended = if worker.abandoned { Vec::new() } else { worker.members };
    Ok((ended.into_iter().map(|member| member.into_ended(plan)).collect(), worker.core.measured))
}

impl Worker {
    fn new(shared: Arc<Shared>, poll: Poll, thread: usize) -> anyhow::Result<Self> {
        let plan = &shared.plan;
        let mine = (0..plan.connections).filter(|&connection| plan.thread_of(connection) == thread);
        let members: Vec<Member> = mine.map(|connection| Member::new(plan, connection)).collect();
        let mut speakers = Speakers::default();
        speakers.places.resize(plan.publishers(), None);
        let mut backends = Vec::new();
        if let Via::Http { api, key } = &plan.via {
            for publisher in (0..plan.publishers()).filter(|publisher| publisher % plan.threads == thread) {
                let place = members.len() + backends.len();
                speakers.all.push(Speaker::new(plan, publisher, place));
                backends.push(Backend::new(api, key.as_deref(), plan, publisher)?);
            }
        } else {
            for (place, member) in members.iter().enumerate() {
                let Some(publisher) = plan.publisher_of(member.index) else { continue };
                speakers.all.push(Speaker::new(plan, publisher, place));
            }
        }
        speakers.all.sort_by_key(|speaker| speaker.publisher);
        for (index, speaker) in speakers.all.iter().enumerate() {
            speakers.places[speaker.publisher] = Some(index);
        }
        let (key, answer) = key_and_answer(plan.run);
        let core = Core {
            thread,
            measured: Measured::new(),
            stamps: Stamps::default(),
            now_ns: 0,
            ports: Ports::new(plan.run, thread, plan.threads),
            opening: 0,
            stormy: false,
            arrivals: 0,
            delivered: 0,
            windows: Vec::new(),
            cut: Vec::new(),
            key,
            answer,
            shared,
        };
        Ok(Self {
            core,
            poll,
            events: Events::with_capacity(1_024),
            away: (0..members.len()).collect(),
            members,
            backends,
            speakers,
            resting: VecDeque::new(),
            dirty: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            payload: String::new(),
            turn: 0,
            roam: Roam::NotYet,
            deadline: None,
            abandoned: false,
        })
    }

    fn is_over(&mut self) -> bool {
        if self.abandoned {
            return true;
        }
        let Some(deadline) = self.deadline else { return false };
        let unanswered = self.members.iter().filter(|member| member.stage == Stage::Closing).count();
        if unanswered > 0 && Instant::now() < deadline {
            return false;
        }
        for _ in 0..unanswered {
            self.core.measured.error("the gateway did not answer a close frame".to_owned());
        }
        true
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        self.look_at_phase();
        self.open_some();
        self.roam_some();
        self.publish();
        self.write();
        self.core.tell();
        let wait = self.wait()?;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.context("the poll failed")?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WAKER => {}
                Token(place) if place < self.members.len() => self.ready(place),
                Token(place) => self.backend_ready(place),
            }
        }
        self.events = events;
        self.hand_over_windows();
        Ok(())
    }

    /// Waits as precisely as the system can; returns how long the poll may wait after that.
    fn wait(&mut self) -> anyhow::Result<Duration> {
        let opening = !self.away.is_empty() && self.core.opening < self.opening_max();
        if opening || !self.dirty.is_empty() || !self.resting.is_empty() {
            return Ok(Duration::ZERO);
        }
        let Some(wait) = self.speakers.wait().filter(|&wait| wait < TURN) else { return Ok(TURN) };
        // The poll's own clock counts in milliseconds.
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut fds = [PollFd::from_borrowed_fd(self.poll.registry().as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Duration::ZERO),
            Err(error) => Err(error).context("the poll failed"),
        }
    }

    fn look_at_phase(&mut self) {
        let turn = self.core.shared.turn.load(Ordering::Acquire);
        if turn == self.turn {
            return;
        }
        self.turn = turn;
        let phase = *self.core.shared.phase.lock();
        match phase {
            Phase::Opening => {}
            Phase::Asking => self.ask_all(),
            Phase::Publishing { start } => {
                self.members.iter_mut().for_each(Member::stall);
                let shared = self.core.shared.clone();
                self.speakers.start(&shared, start);
                self.roam = Roam::Now;
                let roams = |&place: &usize| self.members[place].roaming != Roaming::No;
                self.resting = (0..self.members.len()).filter(roams).collect();
            }
            Phase::Storm => self.storm(),
            Phase::Calming => self.roam = Roam::NoMore,
            Phase::Closing => {
                for place in 0..self.members.len() {
                    self.members[place].close();
                    self.dirty.push(place);
                }
                self.deadline = Some(Instant::now() + CLOSE_TIMEOUT);
            }
            Phase::Abandoned => self.abandoned = true,
        }
    }

    fn ask_all(&mut self) {
        for place in 0..self.members.len() {
            self.members[place].question();
            self.dirty.push(place);
            if std::mem::take(&mut self.members[place].stalled) {
                self.ready(place);
            }
        }
    }

    fn storm(&mut self) {
        self.core.stormy = true;
        self.away.clear();
        for (place, member) in self.members.iter_mut().enumerate() {
            if member.stage != Stage::Gone {
                member.drop_at_once(&mut self.core);
                self.away.push_back(place);
            }
        }
    }

    fn opening_max(&self) -> usize {
        let plan = &self.core.shared.plan;
        (plan.opening / plan.threads).max(1)
    }

    fn open_some(&mut self) {
        while self.core.opening < self.opening_max() {
            let Some(place) = self.away.pop_front() else { return };
            if let Err(error) = self.members[place].open(&mut self.core, self.poll.registry(), place) {
                self.core.opening += 1;
                self.ended(place, End::Failed(error));
                continue;
            }
            if let Err(end) = self.members[place].write(self.poll.registry(), place) {
                self.ended(place, end);
            }
        }
    }

    /// Lets those that come and go do so.
    fn roam_some(&mut self) {
        if self.roam == Roam::NotYet {
            return;
        }
        while let Some(place) = self.resting.pop_front() {
            let member = &mut self.members[place];
            if member.roaming != Roaming::Rests {
                continue;
            }
            if self.roam == Roam::NoMore || member.stage == Stage::Gone {
                member.roaming = Roaming::Calm;
                self.core.lane().calm.fetch_add(1, Ordering::Relaxed);
                if member.stage == Stage::Away {
                    // It will not be here to answer.
                    member.leave_unanswered(&self.core);
                }
                continue;
            }
            if member.join() {
                self.dirty.push(place);
            } else {
                self.away.push_back(place);
            }
        }
    }

    fn publish(&mut self) {
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
        self.core.measured.lag.saturating_record(nanoseconds(lag));
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

    fn write(&mut self) {
        for place in std::mem::take(&mut self.dirty) {
            if let Err(end) = self.members[place].write(self.poll.registry(), place) {
                self.ended(place, end);
            }
            if self.members[place].queued_bytes() < QUEUED_BYTES_MAX {
                self.speak_again(place);
            }
        }
    }

    /// Something has moved on a connection.
    fn ready(&mut self, place: usize) {
        let member = &mut self.members[place];
        if let Err(end) = member.read(&mut self.core, &mut self.buffer) {
            return self.ended(place, end);
        }
        if member.queued_bytes() > 0 {
            self.dirty.push(place);
        }
        self.came_to_rest(place);
    }

    /// One that comes and goes may have come to rest.
    fn came_to_rest(&mut self, place: usize) {
        if self.roam != Roam::NotYet && self.members[place].roaming == Roaming::Rests {
            self.resting.push_back(place);
        }
    }

    /// A publisher that could not write can do so again.
    fn speak_again(&mut self, place: usize) {
        while let Some((index, due)) = self.speakers.unpark(place) {
            // At a fixed rate what is late is late; in saturation nothing was due before it could be sent.
            let due = match self.core.shared.plan.pace {
                Pace::Rate(_) => due,
                Pace::Outstanding { .. } => self.core.shared.origin.elapsed(),
            };
            if !self.speak(index, due) {
                return self.speakers.park(index, due);
            }
        }
    }

    fn ended(&mut self, place: usize, end: End) {
        let roams = self.members[place].roaming != Roaming::No;
        if self.members[place].ended(&mut self.core, end) {
            self.away.push_back(place);
        } else if roams && self.roam != Roam::NotYet {
            self.members[place].roaming = Roaming::Rests;
            self.resting.push_back(place);
        }
    }

    fn backend_ready(&mut self, place: usize) {
        let backend = &mut self.backends[place - self.members.len()];
        let publisher = backend.publisher;
        let Some(index) = self.speakers.places[publisher] else { return };
        match backend.advance(self.poll.registry(), Token(place), &mut self.buffer) {
            Ok(None) => return,
            Ok(Some(receipt)) => self.core.measured.add_receipt(&receipt),
            Err(failure) => {
                let speaker = &mut self.speakers.all[index];
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
    fn hand_over_windows(&mut self) {
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
