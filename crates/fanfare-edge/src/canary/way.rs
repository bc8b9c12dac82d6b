//! The ways in: the sockets that listen for clients as canaries see them, and who may be expected at them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::Address;
use crate::listener::{Peer, SharedListener};

/// One socket that listens, and who accepts from it.
#[derive(Debug)]
pub(crate) struct Way {
    /// What to connect to.
    pub(super) target: Address,
    /// Several shards may share a socket; whoever is free first accepts.
    pub(super) shards: Vec<usize>,
    /// Whether it is the only socket of its address. Among others the kernel chooses, by the client's port.
    pub(super) is_only: bool,
    /// When somebody was sent in of whom nothing has come back, milliseconds on the node's clock and one; 0: nobody is under way.
    asked: AtomicU64,
}

impl Way {
    pub(super) fn all(shared: Vec<SharedListener>) -> Box<[Self]> {
        let addresses: Vec<Address> = shared.iter().map(|shared| shared.address.clone()).collect();
        let is_only = |address: &Address| addresses.iter().filter(|&other| other == address).count() == 1;
        shared
            .into_iter()
            .map(|SharedListener { address, shards }| Self {
                is_only: is_only(&address),
                target: target(address),
                shards,
                asked: AtomicU64::new(0),
            })
            .collect()
    }

    /// Somebody is sent in. Who has been under way for longer counts.
    pub(super) fn ask(&self, now: Duration) {
        // Written by the thread of the canaries alone.
        if self.asked.load(Ordering::Relaxed) == 0 {
            self.asked.store(now.as_millis() as u64 + 1, Ordering::Release);
        }
    }

    pub(super) fn answered(&self) {
        self.asked.store(0, Ordering::Release);
    }

    /// How long nothing has come back.
    pub(super) fn waited(&self, now: Duration) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_millis(asked)))
    }
}

/// Where a socket of this machine finds the listener: one that listens on all addresses is found on the loopback.
fn target(address: Address) -> Address {
    let Address::Tcp(mut address) = address else { return address };
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() || !has_loopback_v6() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    Address::Tcp(address)
}

/// A machine may speak version 6 and have no loopback of it; a socket of both versions takes connections of version 4.
fn has_loopback_v6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// By what a canary is known when it is accepted: the address its socket was bound to before it connected. While it is open nobody else
/// can have that.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Tcp(SocketAddr),
    /// A name in the abstract namespace.
    #[cfg(target_os = "linux")]
    Unix(Box<[u8]>),
}

/// A canary that has been sent in, as its shard finds it.
#[derive(Debug)]
pub(crate) struct Visit {
    /// It begins with a TLS handshake.
    pub(crate) speaks_tls: bool,
    /// The shard that has accepted it, and one; 0: none has.
    landed: AtomicUsize,
}

impl Visit {
    /// It has come in at this shard.
    pub(crate) fn land(&self, shard: usize) {
        self.landed.store(shard + 1, Ordering::Release);
    }

    fn landed(&self) -> Option<usize> {
        self.landed.load(Ordering::Acquire).checked_sub(1)
    }
}

/// Canaries that are under way: at most one for each way in, and one that looks for a way.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    /// How many there are: most of the time none, and nobody looks further.
    count: AtomicUsize,
    expected: Mutex<Vec<(Origin, Arc<Visit>)>>,
}

/// One of them. It is not expected any more once this is dropped.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    visits: &'a Visits,
    visit: Arc<Visit>,
}

