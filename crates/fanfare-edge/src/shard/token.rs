//! The token of a live connection: its end, the word before that, and a new one in its place.

use std::time::Duration;

use fanfare_fanout::{Lane, LaneId};
use fanfare_guard::{Identity, Revocation, TokenError, TokenMark, Verdict};
use fanfare_protocol::{CloseReason, ErrorCode, Event, Mode, ReplyId, Target};

use super::ShardLoop;
use super::connection::{Connection, Person};
use crate::token::{HeldToken, TokenBeat, refusal, seconds};

const NO_TOKEN: &str = "this connection came without a token; connect with one";
const ANOTHER_USER: &str = "token is of another user; connect with it instead";
const TOO_OFTEN: &str = "too many refreshes; try again in a second";

impl ShardLoop {
    /// Warns a client whose token ends soon, and ends a connection whose token has. When to look again; `None`: it has ended.
    pub(super) fn see_to_token(&mut self, lane: LaneId) -> Option<Duration> {
        let now = self.now;
        loop {
            let Some(token) = self.connection(lane)?.token_mut() else { return Some(Duration::MAX) };
            match token.beat(now) {
                TokenBeat::Wait(until) => return Some(until),
                TokenBeat::Warn(life) => {
                    self.send_event(lane, Lane::Control, &Event::Expires { expires_in: seconds(life) });
                }
                TokenBeat::Expired => {
                    self.end(lane, CloseReason::TokenExpired);
                    return None;
                }
            }
        }
    }

    /// Takes a new token in the place of the one this connection came with. One that does not hold changes nothing.
    pub(super) fn refresh(&mut self, lane: LaneId, token: &str, id: ReplyId<'_>) {
        let (hub, now) = (self.hub.clone(), self.now);
        let Some(connection) = self.connection(lane) else { return };
        let Some(Person { identity: known, token: Some(former), .. }) = connection.person.as_deref_mut() else {
            return self.refuse(lane, ErrorCode::TokenRefused, NO_TOKEN, id);
        };
        // Looking at a token is work, whoever sends it.
        if !former.may_refresh(now) {
            return self.refuse(lane, ErrorCode::LimitReached, TOO_OFTEN, id);
        }
        let (identity, token) = match hub.verify_token(token) {
            Ok(verified) => verified,
            Err(error) => return self.refuse(lane, ErrorCode::TokenRefused, error.text(), id),
        };
        if identity.user != known.user {
            return self.refuse(lane, ErrorCode::TokenRefused, ANOTHER_USER, id);
        }
        let token = token.replaces(former);
        let (due, life) = (token.due(), token.life(now));
        (*known, **former) = (identity, token);
        self.arm_by(lane, due);
        self.answer(lane, &Event::Refreshed { expires_in: life.map(seconds), id });
        self.leave_forbidden(lane);
    }

    /// Closes the connections whose tokens were taken back, and those of a user without a token. How many they were.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> u64 {
        let covers = |connection: &Connection| {
            let user = connection.user();
            let mark = connection.token().map_or(TokenMark { user, ..TokenMark::default() }, |t| t.mark(user));
            connection.is_open() && revocation.covers(mark)
        };
        let found = self.connections.iter().flatten().filter(|connection| covers(connection));
        let lanes: Vec<_> = found.map(|connection| connection.lane).collect();
        for &lane in &lanes {
            self.end(lane, CloseReason::TokenRevoked);
        }
        lanes.len() as u64
    }

    /// Why a connection is closed at once whose token was checked some time ago.
    pub(super) fn refused_meanwhile(&self, identity: &Identity, token: Option<&HeldToken>) -> Option<CloseReason> {
        let mark = token?.mark(identity.user.as_ref());
        self.hub.revocations().covers(mark).then(|| refusal(TokenError::Revoked))
    }

    /// Leaves the rooms that the new token does not open any more.
    fn leave_forbidden(&mut self, lane: LaneId) {
        let hub = self.hub.clone();
        for room in self.rooms_of(lane) {
            let Some(name) = self.rooms.by_id(room).map(|room| room.name().clone()) else { continue };
            let Some(connection) = self.connection(lane) else { return };
            if hub.policy(&name).may_subscribe(connection.identity(), &name) == Verdict::Allow {
                continue;
            }
            if matches!(connection.session.mode(), Mode::Room(_)) {
                return self.end(lane, CloseReason::NotAllowed);
            }
            self.unsubscribe(lane, &Target::Named(name), ReplyId(None), false);
        }
    }
}
