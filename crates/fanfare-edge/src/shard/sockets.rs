//! The shard's sockets by lane, and the two send paths: one non-blocking write each, or, where the kernel allows it, many with one
//! submission to io_uring.

use std::io::IoSlice;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use fanfare_fanout::{Offer, Outcome, Sink};
use fanfare_uring::{BatchSender, Send, Sent};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use rustls::ServerConfig;

use crate::SendPath;
use crate::tls::{Bare, Received, Tls};

/// Sockets by the index of their lane. Owned by the shard's loop.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<Option<OwnedFd>>,
    /// By the same index, those on which TLS is spoken.
    tls: HashMap<u32, Box<Tls>>,
    /// `None`: the portable path.
    uring: Option<BatchSender>,
    sent: Vec<Sent>,
}

/// Sends submitted together at most.
const URING_SENDS_MAX: u32 = 256;

/// Below this many sends a submission costs more than it saves.
const URING_SENDS_MIN: usize = 4;

impl Sockets {
    pub(super) fn new(send_path: SendPath) -> Self {
        let uring = match send_path {
            SendPath::Writev => None,
            SendPath::IoUring => BatchSender::new(URING_SENDS_MAX).ok(),
        };
        Self { sockets: Vec::new(), tls: HashMap::new(), uring, sent: Vec::new() }
    }

    /// Gives back memory that a crowd left behind.
    pub(super) fn shrink(&mut self) {
        let last = self.sockets.iter().rposition(Option::is_some);
        self.sockets.truncate(last.map_or(0, |last| last + 1));
        self.sockets.shrink_to_fit();
        self.tls.shrink_to_fit();
        self.sent = Vec::new();
    }

    pub(super) fn insert(&mut self, lane: u32, Bare { socket, tls }: Bare) {
        if let Some(tls) = tls {
            self.tls.insert(lane, tls);
        }
        let lane = lane as usize;
        if lane >= self.sockets.len() {
            self.sockets.resize_with(lane + 1, || None);
        }
        self.sockets[lane] = Some(socket);
    }

    pub(super) fn get(&self, lane: u32) -> Option<&OwnedFd> {
        self.sockets.get(lane as usize)?.as_ref()
    }

    /// Lets go of a socket without closing it.
    pub(super) fn take(&mut self, lane: u32) -> Option<Bare> {
        let socket = self.sockets.get_mut(lane as usize)?.take()?;
        Some(Bare { socket, tls: self.tls.remove(&lane) })
    }

    /// TLS begins on a socket of which these bytes have been read. `false` when it does not.
    pub(super) fn begin_tls(&mut self, lane: u32, config: Arc<ServerConfig>, bytes: &[u8]) -> bool {
        let Some(socket) = self.sockets.get(lane as usize).and_then(Option::as_ref) else { return false };
        let Ok(mut tls) = Tls::new(config) else { return false };
        let is_well = tls.feed(socket.as_fd(), bytes);
        self.tls.insert(lane, Box::new(tls));
        is_well
    }

    /// TLS on this socket, with it.
    fn tls(&mut self, lane: u32) -> Option<(&OwnedFd, &mut Tls)> {
        if self.tls.is_empty() {
            return None;
        }
        let tls = self.tls.get_mut(&lane)?;
        Some((self.sockets.get(lane as usize)?.as_ref()?, tls))
    }

    /// True while its TLS handshake is under way.
    pub(super) fn is_handshaking(&self, lane: u32) -> bool {
        self.tls.get(&lane).is_some_and(|tls| tls.is_handshaking())
    }

    /// True while bytes wait between the outbox and the socket.
    pub(super) fn has_pending(&self, lane: u32) -> bool {
        !self.tls.is_empty() && self.tls.get(&lane).is_some_and(|tls| tls.has_pending())
    }

    /// Sends these bytes. `false` when the socket does not take all of them.
    pub(super) fn flush(&mut self, lane: u32) -> bool {
        self.tls(lane).is_none_or(|(socket, tls)| tls.flush(socket.as_fd()))
    }

    /// Has the kernel give up a peer that acknowledges nothing of what it is sent for so long; over TCP, where that can be asked for.
    #[cfg(target_os = "linux")]
    pub(super) fn bound_silence(&self, lane: u32, longest: Duration) {
        if let Some(socket) = self.get(lane) {
            let ms = u32::try_from(longest.as_millis()).unwrap_or(u32::MAX);
            // Refused for a Unix socket, whose peer cannot vanish without a word.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, ms);
        }
    }

    /// Has the kernel give up a peer that acknowledges nothing: this one cannot be asked to.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn bound_silence(&self, _lane: u32, _longest: Duration) {}

    /// Ends our side: the peer sees an orderly end after the bytes that are under way. It can still be read.
    pub(super) fn finish(&mut self, lane: u32) {
        if let Some((socket, tls)) = self.tls(lane) {
            tls.finish(socket.as_fd());
        }
        if let Some(socket) = self.get(lane) {
            // One that has failed meanwhile is found out by reading it.
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
        }
    }