impl Visits {
    /// Somebody comes from this socket, which is bound and will connect.
    pub(super) fn expect_tcp(&self, from: SocketAddr, speaks_tls: bool) -> Expected<'_> {
        self.expect(Origin::Tcp(canonical(from)), speaks_tls)
    }

    /// The same.
    ///
    /// # Errors
    /// When the socket has no name by which it could be known.
    #[cfg(target_os = "linux")]
    pub(super) fn expect_unix(&self, from: &socket2::SockAddr) -> io::Result<Expected<'_>> {
        let name = from.as_abstract_namespace().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(self.expect(Origin::Unix(name.into()), false))
    }

    fn expect(&self, origin: Origin, speaks_tls: bool) -> Expected<'_> {
        let visit = Arc::new(Visit { speaks_tls, landed: AtomicUsize::new(0) });
        let mut expected = self.expected.lock();
        expected.push((origin, visit.clone()));
        self.count.store(expected.len(), Ordering::Release);
        Expected { visits: self, visit }
    }

    /// The canary that comes from there, if it is one.
    pub(crate) fn recognise(&self, socket: &OwnedFd, peer: &Peer) -> Option<Arc<Visit>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let origin = match peer {
            Peer::Tcp(address) => Origin::Tcp(canonical(*address)),
            #[cfg(target_os = "linux")]
            Peer::Unix => {
                let peer = rustix::net::getpeername(socket).ok()??;
                let peer = rustix::net::SocketAddrUnix::try_from(peer).ok()?;
                Origin::Unix(peer.abstract_name()?.into())
            }
            #[cfg(not(target_os = "linux"))]
            Peer::Unix => return None,
        };
        let expected = self.expected.lock();
        expected.iter().find(|(known, _)| *known == origin).map(|(_, visit)| visit.clone())
    }
}

impl Expected<'_> {
    /// The shard that has accepted it.
    pub(super) fn landed(&self) -> Option<usize> {
        self.visit.landed()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut expected = self.visits.expected.lock();
        expected.retain(|(_, visit)| !Arc::ptr_eq(visit, &self.visit));
        self.visits.count.store(expected.len(), Ordering::Release);
    }
}

/// An address of version 4 as it is, however a socket of both versions writes it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_known_by_its_address_while_it_is_under_way() {
        let visits = Visits::default();
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = socket.into();
        let address: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        let [same, mapped, port, host] =
            ["127.0.0.1:4711", "[::ffff:127.0.0.1]:4711", "127.0.0.1:4712", "127.0.0.2:4711"]
                .map(|address| Peer::Tcp(address.parse().unwrap()));
        assert!(visits.recognise(&socket, &same).is_none());
        let expected = visits.expect_tcp(address, true);
        let other = visits.expect_tcp("[::1]:4711".parse().unwrap(), false);
        assert!(visits.recognise(&socket, &port).is_none() && visits.recognise(&socket, &host).is_none());
        assert_eq!(expected.landed(), None);
        visits.recognise(&socket, &same).expect("it is expected").land(0);
        assert_eq!((expected.landed(), other.landed()), (Some(0), None));
        assert!(visits.recognise(&socket, &mapped).expect("the same one").speaks_tls);
        drop(expected);
        assert!(visits.recognise(&socket, &same).is_none() && visits.count.load(Ordering::Relaxed) == 1);
    }

    #[test]
    fn a_listener_on_all_addresses_is_found_on_the_loopback() {
        let find = |address: &str| target(address.parse().unwrap()).to_string();
        assert_eq!(find("0.0.0.0:80"), "127.0.0.1:80");
        assert!(["[::1]:80", "127.0.0.1:80"].contains(&find("[::]:80").as_str()));
        assert_eq!(find("192.0.2.7:80"), "192.0.2.7:80");
        assert_eq!(find("unix:/run/x"), "unix:/run/x");
    }

    #[test]
    fn nobody_is_asked_anew_before_he_has_answered() {
        let shared = |shards: Vec<usize>| SharedListener { address: "127.0.0.1:80".parse().unwrap(), shards };
        let ways = Way::all(vec![shared(vec![0]), shared(vec![1])]);
        assert!(ways.iter().all(|way| !way.is_only && way.waited(Duration::ZERO).is_none()));
        let ms = Duration::from_millis;
        ways[0].ask(ms(100));
        ways[0].ask(ms(1_100));
        assert_eq!(ways[0].waited(ms(1_200)), Some(ms(1_100)));
        ways[0].answered();
        assert_eq!(ways[0].waited(ms(1_200)), None);
        assert!(Way::all(vec![shared(vec![0, 1])])[0].is_only);
    }
}
