//! Where the gateway listens.

mod acceptor;
mod polled;
mod spare;

pub(crate) use acceptor::{ACCEPT_RETRY, Stream, Transport, bare_tcp, bare_unix};
pub(crate) use polled::{Peer, PolledListener};
pub use spare::Spare;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::spare::SocketFile;
use crate::Address;

/// Who may connect to a Unix socket: the permissions of its file, as `chmod` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

/// Connections the kernel may hold for us before we accept them.
pub(crate) const BACKLOG: i32 = 4_096;

#[derive(Debug)]
enum Inner {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Inner {
    /// What tells sockets apart, whatever their descriptors.
    #[cfg(target_os = "linux")]
    fn cookie(&self) -> Option<u64> {
        match self {
            Self::Tcp(listener) => rustix::net::sockopt::socket_cookie(listener).ok(),
            Self::Unix(listener) => rustix::net::sockopt::socket_cookie(listener).ok(),
        }
    }

    /// Elsewhere sockets of one address are one.
    #[cfg(not(target_os = "linux"))]
    fn cookie(&self) -> Option<u64> {
        None
    }
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

/// One of the sockets behind [`Listeners`], and who accepts from it.
#[derive(Debug)]
pub(crate) struct SharedListener {
    pub(crate) address: Address,
    pub(crate) shards: Vec<usize>,
}

/// One shard's listener.
#[derive(Debug)]
pub(crate) struct ShardListener(Bound);

impl Bound {
    /// Binds one listener. `mode` is of a Unix socket's file; without it the process's mask decides.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: &Address, mode: Option<FileMode>) -> io::Result<Self> {
        Self::bind_with(address, mode, Port::Own)
    }

    fn bind_with(address: &Address, mode: Option<FileMode>, port: Port) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = bound(*address, port)?;
                listen(&socket, port)?;
                let listener: std::net::TcpListener = socket.into();
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self { inner: Inner::Tcp(listener), address, file: None })
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let file = Some(SocketFile::at(path.clone()));
                if let Some(FileMode(mode)) = mode {
                    // Before it listens: nobody connects while others' rights hold.
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
                }
                socket.listen(BACKLOG)?;
                Ok(Self { inner: Inner::Unix(socket.into()), address: address.clone(), file })
            }
        }
    }

    /// Takes over a listener that somebody else opened. What its sockets take over from it is set here as for one's own.
    ///
    /// # Errors
    /// When it is no listener of streams over TCP or a Unix socket's path; what the system says.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let unfit = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        if !socket.is_listener()? {
            return Err(unfit("the socket does not listen"));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if let Some(address) = address.as_socket() {
            bound_unsent(&socket)?;
            socket.set_tcp_nodelay(true)?;
            return Ok(Self { inner: Inner::Tcp(socket.into()), address: Address::Tcp(address), file: None });
        }
        let Some(path) = address.as_pathname() else { return Err(unfit("the socket has no path")) };
        let address = Address::Unix(path.to_owned());
        // Its file is of whoever made it.
        Ok(Self { inner: Inner::Unix(socket.into()), address, file: None })
    }

    /// The address, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A second descriptor of this listener.
    ///
    /// # Errors
    /// What the system says.
    pub fn spare(&self) -> io::Result<Spare> {
        let socket = match self.duplicate()?.inner {
            Inner::Tcp(listener) => listener.into(),
            Inner::Unix(listener) => listener.into(),
        };
        let files = self.file.iter().map(|file| file.is_given_away.clone()).collect();
        Ok(Spare { sockets: vec![socket], files })
    }

    /// The listener of a Unix socket, whose file is the caller's to remove.
    #[must_use]
    pub fn into_unix(self) -> Option<std::os::unix::net::UnixListener> {
        let Inner::Unix(listener) = self.inner else { return None };
        if let Some(file) = self.file {
            file.give_away();
        }
        Some(listener)
    }

    fn duplicate(&self) -> io::Result<Self> {
        let inner = match &self.inner {
            Inner::Tcp(listener) => Inner::Tcp(listener.try_clone()?),
            Inner::Unix(listener) => Inner::Unix(listener.try_clone()?),
        };
        Ok(Self { inner, address: self.address.clone(), file: None })
    }
}

/// A TCP socket that has its address and does not listen yet.
fn bound(address: SocketAddr, port: Port) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    bound_unsent(&socket)?;
    // Frames are small and answered at once; waiting to fill a packet would delay them. Sockets take it over from their listener.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Claims the port. Another process may have bound it, too, until one of the two listens: so it is shared only after that.
