//! The HTTP API of applications: `/apps/{id}/…`, as the server libraries of Pusher's kind call it. Its paths, statuses and signatures are
//! theirs, not those of `/api/`.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_protocol::pusher::{ChannelName, data_of, is_presence_room, user_of_channel, user_room};
use fanfare_protocol::{RoomName, UserName};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Map, Value, json};

use super::events::{Event, EventBody, batch_of, body_bytes_max, event_of};
use super::signed::Signed;
use super::{App, PusherSettings};
use crate::api::read_body_up_to;
use crate::hub::Hub;
use crate::problem::{Answer, Problem, json as answer_json, method_not_allowed};
use crate::query;
use crate::wall_clock::wall_clock;

/// Channels in one answer.
const CHANNELS_MAX: usize = 100_000;

/// Events in one batch.
const BATCH_MAX: usize = 10;

/// What may be asked for under an application's path.
enum Route {
    Events,
    BatchEvents,
    Channels,
    Channel(String),
    Users(String),
    Terminate(String),
}

impl Route {
    /// The route at what stands behind the application's id; `None`: there is none.
    fn at(rest: &str) -> Option<Self> {
        let parts: Vec<_> = rest.split('/').collect();
        let name = |part: &str| query::segment(part);
        Some(match parts[..] {
            ["events"] => Self::Events,
            ["batch_events"] => Self::BatchEvents,
            ["channels"] => Self::Channels,
            ["channels", channel] => Self::Channel(name(channel)?),
            ["channels", channel, "users"] => Self::Users(name(channel)?),
            ["users", user, "terminate_connections"] => Self::Terminate(name(user)?),
            _ => return None,
        })
    }

    const fn method(&self) -> Method {
        match self {
            Self::Events | Self::BatchEvents | Self::Terminate(_) => Method::POST,
            Self::Channels | Self::Channel(_) | Self::Users(_) => Method::GET,
        }
    }
}

/// Answers a request under `/apps/`.
pub(crate) async fn answer(hub: &Arc<Hub>, pusher: &PusherSettings, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let Some((id, rest)) = path.strip_prefix("/apps/").and_then(|path| path.split_once('/')) else {
        return nothing_here().answer();
    };
    let Some((place, app)) = query::segment(id).and_then(|id| pusher.by_id(&id)) else {
        return Problem::new(StatusCode::NOT_FOUND, "app_unknown", "no application has this id").answer();
    };
    let Some(route) = Route::at(rest) else { return nothing_here().answer() };
    if *request.method() != route.method() {
        return method_not_allowed(route.method().as_str());
    }
    let call = Call { hub, pusher, place, app };
    call.answer(route, request).await.unwrap_or_else(|problem| problem.answer())
}

fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "nothing is at this path")
}

pub(super) fn bad_request(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

/// A call of an application's.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) hub: &'a Hub,
    pub(super) pusher: &'a PusherSettings,
    /// The application's place among all.
    pub(super) place: u32,
    pub(super) app: &'a App,
}

