//! The shard's sockets by lane, and the portable send path: one non-blocking write each.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use fanfare_fanout::{Outcome, Sink};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// Sockets by the index of their lane. Owned by the shard's loop.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    sockets: Vec<Option<OwnedFd>>,
}

/// What one read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    /// The peer has ended its side.
    End,
    WouldBlock,
    Failed,
}

impl Sockets {
    pub(super) fn insert(&mut self, lane: u32, socket: OwnedFd) {
        let lane = lane as usize;
        if lane >= self.sockets.len() {
            self.sockets.resize_with(lane + 1, || None);
        }
        self.sockets[lane] = Some(socket);
    }

    pub(super) fn get(&self, lane: u32) -> Option<&OwnedFd> {
        self.sockets.get(lane as usize)?.as_ref()
    }

    /// Ends our side, so that the peer sees an orderly end after the bytes that are under way, and closes the socket.
    pub(super) fn remove(&mut self, lane: u32, discard: &mut [u8]) {
        let Some(socket) = self.sockets.get_mut(lane as usize).and_then(Option::take) else { return };
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        // Closing with unread bytes resets the connection and may take the close frame with it.
        for _ in 0..4 {
            match rustix::net::recv(&socket, &mut *discard, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    pub(super) fn receive(&self, lane: u32, buffer: &mut [u8]) -> Received {
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

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

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

impl Sink for Sockets {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        let Some(socket) = self.get(lane) else { return Outcome::Gone };
        outcome(|| rustix::net::send(socket.as_fd(), bytes, FLAGS))
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let Some(socket) = self.get(lane) else { return Outcome::Gone };
        outcome(|| rustix::net::sendmsg(socket.as_fd(), slices, &mut SendAncillaryBuffer::default(), FLAGS))
    }
}
