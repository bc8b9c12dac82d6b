//! What clients make of what they hear, and what must hold after every step.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::{CloseReason, Variant};
use serde_json::Value;

use super::client::{Asked, Due};
use super::far::{Heard, client_frame};
use super::shell::Phase;
use super::world::{OUTBOX, World};

/// The number that every message of a run carries.
pub(super) fn number_in(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    text.split('#').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no number in {text}"))
}

impl World {
    /// A client looks at what has come, and answers what wants an answer.
    pub(super) fn hear(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        let wire = self.shards[connection.shard].1.at(connection.lane);
        if wire.received.is_empty() {
            return;
        }
        let received = std::mem::take(&mut wire.received);
        let is_json = self.clients[n].speaks_json();
        for heard in self.clients[n].reader.read(&received, is_json) {
            assert_eq!(self.clients[n].told, None, "something follows the close frame");
            match heard {
                Heard::Json(object) => self.hear_json(n, &object),
                Heard::Plain(messages, is_text) => {
                    let is_joined = self.clients[n].variant == Variant::TextJoined && is_text;
                    assert!(is_joined || messages.len() == 1, "one message each");
                    messages.iter().for_each(|message| self.hear_plain(n, message));
                }
                Heard::Ping => {
                    if !self.clients[n].has_hung_up && self.clients[n].rude.is_none() {
                        client_frame(0x8a, &[], &mut self.clients[n].uplink);
                    }
                }
                Heard::Pong(payload) => {
                    assert_eq!(self.clients[n].pings.pop_front(), Some(payload), "pongs in the order of pings");
                }
                Heard::Close(code, text) => self.hear_close(n, code, text),
            }
        }
    }

    fn hear_json(&mut self, n: usize, object: &Value) {
        let field = |name: &str| object.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let number = |name: &str| object.get(name).and_then(Value::as_u64);
        let name = field("name").expect("every event has a name");
        let id = object.get("id").map(|id| match id {
            Value::Number(number) => number.as_u64().expect("an even id is a number"),
            Value::String(text) => text.parse().expect("an odd id is a text"),
            other => panic!("id {other}"),
        });
        let room = match (self.clients[n].own, field("room")) {
            (Some(own), None) => Some(own),
            (None, Some(room)) => Some(room.trim_start_matches("room:").parse().expect("a room of this run")),
            (None, None) => None,
            (Some(_), Some(room)) => panic!("{room} is named on a connection that has only one"),
        };
        let due = match name.as_str() {
            "welcome" => {
                assert!(self.clients[n].reader.whole > 0);
                return;
            }
            "message" => {
                let message = object.get("message").expect("a message has a message");
                let number = match message {
                    Value::String(text) if object.get("encoding").is_some() => {
                        number_in(&STANDARD.decode(text).expect("base64"))
                    }
                    Value::String(text) => number_in(text.as_bytes()),
                    other => number_in(other["text"].as_str().expect("a text").as_bytes()),
                };
                Due::Message { number, offset: self.offset_of(object), user: field("user") }
            }
            "joined" => Due::Joined(field("user")),
            "left" => Due::Left(field("user")),
            "room_closed" => Due::Closed,
            "subscribed" => {
                self.answered(n, id, Asked::Subscribe);
                let epoch = u64::from_str_radix(&field("epoch").expect("an epoch"), 16).expect("an epoch");
                let offset = number("offset").expect("an offset");
                let id = id.expect("an id");
                if self.clients[n].asked_again.remove(&id) {
                    return;
                }
                Due::Subscribed { epoch, offset, id }
            }
            "unsubscribed" => {
                self.answered(n, id, Asked::Unsubscribe);
                Due::Unsubscribed { id: id.expect("an id") }
            }
            "ack" => return self.hear_ack(n, object, id),
            "presence" => return self.answered(n, id, Asked::Presence),
            "pong" => return self.answered(n, id, Asked::Ping),
            "error" => return self.hear_error(n, &field("code").expect("a code"), id),
            other => panic!("event {other}"),
        };
        self.take_due(n, room.expect("an event of a room names it"), &due);
    }

    fn offset_of(&self, object: &Value) -> Option<u64> {
        object.get("offset").map(|offset| offset.as_u64().expect("a number"))
    }

    /// This and nothing else comes next in the room's order.
    fn take_due(&mut self, n: usize, room: usize, due: &Due) {
        if let Due::Message { number, .. } = due {
            assert!(!self.clients[n].not_for_itself.contains(number), "client {n} hears what it said to others alone");
        }
        let next = self.clients[n].due.get_mut(&room).and_then(std::collections::VecDeque::pop_front);
        assert_eq!(next.as_ref(), Some(due), "client {n} in room {room}");
        self.totals.received += 1;
    }

    fn hear_plain(&mut self, n: usize, message: &[u8]) {
        let room = self.clients[n].own.expect("the text dialect has one room");
        let next = self.clients[n].due.get_mut(&room).and_then(std::collections::VecDeque::pop_front);
        let Some(Due::Message { number, .. }) = next else { panic!("client {n} got {message:?}, not {next:?}") };
        assert_eq!(number_in(message), number, "client {n} in room {room}");
        self.totals.received += 1;
    }

    /// Each command with an id has one answer.
    fn answered(&mut self, n: usize, id: Option<u64>, what: Asked) {
        let id = id.expect("an answer names what it answers");
        assert_eq!(self.clients[n].asked.remove(&id), Some(what), "answer {id} of client {n}");
    }

