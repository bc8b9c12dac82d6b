//! Arbitrary bytes as a client's stream: no panic, no more memory than the limits allow, and the same inputs however the bytes are
//! cut into reads.
#![no_main]

use fanfare_fuzz::Data;
use fanfare_fuzz::frames::{cuts, decode, feed, stream};
use fanfare_fuzz::memory::{Counting, peak_of};
use fanfare_protocol::MessageLimits;
use fanfare_protocol::wire::{Decoder, Input, Message};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a decoder may need besides the message: what it keeps of a header and of a control frame.
const BOOKKEEPING_BYTES_MAX: usize = 1_024;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let limits = MessageLimits {
        message_bytes_max: data.pick(&[0, 1, 10, 125, 126, 1_000, 70_000, 1 << 20]),
        fragments_max: data.pick(&[0, 1, 2, 8, 1_000]),
        bad_messages_max: 10,
    };
    let kind = data.byte();
    let (is_raw, takes_deflated) = (kind % 4 == 0, kind & 0x10 != 0);
    let terms = (&limits, takes_deflated);
    let count = usize::from(data.byte() % 32);
    let mut places = Data(data.take(count));
    let mut stream = if is_raw { data.0.to_vec() } else { stream(&mut data) };

    let (whole, end) = decode(&stream, &[stream.len()], terms);
    // Every byte of a short stream by itself, and uneven pieces of a long one.
    let uneven: Vec<usize> = match stream.len() {
        length @ 0..300 => vec![1; length],
        _ => cuts(&stream, &mut Data(&[3, 1, 7, 2, 200, 1, 1, 14, 90, 5, 255, 13, 2, 1, 60])),
    };
    let (split, split_end) = decode(&stream, &uneven, terms);
    assert_eq!((&split, split_end.is_some()), (&whole, end.is_some()), "uneven pieces");

    let places = cuts(&stream, &mut places);
    let mut decoder = Decoder::new();
    let (mut longest, mut seen) = (0, 0);
    let (split_end, peak) = peak_of(|| {
        feed(&mut decoder, &mut stream, &places, terms, |input| {
            seen += 1;
            let length = match input {
                Input::Message(Message::Text(text)) => text.len(),
                Input::Message(Message::Binary(bytes)) => bytes.len(),
                Input::Ping(bytes) => {
                    assert!(bytes.len() <= 125);
                    0
                }
                Input::Deflated(_) => {
                    assert!(takes_deflated, "a compressed message that was not negotiated");
                    0
                }
                Input::Pong | Input::Close(_) => 0,
            };
            longest = longest.max(length);
        })
    });
    assert!(longest <= limits.message_bytes_max, "a message of {longest} bytes came through {limits:?}");
    // A compressed message may be a little longer than what it inflates to.
    let allowed = limits.message_bytes_max + if takes_deflated { limits.message_bytes_max / 8 } else { 0 };
    assert!(peak <= allowed + BOOKKEEPING_BYTES_MAX, "{peak} bytes were in use under {limits:?}");
    assert!(peak <= stream.len() * 2 + BOOKKEEPING_BYTES_MAX, "{peak} bytes for a stream of {} bytes", stream.len());

    assert_eq!((seen, split_end.is_some()), (whole.len(), end.is_some()), "pieces that the data chose");
});