impl Call<'_> {
    async fn answer(self, route: Route, request: Request<Incoming>) -> Result<Answer, Problem> {
        let (parts, incoming) = request.into_parts();
        let (method, query) = (parts.method.as_str(), parts.uri.query());
        let signed = Signed { method, path: parts.uri.path(), query };
        let key = &self.app.settings.key;
        let unauthorized = |detail| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        signed.check_key_and_time(key, wall_clock()).map_err(unauthorized)?;
        let events = if matches!(route, Route::BatchEvents) { BATCH_MAX } else { 1 };
        let body_max = events * body_bytes_max(&self.app.settings);
        let body = read_body_up_to(self.hub, incoming, body_max).await?;
        signed.check_signature(key, &body).map_err(unauthorized)?;
        if !self.app.settings.is_enabled {
            return Err(Problem::new(StatusCode::FORBIDDEN, "app_disabled", "this application is switched off"));
        }
        match route {
            Route::Events => self.events(&body).await,
            Route::BatchEvents => self.batch(&body).await,
            Route::Channels => self.channels(query),
            Route::Channel(name) => self.channel(&name, query),
            Route::Users(name) => self.users(&name),
            Route::Terminate(user) => self.terminate(&user).await,
        }
    }

    async fn events(self, body: &Bytes) -> Result<Answer, Problem> {
        let event = self.check(event_of(body)?)?;
        let publishing = vec![event];
        self.publish(&publishing).await?;
        let [event] = &publishing[..] else { return Ok(answer_json(StatusCode::OK, &json!({}))) };
        let Some(asked) = event.info else { return Ok(answer_json(StatusCode::OK, &json!({}))) };
        let mut channels = Map::new();
        for (channel, room) in &event.channels {
            channels.insert(channel.clone(), Value::Object(self.attributes(room, asked)));
        }
        Ok(answer_json(StatusCode::OK, &json!({ "channels": channels })))
    }

    async fn batch(self, body: &Bytes) -> Result<Answer, Problem> {
        let bodies = batch_of(body)?;
        if bodies.len() > BATCH_MAX {
            return Err(bad_request(format!("a batch has at most {BATCH_MAX} events")));
        }
        let check = |(index, body): (usize, EventBody<'_>)| {
            let checked = body.of_one_channel().map_err(bad_request).and_then(|body| self.check(body));
            checked
                .map_err(|problem| Problem { detail: format!("batch[{index}]: {}", problem.detail).into(), ..problem })
        };
        let events = bodies.into_iter().enumerate().map(check).collect::<Result<Vec<_>, _>>()?;
        self.publish(&events).await?;
        if events.iter().all(|event| event.info.is_none()) {
            return Ok(answer_json(StatusCode::OK, &json!({})));
        }
        let told = events.iter().map(|event| match (event.info, event.channels.first()) {
            (Some(asked), Some((_, room))) => self.attributes(room, asked),
            _ => Map::new(),
        });
        Ok(answer_json(StatusCode::OK, &json!({ "batch": told.collect::<Vec<_>>() })))
    }

    /// Checks an event; nothing has been published yet.
    fn check(self, body: EventBody<'_>) -> Result<Event, Problem> {
        Event::check(self, body)
    }

    fn channels(self, query: Option<&str>) -> Result<Answer, Problem> {
        let filter = query::parameter(query, "filter_by_prefix").unwrap_or_default();
        let asked = Asked::of_several(query::parameter(query, "info").as_deref())?.unwrap_or_default();
        if asked.user_count && !filter.starts_with("presence-") {
            return Err(bad_request("user_count is told with a filter_by_prefix that begins with presence-"));
        }
        let namespace = format!("{}:", self.app.settings.namespace);
        let rooms = self.hub.registry().list(&format!("{namespace}{filter}"), "", CHANNELS_MAX + 1);
        if rooms.len() > CHANNELS_MAX {
            return Err(bad_request(format!("there are more than {CHANNELS_MAX}: ask with a filter_by_prefix")));
        }
        let mut channels = Map::new();
        for room in rooms.into_iter().filter(|room| room.occupancy > 0) {
            let Some(channel) = room.name.as_str().strip_prefix(&namespace) else { continue };
            // What clients cannot subscribe to is no channel.
            if ChannelName::parse(channel).is_ok() {
                channels.insert(channel.to_owned(), Value::Object(self.attributes(&room.name, asked)));
            }
        }
        Ok(answer_json(StatusCode::OK, &json!({ "channels": channels })))
    }

    fn channel(self, name: &str, query: Option<&str>) -> Result<Answer, Problem> {
        let (channel, room) = self.room(name)?;
        let asked = Asked::read(query::parameter(query, "info").as_deref())?.unwrap_or_default();
        if asked.user_count && !channel.is_presence() {
            return Err(bad_request("user_count is told of presence channels alone"));
        }
        if asked.cache && !channel.is_cache() {
            return Err(bad_request("cache is told of cache channels alone"));
        }
        let mut about = self.attributes(&room, asked);
        about.insert("occupied".to_owned(), Value::Bool(self.occupancy(&room) > 0));
        if asked.cache {
            about.insert("cache".to_owned(), self.cache(&room));
        }
        Ok(answer_json(StatusCode::OK, &about))
    }

    fn users(self, name: &str) -> Result<Answer, Problem> {
        let (channel, room) = self.room(name)?;
        if !channel.is_presence() {
            return Err(bad_request("only presence channels have users"));
        }
        let room = self.hub.registry().get(&room);
        let users = room.map(|room| room.users()).unwrap_or_default();
        let users: Vec<_> = users.iter().map(|user| json!({ "id": user.as_str() })).collect();
        Ok(answer_json(StatusCode::OK, &json!({ "users": users })))
    }

    /// Ends all connections on which a user has signed in. That there are none is no error.
    async fn terminate(self, user: &str) -> Result<Answer, Problem> {
        if let Ok(user) = UserName::parse(user) {
            self.hub.end_app_user(self.place, &user).await;
        }
        Ok(answer_json(StatusCode::OK, &json!({})))
    }

    /// The room that events of this channel go to; one user's is none that can be asked about.
    pub(super) fn target(self, name: &str) -> Result<RoomName, Problem> {
        let Some(id) = user_of_channel(name) else { return self.room(name).map(|(_, room)| room) };
        let user = UserName::parse(id).map_err(|error| bad_request(format!("the user of the channel: {error}")))?;
        let room = user_room(&self.app.settings.namespace, &user);
        room.map_err(|error| bad_request(format!("the user of the channel: {error}")))
    }

    /// A channel by its name, and the room that it is.
    pub(super) fn room(self, name: &str) -> Result<(ChannelName<'_>, RoomName), Problem> {
        let channel = ChannelName::parse(name).map_err(bad_request)?;
        let room = channel.room(&self.app.settings.namespace).map_err(|error| bad_request(error.to_string()))?;
        Ok((channel, room))
    }

    fn occupancy(self, room: &RoomName) -> u64 {
        self.hub.registry().get(room).map_or(0, |room| room.info().occupancy)
    }

    /// The last event of a cache channel, and for how many seconds more it is known.
    fn cache(self, room: &RoomName) -> Value {
        self.hub.registry().cached(room, self.hub.now()).map_or(
            Value::Null,
            |(kept, left)| json!({ "data": data_of(&kept.published.payload), "ttl": left.as_secs_f64().ceil() as u64 }),
        )
    }

    /// What was asked about a channel, as far as it has it.
    fn attributes(self, room: &RoomName, asked: Asked) -> Map<String, Value> {
        let mut told = Map::new();
        if asked.subscription_count {
            told.insert("subscription_count".to_owned(), self.occupancy(room).into());
        }
        if asked.user_count && is_presence_room(room) {
            let users = self.hub.registry().get(room).map_or(0, |room| room.users().len());
            told.insert("user_count".to_owned(), users.into());
        }
        told
    }
}

