//! One connection: its socket, its session and its audit.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context;
use base64::Engine;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use sha1::{Digest, Sha1};

use super::worker::Core;
use super::{Ended, QUESTIONS_MAX, nanoseconds};
use crate::audit::Receiver;
use crate::dialect::{Heard, Outgoing, Session, Subject};
use crate::frame::{self, Head, Opcode};
use crate::scenario::{Plan, Role};

/// Connections from one loopback address, which has some 44,000 ports to give.
const CONNECTIONS_PER_SOURCE: usize = 25_000;

/// A publisher stops sending while this much waits for its socket; what is due meanwhile becomes late, not lost.
pub(super) const QUEUED_BYTES_MAX: usize = 1 << 20;

/// Longest head of an answer to the upgrade, bytes.
const HEAD_BYTES_MAX: usize = 16_384;

/// Attempts to come back from a storm.
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
    /// It does not read while publications go out.
    stalls: bool,
    pub(super) stalled: bool,
    socket: Option<TcpStream>,
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
    must_ask: bool,
    must_leave: bool,
    /// Ended before its time.
    cut_short: bool,
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
            must_ask: false,
            must_leave: false,
            cut_short: false,
        }
    }

    /// Is owed what the room gets, and is waited for.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.stalls && self.roaming == Roaming::No
    }

    /// Begins to connect.
    pub(super) fn open(&mut self, core: &mut Core, registry: &Registry, place: usize) -> anyhow::Result<()> {
        let plan = &core.shared.plan;
        let socket = connect(core.shared.gateway, plan, self.index, &mut core.ports).context("no socket")?;
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, Token(place), Interest::READABLE)?;
        let room = &plan.rooms[self.room];
        let by_command = self.roaming != Roaming::No && room.commands_url.is_some();
        let url = if by_command { room.commands_url.as_ref().unwrap_or(&room.url) } else { &room.url };
        let name = room.name.as_ref().map_or("", |name| name.as_str());
        let subject = Subject { room: name, pusher: plan.pusher.as_ref(), apart: by_command };
        self.session = Some(plan.dialect.session(&subject));
        self.out.bytes.clear();
        self.sent = 0;
        self.partial.clear();
        self.fragments.clear();
        self.out.bytes.extend_from_slice(&core.upgrade_request(url));
        self.socket = Some(socket);
        self.stage = Stage::Upgrading;
        self.begun = Instant::now();
        self.wants_write = false;
        core.opening += 1;
        if self.publishes.is_some() || self.roaming != Roaming::No {
            self.socket.as_ref().map(|socket| socket.set_nodelay(true));
        }
        Ok(())
    }

    /// Bytes that wait for the socket.
    pub(super) fn queued_bytes(&self) -> usize {
        self.out.bytes.len() - self.sent
    }

    /// Writes what it can.
    pub(super) fn write(&mut self, registry: &Registry, place: usize) -> Result<(), End> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while self.sent < self.out.bytes.len() {
            match socket.write(&self.out.bytes[self.sent..]) {
                Ok(0) => break,
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // On loopback a connection is there as soon as it was asked for; elsewhere it may take its time.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    if !self.wants_write {
                        self.wants_write = true;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        registry.reregister(socket, Token(place), both).map_err(|error| self.broken(&error))?;
                    }
                    return Ok(());
                }
                Err(error) => return Err(self.broken(&error)),
            }
        }
        self.out.bytes.clear();
        self.sent = 0;
        if self.out.bytes.capacity() > 65_536 {
            self.out.bytes = Vec::new();
        }
        if self.wants_write {
            self.wants_write = false;
            let reregistered = registry.reregister(socket, Token(place), Interest::READABLE);
            reregistered.map_err(|error| self.broken(&error))?;
        }
        Ok(())
    }

    fn broken(&self, error: &io::Error) -> End {
        match self.stage {
            Stage::Upgrading | Stage::Away => {
                let advice = match error.kind() {
                    ErrorKind::ConnectionRefused => ": nothing is listening at this address: start the gateway",
                    _ => "",
                };
                End::Failed(anyhow::anyhow!("{error}{advice}"))
            }
            _ => End::Closed(1006, format!("the connection broke: {error}")),
        }
    }

    /// Reads all there is.
    pub(super) fn read(&mut self, core: &mut Core, buffer: &mut [u8]) -> Result<(), End> {
        if self.stalled {
            return Ok(());
        }
        loop {
            let Some(socket) = &mut self.socket else { return Ok(()) };
            match socket.read(buffer) {
                Ok(0) if self.stage == Stage::Upgrading => {
                    return Err(End::Failed(anyhow::anyhow!("the gateway closed the connection during the upgrade")));
                }
                Ok(0) => {
                    return Err(End::Closed(1006, "the gateway closed the connection without a close frame".into()));
                }
                Ok(length) => {
                    core.now_ns = nanoseconds(core.shared.origin.elapsed());
                    self.feed(core, &buffer[..length])?;
                    // A short read has emptied the socket: what comes after it is a new event.
                    if length < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn feed(&mut self, core: &mut Core, bytes: &[u8]) -> Result<(), End> {
        if self.partial.is_empty() {
            let consumed = self.consume(core, bytes)?;
            self.partial.extend_from_slice(&bytes[consumed..]);
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let consumed = self.consume(core, &partial)?;
        if consumed < partial.len() {
            partial.drain(..consumed);
            self.partial = partial;
        }
        Ok(())
    }

    /// Takes what is whole; returns how many bytes that was.
    fn consume(&mut self, core: &mut Core, bytes: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = frame::http_head_end(bytes) else {
                if bytes.len() > HEAD_BYTES_MAX {
                    return Err(End::Failed(anyhow::anyhow!("the answer to the upgrade has no end")));
                }
                return Ok(0);
            };
            core.check_answer(&bytes[..end]).map_err(End::Failed)?;
            self.upgraded(core);
            self.follow_up();
            at = end;
        }
        loop {
            let broken = |why: &str| End::Closed(1002, format!("by this program: {why}"));
            let Some(head) = frame::head(&bytes[at..]).map_err(broken)? else { return Ok(at) };
            if head.mask.is_some() {
                return Err(broken("a masked frame from the gateway"));
            }
            self.frame(core, head, &bytes[at + head.start..at + head.end])?;
            self.follow_up();
            at += head.end;
        }
    }

    fn upgraded(&mut self, core: &mut Core) {
        core.measured.handshake.saturating_record(nanoseconds(self.begun.elapsed()));
        self.stage = Stage::Subscribing;
        let ready = self.session.as_mut().is_none_or(|session| session.opened(&mut self.out));
        if ready {
            self.ready(core);
        }
    }

    /// The session is subscribed.
    fn ready(&mut self, core: &mut Core) {
        self.stage = Stage::Open;
        core.opening -= 1;
        core.lane().ready.fetch_add(1, Ordering::Relaxed);
        if self.is_waited_for() {
            core.shared.present[self.room].fetch_add(1, Ordering::Relaxed);
        }
        // It came by connecting; the answer proves that it is subscribed.
        self.must_ask = self.roaming == Roaming::Joining;
    }

    /// Does what was decided while the session was busy.
    fn follow_up(&mut self) {
        if std::mem::take(&mut self.must_ask) {
            self.ask();
        }
        if std::mem::take(&mut self.must_leave) {
            self.leave();
        }
    }

    fn frame(&mut self, core: &mut Core, head: Head, payload: &[u8]) -> Result<(), End> {
        match head.opcode {
            Opcode::Text | Opcode::Binary if head.last => self.message(core, payload),
            Opcode::Text | Opcode::Binary => {
                self.fragments.clear();
                self.fragments.extend_from_slice(payload);
            }
            Opcode::Continuation => {
                self.fragments.extend_from_slice(payload);
                if self.fragments.len() > frame::MESSAGE_BYTES_MAX {
                    return Err(End::Closed(1009, "by this program: a message is too long".into()));
                }
                if head.last {
                    let message = std::mem::take(&mut self.fragments);
                    self.message(core, &message);
                }
            }
            Opcode::Ping => self.out.frame(Opcode::Pong, &[payload]),
            Opcode::Pong => self.heard(core, Heard::Answer),
            Opcode::Close => {
                let (code, reason) = match payload {
                    [high, low, reason @ ..] => {
                        (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
                    }
                    _ => (1005, String::new()),
                };
                return Err(End::Closed(code, reason));
            }
        }
        Ok(())
    }

    fn message(&mut self, core: &mut Core, message: &[u8]) {
        core.arrivals += 1;
        let Some(mut session) = self.session.take() else { return };
        let mut out = std::mem::take(&mut self.out);
        session.incoming(message, &mut out, &mut |heard| self.heard(core, heard));
        self.session = Some(session);
        // A publication that was heard may not write, so nothing was put into the other.
        out.bytes.append(&mut self.out.bytes);
        self.out = out;
    }

    fn heard(&mut self, core: &mut Core, heard: Heard<'_>) {
        match heard {
            Heard::Payload(payload) => self.deliver(core, payload),
            Heard::Gap(count) => {
                self.receiver.announce(count);
                core.lane().announced.fetch_add(count, Ordering::Relaxed);
            }
            Heard::Ready if self.stage == Stage::Subscribing => self.ready(core),
            Heard::Answer => self.answer(core),
            Heard::Joined if self.roaming == Roaming::Joining => self.joined(core),
            Heard::Left if self.roaming == Roaming::Leaving => self.roaming = Roaming::Rests,
            Heard::Ready | Heard::Joined | Heard::Left => {}
            Heard::Corrupt => self.receiver.take_corrupt(),
            Heard::Refused(why) => core.measured.error(format!("the gateway answered {why}")),
        }
    }

    fn deliver(&mut self, core: &mut Core, payload: &[u8]) {
        let Some(stamp) = core.stamps.read(payload) else { return self.receiver.take_corrupt() };
        if !self.receiver.accept(stamp) || !self.is_waited_for() {
            return;
        }
        core.delivered(self.room, stamp);
    }

    fn answer(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.asking) {
            core.lane().answers[self.answered].fetch_add(1, Ordering::Relaxed);
            self.answered += 1;
            return;
        }
        match self.roaming {
            Roaming::Joining => self.joined(core),
            Roaming::Leaving => self.roaming = Roaming::Rests,
            Roaming::No | Roaming::Rests | Roaming::Calm => {}
        }
    }

    fn joined(&mut self, core: &mut Core) {
        core.measured.joining.saturating_record(nanoseconds(self.asked.elapsed()));
        core.lane().joins.fetch_add(1, Ordering::Relaxed);
        self.roaming = Roaming::Leaving;
        self.must_leave = true;
    }

    /// One that rests asks to join. False when it must come anew for that.
    pub(super) fn join(&mut self) -> bool {
        self.roaming = Roaming::Joining;
        self.asked = Instant::now();
        self.receiver.begin_stay();
        if self.stage != Stage::Open {
            return false;
        }
        let by_command = self.session.as_mut().is_some_and(|session| session.join(true, &mut self.out));
        if !by_command {
            // The first time it is here already.
            self.ask();
        }
        true
    }

    fn leave(&mut self) {
        let by_command = self.session.as_mut().is_some_and(|session| session.join(false, &mut self.out));
        if !by_command {
            self.close();
        }
    }

    /// Publishes `payload`.
    pub(super) fn publish(&mut self, payload: &str) {
        if let Some(session) = &mut self.session {
            session.publish(payload.as_bytes(), &mut self.out);
        }
    }

    fn ask(&mut self) {
        if let Some(session) = &mut self.session {
            session.ask(&mut self.out);
        }
    }

    /// Asks the next question of the swarm.
    pub(super) fn question(&mut self) {
        if self.stage == Stage::Open {
            self.asking = true;
            self.ask();
        }
    }

    /// Sends a close frame; the gateway closes.
    pub(super) fn close(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Subscribing) {
            self.out.frame(Opcode::Close, &[&1000_u16.to_be_bytes(), b"the load test is over"]);
            self.stage = Stage::Closing;
        }
    }

    /// Stops reading, if this is one of those.
    pub(super) fn stall(&mut self) {
        self.stalled = self.stalls;
    }

    /// Drops the connection as if its network were gone, so that nothing of it lingers; it is to come back.
    pub(super) fn drop_at_once(&mut self, core: &mut Core) {
        if matches!(self.stage, Stage::Upgrading | Stage::Subscribing) {
            core.opening -= 1;
        }
        if let Some(socket) = self.socket.take() {
            let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
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

    /// It could not be opened. After a storm it tries again.
    fn ended_early(&mut self, core: &mut Core, error: anyhow::Error) -> bool {
        core.opening -= 1;
        if core.stormy && self.retries < RETRIES_MAX {
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
        Ended { room: self.room, deaf_to, receiver: self.receiver, throughout }
    }
}

/// Ports of this program. Left to itself the kernel searches for a free one, which takes longer than all the rest of a
/// connection once some ten thousand are taken.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
    /// Threads take turns, so that they do not meet.
    step: u16,
}

impl Ports {
    const FIRST: u16 = 16_384;
    const LAST: u16 = 60_999;
    const COUNT: u16 = Self::LAST - Self::FIRST;

    pub(super) fn new(seed: u32, thread: usize, threads: usize) -> Self {
        let (thread, step) = (thread as u16, threads as u16);
        let begin = (seed % u32::from(Self::COUNT / 2)) as u16 / step * step;
        Self { next: Self::FIRST + begin + thread, step }
    }

    fn take(&mut self) -> u16 {
        let port = self.next;
        self.next += self.step;
        if self.next > Self::LAST {
            self.next = Self::FIRST + self.next % self.step;
        }
        port
    }
}

fn connect(gateway: SocketAddr, plan: &Plan, index: usize, ports: &mut Ports) -> io::Result<socket2::Socket> {
    if !plan.spread_sources {
        return connect_from(gateway, None);
    }
    let last = u8::try_from(index / CONNECTIONS_PER_SOURCE + 1);
    let last = last.map_err(|_| io::Error::other("more connections than loopback has room"))?;
    for _ in 0..Ports::COUNT {
        let source = SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), ports.take()));
        match connect_from(gateway, Some(source)) {
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
            done => return done,
        }
    }
    Err(io::Error::other("no port is free on this machine"))
}

fn connect_from(gateway: SocketAddr, source: Option<SocketAddr>) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(gateway);
    #[cfg(target_os = "linux")]
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
    #[cfg(not(target_os = "linux"))]
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        // What lingers of earlier connections does not count.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&gateway.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) || error.kind() == ErrorKind::WouldBlock => Ok(socket),
        Err(error) => Err(error),
    }
}

const EINPROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// The key of the upgrade and the answer that it calls for (RFC 6455 section 4.2.2).
pub(super) fn key_and_answer(seed: u32) -> (String, String) {
    let mut key = [0_u8; 16];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = (seed.rotate_left(index as u32 * 5) as u8) ^ (index as u8).wrapping_mul(37);
    }
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let answer = Sha1::new().chain_update(&key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let answer = base64::engine::general_purpose::STANDARD.encode(answer);
    (key, answer)
}
