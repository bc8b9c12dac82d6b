//! How the program starts and ends, and what it says on its way.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::config::{Config, ConfigError, ConfigFile, Problem};
use crate::log::{self, LogGuard};
use crate::reload::ConfigSource;

/// Starts the log, says which configuration holds, and runs `program` with it. `configuration` reads it, now and whenever it is reloaded.
///
/// # Errors
/// Those of the configuration, before anything has started, and those of `program`.
pub fn start(
    configuration: impl Fn() -> Result<(Config, Option<ConfigFile>), ConfigError> + Send + Sync + 'static,
    program: impl FnOnce(&Config, ConfigSource) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (config, file) = configuration()?;
    // Dropped last: what the log still holds back is written however the program ends.
    let _log: LogGuard = log::start(config.log, &config.log_level)?;
    if let Some(file) = &file {
        tracing::info!("configuration read from {}", file.name());
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let had_file = file.is_some();
    let source = Box::new(move || match configuration()? {
        // A file that has gone is no wish for the defaults.
        (_, None) if had_file => {
            Err(ConfigError::new(vec![Problem::unplaced(format!("{} is not there any more", ConfigFile::DEFAULT))]))
        }
        (config, _) => Ok(config),
    });
    program(&config, source)
}

/// Waits for `work` on this thread.
///
/// # Errors
/// Those of `work`, and when the system gives no runtime.
pub(crate) fn block_on_value<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Runs a client command to its end on this thread.
///
/// # Errors
/// Those of `command`, and when the system gives no runtime.
pub fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A read of the standard input that nobody waits for any more must not hold the program.
    runtime.shutdown_background();
    result
}

/// The exit code of a command that ended with `result`; errors are printed on stderr. 0 is success, 1 an error; clap
/// exits with 2 by itself when the command line is wrong.
#[must_use]
pub fn exit(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut stderr = io::stderr().lock();
    let text = match error.downcast_ref::<ConfigError>() {
        // A problem each on a line of its own, with its place in front, as compilers write them.
        Some(error) => error.to_string(),
        None => format!("fanfare: {}", told(&error)),
    };
    // Nothing is left to be done when stderr is gone.
    _ = writeln!(stderr, "{text}");
    ExitCode::FAILURE
}

/// An error with its causes, each once: some texts already end with what caused them.
fn told(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// Prints a command's answer on stdout. Whoever stops reading it (`fanfare config docs | head`) has got enough.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Whether colour may be used on stderr: only on a terminal, and not where `NO_COLOR` asks for none.
pub(crate) fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || anyhow::anyhow!("no such host");
        assert_eq!(told(&cause().context("cannot connect")), "cannot connect: no such host");
        assert_eq!(told(&cause().context("cannot connect: no such host")), "cannot connect: no such host");
    }
}
