//! A client: what it says, what it is due, and what it was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanfare_protocol::wire::Window;
use fanfare_protocol::{CloseReason, Position, Variant, WireForm};

use super::far::{Reader, client_frame};
use crate::dice::Dice;

/// What a room has for a client, in the room's order. Answers that keep their place among it are part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Message {
        number: usize,
        offset: Option<u64>,
        user: Option<String>,
    },
    Joined(Option<String>),
    Left(Option<String>),
    Closed,
    /// 0 stands for no id.
    Subscribed {
        epoch: u64,
        offset: u64,
        recovered: bool,
        id: u64,
    },
    Unsubscribed {
        id: u64,
    },
    /// What was not kept until it could be told again.
    Lost {
        from: u64,
        to: u64,
    },
}

/// Something that is due, and what must be known where it is not told.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) due: Due,
    /// Where a publication stands in its room's stream.
    pub(super) position: Option<Position>,
    /// Bytes of its frame, where the room's policy may drop it and a gap take its place.
    pub(super) droppable: Option<u64>,
}

impl From<Due> for Owed {
    fn from(due: Due) -> Self {
        Self { due, position: None, droppable: None }
    }
}

/// What a client takes along when it comes back.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) variant: Variant,
    pub(super) window: Option<Window>,
    pub(super) own: Option<usize>,
    /// The last position it saw, by room.
    pub(super) known: BTreeMap<usize, Position>,
}

/// What was asked for, by id; each has exactly one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    CloseRoom,
    Ping,
    /// No such command.
    Unknown,
    /// A room's name that breaks the rules.
    BadRoom,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) variant: Variant,
    /// What it agreed to be sent messages compressed with.
    pub(super) window: Option<Window>,
    /// The room of a `/room/…` connection.
    pub(super) own: Option<usize>,
    /// The last position it saw, by room: of this connection or one before.
    pub(super) known: BTreeMap<usize, Position>,
    /// Ids of the commands that asked for what it missed; 0 where its path did.
    pub(super) resumes: BTreeSet<u64>,
    /// Bytes sent that the gateway has not read.
    pub(super) uplink: VecDeque<u8>,
    /// Nothing follows what is in the uplink.
    pub(super) has_hung_up: bool,
    pub(super) reader: Reader,
    /// By room. The front is what must come next.
    pub(super) due: BTreeMap<usize, VecDeque<Owed>>,
    /// Bytes of all frames that were made for it, but for those it was told that a gap stands for.
    pub(super) due_bytes: u64,
    /// It has been in a room that drops: until its queue is empty nobody knows how many bytes it will get.
    pub(super) may_miss: bool,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Numbers of what it published and must not hear.
    pub(super) not_for_itself: BTreeSet<usize>,
    /// Unreadable messages sent, and errors without an id that told so.
    pub(super) bad: (usize, usize),
    /// Pings sent, with what is due in their pongs.
    pub(super) pings: VecDeque<Vec<u8>>,
    /// The reason it broke a rule for: it must be closed with this and nothing else may close it so.
    pub(super) rude: Option<CloseReason>,
    /// Why the gateway ended it.
    pub(super) ended: Option<CloseReason>,
    /// What the close frame said.
    pub(super) told: Option<(u16, String)>,
    /// Bytes that the client of an event stream has sent.
    pub(super) said: usize,
    next_id: u64,
}

/// Longest message in a run.
pub(super) const MESSAGE_BYTES_MAX: usize = 800;
/// Most fragments of a message in a run.
pub(super) const FRAGMENTS_MAX: usize = 5;
/// Bytes that the client of an event stream may send.
pub(super) const IGNORED_BYTES_MAX: usize = 300;
/// Bad messages in a row that are one too many.
pub(super) const BAD_MAX: u8 = 4;

impl Client {
    pub(super) fn new(memory: Memory) -> Self {
        let Memory { variant, window, own, known } = memory;
        Self {
            variant,
            window,
            own,
            known,
            resumes: BTreeSet::new(),
            uplink: VecDeque::new(),
            has_hung_up: false,
            reader: Reader::new(variant, window),
            due: BTreeMap::new(),
            due_bytes: 0,
            may_miss: false,
            asked: BTreeMap::new(),
            not_for_itself: BTreeSet::new(),
            bad: (0, 0),
            pings: VecDeque::new(),
            rude: None,
            ended: None,
            told: None,
            said: 0,
            next_id: 0,
        }
    }

    pub(super) fn speaks_json(&self) -> bool {
        matches!(self.variant, Variant::JsonRoom | Variant::JsonRooms)
    }

    /// What it takes its messages in.
    pub(super) fn form(&self) -> WireForm {
        WireForm::new(self.variant, self.window)
    }

    pub(super) fn only_listens(&self) -> bool {
        self.variant == Variant::Sse
    }

