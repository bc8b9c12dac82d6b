//! The loop of one thread: wait, read what came, publish what is due, write what is waiting.

mod publish;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::Backend;
use super::connect::{Ports, key_and_answer};
use super::core::Core;
use super::member::{End, Member, QUEUED_BYTES_MAX, Roaming, Stage};
use super::socket::WIRE_BYTES;
use super::speaker::{Speaker, Speakers};
use super::{Ended, Measured, Phase, Shared};
use crate::pace::{give_way, wait_precisely};
use crate::scenario::Via;
use crate::stamp::Stamps;

/// What wakes a thread. All other tokens are places of connections.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Read from one socket at a time, bytes.
const BUFFER_BYTES: usize = 256 * 1_024;

/// How long a turn waits at most, so that windows that stall are seen.
const TURN: Duration = Duration::from_millis(20);

/// How long the gateway may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Members that come back, and when.
    later: BinaryHeap<Reverse<(Instant, usize)>>,
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
    if shared.plan.beside.is_some() && thread == 0 {
        give_way();
    }
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
            wire: vec![0; if plan.trust.is_some() { WIRE_BYTES } else { 0 }].into_boxed_slice(),
            shared,
        };
        Ok(Self {
            core,
            poll,
            events: Events::with_capacity(1_024),
            away: (0..members.len()).collect(),
            later: BinaryHeap::new(),
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
                self.members.iter_mut().for_each(|member| member.stall(self.poll.registry()));
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
            match self.members[place].unstall(self.poll.registry(), place) {
                Ok(true) => {
                    self.ready(place);
                    // Together they may have more to read than the patience for one turn allows.
                    self.core.tell();
                }
                Ok(false) => {}
                Err(end) => self.ended(place, end),
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
        while let Some(&Reverse((at, place))) = self.later.peek() {
            if Instant::now() < at || self.deadline.is_some() {
                break;
            }
            self.later.pop();
            self.away.push_back(place);
        }
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
        if member.has_to_write() {
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

    fn ended(&mut self, place: usize, end: End) {
        let roams = self.members[place].roaming != Roaming::No;
        if self.members[place].ended(&mut self.core, end) {
            let pause = self.members[place].pause();
            match pause.is_zero() {
                true => self.away.push_back(place),
                false => self.later.push(Reverse((Instant::now() + pause, place))),
            }
        } else if roams && self.roam != Roam::NotYet {
            self.members[place].roaming = Roaming::Rests;
            self.resting.push_back(place);
        }
    }
}
