//! Configuration: a file, the environment and flags become one typed [`Config`], or every reason why not.
//!
//! `raw.rs` declares the keys, in a file of `raw/` for each subject, `layer.rs` lays the sources over each other (flags
//! over environment over file over defaults), `typed.rs` and `typed/` are the only place that gives the values a meaning. Nothing after it re-checks them. No
//! function here but [`Environment::of_process`] and [`ConfigFile::read`] looks at the process or the disk for
//! configuration, so tests hand in what they want.

mod ceiling;
mod changes;
mod door;
mod engine;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod inboxes;
mod layer;
mod machine;
mod moderation;
mod raw;
pub mod reference;
mod tls;
mod typed;
mod value;

use std::fmt;

pub use ceiling::{Ceiling, Term, bytes};
pub use fanfare_edge::Address;
pub use layer::{ConfigFile, Environment};
pub use raw::{LogFormat, SendChoice};
pub use typed::{Config, Diagnostics, Drain, Limits, PusherApps};
pub use value::{Origin, Secret};

use machine::Machine;
use raw::Raw;

/// What `fanfare dev` presets: everything needed to try things out on one machine, and a stop without waiting.
const DEV: &str = r#"
listen = "127.0.0.1:8080"
[auth]
guests = true
[diagnostics]
echo = true
page = true
[namespaces.default]
presence = true
client_close = true
[drain]
grace_ms = 0
window_ms = 500
"#;

/// What the command line says about the configuration, already parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`.
    pub listen: Option<Address>,
    /// `--admin`.
    pub admin: Option<Address>,
    /// `--log`.
    pub log: Option<LogFormat>,
    /// `--shards`; 0: one per core.
    pub shards: Option<u32>,
}

/// Which program the configuration is for; it decides the presets and how open the node may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Serve,
    Dev,
}

impl Config {
    /// The configuration of `fanfare serve`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in one [`ConfigError`].
    pub fn serve(flags: &Flags, file: Option<&ConfigFile>, environment: &Environment) -> Result<Self, ConfigError> {
        load(Program::Serve, flags, file, environment, &Machine::this())
    }

    /// The configuration of `fanfare dev`: presets for trying things out under whatever else is given, and refused
    /// when anybody but this machine could reach it.
    ///
    /// # Errors
    /// Everything that is wrong with it, in one [`ConfigError`].
    pub fn dev(flags: &Flags, file: Option<&ConfigFile>, environment: &Environment) -> Result<Self, ConfigError> {
        load(Program::Dev, flags, file, environment, &Machine::this())
    }
}

fn load(
    program: Program,
    flags: &Flags,
    file: Option<&ConfigFile>,
    environment: &Environment,
    machine: &Machine,
) -> Result<Config, ConfigError> {
    let mut raw = Raw::default();
    let mut problems = Vec::new();
    if program == Program::Dev {
        layer::apply_dev(&mut raw, DEV);
    }
    if let Some(file) = file {
        layer::apply_file(&mut raw, file, &mut problems);
    }
    layer::apply_environment(&mut raw, environment, &mut problems);
    layer::apply_flags(&mut raw, flags);
    typed::build(program, &raw, machine, problems)
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Who gave the value; `None` when the problem is with no single value.
    pub origin: Option<Origin>,
    /// What is wrong and what to change.
    pub text: String,
}

impl Problem {
    fn new(origin: Origin, text: String) -> Self {
        Self { origin: Some(origin), text }
    }

    pub(crate) fn unplaced(text: String) -> Self {
        Self { origin: None, text }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Everything that is wrong with a configuration, a line each when shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "an error has a reason");
        problems.sort();
        Self { problems }
    }

    /// The single problems: files in order of lines, then the environment, then flags.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
