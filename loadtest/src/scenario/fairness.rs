//! A big room that is kept saturated, and a small one beside it at a modest fixed rate: does the one make the other wait?
//!
//! A gateway must be told to keep both on one shard, else there is nothing to share.

use anyhow::ensure;
use fanfare_client::Url;

use super::{Beside, Plan, Task, Via, pace, rooms};
use crate::cli::FairnessArgs;
use crate::pace::{Schedule, Window};

/// The run that the arguments ask for.
///
/// # Errors
/// Arguments that do not fit together.
pub fn task(args: &FairnessArgs, run: u32) -> anyhow::Result<Task> {
    let common = &args.common;
    let (big, small) = (common.connections.unwrap_or(1_000) as usize, args.small as usize);
    ensure!(big < Window::SUBSCRIBERS_MAX, "a room of {big} members is too big for this program");
    let base = Url::parse(&common.url)?;
    let plan = Plan::new("fairness", common, &base, run)?;
    let total = (args.small_rate * common.duration.as_secs_f64()).floor().max(1.0) as u64;
    Ok(Task::of(Plan {
        rooms: (0..2)
            .map(|index| rooms::room(&args.room_prefix, &plan, &base, index))
            .collect::<anyhow::Result<_>>()?,
        connections: big + small,
        beside: Some(Beside { members: small, schedule: Schedule { rate: args.small_rate, total, publishers: 1 } }),
        via: Via::Members,
        pace: pace(common, None, Some(args.outstanding), 1)?,
        // One for each room, whatever was asked for.
        threads: 2,
        ..plan
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn the_small_room_has_members_a_pace_and_a_thread_of_its_own() {
        let words = "fanfare-load fairness --connections 7 --small 3 --small-rate 50 --duration 2s --threads 1";
        let plan = Cli::try_parse_from(words.split(' ')).expect("arguments").task(1).expect("a task").plans.remove(0);
        let of_each = |what: &dyn Fn(usize) -> usize| (0..10).map(what).collect::<Vec<_>>();
        assert_eq!(of_each(&|connection| plan.room_of(connection)), [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(of_each(&|connection| plan.thread_of(connection)), [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!((plan.waited_for(0), plan.waited_for(1)), (7, 3));
        let publishers: Vec<_> = (0..10).filter_map(|c| plan.publisher_of(c).map(|publisher| (c, publisher))).collect();
        assert_eq!(publishers, [(0, 0), (7, 1)]);
        assert_eq!((plan.window_of(0), plan.window_of(1)), (Some(16), None));
        assert_eq!((plan.schedule_of(0).is_none(), plan.quota(1)), (true, 100));
        assert!(!plan.is_beside(0) && plan.is_beside(1));
    }
}
