//! Canaries that come in by the listener, as clients do: a connection, TLS where it is spoken, a handshake, something said, and the answer.
//!
//! Which shard gets a connection is the kernel's choice where each has a listener of its own. It chooses by the addresses and ports of both ends, and
//! the same way each time; so the port with which a canary has come to a shard once leads there again, and is looked for only at the start.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};

use super::Canaries;
use super::way::Way;
use crate::Address;
use crate::hub::Hub;

/// A canary of which nothing comes back is given up after this, and another one is sent.
const VISIT_MAX: Duration = Duration::from_secs(10);

/// The same for one that looks for a way: others may be found meanwhile.
const SEARCH_MAX: Duration = Duration::from_millis(250);

/// Tries to find a way to each of so many shards, for each of them. That one is missed by all of them has a chance of one in ten million.
const TRIES_PER_WAY: usize = 16;

/// Bytes of an answer that are waited for at most.
const ANSWER_BYTES_MAX: usize = 1_024;

/// What is known of a way in.
#[derive(Debug, Clone, Copy, Default)]
struct Route {
    /// The port that leads there; 0 where none is known, or none is needed.
    port: u16,
    is_under_way: bool,
    has_worked: bool,
    /// Nobody can come this way from here, others can: a canary proves nothing.
    is_closed_to_us: bool,
    /// The last canary that spoke TLS has failed: it is to be seen that one succeeds.
    owes_tls: bool,
}

/// Sends canaries in.
struct Visitor {
    hub: Arc<Hub>,
    routes: RefCell<Vec<Route>>,
    /// Whether somebody looks for a way, and how many tries are left.
    search: RefCell<(bool, usize)>,
    /// Made when it is needed first: a reload may bring TLS.
    tls: OnceCell<(TlsConnector, ServerName<'static>)>,
}

/// Sends a canary in by each way, each period, until the node leaves service.
pub(super) async fn keep_visiting(hub: Arc<Hub>, period: Duration) {
    let ways = hub.canaries_of_node().map_or(0, |canaries| canaries.ways.len());
    let visitor = Rc::new(Visitor {
        hub,
        routes: RefCell::new(vec![Route::default(); ways]),
        search: RefCell::new((false, TRIES_PER_WAY * ways)),
        tls: OnceCell::new(),
    });
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_usize.. {
        ticks.tick().await;
        // Who has taken the listeners over, or nobody, answers from here on.
        if visitor.hub.drain().has_begun() {
            return;
        }
        visitor.send_all(turn);
    }
}

impl Visitor {
    fn canaries(&self) -> &Canaries {
        self.hub.canaries_of_node().expect("they are there before they are sent")
    }

    fn send_all(self: &Rc<Self>, turn: usize) {
        let ways = &self.canaries().ways;
        let (now, has_tls) = (self.hub.now(), self.hub.settings().tls.is_some());
        for (index, way) in ways.iter().enumerate() {
            let route = self.routes.borrow()[index];
            if route.is_closed_to_us {
                continue;
            }
            way.ask(now);
            if !route.is_under_way && (way.is_only || route.port != 0) {
                // A TLS handshake costs more than all the rest and all shards do it in the same way: they are asked in turn.
                let speaks_tls = has_tls && (route.owes_tls || turn % ways.len() == index);
                self.routes.borrow_mut()[index].is_under_way = true;
                tokio::task::spawn_local(self.clone().send(index, route.port, speaks_tls));
            }
        }
        self.search.borrow_mut().1 += 1;
        self.look_for_ways();
    }

    /// Sends one in by a way that is known.
    async fn send(self: Rc<Self>, index: usize, port: u16, speaks_tls: bool) {
        let way = &self.canaries().ways[index];
        let visited = timeout(VISIT_MAX, self.visit(way, port, speaks_tls)).await;
        let visited = visited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut routes = self.routes.borrow_mut();
        let route = &mut routes[index];
        route.is_under_way = false;
        route.owes_tls = speaks_tls && visited.is_err();
        match visited {
            Ok((shard, _)) if way.shards.contains(&shard) => {
                route.has_worked = true;
                way.answered();
            }
            // The kernel chooses otherwise than it did.
            Ok(_) => route.port = 0,
            Err(error) => {
                debug!(way = %way.target, shards = ?way.shards, %error, "a canary has not come back");
                if !route.has_worked && is_about_us(&error) {
                    route.is_closed_to_us = true;
                    way.answered();
                    warn!(%error, "this process cannot connect to {}: readiness does not prove that others can", way.target);
                }
                // Another process may have the port.
                route.port = 0;
            }
        }
        drop(routes);
        self.look_for_ways();
    }

    /// Looks for ports that lead where none is known to lead.
    fn look_for_ways(self: &Rc<Self>) {
        let is_searching = self.search.borrow().0;
        if !is_searching && self.next_unknown().is_some() {
            self.search.borrow_mut().0 = true;
            tokio::task::spawn_local(self.clone().search());
        }
    }

    fn next_unknown(&self) -> Option<&Way> {
        let routes = self.routes.borrow();
        let unknown = |way: &Way, route: &Route| !way.is_only && route.port == 0 && !route.is_closed_to_us;
        let mut ways = self.canaries().ways.iter().zip(&*routes);
        ways.find(|(way, route)| unknown(way, route)).map(|(way, _)| way)
    }

    async fn search(self: Rc<Self>) {
        while let Some(way) = self.next_unknown() {
            let tries = self.search.borrow().1;
            if tries == 0 || self.hub.drain().has_begun() {
                break;
            }
            self.search.borrow_mut().1 = tries - 1;
            match timeout(SEARCH_MAX, self.visit(way, 0, false)).await {
                Ok(Ok((shard, port))) => self.found(shard, port),
                Ok(Err(error)) if is_about_us(&error) => {
                    self.give_up(way, &error);
                    break;
                }
                Ok(Err(error)) => {
                    // Another try at once would fare no better.
                    debug!(way = %way.target, %error, "a canary has not come back");
                    break;
                }
                // It may have come to a shard that answers nobody.
                Err(_) => {}
            }
        }
        self.search.borrow_mut().0 = false;
    }

