//! Server frames: never masked, never fragmented (RFC 6455 section 5.1).

use super::decode::RSV1;
use crate::{CloseCode, CloseReason};

/// Frame opcodes (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Any bytes.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

impl Opcode {
    /// The opcode in the low four bits of a frame's first byte, if it is one that the RFC defines.
    pub(crate) const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// True for close, ping and pong.
    pub(crate) const fn is_control(self) -> bool {
        self as u8 & 0x08 != 0
    }
}

/// Longest header of a server frame, bytes.
const FRAME_HEADER_BYTES_MAX: usize = 10;

/// Appends the header of a final frame with `length` bytes of payload.
pub(crate) fn frame_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    let (header, used) = header_bytes(opcode, length);
    out.extend_from_slice(&header[..used]);
}

/// The same for a payload that is compressed (RFC 7692 section 6: RSV1).
pub(super) fn deflated_frame_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    frame_header(opcode, length, out);
    out[start] |= RSV1;
}

/// Appends a whole final frame.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(FRAME_HEADER_BYTES_MAX + payload.len());
    frame_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame that tells the client `reason`.
pub fn close_frame(reason: CloseReason, out: &mut Vec<u8>) {
    close_frame_as(reason.code(), &reason.text(), out);
}

/// The same with a code of one's own; `text` has at most 123 bytes.
pub(crate) fn close_frame_as(code: CloseCode, text: &str, out: &mut Vec<u8>) {
    frame_header(Opcode::Close, 2 + text.len(), out);
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a final frame whose payload `write` appends. `length_guess` is what it is expected to come to: the bytes are
/// moved only when the true length needs a header of another size.
pub(crate) fn frame_with(opcode: Opcode, length_guess: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.reserve(FRAME_HEADER_BYTES_MAX + length_guess);
    let start = out.len();
    frame_header(opcode, length_guess, out);
    let body = out.len();
    write(out);
    let (header, used) = header_bytes(opcode, out.len() - body);
    if used == body - start {
        out[start..body].copy_from_slice(&header[..used]);
    } else {
        out.splice(start..body, header[..used].iter().copied());
    }
}

/// A server frame taken from the front of bytes that this module wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Framed<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: &'a [u8],
    /// Header and payload.
    pub(crate) whole: &'a [u8],
}

/// Splits the first frame off `frames`; `None` when they do not begin with a whole unmasked final frame.
pub(crate) fn split_frame(frames: &[u8]) -> Option<(Framed<'_>, &[u8])> {
    let first = *frames.first()?;
    let opcode = Opcode::from_first_byte(first).filter(|_| first & 0xf0 == 0x80)?;
    let (length, header) = match *frames.get(1)? {
        126 => (u64::from(u16::from_be_bytes(*frames.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*frames.get(2..)?.first_chunk()?), 10),
        length @ 0..=125 => (u64::from(length), 2),
        128.. => return None,
    };
    let (whole, rest) = frames.split_at_checked(usize::try_from(length).ok()?.checked_add(header)?)?;
    Some((Framed { opcode, payload: &whole[header..], whole }, rest))
}

/// The header of a final frame, and how many of the bytes it takes.
#[inline]
fn header_bytes(opcode: Opcode, length: usize) -> ([u8; FRAME_HEADER_BYTES_MAX], usize) {
    let mut header = [0; FRAME_HEADER_BYTES_MAX];
    header[0] = 0x80 | opcode as u8;
    let used = match length {
        0..=125 => {
            header[1] = length as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (header, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [usize; 7] = [0, 1, 125, 126, 0xffff, 0x1_0000, 0x1_0001];

    #[test]
    fn headers_use_the_shortest_form_and_split_back() {
        for length in EDGES {
            let payload = vec![b'x'; length];
            let mut out = Vec::new();
            frame(Opcode::Binary, &payload, &mut out);
            let header = match length {
                0..126 => 2,
                126..0x1_0000 => 4,
                _ => 10,
            };
            assert_eq!(out.len(), header + length);
            out.extend_from_slice(b"rest");
            let (framed, rest) = split_frame(&out).expect("a whole frame");
            assert_eq!((framed.opcode, framed.payload, rest), (Opcode::Binary, &payload[..], &b"rest"[..]));
            assert!(split_frame(&out[..header + length - 1]).is_none() || length == 0);
        }
    }

    #[test]
    fn a_wrong_guess_of_the_length_changes_nothing() {
        for length in EDGES {
            let payload = vec![b'x'; length];
            let mut expected = b"before".to_vec();
            frame(Opcode::Text, &payload, &mut expected);
            for guess in EDGES {
                let mut out = b"before".to_vec();
                frame_with(Opcode::Text, guess, &mut out, |out| out.extend_from_slice(&payload));
                assert!(out == expected, "{length} bytes, guessed {guess}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_server_frame_do_not_split() {
        for bad in [&[][..], &[0x81], &[0x81, 1], &[0x01, 0], &[0x83, 0], &[0xc1, 0], &[0x81, 0x80], &[0x82, 126, 0]] {
            assert!(split_frame(bad).is_none(), "{bad:?}");
        }
        assert!(split_frame(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_none());
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        let mut out = Vec::new();
        close_frame(CloseReason::SlowConsumer { bytes: 12, messages: 3 }, &mut out);
        let (framed, rest) = split_frame(&out).expect("a whole frame");
        assert_eq!((framed.opcode, rest), (Opcode::Close, &[][..]));
        assert_eq!(framed.payload, [&4508u16.to_be_bytes()[..], b"queued 12 bytes, 3 messages"].concat());
    }
}
