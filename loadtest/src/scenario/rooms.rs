//! Connections spread over rooms; each publication goes to every subscriber of its room. Most scenarios are this one with
//! other numbers, or with something that happens besides.

use anyhow::{Context, ensure};
use fanfare_client::{RoomName, Url};

use super::{Pace, Plan, Room, Via, pace};
use crate::cli::{ChurnArgs, IdleArgs, Publishers, ReturningArgs, RoomsArgs};
use crate::dialect::Dialect;
use crate::pace::Window;

/// What a scenario is, where the arguments say nothing else.
#[derive(Debug)]
pub struct Defaults {
    name: &'static str,
    connections: u32,
    rooms: u32,
    payload: usize,
    /// Publications a second; else one outstanding.
    rate: Option<f64>,
}

const BASE: Defaults = Defaults { name: "rooms", connections: 1_000, rooms: 1, payload: 128, rate: Some(100.0) };

/// `fanfare-load fanout`.
pub const FANOUT: Defaults = Defaults { name: "fanout", rate: None, ..BASE };
/// `fanfare-load rate`.
pub const RATE: Defaults = Defaults { name: "rate", ..BASE };
/// `fanfare-load rooms`.
pub const ROOMS: Defaults = Defaults { name: "rooms", rooms: 100, rate: Some(2_000.0), ..BASE };
/// `fanfare-load large`.
pub const LARGE: Defaults = Defaults { name: "large", connections: 100, payload: 16_384, rate: None, ..BASE };
const STORM: Defaults = Defaults { name: "storm", rooms: 100, ..BASE };
const IDLE: Defaults = Defaults { name: "idle", rooms: 100, ..BASE };
/// `fanfare-load slow`.
pub const SLOW: Defaults = Defaults { name: "slow", connections: 500, payload: 2_048, ..BASE };
const CHURN: Defaults = Defaults { name: "churn", connections: 100, rooms: 10, ..BASE };
const RETURNING: Defaults = Defaults { name: "returning", connections: 200, rooms: 20, rate: Some(200.0), ..BASE };

/// The plan that the arguments ask for.
///
/// # Errors
/// Arguments that do not fit together.
pub fn plan(args: &RoomsArgs, defaults: &Defaults, run: u32) -> anyhow::Result<Plan> {
    let common = &args.common;
    let connections = common.connections.unwrap_or(defaults.connections) as usize;
    let rooms = args.rooms.unwrap_or(defaults.rooms) as usize;
    let per_room = args.publishers_per_room as usize;
    ensure!(connections >= rooms, "{connections} connections cannot fill {rooms} rooms: lower --rooms");
    let fewest = connections / rooms;
    ensure!(
        args.publishers == Publishers::Http || per_room <= fewest,
        "rooms of {fewest} members cannot hold {per_room} publishers: lower --publishers-per-room"
    );
    ensure!(fewest < Window::SUBSCRIBERS_MAX, "a room of {fewest} members is too big for this program");
    let rate = if args.outstanding.is_some() { None } else { args.rate.or(defaults.rate) };
    let base = Url::parse(&common.url)?;
    let plan = Plan::new(defaults.name, common, &base, run)?;
    let via = via(args)?;
    let asks_backend = matches!(&via, Via::Http { api, .. } if api.is_tls());
    let trust = if asks_backend && plan.trust.is_none() { Some(common.trust()?) } else { plan.trust.clone() };
    Ok(Plan {
        rooms: (0..rooms).map(|index| room(&args.room_prefix, &plan, &base, index)).collect::<anyhow::Result<_>>()?,
        connections,
        publishers_per_room: per_room,
        via,
        trust,
        payload_bytes: common.payload.unwrap_or(defaults.payload),
        pace: pace(common, rate, args.outstanding, rooms * per_room)?,
        ..plan
    })
}

/// A few publications after the storm prove that everyone is back.
///
/// # Errors
/// Arguments that do not fit together.
pub fn storm(args: &RoomsArgs, run: u32) -> anyhow::Result<Plan> {
    Ok(Plan { storms: true, ..plan(args, &STORM, run)? })
}

/// One publication in each room proves that everyone was there.
///
/// # Errors
/// Arguments that do not fit together.
pub fn idle(args: &IdleArgs, run: u32) -> anyhow::Result<Plan> {
    let mut plan = plan(&args.rooms, &IDLE, run)?;
    if args.rooms.common.publications.is_none() {
        plan.pace = Pace::Outstanding { window: 1, quota: 1 };
    }
    Ok(Plan { hold: Some(args.hold), leaving: Some(args.leaving), ..plan })
}

