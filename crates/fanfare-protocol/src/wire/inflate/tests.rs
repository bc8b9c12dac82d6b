use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params};
use proptest::prelude::*;

use super::*;

const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 65_536, fragments_max: 100, bad_messages_max: 10 };

/// A client of an independent implementation, which may keep its window between messages.
struct Client(CompressorOxide);

impl Client {
    fn new() -> Self {
        Self(CompressorOxide::new(create_comp_flags_from_zip_params(9, -15, 0)))
    }

    fn message(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress_to_output(&mut self.0, message, TDEFLFlush::Sync, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }
}

fn deflated(message: &[u8]) -> Vec<u8> {
    Client::new().message(message)
}

fn check(payload: &[u8], expected: Result<&[u8], CloseReason>) {
    let mut inflater = Inflater::new();
    let seen = inflater.message(Deflated { is_text: false, payload }, None, &LIMITS);
    assert_eq!(seen, expected.map(Message::Binary), "{payload:02x?}");
}

#[test]
fn the_examples_of_the_rfc() {
    // RFC 7692 section 7.2.3: one block; no compression; a final block; two blocks; an empty message.
    check(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], Ok(b"Hello"));
    check(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], Ok(b"Hello"));
    check(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], Ok(b"Hello"));
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    check(&two, Ok(b"Hello"));
    check(&[0x00], Ok(b""));
    check(&[0x02, 0x00], Ok(b""));
}

#[test]
fn final_blocks_end_a_message_or_stand_within_it() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    // Without the octet that the RFC asks for; as the last block, its tail taken away; several of them.
    check(&hello, Ok(b"Hello"));
    check(&[0x01], Ok(b""));
    check(&[&hello[..], &hello, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]].concat(), Ok(b"HelloHelloHello"));
    check(&[0x03, 0x00].repeat(10_000), Ok(b""));
}

#[test]
fn what_is_no_compressed_message() {
    let bad = Err(CloseReason::BadDeflate);
    let whole = deflated(&b"How do you do? Very well, said she. ".repeat(20));
    check(&whole[..whole.len() / 2], bad);
    check(&whole[..whole.len() - 1], bad);
    // The tail was not taken away: a message ends before it.
    check(&[&whole[..], &TAIL].concat(), bad);
    // A reserved kind of block; a stored block that is no such; lengths that contradict each other.
    check(&[0x06], bad);
    check(&[0xff; 20], bad);
    check(&[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48], bad);
    // A stored block that announces more than there is, also where the tail would make it whole.
    check(&[0x00, 0x09, 0x00, 0xf6, 0xff, 0x48], bad);
    check(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48], bad);
    // A reference to before the beginning.
    check(&[0x72, 0x84, 0x41, 0x00], bad);
}

#[test]
fn text_must_be_utf8_once_it_is_inflated() {
    let mut inflater = Inflater::new();
    let mut text = |message: &[u8]| {
        let payload = deflated(message);
        let seen = inflater.message(Deflated { is_text: true, payload: &payload }, None, &LIMITS);
        seen.map(|message| matches!(message, Message::Text(_)))
    };
    assert_eq!(text("hé 房间 🎺".as_bytes()), Ok(true));
    assert_eq!(text(b""), Ok(true));
    assert_eq!(text(&"🎺".as_bytes()[..3]), Err(CloseReason::BadUtf8));
    assert_eq!(text(b"\xc0\x80"), Err(CloseReason::BadUtf8));
}

#[test]
fn the_limit_holds_for_what_it_inflates_to() {
    for max in [0_usize, 1, 10, 4_096, 65_536] {
        let limits = MessageLimits { message_bytes_max: max, ..LIMITS };
        let mut inflater = Inflater::new();
        let mut length = |length: usize| {
            let payload = deflated(&vec![b'x'; length]);
            let seen = inflater.message(Deflated { is_text: true, payload: &payload }, None, &limits);
            seen.map(|message| matches!(message, Message::Text(text) if text.len() == length))
        };
        assert_eq!(length(max), Ok(true));
        assert_eq!(length(max + 1), Err(CloseReason::MessageTooBig { max }));
        assert_eq!(length(max), Ok(true), "and the next one is none the worse for it");
    }
}

