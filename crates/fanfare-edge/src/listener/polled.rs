//! Listeners in the poll sets of shards.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use mio::{Interest, Registry, Token};

use super::spare::SocketFile;
use super::{Inner, ShardListener, Transport};

/// A listener in a shard's poll set.
#[derive(Debug)]
pub(crate) struct PolledListener {
    inner: PolledInner,
    _file: Option<SocketFile>,
}

impl PolledListener {
    pub(crate) fn transport(&self) -> Transport {
        match &self.inner {
            PolledInner::Tcp(_) => Transport::Tcp,
            PolledInner::Unix(_) => Transport::Unix,
        }
    }

    /// A socket that waits, made non-blocking, and where it comes from.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; what the system says.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        match &self.inner {
            PolledInner::Tcp(listener) => listener.accept().map(|(socket, from)| (socket.into(), Peer::Tcp(from))),
            PolledInner::Unix(listener) => listener.accept().map(|(socket, _)| (socket.into(), Peer::Unix)),
        }
    }

    /// Closes it. Other shards may hold the same socket, which keeps it in the poll set: it is taken out first.
    pub(crate) fn close(mut self, registry: &Registry) {
        // If it is not there any more, that is what is wanted.
        let _ = registry.deregister(self.inner.source());
    }
}

#[derive(Debug)]
enum PolledInner {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl PolledInner {
    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener,
        }
    }
}

/// The far end of a socket that was accepted.
#[derive(Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl Peer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl ShardListener {
    /// Puts it into a shard's poll set.
    pub(crate) fn into_polled(self, registry: &Registry, token: Token) -> io::Result<PolledListener> {
        let Self(bound) = self;
        let mut inner = match bound.inner {
            Inner::Tcp(listener) => PolledInner::Tcp(mio::net::TcpListener::from_std(listener)),
            Inner::Unix(listener) => PolledInner::Unix(mio::net::UnixListener::from_std(listener)),
        };
        registry.register(inner.source(), token, Interest::READABLE)?;
        Ok(PolledListener { inner, _file: bound.file })
    }
}
