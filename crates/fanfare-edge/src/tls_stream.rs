//! TLS for what hyper serves: the same state, on a socket of the runtime.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fanfare_fanout::Outcome;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Received, Tls};

/// A socket on which TLS is spoken. Its handshake may not be done yet.
#[derive(Debug)]
pub(crate) struct TlsStream {
    socket: TcpStream,
    tls: Box<Tls>,
    /// For reads that decrypt into a buffer that hyper has not cleared.
    plain: Box<[u8]>,
}

/// Bytes decrypted in one go.
const READ_BYTES: usize = 4_096;

impl TlsStream {
    pub(crate) fn new(socket: TcpStream, tls: Box<Tls>) -> Self {
        Self { socket, tls, plain: vec![0; READ_BYTES].into() }
    }

    pub(crate) fn into_parts(self) -> (TcpStream, Box<Tls>) {
        (self.socket, self.tls)
    }

    fn poll_flushed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, .. } = self;
        while tls.has_pending() {
            ready!(socket.poll_write_ready(context))?;
            let flushed = socket.try_io(Interest::WRITABLE, || {
                if tls.flush(socket.as_fd()) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match flushed {
                // One that has failed keeps what it was to take.
                Ok(()) if tls.has_pending() => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, tls, plain } = &mut *self;
        let wanted = buffer.remaining().min(plain.len());
        let plain = &mut plain[..wanted];
        loop {
            // Decrypted bytes may wait although the socket is silent: it is asked whether it says that it has something or not.
            match tls.receive(socket.as_fd(), plain) {
                Received::Bytes(read) => {
                    buffer.put_slice(&plain[..read]);
                    return Poll::Ready(Ok(()));
                }
                Received::End => return Poll::Ready(Ok(())),
                Received::Failed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Received::WouldBlock => {}
            }
            ready!(socket.poll_read_ready(context))?;
            // Forgets the readiness, if nothing has come meanwhile.
            let asked = socket.try_io(Interest::READABLE, || {
                let mut one = [0; 1];
                rustix::net::recv(
                    socket.as_fd(),
                    &mut one,
                    rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT,
                )
                .map_err(io::Error::from)
            });
            if let Err(error) = asked
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, tls, .. } = &mut *self;
        loop {
            ready!(socket.poll_write_ready(context))?;
            let written = socket.try_io(Interest::WRITABLE, || match tls.send(socket.as_fd(), bytes) {
                Outcome::Taken(0) if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
                Outcome::Taken(taken) => Ok(taken),
                Outcome::Gone => Err(io::ErrorKind::BrokenPipe.into()),
            });
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, .. } = &mut *self;
        tls.finish(socket.as_fd());
        ready!(self.poll_flushed(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
