//! Connections spread over rooms; each publication goes to every member of its room, the publisher included.

use anyhow::{Context, ensure};
use fanfare_client::{RoomName, Url};

use super::{Plan, Room, Via, Wire, pace};
use crate::cli::{Common, Format, Publishers, RoomsArgs};
use crate::pace::Window;

/// Publications a second where neither a rate nor a window is asked for.
const RATE: f64 = 2_000.0;

/// The plan that the arguments ask for.
///
/// # Errors
/// Arguments that do not fit together.
pub fn plan(args: &RoomsArgs, run: u32) -> anyhow::Result<Plan> {
    let common = &args.common;
    let (connections, rooms) = (common.connections as usize, args.rooms as usize);
    let per_room = args.publishers_per_room as usize;
    ensure!(connections >= rooms, "{connections} connections cannot fill {rooms} rooms: lower --rooms");
    let fewest = connections / rooms;
    ensure!(
        args.publishers == Publishers::Http || per_room <= fewest,
        "rooms of {fewest} members cannot hold {per_room} publishers: lower --publishers-per-room"
    );
    ensure!(fewest < Window::MEMBERS_MAX, "a room of {fewest} members is too big for this program");
    let rate = if args.outstanding.is_some() { None } else { Some(args.rate.unwrap_or(RATE)) };
    let url = Url::parse(&common.url)?;
    Ok(Plan {
        name: "rooms",
        run,
        rooms: (0..rooms).map(|index| room(args, &url, run, index)).collect::<anyhow::Result<_>>()?,
        connections,
        publishers_per_room: per_room,
        via: via(args)?,
        wire: Wire::from(args.format),
        pace: pace(common, rate, args.outstanding, rooms * per_room)?,
        duration: common.duration,
        payload_bytes: common.payload,
        threads: common.threads.into(),
        opening: common.opening as usize,
        settle: common.settle,
        token: common.token.clone(),
        spread_sources: Common::is_loopback(&url),
        pid: common.pid,
        allow_closes: common.allow_closes,
    })
}

/// The run's tag stands in the name, so that runs do not meet.
fn room(args: &RoomsArgs, url: &Url, run: u32, index: usize) -> anyhow::Result<Room> {
    let name = format!("{}{run:08x}-{index}", args.room_prefix);
    let name = RoomName::parse(&name).with_context(|| format!("the room {name:?} cannot be used"))?;
    let url = match args.format {
        Format::Json => url.room(&name),
        Format::Text => url.room(&name).with_query("format", "text"),
    };
    Ok(Room { url, name: Some(name) })
}

fn via(args: &RoomsArgs) -> anyhow::Result<Via> {
    Ok(match args.publishers {
        Publishers::Ws => Via::Members,
        Publishers::Http => Via::Http { admin: Url::parse(&args.admin)?, key: args.key.clone() },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::scenario::Pace;

    fn parse(arguments: &str) -> anyhow::Result<Plan> {
        let words = ["fanfare-load", "rooms"].into_iter().chain(arguments.split_ascii_whitespace());
        Cli::try_parse_from(words)?.plan(0xab)
    }

    #[test]
    fn every_connection_has_a_room_and_every_room_its_publishers() {
        let plan = parse("--connections 10 --rooms 4 --publishers-per-room 2").expect("a plan");
        let members: Vec<usize> = (0..4).map(|room| plan.members(room)).collect();
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
            "--url wss://h",
            "--room-prefix a/b",
            "--payload 10",
            "--threads 3",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
