//! Users of applications: who signs in on a connection, and what is done about all connections of one.

use std::collections::HashMap;

use fanfare_fanout::LaneId;
use fanfare_protocol::pusher::{ChannelRefusal, MemberData, PusherReply, user_room};
use fanfare_protocol::{CloseReason, RoomName, UserName};

use super::ShardLoop;
use crate::pusher::App;

/// Connections of this shard on which somebody has signed in, by application and user. At most one entry for each connection.
#[derive(Debug, Default)]
pub(super) struct SignedIn {
    by_user: HashMap<(u32, UserName), Vec<LaneId>>,
}

impl SignedIn {
    fn enter(&mut self, app: u32, user: UserName, lane: LaneId) {
        self.by_user.entry((app, user)).or_default().push(lane);
    }

    /// The connection is not there any more.
    pub(super) fn leave(&mut self, app: u32, user: UserName, lane: LaneId) {
        let user = (app, user);
        let Some(lanes) = self.by_user.get_mut(&user) else { return };
        lanes.retain(|known| *known != lane);
        if lanes.is_empty() {
            self.by_user.remove(&user);
        }
    }
}

impl ShardLoop {
    /// Takes a connection for a user's, on its application's word, for as long as it lasts.
    ///
    /// # Errors
    /// Why it is nobody's, for people.
    pub(super) fn sign_in(&mut self, lane: LaneId, auth: &str, user_data: &str) -> Result<(), String> {
        let Some((app, socket_id)) = self.app_of(lane).zip(self.socket_id(lane)) else { return Ok(()) };
        let signed: [&[u8]; 3] = [socket_id.as_bytes(), b"::user::", user_data.as_bytes()];
        if !app.settings.key.vouches(auth, &signed) {
            let text = "the signature is not that of the application's key over";
            return Err(format!("{text} {socket_id}::user:: and the user_data"));
        }
        let user = MemberData::of_user(user_data, app.settings.user_info_bytes_max)?;
        user_room(&app.settings.namespace, &user.user).map_err(|error| format!("user_data.id: {error}"))?;
        let Some(seat) = self.seats.get_mut(&lane.index) else { return Ok(()) };
        match &seat.user {
            Some(known) if known.user != user.user => {
                return Err(format!("somebody else, {}, has signed in on this connection", known.user));
            }
            Some(_) => {}
            None => {
                self.signed_in.enter(seat.app, user.user.clone(), lane);
                seat.user = Some(Box::new(user));
            }
        }
        self.tell_app(lane, &PusherReply::SignedIn { user_data }, true);
        Ok(())
    }

    /// The room of what is said to one user, for a connection on which he has signed in.
    ///
    /// # Errors
    /// Why not for this one.
    pub(super) fn users_room(&self, lane: LaneId, app: &App, id: &str) -> Result<RoomName, (ChannelRefusal, String)> {
        let user = self.seats.get(&lane.index).and_then(|seat| seat.user.as_deref());
        let Some(MemberData { user, .. }) = user.filter(|signed_in| signed_in.user.as_str() == id) else {
            return Err((ChannelRefusal::Auth, "sign in as this user before subscribing to his channel".to_owned()));
        };
        user_room(&app.settings.namespace, user).map_err(|error| (ChannelRefusal::BadName, error.to_string()))
    }

    /// Ends all connections on which a user of an application has signed in. Returns how many.
    pub(super) fn end_app_user(&mut self, app: u32, user: UserName) -> u64 {
        let mut ended = 0;
        for lane in self.signed_in.by_user.get(&(app, user)).cloned().unwrap_or_default() {
            if self.is_open(lane) {
                self.end(lane, CloseReason::Kicked);
                ended += 1;
            }
        }
        ended
    }
}
