//! From a checked publication to one that was accepted: by its room, by the engine, or to wait for a moderator.

use std::sync::{Arc, OnceLock};

use fanfare_fanout::{Delivery, Receipt};
use fanfare_protocol::{Position, RoomName};
use fanfare_registry::{Draft, PublishError};
use hyper::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::check::{Checked, NewPublication};
use super::refuse_if_over;
use crate::engine::{Engine, Unpublished};
use crate::hub::Hub;
use crate::idempotency::{Outcome, Turn};
use crate::moderation::{HELD_FULL, HeldPublication};
use crate::problem::Problem;

/// A publication that was accepted.
pub(crate) enum Accepted {
    /// Into its room; the word of what became of it is still to come.
    Published { position: Position, delivery: oneshot::Receiver<Delivery> },
    /// To the engine: it has its place, and its word, once it has come back.
    Posted(oneshot::Receiver<Result<(Position, Delivery), Unpublished>>),
    /// For a moderator to see, under this number.
    Held(u64),
    /// One with a key, by this call or by an earlier one.
    Keyed { outcome: watch::Receiver<Outcome>, is_repeat: bool },
}

pub(super) fn accept(hub: &Hub, checked: Checked) -> Result<Accepted, Problem> {
    let publication = match checked {
        Checked::New(publication) => publication,
        Checked::Repeat(outcome) => return Ok(Accepted::Keyed { outcome, is_repeat: true }),
    };
    let NewPublication { room, payload, except, hold, turn, .. } = publication;
    let except = except.map(|id| (id.shard, id.lane));
    if let Some(finding) = hold {
        let held = hub.hold(HeldPublication { room, user: None, payload, except, finding, at: hub.now() });
        let Some(held) = held else {
            return Err(refused(turn, Problem::new(StatusCode::SERVICE_UNAVAILABLE, "held_full", HELD_FULL)));
        };
        return Ok(match turn {
            None => Accepted::Held(held),
            Some(turn) => Accepted::Keyed { outcome: turn.take(|outcome| outcome.held = Some(held)), is_repeat: false },
        });
    }
    let draft = Draft { user: None, payload, except, receipt: None };
    let Some(turn) = turn else { return publish_draft(hub, room, draft) };
    if let Some(engine) = hub.engine() {
        return post_keyed(hub, engine, room, draft, turn);
    }
    let outcome = turn.outcome();
    // Written by the shard that is done last, whether or not the caller still waits.
    let done = move |delivery| outcome.send_modify(|outcome| outcome.delivery = Some(delivery));
    match try_publish(hub, &room, draft, done) {
        Ok(position) => {
            let outcome = turn.take(|outcome| outcome.position = Some(position));
            Ok(Accepted::Keyed { outcome, is_repeat: false })
        }
        Err(problem) => Err(refused(Some(turn), problem)),
    }
}

fn refused(turn: Option<Turn>, problem: Problem) -> Problem {
    if let Some(turn) = turn {
        turn.refuse(&problem);
    }
    problem
}

/// Publishes what a moderator has seen and let go.
pub(crate) fn release(hub: &Hub, publication: HeldPublication) -> Result<Accepted, Problem> {
    refuse_if_over(hub)?;
    let HeldPublication { room, user, payload, except, .. } = publication;
    publish_draft(hub, room, Draft { user, payload, except, receipt: None })
}

/// Publishes what has been checked; nobody may be refused it any more but for bounds.
pub(crate) fn publish_draft(hub: &Hub, room: RoomName, draft: Draft) -> Result<Accepted, Problem> {
    if let Some(engine) = hub.engine() {
        return post(hub, engine, room, draft);
    }
    let (tell, delivery) = oneshot::channel();
    let done = move |delivery| {
        // Whoever asked may have gone; the publication stands all the same.
        let _ = tell.send(delivery);
    };
    let position = try_publish(hub, &room, draft, done)?;
    Ok(Accepted::Published { position, delivery })
}

/// Posts a publication to the engine; the answer waits until it has come back.
fn post(hub: &Hub, engine: &Engine, room: RoomName, draft: Draft) -> Result<Accepted, Problem> {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let place = Arc::new(OnceLock::new());
    let (known, done) = (place.clone(), tell.clone());
    // Whoever asked may have gone; the publication stands all the same.
    let say = |tell: &Mutex<Option<oneshot::Sender<_>>>, word| _ = tell.lock().take().map(|tell| tell.send(word));
    let receipt = Receipt::new(move |delivery| {
        if let Some(&position) = known.get() {
            say(&done, Ok((position, delivery)));
        }
    });
    let on_return = Box::new(move |result| match result {
        Ok(position) => _ = place.set(position),
        Err(why) => say(&tell, Err(why)),
    });
    let draft = Draft { receipt: Some(Arc::new(receipt)), ..draft };
    hub.post(engine, room, draft, on_return).map_err(unpublished)?;
    Ok(Accepted::Posted(told))
}

/// The same under an idempotency key, which is free again if it does not come back.
fn post_keyed(hub: &Hub, engine: &Engine, room: RoomName, draft: Draft, turn: Turn) -> Result<Accepted, Problem> {
    let (outcome, seen) = (turn.outcome(), turn.outcome().subscribe());
    let done = move |delivery| outcome.send_modify(|outcome| outcome.delivery = Some(delivery));
    let on_return = Box::new(move |result| match result {
        Ok(position) => drop(turn.take(|outcome| outcome.position = Some(position))),
        Err(why) => turn.refuse(&unpublished(why)),
    });
    let draft = Draft { receipt: Some(Arc::new(Receipt::new(done))), ..draft };
    hub.post(engine, room, draft, on_return).map_err(unpublished)?;
    Ok(Accepted::Keyed { outcome: seen, is_repeat: false })
}

/// Why something that was to be posted was not, or has not come back.
pub(crate) fn unpublished(why: Unpublished) -> Problem {
    let (status, code) = match why {
        Unpublished::Away => (StatusCode::SERVICE_UNAVAILABLE, "engine_away"),
        Unpublished::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "engine_unknown"),
        Unpublished::Full => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
        Unpublished::RoomsMax => (StatusCode::SERVICE_UNAVAILABLE, "rooms_max"),
        Unpublished::TooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    };
    Problem::new(status, code, why.to_string())
}

fn try_publish(
    hub: &Hub,
    room: &RoomName,
    draft: Draft,
    done: impl FnOnce(Delivery) + Send + 'static,
) -> Result<Position, Problem> {
    let receipt = Some(Arc::new(Receipt::new(done)));
    let mentions = hub.may_mention(room, &draft.payload).then(|| (draft.user.clone(), draft.payload.clone()));
    match hub.registry().publish(room, hub.room_options(room), Draft { receipt, ..draft }, hub.now()) {
        Ok(receipted) => {
            if let Some((user, payload)) = mentions {
                hub.keep_mentions(room, user.as_ref(), &payload);
            }
            Ok(receipted.position)
        }
        Err(error) => {
            let (status, code) = match error {
                PublishError::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
                PublishError::RoomsMax => (StatusCode::SERVICE_UNAVAILABLE, "rooms_max"),
                PublishError::TooFast => (StatusCode::TOO_MANY_REQUESTS, "messages_per_second_max"),
            };
            Err(Problem::new(status, code, error.to_string()))
        }
    }
}