/// What is asked about a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) subscription_count: bool,
    pub(super) user_count: bool,
    pub(super) cache: bool,
}

impl Asked {
    /// Reads `info`, names with commas between; `None` where there is none.
    pub(super) fn read(info: Option<&str>) -> Result<Option<Self>, Problem> {
        let Some(info) = info.filter(|info| !info.is_empty()) else { return Ok(None) };
        let mut asked = Self::default();
        for name in info.split(',') {
            match name.trim() {
                "subscription_count" => asked.subscription_count = true,
                "user_count" => asked.user_count = true,
                "cache" => asked.cache = true,
                _ => return Err(bad_request("info takes subscription_count, user_count and cache")),
            }
        }
        Ok(Some(asked))
    }

    /// The same of several channels.
    pub(super) fn of_several(info: Option<&str>) -> Result<Option<Self>, Problem> {
        match Self::read(info)? {
            Some(Self { cache: true, .. }) => Err(bad_request("cache is told of one channel: ask for it by name")),
            asked => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_those_of_the_libraries() {
        let method = |rest| Route::at(rest).map(|route| route.method());
        assert_eq!(method("events"), Some(Method::POST));
        assert_eq!(method("batch_events"), Some(Method::POST));
        assert_eq!(method("users/a%2Fb/terminate_connections"), Some(Method::POST));
        for rest in ["channels", "channels/a", "channels/a%20b", "channels/presence-a/users"] {
            assert_eq!(method(rest), Some(Method::GET), "{rest}");
        }
        for rest in ["", "events/", "event", "channels/a/events", "channels/a/users/b", "channels/%ff", "users/a"] {
            assert_eq!(method(rest), None, "{rest}");
        }
    }

    #[test]
    fn attributes_are_asked_for_by_name() {
        let both = Asked { subscription_count: true, user_count: true, cache: false };
        assert_eq!(Asked::read(Some("subscription_count,user_count")).ok(), Some(Some(both)));
        assert_eq!(Asked::read(Some("")).ok(), Some(None));
        assert_eq!(Asked::read(None).ok(), Some(None));
        assert!(Asked::read(Some("subscription_count,x")).is_err());
        assert!(Asked::read(Some("cache")).is_ok() && Asked::of_several(Some("user_count,cache")).is_err());
    }
}
