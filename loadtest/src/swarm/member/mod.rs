//! One connection: its socket, its session and its audit.

mod returning;
mod talk;
mod wire;

use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::connect::connect;
use super::core::Core;
use super::socket::{Socket, tls};
use super::{Ended, QUESTIONS_MAX};
use crate::audit::Receiver;
use crate::dialect::{Outgoing, Session, Subject, json};
use crate::frame::Opcode;
use crate::scenario::{Plan, Role};

use returning::Stays;

/// A publisher stops sending while this much waits for its socket; what is due meanwhile becomes late, not lost.
pub(super) const QUEUED_BYTES_MAX: usize = 1 << 20;

/// Attempts to come back in a row.
const RETRIES_MAX: u32 = 20;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected, and to be.
    Away,
    /// The upgrade was asked for.
    Upgrading,
    /// The session is not subscribed yet.
    Subscribing,
    /// Subscribed.
    Open,
    /// A close frame was sent.
    Closing,
    /// It has ended.
    Gone,
}

/// What one that comes and goes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roaming {
    /// It stays.
    No,
    /// It is subscribed, or nothing was asked of it yet.
    Rests,
    /// It has asked to join.
    Joining,
    /// It has asked to leave.
    Leaving,
    /// It does nothing more.
    Calm,
}

/// A connection that is to be, is, or was.
pub(super) struct Member {
    pub(super) index: usize,
    pub(super) room: usize,
    pub(super) stage: Stage,
    pub(super) roaming: Roaming,
    /// The gateway's shard, where it says so.
    shard: Option<u32>,
    /// It does not read while publications go out.
    stalls: bool,
    pub(super) stalled: bool,
    socket: Option<Socket>,
    session: Option<Box<dyn Session>>,
    /// Of this room's publishers, the one that this is.
    pub(super) publishes: Option<usize>,
    receiver: Receiver,
    /// Bytes of a head or frame that are not all there.
    partial: Vec<u8>,
    /// A message of which parts are missing.
    fragments: Vec<u8>,
    out: Outgoing,
    sent: usize,
    wants_write: bool,
    begun: Instant,
    /// When it asked to join.
    asked: Instant,
    /// Questions answered.
    answered: usize,
    asking: bool,
    retries: u32,
    /// Of one that comes back: where it was.
    stays: Option<Box<Stays>>,
    must_ask: bool,
    must_leave: bool,
    /// Ended before its time.
    cut_short: bool,
    /// It was subscribed until this program closed it.
    left_open: bool,
}

/// What the end of a connection was.
pub(super) enum End {
    /// By a close frame, or without one.
    Closed(u16, String),
    /// It never opened.
    Failed(anyhow::Error),
}

impl Member {
    pub(super) fn new(plan: &Plan, index: usize) -> Self {
        let room = plan.room_of(index);
        let roams = plan.role_of(index) == Role::Roams;
        Self {
            index,
            room,
            stage: Stage::Away,
            roaming: if roams { Roaming::Rests } else { Roaming::No },
            shard: None,
            stalls: plan.role_of(index) == Role::Stalls,
            stalled: false,
            socket: None,
            session: None,
            publishes: plan.publisher_of(index).map(|publisher| publisher % plan.publishers_per_room),
            receiver: Receiver::new(plan.run, room as u32, plan.publishers_per_room),
            partial: Vec::new(),
            fragments: Vec::new(),
            out: Outgoing::default(),
            sent: 0,
            wants_write: false,
            begun: Instant::now(),
            asked: Instant::now(),
            answered: 0,
            asking: false,
            retries: 0,
            stays: plan.returns_min.map(|_| Box::default()),
            must_ask: false,
            must_leave: false,
            cut_short: false,
            left_open: false,
        }
    }

