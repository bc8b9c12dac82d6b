mod deflate;

use proptest::prelude::*;

use super::*;

/// An input that owns its bytes, to compare across calls.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Deflated(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(u16),
}

fn seen(input: Input<'_>) -> Seen {
    match input {
        Input::Message(Message::Text(text)) => Seen::Text(text.to_owned()),
        Input::Message(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
        Input::Ping(bytes) => Seen::Ping(bytes.to_vec()),
        Input::Deflated(deflated) => Seen::Deflated(deflated.is_text, deflated.payload.to_vec()),
        Input::Pong => Seen::Pong,
        Input::Close(code) => Seen::Close(code),
    }
}

const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 70_000, fragments_max: 8, bad_messages_max: 10 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FINAL: u8 = 0x80;

/// A masked client frame; `first` is its first byte.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Feeds `reads` one after the other, as a shell would, until the end, a close or an error.
fn feed(decoder: &mut Decoder, reads: Vec<Vec<u8>>, limits: &MessageLimits) -> (Vec<Seen>, Option<CloseReason>) {
    feed_with(decoder, reads, limits, false)
}

fn feed_with(
    decoder: &mut Decoder,
    reads: Vec<Vec<u8>>,
    limits: &MessageLimits,
    takes_deflated: bool,
) -> (Vec<Seen>, Option<CloseReason>) {
    let mut inputs = Vec::new();
    for mut read in reads {
        let mut rest = &mut read[..];
        loop {
            match decoder.next_with(rest, limits, takes_deflated) {
                Ok((used, input)) => {
                    let input = input.map(seen);
                    rest = &mut rest[used..];
                    let Some(input) = input else {
                        assert!(rest.is_empty(), "without an input all bytes are used");
                        break;
                    };
                    let is_close = matches!(input, Seen::Close(_));
                    inputs.push(input);
                    if is_close {
                        assert!(rest.is_empty(), "nothing after a close is left to look at");
                        return (inputs, None);
                    }
                }
                Err(reason) => return (inputs, Some(reason)),
            }
        }
    }
    (inputs, None)
}

/// The same bytes in one read, in single bytes, and in every split in two must mean the same.
fn check(stream: &[u8], inputs: &[Seen], end: Option<CloseReason>) {
    let expected = (inputs.to_vec(), end);
    assert_eq!(feed(&mut Decoder::new(), vec![stream.to_vec()], &LIMITS), expected, "in one read");
    let bytes = stream.iter().map(|&byte| vec![byte]).collect();
    assert_eq!(feed(&mut Decoder::new(), bytes, &LIMITS), expected, "byte by byte");
    // Every place in a short stream; in a long one those near the ends, where headers and lengths are.
    let length = stream.len();
    for at in (1..length).filter(|&at| length < 400 || at < 40 || at > length - 10) {
        let (front, back) = stream.split_at(at);
        let halves = vec![front.to_vec(), back.to_vec()];
        assert_eq!(feed(&mut Decoder::new(), halves, &LIMITS), expected, "split at {at}");
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn whole_messages() {
    check(&client_frame(FINAL | 1, b""), &[text("")], None);
    check(&client_frame(FINAL | 1, "hé 房间 🎺".as_bytes()), &[text("hé 房间 🎺")], None);
    check(&client_frame(FINAL | 2, b"\xff\x00"), &[Seen::Binary(b"\xff\x00".to_vec())], None);
    for length in [1, 3, 4, 7, 8, 9, 124, 125, 126, 127, 0xffff, 0x1_0000] {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        check(&client_frame(FINAL | 2, &payload), &[Seen::Binary(payload)], None);
    }
    let two = [client_frame(FINAL | 1, b"a"), client_frame(FINAL | 1, b"b")].concat();
    check(&two, &[text("a"), text("b")], None);
}

#[test]
fn fragments_make_one_message_and_control_frames_may_stand_between() {
    let stream = [
        client_frame(1, b"Hel"),
        client_frame(FINAL | 9, b"are you there"),
        client_frame(0, b""),
        client_frame(FINAL | 10, b"pong"),
        client_frame(FINAL, b"lo"),
        client_frame(FINAL | 2, b"next"),
    ];
    let inputs = [Seen::Ping(b"are you there".to_vec()), Seen::Pong, text("Hello"), Seen::Binary(b"next".to_vec())];
    check(&stream.concat(), &inputs, None);
}

#[test]
fn a_character_may_be_cut_by_a_fragment_but_not_by_the_end() {
    let note = "🎺".as_bytes();
    let cut = [client_frame(1, &note[..1]), client_frame(0, &note[1..3]), client_frame(FINAL, &note[3..])];
    check(&cut.concat(), &[text("🎺")], None);
    let unfinished = [client_frame(1, &note[..1]), client_frame(FINAL, &note[1..3])];
    check(&unfinished.concat(), &[], Some(CloseReason::BadUtf8));
    check(&client_frame(FINAL | 1, &note[..3]), &[], Some(CloseReason::BadUtf8));
}

#[test]
fn frames_that_break_the_rules() {
    let protocol = |what| Some(CloseReason::ProtocolError(what));
    let begun = client_frame(1, b"a");
    let cases: Vec<(Vec<u8>, Option<CloseReason>)> = vec![
        (client_frame(FINAL | 0x40 | 1, b"x"), protocol("reserved bits are set")),
        (client_frame(FINAL | 0x20 | 1, b"x"), protocol("reserved bits are set")),
        (client_frame(FINAL | 0x10 | 9, b"x"), protocol("reserved bits are set")),
        (client_frame(FINAL | 3, b"x"), protocol("unknown opcode")),
        (client_frame(FINAL | 7, b"x"), protocol("unknown opcode")),
        (client_frame(FINAL | 11, b"x"), protocol("unknown opcode")),
        (client_frame(FINAL | 15, b"x"), protocol("unknown opcode")),
        (client_frame(FINAL, b"x"), protocol("continuation without a message")),
        (client_frame(0, b"x"), protocol("continuation without a message")),
        ([begun.clone(), client_frame(FINAL | 1, b"b")].concat(), protocol("new message inside a fragmented one")),
        ([begun, client_frame(2, b"b")].concat(), protocol("new message inside a fragmented one")),
        (client_frame(9, b"x"), protocol("fragmented control frame")),
        (client_frame(8, b""), protocol("fragmented control frame")),
        (vec![FINAL | 1, 1, b'x'], protocol("client frames must be masked")),
        (vec![FINAL | 9, 0], protocol("client frames must be masked")),
        (client_frame(FINAL | 9, &[0; 126]), protocol("control frame over 125 bytes")),
        (client_frame(FINAL | 8, &[0; 70_000]), protocol("control frame over 125 bytes")),
        (vec![FINAL | 2, 0xfe, 0, 125, 1, 2, 3, 4], protocol("length not in its shortest form")),
        (vec![FINAL | 2, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 1], protocol("length not in its shortest form")),
        (vec![FINAL | 2, 0xff, 128, 0, 0, 0, 0, 1, 0, 0, 1], protocol("length over 63 bits")),
        (client_frame(FINAL | 8, b"\x03"), protocol("close frame with half a code")),
    ];
    for (stream, end) in cases {
        check(&stream, &[], end);
    }
}

#[test]
fn close_frames() {
    check(&client_frame(FINAL | 8, b""), &[Seen::Close(1005)], None);
    for code in 0..=5000u16 {
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let mut bytes = client_frame(FINAL | 8, &code.to_be_bytes());
        let next = Decoder::new().next(&mut bytes, &LIMITS).map(|(_, input)| input.map(seen));
        let expected = allowed
            .then_some(Some(Seen::Close(code)))
            .ok_or(CloseReason::ProtocolError("close code that may not be sent"));
        assert_eq!(next, expected, "{code}");
    }
    let reason = |reason: &[u8]| client_frame(FINAL | 8, &[&1000u16.to_be_bytes(), reason].concat());
    check(&reason("tschüß".as_bytes()), &[Seen::Close(1000)], None);
    check(&reason(&[b'r'; 123]), &[Seen::Close(1000)], None);
    check(&reason(b"\xff"), &[], Some(CloseReason::BadUtf8));
}

#[test]
fn nothing_after_a_close_is_looked_at() {
    let mut stream = [client_frame(FINAL | 8, b"\x03\xe8"), vec![0xff; 50]].concat();
    let length = stream.len();
    assert_eq!(Decoder::new().next(&mut stream, &LIMITS), Ok((length, Some(Input::Close(1000)))));

    // Also when the close frame itself comes in two reads.
    let mut decoder = Decoder::new();
    let mut front = client_frame(FINAL | 8, b"\x03\xe8");
    let mut back = [front.split_off(7), vec![0xff; 50]].concat();
    assert_eq!(decoder.next(&mut front, &LIMITS), Ok((7, None)));
    assert_eq!(decoder.next(&mut back, &LIMITS), Ok((51, Some(Input::Close(1000)))));
}

#[test]
fn bad_utf8_is_refused_when_the_byte_comes_not_when_the_message_ends() {
    let payload = [b"good \xf4\x90".as_slice(), &[b'x'; 100]].concat();
    let header = 6;
    let frame = client_frame(FINAL | 1, &payload);
    for first_read in [header, header + 3, header + 6] {
        let mut decoder = Decoder::new();
        let mut front = frame[..first_read].to_vec();
        assert_eq!(decoder.next(&mut front, &LIMITS), Ok((first_read, None)), "still good after {first_read}");
        let mut bad = frame[first_read..header + 7].to_vec();
        assert_eq!(decoder.next(&mut bad, &LIMITS), Err(CloseReason::BadUtf8));
    }
    let fragment = client_frame(1, b"\xc0");
    assert_eq!(feed(&mut Decoder::new(), vec![fragment], &LIMITS), (vec![], Some(CloseReason::BadUtf8)));
}

#[test]
fn the_message_limit_holds_from_the_announcement_and_over_fragments() {
    let limits = MessageLimits { message_bytes_max: 10, ..LIMITS };
    let too_big = Some(CloseReason::MessageTooBig { max: 10 });
    let run = |reads: Vec<Vec<u8>>| feed(&mut Decoder::new(), reads, &limits);

    assert_eq!(run(vec![client_frame(FINAL | 1, &[b'x'; 10])]), (vec![text("xxxxxxxxxx")], None));
    // The header alone is enough; the mask has not even come.
    assert_eq!(run(vec![vec![FINAL | 1, 0x80 | 11]]), (vec![], too_big));
    assert_eq!(run(vec![vec![FINAL | 2, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255]]), (vec![], too_big));
    assert_eq!(
        run(vec![client_frame(1, &[b'x'; 6]), client_frame(FINAL, &[b'x'; 5])[..2].to_vec()]),
        (vec![], too_big)
    );
    let parts = vec![client_frame(2, &[1; 6]), client_frame(0, &[1; 4]), client_frame(FINAL, b"")];
    assert_eq!(run(parts), (vec![Seen::Binary(vec![1; 10])], None));
    // Control frames do not count.
    let ping = vec![client_frame(2, &[1; 10]), client_frame(FINAL | 9, &[2; 20]), client_frame(FINAL, b"")];
    assert_eq!(run(ping), (vec![Seen::Ping(vec![2; 20]), Seen::Binary(vec![1; 10])], None));
}

#[test]
fn the_fragment_limit_holds() {
    let fragments = |continuations: usize| {
        let mut stream = client_frame(2, b"a");
        for _ in 0..continuations - 1 {
            stream.extend(client_frame(0, b""));
        }
        stream.extend(client_frame(FINAL, b"z"));
        stream
    };
    check(&fragments(7), &[Seen::Binary(b"az".to_vec())], None);
    check(&fragments(8), &[], Some(CloseReason::TooManyFragments));
    // The next message counts from one again.
    check(&fragments(7).repeat(2), &[Seen::Binary(b"az".to_vec()), Seen::Binary(b"az".to_vec())], None);
}

#[test]
fn a_whole_frame_is_borrowed_from_the_read_buffer() {
    let mut bytes = client_frame(FINAL | 1, b"hello");
    let range = bytes.as_ptr_range();
    let mut decoder = Decoder::new();
    let (_, input) = decoder.next(&mut bytes, &LIMITS).expect("valid");
    let Some(Input::Message(Message::Text(text))) = input else { panic!("{input:?}") };
    assert!(range.contains(&text.as_ptr()), "borrowed");
    assert!(decoder.partial.is_none(), "nothing allocated");

    // Even when its header came in two reads.
    let mut bytes = client_frame(FINAL | 1, b"hello");
    let (header, rest) = bytes.split_at_mut(3);
    assert_eq!(decoder.next(header, &LIMITS), Ok((3, None)));
    assert!(decoder.is_partial());
    let range = rest.as_ptr_range();
    let (_, input) = decoder.next(rest, &LIMITS).expect("valid");
    let Some(Input::Message(Message::Text(text))) = input else { panic!("{input:?}") };
    assert!(range.contains(&text.as_ptr()), "borrowed");
    assert!(decoder.partial.is_none(), "and nothing is kept");
}

#[test]
fn memory_follows_the_bytes_that_came_and_is_given_back() {
    let mut decoder = Decoder::new();
    assert_eq!(size_of::<Decoder>(), 8);
    let payload = vec![b'x'; 60_000];
    let frame = client_frame(FINAL | 1, &payload);
    let mut front = frame[..1_000].to_vec();
    assert_eq!(decoder.next(&mut front, &LIMITS), Ok((1_000, None)));
    assert!(decoder.is_partial());
    let capacity = decoder.partial.as_ref().map(|partial| partial.message.capacity());
    assert!(capacity <= Some(1_000), "60,000 bytes are announced, 1,000 came, {capacity:?} are kept");

    let mut back = frame[1_000..].to_vec();
    let (used, input) = decoder.next(&mut back, &LIMITS).expect("valid");
    assert_eq!((used, input.map(seen)), (59_000 + 8, Some(Seen::Text("x".repeat(60_000)))));
    assert_eq!(decoder.partial.as_ref().map(|partial| partial.message.capacity()), Some(60_000), "never over the need");
    assert!(!decoder.is_partial(), "the message is whole");
    assert_eq!(decoder.next(&mut [], &LIMITS), Ok((0, None)));
    assert!(decoder.partial.is_none(), "given back");

    // A control frame between fragments goes back alone.
    for piece in [client_frame(1, b"ab"), client_frame(FINAL | 9, b"ping")[..8].to_vec()] {
        assert_eq!(feed(&mut decoder, vec![piece], &LIMITS), (vec![], None));
    }
    let rest = client_frame(FINAL | 9, b"ping")[8..].to_vec();
    assert_eq!(feed(&mut decoder, vec![rest], &LIMITS), (vec![Seen::Ping(b"ping".to_vec())], None));
    assert!(decoder.is_partial() && decoder.partial.as_ref().is_some_and(|partial| partial.control.capacity() == 0));
    assert_eq!(feed(&mut decoder, vec![client_frame(FINAL, b"c")], &LIMITS), (vec![text("abc")], None));
    decoder.release();
    assert!(decoder.partial.is_none());
}

/// A message, how it is cut into fragments, and control frames between them.
fn message() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Seen>)> {
    let payload = prop_oneof![
        any::<String>().prop_map(Seen::Text),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Seen::Binary),
    ];
    let control = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|bytes| (9u8, bytes)),
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|bytes| (10u8, bytes)),
    ];
    let cuts = proptest::collection::vec((any::<prop::sample::Index>(), proptest::option::of(control)), 0..5);
    (payload, cuts).prop_map(|(payload, cuts)| {
        let (opcode, bytes) = match &payload {
            Seen::Binary(bytes) => (2, &bytes[..]),
            Seen::Text(text) => (1, text.as_bytes()),
            other => unreachable!("{other:?}"),
        };
        let (mut frames, mut inputs) = (Vec::new(), Vec::new());
        let (mut rest, mut first) = (bytes, opcode);
        for (cut, control) in cuts {
            let (part, after) = rest.split_at(cut.index(rest.len() + 1));
            frames.push(client_frame(first, part));
            (rest, first) = (after, 0);
            if let Some((opcode, bytes)) = control {
                frames.push(client_frame(FINAL | opcode, &bytes));
                inputs.push(if opcode == 9 { Seen::Ping(bytes) } else { Seen::Pong });
            }
        }
        frames.push(client_frame(FINAL | first, rest));
        inputs.push(payload);
        (frames, inputs)
    })
}

