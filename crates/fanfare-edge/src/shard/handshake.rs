//! From the listener to a connection: sockets are accepted and heard by the shard's own loop. One whose first request is a handshake that
//! is let in becomes a connection at once: no task, no second poll set, and one write. All others go to hyper with what was read of them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::LaneId;
use hyper::{Method, Request, StatusCode};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use tracing::warn;

use super::ShardLoop;
use super::begin::wire_form;
use super::newcomers::{Awaits, Newcomer};
use crate::admission::{Admission, Door};
use crate::counters::{Handshake, TlsHandshake, Via};
use crate::event_stream::{self, StreamHead};
use crate::gate::{Permit, Refused};
use crate::head::Head;
use crate::http::{self, ClientContext};
use crate::listener::{ACCEPT_RETRY, BACKLOG, PolledListener, Stream};
use crate::problem::Problem;
use crate::proxied::{self, Named, Proxied};
use crate::settings::ProxyProtocol;
use crate::source::Source;
use crate::tls::{Bare, HANDSHAKE_RECORD, Received};
use crate::upgrade::{self, Switching};

/// Sockets accepted in one turn: a crowd at the door holds up those inside for so long at most.
const ACCEPTS_PER_TURN: usize = 32;

/// Newcomers heard in one turn.
const NEWCOMERS_PER_TURN: usize = 32;

/// The listener as the loop sees it.
#[derive(Debug)]
pub(super) struct Entrance {
    listener: PolledListener,
    /// Sockets may be waiting: the poll set says so only once.
    pub(super) has_more: bool,
    /// After an error of `accept`: not before.
    pub(super) retry_at: Option<Duration>,
}

impl Entrance {
    pub(super) fn new(listener: PolledListener) -> Self {
        Self { listener, has_more: true, retry_at: None }
    }

    fn retry_if_due(&mut self, now: Duration) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
            self.has_more = true;
        }
    }
}

/// The answer to a request that makes a connection.
enum Opening {
    WebSocket(Switching),
    EventStream(StreamHead),
}

impl Opening {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket(switching) => switching.write(out),
            Self::EventStream(head) => head.write(out),
        }
    }
}

impl ShardLoop {
    /// Somebody waits at the listener.
    pub(super) fn on_arrival(&mut self) {
        if let Some(entrance) = &mut self.entrance {
            // While descriptors are short the next try has its time.
            entrance.has_more = entrance.retry_at.is_none();
        }
    }

    /// True when sockets may be accepted, or newcomers be heard, at once.
    pub(super) fn has_newcomers(&self) -> bool {
        self.newcomers.has_ready() || self.entrance.as_ref().is_some_and(|entrance| entrance.has_more)
    }

