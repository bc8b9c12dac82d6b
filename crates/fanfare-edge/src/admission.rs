//! Who comes in: origin, identity, room and dialect, from the request alone.
//!
//! What is malformed is refused over HTTP. Who may not come in is let in and closed with a code at once: a browser's page learns a close code, but
//! never the status of a refused handshake, and would come back for ever.

use fanfare_guard::{GuestKey, Identity};
use fanfare_protocol::{CloseReason, Dialect, Mode, Position, RoomName, Session, UserName};
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use hyper::{Request, StatusCode};

use crate::Settings;
use crate::counters::Handshake;
use crate::hub::Hub;
use crate::problem::Problem;
use crate::pusher;
use crate::query;
use crate::token::{HeldToken, refusal};
use crate::upgrade::{TOKEN_PROTOCOL, only, protocols};
use crate::wall_clock::wall_clock;

/// Which path was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door<'a> {
    Rooms,
    /// The room's name as it stands in the path.
    Room(&'a str),
    /// The same, of an event stream.
    EventStream(&'a str),
    Echo,
    HelloWorld,
    /// The key of an application of the Pusher dialect, as it stands in the path.
    App(&'a str),
}

impl<'a> Door<'a> {
    /// The door at this path, if there is one.
    pub(crate) fn at(path: &'a str, settings: &Settings) -> Option<Self> {
        match path {
            "/ws" => Some(Self::Rooms),
            "/echo" => settings.echo.then_some(Self::Echo),
            "/helloworld" => settings.echo.then_some(Self::HelloWorld),
            _ => {
                if let Some(key) = path.strip_prefix("/app/").filter(|_| settings.pusher.is_some()) {
                    return (!key.contains('/')).then_some(Self::App(key));
                }
                let room = path.strip_prefix("/room/")?;
                let (name, door) = match room.strip_suffix("/sse") {
                    Some(name) => (name, Self::EventStream(name)),
                    None => (room, Self::Room(room)),
                };
                (!name.contains('/')).then_some(door)
            }
        }
    }
}

/// A client whose handshake is finished.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) session: Session,
    pub(crate) identity: Identity,
    /// What is kept of its token, if it brought one.
    pub(crate) token: Option<Box<HeldToken>>,
    /// Why it is closed at once.
    pub(crate) refused: Option<CloseReason>,
    pub(crate) since: Option<Position>,
}

type Refusal = (Handshake, Problem);

/// Decides who comes in, and as whom.
pub(crate) fn admit<B>(hub: &Hub, request: &Request<B>, door: Door<'_>) -> Result<Admission, Refusal> {
    if let Door::App(key) = door {
        return Ok(pusher::admit(hub, request, key));
    }
    check_origin(hub, request)?;
    let query = request.uri().query();
    let mode = match door {
        Door::Rooms => Mode::Rooms,
        Door::Echo => Mode::Echo,
        Door::HelloWorld => Mode::HelloWorld,
        Door::App(_) => Mode::App(u32::MAX),
        Door::Room(name) | Door::EventStream(name) => Mode::Room(room(name)?),
    };
    let dialect = match door {
        Door::EventStream(_) => stream_dialect(query)?,
        Door::Rooms | Door::Room(_) | Door::Echo | Door::HelloWorld | Door::App(_) => dialect(&mode, query)?,
    };
    let last_event = matches!(door, Door::EventStream(_)).then(|| last_event(request)).flatten();
    let since = match last_event {
        Some(since) => Some(since),
        None => query::parameter(query, "since").map(|since| since.parse().map_err(bad_request)).transpose()?,
    };
    let session = Session::new(mode, dialect);
    let (identity, token, refused) = match identify(hub, request)? {
        Ok((identity, token)) => (identity, token, None),
        Err(reason) => (Identity::default(), None, Some(reason)),
    };
    Ok(Admission { session, identity, token, refused, since })
}

fn bad_request(detail: &'static str) -> Refusal {
    (Handshake::Malformed, Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail))
}

pub(crate) fn check_origin<B>(hub: &Hub, request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = only(headers, HOST).and_then(|host| host.to_str().ok());
    let is_allowed = match only(headers, ORIGIN) {
        Some(origin) => origin.to_str().is_ok_and(|origin| hub.settings().origins.allows(Some(origin), host)),
        None => !headers.contains_key(ORIGIN),
    };
    if is_allowed {
        return Ok(());
    }
    let detail = "pages of this origin may not connect; the operator can allow it under `origins`";
    Err((Handshake::Origin, Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail)))
}