    /// Is owed what the room gets, and is waited for.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.stalls && self.roaming == Roaming::No
    }

    /// Begins to connect.
    pub(super) fn open(&mut self, core: &mut Core, registry: &Registry, place: usize) -> anyhow::Result<()> {
        let plan = &core.shared.plan;
        let socket = connect(core.shared.gateway, plan, self.index, &mut core.ports)?;
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, Token(place), Interest::READABLE)?;
        let tls = tls(plan.trust.as_ref(), &plan.rooms[self.room].url)?;
        let room = &plan.rooms[self.room];
        let by_command = self.roaming != Roaming::No && room.commands_url.is_some();
        let url = if by_command { room.commands_url.as_ref().unwrap_or(&room.url) } else { &room.url };
        let name = room.name.as_ref().map_or("", |name| name.as_str());
        let subject = Subject { room: name, pusher: plan.pusher.as_ref(), apart: by_command };
        let url = match &self.stays {
            Some(stays) => &url.clone().with_query("since", &stays.since()),
            None => url,
        };
        self.session = Some(match self.stays {
            Some(_) => Box::new(json::Returning),
            None => plan.dialect.session(&subject),
        });
        self.out.bytes.clear();
        self.sent = 0;
        self.partial.clear();
        self.fragments.clear();
        self.out.bytes.extend_from_slice(&core.upgrade_request(url));
        self.socket = Some(Socket::new(socket, tls));
        self.stage = Stage::Upgrading;
        self.begun = Instant::now();
        self.wants_write = false;
        core.opening += 1;
        if self.publishes.is_some() || self.roaming != Roaming::No {
            self.socket.as_ref().map(|socket| socket.tcp.set_nodelay(true));
        }
        Ok(())
    }

    /// Sends a close frame; the gateway closes.
    pub(super) fn close(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Subscribing) {
            self.out.frame(Opcode::Close, &[&1000_u16.to_be_bytes(), b"the load test is over"]);
            self.left_open = self.stage == Stage::Open;
            self.stage = Stage::Closing;
        }
    }

    /// Stops reading, if this is one of those. What arrives does not even wake this program.
    pub(super) fn stall(&mut self, registry: &Registry) {
        self.stalled = self.stalls;
        if let Some(socket) = self.socket.as_mut().filter(|_| self.stalls) {
            // Watched all the same, it costs time and shows nothing.
            let _ = registry.deregister(&mut socket.tcp);
        }
    }

    /// Reads again; true if it did not. What lies in its socket is to be read at once.
    pub(super) fn unstall(&mut self, registry: &Registry, place: usize) -> Result<bool, End> {
        if !std::mem::take(&mut self.stalled) {
            return Ok(false);
        }
        self.wants_write = false;
        if let Some(socket) = &mut self.socket {
            let registered = registry.register(&mut socket.tcp, Token(place), Interest::READABLE);
            registered.map_err(|error| self.broken(&error))?;
        }
        Ok(true)
    }

    /// Drops the connection as if its network were gone, so that nothing of it lingers; it is to come back.
    pub(super) fn drop_at_once(&mut self, core: &mut Core) {
        if matches!(self.stage, Stage::Upgrading | Stage::Subscribing) {
            core.opening -= 1;
        }
        if let Some(socket) = self.socket.take() {
            let _ = socket2::SockRef::from(&socket.tcp).set_linger(Some(std::time::Duration::ZERO));
        }
        if self.stage == Stage::Open && self.is_waited_for() {
            core.shared.present[self.room].fetch_sub(1, Ordering::Relaxed);
        }
        self.stage = Stage::Away;
        self.asking = false;
    }

    /// The connection has ended. True when it is to be opened again.
    pub(super) fn ended(&mut self, core: &mut Core, end: End) -> bool {
        let stage = self.stage;
        self.socket = None;
        self.stage = Stage::Gone;
        match end {
            End::Closed(1000 | 1005, _) if stage == Stage::Closing => {}
            End::Closed(1006, _) if stage == Stage::Closing && self.roaming != Roaming::No => {}
            End::Closed(code, reason) if stage == Stage::Closing => {
                core.measured.error(format!("the close handshake ended with {code}: {reason}"));
            }
            End::Closed(code, reason) if stage == Stage::Subscribing => {
                let error = anyhow::anyhow!("the gateway closed it with {code}: {reason}");
                return self.ended_early(core, error);
            }
            End::Closed(code, reason) if self.stays.is_some() && returning::is_invited(code) => {
                core.cut_off(self, code, reason, stage);
                self.stage = Stage::Away;
                return true;
            }
            End::Closed(code, reason) => {
                self.cut_short = true;
                core.cut_off(self, code, reason, stage);
            }
            End::Failed(error) => return self.ended_early(core, error),
        }
        if self.roaming == Roaming::Leaving && !self.cut_short {
            self.stage = Stage::Away;
            self.roaming = Roaming::Rests;
            return false;
        }
        self.leave_unanswered(core);
        false
    }

    /// No answers will come.
    pub(super) fn leave_unanswered(&mut self, core: &Core) {
        for answers in &core.lane().answers[self.answered..] {
            answers.fetch_add(1, Ordering::Relaxed);
        }
        self.answered = QUESTIONS_MAX;
    }

    /// It could not be opened. After a storm, or when it comes back, it tries again.
    fn ended_early(&mut self, core: &mut Core, error: anyhow::Error) -> bool {
        core.opening -= 1;
        if (core.stormy || self.was_here()) && self.retries < RETRIES_MAX {
            self.retries += 1;
            core.measured.retries += 1;
            self.stage = Stage::Away;
            return true;
        }
        let of = core.shared.plan.connections;
        core.shared.fail(error.context(format!("connection {} of {of} could not be opened", self.index + 1)));
        false
    }

    pub(super) fn is_stalled_for_good(&self) -> bool {
        self.stalls
    }

    pub(super) fn into_ended(self, plan: &Plan) -> Ended {
        let deaf_to = if plan.hears_itself_not() { self.publishes } else { None };
        let throughout = !self.cut_short && self.roaming == Roaming::No;
        let at_the_end = !self.cut_short && self.left_open;
        Ended { room: self.room, deaf_to, receiver: self.receiver, throughout, at_the_end, shard: self.shard }
    }
}
