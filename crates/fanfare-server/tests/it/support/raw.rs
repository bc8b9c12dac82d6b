//! A socket to which bytes are written by hand, and what comes back on it: frames, and answers of HTTP.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

/// A handshake that is right in every point; `more` is whole header lines, each with its line end.
pub(crate) fn handshake(path: &str, host: SocketAddr, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame: `first` is the whole first byte (0x81: final text), the length in its shortest form, and a mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A client's close frame.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A frame as it came from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.first, 0x81, "a final text frame: {self:?}");
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }
}

/// A socket to which bytes are written by hand.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Read, but not taken yet.
    pub(crate) unread: Vec<u8>,
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(within("a connection", TcpStream::connect(address)).await.expect("a listener"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, unread: Vec::new() }
    }

    /// After a handshake on this path, with so small a window that not reading is soon felt on the other side.
    pub(crate) async fn stalled(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Before connecting: the window is agreed on then.
        socket.set_recv_buffer_size(2_048).expect("a socket");
        let mut raw = Self::over(within("a connection", socket.connect(address)).await.expect("a listener"));
        raw.send(handshake(path, address, "").as_bytes()).await;
        let head = raw.head().await;
        assert_eq!(head.status, 101, "{head:?}");
        raw
    }

    /// After a handshake on this path, once there is a place: who has left may hold it a moment longer.
    pub(crate) async fn let_in(address: SocketAddr, path: &str) -> Self {
        loop {
            let mut raw = Self::open(address).await;
            raw.send(handshake(path, address, "").as_bytes()).await;
            match raw.head().await.status {
                101 => return raw,
                status => assert_eq!(status, 503),
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("bytes to be sent", self.stream.write_all(bytes)).await.expect("an open socket");
    }

    /// Takes exactly so many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_more().await, "the socket ended after {:?}", String::from_utf8_lossy(&self.unread));
        }
        self.unread.drain(..count).collect()
    }

    /// Takes everything up to and with the first of these bytes; `None` where the stream ends before they come.
    pub(crate) async fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|bytes| bytes == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// `false` at the end of the stream. A reset counts as an end: who sends more than is read may get one.
    async fn read_more(&mut self) -> bool {
        within("bytes to come", self.stream.read_buf(&mut self.unread)).await.is_ok_and(|count| count > 0)
    }

    /// Takes everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.unread)
    }

    /// The stream ends here, without a further byte.
    pub(crate) async fn end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits for the first bytes of an answer; `false` where the socket ends instead.
    pub(crate) async fn is_answered(&mut self) -> bool {
        self.read_more().await
    }

    /// Status line and headers of an answer.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read_more().await, "no answer, only {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head = String::from_utf8(self.take(end).await).expect("a head in UTF-8");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status: status.expect("a status line"), headers, body: Vec::new() }
    }

    /// A whole answer with a length.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").expect("a length").parse().expect("a number");
        answer.body = self.take(length).await;
        answer
    }

    /// The next frame, which as every server frame must be unmasked (RFC 6455 section 5.1) and its length in the shortest form.
    pub(crate) async fn frame(&mut self) -> Frame {
        let header = self.take(2).await;
        assert_eq!(header[1] & 0x80, 0, "a server frame is never masked");
        let length = match header[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).await.try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.take(8).await.try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        let shortest = match length {
            0..126 => length as u8,
            126..0x1_0000 => 126,
            _ => 127,
        };
        assert_eq!(header[1], shortest, "{length} bytes are announced in the shortest form");
        Frame { first: header[0], payload: self.take(length as usize).await }
    }

    /// Code and reason of the close frame, which must be next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let frame = self.frame().await;
        assert_eq!(frame.first, 0x88, "expected a close frame, got {frame:?}");
        let (code, reason) = frame.payload.split_first_chunk().expect("a close code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"))
    }
}

/// An HTTP answer. Names of headers are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// An error as RFC 9457 has it, with this status and code.
    pub(crate) fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
    }
}

/// One HTTP request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    let mut raw = Raw::open(address).await;
    raw.send(format!("{head}\r\n{body}").as_bytes()).await;
    let mut answer = raw.head().await;
    answer.body = raw.rest().await;
    answer
}
