//! Where the gateway listens.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::Address;
use crate::tls::Bare;
use crate::tls_stream::TlsStream;

/// Connections the kernel may hold for us before we accept them.
pub(crate) const BACKLOG: i32 = 4_096;

/// A socket file that is removed when the listener goes.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Debug)]
enum Inner {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Whether other sockets may listen on a listener's port. Only the first of a node's shards is asked to claim the port for itself
/// and then to share it: were all to share from the start, a second node on the same port would get half of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    ToShare,
    Shared,
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Bound {
    inner: Inner,
    address: Address,
    file: Option<SocketFile>,
}

/// The client listener, once per shard.
#[derive(Debug)]
pub struct Listeners {
    address: Address,
    shards: Vec<ShardListener>,
}

/// One shard's listener.
#[derive(Debug)]
pub(crate) struct ShardListener(Bound);

impl Bound {
    /// Binds one listener.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: &Address) -> io::Result<Self> {
        Self::bind_with(address, Port::Own)
    }

    fn bind_with(address: &Address, port: Port) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(port == Port::Shared)?;
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into())?;
                if port == Port::ToShare {
                    socket.set_reuse_port(true)?;
                }
                bound_unsent(&socket)?;
                // Frames are small and answered at once; waiting to fill a packet would delay them. Sockets take it over from their listener.
                socket.set_tcp_nodelay(true)?;
                socket.listen(BACKLOG)?;
                let listener: std::net::TcpListener = socket.into();
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self { inner: Inner::Tcp(listener), address, file: None })
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                let file = Some(SocketFile(path.clone()));
                Ok(Self { inner: Inner::Unix(listener), address: address.clone(), file })
            }
        }
    }

    /// The address, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn duplicate(&self) -> io::Result<Self> {
        let inner = match &self.inner {
            Inner::Tcp(listener) => Inner::Tcp(listener.try_clone()?),
            Inner::Unix(listener) => Inner::Unix(listener.try_clone()?),
        };
        Ok(Self { inner, address: self.address.clone(), file: None })
    }

    pub(crate) fn into_tokio(self) -> io::Result<Acceptor> {
        let inner = match self.inner {
            Inner::Tcp(listener) => AcceptorInner::Tcp(TcpListener::from_std(listener)?),
            Inner::Unix(listener) => AcceptorInner::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Acceptor { inner, _file: self.file })
    }

    fn into_polled(self, registry: &Registry, token: Token) -> io::Result<PolledListener> {
        let mut inner = match self.inner {
            Inner::Tcp(listener) => PolledInner::Tcp(mio::net::TcpListener::from_std(listener)),
            Inner::Unix(listener) => PolledInner::Unix(mio::net::UnixListener::from_std(listener)),
        };
        registry.register(inner.source(), token, Interest::READABLE)?;
        Ok(PolledListener { inner, _file: self.file })
    }
}

/// Bytes the kernel takes for a peer beyond what is on its way to it. What a slow reader does not take is then queued by us, where it
/// is counted and bounded, and large messages to others cost less (measured: 5.1 against 6.8 µs a delivery at 16 KiB).
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 32 * 1024;

/// Sockets take the bound over from their listener.
#[cfg(target_os = "linux")]
fn bound_unsent(listener: &Socket) -> io::Result<()> {
    listener.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

#[cfg(not(target_os = "linux"))]
fn bound_unsent(_listener: &Socket) -> io::Result<()> {
    Ok(())
}

/// Removes a socket file nobody listens on; a crashed process leaves one behind. Connecting to any other file is refused as
/// well, so what it is must be looked at first.
fn remove_stale(path: &PathBuf) -> io::Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket has this path"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

impl Listeners {
    /// Binds the address once per shard. Over TCP each shard has a socket of its own on the same port and the kernel spreads
    /// connections over them; elsewhere all shards accept from one.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: &Address, shards: usize) -> io::Result<Self> {
        let spreads = cfg!(target_os = "linux") && shards > 1 && matches!(address, Address::Tcp(_));
        let first = Bound::bind_with(address, if spreads { Port::ToShare } else { Port::Own })?;
        let address = first.address.clone();
        let mut all = vec![ShardListener(first)];
        while all.len() < shards {
            let next = if spreads { Bound::bind_with(&address, Port::Shared)? } else { all[0].0.duplicate()? };
            all.push(ShardListener(next));
        }
        Ok(Self { address, shards: all })
    }

    /// The address, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn into_shards(self) -> Vec<ShardListener> {
        self.shards
    }
}

impl ShardListener {
    /// Puts it into a shard's poll set.
    pub(crate) fn into_polled(self, registry: &Registry, token: Token) -> io::Result<PolledListener> {
        self.0.into_polled(registry, token)
    }
}

/// A listener in a shard's poll set.
#[derive(Debug)]
pub(crate) struct PolledListener {
    inner: PolledInner,
    _file: Option<SocketFile>,
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

/// What a listener's sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
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
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Option<IpAddr>)> {
        match &self.inner {
            PolledInner::Tcp(listener) => listener.accept().map(|(socket, from)| (socket.into(), Some(from.ip()))),
            PolledInner::Unix(listener) => listener.accept().map(|(socket, _)| (socket.into(), None)),
        }
    }

    /// Closes it. Other shards may hold the same socket, which keeps it in the poll set: it is taken out first.
    pub(crate) fn close(mut self, registry: &Registry) {
        // If it is not there any more, that is what is wanted.
        let _ = registry.deregister(self.inner.source());
    }
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

/// A listener in its runtime.
#[derive(Debug)]
pub(crate) struct Acceptor {
    inner: AcceptorInner,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum AcceptorInner {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TlsStream),
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

/// Takes a socket out of its runtime.
pub(crate) fn bare_tcp(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.into_std().map(OwnedFd::from)
}

/// Takes a socket out of its runtime.
pub(crate) fn bare_unix(stream: UnixStream) -> io::Result<OwnedFd> {
    stream.into_std().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_take_over_what_their_listener_was_told() {
        let listeners = Listeners::bind(&"127.0.0.1:0".parse().expect("an address"), 1).expect("a listener");
        let Address::Tcp(address) = listeners.address().clone() else { panic!("it is TCP") };
        let poll = mio::Poll::new().expect("a poll set");
        let listener = listeners.into_shards().remove(0).into_polled(poll.registry(), Token(0)).expect("a poll set");
        assert_eq!(listener.accept().expect_err("nobody has come").kind(), io::ErrorKind::WouldBlock);
        let client = std::net::TcpStream::connect(address).expect("a listener");
        let (socket, from) = listener.accept().expect("a socket");
        assert_eq!(from, client.local_addr().ok().map(|address| address.ip()));
        let socket = Socket::from(socket);
        assert!(socket.tcp_nodelay().expect("an option"), "its frames would wait for each other");
        assert!(socket.nonblocking().expect("a flag"), "it could block its shard");
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT_BYTES_MAX);
    }
}
