//! `fanfare top`: what a gateway does, live in a terminal or once as text.

mod data;
mod view;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::data::{Inquiry, Picture, Round};
use crate::cli::{self, TopArgs};

/// Shows a gateway until it is told to quit; one frame as text with `--once`, or where the output is no terminal.
///
/// # Errors
/// A bad address; a terminal that fails. As text also a gateway that is not there or refuses; live, that is shown, and it is asked again.
pub async fn run(args: &TopArgs) -> anyhow::Result<()> {
    let inquiry = Inquiry::new(&args.api)?;
    let picture = Picture::new(&args.api.url, args.interval);
    if args.once || !std::io::stdout().is_terminal() {
        return once(inquiry, picture).await;
    }
    let is_wanted = !args.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    live(inquiry, picture, is_wanted).await
}

/// Two samples one interval apart.
async fn once(mut inquiry: Inquiry, mut picture: Picture) -> anyhow::Result<()> {
    for is_first in [true, false] {
        let sample = inquiry.sample().await?;
        let at = Instant::now();
        // At once too, so that a wrong key is told without waiting.
        let lists = inquiry.lists().await?;
        picture.take(Round { at, sample: Ok(sample), lists: Ok(lists) });
        if is_first {
            tokio::time::sleep_until((at + picture.every).into()).await;
        }
    }
    Ok(cli::print(&view::text(&picture, Instant::now()))?)
}

/// The terminal as this program needs it. Dropping it gives it back as it was; a panic does so before it is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> anyhow::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have been taken by half.
                ratatui::restore();
                Err(error).context("cannot use this terminal; `fanfare top --once` prints text")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(mut inquiry: Inquiry, mut picture: Picture, has_colour: bool) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut hung_up = signal(SignalKind::hangup()).context("cannot wait for signals")?;
    let mut screen = Screen::take()?;
    let mut events = events();
    let every = picture.every;
    let (told, mut rounds) = mpsc::channel(1);
    // Beside the view: an answer that is long in coming must not hold up keys.
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if told.send(inquiry.round().await).await.is_err() {
                return;
            }
        }
    });
    // The age of what is stale grows.
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        let now = Instant::now();
        screen.0.draw(|frame| view::draw(frame, &picture, now, has_colour)).context("cannot write to the terminal")?;
        tokio::select! {
            round = rounds.recv() => picture.take(round.context("asking the gateway failed")?),
            event = events.recv() => match event.context("the terminal's keys cannot be read any more")? {
                Event::Key(key) if is_quit(&key) => return Ok(()),
                // Whatever else happened, such as another size, is drawn.
                _ => {}
            },
            _ = seconds.tick() => {}
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

/// Keys and changes of size. The thread ends with the program, or once nobody wants them.
fn events() -> mpsc::Receiver<Event> {
    let (told, events) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if told.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}

fn is_quit(key: &KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let quits = match key.code {
        KeyCode::Esc | KeyCode::Char('q' | 'Q') => true,
        KeyCode::Char('c') => is_control,
        _ => false,
    };
    quits && key.kind != KeyEventKind::Release
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_quit() {
        let key = |code, modifiers| is_quit(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Enter, KeyModifiers::NONE));
    }
}
