//! What comes out of the log that nodes share, as bytes that anybody may have written: it is read in its one form or refused, in memory of its own
//! size; what a node wrote comes back; posts are counted once and densely, also by who begins with a tally that was written down.
#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use fanfare_backplane::fuzzing::{Letter, Message, Tallied, Value, answered, letter, message, sent, written};
use fanfare_fuzz::Data;
use fanfare_fuzz::memory::{Counting, peak_of};
use fanfare_protocol::{Payload, Position, Published, RoomEvent, RoomName, UserName, Variant};
use fanfare_registry::{Act, Entry, Post};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What reading needs besides a few copies of what is read.
const BOOKKEEPING_BYTES_MAX: usize = 8 * 1_024;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    match data.byte() % 8 {
        0 => envelope(data.0, false),
        1 => envelope(data.0, true),
        2 => post(&mut data),
        3 => frame(data.0),
        4 => redis(&mut data),
        5 => tally(&mut data),
        _ => log(&mut data),
    }
});

fn name(data: &mut Data<'_>, length: usize) -> String {
    String::from_utf8_lossy(data.take(length)).into_owned()
}

/// Whatever is read is what a node writes for it, and members can be told it.
fn envelope(bytes: &[u8], is_kept: bool) {
    let (read, peak) = peak_of(|| letter(bytes, is_kept));
    assert!(peak <= 3 * bytes.len() + BOOKKEEPING_BYTES_MAX, "{peak} bytes for {}", bytes.len());
    let Some(read) = read else { return };
    assert_eq!(written(&read), bytes, "there are two forms of one post");
    tell(&read.2);
}

