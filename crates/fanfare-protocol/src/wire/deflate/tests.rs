use miniz_oxide::inflate::decompress_to_vec;
use proptest::prelude::*;

use super::*;

const ALWAYS: DeflaterSettings = DeflaterSettings { threshold_bytes: 0, level: 3 };

/// A server frame, read by hand: its first byte and its payload.
fn read(frame: &[u8]) -> (u8, &[u8]) {
    let (length, header) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize, 10),
        length => (length.into(), 2),
    };
    assert_eq!(frame.len(), header + length, "one whole frame");
    (frame[0], &frame[header..])
}

/// What an independent implementation makes of it, with an empty final block in the place of the tail.
fn inflated(payload: &[u8]) -> Vec<u8> {
    decompress_to_vec(&[payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat()).expect("a deflate stream")
}

fn words(bytes: usize) -> Vec<u8> {
    (0..)
        .flat_map(|n: u32| format!("{{\"likes\":{},\"text\":\"How do you do?\"}},", n * n % 9_973).into_bytes())
        .take(bytes)
        .collect()
}

#[test]
fn a_frame_inflates_to_what_it_was() {
    let mut deflater = Deflater::new(ALWAYS);
    for window in Window::ALL {
        for length in [1, 100, 511, 4_096, 70_000, DEFLATE_BYTES_MAX] {
            let payload = words(length);
            let mut out = Vec::new();
            deflater.frame(Opcode::Text, &payload, window, &mut out);
            let (first, body) = read(&out);
            if length < 10 {
                assert_eq!((first, body), (0x81, &payload[..]), "would become longer");
            } else {
                assert_eq!(first, 0xc1);
                assert!(body.len() < length && inflated(body) == payload, "{window:?}, {length} bytes");
            }
        }
    }
}

#[test]
fn what_would_not_become_shorter_goes_as_it_is() {
    let mut deflater = Deflater::new(ALWAYS);
    let mut noise = 1_u64;
    let noise: Vec<u8> = (0..5_000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .collect();
    // Also where what fits of it ends like a message that came out whole.
    for end in 0..12 {
        let payload = [&noise[..], &TAIL, &noise[..end]].concat();
        let mut out = Vec::new();
        deflater.frame(Opcode::Binary, &payload, Window::Bits15, &mut out);
        assert_eq!(read(&out), (0x82, &payload[..]), "{end} bytes after it");
    }
    assert_eq!(deflater.messages(), 12, "it was tried");
    // And the next one is none the worse for it.
    let mut out = Vec::new();
    deflater.frame(Opcode::Binary, &words(500), Window::Bits15, &mut out);
    assert_eq!(inflated(read(&out).1), words(500));
}

#[test]
fn short_and_huge_messages_and_control_frames_go_as_they_are() {
    let mut deflater = Deflater::new(DeflaterSettings { threshold_bytes: 100, level: 1 });
    let mut first = |opcode, length| {
        let mut out = Vec::new();
        deflater.frame(opcode, &words(length), Window::Bits15, &mut out);
        read(&out).0
    };
    assert_eq!(first(Opcode::Text, 0), 0x81);
    assert_eq!(first(Opcode::Text, 99), 0x81);
    assert_eq!(first(Opcode::Text, 100), 0xc1);
    assert_eq!(first(Opcode::Binary, 100), 0xc2);
    assert_eq!(first(Opcode::Text, DEFLATE_BYTES_MAX + 1), 0x81);
    assert_eq!(first(Opcode::Ping, 125), 0x89);
    assert_eq!(deflater.messages(), 2);
}

#[test]
fn a_smaller_window_is_kept_to() {
    // A thousand bytes that compress only by reference to the same thousand, 3,000 before them.
    let mut deflater = Deflater::new(ALWAYS);
    let mut noise = 7_u64;
    let block: Vec<u8> = (0..1_000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'a' + (noise >> 60) as u8
        })
        .collect();
    let payload = [block.clone(), vec![b'-'; 2_000], block].concat();
    let mut lengths = Vec::new();
    for window in Window::ALL {
        let mut out = Vec::new();
        deflater.frame(Opcode::Text, &payload, window, &mut out);
        let stream = [read(&out).1, &TAIL].concat();
        lengths.push(stream.len());
        // An inflater that has no more than that window, put out byte by byte so that it must use it.
        let mut inflate = flate2::Decompress::new_with_window_bits(false, window.bits());
        let mut seen = Vec::new();
        while seen.len() < payload.len() {
            let (taken, mut byte) = (inflate.total_in() as usize, [0]);
            inflate.decompress(&stream[taken..], &mut byte, flate2::FlushDecompress::None).expect("within the window");
            seen.push(byte[0]);
        }
        assert!(seen == payload, "{window:?}");
    }
    assert!(
        lengths[0] == lengths[1] && lengths[2] > lengths[1] + 400,
        "{lengths:?}: the reference is seen, or it is not"
    );
}

#[test]
fn memory_of_a_long_message_is_given_back() {
    let mut deflater = Deflater::new(ALWAYS);
    deflater.frame(Opcode::Text, &words(DEFLATE_BYTES_MAX), Window::Bits15, &mut Vec::new());
    assert!(deflater.compressed.capacity() <= SCRATCH_BYTES_MAX);
    deflater.frames(Window::Bits15, &mut Vec::new(), |out| frame(Opcode::Text, &words(DEFLATE_BYTES_MAX), out));
    assert!(deflater.compressed.capacity() <= SCRATCH_BYTES_MAX && deflater.plain.capacity() <= SCRATCH_BYTES_MAX);
}

proptest! {
    #[test]
    fn every_message_inflates_to_itself_and_never_grows(
        messages in proptest::collection::vec(
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..2_000), "[ab]{0,3000}".prop_map(String::into_bytes)],
            1..5,
        ),
        window in prop::sample::select(Window::ALL.to_vec()),
        level in 1..10_u8,
    ) {
        let mut deflater = Deflater::new(DeflaterSettings { threshold_bytes: 0, level });
        for message in messages {
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            deflater.frame(Opcode::Binary, &message, window, &mut out);
            frame(Opcode::Binary, &message, &mut plain);
            prop_assert!(out.len() <= plain.len());
            match read(&out) {
                (0xc2, body) => prop_assert_eq!(inflated(body), message),
                (first, body) => prop_assert_eq!((first, body), (0x82, &message[..])),
            }
        }
    }
}
