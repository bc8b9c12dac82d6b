//! Connections of the Pusher dialect: what their clients ask, done. A channel is a room of the application's namespace, and who may enter it
//! the application says, not the namespace's rules.

use std::sync::Arc;

use fanfare_fanout::{Lane, LaneId, RoomId};
use fanfare_guard::Bucket;
use fanfare_protocol::pusher::{
    ChannelName, ChannelRefusal, MemberData, PusherCommand, PusherReply, snapshot, user_of_channel,
};
use fanfare_protocol::{CloseReason, ErrorCode, PayloadRef, ReplyId, RoomName, UserName};
use fanfare_registry::{Joined, NewMember};

use super::ShardLoop;
use super::people::Parting;
use crate::hub::ConnectionId;
use crate::observed::Limit;
use crate::pusher::{App, AppPlace};

/// Of what may be queued for a connection, left to whatever else is queued beside a list of members.
const LIST_SPARE_BYTES: usize = 4_096;

/// What a connection of an application has besides what all have: in a table of the loop's.
#[derive(Debug)]
pub(super) struct Seat {
    place: AppPlace,
    /// The application's place among all.
    pub(super) app: u32,
    /// Client events that it may still send, where that is bounded.
    client_events: Option<Bucket>,
    /// Who has signed in on it.
    pub(super) user: Option<Box<MemberData>>,
    /// Channels whose members are known, with the user that this connection is there. At most as many as it has rooms.
    members: Vec<(RoomId, UserName)>,
}

impl Seat {
    /// The connection leaves a room: as whom, where that is known.
    pub(super) fn leave(&mut self, room: RoomId) -> Option<UserName> {
        let place = self.members.iter().position(|(id, _)| *id == room)?;
        Some(self.members.swap_remove(place).1)
    }

    /// The place of its application, and who has signed in.
    pub(super) fn signed_in(&self) -> Option<(u32, UserName)> {
        self.user.as_deref().map(|user| (self.app, user.user.clone()))
    }

    fn member(&self, room: RoomId) -> Option<&UserName> {
        self.members.iter().find(|(id, _)| *id == room).map(|(_, user)| user)
    }
}

impl ShardLoop {
    /// First words: the connection's public id.
    pub(super) fn greet_app(&mut self, lane: LaneId, app: u32) {
        let Some(pusher) = self.settings.pusher.clone() else { return self.end(lane, CloseReason::AppUnknown) };
        let Some(found) = pusher.apps.get(app as usize) else { return self.end(lane, CloseReason::AppUnknown) };
        let place = match AppPlace::take(found.clone()) {
            Ok(place) => place,
            Err(max) => return self.end(lane, CloseReason::AppFull { max }),
        };
        let rate = found.settings.client_events_per_second_max;
        let client_events = (rate > 0).then(|| Bucket::new(rate, rate));
        self.seats.insert(lane.index, Box::new(Seat { place, app, client_events, user: None, members: Vec::new() }));
        let socket_id = pusher.socket_ids.of(app, ConnectionId { shard: self.index, lane });
        let activity_timeout_s = pusher.activity_timeout_s;
        self.tell_app(lane, &PusherReply::Established { socket_id: &socket_id, activity_timeout_s }, true);
    }

    pub(super) fn perform_pusher(&mut self, lane: LaneId, command: PusherCommand<'_>) {
        match command {
            PusherCommand::Subscribe { channel, auth, channel_data } => {
                if let Err((refusal, error)) =
                    self.subscribe_channel(lane, &channel, auth.as_deref(), channel_data.as_deref())
                {
                    let channel = shown(&channel);
                    self.tell_app(lane, &PusherReply::NotSubscribed { channel, refusal, error: &error }, true);
                }
            }
            PusherCommand::Unsubscribe { channel } => self.unsubscribe_channel(lane, &channel),
            PusherCommand::Ping => self.tell_app(lane, &PusherReply::Pong, false),
            // That it came is all there is to know.
            PusherCommand::Pong => {}
            PusherCommand::SignIn { auth, user_data } => {
                if let Err(why) = self.sign_in(lane, &auth, &user_data) {
                    self.refuse_app(lane, &why);
                }
            }
            PusherCommand::ClientEvent { event, channel, data } => {
                if let Err((code, why)) = self.client_event(lane, &event, &channel, data) {
                    self.refuse(lane, code, &why, ReplyId(None));
                }
            }
        }
    }

