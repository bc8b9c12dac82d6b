//! The decoder: bytes in any split, whole messages out.
//!
//! A frame that lies whole in the read buffer is unmasked there and borrowed from there. Only what is incomplete when the
//! read ends is copied, into a [`Partial`] that exists exactly as long as something is incomplete.

use super::{Deflated, Opcode};
use crate::{CloseReason, MessageLimits};

/// A whole data message. It lives in the read buffer where it can, else in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

impl Message<'_> {
    /// Bytes of payload.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the bytes meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// A whole data message.
    Message(Message<'a>),
    /// A whole data message that was compressed; an [`Inflater`](super::Inflater) makes a message of it.
    Deflated(Deflated<'a>),
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

impl Decoder {
    /// A decoder at a frame boundary.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next input from the front of `bytes`, unmasking in place, and says how many bytes were used.
    /// With `None` all of `bytes` was used and more is needed. After an input, call again with what is left; when nothing
    /// is left, a call with no bytes (or [`Decoder::release`]) frees the memory the input was borrowed from, if any.
    /// A close frame uses up all of `bytes`, whatever follows it.
    ///
    /// # Errors
    /// The reason to close with (RFC 6455 section 7.1.7). The decoder must not be used afterwards.
    pub fn next<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        limits: &MessageLimits,
    ) -> Result<(usize, Option<Input<'a>>), CloseReason> {
        self.next_with(bytes, limits, false)
    }

    /// As [`Self::next`]. `takes_deflated`: permessage-deflate was negotiated, so messages may be compressed. It is the same
    /// in all calls.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_with<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        limits: &MessageLimits,
        takes_deflated: bool,
    ) -> Result<(usize, Option<Input<'a>>), CloseReason> {
        self.release();
        let mut at = 0;
        loop {
            let Some((frame, is_new)) = self.frame(bytes, &mut at, limits, takes_deflated)? else {
                return Ok((bytes.len(), None));
            };
            let start = at;
            at += frame.bytes_left.min(bytes.len() - at);
            unmask(&mut bytes[start..at], frame.mask);

            if is_new && frame.is_whole_input() && at - start == frame.bytes_left {
                self.forget_header();
                let used = if frame.opcode == Opcode::Close { bytes.len() } else { at };
                return Ok((used, Some(input(frame.opcode, frame.is_deflated, &bytes[start..at])?)));
            }
            if self.partial.get_or_insert_default().keep(frame, is_new, &bytes[start..at], limits)? {
                break;
            }
            if at == bytes.len() {
                return Ok((at, None));
            }
        }
        match self.partial.as_deref().map(Partial::kept_input).transpose()?.flatten() {
            Some(input @ Input::Close(_)) => Ok((bytes.len(), Some(input))),
            input => Ok((at, input)),
        }
    }

    /// Frees the memory of an input that [`Decoder::next`] has handed out. The next call does so too.
    pub fn release(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match partial.handed_out {
            HandedOut::Nothing => {}
            HandedOut::Control if partial.kind.is_some() => {
                partial.control = Vec::new();
                partial.handed_out = HandedOut::Nothing;
            }
            HandedOut::Control | HandedOut::Message => self.partial = None,
        }
    }

    /// True while a frame or a fragmented message is incomplete.
    #[cfg(test)]
    fn is_partial(&self) -> bool {
        self.partial.as_deref().is_some_and(|partial| match partial.handed_out {
            HandedOut::Nothing => true,
            HandedOut::Control => partial.kind.is_some(),
            HandedOut::Message => false,
        })
    }

    /// The frame whose payload is at `at`, and whether its payload begins there. `None` when `bytes` ended before that was
    /// known; what there was of a header is kept.
    #[inline]
    fn frame(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        limits: &MessageLimits,
        takes_deflated: bool,
    ) -> Result<Option<(Frame, bool)>, CloseReason> {
        let rest = &bytes[*at..];
        let Some(partial) = &mut self.partial else {
            let Some((frame, used)) = parse_header(rest, None, takes_deflated, limits)? else {
                if !rest.is_empty() {
                    self.partial.insert(Box::default()).keep_header(rest);
                }
                return Ok(None);
            };
            *at += used;
            return Ok(Some((frame, true)));
        };
        if let Some(frame) = partial.frame.take() {
            return Ok(Some((frame, false)));
        }
        let Some((frame, used)) = partial.header(rest, takes_deflated, limits)? else { return Ok(None) };
        *at += used;
        Ok(Some((frame, true)))
    }

    /// A header that came in parts made us partial; its frame came whole, so unless a message waits we no longer are.
    #[inline]
    fn forget_header(&mut self) {
        if self.partial.as_deref().is_some_and(|partial| partial.kind.is_none()) {
            self.partial = None;
        }
    }
}

