//! Client frames: header, unmasking, UTF-8.

use std::hint::black_box;

use fanfare_protocol::MessageLimits;
use fanfare_protocol::wire::{Decoder, Input, Message};

use crate::{Amount, Run, Stage, repeat};

/// Payloads measured, bytes.
const SIZES: [(usize, u64); 4] = [(16, 2_000), (128, 2_000), (4_096, 500), (65_536, 50)];

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (bytes, counted) in SIZES {
        let amount = Amount::Bytes(bytes as u64);
        stages.push(Stage::new(format!("wire/decode/{bytes}/whole"), amount, counted, move || whole(bytes)));
        stages.push(Stage::new(format!("wire/decode/{bytes}/split"), amount, counted, move || split(bytes)));
    }
    stages
}

/// The frame comes in one read.
fn whole(bytes: usize) -> Run {
    let limits = MessageLimits::default();
    let mut frame = text_frame(&vec![b'x'; bytes], MASK);
    let mut decoder = Decoder::new();
    repeat(move || {
        let length = frame.len();
        let decoded = decoder.next(black_box(&mut frame), &limits);
        let Ok((used, Some(Input::Message(Message::Text(text))))) = decoded else { panic!("one text message") };
        assert!(used == length && black_box(text).len() == bytes);
    })
}

/// The frame comes in two reads of the same length, as where a read buffer ends inside it.
fn split(bytes: usize) -> Run {
    let limits = MessageLimits::default();
    let mut frame = text_frame(&vec![b'x'; bytes], MASK);
    let middle = frame.len() / 2;
    let mut decoder = Decoder::new();
    repeat(move || {
        let (first, second) = black_box(&mut frame).split_at_mut(middle);
        assert!(matches!(decoder.next(first, &limits), Ok((used, None)) if used == middle));
        let length = second.len();
        let decoded = decoder.next(second, &limits);
        let Ok((used, Some(Input::Message(Message::Text(text))))) = decoded else { panic!("one text message") };
        assert!(used == length && black_box(text).len() == bytes);
        // The next read would free the message that the decoder had to keep; so does this.
        decoder.release();
    })
}

/// Turns ASCII into ASCII. A frame is unmasked in place, and to unmask it again masks it: with this mask both forms are
/// text, and a frame can be decoded again and again without a fresh copy.
const MASK: [u8; 4] = [0x11, 0x07, 0x0d, 0x02];

/// A whole masked text frame, as clients send it.
pub(crate) fn text_frame(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
