//! Streams of client frames, and what a decoder made of them.

use fanfare_protocol::wire::{Decoder, Input, Message};
use fanfare_protocol::{CloseReason, MessageLimits};

use crate::Data;

/// An input that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Text(String),
    Binary(Vec<u8>),
    /// A compressed message; its bytes are for an inflater.
    Deflated(String),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

impl From<Input<'_>> for Seen {
    fn from(input: Input<'_>) -> Self {
        match input {
            Input::Message(Message::Text(text)) => Self::Text(text.to_owned()),
            Input::Message(Message::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            Input::Deflated(deflated) => Self::Deflated(format!("{deflated:?}")),
            Input::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Input::Pong => Self::Pong,
            Input::Close(code) => Self::Close(code),
        }
    }
}

/// Frames built from fuzz data: most of them well-formed, so that the fuzzer need not find out about masks and lengths, and
/// every rule broken now and then. They are always whole: the stream ends at a frame's end.
pub fn stream(data: &mut Data<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    // Long enough for every form of a length, and short enough for thousands a second.
    while !data.is_empty() && stream.len() < 2_000 {
        let kind = data.byte();
        let first = match kind % 16 {
            0..=2 => 0x81,
            3 | 4 => 0x82,
            5 => 0x01,
            6 => 0x02,
            7 | 8 => 0x00,
            9 | 10 => 0x80,
            11 => 0x89,
            12 => 0x8a,
            13 => 0x88,
            14 => [0xc1, 0xc2, 0x41, 0x42][usize::from(data.byte() % 4)],
            _ => data.byte(),
        };
        let short = usize::from(data.byte());
        let payload = match short {
            251.. => long(data, short),
            _ => data.take(short).to_vec(),
        };
        frame(first, kind >> 4, &payload, &mut stream);
    }
    stream
}

/// A long payload out of few bytes of data.
fn long(data: &mut Data<'_>, kind: usize) -> Vec<u8> {
    let length = match kind {
        251..=254 => [126, 127, 128, 1_000][kind - 251],
        _ => [65_535, 65_536, 70_000, 1_001][usize::from(data.byte() % 4)],
    };
    let mut payload = vec![b'.'; length];
    let front = data.take(3);
    payload[..front.len()].copy_from_slice(front);
    payload
}

/// Appends a frame. `fault` 14 leaves the mask out and 15 writes the length in a longer form than needed; all others are right.
fn frame(first: u8, fault: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mask_bit = if fault == 14 { 0 } else { 0x80 };
    let form = match payload.len() {
        0..=125 => 0,
        126..=0xffff => 1,
        _ => 2,
    };
    match form + usize::from(fault == 15) {
        0 => out.push(mask_bit | payload.len() as u8),
        1 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    // Loops over bytes are slow under a fuzzer's counters: long payloads have a mask that changes nothing.
    let mask = if payload.len() > 250 { [0; 4] } else { [fault, 0xfa, first, 0x3d] };
    if mask_bit != 0 {
        out.extend_from_slice(&mask);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if mask_bit != 0 && mask != [0; 4] {
        for (byte, key) in out[start..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
}

/// Where a stream is cut into reads: lengths that `data` chooses, with the data's end the rest in one piece.
pub fn cuts(stream: &[u8], data: &mut Data<'_>) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut left = stream.len();
    while left > 0 && !data.is_empty() {
        let length = usize::from(data.byte()).min(left);
        lengths.push(length);
        left -= length;
    }
    lengths.push(left);
    lengths
}

/// Feeds a stream in reads of these lengths, as a shard would, until the end, a close or an error. `see` gets every input.
pub fn feed(
    decoder: &mut Decoder,
    mut stream: &mut [u8],
    reads: &[usize],
    (limits, takes_deflated): (&MessageLimits, bool),
    mut see: impl FnMut(Input<'_>),
) -> Option<CloseReason> {
    for &length in reads {
        let (mut rest, after) = std::mem::take(&mut stream).split_at_mut(length);
        stream = after;
        loop {
            let (used, input) = match decoder.next_with(rest, limits, takes_deflated) {
                Ok(next) => next,
                Err(reason) => return Some(reason),
            };
            let is_close = matches!(input, Some(Input::Close(_)));
            let is_all = input.is_none();
            if let Some(input) = input {
                see(input);
            }
            rest = &mut rest[used..];
            assert!(rest.is_empty() || !(is_all || is_close), "without an input, or after a close, all bytes are used");
            if is_close {
                return None;
            }
            if is_all {
                break;
            }
        }
    }
    None
}

/// The same with a new decoder and a copy of the stream, and with what was seen.
pub fn decode(stream: &[u8], reads: &[usize], terms: (&MessageLimits, bool)) -> (Vec<Seen>, Option<CloseReason>) {
    let mut seen = Vec::new();
    let mut stream = stream.to_vec();
    let end = feed(&mut Decoder::new(), &mut stream, reads, terms, |input| seen.push(Seen::from(input)));
    (seen, end)
}
