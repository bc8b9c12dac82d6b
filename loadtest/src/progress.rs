//! The progress bar: on a terminal only, never in a log.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far the run is.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error if that is a terminal, otherwise nothing.
    #[must_use]
    pub fn on_terminal() -> Self {
        if std::io::stderr().is_terminal() {
            return Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)));
        }
        Self::hidden()
    }

    /// Shows nothing.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// A new phase of `length` steps.
    pub(crate) fn begin(&self, phase: &'static str, length: u64) {
        let style = ProgressStyle::with_template("{prefix:>10} [{bar:32}] {percent:>3} % {msg}");
        self.0.set_style(style.expect("the template is valid").progress_chars("=> "));
        self.0.set_prefix(phase);
        self.0.set_length(length.max(1));
        self.0.set_position(0);
    }

    /// `done` steps of the phase, and what to say about them.
    pub(crate) fn update(&self, done: u64, message: impl FnOnce() -> String) {
        if !self.0.is_hidden() {
            self.0.set_message(message());
            self.0.set_position(done);
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }

    /// How often there is something new to show, or to decide.
    pub(crate) const TICK: Duration = Duration::from_millis(2);
}
