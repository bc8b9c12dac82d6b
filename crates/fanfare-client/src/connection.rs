//! An open WebSocket.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fanfare_protocol::CloseCode;
use fastwebsockets::OpCode;
use tokio::io::AsyncWrite;

use crate::Error;
use crate::pump::{Item, Slot, append_frame, pump, source};
use crate::stream::{Stream, WriteHalf};

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// The answer to [`Connection::queue_ping`] (or a pong nobody asked for).
    Pong(Bytes),
    /// The connection has ended; every further call says so again. Without a close frame of the gateway the code is 1006,
    /// with a close frame that names none 1005.
    Closed {
        /// The close code.
        code: CloseCode,
        /// The gateway's words.
        reason: String,
    },
}

/// An open WebSocket. Pings are answered as soon as [`Connection::next`] is called.
///
/// One task owns it; there are no halves and no locks to share. What is sent is queued whole and written by whichever of
/// `send_…`, [`Connection::flush`] and [`Connection::next`] runs, so each of them is cancel safe: a dropped call neither
/// loses a message nor leaves half a frame on the wire.
///
/// Dropping it ends the TCP connection without a close handshake; [`Connection::close`] does it properly.
pub struct Connection {
    /// Lives as long as the connection; see the module `pump`.
    pump: Pin<Box<dyn Future<Output = ()> + Send>>,
    slot: Slot,
    socket: WriteHalf,
    /// Whole frames that wait to be written, the first one perhaps begun. Bounded by what the caller queues, plus pongs up
    /// to [`PONG_BACKLOG_BYTES_MAX`].
    out: BytesMut,
    ended: Option<Incoming>,
    close_queued: bool,
}

/// A pong is left out while this much waits to be written: a peer that does not read needs no answer.
const PONG_BACKLOG_BYTES_MAX: usize = 65_536;

