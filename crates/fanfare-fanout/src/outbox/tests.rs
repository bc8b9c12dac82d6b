use super::*;

fn piece(frames: &[&str]) -> Piece {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(frame.as_bytes());
        ends.push(bytes.len() as u32);
    }
    Piece::frames(bytes.into(), ends.into(), 0, frames.len())
}

/// Writes the outbox out, at most `step` bytes at a time.
fn drain(outbox: &mut Outbox, step: usize) -> String {
    let mut out = Vec::new();
    while !outbox.is_empty() {
        let all: Vec<u8> = outbox.slices().iter().flat_map(|s| s.to_vec()).collect();
        let n = all.len().min(step);
        out.extend_from_slice(&all[..n]);
        outbox.consume(n);
    }
    assert_eq!(outbox.queued(), Queued::default());
    assert_eq!(outbox.reply_bytes(), 0);
    String::from_utf8(out).expect("test frames are text")
}

#[test]
fn data_keeps_its_order_for_any_write_size() {
    for step in 1..12 {
        let mut outbox = Outbox::default();
        outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
        outbox.push(piece(&["[dd]"]));
        outbox.push_reply(Lane::Data, Bytes::from_static(b"[reply]"));
        assert_eq!(outbox.queued(), Queued { bytes: 23, messages: 4 });
        assert_eq!(drain(&mut outbox, step), "[aa][bbb][c][dd][reply]");
    }
}

#[test]
fn control_goes_first_but_only_at_a_frame_boundary() {
    for taken in 0..=12 {
        for step in 1..10 {
            let mut outbox = Outbox::default();
            outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
            let all = "[aa][bbb][c]";
            outbox.consume(taken);
            outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
            outbox.push_reply(Lane::Control, Bytes::from_static(b"<y>"));
            let boundary = [0, 4, 9, 12].into_iter().find(|&b| b >= taken).expect("within");
            let expected = format!("{}<x><y>{}", &all[taken..boundary], &all[boundary..]);
            assert_eq!(drain(&mut outbox, step), expected, "taken {taken} step {step}");
        }
    }
}

#[test]
fn nothing_comes_between_the_parts_of_a_control_frame() {
    let mut outbox = Outbox::default();
    outbox.push_reply(Lane::Control, Bytes::from_static(b"<xyz>"));
    outbox.consume(2);
    outbox.push(piece(&["[a]"]));
    outbox.push_reply(Lane::Control, Bytes::from_static(b"<w>"));
    assert_eq!(drain(&mut outbox, 1), "yz><w>[a]");
}

#[test]
fn a_reply_whose_head_is_out_is_finished_first() {
    let mut outbox = Outbox::default();
    outbox.push_begun(Bytes::from_static(b"bc>"));
    outbox.push_reply(Lane::Control, Bytes::from_static(b"<d>"));
    assert_eq!(drain(&mut outbox, 2), "bc><d>");
}

#[test]
fn the_bounds_are_exact() {
    let limits = OutboxLimits { outbox_bytes_max: 10, outbox_messages_max: 2 };
    let fits = |outbox: &Outbox, piece: &Piece| {
        limits.allow(outbox.queued(), Queued { bytes: piece.len(), messages: piece.messages() })
    };
    let mut outbox = Outbox::default();
    assert!(!fits(&outbox, &piece(&["01234567890"])));
    assert!(!fits(&outbox, &piece(&["0", "1", "2"])));
    outbox.push(piece(&["0123456789"]));
    assert!(!fits(&outbox, &piece(&["0"])));
    outbox.consume(1);
    assert!(fits(&outbox, &piece(&["0"])));
    assert_eq!(outbox.queued().messages, 1, "a message counts until its last byte is taken");
    outbox.consume(9);
    assert_eq!(outbox.queued(), Queued::default());
}

#[test]
fn replacing_keeps_only_the_rest_of_a_frame_that_was_begun() {
    for (taken, expected) in [(0, "!"), (2, "a]!"), (4, "!"), (6, "bb]!")] {
        let mut outbox = Outbox::default();
        outbox.push(piece(&["[aa]", "[bbb]", "[c]"]));
        outbox.consume(taken);
        outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
        outbox.replace_by(Bytes::from_static(b"!"));
        assert_eq!(outbox.queued().bytes, expected.len());
        assert_eq!(drain(&mut outbox, 1), expected, "taken {taken}");
    }
}

#[test]
fn a_buffer_that_is_mostly_sent_is_let_go_however_it_was_sent() {
    let frames: Vec<String> = (0..5_000).map(|n| format!("[{n:04}]")).collect();
    let refs: Vec<&str> = frames.iter().map(String::as_str).collect();
    for step in [1, 7, 1_000, 29_999] {
        let mut outbox = Outbox::default();
        outbox.push(piece(&refs));
        while outbox.queued().bytes > step {
            outbox.consume(step);
            let left = &outbox.data[0];
            assert!(left.bytes.len() < COPY_OUT_BYTES || left.bytes.len() <= 2 * left.len(), "step {step}");
            assert_eq!(outbox.queued().messages, outbox.queued().bytes.div_ceil(6));
        }
    }
}

#[test]
fn a_small_tail_does_not_keep_a_large_buffer_and_still_knows_its_boundaries() {
    let frames: Vec<String> = (0..1000).map(|n| format!("[{n:04}]")).collect();
    let refs: Vec<&str> = frames.iter().map(String::as_str).collect();
    for sent in [5_990, 5_988, 5_994] {
        let tail = piece(&refs).after(sent);
        assert!(tail.bytes.len() <= 12);
        let mut outbox = Outbox::default();
        assert_eq!(tail.messages, (6_000 - sent).div_ceil(6));
        outbox.push(tail);
        outbox.push_reply(Lane::Control, Bytes::from_static(b"<x>"));
        let whole = "[0998][0999]";
        let from = whole.len() - (6_000 - sent);
        let boundary = from.div_ceil(6) * 6;
        let expected = format!("{}<x>{}", &whole[from..boundary], &whole[boundary..]);
        assert_eq!(drain(&mut outbox, 1), expected, "sent {sent}");
    }
}
