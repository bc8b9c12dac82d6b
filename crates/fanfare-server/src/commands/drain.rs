//! `fanfare drain`: takes a gateway out of service and shows how far that has got.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use fanfare_client::{Error, TlsFailure};
use serde::Deserialize;
use serde_json::json;

use super::publish::explain;
use crate::cli::DrainArgs;

/// How often is asked how far it has got, on a terminal and elsewhere.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// How far leaving has got, as `GET /api/drain` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Progress {
    state: String,
    open_at_start: Option<u64>,
    open: u64,
    closed: u64,
    eta_ms: Option<u64>,
}

/// Begins a drain and shows its progress until it is gone. While one is under way, a window
/// brings its end nearer, and without one what is left is halved.
///
/// # Errors
/// A bad address, a gateway that is not there or refuses. The texts say what to do next.
pub async fn run(args: &DrainArgs) -> anyhow::Result<()> {
    let mut api = args.api.client()?;
    let window_ms = args.window.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    let body = window_ms.map_or_else(|| json!({}), |window_ms| json!({ "window_ms": window_ms }));
    let mut progress = read(&api.post("api/drain", &body).await.map_err(explain)?)?;
    let mut screen = Screen { is_terminal: std::io::stdout().is_terminal(), said: None };
    loop {
        screen.show(&progress)?;
        tokio::time::sleep(if screen.is_terminal { ASK_EVERY.0 } else { ASK_EVERY.1 }).await;
        progress = match api.get("api/drain", &[]).await {
            Ok(answer) => read(&answer)?,
            Err(error) if is_gone(&error) => return screen.end(&progress),
            Err(error) => return Err(explain(error)),
        };
    }
}

fn read(answer: &[u8]) -> anyhow::Result<Progress> {
    serde_json::from_slice(answer).context("this gateway's answer about its drain cannot be read")
}

/// Whether nobody answers because the node has left: that is how a drain ends.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::NothingListening { .. }
            | Error::Unreachable { .. }
            | Error::Tls { failure: TlsFailure::Lost(_), .. }
            | Error::Http(_)
            | Error::Io(_)
    )
}

/// One line that is written over on a terminal; elsewhere a line for each change.
struct Screen {
    is_terminal: bool,
    said: Option<String>,
}

impl Screen {
    fn show(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let line = line(progress, self.is_terminal);
        if self.said.as_ref() == Some(&line) {
            return Ok(());
        }
        if self.is_terminal {
            write(&format!("\r\x1b[2K{line}"))?;
        } else {
            write(&format!("{line}\n"))?;
        }
        self.said = Some(line);
        Ok(())
    }

    fn end(&self, last: &Progress) -> anyhow::Result<()> {
        let start = last.open_at_start.unwrap_or(last.open);
        let lead = if self.is_terminal { "\r\x1b[2K" } else { "" };
        write(&format!("{lead}the gateway has left service; {start} connections were open when it began\n"))
    }
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Cells of the bar.
const BAR: usize = 24;

/// How far it has got, on a line.
fn line(progress: &Progress, has_bar: bool) -> String {
    let Progress { state, open_at_start, open, closed, eta_ms } = progress;
    let eta = eta_ms.map_or_else(String::new, |ms| format!(", at most {} s to go", ms.div_ceil(1_000)));
    let numbers = format!("{state}: {open} open, {closed} closed{eta}");
    if !has_bar {
        return numbers;
    }
    let all = open_at_start.unwrap_or(0).max(*open).max(1);
    let gone = all - open;
    let full = (gone * BAR as u64 / all) as usize;
    format!("[{}{}] {numbers}", "#".repeat(full), "-".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_line_and_on_a_terminal_a_bar() {
        let progress = Progress {
            state: "closing".to_owned(),
            open_at_start: Some(4_000),
            open: 1_000,
            closed: 2_990,
            eta_ms: Some(14_001),
        };
        assert_eq!(line(&progress, false), "closing: 1000 open, 2990 closed, at most 15 s to go");
        assert_eq!(
            line(&progress, true),
            "[##################------] closing: 1000 open, 2990 closed, at most 15 s to go"
        );
        let grown = Progress { open_at_start: Some(0), open: 3, eta_ms: None, ..progress };
        assert_eq!(line(&grown, true), format!("[{}] closing: 3 open, 2990 closed", "-".repeat(BAR)));
    }
}
