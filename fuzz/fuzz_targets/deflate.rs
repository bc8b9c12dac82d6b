//! permessage-deflate: arbitrary offers are agreed to or declined by the grammar, arbitrary compressed messages inflate to at most what is
//! allowed in bounded memory and as an independent reader reads them, and whatever is compressed comes back.
#![no_main]

use std::cell::RefCell;

use fanfare_fuzz::Data;
use fanfare_fuzz::memory::{Counting, peak_of};
use fanfare_protocol::wire::{
    Decoder, DeflateTerms, Deflater, DeflaterSettings, History, Inflater, Input, Message, Opcode, Window, negotiate,
};
use fanfare_protocol::{CloseReason, MessageLimits};
use flate2::{Decompress, FlushDecompress, Status};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an inflater needs besides the message: its window and tables, and a buffer that doubles.
const INFLATER_BYTES_MAX: usize = 96 * 1_024;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    match data.byte() % 4 {
        0 => offers(data.0),
        1 => round_trip(&mut data),
        _ => inflate(&mut data),
    }
});

/// Header lines, separated by line feeds.
fn offers(lines: &[u8]) {
    let lines = || lines.split(|&byte| byte == b'\n');
    let terms = [None, Some(DeflateTerms { client_context: false }), Some(DeflateTerms { client_context: true })];
    let answers = terms.map(|terms| negotiate(lines(), terms));
    let is_malformed = answers.each_ref().map(Result::is_err);
    assert!(is_malformed == [true; 3] || is_malformed == [false; 3], "the grammar does not depend on terms");
    let [Ok(None) | Err(_), ours @ ..] = answers else { panic!("agreed to without terms") };
    for (accepted, context) in ours.into_iter().zip([false, true]) {
        let Ok(Some(accepted)) = accepted else { continue };
        let answer = &accepted.answer;
        assert!(answer.starts_with("permessage-deflate") && answer.contains("server_no_context_takeover"), "{answer}");
        assert!(answer.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{answer:?}");
        assert!(context || !accepted.agreement.client_context);
        // What is answered is itself a well-formed line.
        assert!(negotiate([answer.as_bytes()], None).is_ok(), "{answer}");
    }
}

/// Messages of one connection, one after the other.
fn inflate(data: &mut Data<'_>) {
    let max = data.pick(&[10, 300, 1_000, 1_000, 1_000, 20_000]);
    let limits = MessageLimits { message_bytes_max: max, fragments_max: 4, bad_messages_max: 10 };
    let has_context = data.byte() % 2 == 0;
    let mut inflater = Inflater::new();
    let mut history = History::default();
    while !data.is_empty() {
        let length = usize::from(data.byte()) * 4;
        let payload = data.take(length);
        let mut frame = client_frame(payload);
        let mut decoder = Decoder::new();
        let Ok((_, Some(Input::Deflated(deflated)))) = decoder.next_with(&mut frame, &limits, true) else { return };
        let (result, peak) = peak_of(|| {
            inflater.message(deflated, has_context.then_some(&mut history), &limits).map(|message| message.len())
        });
        assert!(peak <= 2 * max + INFLATER_BYTES_MAX, "{peak} bytes for at most {max}");
        match result {
            Ok(length) => assert!(length <= max, "{length} bytes came through"),
            Err(CloseReason::MessageTooBig { .. } | CloseReason::BadDeflate | CloseReason::BadUtf8) => return,
            Err(other) => panic!("{other:?}"),
        }
        if !has_context {
            check_against_plain(payload, &limits, deflated_bytes(&mut inflater, payload, &limits));
        }
        inflater.release();
    }
}

/// The message again, by itself.
fn deflated_bytes(inflater: &mut Inflater, payload: &[u8], limits: &MessageLimits) -> Option<Vec<u8>> {
    let mut frame = client_frame(payload);
    let mut decoder = Decoder::new();
    let Ok((_, Some(Input::Deflated(deflated)))) = decoder.next_with(&mut frame, limits, true) else { return None };
    match inflater.message(deflated, None, limits) {
        Ok(Message::Binary(bytes)) => Some(bytes.to_vec()),
        Ok(Message::Text(text)) => Some(text.as_bytes().to_vec()),
        Err(_) => None,
    }
}

/// In one go, with the tail that RFC 7692 section 7.2.2 puts back. A message whose final block comes early is ours alone to read.
fn check_against_plain(payload: &[u8], limits: &MessageLimits, ours: Option<Vec<u8>>) {
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut plain = Decompress::new(false);
    let mut out = vec![0; limits.message_bytes_max + 1_024];
    let status = plain.decompress(&input, &mut out, FlushDecompress::Sync);
    let length = plain.total_out() as usize;
    if matches!(status, Ok(Status::Ok))
        && length <= limits.message_bytes_max
        && plain.total_in() as usize == input.len()
    {
        assert_eq!(ours.as_deref(), Some(&out[..length]), "an independent reader disagrees");
    }
}

thread_local! {
    /// One for each level that is tried: making one takes longer than using it.
    static DEFLATERS: RefCell<[Deflater; 4]> = RefCell::new([1, 3, 6, 9].map(|level| {
        Deflater::new(DeflaterSettings { threshold_bytes: 20, level })
    }));
}

/// What is compressed here is read there, whatever it is.
fn round_trip(data: &mut Data<'_>) {
    let window = data.pick(&Window::ALL);
    let level = usize::from(data.byte() % 4);
    let repeat = usize::from(data.byte() % 16) + 1;
    let length_max = data.pick(&[500, 2_000, 2_000, 40_000]);
    let mut message = data.0.repeat(repeat);
    message.truncate(length_max);
    let mut frame = Vec::new();
    DEFLATERS.with_borrow_mut(|deflaters| {
        // Twice: the second must not refer to the first.
        for _ in 0..2 {
            frame.clear();
            deflaters[level].frame(Opcode::Binary, &message, window, &mut frame);
        }
    });
    let header = match frame[1] {
        0..=125 => 2,
        126 => 4,
        _ => 10,
    };
    if frame[0] & 0x40 == 0 {
        assert_eq!(frame[header..], message, "sent as it is");
        return;
    }
    assert!(frame.len() - header < message.len(), "compressed is shorter");
    let input = [&frame[header..], &[0, 0, 0xff, 0xff]].concat();
    let mut out = vec![0; message.len() + 1];
    let mut plain = Decompress::new_with_window_bits(false, window.bits());
    plain.decompress(&input, &mut out, FlushDecompress::Sync).expect("our own");
    assert_eq!(out[..plain.total_out() as usize], message);
}

/// One compressed binary message, masked with zeros.
fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xc2];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
