//! What is not written, and the account of it. Plain values that are told the time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Time for which lines are remembered, and after which what was held back is accounted for.
const WINDOW: Duration = Duration::from_secs(1);

/// Different lines remembered at a time, and their bytes. Beyond either all are accounted for, and forgotten before their second is over.
const LINES_MAX: usize = 1_024;
const BYTES_MAX: usize = 1024 * 1024;

/// Different lines that one place in the code writes in a second. What strangers can make a node say over and over, each time with
/// another connection or number in it, must not push what else it says out of a journal that has a limit of its own. Debug and
/// trace are left alone: who turns them on wants each line.
const LINES_PER_PLACE_MAX: u32 = 100;

/// Where in the code a line comes from.
#[derive(Debug)]
pub(super) struct Place {
    id: Identifier,
    level: Level,
    target: String,
}

impl Place {
    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
        Self { id: metadata.callsite(), level: *metadata.level(), target: metadata.target().to_owned() }
    }
}

/// The lines of the second that runs.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// When the second began; `None` while nothing is remembered.
    since: Option<Instant>,
    lines: HashMap<Box<[u8]>, Line>,
    /// Bytes of `lines`.
    bytes: usize,
    /// As many as there are such places in the code.
    places: HashMap<Identifier, Written>,
    /// Whether anything was held back.
    holds: bool,
}

#[derive(Debug)]
struct Line {
    /// Which of the second's lines it was, counted from 0.
    place: usize,
    repeated: u64,
}

/// What one place has said.
#[derive(Debug)]
struct Written {
    level: Level,
    target: String,
    lines: u32,
    withheld: u64,
}

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    /// Hold it back; it is the first that is: there is a deadline from here on.
    First,
    /// Hold it back.
    Again,
}

/// What was held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// This line came again so many times.
    Repeated { line: Box<[u8]>, times: u64 },
    /// So many lines of one place, each another one, were not written.
    Withheld { level: Level, target: String, lines: u64 },
}

impl Repeats {
    /// What is to be done with `line`. Before it, what [`Self::over`] returns has to be written.
    pub(super) fn take(&mut self, place: &Place, line: &[u8], now: Instant) -> Verdict {
        self.since.get_or_insert(now);
        if let Some(known) = self.lines.get_mut(line) {
            known.repeated += 1;
            return self.hold();
        }
        if place.level <= Level::INFO {
            let written = self.places.entry(place.id.clone()).or_insert_with(|| Written {
                level: place.level,
                target: place.target.clone(),
                lines: 0,
                withheld: 0,
            });
            if written.lines == LINES_PER_PLACE_MAX {
                written.withheld += 1;
                return self.hold();
            }
            written.lines += 1;
        }
        if line.len() <= BYTES_MAX {
            self.bytes += line.len();
            self.lines.insert(line.into(), Line { place: self.lines.len(), repeated: 0 });
        }
        Verdict::Write
    }

    fn hold(&mut self) -> Verdict {
        if std::mem::replace(&mut self.holds, true) { Verdict::Again } else { Verdict::First }
    }

    /// What has to be accounted for at `now`, in the order in which it was first said.
    #[must_use = "what is returned is forgotten here"]
    pub(super) fn over(&mut self, now: Instant) -> Vec<Account> {
        match self.since {
            Some(since) if now.saturating_duration_since(since) >= WINDOW => self.end(),
            _ if self.lines.len() >= LINES_MAX || self.bytes >= BYTES_MAX => self.end_lines(),
            _ => Vec::new(),
        }
    }

