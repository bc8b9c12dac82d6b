//! Everything a client may send after its handshake, as a connection meets it: frames, compression and commands together. The conversation is the same
//! however the bytes are cut, what comes through stays within the limits, and memory does too.
#![no_main]

use fanfare_fuzz::Data;
use fanfare_fuzz::frames::{cuts, stream};
use fanfare_fuzz::memory::{Counting, peak_of};
use fanfare_protocol::wire::{Decoder, DeflateTerms, History, Inflater, Input, Message, negotiate};
use fanfare_protocol::{Action, CloseReason, Dialect, MessageLimits, Mode, RoomName, Session};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a connection needs beside a message and what it inflates to: a window, tables, buffers that double, and what is written down here.
const BOOKKEEPING_BYTES_MAX: usize = 400 * 1_024;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let limits = MessageLimits {
        message_bytes_max: data.pick(&[10, 125, 1_000, 1_000, 70_000]),
        fragments_max: data.pick(&[1, 8, 1_000]),
        bad_messages_max: data.pick(&[1, 3, 10]),
    };
    let own = RoomName::parse("lobby").expect("a valid name");
    let (mode, dialect) = match kind % 8 {
        0 => (Mode::Echo, Dialect::Text),
        1 => (Mode::HelloWorld, Dialect::Text),
        2 => (Mode::Room(own), Dialect::Text),
        3 => (Mode::Room(own), Dialect::TextJoined),
        4 => (Mode::Room(own), Dialect::Json),
        _ => (Mode::Rooms, Dialect::Json),
    };
    let offer = match kind >> 6 {
        0 => None,
        1 => Some("permessage-deflate"),
        _ => Some("permessage-deflate; client_max_window_bits"),
    };
    let terms = Some(DeflateTerms { client_context: kind & 0x20 != 0 });
    let deflate =
        offer.map(|offer| negotiate([offer.as_bytes()], terms).expect("well-formed").expect("accepted").agreement);
    let count = usize::from(data.byte() % 32);
    let mut places = Data(data.take(count));
    let stream = if kind & 0x10 == 0 { stream(&mut data) } else { frames(&mut data) };

    let conversation = |reads: &[usize]| {
        let session = Session::new(mode.clone(), dialect).with_deflate(deflate);
        peak_of(|| talk(session, &mut stream.clone(), reads, &limits))
    };
    let (whole, peak) = conversation(&[stream.len()]);
    let bound = 4 * limits.message_bytes_max + 16 * stream.len() + BOOKKEEPING_BYTES_MAX;
    assert!(peak <= bound, "{peak} bytes were in use under {limits:?} for {} bytes", stream.len());
    let (split, _) = conversation(&cuts(&stream, &mut places));
    same(&whole, &split);
    if stream.len() < 300 {
        same(&whole, &conversation(&vec![1; stream.len()]).0);
    }
});

/// Up to their ends. Which of several reasons ended it may depend on what had come by then.
fn same(whole: &[String], split: &[String]) {
    let is_end = |said: &str| said.starts_with("end: ");
    assert_eq!(whole.len(), split.len(), "{whole:#?}\n{split:#?}");
    for (one, other) in whole.iter().zip(split) {
        assert!(one == other || (is_end(one) && is_end(other)), "{one}\n{other}");
    }
}

