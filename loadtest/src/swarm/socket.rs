//! A socket that is never waited for, plain or with TLS on it.

use std::io::{self, ErrorKind, Read, Write};

use fanfare_client::{TlsFailure, Trust, Url};
use mio::net::TcpStream;
use rustls::ClientConnection;

/// Encrypted bytes read from one socket at a time.
pub(super) const WIRE_BYTES: usize = 32 * 1_024;

/// What one read of so many may decrypt to, what was kept of a record included.
const PLAIN_BYTES_MAX: usize = 2 * WIRE_BYTES;

/// A socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// What a read gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Bytes; none: the peer has ended its side.
    pub(super) length: usize,
    /// That was all: what comes after it is a new event.
    pub(super) is_all: bool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, tls: Option<ClientConnection>) -> Self {
        Self { tcp, tls: tls.map(Box::new) }
    }

    /// Reads into `buffer`. Encrypted bytes are put into `wire` before.
    pub(super) fn read(&mut self, buffer: &mut [u8], wire: &mut [u8]) -> io::Result<Found> {
        let Some(tls) = &mut self.tls else {
            let length = self.tcp.read(buffer)?;
            return Ok(Found { length, is_all: length < buffer.len() });
        };
        let mut found = Found { length: 0, is_all: false };
        send_some(tls, &mut self.tcp)?;
        while !found.is_all && buffer.len() - found.length >= PLAIN_BYTES_MAX {
            let read = match self.tcp.read(wire) {
                // It is told again when there is nothing else to tell.
                Ok(0) => return Ok(found),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock && found.length > 0 => 0,
                Err(error) => return Err(error),
            };
            found.is_all = read < wire.len();
            let has_ended = decrypt(tls, &wire[..read], buffer, &mut found.length);
            // The peer is answered, and told what it did wrong.
            send_some(tls, &mut self.tcp)?;
            if has_ended? {
                // What is left of the socket says no more than this.
                return Ok(Found { is_all: false, ..found });
            }
        }
        if found.length == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(found) }
    }

    /// Takes bytes to be sent, as many as it says. TLS may keep some of them; see [`Socket::has_pending`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.write(bytes) };
        send(tls, &mut self.tcp)?;
        let taken = tls.writer().write(bytes)?;
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        send_some(tls, &mut self.tcp)?;
        Ok(taken)
    }

    /// Sends all that TLS has kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| send(tls, &mut self.tcp))
    }

    /// True while [`Socket::flush`] has something to do. Reading does some of it, too.
    pub(super) fn has_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// What is spoken, where that is TLS.
    pub(super) fn suite(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        Some(format!("{:?}, {:?}", tls.protocol_version()?, tls.negotiated_cipher_suite()?.suite()))
    }
}

/// Sends what waits, as much as the socket takes.
fn send_some(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    match send(tls, tcp) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(()),
        sent => sent,
    }
}

/// Sends all that waits.
fn send(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(tcp)?;
    }
    Ok(())
}

/// Puts what `wire` decrypts to behind the first `filled` bytes of `buffer`. True when the peer has said that nothing follows.
fn decrypt(tls: &mut ClientConnection, mut wire: &[u8], buffer: &mut [u8], filled: &mut usize) -> io::Result<bool> {
    while !wire.is_empty() {
        tls.read_tls(&mut wire)?;
        let state = tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let length = state.plaintext_bytes_to_read();
        tls.reader().read_exact(&mut buffer[*filled..*filled + length])?;
        *filled += length;
        if state.peer_has_closed() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The beginning of TLS with the host of an address, where that asks for it.
pub(super) fn tls(trust: Option<&Trust>, url: &Url) -> anyhow::Result<Option<ClientConnection>> {
    let Some(trust) = trust.filter(|_| url.is_tls()) else { return Ok(None) };
    match trust.session(url.host()) {
        Ok(session) => Ok(Some(session)),
        Err(failure) => anyhow::bail!("no TLS with {}: {failure}", url.authority()),
    }
}

/// What an error says of TLS, with what helps; `None` when it is about something else.
pub(super) fn tls_failure(error: &io::Error) -> Option<String> {
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let failure = TlsFailure::of(cause.clone());
    let advice = match failure {
        TlsFailure::UnknownAuthority => ": name the file of the authority that has with --ca",
        _ => "",
    };
    Some(format!("no TLS: {failure}{advice}"))
}
