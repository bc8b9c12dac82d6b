//! The command line, and its one translation into typed values.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fanfare_client::{Trust, Url};

use crate::dialect::Dialect;
use crate::scenario::{Task, echo, fairness, rooms, shards, slow};
use crate::stamp::Stamp;

/// Loads a Fanfare gateway with connections and publications, and audits every delivery.
///
/// Exit code 0 when everything is accounted for, 1 when it is not, 2 when the test could not run.
#[derive(Debug, Parser)]
#[command(name = "fanfare-load", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Publishes into one room of many, as fast as it takes (1 room, 1,000 connections, 1 outstanding)
    Fanout(RoomsArgs),
    /// Publishes at a fixed rate, and counts latency from when each publication was due (1 room, 1,000 connections, 100 a second)
    Rate(RoomsArgs),
    /// Spreads connections over rooms and publishes into all of them (100 rooms, 1,000 connections, 2,000 a second)
    Rooms(RoomsArgs),
    /// Publishes 16 KiB at a time (1 room, 100 connections, 1 outstanding)
    Large(RoomsArgs),
    /// Sends messages to the echo path and awaits each one back
    Echo(EchoArgs),
    /// Holds connections that do nothing, then lets them go: memory each, handshakes a second, memory that stays
    Idle(IdleArgs),
    /// Publishes at a fixed rate, without and with subscribers that do not read (500 connections, 2 KiB, 100 a second)
    Slow(SlowArgs),
    /// Publishes at a fixed rate while others join and leave without pause (10 rooms, 100 connections, 100 a second)
    Churn(ChurnArgs),
    /// Drops all connections at once and lets them come back at once (100 rooms, 1,000 connections)
    Storm(RoomsArgs),
    /// Publishes over HTTP while the gateway closes connections; they come back with their positions (20 rooms, 200 connections, 200 a second)
    Returning(ReturningArgs),
    /// Saturates a big room, and publishes into a small one beside it at a fixed rate (1,000 and 5 connections)
    Fairness(FairnessArgs),
    /// Sends bursts into the sockets of subscribers that read later, to one gateway or to two in turn (1,000 connections)
    Shards(ShardsArgs),
}

/// What all scenarios share.
#[derive(Debug, Args)]
pub struct Common {
    /// WebSocket address of the gateway
    #[arg(long, default_value = "ws://127.0.0.1:8080")]
    pub url: String,
    /// What the gateway speaks
    #[arg(long, alias = "format", value_enum, default_value_t = Dialect::Json)]
    pub dialect: Dialect,
    /// Connections to open [default: 1000, or what the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// How long to publish: 500ms, 10s, 2m
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Stop after this many publications, even before the duration has passed
    #[arg(long)]
    pub publications: Option<u64>,
    /// Length of each payload in bytes [default: 128, or what the scenario says]
    #[arg(long, value_parser = parse_payload)]
    pub payload: Option<usize>,
    /// Worker threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub threads: u8,
    /// Connections being opened at a time
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub opening: u32,
    /// After the last publication, how long to wait without any arrival before counting what is missing
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub settle: Duration,
    /// With wss:// or https://: file with the authorities, PEM, one of which must have signed the gateway's certificate
    /// [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// With wss:// or https://: take any certificate
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// Token to connect with
    #[arg(long)]
    pub token: Option<String>,
    /// Key of a Pusher application
    #[arg(long, default_value = "app-key")]
    pub pusher_key: String,
    /// Secret of a Pusher application
    #[arg(long, default_value = "app-secret")]
    pub pusher_secret: String,
    /// Process of the gateway: CPU time and memory, of its children too, are reported
    #[arg(long)]
    pub pid: Option<u32>,
    /// Also write the report to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Do not count connections that the gateway closed as a failure; what they got must still be right
    #[arg(long)]
    pub allow_closes: bool,
}

