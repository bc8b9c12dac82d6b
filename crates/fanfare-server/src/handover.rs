//! Handing the listeners over to the process that takes this one's place.
//!
//! A listener that is closed takes those who wait in its queue with it, and one that is opened beside it shares the port but not the queue. So nothing is
//! closed and nothing opened: the successor gets the descriptors themselves over a Unix socket, begins to accept from them, says so, and only then this process
//! stops and leaves service. Whatever fails before that leaves everything as it is.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fanfare_edge::{Address, Bound, FileMode, Spare};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt,
};
use tracing::{info, warn};

use crate::inherited::Inherited;

/// First bytes of the old process, with the version of what is said. How many listeners for clients come with them is the byte after.
const GREETING: &[u8; 20] = b"fanfare listeners 1\n";
/// What the successor says once it accepts, and what it is told when the old process has stopped.
const ACCEPTING: &[u8; 10] = b"accepting\n";
const LEAVING: &[u8; 8] = b"leaving\n";

/// Descriptors in one message: what the kernel takes (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(30);

/// The old process, as its successor sees it.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Takes the listeners of the process that has this path; `None` when there is none.
    ///
    /// # Errors
    /// When there is one and it does not hand them over.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Option<(Self, Inherited)>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot ask {} for its listeners", path.display()));
            }
        };
        let inherited = receive(&stream).with_context(|| format!("{} hands no listeners over", path.display()))?;
        Ok(Some((Self { stream }, inherited)))
    }

    /// Says that this process accepts, and waits until the old one does not any more.
    ///
    /// # Errors
    /// When it does not say so: it may go on serving, beside this process.
    pub(crate) fn relieve(mut self) -> io::Result<()> {
        self.stream.write_all(ACCEPTING)?;
        expect(&mut self.stream, LEAVING)
    }
}

fn receive(stream: &UnixStream) -> anyhow::Result<Inherited> {
    prepare(stream)?;
    let mut words = [0; GREETING.len() + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut words)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    let [greeting @ .., clients] = words;
    let is_whole = received.bytes == words.len() && greeting == *GREETING && sockets.len() == usize::from(clients) + 1;
    anyhow::ensure!(is_whole && clients > 0, "it is not a node of this version");
    Ok(Inherited { admin: sockets.pop(), clients: sockets })
}

/// This process, as its successor finds it.
#[derive(Debug)]
pub(crate) struct Handover {
    listener: UnixListener,
    path: PathBuf,
    clients: Spare,
    admin: Spare,
}

impl Handover {
    /// Waits at this path for a successor.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn bind(path: &Path, clients: Spare, admin: Spare) -> anyhow::Result<Self> {
        anyhow::ensure!(
            clients.sockets().len() + admin.sockets().len() <= DESCRIPTORS_MAX,
            "more than {DESCRIPTORS_MAX} listeners cannot be handed over: use fewer shards"
        );
        // Of this user alone: whoever connects gets the listeners.
        let bound = Bound::bind(&Address::Unix(path.to_owned()), Some(FileMode(0o600)))?;
        let listener = bound.into_unix().context("it is no Unix socket")?;
        Ok(Self { listener, path: path.to_owned(), clients, admin })
    }

    /// Waits until another process accepts from this one's listeners.
    pub(crate) async fn taken(&self) -> Taken {
        // A second descriptor: this future may be dropped and made anew.
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, "no successor can take the listeners over");
                return std::future::pending().await;
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            match self.hand(stream).await {
                Ok(taken) => return taken,
                Err(error) => warn!("the listeners were not handed over, and are served on: {error:#}"),
            }
        }
    }

    async fn hand(&self, stream: tokio::net::UnixStream) -> anyhow::Result<Taken> {
        let duplicate = |sockets: &[OwnedFd]| sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        let (clients, admin) = (duplicate(self.clients.sockets())?, duplicate(self.admin.sockets())?);
        let mut stream = stream.into_std()?;
        // Elsewhere: it waits, and this thread has signals to see to.
        let handed = tokio::task::spawn_blocking(move || -> anyhow::Result<UnixStream> {
            stream.set_nonblocking(false)?;
            prepare(&stream)?;
            let count = u8::try_from(clients.len())?;
            let descriptors: Vec<BorrowedFd<'_>> = clients.iter().chain(&admin).map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            anyhow::ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "too many listeners");
            let words = [IoSlice::new(GREETING), IoSlice::new(std::slice::from_ref(&count))];
            sendmsg(&stream, &words, &mut control, SendFlags::NOSIGNAL)?;
            expect(&mut stream, ACCEPTING).context("the successor did not begin to accept")?;
            Ok(stream)
        });
        Ok(Taken { stream: handed.await?? })
    }

    /// The path, and the files of Unix sockets, are the successor's from here on.
    pub(crate) fn end(self) {
        self.clients.give_away();
        self.admin.give_away();
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A successor that accepts and has not been told yet that this process does not.
#[derive(Debug)]
pub(crate) struct Taken {
    stream: UnixStream,
}

impl Taken {
    /// Tells it.
    pub(crate) fn confirm(mut self) {
        match self.stream.write_all(LEAVING) {
            Ok(()) => info!("another process has taken the listeners over"),
            Err(error) => warn!(%error, "the successor is gone"),
        }
    }
}

/// Bounds the waits, and looks who is there: listeners are for this user's processes only.
fn prepare(stream: &UnixStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer = sockopt::socket_peercred(stream)?;
    let own = rustix::process::geteuid();
    anyhow::ensure!(peer.uid == own || peer.uid.is_root(), "the other process is of another user");
    Ok(())
}

fn expect<const N: usize>(stream: &mut UnixStream, words: &[u8; N]) -> io::Result<()> {
    let mut said = [0; N];
    stream.read_exact(&mut said)?;
    if said == *words { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it says something else")) }
}