    /// When something has to be accounted for at the latest; `None` while there is nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.filter(|_| self.holds).map(|since| since + WINDOW)
    }

    /// Accounts for all, and forgets it.
    #[must_use = "what is returned is forgotten here"]
    pub(super) fn end(&mut self) -> Vec<Account> {
        self.since = None;
        self.holds = false;
        let mut accounts = self.end_lines();
        let withheld = self.places.drain().filter(|(_, written)| written.withheld > 0);
        accounts.extend(withheld.map(|(_, Written { level, target, withheld, .. })| Account::Withheld {
            level,
            target,
            lines: withheld,
        }));
        accounts
    }

    fn end_lines(&mut self) -> Vec<Account> {
        self.bytes = 0;
        let mut repeated: Vec<_> = self.lines.drain().filter(|(_, line)| line.repeated > 0).collect();
        repeated.sort_unstable_by_key(|(_, line)| line.place);
        repeated.into_iter().map(|(line, Line { repeated, .. })| Account::Repeated { line, times: repeated }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of the next warning or debug line, wherever that is said.
    macro_rules! place {
        ($level:ident) => {{
            struct Nowhere;
            impl tracing::callsite::Callsite for Nowhere {
                fn set_interest(&self, _: tracing::subscriber::Interest) {}

                fn metadata(&self) -> &Metadata<'_> {
                    unreachable!("nobody asks")
                }
            }
            // Not of size 0: two of those may have one address.
            static HERE: (Nowhere, u8) = (Nowhere, 0);
            Place { id: Identifier(&HERE.0), level: Level::$level, target: "here".to_owned() }
        }};
    }

    fn repeated(line: &str, times: u64) -> Account {
        Account::Repeated { line: line.as_bytes().into(), times }
    }

    #[test]
    fn lines_that_alternate_become_one_each_and_a_count() {
        let (start, place) = (Instant::now(), place!(WARN));
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.take(&place, b"a", at(0)), Verdict::Write);
        assert_eq!(repeats.take(&place, b"b", at(1)), Verdict::Write);
        assert_eq!(repeats.deadline(), None);
        assert_eq!(repeats.take(&place, b"b", at(2)), Verdict::First);
        assert_eq!(repeats.deadline(), Some(at(1_000)));
        for ms in 3..1_000 {
            assert_eq!(repeats.over(at(ms)), []);
            assert_eq!(repeats.take(&place, if ms % 2 == 0 { b"b" } else { b"a" }, at(ms)), Verdict::Again);
        }
        assert_eq!(repeats.take(&place, b"c", at(999)), Verdict::Write);
        assert_eq!(repeats.over(at(1_000)), [repeated("a", 499), repeated("b", 499)], "as they came, and not of c");
        assert_eq!(repeats.deadline(), None);
        assert_eq!(repeats.take(&place, b"a", at(1_700)), Verdict::Write, "another second");
        assert_eq!(repeats.take(&place, b"a", at(2_600)), Verdict::First);
        assert_eq!(repeats.deadline(), Some(at(2_700)), "which began with its first line");
        assert_eq!(repeats.end(), [repeated("a", 1)]);
        assert_eq!((repeats.end(), repeats.deadline()), (Vec::new(), None));
    }

    /// Every line is written once, counted as a repetition or as withheld: whatever comes, the sum is what was said.
    #[test]
    fn nothing_is_lost_however_many_different_lines_there_are() {
        let (start, debug, info) = (Instant::now(), place!(DEBUG), place!(INFO));
        let (mut repeats, mut written, mut counted, mut kept_max) = (Repeats::default(), 0_u64, 0_u64, 0);
        let mut account = |accounts: Vec<Account>| {
            counted += accounts
                .iter()
                .map(|account| match account {
                    Account::Repeated { times, .. } => times,
                    Account::Withheld { lines, .. } => lines,
                })
                .sum::<u64>();
        };
        for n in 0_u32..100_000 {
            let now = start + Duration::from_micros(u64::from(n) * 50);
            // Three in four repeat: one of them at once, one after some hundred others, one when it may be forgotten.
            let (place, line) = match n % 4 {
                0 => (&debug, format!("{n} {}", "x".repeat((n % 5_000) as usize))),
                1 => (&info, format!("line {n}")),
                2 => (&debug, format!("line {}", n % 3_000)),
                _ => (&debug, "again".to_owned()),
            };
            account(repeats.over(now));
            written += u64::from(repeats.take(place, line.as_bytes(), now) == Verdict::Write);
            kept_max = kept_max.max(repeats.bytes);
            assert!(repeats.lines.len() <= LINES_MAX && repeats.bytes <= BYTES_MAX + line.len(), "{n}");
        }
        account(repeats.end());
        assert_eq!(written + counted, 100_000);
        assert!(kept_max > BYTES_MAX / 2 && counted > 40_000, "{kept_max} {counted}");
    }

    #[test]
    fn a_place_that_says_something_else_each_time_is_written_a_hundred_times_a_second() {
        let (start, flood, other, debug) = (Instant::now(), place!(INFO), place!(ERROR), place!(DEBUG));
        let mut repeats = Repeats::default();
        for second in 0..3 {
            let now = start + WINDOW * second;
            let accounts = repeats.over(now);
            let expected = Account::Withheld { level: Level::INFO, target: "here".to_owned(), lines: 400 };
            assert_eq!(accounts, if second == 0 { vec![] } else { vec![expected] });
            let line = |n: u32| format!("connection {n} evicted");
            let written = (0..500).filter(|&n| repeats.take(&flood, line(n).as_bytes(), now) == Verdict::Write).count();
            assert_eq!(written, 100);
            assert_eq!(repeats.deadline(), Some(now + WINDOW));
            assert_eq!(repeats.take(&other, b"a shard failed", now), Verdict::Write, "another place");
            let each = (0..500).all(|n| repeats.take(&debug, format!("{n}").as_bytes(), now) == Verdict::Write);
            assert!(each, "who asked for debug lines gets them");
        }
    }

    /// A line that is longer than all that is kept is written each time.
    #[test]
    fn what_is_too_long_is_not_kept() {
        let (now, place) = (Instant::now(), place!(WARN));
        let (mut repeats, long) = (Repeats::default(), vec![b'x'; BYTES_MAX + 1]);
        for _ in 0..3 {
            assert_eq!(repeats.take(&place, &long, now), Verdict::Write);
            assert_eq!((repeats.over(now), repeats.bytes), (Vec::new(), 0));
        }
    }
}