/// A publication of the log in the words of every dialect: whole frames, whatever somebody called JSON.
fn tell(post: &Post) {
    let Act::Publish { user, payload, .. } = &post.act else { return };
    let position = Position { epoch: 1, offset: 7 };
    let published = Published { position, offset: Some(7), user: user.clone(), payload: payload.clone() };
    let event = RoomEvent::Message(post.room.clone(), published);
    for variant in [Variant::JsonRoom, Variant::JsonRooms, Variant::Text, Variant::Pusher] {
        let mut frame = Vec::new();
        variant.encode(&event, &mut frame);
        let (header, length) = match frame[1] {
            short @ 0..=125 => (2, u64::from(short)),
            126 => (4, u64::from(u16::from_be_bytes([frame[2], frame[3]]))),
            _ => (10, u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes"))),
        };
        assert_eq!(frame.len() as u64, header + length, "one frame and nothing else");
    }
}

/// What a node posts comes back.
fn post(data: &mut Data<'_>) {
    let (what, length) = (data.byte(), usize::from(data.byte() % 64));
    let Ok(room) = RoomName::parse_made(&name(data, length)) else { return };
    let length = usize::from(data.byte() % 64);
    let user = if what & 0x10 == 0 { None } else { UserName::parse(&name(data, length)).ok() };
    let except = (what & 0x20 != 0).then(|| [data.number() as u32, data.number() as u32, u32::MAX]);
    let (node, number) = (data.number() as u64 * 0x1_0001_0001, data.number() as u64);
    let text = Bytes::from(String::from_utf8_lossy(data.0).into_owned());
    let payload = match what % 4 {
        0 => Payload::Json(text),
        1 => Payload::Text(text),
        _ => Payload::Binary(Bytes::copy_from_slice(data.0)),
    };
    let payload_bytes = payload.len();
    let is_kept = what & 0x40 != 0;
    let act = if what % 4 == 3 { Act::Close } else { Act::Publish { user, payload, except, is_kept } };
    let is_kept = is_kept && act != Act::Close;
    let posted: Letter = (node, number, Post { room, act });
    let bytes = written(&posted);
    let head = bytes.len() - if what % 4 == 3 { 0 } else { payload_bytes };
    assert_eq!(letter(&bytes, is_kept), Some(posted));
    for end in 0..head {
        assert_eq!(letter(&bytes[..end], is_kept), None, "the rest is missing");
    }
}

fn frame(bytes: &[u8]) {
    let (read, peak) = peak_of(|| message(bytes));
    assert!(peak <= BOOKKEEPING_BYTES_MAX, "{peak} bytes to read a frame");
    let Some(read) = read else { return };
    assert_eq!(sent(&read), bytes, "there are two forms of one message");
}

/// An answer of Redis, nearly as it should be: every entry keeps its place, and what is read is what stands there.
fn redis(data: &mut Data<'_>) {
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let mut list = Vec::new();
    let mut is_sound = true;
    while !data.is_empty() && list.len() < 4 {
        let id = format!("{}-{}", data.byte(), data.number());
        let mut fields = Vec::new();
        for _ in 0..data.byte() % 5 {
            let (kind, length) = (data.byte(), usize::from(data.byte() % 64));
            let field = data.pick(&["e", "t", "o", "x"]);
            let value = match (kind % 8, field) {
                (0, _) => Value::Nil,
                (1, _) => Value::Array(vec![Value::Int(7), bulk(data.take(length))]),
                (2, "t" | "o") => bulk(data.number().to_string().as_bytes()),
                _ => bulk(data.take(length)),
            };
            fields.extend([if kind == 0xff { Value::Nil } else { bulk(field.as_bytes()) }, value]);
        }
        let fields = if data.byte() == 0xff { Value::Nil } else { Value::Array(fields) };
        let mut entry = vec![bulk(id.as_bytes()), fields];
        if data.byte() >= 0xf0 {
            is_sound = false;
            match data.byte() % 3 {
                0 => entry[0] = bulk(data.take(8)),
                1 => entry.push(Value::Nil),
                _ => _ = entry.pop(),
            }
        }
        list.push(Value::Array(entry));
    }
    let count = list.len();
    let Some(read) = answered(Value::Array(vec![Value::Array(vec![bulk(b"log"), Value::Array(list)])])) else {
        return assert!(!is_sound, "what stands in entries makes the answer none");
    };
    assert_eq!(read.len(), count);
    for Entry { at_ms: _, offset, post, node, number } in read.into_iter().filter_map(|(_, entry)| entry) {
        assert_eq!(letter(&written(&(node, number, post.clone())), offset.is_some()), Some((node, number, post)));
    }
}

/// A tally that somebody wrote down.
fn tally(data: &mut Data<'_>) {
    let mut parts = Vec::new();
    while !data.is_empty() && parts.len() < 4 {
        let length = data.number() % 512;
        parts.push(data.take(length));
    }
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let (read, peak) = peak_of(|| Tallied::read(parts.iter().copied()));
    // A record of ten bytes is an entry of a table that is at most half empty.
    assert!(peak <= 32 * length + BOOKKEEPING_BYTES_MAX, "{peak} bytes for {length}");
    let Some(mut tally) = read else { return };
    let again = tally.written(300);
    let again = Tallied::read(again.iter().map(Vec::as_slice)).expect("our own");
    assert_eq!(again.place(), tally.place());
    // The last number there is no log has; from all others on it is counted.
    if tally.place().1 < u64::MAX {
        let posted: Message<'_> = (0, [1, 1, 0], "lobby", b"");
        _ = tally.count(0, &sent(&posted));
    }
}

/// Messages one after the other, counted by one that was there from the beginning and by one that begins anew every now and then.
fn log(data: &mut Data<'_>) {
    let mut tally = Tallied::begun(1);
    let mut late = tally.clone();
    let mut at_ns = 0;
    let mut rooms: HashMap<&str, u64> = HashMap::new();
    let mut nodes: HashMap<u64, u64> = HashMap::new();
    while !data.is_empty() {
        let kind = data.byte();
        let length = usize::from(data.byte() % 64);
        let room = ["", "a", "b", "c"][usize::from(kind >> 6)];
        let node = u64::from(kind & 3);
        let (number, after) = (u64::from(data.byte() % 16), u64::from(data.byte() % 8));
        let what = match kind >> 2 & 0x0f {
            0 => 1,
            1 => 2,
            _ => 0,
        };
        let posted: Message<'_> = (what, [node, number, after], room, b"");
        let bytes = if kind >> 2 & 0x0f == 2 { data.take(length).to_vec() } else { sent(&posted) };
        // Time does not run backwards, and now and then it is tomorrow.
        at_ns += if length == 63 { 90_000_000_000_000 } else { 1_000_000 };
        if length == 63 {
            // Who has posted nothing for a day may begin again.
            nodes.clear();
        }
        if length % 8 == 7 {
            let parts = late.written(300);
            assert!(parts.iter().all(|part| part.len() <= 300));
            late = Tallied::read(parts.iter().map(Vec::as_slice)).expect("our own");
        }
        let (ruling, other) = (tally.count(at_ns, &bytes), late.count(at_ns, &bytes));
        assert_eq!(ruling, other, "who begins with what was written down counts otherwise");
        assert_eq!(tally.place(), late.place());
        let Some((what, [node, number, _], room, _)) = message(&bytes) else {
            assert_eq!(ruling, None);
            continue;
        };
        if what == 1 {
            rooms.clear();
            nodes.clear();
        }
        let Some(offset) = ruling else { continue };
        assert_eq!(what, 0, "only posts are taken");
        let last = nodes.insert(node, number).unwrap_or(0);
        assert!(number > last, "post {number} of node {node} was taken after {last}");
        assert_eq!(offset.is_none(), room.is_empty());
        if let Some(offset) = offset {
            let room = ["a", "b", "c"].into_iter().find(|&known| known == room);
            let Some(room) = room else { continue };
            let count = rooms.entry(room).or_default();
            *count += 1;
            assert_eq!(offset, *count, "numbers of {room} are dense");
        }
    }
    assert!(tally.len() as u64 <= 2 * tally.place().1, "it knows more than was said");
}
