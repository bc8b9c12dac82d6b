//! What is said: frames that a model can take apart again.

use std::io::Write;

use fanfare_fanout::{Encode, Gap};

/// A variant whose frames are merged, and one that has no word for some events. Neither has one for a gap.
pub(crate) const MERGING: u8 = 2;
pub(crate) const SPARSE: u8 = 3;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) room: u64,
    pub(crate) seq: u64,
    pub(crate) pad: usize,
    /// Never merged with its neighbours.
    pub(crate) is_alone: bool,
    /// [`SPARSE`] has no word for it.
    pub(crate) is_rare: bool,
    /// No publication: no policy drops it.
    pub(crate) is_notice: bool,
}

impl Said {
    pub(crate) fn text(&self, variant: u8) -> String {
        let letter = char::from(b'a' + (self.seq % 26) as u8);
        format!("{}:{}:{variant}:{}", self.room, self.seq, letter.to_string().repeat(self.pad))
    }
}

impl Encode for Said {
    const VARIANTS: u8 = 4;
    type Tools = ();
    type Room = u64;

    fn encode(&self, variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        if variant == SPARSE && self.is_rare {
            return;
        }
        let (open, close) = if self.is_alone { ('(', ')') } else { ('[', ']') };
        write!(out, "{open}{}{close}", self.text(variant)).expect("memory takes everything");
    }

    fn payload_bytes(&self) -> usize {
        self.pad
    }

    fn number(&self) -> Option<u64> {
        (!self.is_notice).then_some(self.seq)
    }

    fn encode_gap(room: &u64, variant: u8, gap: Gap, out: &mut Vec<u8>) {
        if ![MERGING, SPARSE].contains(&variant) {
            let Gap { from, to, count } = gap;
            write!(out, "<g:{room}:{from}:{to}:{count}>").expect("memory takes everything");
        }
    }

    /// `[a][b](c)[d]` becomes `[a;;b](c)[d]`: as long as it was, so that the model can count bytes.
    fn join(variant: u8, frames: &[u8]) -> Option<Vec<u8>> {
        let mut joined = frames.to_vec();
        let seams: Vec<usize> = (1..frames.len()).filter(|&at| &frames[at - 1..=at] == b"][").collect();
        for &at in &seams {
            joined[at - 1..=at].copy_from_slice(b";;");
        }
        (variant == MERGING && !seams.is_empty()).then_some(joined)
    }
}

pub(crate) fn id_of(item: &str) -> u64 {
    item.split(':').next().and_then(|id| id.parse().ok()).expect("a number")
}

/// Splits a stream into what its frames say, and the number of bytes of a frame that was not finished.
pub(crate) fn parse(mut stream: &[u8]) -> (Vec<String>, usize) {
    let mut items = Vec::new();
    while let Some(&open) = stream.first() {
        let close = match open {
            b'[' => b']',
            b'(' => b')',
            b'<' => b'>',
            _ => panic!("{:?}… is no frame", String::from_utf8_lossy(&stream[..stream.len().min(40)])),
        };
        let Some(end) = stream.iter().position(|&b| b == close) else { return (items, stream.len()) };
        let text = std::str::from_utf8(&stream[1..end]).expect("test frames are text");
        assert!(!text.contains(['[', '(', '<', ']', ')', '>']), "a frame inside a frame: {text}");
        items.extend(text.split(";;").map(str::to_owned));
        stream = &stream[end + 1..];
    }
    (items, 0)
}
