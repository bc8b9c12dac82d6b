//! The `fanfare-icount` binary: instructions per operation of every stage, counted by callgrind and compared with those
//! of the stored baseline.
//!
//! It starts itself under valgrind once per stage. Each stage has a process of its own, so that no stage's heap can
//! change another's count, with an empty environment, so that the caller's cannot either.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use fanfare_benches::{Stage, stages};

use crate::icount::baseline::Baseline;
use crate::icount::callgrind;
use crate::icount::comparison::{Comparison, Look};

mod icount {
    pub(crate) mod baseline;
    pub(crate) mod callgrind;
    pub(crate) mod comparison;
}

/// Counts the instructions of the hot stages.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Count, and compare with the baseline. Exit code 1: a stage is worse by more than the limit
    Compare {
        /// The baseline
        #[arg(long)]
        baseline: PathBuf,
        /// A stage may become worse by so much, percent
        #[arg(long, default_value_t = 3.0, value_parser = percent)]
        limit: f64,
        #[command(flatten)]
        how: How,
    },
    /// Count, and store as the baseline
    Store {
        /// The baseline
        #[arg(long)]
        baseline: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// List the stages
    List,
    /// Run one stage; what callgrind is started with
    #[command(hide = true)]
    Stage {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Where callgrind's profiles go, one per stage; `callgrind_annotate` reads them
    #[arg(long)]
    profiles: PathBuf,
    /// Only stages whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent @ 0.0..=1_000.0) => Ok(percent),
        _ => Err("a percentage from 0 to 1000 is wanted".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // With standard error gone there is nobody to tell; the exit code remains.
            let _ = writeln!(std::io::stderr(), "fanfare-icount: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked; false when a stage became worse.
fn run(task: Task) -> anyhow::Result<bool> {
    match task {
        Task::Compare { baseline, limit, how } => {
            let stored = Baseline::read(&baseline)?;
            let now = Baseline { toolchain: callgrind::toolchain()?, counts: count(&how)? };
            let comparison = Comparison::new(&stored, &now, &how.only, limit);
            let mut out = std::io::stdout();
            let look = if is_colourful() { Look::Coloured } else { Look::Plain };
            out.write_all(comparison.table(look).as_bytes()).context("cannot write to standard output")?;
            Ok(comparison.is_well())
        }
        Task::Store { baseline, how } => {
            if !how.only.is_empty() {
                bail!("a baseline has all stages: leave out --only");
            }
            let now = Baseline { toolchain: callgrind::toolchain()?, counts: count(&how)? };
            now.write(&baseline)?;
            let stages = now.counts.len();
            writeln!(std::io::stdout(), "{stages} stages stored in {}", baseline.display())?;
            Ok(true)
        }
        Task::List => {
            let names: Vec<String> = stages().into_iter().map(|stage| stage.name + "\n").collect();
            std::io::stdout().write_all(names.concat().as_bytes()).context("cannot write to standard output")?;
            Ok(true)
        }
        Task::Stage { name } => {
            let stage = stages().into_iter().find(|stage| stage.name == name);
            callgrind::serve(&stage.with_context(|| format!("there is no stage {name}"))?);
            Ok(true)
        }
    }
}

/// Instructions per operation of the stages meant, in their order.
fn count(how: &How) -> anyhow::Result<Vec<(String, f64)>> {
    let wanted: Vec<Stage> = stages().into_iter().filter(|stage| stage.name.contains(&how.only)).collect();
    if wanted.is_empty() {
        bail!("no stage's name contains {:?}", how.only);
    }
    callgrind::count(&wanted, &how.profiles)
}

/// True on a terminal that has not asked for plain text (no-color.org).
fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
