use super::*;

/// As [`check`], for a connection that has negotiated compression.
fn check_deflate(stream: &[u8], inputs: &[Seen], end: Option<CloseReason>) {
    for at in 0..stream.len() {
        let reads = vec![stream[..at].to_vec(), stream[at..].to_vec()];
        let seen = feed_with(&mut Decoder::new(), reads, &LIMITS, true);
        assert_eq!(seen, (inputs.to_vec(), end), "split at {at}");
    }
}

#[test]
fn the_first_frame_says_that_a_message_is_compressed() {
    const RSV1: u8 = 0x40;
    let deflated = |is_text, payload: &[u8]| Seen::Deflated(is_text, payload.to_vec());
    check_deflate(&client_frame(FINAL | RSV1 | 1, b"\xff"), &[deflated(true, b"\xff")], None);
    check_deflate(&client_frame(FINAL | RSV1 | 2, b""), &[deflated(false, b"")], None);
    // Plain messages stay what they are, and may follow; control frames between fragments are never compressed. The
    // bytes of a compressed text are no text yet.
    let stream = [
        client_frame(RSV1 | 1, b"\xff\xfe"),
        client_frame(FINAL | 9, b"ping"),
        client_frame(0, b""),
        client_frame(FINAL, b"\xfd"),
        client_frame(FINAL | 1, b"plain"),
        client_frame(1, b"pla"),
        client_frame(FINAL, b"in"),
    ];
    let inputs = [Seen::Ping(b"ping".to_vec()), deflated(true, b"\xff\xfe\xfd"), text("plain"), text("plain")];
    check_deflate(&stream.concat(), &inputs, None);

    let reserved = Some(CloseReason::ProtocolError("reserved bits are set"));
    for first in [RSV1 | 9, RSV1 | 8, RSV1 | 10, RSV1 | 3, RSV1, 0x20 | 1, 0x10 | 1, RSV1 | 0x20 | 1] {
        check_deflate(&client_frame(FINAL | first, b""), &[], reserved);
    }
    let second = [client_frame(RSV1 | 1, b"a"), client_frame(FINAL | RSV1, b"b")].concat();
    check_deflate(&second, &[], reserved);
    check(&client_frame(FINAL | RSV1 | 1, b""), &[], reserved);
}

#[test]
fn a_compressed_message_may_be_a_little_longer_than_the_limit() {
    let limits = MessageLimits { message_bytes_max: 80, ..LIMITS };
    let too_big = Some(CloseReason::MessageTooBig { max: 80 });
    let run = |reads| feed_with(&mut Decoder::new(), reads, &limits, true);
    let whole = |length| client_frame(FINAL | 0x40 | 2, &vec![7; length]);
    assert_eq!(run(vec![whole(154)]), (vec![Seen::Deflated(false, vec![7; 154])], None));
    assert_eq!(run(vec![whole(155)[..4].to_vec()]), (vec![], too_big));
    let parts = |last| vec![client_frame(0x42, &[7; 100]), client_frame(FINAL, &vec![7; last])];
    assert_eq!(run(parts(54)), (vec![Seen::Deflated(false, vec![7; 154])], None));
    assert_eq!(run(parts(55)), (vec![], too_big));
    // A plain one may not.
    assert_eq!(run(vec![client_frame(FINAL | 2, &[7; 81])]), (vec![], too_big));
}