    /// A canary has come to a shard with this port.
    fn found(&self, shard: usize, port: u16) {
        let mut routes = self.routes.borrow_mut();
        let ways = self.canaries().ways.iter().zip(&mut *routes);
        for (way, route) in ways.filter(|(way, route)| way.shards.contains(&shard) && route.port == 0) {
            (route.port, route.has_worked) = (port, true);
            way.answered();
        }
    }

    fn give_up(&self, unknown: &Way, error: &io::Error) {
        let mut routes = self.routes.borrow_mut();
        let ways = self.canaries().ways.iter().zip(&mut *routes);
        for (way, route) in ways.filter(|(way, route)| way.target == unknown.target && !route.has_worked) {
            route.is_closed_to_us = true;
            way.answered();
        }
        warn!(%error, "this process cannot connect to {}: readiness does not prove that others can", unknown.target);
    }

    /// Comes in and is answered: by which shard, and with which port.
    async fn visit(&self, way: &Way, port: u16, speaks_tls: bool) -> io::Result<(usize, u16)> {
        let begun = self.hub.now();
        let (shard, port) = match &way.target {
            Address::Tcp(target) => self.visit_tcp(*target, port, speaks_tls).await?,
            Address::Unix(path) => (self.visit_unix(path).await?, 0),
        };
        let shard = shard.ok_or_else(|| io::Error::other("another process has answered"))?;
        if let Some(canary) = self.hub.canaries().get(shard) {
            canary.visits.record(self.hub.now().saturating_sub(begun));
        }
        Ok((shard, port))
    }

    async fn visit_tcp(&self, target: SocketAddr, port: u16, speaks_tls: bool) -> io::Result<(Option<usize>, u16)> {
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Its end is a reset, which leaves nothing behind: the port can be used again at once.
        socket.set_zero_linger()?;
        let mut from = target;
        from.set_port(port);
        socket.bind(from)?;
        let from = socket.local_addr()?;
        let expected = self.canaries().visits.expect_tcp(from, speaks_tls);
        let mut stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        if speaks_tls {
            let (connector, name) = self.tls.get_or_init(tls::client);
            talk(&mut connector.connect(name.clone(), &mut stream).await?).await?;
        } else {
            talk(&mut stream).await?;
        }
        let shard = expected.landed();
        // Before it ends: nobody else is to be expected with its port.
        drop(expected);
        drop(stream);
        Ok((shard, from.port()))
    }

    #[cfg(target_os = "linux")]
    async fn visit_unix(&self, path: &Path) -> io::Result<Option<usize>> {
        use socket2::{Domain, SockAddr, Socket, Type};
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // The kernel chooses a name that nobody has (unix(7), "Autobind feature").
        socket.bind(&SockAddr::unix("")?)?;
        let expected = self.canaries().visits.expect_unix(&socket.local_addr()?)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let mut stream = UnixStream::from_std(OwnedFd::from(socket).into())?;
        talk(&mut stream).await?;
        let shard = expected.landed();
        drop(expected);
        drop(stream);
        Ok(shard)
    }

    /// Elsewhere a socket's name is a file.
    #[cfg(not(target_os = "linux"))]
    async fn visit_unix(&self, _path: &Path) -> io::Result<Option<usize>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Whether an error says that it is this process that cannot connect, whoever listens.
fn is_about_us(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, NotFound, PermissionDenied};
    matches!(error.kind(), PermissionDenied | NotFound | AddrNotAvailable | NetworkUnreachable | HostUnreachable)
}

/// A handshake, and with it what is said: `{}` in a text frame whose mask is zero.
const WORDS: &[u8] = b"GET /room/canary HTTP/1.1\r\nHost: canary\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Y2FuYXJ5LWNhbmFyeS4uLg==\r\n\r\n\x81\x82\0\0\0\0{}";

/// Says it, and waits for the answer to the handshake and for what comes back: one text frame of the server's, a byte of flags and a byte
/// of length before it (RFC 6455 section 5.2).
async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(WORDS).await?;
    stream.flush().await?;
    let unexpected = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
        let so_far = &answer[..length];
        if !so_far.starts_with(&b"HTTP/1.1 101 "[..length.min(13)]) {
            return Err(unexpected("the handshake is refused"));
        }
        let Some(end) = so_far.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        match &so_far[end + 4..] {
            [0x81, said, rest @ ..] if rest.len() >= usize::from(*said) => return Ok(()),
            [] | [0x81, ..] => {}
            _ => return Err(unexpected("no text frame")),
        }
    }
}

mod tls {
    //! The far end of TLS with oneself.

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::{DigitallySignedStruct, SignatureScheme};

    use super::{Arc, ClientConfig, IpAddr, ServerName, TlsConnector};

    pub(super) fn client() -> (TlsConnector, ServerName<'static>) {
        let provider = Arc::new(ring::default_provider());
        let own = Own(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what its versions need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(own))
            .with_no_client_auth();
        // No name: it is the certificate for those who do not say which they want.
        (TlsConnector::from(Arc::new(config)), ServerName::from(IpAddr::from([127, 0, 0, 1])))
    }

    /// Takes any certificate: it is known who answers, and whether others believe it is not asked here. That its key is there is checked.
    #[derive(Debug)]
    struct Own(WebPkiSupportedAlgorithms);

    impl ServerCertVerifier for Own {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, certificate, signed, &self.0)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signed, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_schemes()
        }
    }
}