/// The scenarios with rooms.
#[derive(Debug, Args)]
pub struct RoomsArgs {
    /// What all scenarios share.
    #[command(flatten)]
    pub common: Common,
    /// Rooms to spread the connections over [default: what the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: Option<u32>,
    /// Publications per second over all rooms [default: what the scenario says]
    #[arg(long, conflicts_with = "outstanding", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Saturate: publish whenever fewer than this many publications of a publisher are on their way to some subscriber
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub outstanding: Option<u32>,
    /// Who publishes: a subscriber of the room, or a backend over HTTP
    #[arg(long, value_enum, default_value_t = Publishers::Ws)]
    pub publishers: Publishers,
    /// Publishers in each room
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub publishers_per_room: u32,
    /// Where backends publish: the admin listener
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub admin: String,
    /// API key, for publishing over HTTP
    #[arg(long)]
    pub key: Option<String>,
    /// Beginning of the rooms' names; a namespace if it holds a colon
    #[arg(long, default_value = "load-")]
    pub room_prefix: String,
}

/// `fanfare-load echo`.
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// What all scenarios share.
    #[command(flatten)]
    pub common: Common,
    /// Messages per second over all connections
    #[arg(long, conflicts_with = "outstanding", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Messages on their way at a time, per connection [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub outstanding: Option<u32>,
}

/// `fanfare-load idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Rooms and the rest. The publications, one a room unless more are asked for, come after the idle time.
    #[command(flatten)]
    pub rooms: RoomsArgs,
    /// How long to do nothing
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub hold: Duration,
    /// How long after the last connection has left its memory may still come back
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub leaving: Duration,
}

/// `fanfare-load slow`.
#[derive(Debug, Args)]
pub struct SlowArgs {
    /// Rooms and the rest.
    #[command(flatten)]
    pub rooms: RoomsArgs,
    /// Of the subscribers, how many do not read while publications go out, percent; several shares make several runs
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = parse_percent)]
    pub stalled_percent: Vec<f64>,
    /// By how many bytes the gateway's memory may grow while some do not read; needs --pid
    #[arg(long, requires = "pid")]
    pub memory_max: Option<u64>,
}

/// `fanfare-load fairness`.
#[derive(Debug, Args)]
pub struct FairnessArgs {
    /// What all scenarios share. The connections are those of the big room, and so are the publications.
    #[command(flatten)]
    pub common: Common,
    /// Publications of the big room that are on their way to some subscriber
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub outstanding: u32,
    /// Members of the small room
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub small: u32,
    /// Publications per second in the small room
    #[arg(long, default_value_t = 100.0, value_parser = parse_rate)]
    pub small_rate: f64,
    /// Beginning of the rooms' names; a namespace if it holds a colon
    #[arg(long, default_value = "load-")]
    pub room_prefix: String,
}

/// `fanfare-load shards`.
#[derive(Debug, Args)]
pub struct ShardsArgs {
    /// What all scenarios share. The publications are those of a burst, 2,000 unless asked for.
    #[command(flatten)]
    pub common: Common,
    /// Publications on their way to some of those who read, over all publishers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub outstanding: u32,
    /// Members that publish
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub publishers: u32,
    /// Members that read while publications go out, the publishers among them
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub readers: u32,
    /// Bursts to each gateway
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub bursts: u16,
    /// WebSocket address of a second gateway, which has more shards; the bursts take turns
    #[arg(long)]
    pub other_url: Option<String>,
    /// Process of the second gateway
    #[arg(long, requires = "other_url")]
    pub other_pid: Option<u32>,
    /// Beginning of the rooms' names; a namespace if it holds a colon
    #[arg(long, default_value = "load-")]
    pub room_prefix: String,
}

/// `fanfare-load churn`.
#[derive(Debug, Args)]
pub struct ChurnArgs {
    /// Rooms and the rest.
    #[command(flatten)]
    pub rooms: RoomsArgs,
    /// Connections besides, each of which joins a room, leaves it, and joins again
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub roamers: u32,
}

