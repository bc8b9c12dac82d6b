//! Client frames: header, unmasking, UTF-8; and compression of messages both ways.

use std::hint::black_box;

use fanfare_protocol::MessageLimits;
use fanfare_protocol::wire::{Decoder, Deflater, DeflaterSettings, Inflater, Input, Message, Opcode, Window};

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
    for (bytes, counted) in [(128, 200), (2_048, 100), (16_384, 20)] {
        let amount = Amount::Bytes(bytes as u64);
        stages.push(Stage::new(format!("wire/deflate/{bytes}"), amount, counted, move || deflate(bytes)));
        stages.push(Stage::new(format!("wire/inflate/{bytes}"), amount, counted, move || inflate(bytes)));
    }
    stages
}

/// A message is compressed into a frame, as once per publication.
fn deflate(bytes: usize) -> Run {
    let message = json_list(bytes);
    let mut deflater = always();
    let mut out = Vec::with_capacity(2 * bytes);
    repeat(move || {
        out.clear();
        deflater.frame(Opcode::Text, black_box(&message), Window::Bits15, &mut out);
        assert!(black_box(&out)[0] == 0xc1 && out.len() < bytes);
    })
}

/// The frame of a compressed message is decoded and inflated.
fn inflate(bytes: usize) -> Run {
    let limits = MessageLimits::default();
    let mut compressed = Vec::new();
    always().frame(Opcode::Text, &json_list(bytes), Window::Bits15, &mut compressed);
    let header = if compressed[1] < 126 { 2 } else { 4 };
    let mut frame = text_frame(&compressed[header..], [0; 4]);
    frame[0] |= 0x40;
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
    repeat(move || {
        let decoded = decoder.next_with(black_box(&mut frame), &limits, true);
        let Ok((_, Some(Input::Deflated(deflated)))) = decoded else { panic!("one compressed message") };
        let message = inflater.message(deflated, None, &limits);
        assert!(matches!(black_box(message), Ok(Message::Text(text)) if text.len() == bytes));
    })
}

fn always() -> Deflater {
    Deflater::new(DeflaterSettings { threshold_bytes: 0, ..DeflaterSettings::default() })
}

/// So many bytes like an application's JSON: they compress to about a third.
pub(crate) fn json_list(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"];
    let mut dice = 88_172_645_463_325_252_u64;
    let mut list = b"[".to_vec();
    while list.len() < bytes {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let word = |shift: u64| WORDS[(dice >> shift) as usize % WORDS.len()];
        let (id, price) = (dice % 100_000, (dice >> 8) % 100_000);
        let item =
            format!(r#"{{"id":{id},"user":"{}","price":{price},"text":"{} {}"}},"#, word(20), word(30), word(40));
        list.extend_from_slice(item.as_bytes());
    }
    list.truncate(bytes - 2);
    list.extend_from_slice(b"\"]");
    list
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
