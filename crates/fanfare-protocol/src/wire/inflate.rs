//! Compressed messages made readable: the receiving side of RFC 7692.
//!
//! A message is inflated when all of it has come, so one inflater and one buffer serve a whole thread, whoever is in the
//! middle of sending something. What has come of a message is bounded like any other; what it inflates to is bounded
//! while it is inflated.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use super::Message;
use super::deflate::TAIL;
use crate::{CloseReason, MessageLimits};

/// An empty final block. At the end of a block it ends the stream and adds nothing; anywhere else it does not.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Largest window of RFC 7692, bytes.
const WINDOW_BYTES_MAX: usize = 1 << 15;

/// Size of the buffer to begin with, and what is kept of it between messages, bytes.
const BUFFER_BYTES_MIN: usize = 4_096;
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// A whole data message as it was compressed, without the tail that is never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflated<'a> {
    pub(super) is_text: bool,
    pub(super) payload: &'a [u8],
}

impl Deflated<'_> {
    /// Bytes it came in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// True for one without a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

/// The end of what a connection has sent in compressed messages, at most 32 KiB: what the next one may refer to where the
/// context is taken over.
#[derive(Debug, Default)]
pub struct History {
    bytes: Vec<u8>,
}

impl History {
    fn push(&mut self, message: &[u8]) {
        let message = &message[message.len().saturating_sub(WINDOW_BYTES_MAX)..];
        let kept = self.bytes.len().min(WINDOW_BYTES_MAX - message.len());
        self.bytes.drain(..self.bytes.len() - kept);
        self.bytes.reserve_exact(message.len());
        self.bytes.extend_from_slice(message);
    }
}

/// Inflates one message after the other.
#[derive(Default)]
pub struct Inflater {
    /// Made when first needed: some 40 KiB.
    stream: Option<Decompress>,
    /// All of it is initialized; its front holds the message.
    buffer: Vec<u8>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("buffer_bytes", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Inflater {
    /// An inflater that has no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The message that was compressed. `history` is the connection's where the context is taken over.
    ///
    /// # Errors
    /// The reason to close with: what it inflates to is over the limit, or it is no compressed message, or not UTF-8.
    pub fn message(
        &mut self,
        deflated: Deflated<'_>,
        history: Option<&mut History>,
        limits: &MessageLimits,
    ) -> Result<Message<'_>, CloseReason> {
        let max = limits.message_bytes_max;
        let stream = self.stream.get_or_insert_with(|| Decompress::new_with_window_bits(false, 15));
        let mut run = Run { stream, buffer: &mut self.buffer, length: 0, max, is_ended: false };
        run.start(history.as_deref().map_or(&[], |history| &history.bytes))?;
        run.message(deflated.payload)?;
        let length = run.length;
        let bytes = &self.buffer[..length];
        if let Some(history) = history {
            history.push(bytes);
        }
        if !deflated.is_text {
            return Ok(Message::Binary(bytes));
        }
        str::from_utf8(bytes).map(Message::Text).map_err(|_| CloseReason::BadUtf8)
    }

    /// Gives back memory that a long message left behind.
    pub fn release(&mut self) {
        if self.buffer.len() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
    }
}

/// One message on its way through the inflater.
struct Run<'a> {
    stream: &'a mut Decompress,
    buffer: &'a mut Vec<u8>,
    /// Bytes inflated so far.
    length: usize,
    max: usize,
    /// A final block has come.
    is_ended: bool,
}

impl Run<'_> {
    fn start(&mut self, history: &[u8]) -> Result<(), CloseReason> {
        self.stream.reset(false);
        self.is_ended = false;
        if !history.is_empty() {
            self.stream.set_dictionary(history).map_err(|_| CloseReason::BadDeflate)?;
        }
        Ok(())
    }

    /// Inflates the message and makes sure that it was a whole one: it ends with a final block, or with a block that the
    /// tail completes (RFC 7692 sections 7.2.2 and 7.2.3.4).
    fn message(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        self.feed(payload)?;
        if self.is_ended {
            return Ok(());
        }
        let length = self.length;
        self.feed(&TAIL)?;
        if !self.is_ended {
            self.feed(&LAST_BLOCK)?;
        }
        // Neither says anything, unless it was taken for the rest of something else.
        if self.is_ended && self.length == length { Ok(()) } else { Err(CloseReason::BadDeflate) }
    }

    fn feed(&mut self, mut input: &[u8]) -> Result<(), CloseReason> {
        // One more than is allowed, so that too much is seen.
        let end = self.max.saturating_add(1);
        loop {
            if self.is_ended {
                if input.is_empty() {
                    return Ok(());
                }
                // What follows a final block begins anew.
                self.start(&[])?;
            }
            if self.length == self.buffer.len() {
                self.buffer.resize(end.min(BUFFER_BYTES_MIN.max(2 * self.buffer.len())), 0);
            }
            let room = self.buffer.len().min(end);
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(input, &mut self.buffer[self.length..room], FlushDecompress::None);
            let (taken, made) = (self.stream.total_in() - taken, self.stream.total_out() - made);
            self.length += made as usize;
            input = &input[taken as usize..];
            if self.length > self.max {
                return Err(CloseReason::MessageTooBig { max: self.max });
            }
            match status {
                Err(_) => return Err(CloseReason::BadDeflate),
                Ok(Status::StreamEnd) => self.is_ended = true,
                // With room left, all there was of the input has been put out.
                Ok(Status::Ok | Status::BufError) if self.length < room => {
                    return if input.is_empty() { Ok(()) } else { Err(CloseReason::BadDeflate) };
                }
                Ok(Status::Ok | Status::BufError) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