/// Roamers besides those who stay.
///
/// # Errors
/// Arguments that do not fit together.
pub fn churn(args: &ChurnArgs, run: u32) -> anyhow::Result<Plan> {
    ensure!(args.rooms.publishers_per_room == 1, "the audit of who comes and goes needs one publisher in each room");
    let plan = plan(&args.rooms, &CHURN, run)?;
    let roamers = args.roamers as usize;
    Ok(Plan { connections: plan.connections + roamers, roamers, ..plan })
}

/// Whoever is sent away or cut off comes back and goes on where it was.
///
/// # Errors
/// Arguments that do not fit together.
pub fn returning(args: &ReturningArgs, run: u32) -> anyhow::Result<Plan> {
    let rooms = &args.rooms;
    ensure!(rooms.common.dialect == Dialect::Json, "positions are told in the JSON dialect: leave --dialect out");
    ensure!(
        rooms.publishers == Publishers::Http && rooms.publishers_per_room == 1,
        "who publishes must not be closed with the others: take --publishers http, one in each room"
    );
    ensure!(rooms.outstanding.is_none(), "nobody waits for those who are away: take --rate");
    Ok(Plan { returns_min: Some(args.returns_min), ..plan(rooms, &RETURNING, run)? })
}

/// The run's tag stands in the name, so that runs do not meet.
pub(super) fn room(prefix: &str, plan: &Plan, base: &Url, index: usize) -> anyhow::Result<Room> {
    let name = format!("{prefix}{:08x}-{index}", plan.run);
    let name = RoomName::parse(&name).with_context(|| format!("the room {name:?} cannot be used"))?;
    let url = plan.dialect.room_url(base, &name, plan.pusher.as_ref());
    let commands_url = plan.dialect.commands_url(base, &name, plan.pusher.as_ref());
    Ok(Room { url, commands_url, name: Some(name) })
}

fn via(args: &RoomsArgs) -> anyhow::Result<Via> {
    Ok(match args.publishers {
        Publishers::Ws => Via::Members,
        Publishers::Http => Via::Http { api: Url::parse(&args.admin)?, key: args.key.clone() },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn parse(arguments: &str) -> anyhow::Result<Plan> {
        let words = ["fanfare-load", "rooms"].into_iter().chain(arguments.split_ascii_whitespace());
        Ok(Cli::try_parse_from(words)?.task(0xab)?.plans.remove(0))
    }

    #[test]
    fn every_connection_has_a_room_and_every_room_its_publishers() {
        let plan = parse("--connections 10 --rooms 4 --publishers-per-room 2").expect("a plan");
        let members: Vec<usize> = (0..4).map(|room| plan.waited_for(room)).collect();
        assert_eq!(members, [3, 3, 2, 2]);
        for (room, &members) in members.iter().enumerate() {
            assert_eq!((0..10).filter(|&connection| plan.room_of(connection) == room).count(), members);
        }
        let mut publishers: Vec<usize> = (0..10).filter_map(|connection| plan.publisher_of(connection)).collect();
        publishers.sort_unstable();
        assert!(publishers.into_iter().eq(0..8));
        assert_eq!(plan.rooms[3].url.target(), "/room/load-000000ab-3");
    }

    #[test]
    fn the_pace_is_a_rate_unless_a_window_is_asked_for() {
        let Pace::Rate(schedule) = parse("--duration 2s").expect("a plan").pace else { panic!("a rate by default") };
        assert_eq!((schedule.total, schedule.publishers), (4_000, 100));
        let plan = parse("--outstanding 4 --publications 500").expect("a plan");
        assert!(matches!(plan.pace, Pace::Outstanding { window: 4, quota: 5 }));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for bad in [
            "--connections 5 --rooms 6",
            "--connections 10 --rooms 4 --publishers-per-room 3",
            "--outstanding 4 --publications 501",
            "--outstanding 4 --rate 10",
            "--url gopher://h",
            "--url wss://h --ca /nowhere/ca.pem",
            "--url wss://h --ca ca.pem --insecure",
            "--room-prefix a/b",
            "--payload 10",
            "--threads 3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (bad, words) in [
            (true, "returning"),
            (true, "returning --publishers http --outstanding 2"),
            (false, "returning --publishers http"),
        ] {
            let words = ["fanfare-load"].into_iter().chain(words.split(' '));
            assert_eq!(Cli::try_parse_from(words).expect("known arguments").task(1).is_err(), bad);
        }
    }
}
