//! The decoder: bytes in any split, whole messages out.

use crate::{CloseReason, MessageLimits};

/// A whole data message. It lives in the read buffer where it can, else in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

/// What the bytes meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// A whole data message.
    Message(Message<'a>),
    /// A ping; answer with these bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame with this code (1005: none given). Nothing after it is looked at.
    Close(u16),
}

/// Where one connection's incoming bytes stand. Eight bytes while nothing is partial.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {}

impl Decoder {
    /// A decoder at a frame boundary.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next input from the front of `bytes`, unmasking in place, and says how many bytes were used.
    /// With `None` all of `bytes` was used and more is needed. After an input, call again with what is left.
    ///
    /// # Errors
    /// The reason to close with. The decoder must not be used afterwards.
    pub fn next<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        limits: &MessageLimits,
    ) -> Result<(usize, Option<Input<'a>>), CloseReason> {
        let _ = (bytes, limits, &self.partial);
        todo!()
    }

    /// True while a frame or a fragmented message is incomplete.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }
}