    /// Ends our side, so that the peer sees an orderly end after the bytes that are under way, and closes the socket.
    pub(super) fn remove(&mut self, lane: u32, discard: &mut [u8]) {
        let Some(Bare { socket, tls }) = self.take(lane) else { return };
        if let Some(mut tls) = tls {
            tls.finish(socket.as_fd());
        }
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        // Closing with unread bytes resets the connection and may take the close frame with it.
        for _ in 0..4 {
            match rustix::net::recv(&socket, &mut *discard, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    pub(super) fn receive(&mut self, lane: u32, buffer: &mut [u8]) -> Received {
        if let Some((socket, tls)) = self.tls(lane) {
            return tls.receive(socket.as_fd(), buffer);
        }
        let Some(socket) = self.get(lane) else { return Received::Failed };
        loop {
            return match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => Received::End,
                Ok((n, _)) => Received::Bytes(n),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => Received::WouldBlock,
                Err(_) => Received::Failed,
            };
        }
    }
}

#[cfg(target_os = "linux")]
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Without the flag a peer that has gone raises SIGPIPE, which Rust's runtime ignores from the start.
#[cfg(not(target_os = "linux"))]
const FLAGS: SendFlags = SendFlags::DONTWAIT;

fn outcome(attempt: impl Fn() -> rustix::io::Result<usize>) -> Outcome {
    loop {
        return match attempt() {
            Ok(taken) => Outcome::Taken(taken),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Outcome::Taken(0),
            Err(_) => Outcome::Gone,
        };
    }
}

/// Sends one slice after the other, up to the first that is not taken as a whole.
fn send_slices(slices: &[IoSlice<'_>], mut send: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    let mut total = 0;
    for slice in slices {
        match send(slice) {
            Outcome::Taken(taken) => {
                total += taken;
                if taken < slice.len() {
                    break;
                }
            }
            Outcome::Gone => return Outcome::Gone,
        }
    }
    Outcome::Taken(total)
}

impl Sink for Sockets {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        if let Some((socket, tls)) = self.tls(lane) {
            return tls.send(socket.as_fd(), bytes);
        }
        let Some(socket) = self.get(lane) else { return Outcome::Gone };
        outcome(|| rustix::net::send(socket.as_fd(), bytes, FLAGS))
    }

    fn send_each(&mut self, offers: &[Offer<'_>], outcomes: &mut Vec<Outcome>) {
        if !self.tls.is_empty() {
            // Each is encrypted for itself: there is nothing to submit together.
            for offer in offers {
                outcomes.extend(offer.lanes.iter().map(|&lane| self.send(lane, offer.bytes)));
            }
            return;
        }
        let total: usize = offers.iter().map(|offer| offer.lanes.len()).sum();
        let sockets = &self.sockets;
        let socket = |lane: u32| sockets.get(lane as usize).and_then(Option::as_ref);
        let sends = offers.iter().flat_map(|offer| offer.lanes.iter().map(|&lane| (socket(lane), offer.bytes)));
        let Some(uring) = self.uring.as_mut().filter(|_| total >= URING_SENDS_MIN) else {
            outcomes.extend(sends.map(|(socket, bytes)| match socket {
                Some(socket) => outcome(|| rustix::net::send(socket.as_fd(), bytes, FLAGS)),
                None => Outcome::Gone,
            }));
            return;
        };
        let mut sends = sends.peekable();
        let mut batch = ArrayVec::<Send<'_>, { URING_SENDS_MAX as usize }>::new();
        while sends.peek().is_some() {
            batch.clear();
            let begun = outcomes.len();
            for (socket, bytes) in sends.by_ref().take(URING_SENDS_MAX as usize) {
                // A lane without a socket keeps its place; what the others come to is filled in below.
                outcomes.push(if socket.is_some() { Outcome::Taken(0) } else { Outcome::Gone });
                batch.extend(socket.map(|socket| Send { socket: socket.as_fd(), bytes }));
            }
            self.sent.clear();
            uring.send(&batch, &mut self.sent);
            let asked = outcomes[begun..].iter_mut().filter(|outcome| **outcome != Outcome::Gone);
            for (outcome, sent) in asked.zip(&self.sent) {
                *outcome = match *sent {
                    Sent::Taken(taken) => Outcome::Taken(taken),
                    Sent::Failed => Outcome::Gone,
                };
            }
        }
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        if let Some((socket, tls)) = self.tls(lane) {
            return send_slices(slices, |slice| tls.send(socket.as_fd(), slice));
        }
        let Some(socket) = self.get(lane) else { return Outcome::Gone };
        outcome(|| rustix::net::sendmsg(socket.as_fd(), slices, &mut SendAncillaryBuffer::default(), FLAGS))
    }
}
