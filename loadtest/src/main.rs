//! The `fanfare-load` binary: arguments in, report out, exit code.

use std::hash::BuildHasher;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use fanfare_loadtest::cli::Cli;
use fanfare_loadtest::conductor;
use fanfare_loadtest::progress::Progress;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // With standard error gone there is nobody to tell; the exit code remains.
            let _ = writeln!(std::io::stderr(), "fanfare-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Carries out the plan; true when everything is accounted for.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let task = cli.task(run_tag())?;
    let report = conductor::carry_out_all(&task, &Progress::on_terminal())?;
    if let Some(file) = &cli.common().json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    write!(std::io::stdout(), "{report}").context("cannot write to standard output")?;
    Ok(report.accounted)
}

/// A random tag, from the seed the standard library draws for each hash map.
fn run_tag() -> u32 {
    std::hash::RandomState::new().hash_one(0_u8) as u32
}