    fn hear_ack(&mut self, n: usize, object: &Value, id: Option<u64>) {
        self.answered(n, id, Asked::Publish);
        let publication = self.acks[&(n, id.expect("an id"))];
        let (delivery, _) = self.told.lock()[&publication];
        let told = ["delivered", "dropped", "evicted"].map(|name| object[name].as_u64().expect("a number"));
        assert_eq!(told, [delivery.delivered, delivery.dropped, delivery.evicted]);
        self.totals.acks += 1;
    }

    fn hear_error(&mut self, n: usize, code: &str, id: Option<u64>) {
        let Some(id) = id else {
            if code == "bad_message" {
                self.clients[n].bad.1 += 1;
                assert!(self.clients[n].bad.1 <= self.clients[n].bad.0, "more complaints than bad messages");
            } else {
                // A publication without an id that could not be taken.
                assert!(matches!(code, "overloaded" | "limit_reached"), "{code}");
            }
            return;
        };
        let asked = self.clients[n].asked.remove(&id).expect("an answer to something that was asked, once");
        let is_right = match asked {
            Asked::Subscribe => code == "limit_reached",
            Asked::Unsubscribe | Asked::Presence | Asked::CloseRoom => code == "not_subscribed",
            Asked::Publish => matches!(code, "overloaded" | "limit_reached"),
            Asked::Unknown => code == "unknown_command",
            Asked::BadRoom => code == "bad_room",
            Asked::Ping => false,
        };
        assert!(is_right, "{asked:?} was answered {code}");
    }

    fn hear_close(&mut self, n: usize, code: u16, text: String) {
        let client = &mut self.clients[n];
        let reason = client.ended.expect("a close frame comes from an end");
        assert_eq!((code, text.as_str()), (reason.code().0, &*reason.text()));
        client.told = Some((code, text));
        if !client.has_hung_up {
            client.close();
        }
    }

    // ---- after every step ----

    pub(super) fn check_step(&mut self) {
        let mut queued = 0;
        for n in 0..self.clients.len() {
            self.hear(n);
            queued += self.check_account(n);
        }
        assert_eq!(self.budget.used(), queued, "the budget is what is queued");
        if self.dice.percent(5) {
            self.check_totals();
        }
    }

    /// Received and queued is what is due, to the byte, where the shard has nothing left to do; never more. Returns what is queued.
    fn check_account(&mut self, n: usize) -> usize {
        let Some(connection) = &self.connections[n] else { return 0 };
        let (fanout, _) = &self.shards[connection.shard];
        let waiting = fanout.queued(connection.lane);
        assert!(waiting.messages <= OUTBOX.outbox_messages_max, "client {n} has {waiting:?} queued");
        let queued = waiting.bytes;
        let client = &self.clients[n];
        // Joined messages are fewer bytes than the frames they are made of.
        if connection.phase != Phase::Open || client.variant == Variant::TextJoined {
            return queued;
        }
        let has = client.reader.whole + client.reader.rest() + queued as u64;
        assert!(has <= client.due_bytes, "client {n} has {has} bytes of {}", client.due_bytes);
        let intake = &self.registry.shards()[connection.shard];
        if intake.is_empty() && fanout.is_flushed() && fanout.next_wait().is_none() {
            assert_eq!(has, client.due_bytes, "client {n} stayed and must have, or be owed, everything");
            self.totals.exact += 1;
        }
        queued
    }

    // ---- at the end of a run ----

    /// After everything was let through.
    pub(super) fn check_client(&mut self, n: usize) {
        let client = &self.clients[n];
        let missing: usize = client.due.values().map(std::collections::VecDeque::len).sum();
        let Some(reason) = client.ended else {
            assert_eq!(missing, 0, "client {n} stayed and lacks something: {:?}", client.due);
            assert!(client.asked.is_empty(), "client {n} asked and was not answered: {:?}", client.asked);
            assert_eq!(client.bad.0, client.bad.1, "every bad message of client {n} is told");
            assert!(client.pings.is_empty(), "every ping of client {n} has its pong");
            assert_eq!(client.rude, None, "client {n} broke a rule and was not closed");
            assert_eq!(self.phase(n), Some(Phase::Open));
            return;
        };
        let got = client.reader.whole + client.reader.rest();
        self.totals.lost += client.due_bytes - got.min(client.due_bytes);
        match &client.told {
            Some(_) if reason == CloseReason::Left => assert_eq!(missing, 0, "client {n} left and lacks something"),
            Some(_) => assert_eq!(client.reader.rest(), 0, "part of a frame follows the last one"),
            // It was gone, did not read to the end, or could not be told; the run counts the last.
            None => {}
        }
    }

    pub(super) fn check_receipts(&mut self) {
        let told = self.told.lock();
        let last = self.clock.load(Ordering::Relaxed);
        for publication in self.acks.values() {
            let (delivery, told_at) = told.get(publication).expect("every receipt is told");
            assert!(*told_at <= last);
            let wanted_by = &self.publications[*publication].wanted_by;
            let has_ended = |n: &&usize| self.ends.get(n).is_some_and(|at| at <= told_at);
            let most = wanted_by.len() as u64;
            let least = most - wanted_by.iter().filter(has_ended).count() as u64;
            let counted = delivery.delivered + delivery.evicted;
            assert!((least..=most).contains(&counted), "publication {publication}: {delivery:?} of {least}..={most}");
            assert!(delivery.delivered >= least, "publication {publication}: {delivery:?} of {least}..={most}");
            assert_eq!(delivery.dropped, 0);
            self.totals.evictions_told += delivery.evicted;
        }
    }
}