/// How long [`Connection::close`] waits for the gateway's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Connection {
    pub(crate) fn new(stream: Stream, already_read: Bytes, message_bytes_max: usize) -> io::Result<Self> {
        let (read, socket) = stream.into_split()?;
        let slot = Slot::default();
        let pump = Box::pin(pump(source(already_read, read), message_bytes_max, slot.clone()));
        Ok(Self { pump, slot, socket, out: BytesMut::new(), ended: None, close_queued: false })
    }

    /// Waits for the next message, and meanwhile writes what is queued. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Protocol`] or [`Error::MessageTooBig`] when the gateway breaks the rules; the connection is closed then.
    /// A lost connection is no error but [`Incoming::Closed`] with 1006.
    pub async fn next(&mut self) -> Result<Incoming, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Connection::next`], for hand-written futures.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Error>> {
        loop {
            if let Some(ended) = &self.ended {
                return Poll::Ready(Ok(ended.clone()));
            }
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                // A broken write side says nothing; a close frame that explains it may still wait to be read.
                self.out.clear();
            }
            let _never_ready = self.pump.as_mut().poll(cx);
            let Some(item) = self.slot.lock().take() else { return Poll::Pending };
            match item {
                Item::Text(text) => return Poll::Ready(Ok(Incoming::Text(text))),
                Item::Binary(bytes) => return Poll::Ready(Ok(Incoming::Binary(bytes))),
                Item::Pong(bytes) => return Poll::Ready(Ok(Incoming::Pong(bytes))),
                Item::Ping(bytes) if self.close_queued || self.out.len() > PONG_BACKLOG_BYTES_MAX => drop(bytes),
                Item::Ping(bytes) => append_frame(&mut self.out, OpCode::Pong, &bytes),
                Item::Closed(code, reason) => self.end(cx, code, reason),
                Item::Failed(error) => {
                    let code = if matches!(error, Error::MessageTooBig { .. }) { 1009 } else { 1002 };
                    self.queue_close(CloseCode(code), "");
                    self.end(cx, CloseCode(1006), error.to_string());
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// The peer is done: answers its close frame with the same code (RFC 6455 section 5.5.1) if the socket takes it.
    fn end(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: String) {
        if code != CloseCode(1006) {
            let echoed = if code == CloseCode(1005) { CloseCode(1000) } else { code };
            self.queue_close(echoed, "");
        }
        let _best_effort = self.poll_flush(cx);
        self.ended = Some(Incoming::Closed { code, reason });
    }

    /// Sends a text message. Cancel safe: once called, the message is queued.
    ///
    /// # Errors
    /// [`Error::Ended`] after a close, [`Error::Io`] when the socket fails.
    pub async fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue_text(text)?;
        self.flush().await
    }

    /// Sends a binary message. Cancel safe: once called, the message is queued.
    ///
    /// # Errors
    /// [`Error::Ended`] after a close, [`Error::Io`] when the socket fails.
    pub async fn send_binary(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.queue_binary(bytes)?;
        self.flush().await
    }

    /// Queues a text message; [`Connection::flush`] or [`Connection::next`] writes it. This is how a task that must keep
    /// reading sends without waiting: it stops queueing while [`Connection::queued_bytes`] is more than it wants to hold.
    ///
    /// # Errors
    /// [`Error::Ended`] after a close.
    pub fn queue_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue(OpCode::Text, text.as_bytes())
    }

    /// Queues a binary message; see [`Connection::queue_text`].
    ///
    /// # Errors
    /// [`Error::Ended`] after a close.
    pub fn queue_binary(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.queue(OpCode::Binary, bytes)
    }

    /// Queues a ping frame; its answer arrives as [`Incoming::Pong`]. At most 125 bytes are taken of `bytes`.
    ///
    /// # Errors
    /// [`Error::Ended`] after a close.
    pub fn queue_ping(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.queue(OpCode::Ping, &bytes[..bytes.len().min(125)])
    }

    fn queue(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Error> {
        if self.ended.is_some() || self.close_queued {
            return Err(Error::Ended);
        }
        append_frame(&mut self.out, opcode, payload);
        Ok(())
    }

    /// Bytes queued and not yet given to the socket.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes everything queued. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket fails.
    pub async fn flush(&mut self) -> Result<(), Error> {
        Ok(poll_fn(|cx| self.poll_flush(cx)).await?)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.out.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // TLS takes bytes that the socket has not taken yet.
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Queues a close frame. Messages may still come in; [`Connection::next`] ends with [`Incoming::Closed`]. A reason
    /// longer than 123 bytes is cut at a character boundary. Does nothing when a close frame was queued before.
    pub fn queue_close(&mut self, code: CloseCode, reason: &str) {
        if self.ended.is_some() || self.close_queued {
            return;
        }
        let mut payload = code.0.to_be_bytes().to_vec();
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(123)]);
        append_frame(&mut self.out, OpCode::Close, &payload);
        self.close_queued = true;
    }

    /// Closes with a handshake: sends a close frame and waits up to 5 s for the gateway's, whose code and reason it
    /// returns. Messages that arrive meanwhile are discarded. Not cancel safe: a dropped call drops the connection.
    ///
    /// # Errors
    /// [`Error::Timeout`] when no answer comes; [`Error::Protocol`] as in [`Connection::next`].
    pub async fn close(mut self, code: CloseCode, reason: &str) -> Result<(CloseCode, String), Error> {
        self.queue_close(code, reason);
        let answer = async {
            loop {
                if let Incoming::Closed { code, reason } = self.next().await? {
                    return Ok((code, reason));
                }
            }
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout { what: "the close handshake", limit: CLOSE_TIMEOUT }),
        }
    }

    /// The gateway's address.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket is no longer connected.
    pub fn peer_addr(&self) -> Result<SocketAddr, Error> {
        Ok(self.socket.peer_addr()?)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .field("queued_bytes", &self.out.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