    /// Lets sockets in, a bounded number.
    pub(super) fn accept_newcomers(&mut self) {
        let Some(mut entrance) = self.entrance.take() else { return };
        let is_last = !self.hub.drain().is_accepting();
        // Whoever waits when the listener closes came while it was open: all of them are let in first.
        let accepts = if is_last { BACKLOG as usize } else { ACCEPTS_PER_TURN };
        entrance.has_more |= is_last;
        entrance.retry_if_due(self.now);
        for _ in 0..accepts {
            if !entrance.has_more {
                break;
            }
            match entrance.listener.accept() {
                Ok((socket, peer)) => match self.hub.canary_from(&socket, &peer) {
                    None => self.receive(socket, peer.ip()),
                    Some(visit) => self.receive_canary(socket, &visit),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => entrance.has_more = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    http::count_accept_error(&self.hub, &error);
                    // Who went away while it waited keeps nobody else waiting.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        entrance.has_more = false;
                        entrance.retry_at = Some(self.now + ACCEPT_RETRY);
                    }
                }
            }
        }
        if is_last {
            entrance.listener.close(self.poll.get_ref().registry());
        } else {
            self.entrance = Some(entrance);
        }
    }

    fn receive(&mut self, socket: OwnedFd, peer: Option<IpAddr>) {
        let settings = self.hub.settings();
        let proxy = &settings.proxy;
        let source = Source::of(peer, proxy);
        let awaits = match proxy.protocol {
            ProxyProtocol::Optional | ProxyProtocol::Required if source.is_proxy() => Awaits::ProxyHeader,
            ProxyProtocol::Required => {
                self.hub.counters().via(Via::Untrusted);
                let detail = "only trusted proxies may connect here";
                let problem = Problem::new(StatusCode::FORBIDDEN, "proxy_untrusted", detail);
                self.serve_apart(Bare { socket, tls: None }, |stream| http::refuse(stream, problem));
                return;
            }
            ProxyProtocol::Optional | ProxyProtocol::Off if settings.tls.is_some() => Awaits::Tls,
            ProxyProtocol::Optional | ProxyProtocol::Off => Awaits::Head,
        };
        match self.hub.gate().enter(source.countable(), self.now) {
            Ok(permit) => _ = self.receive_newcomer(socket, permit, source, awaits),
            Err(refused) => self.shed(socket, refused),
        }
    }

    fn shed(&self, socket: OwnedFd, refused: Refused) {
        let socket = Bare { socket, tls: None };
        self.hub.counters().shed.fetch_add(1, Ordering::Relaxed);
        self.serve_apart(socket, |stream| http::refuse(stream, refused.problem()));
    }

    /// Gives a socket a lane among the newcomers.
    pub(super) fn receive_newcomer(
        &mut self,
        socket: OwnedFd,
        permit: Permit,
        source: Source,
        awaits: Awaits,
    ) -> Option<LaneId> {
        // In which variant it is spoken to is said when it is known; it is in no room before.
        let lane = self.fanout.open(0);
        if let Err(error) = self.watch_socket(&socket, lane) {
            warn!(%error, "a newcomer could not be polled");
            self.close_lane(lane);
            return None;
        }
        self.sockets.insert(lane.index, Bare { socket, tls: None });
        self.newcomers.enter(lane, permit, source, awaits, self.now);
        Some(lane)
    }

    /// Accepts nobody for a while.
    #[cfg(feature = "faults")]
    pub(super) fn deafen(&mut self, time: Duration) {
        if let Some(entrance) = &mut self.entrance {
            entrance.has_more = false;
            entrance.retry_at = Some(self.now + time);
        }
    }

    /// Puts a socket into the poll set under its lane's index.
    pub(super) fn watch_socket(&self, socket: &OwnedFd, lane: LaneId) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(lane.index as usize);
        self.poll.get_ref().registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest)
    }

    /// Hears newcomers in turn and sends those away whose time is up, a bounded number of each.
    pub(super) fn hear_newcomers(&mut self) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for _ in 0..NEWCOMERS_PER_TURN {
            let Some(lane) = self.newcomers.next_ready() else { break };
            let was_handshaking = self.sockets.is_handshaking(lane.index);
            let received = self.sockets.receive(lane.index, &mut buffer);
            if was_handshaking && !self.sockets.is_handshaking(lane.index) && !self.newcomers.is_canary(lane.index) {
                self.hub.counters().tls(TlsHandshake::Accepted);
            }
            match received {
                Received::Bytes(read) => self.hear(lane, &mut buffer, read),
                Received::WouldBlock => {}
                Received::End | Received::Failed => self.send_away(lane),
            }
        }
        self.read_buffer = buffer;
        for _ in 0..NEWCOMERS_PER_TURN {
            let Some(lane) = self.newcomers.overdue(self.now) else { break };
            self.send_away(lane);
        }
    }

    /// A newcomer has said something: `read` bytes, in the buffer.
    fn hear(&mut self, lane: LaneId, buffer: &mut [u8], read: usize) {
        let Some(newcomer) = self.newcomers.get_mut(lane.index) else { return };
        let is_full = read == buffer.len();
        let mut kept = std::mem::take(&mut newcomer.head);
        let seen = kept.len();
        let bytes = if seen == 0 {
            &mut buffer[..read]
        } else {
            kept.extend_from_slice(&buffer[..read]);
            &mut kept[..]
        };
        let (bytes, seen) = match newcomer.awaits {
            Awaits::Head => (bytes, seen),
            Awaits::Tls => return self.begin_tls(lane, bytes),
            Awaits::CanaryWord => {
                let bytes = bytes.to_vec();
                return self.hear_canary(lane, bytes);
            }
            Awaits::ProxyHeader => match self.hear_proxy(lane, bytes) {
                Some(length) if self.hub.settings().tls.is_some() => return self.begin_tls(lane, &bytes[length..]),
                Some(length) => (&mut bytes[length..], 0),
                None => {
                    let bytes = bytes.to_vec();
                    return self.wait_for_more(lane, bytes, is_full);
                }
            },
        };
        match Head::read(bytes, seen, self.head_limits) {
            Ok(Head::Partial) => {
                let kept = if seen == 0 { bytes.to_vec() } else { kept };
                self.wait_for_more(lane, kept, is_full);
            }
            Ok(Head::Whole(request, length)) if self.newcomers.is_canary(lane.index) => {
                let rest = bytes[length..].to_vec();
                self.answer_canary(lane, &request, rest);
            }
            Ok(Head::Whole(request, length)) => {
                let Some(newcomer) = self.newcomers.leave(lane.index) else { return };
                self.hear_request(newcomer, &request, bytes, length, is_full);
            }
            Err(bad) => self.refuse_newcomer(lane, bad.problem()),
        }
    }

    /// Keeps what has come of a newcomer that has more to say, if it has not been refused.
    fn wait_for_more(&mut self, lane: LaneId, kept: Vec<u8>, is_full: bool) {
        let Some(newcomer) = self.newcomers.get_mut(lane.index) else { return };
        newcomer.head = kept;
        let has_hung_up = newcomer.has_hung_up;
        if is_full || has_hung_up {
            self.newcomers.on_readable(lane.index, has_hung_up);
        }
    }

    /// Reads a proxy's header, or sees that there is none: how many of the bytes it is. `None`: more must come, or the newcomer was refused.
    fn hear_proxy(&mut self, lane: LaneId, bytes: &[u8]) -> Option<usize> {
        let hub = self.hub.clone();
        let settings = hub.settings();
        let proxy = &settings.proxy;
        let refusal = match proxied::read(bytes) {
            Ok(Proxied::Partial) => return None,
            Ok(Proxied::Absent) if proxy.protocol != ProxyProtocol::Required => {
                self.newcomers.get_mut(lane.index)?.awaits = Awaits::Head;
                return Some(0);
            }
            Ok(Proxied::Header { names, length }) => {
                hub.counters().via(if names == Named::Itself { Via::Itself } else { Via::Named });
                let newcomer = self.newcomers.get_mut(lane.index)?;
                newcomer.awaits = Awaits::Head;
                newcomer.source = newcomer.source.named(names, proxy);
                match newcomer.source.countable().map_or(Ok(()), |client| newcomer.permit.count(client, self.now)) {
                    Ok(()) => return Some(length),
                    Err(refused) => {
                        hub.counters().shed.fetch_add(1, Ordering::Relaxed);
                        refused.problem()
                    }
                }
            }
            absent_or_malformed => {
                hub.counters().via(if absent_or_malformed.is_ok() { Via::Missing } else { Via::Malformed });
                let detail = "a header of the PROXY protocol is missing or malformed";
                Problem::new(StatusCode::BAD_REQUEST, "proxy_header", detail)
            }
        };
        self.refuse_newcomer(lane, refusal);
        None
    }

    /// TLS begins with these bytes, which may be none yet, or something else is spoken.
    fn begin_tls(&mut self, lane: LaneId, bytes: &[u8]) {
        let Some(newcomer) = self.newcomers.get_mut(lane.index) else { return };
        let Some(&first) = bytes.first() else {
            newcomer.awaits = Awaits::Tls;
            return self.newcomers.on_readable(lane.index, false);
        };
        let settings = self.hub.settings();
        let terms = settings.tls.as_ref().filter(|_| first == HANDSHAKE_RECORD);
        let Some(terms) = terms else {
            self.hub.counters().tls(TlsHandshake::NotTls);
            let problem =
                Problem::new(StatusCode::BAD_REQUEST, "tls_required", "this port speaks TLS: use wss:// or https://");
            return self.refuse_newcomer(lane, problem);
        };
        newcomer.awaits = Awaits::Head;
        if self.sockets.begin_tls(lane.index, terms.config.clone(), bytes) {
            // What came meanwhile has been announced already.
            self.newcomers.on_readable(lane.index, false);
        } else {
            self.send_away(lane);
        }
    }

    /// A newcomer's first request has come: the first `length` of these bytes.
    fn hear_request(
        &mut self,
        mut newcomer: Newcomer,
        request: &Request<()>,
        bytes: &mut [u8],
        length: usize,
        has_more: bool,
    ) {
        let let_in = self.consider(request);
        match let_in.map(|let_in| (newcomer.source.seat(&mut newcomer.permit, request.headers(), &self.hub), let_in)) {
            Some((Ok(()), let_in)) => self.let_in(newcomer, let_in, &mut bytes[length..], has_more),
            Some((Err(_), _)) | None => self.hand_to_hyper(newcomer, Bytes::copy_from_slice(bytes)),
        }
    }

    fn refuse_newcomer(&mut self, lane: LaneId, problem: Problem) {
        let Some(Newcomer { permit, .. }) = self.newcomers.leave(lane.index) else { return };
        let Some(socket) = self.take_out(lane) else { return };
        self.serve_apart(socket, async move |stream| {
            http::refuse(stream, problem).await;
            // Its place was taken for as long.
            drop(permit);
        });
    }

    /// A handshake that is let in. Whatever else it is, and also what is refused, is answered over hyper, where the same is considered
    /// again: only there answers are made.
    fn consider(&self, request: &Request<()>) -> Option<(Opening, Admission)> {
        let door = Door::at(request.uri().path(), &self.settings).filter(|_| request.method() == Method::GET)?;
        if let Door::EventStream(_) = door {
            let (head, admission) = event_stream::consider(&self.hub, request, door).ok()?;
            return Some((Opening::EventStream(head), admission));
        }
        let (switching, admission) = upgrade::consider(&self.hub, request, door).ok()?;
        Some((Opening::WebSocket(switching), admission))
    }

    /// Makes a newcomer a connection. The answer to its handshake and the first words on the connection are one write.
    fn let_in(
        &mut self,
        newcomer: Newcomer,
        (opening, admission): (Opening, Admission),
        early: &mut [u8],
        has_more: bool,
    ) {
        let Newcomer { lane, permit, has_hung_up, .. } = newcomer;
        self.hub.counters().handshake(Handshake::Accepted);
        self.fanout.set_variant(lane, wire_form(&admission.session).index());
        self.begin(lane, admission, permit, |out| opening.write(out), early);
        if has_more || has_hung_up {
            self.on_readable(lane.index, has_hung_up);
        }
    }

    fn hand_to_hyper(&mut self, newcomer: Newcomer, early: Bytes) {
        let Newcomer { lane, permit, source, .. } = newcomer;
        let Some(socket) = self.take_out(lane) else { return };
        let (hub, is_over) = (self.hub.clone(), self.is_over.clone());
        let context = Rc::new(ClientContext { hub, shard: self.index, source, is_over });
        let notice = self.http.notice();
        self.serve_apart(socket, |stream| http::serve_client(context, stream, early, permit, notice));
    }

    /// Serves a socket by a task.
    fn serve_apart<F: Future<Output = ()> + 'static>(&self, socket: Bare, serve: impl FnOnce(Stream) -> F) {
        match self.transport.stream(socket) {
            Ok(stream) => drop(tokio::task::spawn_local(serve(stream))),
            Err(error) => warn!(%error, "a socket could not be polled"),
        }
    }

    /// Takes a newcomer's socket out of its lane, which ends, and out of the poll set.
    fn take_out(&mut self, lane: LaneId) -> Option<Bare> {
        self.close_lane(lane);
        let bare = self.sockets.take(lane.index)?;
        // It was put in when it was accepted.
        let _ = self.poll.get_ref().registry().deregister(&mut SourceFd(&bare.socket.as_raw_fd()));
        Some(bare)
    }

    /// Closes a newcomer's socket.
    pub(super) fn send_away(&mut self, lane: LaneId) {
        let is_canary = self.newcomers.leave(lane.index).is_some_and(|newcomer| newcomer.is_canary);
        if is_canary {
            self.leave_canary_room(lane);
        }
        self.close_lane(lane);
        let Some(Bare { socket, tls }) = self.sockets.take(lane.index) else { return };
        let Some(mut tls) = tls else { return };
        if tls.is_handshaking() && !is_canary {
            self.hub.counters().tls(TlsHandshake::Failed);
        } else {
            tls.finish(socket.as_fd());
        }
    }

    /// Ends a lane that is in no room yet.
    pub(super) fn close_lane(&mut self, lane: LaneId) {
        let left = self.fanout.close(lane);
        debug_assert!(left.is_empty(), "it was in no room yet");
    }
}
