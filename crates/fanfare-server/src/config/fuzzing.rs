//! A configuration for a machine that is always the same, for the fuzz targets: what this one has is read from a dozen files each time.

use std::num::NonZeroUsize;

use super::machine::Machine;
use super::{Config, ConfigError, ConfigFile, Environment, Flags, Program};

/// The configuration of `fanfare dev`, or else of `fanfare serve`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(is_dev: bool, file: Option<&ConfigFile>, environment: &Environment) -> Result<Config, ConfigError> {
    let machine = Machine { cores: NonZeroUsize::MIN, memory_bytes: 8 << 30, host_name: "fuzz".to_owned() };
    let program = if is_dev { Program::Dev } else { Program::Serve };
    super::load(program, &Flags::default(), file, environment, &machine)
}
