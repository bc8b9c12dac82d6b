//! Opening sockets: from which address and port, and with which key.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use base64::Engine;
use sha1::{Digest, Sha1};
use socket2::{Domain, Socket, Type};

use crate::scenario::{Plan, Role, Stalled};

/// Connections from one loopback address, which has some 44,000 ports to give.
const CONNECTIONS_PER_SOURCE: usize = 25_000;

/// connection once some ten thousand are taken.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
    /// Threads take turns, so that they do not meet.
    step: u16,
}

impl Ports {
    const FIRST: u16 = 16_384;
    const LAST: u16 = 60_999;
    const COUNT: u16 = Self::LAST - Self::FIRST;

    pub(super) fn new(seed: u32, thread: usize, threads: usize) -> Self {
        let (thread, step) = (thread as u16, threads as u16);
        let begin = (seed % u32::from(Self::COUNT / 2)) as u16 / step * step;
        Self { next: Self::FIRST + begin + thread, step }
    }

    fn take(&mut self) -> u16 {
        let port = self.next;
        self.next += self.step;
        if self.next > Self::LAST {
            self.next = Self::FIRST + self.next % self.step;
        }
        port
    }
}

/// A socket on its way to the gateway.
pub(super) fn connect(gateway: SocketAddr, plan: &Plan, index: usize, ports: &mut Ports) -> anyhow::Result<Socket> {
    let bytes = match plan.stalled {
        Stalled::Sinks { bytes, .. } if plan.role_of(index) == Role::Stalls => Some(bytes),
        Stalled::Sinks { .. } | Stalled::Slow(_) => None,
    };
    if !plan.spread_sources {
        return connect_from(gateway, None, bytes);
    }
    let last = u8::try_from(index / CONNECTIONS_PER_SOURCE + 1).context("more connections than loopback has room")?;
    for _ in 0..Ports::COUNT {
        let source = SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), ports.take()));
        let taken = |error: &anyhow::Error| {
            let kind = error.downcast_ref().map(io::Error::kind);
            matches!(kind, Some(ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable))
        };
        match connect_from(gateway, Some(source), bytes) {
            Err(error) if taken(&error) => {}
            done => return done,
        }
    }
    anyhow::bail!("no port is free on this machine")
}

/// With `bytes`, the socket must take so many before anything is read from it.
fn connect_from(gateway: SocketAddr, source: Option<SocketAddr>, bytes: Option<usize>) -> anyhow::Result<Socket> {
    let domain = Domain::for_address(gateway);
    #[cfg(target_os = "linux")]
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None).context("no socket")?;
    #[cfg(not(target_os = "linux"))]
    let socket = Socket::new(domain, Type::STREAM, None).context("no socket")?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    if let Some(bytes) = bytes {
        // Before it connects: the window that it offers depends on it.
        socket.set_recv_buffer_size(bytes)?;
        ensure!(
            socket.recv_buffer_size()? >= bytes,
            "a socket here takes less than {bytes} bytes: lower --publications, or sysctl -w net.core.rmem_max={bytes}"
        );
    }
    if let Some(source) = source {
        // What lingers of earlier connections does not count.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&gateway.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) || error.kind() == ErrorKind::WouldBlock => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

const EINPROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// The key of the upgrade and the answer that it calls for (RFC 6455 section 4.2.2).
pub(super) fn key_and_answer(seed: u32) -> (String, String) {
    let mut key = [0_u8; 16];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = (seed.rotate_left(index as u32 * 5) as u8) ^ (index as u8).wrapping_mul(37);
    }
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let answer = Sha1::new().chain_update(&key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let answer = base64::engine::general_purpose::STANDARD.encode(answer);
    (key, answer)
}
