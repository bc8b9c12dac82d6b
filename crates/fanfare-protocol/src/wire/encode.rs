//! Server frames: never masked, never fragmented (RFC 6455 section 5.1).

use crate::CloseReason;

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

/// Longest header of a server frame, bytes.
pub const FRAME_HEADER_BYTES_MAX: usize = 10;

/// Appends the header of a final frame with `length` bytes of payload.
pub fn frame_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a whole final frame.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(FRAME_HEADER_BYTES_MAX + payload.len());
    frame_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame that tells the client `reason`.
pub fn close_frame(reason: CloseReason, out: &mut Vec<u8>) {
    let text = reason.text();
    frame_header(Opcode::Close, 2 + text.len(), out);
    out.extend_from_slice(&reason.code().0.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