/// `fanfare-load returning`.
#[derive(Debug, Args)]
pub struct ReturningArgs {
    /// Rooms and the rest. The rooms must keep a history.
    #[command(flatten)]
    pub rooms: RoomsArgs,
    /// Fail when fewer connections than these have come back
    #[arg(long, default_value_t = 0)]
    pub returns_min: u64,
}

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Publishers {
    /// A subscriber of the room.
    Ws,
    /// A backend over HTTP.
    Http,
}

impl Cli {
    /// Turns the arguments into runs, to be carried out one after the other. `run` is a random tag that keeps runs apart.
    ///
    /// # Errors
    /// Arguments that do not fit together. The texts say what to change.
    pub fn task(&self, run: u32) -> anyhow::Result<Task> {
        let plan = match &self.scenario {
            Scenario::Fanout(args) => rooms::plan(args, &rooms::FANOUT, run),
            Scenario::Rate(args) => rooms::plan(args, &rooms::RATE, run),
            Scenario::Rooms(args) => rooms::plan(args, &rooms::ROOMS, run),
            Scenario::Large(args) => rooms::plan(args, &rooms::LARGE, run),
            Scenario::Storm(args) => rooms::storm(args, run),
            Scenario::Idle(args) => rooms::idle(args, run),
            Scenario::Churn(args) => rooms::churn(args, run),
            Scenario::Returning(args) => rooms::returning(args, run),
            Scenario::Echo(args) => echo::plan(args, run),
            Scenario::Slow(args) => return slow::task(args, run),
            Scenario::Fairness(args) => return fairness::task(args, run),
            Scenario::Shards(args) => return shards::task(args, run),
        };
        plan.map(Task::of)
    }

    /// What all scenarios share.
    #[must_use]
    pub fn common(&self) -> &Common {
        match &self.scenario {
            Scenario::Fanout(args)
            | Scenario::Rate(args)
            | Scenario::Rooms(args)
            | Scenario::Large(args)
            | Scenario::Storm(args) => &args.common,
            Scenario::Idle(args) => &args.rooms.common,
            Scenario::Churn(args) => &args.rooms.common,
            Scenario::Returning(args) => &args.rooms.common,
            Scenario::Slow(args) => &args.rooms.common,
            Scenario::Echo(args) => &args.common,
            Scenario::Fairness(args) => &args.common,
            Scenario::Shards(args) => &args.common,
        }
    }
}

impl Common {
    /// Whose certificates count. Every handshake is a whole one, as of as many clients that come for the first time.
    ///
    /// # Errors
    /// Authorities that cannot be read.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        let trust = match &self.ca {
            _ if self.insecure => Trust::in_anybody(),
            Some(file) => Trust::of_file(file)?,
            None => Trust::of_system()?,
        };
        Ok(trust.without_resumption())
    }

    /// True when the gateway is on this machine, so that connections may come from any loopback address.
    pub(crate) fn is_loopback(url: &Url) -> bool {
        url.host() == "localhost" || url.host().parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("write a number and a unit: 500ms, 10s, 2m, 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if !duration.is_zero() && duration < Duration::from_secs(7 * 86_400) => Ok(duration),
        _ => Err("must be more than nothing and less than a week".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.001..=10_000_000.0).contains(&rate) { Ok(rate) } else { Err("must be from 0.001 to 10000000".to_owned()) }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if percent > 0.0 && percent <= 90.0 { Ok(percent) } else { Err("must be more than 0 and at most 90".to_owned()) }
}

fn parse_payload(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    match bytes {
        Stamp::BYTES_MIN..=8_388_608 => Ok(bytes),
        _ => Err(format!("must be from {} (the audit's stamp) to 8388608", Stamp::BYTES_MIN)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_carry_a_unit() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "0s", "1x", "1.2.3s", "999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_payload_must_hold_its_stamp() {
        assert_eq!(parse_payload("128"), Ok(128));
        assert!(parse_payload("75").is_err() && parse_payload("9000000").is_err() && parse_payload("x").is_err());
        assert_eq!(Stamp::BYTES_MIN, 76);
    }
}
