//! What clients make of what they hear.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::{Event, Position, Variant};
use serde_json::Value;

use super::client::{Asked, Due, Owed};
use super::far::{Heard, client_frame};
use super::world::World;

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
        for heard in self.clients[n].reader.read(&received) {
            assert_eq!(self.clients[n].told, None, "something follows the close frame");
            match heard {
                Heard::Json(object) => self.hear_json(n, &object, None),
                Heard::Streamed(object, id) => self.hear_json(n, &object, id),
                Heard::Comment => {}
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

    /// `streamed`: the id of its event, on a stream.
    fn hear_json(&mut self, n: usize, object: &Value, streamed: Option<Position>) {
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
                let offset = object.get("offset").map(|offset| offset.as_u64().expect("a number"));
                let due = Due::Message { number, offset, user: field("user") };
                return self.take_message(n, room.expect("a message of a room names it"), &due, streamed);
            }
            "gap" => {
                let [from, to, count] = ["from", "to", "count"].map(|name| number(name).expect("a number"));
                return self.take_gap(n, room.expect("a gap of a room names it"), (from, to, count));
            }
            "joined" => Due::Joined(field("user")),
            "left" => Due::Left(field("user")),
            "room_closed" => Due::Closed,
            "subscribed" => {
                let epoch = u64::from_str_radix(&field("epoch").expect("an epoch"), 16).expect("an epoch");
                let offset = number("offset").expect("an offset");
                let recovered = object["recovered"].as_bool().expect("true or false");
                if id.is_some() || self.clients[n].own.is_none() {
                    self.answered(n, id, Asked::Subscribe);
                }
                let room = room.expect("it names the room");
                let resumes = self.clients[n].resumes.remove(&id.unwrap_or(0));
                self.remember(n, room, Position { epoch, offset }, resumes && recovered, streamed);
                Due::Subscribed { epoch, offset, recovered, id: id.unwrap_or(0) }
            }
            "unsubscribed" => {
                self.answered(n, id, Asked::Unsubscribe);
                self.clients[n].known.remove(&room.expect("it names the room"));
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

    /// Where the stream stands for a client that is in the room from here on.
    fn remember(&mut self, n: usize, room: usize, told: Position, recovers: bool, streamed: Option<Position>) {
        let client = &mut self.clients[n];
        let known = client.known.get(&room).copied();
        match known.filter(|_| recovers) {
            // What it missed comes next.
            Some(known) => {
                assert!(known.epoch == told.epoch && known.offset <= told.offset, "{known} is before {told}");
                if let Some(id) = streamed {
                    assert!((known.offset..=told.offset).contains(&id.offset), "{id} says where the stream goes on");
                }
                // `subscribed` itself is due first.
                let next = client.due.get(&room).and_then(|due| due.get(1)).map(|owed| (&owed.due, owed.position));
                let is_next = match next {
                    Some((Due::Message { .. }, at)) => at.is_some_and(|at| at.offset == known.offset + 1),
                    Some((Due::Lost { from, .. }, _)) => *from == known.offset + 1,
                    // It was closed, or is told when it has taken what comes before.
                    Some(_) => true,
                    None if client.ended.is_some() => true,
                    None => self.lives.iter().any(|life| life.epoch == Some(told.epoch) && life.behind.contains(&n)),
                };
                assert!(is_next || known == told, "client {n} has all up to {known} of {told}, and gets {next:?}");
            }
            None => _ = client.known.insert(room, told),
        }
        assert_eq!(streamed.is_some(), self.clients[n].only_listens(), "a stream says where it goes on");
        assert!(streamed.is_none_or(|id| id.epoch == told.epoch && id.offset <= told.offset), "a position of the room");
    }

    fn next_due(&mut self, n: usize, room: usize) -> Option<Owed> {
        self.clients[n].due.get_mut(&room).and_then(std::collections::VecDeque::pop_front)
    }

    /// This and nothing else comes next in the room's order.
    fn take_due(&mut self, n: usize, room: usize, due: &Due) -> Owed {
        let next = self.next_due(n, room);
        assert_eq!(next.as_ref().map(|owed| &owed.due), Some(due), "client {n} in room {room}");
        self.totals.received += 1;
        next.expect("it is there")
    }

    fn take_message(&mut self, n: usize, room: usize, due: &Due, streamed: Option<Position>) {
        if let Due::Message { number, .. } = due {
            assert!(!self.clients[n].not_for_itself.contains(number), "client {n} hears what it said to others alone");
        }
        let at = self.take_due(n, room, due).position.expect("a publication has a position");
        if self.clients[n].only_listens() {
            assert_eq!(streamed, Some(at), "a message's id is its position");
        }
        // Its numbers rise over all its connections; only the last value of a room may be told again.
        // On a path of its own it may not have been told where the stream stood.
        let Some(known) = self.clients[n].known.insert(room, at) else { return };
        let may_know = self.options(room).last_value && known == at;
        assert!(known.epoch == at.epoch && (known.offset < at.offset || may_know), "{at} after {known}");
    }

    /// What was not kept, and is due as that; or publications that the room's policy dropped: those that would have come next.
    fn take_gap(&mut self, n: usize, room: usize, (from, to, count): (u64, u64, u64)) {
        self.totals.gaps += 1;
        assert!(from <= to && count > 0 && count <= to + 1 - from, "{from} to {to}: {count}");
        if let Some(known) = self.clients[n].known.get_mut(&room) {
            assert!(known.offset < from, "a gap from {from} after {known}");
            known.offset = to;
        }
        let due = self.clients[n].due.get_mut(&room).expect("something is due");
        if due.front().is_some_and(|owed| owed.due == Due::Lost { from, to }) {
            assert_eq!(count, to + 1 - from);
            due.pop_front();
            return;
        }
        let is_message = |owed: &Owed| matches!(owed.due, Due::Message { .. });
        let (mut missing, mut last) = (0, None);
        for _ in 0..count {
            // Who came and went meanwhile is told behind the gap.
            let at = due.iter().position(is_message).expect("no more is missing than was said");
            assert!(last.is_some() || at == 0, "a gap stands where the first of its messages would");
            let owed = due.remove(at).expect("it is there");
            missing += owed.droppable.unwrap_or_else(|| panic!("{owed:?} is never dropped"));
            last = owed.position.map(|position| position.offset);
            assert!(last >= Some(from), "the first that is missing is {from}: {owed:?}");
        }
        assert_eq!(last, Some(to), "the last that is missing");
        self.totals.missed += count;
        let mut frame = Vec::new();
        self.clients[n].variant.encode_event(&Event::Gap { room: &self.names[room], from, to, count }, &mut frame);
        let client = &mut self.clients[n];
        client.due_bytes = client.due_bytes + frame.len() as u64 - missing;
    }

    fn hear_plain(&mut self, n: usize, message: &[u8]) {
        let room = self.clients[n].own.expect("the text dialect has one room");
        let next = self.next_due(n, room).map(|owed| owed.due);
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
            Asked::Subscribe => matches!(code, "overloaded" | "limit_reached"),
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
}
