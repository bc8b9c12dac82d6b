//! Listeners in the runtime, and sockets on their way into it and out of it.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::spare::SocketFile;
use super::{Bound, Inner};
use crate::tls::Bare;
use crate::tls_stream::TlsStream;

/// A listener in its runtime.
#[derive(Debug)]
pub(crate) struct Acceptor {
    inner: AcceptorInner,
    _file: Option<SocketFile>,
}

/// Pause after an error of `accept` (no descriptors left): long enough not to spin, short enough not to be noticed.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(50);

impl Acceptor {
    /// Waits for a socket. Errors are counted by `on_error` and survived. Cancel safe.
    pub(crate) async fn accept(&self, on_error: impl Fn(&io::Error)) -> (Stream, Option<IpAddr>) {
        loop {
            let accepted = match &self.inner {
                AcceptorInner::Tcp(listener) => {
                    listener.accept().await.map(|(stream, address)| (Stream::Tcp(stream), Some(address.ip())))
                }
                AcceptorInner::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), None))
                }
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => {
                    on_error(&error);
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

#[derive(Debug)]
enum AcceptorInner {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    pub(crate) fn into_tokio(self) -> io::Result<Acceptor> {
        let inner = match self.inner {
            Inner::Tcp(listener) => AcceptorInner::Tcp(TcpListener::from_std(listener)?),
            Inner::Unix(listener) => AcceptorInner::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Acceptor { inner, _file: self.file })
    }
}

/// An accepted socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TlsStream),
}

/// What a listener's sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
}

impl Transport {
    /// Gives a socket to the runtime of whoever calls.
    ///
    /// # Errors
    /// What the runtime's poll set says.
    pub(crate) fn stream(self, Bare { socket, tls }: Bare) -> io::Result<Stream> {
        Ok(match (self, tls) {
            (Self::Tcp, Some(tls)) => Stream::Tls(TlsStream::new(TcpStream::from_std(socket.into())?, tls)),
            (Self::Tcp, None) => Stream::Tcp(TcpStream::from_std(socket.into())?),
            (Self::Unix, None) => Stream::Unix(UnixStream::from_std(socket.into())?),
            (Self::Unix, Some(_)) => return Err(io::Error::other("TLS is spoken over TCP only")),
        })
    }
}

/// Takes a socket out of its runtime.
pub(crate) fn bare_tcp(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.into_std().map(OwnedFd::from)
}

/// Takes a socket out of its runtime.
pub(crate) fn bare_unix(stream: UnixStream) -> io::Result<OwnedFd> {
    stream.into_std().map(OwnedFd::from)
}