    /// Makes a client a member of a channel, and says so.
    ///
    /// # Errors
    /// Why it is none, for the client.
    fn subscribe_channel(
        &mut self,
        lane: LaneId,
        channel: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
    ) -> Result<(), (ChannelRefusal, String)> {
        let Some(app) = self.app_of(lane) else { return Ok(()) };
        // What is said to one user needs no word but the one that he is the one.
        let (name, room) = match user_of_channel(channel) {
            Some(id) => (None, self.users_room(lane, &app, id)?),
            None => {
                let found = channel_and_room(&app, channel).map_err(|why| (ChannelRefusal::BadName, why))?;
                (Some(found.0), found.1)
            }
        };
        if self.member_room(lane, &room).is_some() {
            // It is subscribed all the same, so this is no refusal of the subscription.
            self.refuse_app(lane, &format!("this connection is subscribed to {channel} already"));
            return Ok(());
        }
        if name.is_some_and(ChannelName::needs_auth) {
            self.check_auth(lane, &app, channel, auth, channel_data).map_err(|why| (ChannelRefusal::Auth, why))?;
        }
        let max = self.settings.subscriptions_per_connection_max;
        if self.rooms_of(lane).len() >= max && !self.hub.lets_pass(Limit::Subscriptions) {
            return Err((ChannelRefusal::Limit, format!("this connection has {max} channels already")));
        }
        let refused = |(code, why)| match code {
            ErrorCode::RoomFull | ErrorCode::LimitReached => (ChannelRefusal::Limit, why),
            _ => (ChannelRefusal::Unavailable, why),
        };
        let (joined, data) = if name.is_some_and(ChannelName::is_presence) {
            let member = self.member_of(lane, &app, channel_data).map_err(|why| (ChannelRefusal::Auth, why))?;
            self.enter_as_member(lane, &app, &room, member).map_err(refused)?
        } else {
            (self.enter(lane, &room, None, None).map_err(refused)?, "{}".to_owned())
        };
        let Joined { room, missed, .. } = joined;
        self.tell_app(lane, &PusherReply::Subscribed { channel, data: &data }, true);
        if name.is_some_and(ChannelName::is_cache) && missed.messages.is_empty() {
            self.tell_app(lane, &PusherReply::CacheMiss { channel }, true);
        }
        self.replay_first(lane, &room, None, missed);
        Ok(())
    }

    /// Who a client is in a channel whose members are known: as its application says of this channel, or who has signed in.
    fn member_of(&self, lane: LaneId, app: &App, channel_data: Option<&str>) -> Result<MemberData, String> {
        if let Some(data) = channel_data {
            return MemberData::read(data, app.settings.user_info_bytes_max);
        }
        let signed_in = self.seats.get(&lane.index).and_then(|seat| seat.user.as_deref());
        signed_in.cloned().ok_or_else(|| "channel_data is missing, and nobody has signed in".to_owned())
    }

    /// Takes a place in a channel whose members are known; who they are then comes with it.
    fn enter_as_member(
        &mut self,
        lane: LaneId,
        app: &App,
        room: &RoomName,
        MemberData { user, info }: MemberData,
    ) -> Result<(Joined, String), (ErrorCode, String)> {
        let (hub, shard, now) = (self.hub.clone(), self.index, self.now);
        let member = NewMember {
            user: &user,
            info: &info,
            members_max: app.settings.presence_members_max,
            list_bytes_max: self.settings.outbox.outbox_bytes_max.saturating_sub(LIST_SPARE_BYTES),
        };
        let take = || hub.registry().join_as_member(room, hub.room_options(room), shard, member, now);
        let (joined, members) = self.enter_by(lane, room, Some(&user), take)?;
        if let Some(seat) = self.seats.get_mut(&lane.index) {
            seat.members.push((joined.room.id(), user));
        }
        let members = members.iter().map(|(user, info)| (user, info.as_deref()));
        Ok((joined, snapshot(members)))
    }

    /// Whether the application lets this client in.
    fn check_auth(
        &self,
        lane: LaneId,
        app: &App,
        channel: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
    ) -> Result<(), String> {
        let auth = auth.ok_or_else(|| format!("subscribing to {channel} needs the application's signature"))?;
        let socket_id = self.socket_id(lane).ok_or_else(String::new)?;
        let (mut signed, parts) = (vec![socket_id.as_str(), ":", channel], channel_data.map(|data| [":", data]));
        signed.extend(parts.into_iter().flatten());
        let signed: Vec<&[u8]> = signed.into_iter().map(str::as_bytes).collect();
        if app.settings.key.vouches(auth, &signed) {
            return Ok(());
        }
        let data = if channel_data.is_some() { " and the channel_data" } else { "" };
        Err(format!("the signature is not that of the application's key over {socket_id}:{channel}{data}"))
    }

