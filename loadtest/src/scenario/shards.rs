//! What a gateway sends when it is all that runs: a room whose members do not read while the publications go out, but whose
//! sockets have room for all of them. Then the cores are the gateway's, and two shards can show what two cores can.
//!
//! A few members read; they pace the publishers and say when the burst is over. Afterwards all the others read what lies
//! in their sockets, so that every delivery is audited as everywhere else, the one order of the room included.

use anyhow::ensure;
use fanfare_client::Url;

use super::{Pace, Plan, Stalled, Task, Via, rooms};
use crate::cli::ShardsArgs;
use crate::pace::Window;
use crate::report::{Report, Shards};

/// What a frame is longer than its payload at most, bytes.
const FRAME_BYTES: usize = 128;

/// The runs that the arguments ask for: bursts, in turn to each gateway.
///
/// # Errors
/// Arguments that do not fit together.
pub fn task(args: &ShardsArgs, run: u32) -> anyhow::Result<Task> {
    let mut plans = Vec::new();
    for number in 0..args.bursts {
        let run = run.wrapping_add(u32::from(number) * 2);
        plans.push(plan(args, &args.common.url, args.common.pid, run)?);
        if let Some(url) = &args.other_url {
            plans.push(plan(args, url, args.other_pid, run.wrapping_add(1))?);
        }
    }
    Ok(Task { plans, sum_up: if args.other_url.is_some() { both } else { one } })
}

fn plan(args: &ShardsArgs, url: &str, pid: Option<u32>, run: u32) -> anyhow::Result<Plan> {
    let common = &args.common;
    let (connections, readers) = (common.connections.unwrap_or(1_000) as usize, args.readers as usize);
    let (publishers, outstanding) = (args.publishers as usize, args.outstanding as usize);
    ensure!(publishers <= readers, "{publishers} publishers must be among the {readers} who read: lower --publishers");
    ensure!(readers < connections, "{connections} connections leave nobody beside {readers} readers: lower --readers");
    ensure!(connections < Window::SUBSCRIBERS_MAX, "a room of {connections} members is too big for this program");
    ensure!(outstanding.is_multiple_of(publishers), "--outstanding must be a multiple of --publishers");
    let publications = common.publications.unwrap_or(2_000);
    let quota = publications / publishers as u64;
    ensure!(quota * publishers as u64 == publications, "--publications must be a multiple of --publishers");
    let base = Url::parse(url)?;
    let plan = Plan::new("shards", common, &base, run)?;
    // It says on which shard a connection is.
    let dialect = common.dialect.with_welcome();
    let plan = Plan { dialect, ..plan };
    // The kernel counts its own bytes too.
    let bytes = 2 * publications as usize * (plan.payload_bytes + FRAME_BYTES);
    Ok(Plan {
        rooms: vec![rooms::room(&args.room_prefix, &plan, &base, 0)?],
        connections,
        stalled: Stalled::Sinks { count: connections - readers, bytes },
        publishers_per_room: publishers,
        via: Via::Members,
        pace: Pace::Outstanding { window: outstanding / publishers, quota },
        pid,
        ..plan
    })
}

fn one(_plans: &[Plan], reports: Vec<Report>) -> Option<Report> {
    Shards::sum_up(reports, 1)
}

fn both(_plans: &[Plan], reports: Vec<Report>) -> Option<Report> {
    Shards::sum_up(reports, 2)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::dialect::Dialect;
    use crate::scenario::Role;

    fn parse(arguments: &str) -> anyhow::Result<Task> {
        let words = ["fanfare-load", "shards"].into_iter().chain(arguments.split_ascii_whitespace());
        Cli::try_parse_from(words)?.task(1)
    }

    #[test]
    fn bursts_take_turns_and_their_publishers_read() {
        let task =
            parse("--connections 40 --bursts 2 --other-url ws://127.0.0.1:9 --pid 7 --other-pid 8").expect("a task");
        let pids: Vec<_> = task.plans.iter().map(|plan| plan.pid).collect();
        assert_eq!(pids, [Some(7), Some(8), Some(7), Some(8)]);
        let plan = &task.plans[0];
        assert_eq!((plan.dialect, plan.waited_for(0), plan.quota(3)), (Dialect::JsonWs, 8, 500));
        for connection in (0..40).filter(|&connection| plan.publisher_of(connection).is_some()) {
            assert_eq!(plan.role_of(connection), Role::Stays);
        }
        assert_eq!(plan.stalled, Stalled::Sinks { count: 32, bytes: 1_024_000 });
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for bad in ["--readers 3", "--readers 1000", "--outstanding 3", "--publications 30", "--bursts 0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