fn listen(socket: &Socket, port: Port) -> io::Result<()> {
    socket.listen(BACKLOG)?;
    if port == Port::ToShare {
        socket.set_reuse_port(true)?;
    }
    Ok(())
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
    pub fn bind(address: &Address, mode: Option<FileMode>, shards: usize) -> io::Result<Self> {
        let spreads = cfg!(target_os = "linux") && shards > 1 && matches!(address, Address::Tcp(_));
        let first = Bound::bind_with(address, mode, if spreads { Port::ToShare } else { Port::Own })?;
        let address = first.address.clone();
        let mut all = vec![ShardListener(first)];
        while all.len() < shards {
            let next = if spreads { Bound::bind_with(&address, mode, Port::Shared)? } else { all[0].0.duplicate()? };
            all.push(ShardListener(next));
        }
        Ok(Self { address, shards: all })
    }

    /// Takes over listeners that somebody else opened. Where there are more shards than listeners, some shards accept from the same one.
    ///
    /// # Errors
    /// When there are more listeners than shards: nobody would accept from the others. What is wrong with one of them.
    pub fn inherited(sockets: Vec<OwnedFd>, shards: usize) -> io::Result<Self> {
        if sockets.len() > shards {
            let text =
                format!("{} listeners were passed, but there are {shards} shards to accept from them", sockets.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut all = sockets.into_iter().map(Bound::inherited).collect::<io::Result<Vec<_>>>()?;
        let Some(first) = all.first() else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        let (address, given) = (first.address.clone(), all.len());
        while all.len() < shards {
            all.push(all[all.len() % given].duplicate()?);
        }
        Ok(Self { address, shards: all.into_iter().map(ShardListener).collect() })
    }

    /// The address, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A second descriptor of each of them.
    ///
    /// # Errors
    /// What the system says.
    pub fn spare(&self) -> io::Result<Spare> {
        let (mut sockets, mut files) = (Vec::new(), Vec::new());
        for ShardListener(bound) in &self.shards {
            let spare = bound.spare()?;
            sockets.extend(spare.sockets);
            files.extend(spare.files);
        }
        Ok(Spare { sockets, files })
    }

    /// Which shards accept from which socket. Some of the descriptors may be of one socket, also of those that were inherited.
    pub(crate) fn shared(&self) -> Vec<SharedListener> {
        let mut all: Vec<(Option<u64>, SharedListener)> = Vec::new();
        for (shard, ShardListener(bound)) in self.shards.iter().enumerate() {
            let cookie = bound.inner.cookie();
            match all.iter_mut().find(|(known, shared)| *known == cookie && shared.address == bound.address) {
                Some((_, shared)) => shared.shards.push(shard),
                None => all.push((cookie, SharedListener { address: bound.address.clone(), shards: vec![shard] })),
            }
        }
        all.into_iter().map(|(_, shared)| shared).collect()
    }

    pub(crate) fn into_shards(self) -> Vec<ShardListener> {
        self.shards
    }
}

#[cfg(test)]
mod tests {
    use mio::Token;

    use super::*;

    #[test]
    fn sockets_take_over_what_their_listener_was_told() {
        let listeners = Listeners::bind(&"127.0.0.1:0".parse().expect("an address"), None, 1).expect("a listener");
        let Address::Tcp(address) = listeners.address().clone() else { panic!("it is TCP") };
        let poll = mio::Poll::new().expect("a poll set");
        let listener = listeners.into_shards().remove(0).into_polled(poll.registry(), Token(0)).expect("a poll set");
        assert_eq!(listener.accept().expect_err("nobody has come").kind(), io::ErrorKind::WouldBlock);
        let client = std::net::TcpStream::connect(address).expect("a listener");
        let (socket, from) = listener.accept().expect("a socket");
        assert_eq!(from.ip(), client.local_addr().ok().map(|address| address.ip()));
        let socket = Socket::from(socket);
        assert!(socket.tcp_nodelay().expect("an option"), "its frames would wait for each other");
        assert!(socket.nonblocking().expect("a flag"), "it could block its shard");
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT_BYTES_MAX);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn of_two_nodes_that_bind_a_port_at_the_same_moment_one_gets_it() {
        let one = bound("127.0.0.1:0".parse().expect("an address"), Port::ToShare).expect("a port");
        let address = one.local_addr().expect("an address").as_socket().expect("it is TCP");
        let other = bound(address, Port::ToShare).expect("nobody listens yet");
        listen(&one, Port::ToShare).expect("it is the first");
        let error = listen(&other, Port::ToShare).expect_err("it would get half of the other's clients");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let shared = bound(address, Port::Shared).expect("another shard of the first");
        listen(&shared, Port::Shared).expect("another shard of the first");
    }
}