/// What is incomplete. Boxed, because most connections have nothing incomplete most of the time.
#[derive(Debug, Default)]
struct Partial {
    /// The front of a header that has not fully come.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    /// The frame whose payload has not fully come.
    frame: Option<Frame>,
    /// What has come of a control frame's payload; at most 125 bytes.
    control: Vec<u8>,
    control_opcode: Option<Opcode>,
    /// The message that is incomplete; none between messages.
    kind: Option<Kind>,
    /// That message is compressed.
    is_deflated: bool,
    /// What has come of that message, unmasked; at most `message_bytes_max`, or a little more while it is compressed.
    message: Vec<u8>,
    /// Length of the front of `message` that is known to be whole UTF-8 characters.
    utf8_bytes: usize,
    /// Frames of that message so far; at most `fragments_max`.
    fragments: usize,
    /// What the last call lent to its caller, and the next call may free.
    handed_out: HandedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Debug, Default)]
enum HandedOut {
    #[default]
    Nothing,
    Control,
    Message,
}

impl Partial {
    fn keep_header(&mut self, front: &[u8]) {
        let start = usize::from(self.header_bytes);
        self.header[start..start + front.len()].copy_from_slice(front);
        self.header_bytes += front.len() as u8;
    }

    /// Begins or continues a header with `bytes`, and says how many of them it took.
    fn header(
        &mut self,
        bytes: &[u8],
        takes_deflated: bool,
        limits: &MessageLimits,
    ) -> Result<Option<(Frame, usize)>, CloseReason> {
        let kept = usize::from(self.header_bytes);
        // A header of HEADER_BYTES_MAX is always whole, so what does not fit is payload.
        self.keep_header(&bytes[..bytes.len().min(HEADER_BYTES_MAX - kept)]);
        let begun = self.kind.map(|_| Begun { bytes: self.message.len(), is_deflated: self.is_deflated });
        let front = &self.header[..usize::from(self.header_bytes)];
        let Some((frame, used)) = parse_header(front, begun, takes_deflated, limits)? else { return Ok(None) };
        self.header_bytes = 0;
        if frame.opcode == Opcode::Continuation && self.fragments >= limits.fragments_max {
            return Err(CloseReason::TooManyFragments);
        }
        Ok(Some((frame, used - kept)))
    }

    /// Takes a copy of what has come of `frame`. True when that made an input whole.
    fn keep(
        &mut self,
        frame: Frame,
        is_new: bool,
        payload: &[u8],
        limits: &MessageLimits,
    ) -> Result<bool, CloseReason> {
        let is_frame_whole = payload.len() == frame.bytes_left;
        self.frame = (!is_frame_whole).then(|| frame.after(payload.len()));
        if frame.opcode.is_control() {
            self.control.extend_from_slice(payload);
            self.control_opcode = Some(frame.opcode);
            if is_frame_whole {
                self.handed_out = HandedOut::Control;
            }
            return Ok(is_frame_whole);
        }
        let kind = match frame.opcode {
            Opcode::Text => *self.kind.insert(Kind::Text),
            Opcode::Binary => *self.kind.insert(Kind::Binary),
            _ => self.kind.unwrap_or(Kind::Binary),
        };
        self.is_deflated = frame.is_deflated;
        self.fragments += usize::from(is_new);
        let is_message_whole = is_frame_whole && frame.is_final;
        let expected =
            if frame.is_final { self.message.len() + frame.bytes_left } else { bytes_max(self.is_deflated, limits) };
        grow(&mut self.message, payload.len(), expected);
        self.message.extend_from_slice(payload);
        if is_message_whole {
            // The whole of a text is checked when it is handed out.
            self.handed_out = HandedOut::Message;
        } else if kind == Kind::Text && !self.is_deflated {
            self.check_utf8()?;
        }
        Ok(is_message_whole)
    }