/// What a shard does with what it reads, until the end.
fn talk(mut session: Session, stream: &mut [u8], reads: &[usize], limits: &MessageLimits) -> Vec<String> {
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
    let mut history = session.deflate().filter(|deflate| deflate.client_context).map(|_| History::default());
    let mut said = Vec::new();
    let mut stream = stream;
    for &length in reads {
        let (mut rest, after) = std::mem::take(&mut stream).split_at_mut(length);
        stream = after;
        loop {
            let (used, input) = match decoder.next_with(rest, limits, session.deflate().is_some()) {
                Ok(next) => next,
                Err(reason) => {
                    said.push(end(&reason));
                    return said;
                }
            };
            let is_all = input.is_none();
            let message = match input {
                None => None,
                Some(Input::Message(message)) => Some(Ok(message)),
                Some(Input::Deflated(deflated)) => Some(inflater.message(deflated, history.as_mut(), limits)),
                Some(Input::Close(code)) => {
                    said.push(format!("end: closed with {code}"));
                    return said;
                }
                Some(Input::Ping(bytes)) => {
                    said.push(format!("ping {bytes:?}"));
                    None
                }
                Some(Input::Pong) => None,
            };
            match message {
                None => {}
                Some(Err(reason)) => {
                    said.push(end(&reason));
                    return said;
                }
                Some(Ok(message)) => {
                    if hear(&mut session, message, limits, &mut said) {
                        return said;
                    }
                }
            }
            inflater.release();
            rest = &mut rest[used..];
            if is_all {
                break;
            }
        }
    }
    said
}

/// True when it is the end.
fn hear(session: &mut Session, message: Message<'_>, limits: &MessageLimits, said: &mut Vec<String>) -> bool {
    assert!(message.len() <= limits.message_bytes_max, "{} bytes came through {limits:?}", message.len());
    let action = session.handle(message, limits);
    if let Action::Publish { payload, .. } | Action::Send { payload, .. } = &action {
        assert!(payload.len() <= limits.message_bytes_max);
    }
    let is_end = matches!(action, Action::Close(_));
    match action {
        Action::Close(reason) => said.push(end(&reason)),
        // Long ones are told apart by where they begin and end.
        action => {
            let text = format!("{action:?}");
            said.push(if text.len() < 400 {
                text
            } else {
                format!("{} {}", text.len(), &String::from_utf8_lossy(&text.as_bytes()[..200]))
            });
        }
    }
    is_end
}

fn end(reason: &CloseReason) -> String {
    assert!(reason.text().len() <= 123, "a close frame has place for 123 bytes: {}", reason.text());
    assert!(!reason.label().is_empty() && reason.code().0 >= 1_000);
    format!("end: {reason:?}")
}

/// Frames that hold commands, or what is nearly one.
fn frames(data: &mut Data<'_>) -> Vec<u8> {
    const COMMANDS: [&str; 14] = [
        r#"{"name":"publish","message":"hi","room":"a","id":1}"#,
        r#"{"name":"publish","message":{"a":[1,2,null]}}"#,
        r#"{"name":"publish_no_self","message":1,"room":"a"}"#,
        r#"{"name":"subscribe","room":"a","since":"0123456789abcdef:7","id":"x"}"#,
        r#"{"name":"subscribe","room":"a"}"#,
        r#"{"name":"unsubscribe","room":"a","id":2}"#,
        r#"{"name":"history","room":"a","limit":10}"#,
        r#"{"name":"presence","room":"a"}"#,
        r#"{"name":"send","user":"ann","message":"hi","id":3}"#,
        r#"{"name":"ping","id":4}"#,
        r#"{"name":"leave"}"#,
        r#"{"name":"refresh","token":"a.b.c"}"#,
        "helloworld",
        "close",
    ];
    let mut out = Vec::new();
    while !data.is_empty() && out.len() < 2_000 {
        let kind = data.byte();
        let mut text = COMMANDS[usize::from(kind) % COMMANDS.len()].as_bytes().to_vec();
        for _ in 0..kind >> 6 {
            let place = usize::from(data.byte()) % text.len();
            match data.byte() {
                byte @ 0..=31 => {
                    _ = text.splice(
                        place..(place + usize::from(byte % 4)).min(text.len()),
                        data.take(usize::from(byte / 4)).iter().copied(),
                    )
                }
                byte => text[place] = byte,
            }
            if text.is_empty() {
                break;
            }
        }
        text.truncate(125);
        out.extend_from_slice(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
        out.extend_from_slice(&text);
    }
    out
}
