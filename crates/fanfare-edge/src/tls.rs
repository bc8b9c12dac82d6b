//! TLS, ended where the frames are made: a connection's state stands beside its socket, in the shard's loop. What is sent is encrypted on its way into
//! the kernel, what is received is decrypted on its way out, and nothing between knows of it. Plain connections pay nothing.

use std::fmt;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use fanfare_fanout::Outcome;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::{ServerConfig, ServerConnection};

/// Encrypted bytes that may wait for a socket, bytes: two records. Further frames wait in the outbox, where they are counted.
const PENDING_BYTES_MAX: usize = 32 * 1024;

/// First byte of a client that speaks TLS: a record with a handshake (RFC 8446 section 5.1).
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

/// Certificates with their keys, and what is agreed to.
#[derive(Clone)]
pub struct TlsTerms {
    /// How handshakes are answered.
    pub config: Arc<ServerConfig>,
    /// When the first of the certificates expires, seconds since 1970.
    pub not_after: i64,
    /// Which one that is, for people.
    pub expires_first: String,
    /// Looks for other pairs where these came from: nothing when there are none since they were looked for last, or why what is there cannot
    /// be used.
    pub renew: Renewal,
}

/// See [`TlsTerms::renew`].
pub type Renewal = Arc<dyn Fn() -> Result<Option<TlsTerms>, String> + Send + Sync>;

impl fmt::Debug for TlsTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTerms").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A socket, and TLS where it is spoken on it.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) socket: OwnedFd,
    pub(crate) tls: Option<Box<Tls>>,
}

/// What one read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(usize),
    /// The peer has ended its side.
    End,
    WouldBlock,
    Failed,
}

/// TLS on one socket.
#[derive(Debug)]
pub(crate) struct Tls {
    session: ServerConnection,
}

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(config)?;
        session.set_buffer_limit(Some(PENDING_BYTES_MAX));
        Ok(Self { session })
    }

    /// Takes in what was read of the socket before. `false` when it is no TLS; the peer has been told then.
    pub(crate) fn feed(&mut self, socket: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let has_read = self.session.read_tls(&mut bytes).is_ok_and(|read| read > 0);
            if !has_read || !self.take_in(socket) {
                return false;
            }
        }
        true
    }

    /// True until the handshake is done.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Reads and decrypts until the buffer is full or the socket empty.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Received {
        let mut filled = 0;
        let end = loop {
            match self.session.reader().read(&mut buffer[filled..]) {
                // The peer has said that nothing follows.
                Ok(0) => break Received::End,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.read_record(socket) {
                    Received::Bytes(_) => {}
                    end => break end,
                },
                Err(_) => break Received::Failed,
            }
            if filled == buffer.len() {
                return Received::Bytes(filled);
            }
        };
        // What came before the end comes first; the end is seen again.
        if filled > 0 { Received::Bytes(filled) } else { end }
    }

    fn read_record(&mut self, socket: BorrowedFd<'_>) -> Received {
        match self.session.read_tls(&mut Wire(socket)) {
            Ok(0) => Received::End,
            Ok(read) if self.take_in(socket) => Received::Bytes(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::WouldBlock,
            Ok(_) | Err(_) => Received::Failed,
        }
    }

    /// Works on what has been read; answers what is to be answered. `false` when the peer broke the protocol: it is told which way.
    fn take_in(&mut self, socket: BorrowedFd<'_>) -> bool {
        let is_well = self.session.process_new_packets().is_ok();
        self.flush(socket);
        is_well
    }

    /// Encrypts and sends, as much as the socket takes and a little more, which waits here.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Outcome {
        let mut taken = 0;
        // What waits is sent first: while the socket is blocked nothing is added.
        while self.flush(socket) && taken < bytes.len() {
            match self.session.writer().write(&bytes[taken..]) {
                Ok(written) if written > 0 => taken += written,
                Ok(_) => break,
                Err(_) => return Outcome::Gone,
            }
        }
        Outcome::Taken(taken)
    }

    /// Sends what waits. `false` when the socket does not take all of it. One that has failed takes everything: reading it tells.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> bool {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
        true
    }

    /// True while encrypted bytes wait.
    pub(crate) fn has_pending(&self) -> bool {
        self.session.wants_write()
    }

    /// Says that nothing follows: an end that nobody between could have made.
    pub(crate) fn finish(&mut self, socket: BorrowedFd<'_>) {
        self.session.send_close_notify();
        self.flush(socket);
    }
}

/// A socket that is never waited for.
struct Wire<'a>(BorrowedFd<'a>);

#[cfg(target_os = "linux")]
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(not(target_os = "linux"))]
const FLAGS: SendFlags = SendFlags::DONTWAIT;

fn retried(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

impl io::Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retried(|| rustix::net::recv(self.0, &mut *buffer, RecvFlags::DONTWAIT).map(|(read, _)| read))
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retried(|| rustix::net::send(self.0, bytes, FLAGS))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retried(|| rustix::net::sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), FLAGS))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