/// `stream` cut at random places.
fn cut(stream: &[u8], mut places: Vec<prop::sample::Index>) -> Vec<Vec<u8>> {
    places.truncate(stream.len());
    let mut places: Vec<usize> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let mut start = 0;
    let mut reads = Vec::new();
    for place in places.into_iter().chain([stream.len()]) {
        reads.push(stream[start..place].to_vec());
        start = place;
    }
    reads
}

fn places() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..40)
}

/// Frames of which many are wrong in ways that tungstenite refuses too.
fn perhaps_wrong_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => Just(FINAL | 1),
        6 => Just(FINAL | 2),
        4 => Just(1u8),
        4 => Just(2u8),
        6 => Just(0u8),
        6 => Just(FINAL),
        3 => Just(FINAL | 9),
        3 => Just(FINAL | 10),
        1 => any::<u8>().prop_filter("closes are compared apart", |byte| byte & 0x0f != 8),
    ];
    let payload = prop_oneof![
        4 => "\\PC{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => proptest::collection::vec(any::<u8>(), 100..200),
    ];
    (first, payload).prop_map(|(first, payload)| client_frame(first, &payload))
}

/// What tungstenite's server role makes of the same stream: its messages, and whether it ended with a violation.
fn tungstenite_reads(stream: Vec<u8>) -> (Vec<Seen>, bool) {
    use tungstenite::{Error, Message as Theirs, WebSocket, error::ProtocolError, protocol::Role};

    /// Reads from the stream, writes (its pongs) to nowhere.
    struct OneWay(std::io::Cursor<Vec<u8>>);
    impl std::io::Read for OneWay {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(out)
        }
    }
    impl std::io::Write for OneWay {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut socket = WebSocket::from_raw_socket(OneWay(std::io::Cursor::new(stream)), Role::Server, None);
    let mut inputs = Vec::new();
    loop {
        inputs.push(match socket.read() {
            Ok(Theirs::Text(text)) => Seen::Text(text.to_string()),
            Ok(Theirs::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Theirs::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
            Ok(Theirs::Pong(_)) => Seen::Pong,
            // How it tells of a close code that may not be sent.
            Ok(Theirs::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => return (inputs, true),
            Ok(Theirs::Close(frame)) => {
                inputs.push(Seen::Close(frame.map_or(1005, |frame| frame.code.into())));
                return (inputs, false);
            }
            Ok(Theirs::Frame(frame)) => panic!("{frame:?}"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (inputs, false),
            Err(Error::Protocol(_) | Error::Utf8(_)) => return (inputs, true),
            Err(error) => panic!("{error}"),
        });
    }
}

proptest! {
    #[test]
    fn any_split_of_valid_messages_gives_the_same_inputs(
        messages in proptest::collection::vec(message(), 0..6),
        places in places(),
        close in proptest::option::of(0u16..100),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (frames, inputs) in messages {
            stream.extend(frames.concat());
            expected.extend(inputs);
        }
        if let Some(code) = close {
            stream.extend(client_frame(FINAL | 8, &(4000 + code).to_be_bytes()));
            expected.push(Seen::Close(4000 + code));
        }
        let mut decoder = Decoder::new();
        prop_assert_eq!(feed(&mut decoder, cut(&stream, places), &LIMITS), (expected, None));
        prop_assert!(!decoder.is_partial());
        decoder.release();
        prop_assert!(decoder.partial.is_none());
    }

    #[test]
    fn garbage_never_panics_and_never_outgrows_the_limits(
        stream in proptest::collection::vec(any::<u8>(), 0..400),
        places in places(),
        message_bytes_max in 0usize..64,
        fragments_max in 0usize..4,
    ) {
        let limits = MessageLimits { message_bytes_max, fragments_max, bad_messages_max: 10 };
        let mut decoder = Decoder::new();
        let (inputs, _) = feed(&mut decoder, cut(&stream, places), &limits);
        for input in inputs {
            match input {
                Seen::Text(text) => prop_assert!(text.len() <= message_bytes_max),
                Seen::Binary(bytes) => prop_assert!(bytes.len() <= message_bytes_max),
                Seen::Ping(bytes) => prop_assert!(bytes.len() <= 125),
                Seen::Deflated(..) => prop_assert!(false, "not negotiated"),
                Seen::Pong | Seen::Close(_) => {}
            }
        }
        if let Some(partial) = &decoder.partial {
            prop_assert!(partial.message.capacity() <= message_bytes_max && partial.control.len() <= 125);
        }
    }

    #[test]
    fn perhaps_wrong_streams_mean_the_same_in_any_split(
        frames in proptest::collection::vec(perhaps_wrong_frame(), 0..12),
        places in places(),
    ) {
        let limits = MessageLimits { message_bytes_max: 250, ..LIMITS };
        let stream = frames.concat();
        let whole = feed(&mut Decoder::new(), vec![stream.clone()], &limits);
        let split = feed(&mut Decoder::new(), cut(&stream, places), &limits);
        prop_assert_eq!(&split.0, &whole.0);
        prop_assert_eq!(split.1.is_some(), whole.1.is_some());
    }

    #[test]
    fn tungstenite_reads_the_same(
        frames in proptest::collection::vec(perhaps_wrong_frame(), 0..10),
        // It does not know 1014, which was registered last.
        close in proptest::option::of(proptest::option::of((900u16..5100).prop_filter("1014", |&code| code != 1014))),
        places in places(),
    ) {
        let mut stream = frames.concat();
        if let Some(code) = close {
            stream.extend(client_frame(FINAL | 8, &code.map_or(vec![], |code| code.to_be_bytes().to_vec())));
        }
        let limits = MessageLimits { message_bytes_max: 1 << 20, fragments_max: 1 << 20, bad_messages_max: 10 };
        let (inputs, end) = feed(&mut Decoder::new(), cut(&stream, places), &limits);
        prop_assert_eq!((inputs, end.is_some()), tungstenite_reads(stream));
    }

    #[test]
    fn unmasking_is_its_own_inverse_and_follows_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
        let mut fast = bytes.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}
