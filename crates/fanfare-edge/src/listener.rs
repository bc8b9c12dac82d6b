//! Where the gateway listens.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::Address;

/// Connections the kernel may hold for us before we accept them.
const BACKLOG: i32 = 4_096;

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
}

/// Bytes the kernel takes for a peer beyond what is on its way to it. What a slow reader does not take is then queued by us, where it
/// is counted and bounded, and large messages to others cost less (measured: 5.1 against 6.8 µs a delivery at 16 KiB).
#[cfg(any(target_os = "linux", target_os = "macos"))]
const UNSENT_BYTES_MAX: u32 = 32 * 1024;

/// Sockets take the bound over from their listener.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn bound_unsent(listener: &Socket) -> io::Result<()> {
    listener.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
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
    pub(crate) fn into_tokio(self) -> io::Result<Acceptor> {
        self.0.into_tokio()
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
}

/// Pause after an error of `accept` (no descriptors left): long enough not to spin, short enough not to be noticed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

impl Acceptor {
    /// Waits for a socket. Errors are counted by `on_error` and survived. Cancel safe.
    pub(crate) async fn accept(&self, on_error: impl Fn(&io::Error)) -> (Stream, Option<IpAddr>) {
        loop {
            let accepted = match &self.inner {
                AcceptorInner::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // Frames are small and answered at once; waiting to fill a packet would delay them.
                    let _ = stream.set_nodelay(true);
                    (Stream::Tcp(stream), Some(address.ip()))
                }),
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