#[test]
fn a_bomb_is_inflated_no_further_than_the_limit() {
    let bomb = deflated(&vec![0; 16 << 20]);
    assert!(bomb.len() < LIMITS.message_bytes_max, "{} bytes pass the limit of a frame", bomb.len());
    let mut inflater = Inflater::new();
    let seen = inflater.message(Deflated { is_text: false, payload: &bomb }, None, &LIMITS);
    assert_eq!(seen, Err(CloseReason::MessageTooBig { max: 65_536 }));
    assert_eq!(inflater.buffer.len(), 65_537, "no memory beyond the limit");
    assert!(inflater.stream.unwrap().total_out() <= 65_537, "and no work");
}

#[test]
fn memory_of_a_long_message_is_given_back() {
    let limits = MessageLimits { message_bytes_max: 1 << 20, ..LIMITS };
    let mut inflater = Inflater::new();
    let payload = deflated(&vec![b'x'; 1 << 20]);
    inflater.message(Deflated { is_text: false, payload: &payload }, None, &limits).unwrap();
    inflater.release();
    assert!(inflater.buffer.capacity() <= BUFFER_BYTES_KEPT);
}

#[test]
fn a_message_may_refer_to_former_ones_only_where_that_was_agreed() {
    let former = b"the quick brown fox jumps over the lazy dog, twice";
    let mut client = Client::new();
    let (first, second) = (client.message(former), client.message(former));
    assert!(second.len() < first.len() / 2, "it refers to the first");

    let mut inflater = Inflater::new();
    let mut history = History::default();
    for payload in [&first, &second, &client.message(b"dog, twice")] {
        inflater.message(Deflated { is_text: false, payload }, Some(&mut history), &LIMITS).unwrap();
    }
    assert_eq!(history.bytes, [&former[..], former, b"dog, twice"].concat());
    // Another connection's messages go through the same inflater: nothing of this one's is left in it.
    for mut other in [None, Some(History::default())] {
        let seen = inflater.message(Deflated { is_text: false, payload: &second }, other.as_mut(), &LIMITS);
        assert_eq!(seen, Err(CloseReason::BadDeflate));
    }
}

#[test]
fn a_history_is_no_longer_than_the_largest_window() {
    let mut history = History::default();
    for (length, byte) in [(100, b'a'), (32_700, b'b'), (70_000, b'c'), (10, b'd'), (32_768, b'e'), (0, b'f')] {
        history.push(&vec![byte; length]);
        assert!(history.bytes.len() <= WINDOW_BYTES_MAX && history.bytes.capacity() <= WINDOW_BYTES_MAX);
        assert!(history.bytes.ends_with(&vec![byte; length.min(WINDOW_BYTES_MAX)]));
    }
    assert_eq!(history.bytes.len(), WINDOW_BYTES_MAX);
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        messages in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..3_000),
                (proptest::collection::vec(any::<u8>(), 1..200), 1..300_usize).prop_map(|(part, times)| part.repeat(times)),
            ],
            1..6,
        ),
        keeps_context: bool,
    ) {
        let mut inflater = Inflater::new();
        let mut history = keeps_context.then(History::default);
        let mut client = Client::new();
        for message in messages {
            if !keeps_context {
                client = Client::new();
            }
            let payload = client.message(&message);
            let seen = inflater.message(Deflated { is_text: false, payload: &payload }, history.as_mut(), &LIMITS);
            prop_assert_eq!(seen, Ok(Message::Binary(&message)));
        }
    }

    #[test]
    fn garbage_never_panics_and_never_outgrows_the_limit(
        payload in proptest::collection::vec(any::<u8>(), 0..400),
        message_bytes_max in 0_usize..3_000,
    ) {
        let limits = MessageLimits { message_bytes_max, ..LIMITS };
        let mut inflater = Inflater::new();
        let mut history = History::default();
        for history in [None, Some(&mut history)] {
            match inflater.message(Deflated { is_text: false, payload: &payload }, history, &limits) {
                Ok(Message::Binary(bytes)) => prop_assert!(bytes.len() <= message_bytes_max),
                Ok(Message::Text(_)) => prop_assert!(false),
                Err(CloseReason::MessageTooBig { .. } | CloseReason::BadDeflate) => {}
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert!(inflater.buffer.len() <= message_bytes_max + 1);
    }
}