    /// Checks what has come since the last check, so that a bad byte is refused when it comes and not when its message
    /// ends. Only a character that is cut off by the end of what has come may be incomplete.
    fn check_utf8(&mut self) -> Result<(), CloseReason> {
        match str::from_utf8(&self.message[self.utf8_bytes..]) {
            Ok(_) => self.utf8_bytes = self.message.len(),
            Err(error) if error.error_len().is_some() => return Err(CloseReason::BadUtf8),
            Err(error) => self.utf8_bytes += error.valid_up_to(),
        }
        Ok(())
    }

    /// The input that `keep` has made whole.
    fn kept_input(&self) -> Result<Option<Input<'_>>, CloseReason> {
        let (opcode, payload) = match (&self.handed_out, self.kind) {
            (HandedOut::Control, _) => (self.control_opcode, &self.control),
            (HandedOut::Message, Some(Kind::Text)) => (Some(Opcode::Text), &self.message),
            (HandedOut::Message, _) => (Some(Opcode::Binary), &self.message),
            (HandedOut::Nothing, _) => return Ok(None),
        };
        opcode.map(|opcode| input(opcode, self.is_deflated && !opcode.is_control(), payload)).transpose()
    }
}

/// A frame as its header announces it, and later what is left of it.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    /// It belongs to a compressed message.
    is_deflated: bool,
    bytes_left: usize,
    /// Its first byte belongs to the first byte that is left.
    mask: [u8; 4],
}

impl Frame {
    /// True when this frame is an input by itself, not a part of a message.
    #[inline]
    fn is_whole_input(self) -> bool {
        self.is_final && self.opcode != Opcode::Continuation
    }

    fn after(mut self, bytes: usize) -> Self {
        self.bytes_left -= bytes;
        self.mask.rotate_left(bytes % 4);
        self
    }
}

/// What has come of a fragmented message.
#[derive(Debug, Clone, Copy)]
struct Begun {
    bytes: usize,
    is_deflated: bool,
}

/// Longest header of a client frame: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Reads the header at the front of `bytes` (RFC 6455 section 5.2) and says how long it is; `None` when more is needed.
/// Everything is refused as soon as it can be seen, above all a length over the limit. `begun` is the fragmented message
/// that waits for its end, if there is one.
#[inline(always)] // A tenth of a short frame's decoding, where the compiler would leave it a call.
fn parse_header(
    bytes: &[u8],
    begun: Option<Begun>,
    takes_deflated: bool,
    limits: &MessageLimits,
) -> Result<Option<(Frame, usize)>, CloseReason> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (opcode, is_final) = parse_first_byte(first, begun.is_some(), takes_deflated)?;
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(CloseReason::ProtocolError("client frames must be masked"));
    }
    let (length, mask_at) = match second & 0x7f {
        126.. if opcode.is_control() => {
            return Err(CloseReason::ProtocolError("control frame over 125 bytes"));
        }
        126 => {
            let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
            (shortest(u16::from_be_bytes(*length).into(), 126)?, 4)
        }
        127 => {
            let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
            (shortest(u64::from_be_bytes(*length), 0x1_0000)?, 10)
        }
        length => (length.into(), 2),
    };
    let bytes_left = usize::try_from(length).unwrap_or(usize::MAX);
    let is_continued = opcode == Opcode::Continuation && begun.is_some_and(|begun| begun.is_deflated);
    let is_deflated = first & RSV1 != 0 || is_continued;
    let so_far = begun.map_or(0, |begun| begun.bytes);
    if bytes_left > limits.message_bytes_max.saturating_sub(so_far)
        && !opcode.is_control()
        && bytes_left > bytes_max(is_deflated, limits).saturating_sub(so_far)
    {
        return Err(CloseReason::MessageTooBig { max: limits.message_bytes_max });
    }
    let Some(&mask) = bytes[mask_at..].first_chunk() else { return Ok(None) };
    Ok(Some((Frame { opcode, is_final, is_deflated, bytes_left, mask }, mask_at + mask.len())))
}

