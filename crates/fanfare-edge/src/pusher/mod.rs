//! Applications of the Pusher dialect: who they are, who comes in to them, and their connections' public ids.

mod api;
mod events;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod signed;
mod socket_id;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_guard::{ApplicationKey, Identity};
use fanfare_protocol::pusher::PROTOCOLS;
use fanfare_protocol::{CloseReason, Dialect, Mode, Session};
use hyper::Request;

pub(crate) use self::api::answer;
pub(crate) use self::socket_id::SocketIds;
use crate::admission::{Admission, check_origin};
use crate::hub::Hub;
use crate::query;

/// What the edge is told of one application.
#[derive(Debug, Clone)]
pub struct PusherAppSettings {
    /// Its name in the paths of its HTTP API.
    pub id: String,
    /// What it signs with.
    pub key: ApplicationKey,
    /// Its channels are the rooms of this namespace, which no other application has.
    pub namespace: String,
    /// Whether its clients are let in.
    pub is_enabled: bool,
    /// Whether clients may publish events of their own.
    pub client_events: bool,
    /// Client events a second of one connection, and so many at once; 0: no bound. Beyond: refused.
    pub client_events_per_second_max: u32,
    /// Data of an event, bytes. Beyond: refused.
    pub event_bytes_max: usize,
    /// Users in a presence channel. Beyond: refused, but for connections of those who are there.
    pub presence_members_max: usize,
    /// What is told of one of them, bytes. Beyond: refused.
    pub user_info_bytes_max: usize,
    /// Connections at the same time; 0: no bound. Beyond: close 4100.
    pub connections_max: usize,
}

/// An application.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) settings: PusherAppSettings,
    /// Connections that have a place, on all shards.
    open: AtomicUsize,
}

/// All applications of a node, from its start to its end.
#[derive(Debug)]
pub struct PusherSettings {
    pub(crate) apps: Vec<Arc<App>>,
    pub(crate) socket_ids: SocketIds,
    /// What clients are told as their time of silence.
    pub(crate) activity_timeout_s: u64,
}

impl PusherSettings {
    /// Of these applications. `secret` is the dice: ids of connections cannot be guessed without it, and are never those of another run.
    #[must_use]
    pub fn new(apps: Vec<PusherAppSettings>, activity_timeout_s: u64, secret: [u8; 32]) -> Self {
        let apps = apps.into_iter().map(|settings| Arc::new(App { settings, open: AtomicUsize::new(0) })).collect();
        Self { apps, socket_ids: SocketIds::new(secret), activity_timeout_s }
    }

    /// The application with this id in paths, and its place among all.
    fn by_id(&self, id: &str) -> Option<(u32, &Arc<App>)> {
        let place = self.apps.iter().position(|app| app.settings.id == id)?;
        Some((place as u32, &self.apps[place]))
    }

    /// The application with this key, and its place among all.
    fn by_key(&self, key: &str) -> Option<(u32, &App)> {
        let place = self.apps.iter().position(|app| app.settings.key.key() == key)?;
        Some((place as u32, &self.apps[place]))
    }
}

/// One of an application's places for connections; given back when dropped.
#[derive(Debug)]
pub(crate) struct AppPlace(Arc<App>);

impl AppPlace {
    /// A place, unless all are taken.
    ///
    /// # Errors
    /// How many there are.
    pub(crate) fn take(app: Arc<App>) -> Result<Self, usize> {
        let max = app.settings.connections_max;
        let taken = app.open.fetch_add(1, Ordering::Relaxed);
        // Given back with this, whether or not there was one.
        let place = Self(app);
        if max > 0 && taken >= max { Err(max) } else { Ok(place) }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.0
    }
}

impl Drop for AppPlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets a client of an application in. Whoever may not come is closed with a code: after the status of a refused handshake the libraries
/// would come back for ever.
pub(crate) fn admit<B>(hub: &Hub, request: &Request<B>, key: &str) -> Admission {
    let settings = hub.settings();
    let key = query::segment(key);
    let found = key.zip(settings.pusher.as_deref()).and_then(|(key, pusher)| pusher.by_key(&key));
    let refused = match found {
        None => Some(CloseReason::AppUnknown),
        Some((_, app)) if !app.settings.is_enabled => Some(CloseReason::AppDisabled),
        Some(_) if check_origin(hub, request).is_err() => Some(CloseReason::AppOrigin),
        Some(_) => refused_protocol(request.uri().query()),
    };
    let place = found.map_or(u32::MAX, |(place, _)| place);
    let session = Session::new(Mode::App(place), Dialect::Pusher);
    Admission { session, identity: Identity::default(), token: None, refused, since: None }
}

fn refused_protocol(query: Option<&str>) -> Option<CloseReason> {
    let Some(version) = query::parameter(query, "protocol") else {
        return Some(CloseReason::AppProtocol(4008, "the parameter protocol is missing: 5, 6 and 7 are spoken here"));
    };
    let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Some(CloseReason::AppProtocol(4006, "the parameter protocol is a whole number"));
    }
    let is_spoken = version.parse().is_ok_and(|version| PROTOCOLS.contains(&version));
    (!is_spoken).then_some(CloseReason::AppProtocol(4007, "this protocol is not spoken here: 5, 6 and 7 are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_protocol_are_told_apart() {
        let code = |query| refused_protocol(query).map(|reason| reason.code().0);
        for (query, expected) in [
            (None, Some(4008)),
            (Some("client=js"), Some(4008)),
            (Some("protocol=7&client=js&version=8.6.0&flash=false"), None),
            (Some("protocol=5"), None),
            (Some("protocol=6"), None),
            (Some("protocol=4"), Some(4007)),
            (Some("protocol=8"), Some(4007)),
            (Some("protocol=99999999999"), Some(4007)),
            (Some("protocol="), Some(4006)),
            (Some("protocol=seven"), Some(4006)),
            (Some("protocol=-7"), Some(4006)),
            (Some("protocol=+7"), Some(4006)),
        ] {
            assert_eq!(code(query), expected, "{query:?}");
        }
    }

    #[test]
    fn places_are_given_back_also_by_those_who_got_none() {
        let settings = PusherAppSettings {
            id: "1".to_owned(),
            key: ApplicationKey::new("k", b"s"),
            namespace: "n".to_owned(),
            is_enabled: true,
            client_events: false,
            client_events_per_second_max: 0,
            event_bytes_max: 1,
            presence_members_max: 1,
            user_info_bytes_max: 1,
            connections_max: 2,
        };
        let pusher = PusherSettings::new(vec![settings], 120, [0; 32]);
        let take = || AppPlace::take(pusher.apps[0].clone());
        let (first, second) = (take().expect("a place"), take().expect("a place"));
        assert_eq!(take().err(), Some(2));
        assert_eq!(take().err(), Some(2));
        drop(first);
        let third = take().expect("the place is free again");
        drop((second, third));
        assert_eq!(pusher.apps[0].open.load(Ordering::Relaxed), 0);
    }
}
