//! Events that applications publish over HTTP: read, checked as a whole, and given to rooms.

use fanfare_fanout::LaneId;
use fanfare_guard::{Finding, Ruling};
use fanfare_protocol::pusher::check_event_name;
use fanfare_protocol::{Payload, PayloadRef, RoomName};
use fanfare_registry::Draft;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PusherAppSettings;
use super::api::{Asked, Call, bad_request};
use super::socket_id::has_form;
use crate::api::{Accepted, publish_draft, refuse_if_over, settled, too_large};
use crate::moderation::{HELD_FULL, HeldPublication, REJECTED};
use crate::problem::Problem;

/// Channels of one event.
const CHANNELS_MAX: usize = 100;

/// What a body of one event may come to: every character of its data may be escaped, and there are names.
pub(super) fn body_bytes_max(app: &PusherAppSettings) -> usize {
    6 * app.event_bytes_max + 64 * 1_024
}

/// An event as it was sent. What else stands in it is passed over.
#[derive(Deserialize)]
pub(super) struct EventBody<'a> {
    pub(super) name: String,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    #[serde(default)]
    pub(super) channels: Option<Vec<String>>,
    #[serde(default)]
    pub(super) channel: Option<String>,
    #[serde(default)]
    socket_id: Option<String>,
    #[serde(default)]
    info: Option<String>,
}

impl EventBody<'_> {
    /// The same, if it is for one channel, as events of a batch are.
    pub(super) fn of_one_channel(self) -> Result<Self, &'static str> {
        match &self.channels {
            None => Ok(self),
            Some(channels) if channels.len() == 1 => Ok(self),
            Some(_) => Err("an event of a batch has one channel"),
        }
    }
}

/// Reads the body of `POST …/events`.
pub(super) fn event_of(body: &[u8]) -> Result<EventBody<'_>, Problem> {
    object(body)
}

/// Reads the body of `POST …/batch_events`.
pub(super) fn batch_of(body: &[u8]) -> Result<Vec<EventBody<'_>>, Problem> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        batch: Vec<&'a RawValue>,
    }
    let Batch { batch } = object(body)?;
    batch.into_iter().map(|event| object(event.get().as_bytes())).collect()
}

/// An object: without this look an array would do, whose elements serde takes for the fields in order.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad_request("the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| bad_request(error.to_string()))
}

/// An event that may be published.
pub(super) struct Event {
    /// Each with its room, and once.
    pub(super) channels: Vec<(String, RoomName)>,
    payload: Payload,
    /// The connection that it is not for.
    except: Option<(usize, LaneId)>,
    /// Why it is to wait for a moderator.
    hold: Option<Finding>,
    /// What is to be told of its channels.
    pub(super) info: Option<Asked>,
}

impl Event {
    pub(super) fn check(call: Call<'_>, body: EventBody<'_>) -> Result<Self, Problem> {
        let EventBody { name, data, channels, channel, socket_id, info } = body;
        check_event_name(&name).map_err(bad_request)?;
        let text: String = serde_json::from_str(data.get()).map_err(|_| bad_request("data must be a string"))?;
        let max = call.app.settings.event_bytes_max;
        if text.len() > max {
            return Err(too_large(max));
        }
        let names = match (channels, channel) {
            (Some(channels), _) => channels,
            (None, Some(channel)) => vec![channel],
            (None, None) => return Err(bad_request("channels are missing")),
        };
        if names.is_empty() || names.len() > CHANNELS_MAX {
            return Err(bad_request(format!("an event has 1 to {CHANNELS_MAX} channels")));
        }
        let mut channels: Vec<(String, RoomName)> = Vec::with_capacity(names.len());
        for name in names {
            let room = call.target(&name)?;
            if !channels.iter().any(|(known, _)| *known == name) {
                channels.push((name, room));
            }
        }
        let except = match socket_id {
            None => None,
            Some(id) if !has_form(&id) => return Err(bad_request("socket_id has the form digits.digits")),
            // Whoever had it may have gone: then it is for all.
            Some(id) => {
                call.pusher.socket_ids.read(call.place, &id).map(|connection| (connection.shard, connection.lane))
            }
        };
        let info = Asked::of_several(info.as_deref())?;
        let (payload, hold) = judged(call, &channels[0].1, &payload_of(&name, data))?;
        Ok(Self { channels, payload, except, hold, info })
    }
}

