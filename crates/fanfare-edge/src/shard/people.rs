//! A connection and its user: the name it is known by, from its first words to its end, and the rooms he is missed in.

use std::sync::Arc;

use fanfare_fanout::LaneId;
use fanfare_protocol::{CloseReason, Mode, UserName};
use fanfare_registry::{Owner, Place, Room};

use super::ShardLoop;

/// Users missed in one turn.
const MISSED_PER_TURN: usize = 256;

/// How a member parts from its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// It tells the others.
    Says,
    /// It wants to be there no more, or the room has ended.
    Unsaid,
    /// Its connection has ended: its user may be back in a moment.
    Lost,
}

impl ShardLoop {
    /// Makes a connection known under its user's name. `false`: the name is somebody else's.
    pub(super) fn take_name(&mut self, lane: LaneId) -> bool {
        let (hub, now) = (self.hub.clone(), self.now);
        let place = self.place(lane);
        let Some(connection) = self.connection(lane) else { return true };
        // Nobody is met there.
        if matches!(connection.session.mode(), Mode::Echo | Mode::HelloWorld) {
            return true;
        }
        let Some(user) = connection.identity.user.clone() else { return true };
        let owner = connection.identity.guest.map_or(Owner::Token, Owner::Guest);
        let Ok(displaced) = hub.users().come(&user, owner, place, now) else { return false };
        connection.known_as = Some(user);
        hub.end_places(&displaced, CloseReason::NameTaken);
        true
    }

    /// The connection ends.
    pub(super) fn give_name_back(&mut self, lane: LaneId) {
        let place = self.place(lane);
        let known_as = self.connection(lane).and_then(|connection| connection.known_as.take());
        if let Some(user) = known_as {
            self.hub.users().go(&user, place, self.now);
        }
    }

    /// A member has parted from its room. The others miss a user whose connection was lost when he has not come back in time.
    pub(super) fn part(&mut self, room: &Arc<Room>, user: Option<&UserName>, parting: Parting) {
        let registry = self.hub.registry();
        let debounce = self.hub.settings().presence_debounce;
        match user {
            Some(user) if parting == Parting::Lost && !debounce.is_zero() => {
                if let Some(absence) = registry.lose(room, self.index, user) {
                    self.absences.push_back((self.now + debounce, absence));
                }
            }
            _ => registry.leave(room, self.index, user, parting == Parting::Says),
        }
    }

    /// Looks at those who have been away for long enough, a bounded number.
    pub(super) fn miss_absent(&mut self) {
        for _ in 0..MISSED_PER_TURN {
            let now = self.now;
            let Some((_, absence)) = self.absences.pop_front_if(|(due, _)| *due <= now) else { return };
            self.hub.registry().miss(absence);
        }
    }

    fn place(&self, lane: LaneId) -> Place {
        Place { shard: self.index, lane }
    }
}
