//! `fanfare config`: the default file, the environment names, the reference page.

use crate::cli::{self, Print};
use crate::config::reference;

/// Prints what was asked for.
///
/// # Errors
/// An output error.
pub fn run(what: &Print) -> anyhow::Result<()> {
    let text = match what {
        Print::Default => reference::default_file(),
        Print::Env => reference::environment(),
        Print::Docs => reference::page(),
    };
    Ok(cli::print(&text)?)
}