    /// It will hear this next of the room, after what it is due already.
    pub(super) fn owe(&mut self, room: usize, owed: impl Into<Owed>) {
        self.due.entry(room).or_default().push_back(owed.into());
    }

    /// Nothing more is said after a close frame, a hang-up or a broken frame.
    pub(super) fn may_speak(&self) -> bool {
        !self.has_hung_up && self.rude.is_none() && self.told.is_none()
    }

    /// Sends a data message, in up to [`FRAGMENTS_MAX`] fragments, sometimes with a ping among them.
    pub(super) fn send(&mut self, opcode: u8, message: &[u8], dice: &mut Dice) {
        let fragments = if dice.percent(70) { 1 } else { 1 + dice.below(FRAGMENTS_MAX) };
        let is_deflated = self.window.is_some() && dice.percent(50);
        let deflated = if is_deflated { stored(message) } else { Vec::new() };
        let (mut rest, opcode) = if is_deflated { (&deflated[..], 0x40 | opcode) } else { (message, opcode) };
        for fragment in 0..fragments {
            let is_last = fragment + 1 == fragments;
            let (part, after) = rest.split_at(if is_last { rest.len() } else { dice.below(rest.len() + 1) });
            rest = after;
            let opcode = if fragment == 0 { opcode } else { 0 };
            client_frame(if is_last { 0x80 | opcode } else { opcode }, part, &mut self.uplink);
            if !is_last && dice.percent(20) {
                self.ping(dice);
            }
        }
    }

    pub(super) fn ping(&mut self, dice: &mut Dice) {
        let payload = vec![b'p'; dice.below(20)];
        client_frame(0x89, &payload, &mut self.uplink);
        self.pings.push_back(payload);
    }

    /// Sends a command of the JSON dialect. Those whose fate is to be told get an id.
    pub(super) fn command(&mut self, name: &str, fields: &str, asked: Option<Asked>, dice: &mut Dice) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let mut text = format!("{{\"name\":\"{name}\"{fields}");
        if let Some(asked) = asked {
            self.asked.insert(id, asked);
            // Both kinds of id; they come back as they were written.
            let written = if id.is_multiple_of(2) { format!("{id}") } else { format!("\"{id}\"") };
            text.push_str(&format!(",\"id\":{written}"));
        }
        text.push('}');
        self.send(1, text.as_bytes(), dice);
        id
    }

    /// Breaks a rule. Everything after it is lost on the gateway.
    pub(super) fn be_rude(&mut self, dice: &mut Dice) {
        if self.only_listens() {
            self.rude = Some(CloseReason::ProtocolError("an event stream only listens"));
            return self.uplink.extend([b'x'; IGNORED_BYTES_MAX + 1]);
        }
        let is_json = self.speaks_json();
        let (reason, frames): (CloseReason, Vec<u8>) = match dice.below(if is_json { 8 } else { 6 }) {
            0 if self.window.is_some() && dice.percent(50) => (CloseReason::BadDeflate, frame(0xc1, b"\xff\xff\xff")),
            0 => (CloseReason::ProtocolError("client frames must be masked"), vec![0x81, 1, b'x']),
            1 => (CloseReason::ProtocolError("reserved bits are set"), vec![0xa1, 0x81]),
            2 => (CloseReason::ProtocolError("continuation without a message"), vec![0x80, 0x80]),
            3 => (CloseReason::BadUtf8, frame(0x81, b"\xff\xfe")),
            4 => {
                let (max, message) = (MESSAGE_BYTES_MAX, [b'x'; MESSAGE_BYTES_MAX + 1]);
                // Compressed it may be somewhat longer on its way, not when it has been inflated.
                let is_deflated = self.window.is_some() && dice.percent(50);
                let frames = if is_deflated { frame(0xc2, &stored(&message)) } else { frame(0x82, &message) };
                (CloseReason::MessageTooBig { max }, frames)
            }
            5 => {
                let mut frames = frame(0x01, b"a");
                (0..FRAGMENTS_MAX).for_each(|_| frames.extend(frame(0x00, b"b")));
                (CloseReason::TooManyFragments, frames)
            }
            6 => (CloseReason::BinaryNotAllowed, frame(0x82, b"x")),
            _ => (CloseReason::BadMessages, frame(0x81, b"?").repeat(BAD_MAX.into())),
        };
        if reason == CloseReason::BadMessages {
            self.bad.0 += usize::from(BAD_MAX) - 1;
        }
        self.rude = Some(reason);
        self.uplink.extend(frames);
    }

    pub(super) fn close(&mut self) {
        self.has_hung_up = true;
        // An event stream has no close frames.
        if self.only_listens() {
            return;
        }
        client_frame(0x88, &1000u16.to_be_bytes(), &mut self.uplink);
    }
}

/// A message compressed as badly as can be: RFC 7692 section 7.2.3.3.
fn stored(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16;
    let mut out = vec![0];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend_from_slice(message);
    out.push(0);
    out
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    client_frame(first, payload, &mut out);
    out
}
