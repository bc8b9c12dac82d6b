//! A canary that comes in by the listener, as its shard's loop sees it: a newcomer to the end. It is heard and answered in the same ways as others,
//! and becomes no connection: it is not counted, takes nobody's place, and no drain waits for it.

use std::os::fd::OwnedFd;

use fanfare_fanout::{Lane, LaneId};
use fanfare_protocol::wire::{Decoder, Input};
use hyper::Request;

use super::ShardLoop;
use super::begin::wire_form;
use super::newcomers::Awaits;
use crate::admission::Door;
use crate::canary::Visit;
use crate::source::Source;
use crate::upgrade;

impl ShardLoop {
    /// It has come in here.
    pub(super) fn receive_canary(&mut self, socket: OwnedFd, visit: &Visit) {
        visit.land(self.index);
        let awaits = if visit.speaks_tls { Awaits::Tls } else { Awaits::Head };
        let permit = self.hub.gate().wave_through();
        let lane = self.receive_newcomer(socket, permit, Source::Client(None), awaits);
        if let Some(newcomer) = lane.and_then(|lane| self.newcomers.get_mut(lane.index)) {
            newcomer.is_canary = true;
        }
    }

    /// Its handshake has come: it is considered as all are, answered, and what follows is waited for.
    pub(super) fn answer_canary(&mut self, lane: LaneId, request: &Request<()>, rest: Vec<u8>) {
        let Ok((switching, admission)) = upgrade::consider(&self.hub, request, Door::Room("canary")) else {
            return self.send_away(lane);
        };
        let mut answer = Vec::new();
        switching.write(&mut answer);
        self.fanout.set_variant(lane, wire_form(&admission.session).index());
        self.fanout.reply(lane, Lane::Data, &answer, &mut self.sockets);
        if let Some(newcomer) = self.newcomers.get_mut(lane.index) {
            newcomer.awaits = Awaits::CanaryWord;
        }
        self.hear_canary(lane, rest);
    }

    /// It says something: that goes to all in its room, and so comes back to it.
    pub(super) fn hear_canary(&mut self, lane: LaneId, bytes: Vec<u8>) {
        let hub = self.hub.clone();
        let Some(canary) = hub.canaries().get(self.index) else { return };
        let mut decoder = Decoder::new();
        let mut frame = bytes.clone();
        match decoder.next_with(&mut frame, &self.settings.messages, false) {
            Ok((_, Some(Input::Message(_)))) => {
                self.fanout.join(lane, canary.visited.id(), 0);
                hub.registry().say_hidden(&canary.visited);
            }
            // Not the whole of it yet.
            Ok((_, None)) => {
                if let Some(newcomer) = self.newcomers.get_mut(lane.index) {
                    newcomer.head = bytes;
                }
            }
            Ok((_, Some(_))) | Err(_) => self.send_away(lane),
        }
    }

    /// It goes: a canary may be in its room.
    pub(super) fn leave_canary_room(&mut self, lane: LaneId) {
        if let Some(canary) = self.hub.canaries().get(self.index) {
            self.fanout.leave_unsent(lane, canary.visited.id());
        }
    }
}
