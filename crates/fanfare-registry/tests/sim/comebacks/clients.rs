//! What clients make of what they hear.

use fanfare_fanout::LaneId;
use fanfare_protocol::Position;

use super::{Client, LAST_VALUE, World};

impl World {
    /// A client takes in all whole frames.
    pub(super) fn hear(&mut self, n: usize) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let received = &mut self.shards[shard].1.at(lane).received;
        let whole = received.iter().rposition(|&byte| byte == b']').map_or(0, |end| end + 1);
        let frames: Vec<u8> = received.drain(..whole).collect();
        for frame in frames.split(|&byte| byte == b']').filter(|frame| !frame.is_empty()) {
            let frame = std::str::from_utf8(&frame[1..]).expect("text").to_owned();
            let fields: Vec<&str> = frame.split('|').collect();
            self.hear_frame(n, lane, &fields);
        }
    }

    pub(super) fn hear_frame(&mut self, n: usize, lane: LaneId, fields: &[&str]) {
        let number = |at: usize| fields[at].parse::<u64>().expect("a number");
        let room = number(0) as usize;
        let shard = self.clients[n].shard;
        let memory = self.clients[n].memories.get_mut(&room).expect("a room it asked for");
        if fields[1] == "S" {
            let told = Position { epoch: number(2), offset: number(3) };
            memory.may_hear_again = memory.position.is_none() && room == LAST_VALUE;
            match memory.position {
                Some(known) if fields[4] == "true" => {
                    assert!(known.epoch == told.epoch && known.offset <= told.offset, "{known} is before {told}");
                }
                _ => memory.position = Some(told),
            }
            return;
        }
        let position = memory.position.as_mut().expect("`subscribed` comes first");
        let is_for =
            |offset: u64| !self.not_for.contains(&(position.epoch, offset, shard, lane.index, lane.generation));
        let next = (position.offset + 1..).find(|&offset| is_for(offset)).expect("there is an end");
        match fields[1] {
            "M" => {
                let is_known = std::mem::take(&mut memory.may_hear_again) && number(2) == position.offset;
                assert!(is_known || number(2) == next, "client {n} in {room} after {position}: {fields:?}, not {next}");
                position.offset = number(2);
                assert_eq!(fields[3], self.lives[&position.epoch].0[number(2) as usize - 1].0);
                self.totals.heard += 1;
            }
            "G" => {
                assert!((position.offset + 1..=next).contains(&number(2)), "a gap begins where the stream ended");
                assert!(number(3) >= number(2));
                self.totals.gaps += number(3) + 1 - number(2);
                position.offset = number(3);
            }
            "C" => memory.is_in = false,
            "J" | "L" => {}
            other => panic!("a frame {other}"),
        }
    }
}