/// Most bytes of a message as it comes: what inflates to at most `message_bytes_max` may itself be a little longer, for
/// example when it could not be compressed.
#[inline]
fn bytes_max(is_deflated: bool, limits: &MessageLimits) -> usize {
    let max = limits.message_bytes_max;
    if is_deflated { max.saturating_add(max / 8 + 64) } else { max }
}

/// The bit that says that a message is compressed (RFC 7692 section 6): on its first frame, and never elsewhere.
pub(super) const RSV1: u8 = 0x40;

#[inline]
fn parse_first_byte(first: u8, is_fragmented: bool, takes_deflated: bool) -> Result<(Opcode, bool), CloseReason> {
    let opcode = Opcode::from_first_byte(first);
    if first & 0x70 != 0 {
        let may_be_deflated = takes_deflated && matches!(opcode, Some(Opcode::Text | Opcode::Binary));
        if !may_be_deflated || first & 0x70 != RSV1 {
            return Err(CloseReason::ProtocolError("reserved bits are set"));
        }
    }
    let is_final = first & 0x80 != 0;
    match opcode {
        None => Err(CloseReason::ProtocolError("unknown opcode")),
        Some(Opcode::Continuation) if !is_fragmented => {
            Err(CloseReason::ProtocolError("continuation without a message"))
        }
        Some(Opcode::Text | Opcode::Binary) if is_fragmented => {
            Err(CloseReason::ProtocolError("new message inside a fragmented one"))
        }
        Some(opcode) if opcode.is_control() && !is_final => Err(CloseReason::ProtocolError("fragmented control frame")),
        Some(opcode) => Ok((opcode, is_final)),
    }
}

/// A length from its longer form: refused where a shorter form would do, and where the top bit is set.
fn shortest(length: u64, min: u64) -> Result<u64, CloseReason> {
    if length < min {
        return Err(CloseReason::ProtocolError("length not in its shortest form"));
    }
    if length >> 63 != 0 {
        return Err(CloseReason::ProtocolError("length over 63 bits"));
    }
    Ok(length)
}

/// The input that a frame's or message's whole payload makes.
#[inline]
fn input(opcode: Opcode, is_deflated: bool, payload: &[u8]) -> Result<Input<'_>, CloseReason> {
    if is_deflated {
        return Ok(Input::Deflated(Deflated { is_text: opcode == Opcode::Text, payload }));
    }
    Ok(match opcode {
        Opcode::Text => {
            let text = str::from_utf8(payload).map_err(|_| CloseReason::BadUtf8)?;
            Input::Message(Message::Text(text))
        }
        Opcode::Binary | Opcode::Continuation => Input::Message(Message::Binary(payload)),
        Opcode::Ping => Input::Ping(payload),
        Opcode::Pong => Input::Pong,
        Opcode::Close => Input::Close(close_code(payload)?),
    })
}

/// The code of a close frame (RFC 6455 sections 5.5.1 and 7.4); 1012 to 1014 were registered with IANA later.
fn close_code(payload: &[u8]) -> Result<u16, CloseReason> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(1005)
        } else {
            Err(CloseReason::ProtocolError("close frame with half a code"))
        };
    };
    let code = u16::from_be_bytes(code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseReason::ProtocolError("close code that may not be sent"));
    }
    str::from_utf8(reason).map_err(|_| CloseReason::BadUtf8)?;
    Ok(code)
}

/// Makes space for `more` bytes: doubling, so that many small parts do not copy often, and never over `expected`. The
/// memory thus follows the bytes that came, not the length that was announced.
fn grow(message: &mut Vec<u8>, more: usize, expected: usize) {
    let needed = message.len() + more;
    if needed > message.capacity() {
        let target = needed.max(expected.min(2 * message.capacity()));
        message.reserve_exact(target - message.len());
    }
}

/// RFC 6455 section 5.3, eight bytes at a time; the loop over arrays is one that the compiler turns into vector code.
#[inline]
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = [a, b, c, d, a, b, c, d];
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ u64::from_ne_bytes(wide)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests;
