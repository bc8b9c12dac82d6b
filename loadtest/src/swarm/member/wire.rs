//! Bytes in and out of one connection.

use std::io::{self, ErrorKind};

use mio::{Interest, Registry, Token};

use super::super::core::Core;
use super::super::nanoseconds;
use super::super::socket::{Found, Socket, tls_failure};
use super::{End, Member, Stage};
use crate::frame;

/// Longest head of an answer to the upgrade, bytes.
const HEAD_BYTES_MAX: usize = 16_384;

impl Member {
    /// Bytes that wait for the socket.
    pub(in super::super) fn queued_bytes(&self) -> usize {
        self.out.bytes.len() - self.sent
    }

    /// Something waits, be it TLS's own.
    pub(in super::super) fn has_to_write(&self) -> bool {
        self.queued_bytes() > 0 || self.socket.as_ref().is_some_and(Socket::has_pending)
    }

    /// Writes what it can.
    pub(in super::super) fn write(&mut self, registry: &Registry, place: usize) -> Result<(), End> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        loop {
            let wrote = match &self.out.bytes[self.sent..] {
                [] => socket.flush().map(|()| 0),
                bytes => socket.write(bytes),
            };
            match wrote {
                Ok(0) => break,
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // On loopback a connection is there as soon as it was asked for; elsewhere it may take its time.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    if !self.wants_write {
                        self.wants_write = true;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        let reregistered = registry.reregister(&mut socket.tcp, Token(place), both);
                        reregistered.map_err(|error| self.broken(&error))?;
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
            let reregistered = registry.reregister(&mut socket.tcp, Token(place), Interest::READABLE);
            reregistered.map_err(|error| self.broken(&error))?;
        }
        Ok(())
    }

    pub(super) fn broken(&self, error: &io::Error) -> End {
        match self.stage {
            Stage::Upgrading | Stage::Away => {
                if let Some(failure) = tls_failure(error) {
                    return End::Failed(anyhow::anyhow!(failure));
                }
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
    pub(in super::super) fn read(&mut self, core: &mut Core, buffer: &mut [u8]) -> Result<(), End> {
        if self.stalled {
            return Ok(());
        }
        loop {
            let Some(socket) = &mut self.socket else { return Ok(()) };
            match socket.read(buffer, &mut core.wire) {
                Ok(Found { length: 0, .. }) if self.stage == Stage::Upgrading => {
                    return Err(End::Failed(anyhow::anyhow!("the gateway closed the connection during the upgrade")));
                }
                Ok(Found { length: 0, .. }) => {
                    return Err(End::Closed(1006, "the gateway closed the connection without a close frame".into()));
                }
                Ok(Found { length, is_all }) => {
                    core.now_ns = nanoseconds(core.shared.origin.elapsed());
                    self.feed(core, &buffer[..length])?;
                    if is_all {
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
}
