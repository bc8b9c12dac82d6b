//! What one client got of one room.

use std::collections::VecDeque;

use fanfare_fanout::Gap;

use crate::world::{Client, Due};

impl Client {
    /// What should be seen of a room, in order.
    pub(crate) fn dues_of(&self, room: u64) -> impl Iterator<Item = &Due> {
        self.dues.iter().filter(move |due| due.said.room == room && due.size > 0)
    }
}

/// What a client got of one room, and was told it did not get, against what was for it.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    /// Not accounted for yet, in the order of publishing: what policies may drop, and the rest.
    pub(crate) messages: VecDeque<&'a Due>,
    pub(crate) notices: VecDeque<&'a Due>,
    pub(crate) announced: u64,
}

impl<'a> Account<'a> {
    pub(crate) fn of(client: &'a Client, room: u64) -> Self {
        let (notices, messages) = client.dues_of(room).partition(|due| due.said.is_notice);
        Self { messages, notices, announced: 0 }
    }

    /// Something arrived: all that came before it has arrived or was announced.
    pub(crate) fn get(&mut self, item: &str, variant: u8) -> &'a Due {
        let next = |queue: &VecDeque<&'a Due>| queue.front().map_or(u64::MAX, |due| due.said.seq);
        let (message, notice) = (next(&self.messages), next(&self.notices));
        let queue = if message < notice { &mut self.messages } else { &mut self.notices };
        let due = queue.pop_front().expect("an event that was not for this client");
        assert_eq!(item, due.said.text(variant), "something else was next");
        due
    }

    pub(crate) fn miss(&mut self, gap: Gap) {
        let missed: Vec<u64> = self.messages.drain(..gap.count as usize).map(|due| due.said.seq).collect();
        assert_eq!((missed.first(), missed.last()), (Some(&gap.from), Some(&gap.to)), "{gap:?}");
        self.announced += gap.count;
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.messages.is_empty() && self.notices.is_empty()
    }
}
