//! A client: what it says, what it is due, and what it was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanfare_protocol::{CloseReason, Variant};

use super::far::{Reader, client_frame};
use crate::dice::Dice;

/// What a room has for a client, in the room's order. Answers that keep their place among it are part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Message { number: usize, offset: Option<u64>, user: Option<String> },
    Joined(Option<String>),
    Left(Option<String>),
    Closed,
    Subscribed { epoch: u64, offset: u64, id: u64 },
    Unsubscribed { id: u64 },
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
    /// The room of a `/room/…` connection.
    pub(super) own: Option<usize>,
    /// Bytes sent that the gateway has not read.
    pub(super) uplink: VecDeque<u8>,
    /// Nothing follows what is in the uplink.
    pub(super) has_hung_up: bool,
    pub(super) reader: Reader,
    /// By room. The front is what must come next.
    pub(super) due: BTreeMap<usize, VecDeque<Due>>,
    /// Bytes of all frames that were made for it.
    pub(super) due_bytes: u64,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// Ids of those that asked for a room it was in already: their answers keep no place.
    pub(super) asked_again: BTreeSet<u64>,
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
    next_id: u64,
}

/// Longest message in a run.
pub(super) const MESSAGE_BYTES_MAX: usize = 400;
/// Most fragments of a message in a run.
pub(super) const FRAGMENTS_MAX: usize = 5;
/// Bad messages in a row that are one too many.
pub(super) const BAD_MAX: u8 = 4;

impl Client {
    pub(super) fn new(variant: Variant, own: Option<usize>) -> Self {
        Self {
            variant,
            own,
            uplink: VecDeque::new(),
            has_hung_up: false,
            reader: Reader::default(),
            due: BTreeMap::new(),
            due_bytes: 0,
            asked: BTreeMap::new(),
            asked_again: BTreeSet::new(),
            not_for_itself: BTreeSet::new(),
            bad: (0, 0),
            pings: VecDeque::new(),
            rude: None,
            ended: None,
            told: None,
            next_id: 0,
        }
    }

    pub(super) fn speaks_json(&self) -> bool {
        matches!(self.variant, Variant::JsonRoom | Variant::JsonRooms)
    }

    /// Nothing more is said after a close frame, a hang-up or a broken frame.
    pub(super) fn may_speak(&self) -> bool {
        !self.has_hung_up && self.rude.is_none() && self.told.is_none()
    }

    /// Sends a data message, in up to [`FRAGMENTS_MAX`] fragments, sometimes with a ping among them.
    pub(super) fn send(&mut self, opcode: u8, message: &[u8], dice: &mut Dice) {
        let fragments = if dice.percent(70) { 1 } else { 1 + dice.below(FRAGMENTS_MAX) };
        let mut rest = message;
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
        let is_json = self.speaks_json();
        let (reason, frames): (CloseReason, Vec<u8>) = match dice.below(if is_json { 8 } else { 6 }) {
            0 => (CloseReason::ProtocolError("client frames must be masked"), vec![0x81, 1, b'x']),
            1 => (CloseReason::ProtocolError("reserved bits are set"), vec![0xc1, 0x81]),
            2 => (CloseReason::ProtocolError("continuation without a message"), vec![0x80, 0x80]),
            3 => (CloseReason::BadUtf8, frame(0x81, b"\xff\xfe")),
            4 => {
                let max = MESSAGE_BYTES_MAX;
                (CloseReason::MessageTooBig { max }, frame(0x82, &[b'x'; MESSAGE_BYTES_MAX + 1]))
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
        client_frame(0x88, &1000u16.to_be_bytes(), &mut self.uplink);
        self.has_hung_up = true;
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    client_frame(first, payload, &mut out);
    out
}
