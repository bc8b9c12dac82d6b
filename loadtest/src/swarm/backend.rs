//! A publisher that is no member of its room: a backend with one kept-alive HTTP connection, one request at a time.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use fanfare_client::{Receipt, Trust, Url};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::resolve;
use super::socket::{Found, Socket, tls, tls_failure};
use crate::dialect::Dialect;
use crate::frame::{http_head_end, http_header};
use crate::scenario::Plan;

/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 65_536;

/// One backend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) publisher: usize,
    /// Where it publishes, and whose certificate counts there.
    api: Url,
    trust: Option<Trust>,
    address: SocketAddr,
    /// Head of every request, up to the length of its body.
    head: String,
    socket: Option<Socket>,
    out: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    busy: bool,
    /// The answer tells how many it was delivered to.
    receipts: bool,
}

/// What went wrong with a request.
#[derive(Debug)]
pub(super) struct Failure {
    /// The gateway did not take the publication, for certain.
    pub(super) refused: bool,
    pub(super) text: String,
}

impl Failure {
    fn broken(error: &io::Error) -> Self {
        if let Some(text) = tls_failure(error) {
            return Self { refused: true, text };
        }
        let nothing = error.kind() == ErrorKind::ConnectionRefused;
        let advice = if nothing { ": nothing is listening there" } else { "" };
        Self { refused: nothing, text: format!("{error}{advice}") }
    }
}

impl Backend {
    pub(super) fn new(api: &Url, key: Option<&str>, plan: &Plan, publisher: usize) -> anyhow::Result<Self> {
        let room = &plan.rooms[publisher / plan.publishers_per_room];
        let name = room.name.as_ref().map_or("", |name| name.as_str());
        let target = match plan.dialect {
            Dialect::Nchan => api.join(&format!("pub/{name}")),
            _ => api.join("api/publish").with_query("room", name),
        };
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain; charset=utf-8\r\n",
            target.target(),
            target.authority()
        );
        if let Some(key) = key {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        head.push_str("Content-Length: ");
        Ok(Self {
            publisher,
            api: api.clone(),
            trust: plan.trust.clone(),
            address: resolve(api)?,
            head,
            socket: None,
            out: Vec::new(),
            sent: 0,
            answer: Vec::new(),
            busy: false,
            receipts: plan.dialect != Dialect::Nchan,
        })
    }

    /// A request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins a request.
    pub(super) fn publish(&mut self, payload: &str) {
        self.busy = true;
        self.sent = 0;
        self.out.clear();
        self.out.extend_from_slice(self.head.as_bytes());
        self.out.extend_from_slice(format!("{}\r\n\r\n", payload.len()).as_bytes());
        self.out.extend_from_slice(payload.as_bytes());
    }

    /// The request under way is not to be made again.
    pub(super) fn give_up(&mut self) {
        self.busy = false;
        self.answer.clear();
    }

    /// Writes and reads what it can; the receipt comes back when the answer is there.
    pub(super) fn advance(
        &mut self,
        registry: &Registry,
        token: Token,
        buffer: &mut [u8],
        wire: &mut [u8],
    ) -> Result<Option<Receipt>, Failure> {
        let done = self.exchange(registry, token, buffer, wire);
        if done.is_err() {
            self.socket = None;
        }
        done
    }

    fn exchange(
        &mut self,
        registry: &Registry,
        token: Token,
        buffer: &mut [u8],
        wire: &mut [u8],
    ) -> Result<Option<Receipt>, Failure> {
        if self.socket.is_none() {
            if !self.busy {
                return Ok(None);
            }
            let mut socket = TcpStream::connect(self.address).map_err(|error| Failure::broken(&error))?;
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut socket, token, both).map_err(|error| Failure::broken(&error))?;
            let tls = tls(self.trust.as_ref(), &self.api);
            self.socket =
                Some(Socket::new(socket, tls.map_err(|error| Failure { refused: true, text: error.to_string() })?));
        }
        let Some(socket) = &mut self.socket else { return Ok(None) };
        while self.sent < self.out.len() {
            match socket.write(&self.out[self.sent..]) {
                Ok(taken) => self.sent += taken,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(Failure::broken(&error)),
            }
        }
        loop {
            match socket.read(buffer, wire) {
                Ok(Found { length: 0, .. }) if self.busy => {
                    return Err(Failure { refused: false, text: "the gateway closed the connection".to_owned() });
                }
                Ok(Found { length: 0, .. }) => {
                    self.socket = None;
                    return Ok(None);
                }
                Ok(Found { length, .. }) => self.answer.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(Failure::broken(&error)),
            }
            if self.answer.len() > ANSWER_BYTES_MAX {
                return Err(Failure { refused: false, text: "the answer has no end".to_owned() });
            }
        }
        self.read_answer()
    }

    fn read_answer(&mut self) -> Result<Option<Receipt>, Failure> {
        let Some(end) = http_head_end(&self.answer) else { return Ok(None) };
        let head = String::from_utf8_lossy(&self.answer[..end]).into_owned();
        let length = http_header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let Some(body) = self.answer.get(end..end + length) else { return Ok(None) };
        let status = head.lines().next().unwrap_or_default();
        let refused = |text: String| Failure { refused: true, text };
        if !status.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Err(refused(format!("the gateway answered {status:?}: {}", String::from_utf8_lossy(body))));
        }
        let receipt = match self.receipts {
            true => {
                serde_json::from_slice(body).map_err(|error| refused(format!("the receipt cannot be read: {error}")))?
            }
            false => Receipt::default(),
        };
        self.answer.clear();
        self.busy = false;
        Ok(Some(receipt))
    }
}