    fn unsubscribe_channel(&mut self, lane: LaneId, channel: &str) {
        let Some(app) = self.app_of(lane) else { return };
        let room = match user_of_channel(channel) {
            Some(id) => self.users_room(lane, &app, id).ok(),
            None => channel_and_room(&app, channel).ok().map(|(_, room)| room),
        };
        let Some(name) = room else { return };
        // What was said before this command reaches the leaver first, so all of it must have come in.
        self.send_replies(lane);
        self.take_items(usize::MAX);
        if let Some(room) = self.member_room(lane, &name) {
            self.leave_room(lane, room, Parting::Unsaid, true);
        }
    }

    /// Tells all others in a channel what a client says.
    ///
    /// # Errors
    /// Why nobody is told.
    fn client_event(
        &mut self,
        lane: LaneId,
        event: &str,
        channel: &str,
        data: Option<&str>,
    ) -> Result<(), (ErrorCode, String)> {
        let Some(app) = self.app_of(lane) else { return Ok(()) };
        let refused = |code, why: &str| Err((code, why.to_owned()));
        if !app.settings.client_events {
            return refused(ErrorCode::NotAvailable, "client events are switched off for this application");
        }
        let (name, room) = channel_and_room(&app, channel).map_err(|why| (ErrorCode::BadRoom, why))?;
        if !name.needs_auth() {
            return refused(ErrorCode::NotAllowed, "client events need a private or presence channel");
        }
        let Some(id) = self.member_room(lane, &room) else {
            return refused(ErrorCode::NotSubscribed, &format!("subscribe to {channel} before saying something there"));
        };
        let max = app.settings.event_bytes_max;
        if data.is_some_and(|data| data.len() > max) {
            return refused(ErrorCode::NotAllowed, &format!("the data of an event has at most {max} bytes"));
        }
        let now = self.now;
        let bucket = self.seats.get_mut(&lane.index).and_then(|seat| seat.client_events.as_mut());
        if bucket.is_some_and(|bucket| !bucket.take(now, 1)) {
            return refused(ErrorCode::TooFast, "more client events than this application allows in a second");
        }
        // Made anew: whatever else the client wrote goes nowhere.
        let mut said = br#"{"event":"#.to_vec();
        serde_json::to_writer(&mut said, event).expect("writing a string to memory does not fail");
        if let Some(data) = data {
            said.extend_from_slice(br#","data":"#);
            said.extend_from_slice(data.as_bytes());
        }
        said.push(b'}');
        let said = String::from_utf8(said).expect("it was made of text");
        let user = self.seats.get(&lane.index).and_then(|seat| seat.member(id)).cloned();
        self.publish_allowed(lane, room, user, PayloadRef::Json(&said), true, ReplyId(None));
        Ok(())
    }

    /// The application of a connection; `None` where it has none.
    pub(super) fn app_of(&self, lane: LaneId) -> Option<Arc<App>> {
        self.seats.get(&lane.index).map(|seat| seat.place.app().clone())
    }

    pub(super) fn socket_id(&self, lane: LaneId) -> Option<String> {
        let (seat, pusher) = (self.seats.get(&lane.index)?, self.settings.pusher.as_deref()?);
        Some(pusher.socket_ids.of(seat.app, ConnectionId { shard: self.index, lane }))
    }

    fn refuse_app(&mut self, lane: LaneId, message: &str) {
        self.tell_app(lane, &PusherReply::Error { code: None, message }, true);
    }

    /// Tells one client something, among its replies while it is being read. `keeps_place`: behind what it was told before.
    pub(super) fn tell_app(&mut self, lane: LaneId, reply: &PusherReply<'_>, keeps_place: bool) {
        if self.replies.owner == Some(lane) {
            return reply.encode(self.replies_of(lane, keeps_place));
        }
        let mut frame = Vec::with_capacity(128);
        reply.encode(&mut frame);
        let kind = if keeps_place { Lane::Data } else { Lane::Control };
        self.fanout.reply(lane, kind, &frame, &mut self.sockets);
    }
}

/// A channel, and the room that it is.
fn channel_and_room<'a>(app: &App, channel: &'a str) -> Result<(ChannelName<'a>, RoomName), String> {
    let name = ChannelName::parse(channel)?;
    let room = name.room(&app.settings.namespace).map_err(|error| error.to_string())?;
    Ok((name, room))
}

/// What is returned of a name that may be no channel's.
fn shown(channel: &str) -> &str {
    &channel[..channel.floor_char_boundary(2 * ChannelName::BYTES_MAX)]
}