/// The event as rooms have it; its data byte for byte as it was sent.
fn payload_of(name: &str, data: &RawValue) -> String {
    let mut payload = br#"{"event":"#.to_vec();
    serde_json::to_writer(&mut payload, name).expect("writing a string to memory does not fail");
    payload.extend_from_slice(br#","data":"#);
    payload.extend_from_slice(data.get().as_bytes());
    payload.push(b'}');
    String::from_utf8(payload).expect("it was made of text")
}

/// Asks moderation, once for all channels: they are in one namespace.
fn judged(call: Call<'_>, room: &RoomName, payload: &str) -> Result<(Payload, Option<Finding>), Problem> {
    let max = call.hub.settings().messages.message_bytes_max;
    if payload.len() > max {
        return Err(too_large(max));
    }
    let payload = PayloadRef::Json(payload);
    Ok(match call.hub.judge(room, payload) {
        Ruling::Pass | Ruling::Observe(_) => (payload.to_payload(), None),
        Ruling::Mask(_, masked) => (masked, None),
        Ruling::Reject(_) => return Err(Problem::new(StatusCode::FORBIDDEN, "rejected", REJECTED)),
        Ruling::Hold(finding) => (payload.to_payload(), Some(finding)),
    })
}

impl Call<'_> {
    /// Publishes events in their order, and waits until each has its place and was given to its subscribers.
    pub(super) async fn publish(self, events: &[Event]) -> Result<(), Problem> {
        refuse_if_over(self.hub)?;
        let mut accepted: Vec<Accepted> = Vec::new();
        for event in events {
            for (_, room) in &event.channels {
                accepted.extend(self.publish_to(event, room)?);
            }
        }
        for accepted in accepted {
            settled(accepted).await?;
        }
        Ok(())
    }

    fn publish_to(self, event: &Event, room: &RoomName) -> Result<Option<Accepted>, Problem> {
        let (payload, except) = (event.payload.clone(), event.except);
        let Some(finding) = event.hold.clone() else {
            let draft = Draft { user: None, payload, except, receipt: None };
            return publish_draft(self.hub, room.clone(), draft).map(Some);
        };
        let (room, at) = (room.clone(), self.hub.now());
        match self.hub.hold(HeldPublication { room, user: None, payload, except, finding, at }) {
            Some(_) => Ok(None),
            None => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "held_full", HELD_FULL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_passed_on_as_it_was_sent() {
        let body = br#"{"name":"a\"b","channel":"c","data":"{\"x\":\u0031}","tags":{"a":"b"}}"#;
        let event = event_of(body).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(payload_of(&event.name, event.data), r#"{"event":"a\"b","data":"{\"x\":\u0031}"}"#);
    }

    #[test]
    fn bodies_are_objects_with_their_parts() {
        for bad in [
            "",
            "[]",
            "7",
            r#"["a","b"]"#,
            r#"{"name":"a"}"#,
            r#"{"data":"a","channel":"c"}"#,
            r#"{"name":7,"data":"a","channel":"c"}"#,
            r#"{"name":"a","data":"a","channels":"c"}"#,
            r#"{"name":"a","data":"a","channel":["c"]}"#,
            r#"{"name":"a","data":"a","channel":"c","socket_id":7}"#,
        ] {
            assert_eq!(
                event_of(bad.as_bytes()).err().map(|problem| problem.status),
                Some(StatusCode::BAD_REQUEST),
                "{bad}"
            );
        }
        let batch = batch_of(
            br#"{"batch":[{"name":"a","data":"","channel":"c"},{"name":"b","data":"","channels":["c","d"]}]}"#,
        );
        let mut batch =
            batch.unwrap_or_else(|problem| panic!("{problem:?}")).into_iter().map(EventBody::of_one_channel);
        assert!(batch.next().is_some_and(|event| event.is_ok()) && batch.next().is_some_and(|event| event.is_err()));
        assert!(batch_of(br#"{"batch":[["a","","c"]]}"#).is_err() && batch_of(b"[]").is_err());
    }
}
