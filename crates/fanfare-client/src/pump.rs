//! The read half: bytes of the socket in, whole messages out.
//!
//! fastwebsockets loses bytes when a read is dropped in the middle of a frame's header, so the read is one future that
//! lives as long as the connection. It leaves what it reads in a [`Slot`] of one item and goes on once that is taken;
//! whoever polls it may stop and come back at any time.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use fanfare_protocol::CloseCode;
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, Chain};

use crate::Error;
use crate::stream::ReadHalf;

/// What the read half found.
#[derive(Debug)]
pub(crate) enum Item {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The peer's close frame, or 1006 when the socket ended without one. Nothing follows.
    Closed(CloseCode, String),
    /// The peer broke the rules. Nothing follows.
    Failed(Error),
}

/// Room for one item between the pump and its poller. Both are in one task; the lock is never contended.
pub(crate) type Slot = Arc<Mutex<Option<Item>>>;

/// What was read with the answer to the upgrade, then the socket.
pub(crate) type Source = Chain<io::Cursor<Bytes>, ReadHalf>;

pub(crate) fn source(already_read: Bytes, socket: ReadHalf) -> Source {
    io::Cursor::new(already_read).chain(socket)
}

/// Reads until the connection ends, then waits for ever.
pub(crate) async fn pump<S: AsyncRead + Unpin>(source: S, message_bytes_max: usize, slot: Slot) {
    // The write half of the pair would write in the middle of what the connection has queued, so it gets nothing.
    let (mut socket, _) =
        fastwebsockets::after_handshake_split(source, tokio::io::sink(), fastwebsockets::Role::Client);
    socket.set_auto_pong(false);
    socket.set_auto_close(false);
    // fastwebsockets refuses a frame of exactly its maximum.
    socket.set_max_message_size(message_bytes_max.saturating_add(1));
    let mut messages = Messages { message_bytes_max, partial: None };
    loop {
        let frame = socket.read_frame(&mut |_: Frame<'_>| std::future::ready(Ok::<(), io::Error>(()))).await;
        let item = match frame {
            Ok(frame) => messages.take(&frame).unwrap_or_else(|error| Some(Item::Failed(error))),
            Err(error) => Some(failed(error, message_bytes_max)),
        };
        let Some(item) = item else { continue };
        let last = matches!(item, Item::Closed(..) | Item::Failed(_));
        *slot.lock() = Some(item);
        if last {
            return pending().await;
        }
        // The poller polls again after taking the item; no waker is needed.
        poll_fn(|_| if slot.lock().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

fn failed(error: WebSocketError, max: usize) -> Item {
    match error {
        WebSocketError::UnexpectedEOF => Item::Closed(CloseCode(1006), "the connection was lost".to_owned()),
        WebSocketError::IoError(error) => Item::Closed(CloseCode(1006), format!("the connection was lost: {error}")),
        WebSocketError::FrameTooLarge => Item::Failed(Error::MessageTooBig { max }),
        other => Item::Failed(Error::Protocol(other.to_string())),
    }
}

/// Puts fragments together. fastwebsockets' own collector does not bound the sum of them.
struct Messages {
    message_bytes_max: usize,
    partial: Option<(OpCode, Vec<u8>)>,
}

impl Messages {
    fn take(&mut self, frame: &Frame<'_>) -> Result<Option<Item>, Error> {
        let payload: &[u8] = &frame.payload;
        match frame.opcode {
            OpCode::Close | OpCode::Ping | OpCode::Pong if payload.len() > 125 => {
                Err(Error::Protocol("a control frame longer than 125 bytes".to_owned()))
            }
            OpCode::Ping => Ok(Some(Item::Ping(Bytes::copy_from_slice(payload)))),
            OpCode::Pong => Ok(Some(Item::Pong(Bytes::copy_from_slice(payload)))),
            OpCode::Close => close(payload).map(Some),
            OpCode::Text | OpCode::Binary if self.partial.is_some() => {
                Err(Error::Protocol("a new message inside a fragmented one".to_owned()))
            }
            OpCode::Text | OpCode::Binary if frame.fin => message(frame.opcode, payload).map(Some),
            OpCode::Text | OpCode::Binary => {
                self.partial = Some((frame.opcode, payload.to_vec()));
                Ok(None)
            }
            OpCode::Continuation => self.proceed(frame.fin, payload),
        }
    }

    fn proceed(&mut self, fin: bool, payload: &[u8]) -> Result<Option<Item>, Error> {
        let Some((opcode, mut bytes)) = self.partial.take() else {
            return Err(Error::Protocol("a continuation without a beginning".to_owned()));
        };
        if bytes.len().saturating_add(payload.len()) > self.message_bytes_max {
            return Err(Error::MessageTooBig { max: self.message_bytes_max });
        }
        bytes.extend_from_slice(payload);
        if fin {
            return message(opcode, &bytes).map(Some);
        }
        self.partial = Some((opcode, bytes));
        Ok(None)
    }
}

fn message(opcode: OpCode, payload: &[u8]) -> Result<Item, Error> {
    if opcode == OpCode::Binary {
        return Ok(Item::Binary(Bytes::copy_from_slice(payload)));
    }
    text(payload).map(Item::Text)
}

fn close(payload: &[u8]) -> Result<Item, Error> {
    match payload {
        [] => Ok(Item::Closed(CloseCode(1005), String::new())),
        [_] => Err(Error::Protocol("a close frame with half a code".to_owned())),
        [high, low, reason @ ..] => Ok(Item::Closed(CloseCode(u16::from_be_bytes([*high, *low])), text(reason)?)),
    }
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Error::Protocol("text that is not UTF-8".to_owned()))
}

/// Appends one masked frame to `out`.
pub(crate) fn append_frame(out: &mut bytes::BytesMut, opcode: OpCode, payload: &[u8]) {
    let mut frame = Frame::new(true, opcode, None, Payload::Owned(payload.to_vec()));
    frame.mask();
    let mut head = [0; 16];
    let head_bytes = frame.fmt_head(&mut head);
    out.reserve(head_bytes + payload.len());
    out.extend_from_slice(&head[..head_bytes]);
    out.extend_from_slice(&frame.payload);
}
