//! What is said to a user rather than to a room: to all his connections, or into his inbox.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Delivery, Receipt};
use fanfare_guard::Ruling;
use fanfare_protocol::{Dialect, Event, Payload, PayloadRef, RoomName, UserName};
use fanfare_registry::{Item, Letter, Place, Ring, Routed};

use crate::hub::Hub;
use crate::shard::Order;
use crate::wall_clock::wall_clock;

/// What senders are told when a shard is over its bound.
pub(crate) const OVERLOADED: &str = "this node cannot take more messages now; try again";

/// Connections may end while something is on its way to them, and the user may be back by then: after so many tries it is kept.
const TRIES_MAX: u8 = 3;

/// The ring of direct messages in an inbox; mentions have those of their namespaces.
const DIRECT: u64 = 0;

/// Something said to a user.
#[derive(Debug)]
pub struct Direct {
    to: UserName,
    /// In the JSON dialect, as it is told live and later.
    pub(crate) frame: Bytes,
    at: Duration,
    ring: Ring,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Connections it was written to, or queued for within their bounds.
    pub delivered: u64,
    /// It waits in the user's inbox.
    pub queued: bool,
}

/// Told what became of it, on whichever thread knows.
pub(crate) type Done = Box<dyn FnOnce(Sent) + Send>;

impl Direct {
    fn letter(&self) -> Letter {
        Letter { frame: self.frame.clone(), at: self.at, ring: self.ring }
    }
}

impl Hub {
    /// What moderation makes of a message to a user; `None`: it is refused. There is no room whose moderator could see it, so what would be
    /// held is refused, too.
    pub(crate) fn judge_direct(&self, payload: PayloadRef<'_>) -> Option<Payload> {
        let settings = self.settings();
        match self.judge_by(&settings, settings.namespaces.fallback().filter, payload) {
            Ruling::Pass | Ruling::Observe(_) => Some(payload.to_payload()),
            Ruling::Mask(_, masked) => Some(masked),
            Ruling::Reject(_) | Ruling::Hold(_) => None,
        }
    }

    /// Sends to a user. `false`: a shard is over its bound, nobody got it, and `done` is not called.
    #[must_use]
    pub(crate) fn send_to_user(
        self: &Arc<Self>,
        to: UserName,
        from: Option<&UserName>,
        payload: &Payload,
        done: Done,
    ) -> bool {
        let frame = told_frame(payload, from, None);
        let ring = Ring { kind: DIRECT, size: self.settings().namespaces.fallback().inbox_size };
        let direct = Arc::new(Direct { to, frame, at: self.now(), ring });
        dispatch(self, &direct, 1, done).is_ok()
    }
}

/// The frame of something said to a user now.
pub(crate) fn told_frame(message: &Payload, user: Option<&UserName>, mention: Option<&RoomName>) -> Bytes {
    let at_ms = wall_clock().as_millis() as u64;
    let mut frame = Vec::new();
    Dialect::Json.encode_event(&Event::Told { message, user, mention, at_ms }, true, &mut frame);
    frame.into()
}

/// Gives it to the shards of the user's connections, or to his inbox. `Err`: a shard is over its bound.
fn dispatch(hub: &Arc<Hub>, direct: &Arc<Direct>, tries: u8, done: Done) -> Result<(), Done> {
    let places = match hub.users().route(&direct.to, direct.letter(), hub.now()) {
        Routed::To(places) => places,
        Routed::Kept => {
            done(Sent { delivered: 0, queued: true });
            return Ok(());
        }
        Routed::Refused => {
            done(Sent::default());
            return Ok(());
        }
    };
    let (shards, bytes) = (hub.registry().shards(), direct.frame.len());
    for (reserved, place) in places.iter().enumerate() {
        if shards[place.shard].reserve(bytes).is_err() {
            places[..reserved].iter().for_each(|place| shards[place.shard].release(1, bytes));
            return Err(done);
        }
    }
    let receipt = {
        let (hub, direct) = (hub.clone(), direct.clone());
        Arc::new(Receipt::new(move |delivery| delivered(&hub, &direct, tries, delivery, done)))
    };
    for &Place { shard, lane, .. } in &places {
        receipt.expect();
        let (direct, receipt) = (direct.clone(), receipt.clone());
        shards[shard].push(Item::Order(Order::Direct { lane, direct, receipt }));
    }
    receipt.report(Delivery::default());
    Ok(())
}

/// All connections have been offered it. Where none of them was there any more the user is away by now, or back.
fn delivered(hub: &Arc<Hub>, direct: &Arc<Direct>, tries: u8, delivery: Delivery, done: Done) {
    if delivery.delivered > 0 {
        return done(Sent { delivered: delivery.delivered, queued: false });
    }
    let done = if tries < TRIES_MAX {
        match dispatch(hub, direct, tries + 1, done) {
            Ok(()) => return,
            Err(done) => done,
        }
    } else {
        done
    };
    let queued = hub.users().keep(&direct.to, direct.letter(), hub.now());
    done(Sent { delivered: 0, queued });
}
