//! The same again and again: first all read, then some do not. How do the others fare, and what does it cost the gateway?

use anyhow::ensure;

use super::{Plan, Stalled, Task, Via, rooms};
use crate::cli::SlowArgs;
use crate::report::{Report, Slow};

/// The runs that the arguments ask for: one without stalled subscribers, and one for each share of them.
///
/// # Errors
/// Arguments that do not fit together.
pub fn task(args: &SlowArgs, run: u32) -> anyhow::Result<Task> {
    let mut plans = vec![rooms::plan(&args.rooms, &rooms::SLOW, run)?];
    for (&percent, number) in args.stalled_percent.iter().zip(1..) {
        let plan = rooms::plan(&args.rooms, &rooms::SLOW, run.wrapping_add(number))?;
        let stalled = ((plan.connections as f64 * percent / 100.0).ceil() as usize).max(1);
        let reading = plan.connections - stalled;
        let publishing = if matches!(plan.via, Via::Members) { plan.publishers() } else { 1 };
        ensure!(reading >= publishing, "with {stalled} stalled nobody is left to publish: lower --stalled-percent");
        plans.push(Plan { stalled: Stalled::Slow(stalled), memory_max: args.memory_max, ..plan });
    }
    Ok(Task { plans, sum_up })
}

/// The report of the last run, with what all of them show.
fn sum_up(plans: &[Plan], mut reports: Vec<Report>) -> Option<Report> {
    let slow: Vec<Slow> =
        plans.iter().zip(&reports).skip(1).map(|(plan, with)| Slow::of(plan, &reports[0], with)).collect();
    let faults: Vec<String> = plans
        .iter()
        .zip(&reports)
        .flat_map(|(plan, report)| {
            let count = plan.stalled.count();
            report.faults.iter().map(move |fault| format!("with {count} stalled: {fault}"))
        })
        .chain(slow.iter().filter_map(Slow::fault))
        .collect();
    let mut report = reports.pop()?;
    report.slow = slow;
    report.set_faults(faults);
    Some(report)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn one_run_without_and_one_for_each_share() {
        let parse = |arguments: &str| {
            let words = ["fanfare-load", "slow"].into_iter().chain(arguments.split_ascii_whitespace());
            Cli::try_parse_from(words)?.task(7)
        };
        let counts = |task: Task| task.plans.iter().map(|plan| plan.stalled.count()).collect::<Vec<_>>();
        assert_eq!(counts(parse("").expect("a task")), [0, 5]);
        assert_eq!(counts(parse("--stalled-percent 1,10 --connections 50").expect("a task")), [0, 1, 5]);
        assert!(parse("--stalled-percent 90 --connections 2").is_err(), "nobody is left to publish");
        assert!(parse("--stalled-percent 0").is_err());
    }
}