fn room(name: &str) -> Result<RoomName, Refusal> {
    let bad = |detail: String| (Handshake::BadRoom, Problem::new(StatusCode::BAD_REQUEST, "bad_room", detail));
    let name = query::segment(name).ok_or_else(|| bad("the room's name is not UTF-8".to_owned()))?;
    RoomName::parse(&name).map_err(|error| bad(error.to_string()))
}

fn dialect(mode: &Mode, query: Option<&str>) -> Result<Dialect, Refusal> {
    let joins = query::parameter(query, "join_newline").is_some_and(|value| value == "1" || value == "true");
    match (mode, query::parameter(query, "format").as_deref()) {
        // No events are told there: what comes back is what was said.
        (Mode::Echo | Mode::HelloWorld, _) => Ok(Dialect::Text),
        (Mode::App(_), _) => Ok(Dialect::Pusher),
        (_, None | Some("json")) => Ok(Dialect::Json),
        (Mode::Room(_), Some("text")) => Ok(if joins { Dialect::TextJoined } else { Dialect::Text }),
        (_, Some("text")) => Err(bad_request("format=text is spoken on /room/{room} only")),
        (_, Some(_)) => Err(bad_request("format must be json or text")),
    }
}

/// An event stream has one language; asking for it by name is no error.
fn stream_dialect(query: Option<&str>) -> Result<Dialect, Refusal> {
    match query::parameter(query, "format").as_deref() {
        None | Some("json" | "sse") => Ok(Dialect::Sse),
        Some(_) => Err(bad_request("an event stream carries JSON; other formats are spoken over WebSocket")),
    }
}

/// Where an event stream broke off: it is newer than what its address says, because `EventSource` comes back to the same address. An id
/// that is none of ours is a position that no room has: there was a gap.
fn last_event<B>(request: &Request<B>) -> Option<Position> {
    const NOWHERE: Position = Position { epoch: u64::MAX, offset: 0 };
    let id = only(request.headers(), HeaderName::from_static("last-event-id")).filter(|id| !id.is_empty())?;
    Some(id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(NOWHERE))
}

/// Who the client is, and the token that says so; or why it is not believed.
type Identified = Result<(Identity, Option<Box<HeldToken>>), CloseReason>;

fn identify<B>(hub: &Hub, request: &Request<B>) -> Result<Identified, Refusal> {
    let settings = hub.settings();
    if let Some(token) = token(request) {
        if settings.guests && GuestKey::is_meant(&token) {
            let verified = settings.guest_key.verify(&token, wall_clock());
            return Ok(verified.map(guest).map_err(refusal));
        }
        let verified = hub.verify_token(&token);
        return Ok(verified.map(|(identity, token)| (identity, Some(Box::new(token)))).map_err(refusal));
    }
    let Some(name) = query::parameter(request.uri().query(), "name").filter(|name| !name.is_empty()) else {
        return Ok(Ok((Identity::default(), None)));
    };
    if !settings.guests {
        return Ok(Err(CloseReason::TokenRefused("a name needs a token here: guests may not choose one")));
    }
    match UserName::guest(&name) {
        Ok(user) => Ok(Ok(guest((user, hub.next_guest())))),
        Err(error) => Err((Handshake::Malformed, Problem::new(StatusCode::BAD_REQUEST, "bad_name", error.to_string()))),
    }
}

/// A guest's identity: a name of his own, and no more rights than others have.
fn guest((user, number): (UserName, u64)) -> (Identity, Option<Box<HeldToken>>) {
    (Identity { user: Some(user), guest: Some(number), ..Identity::default() }, None)
}

/// The token a client brought: in the query, the `Authorization` header, or as a subprotocol entry.
fn token<B>(request: &Request<B>) -> Option<String> {
    let bearer = || {
        let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    let entry = || protocols(request.headers()).find_map(|entry| entry.strip_prefix(TOKEN_PROTOCOL)).map(str::to_owned);
    query::parameter(request.uri().query(), "token").filter(|token| !token.is_empty()).or_else(bearer).or_else(entry)
}
