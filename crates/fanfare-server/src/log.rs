//! Log lines on stderr, as text or JSON, with repetitions collapsed.
//!
//! A node under trouble says the same thing thousands of times a second. Of identical lines within a second the first is written,
//! the others are counted, whatever else is said in between, and at the end of the second the line is written once more with its count. Lines are
//! compared without their time, which is put in front only when they are written: the level, the target, the message and every
//! field have to be the same. Of lines that differ one place in the code writes so many a second; the others are counted, too.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::cli::colour;
use crate::config::LogFormat;
use repeats::{Account, Place, Repeats, Verdict};

mod repeats;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level's directives do not parse.
    #[error("log_level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else logs in this process already.
    #[error("the log is started already: {0}")]
    Started(#[from] TryInitError),
    /// The thread that writes counts cannot start.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Lines that may wait for stderr. Whoever reads it slowly loses lines, which are counted; nobody waits for it.
const LINES_MAX: usize = 8_192;

/// Writes what is still held back when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it at once means that the last repetitions before the end are not counted"]
pub struct LogGuard {
    log: Log,
    /// Dropped last: it writes what waits.
    _writer: WorkerGuard,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.log.flush();
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`LogError`] when `level` does not parse or the process has a log already.
pub fn start(format: LogFormat, level: &str) -> Result<LogGuard, LogError> {
    // A pipe that nobody reads must not hold the threads that carry connections: a thread of its own writes.
    let (out, writer) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).finish(io::stderr());
    let lost = out.error_counter();
    let log = Log::new(format, Box::new(out), Some(lost));
    let builder = tracing_subscriber::fmt()
        // The client of NATS tells each event on top of what the relay says of it.
        .with_env_filter(EnvFilter::builder().parse(format!("async_nats=off,{level}"))?)
        .with_writer(log.clone())
        .with_ansi(colour())
        .without_time();
    match format {
        LogFormat::Text => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    let waiting = log.clone();
    std::thread::Builder::new().name("log".to_owned()).spawn(move || waiting.write_accounts())?;
    Ok(LogGuard { log, _writer: writer })
}

/// The log of the process: whoever has a line takes the lock for as long as writing it takes.
#[derive(Clone)]
struct Log(Arc<Shared>);

struct Shared {
    format: LogFormat,
    sink: Mutex<Sink>,
    /// Signalled when a count begins.
    counting: Condvar,
}

struct Sink {
    repeats: Repeats,
    out: Box<dyn Write + Send>,
    /// Lines that `out` had no place for, and how many of them were told.
    lost: Option<ErrorCounter>,
    told: usize,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("format", &self.0.format).finish_non_exhaustive()
    }
}

impl Log {
    fn new(format: LogFormat, out: Box<dyn Write + Send>, lost: Option<ErrorCounter>) -> Self {
        let sink = Mutex::new(Sink { repeats: Repeats::default(), out, lost, told: 0 });
        Self(Arc::new(Shared { format, sink, counting: Condvar::new() }))
    }

    fn line(&self, place: Option<&Place>, line: &[u8], now: Instant) {
        let mut sink = self.0.sink.lock();
        let accounts = sink.repeats.over(now);
        self.account(&mut sink, accounts);
        match place.map_or(Verdict::Write, |place| sink.repeats.take(place, line, now)) {
            Verdict::Write => {
                self.tell_lost(&mut sink);
                self.write(&mut sink, line);
            }
            Verdict::First => _ = self.0.counting.notify_one(),
            Verdict::Again => {}
        }
    }

    fn flush(&self) {
        let mut sink = self.0.sink.lock();
        let accounts = sink.repeats.end();
        self.account(&mut sink, accounts);
        self.tell_lost(&mut sink);
    }

    /// Writes what was held back when its second is over. Never returns.
    fn write_accounts(&self) {
        let mut sink = self.0.sink.lock();
        loop {
            match sink.repeats.deadline() {
                None => self.0.counting.wait(&mut sink),
                Some(deadline) => _ = self.0.counting.wait_until(&mut sink, deadline),
            }
            let accounts = sink.repeats.over(Instant::now());
            self.account(&mut sink, accounts);
        }
    }

    fn account(&self, sink: &mut Sink, accounts: Vec<Account>) {
        for account in accounts {
            let line = match account {
                Account::Repeated { line, times } => with_count(self.0.format, &line, times),
                Account::Withheld { level, target, lines } => {
                    let message = "more lines of this kind within a second, not written";
                    self.own(level.as_str(), &target, message, "withheld", lines)
                }
            };
            self.write(sink, &line);
        }
    }

    /// Says how many lines stderr did not take in time, if any.
    fn tell_lost(&self, sink: &mut Sink) {
        let lost = |sink: &Sink| sink.lost.as_ref().map_or(0, ErrorCounter::dropped_lines);
        let before = lost(sink);
        if before == sink.told {
            return;
        }
        let message = "log lines were lost: stderr was read too slowly";
        let line = self.own("WARN", module_path!(), message, "lost", (before - sink.told) as u64);
        self.write(sink, &line);
        // Nobody else writes meanwhile: if this line was lost as well, the next one tells of all.
        if lost(sink) == before {
            sink.told = before;
        }
    }

    /// A line of the log's own.
    fn own(&self, level: &str, target: &str, message: &str, field: &str, count: u64) -> Vec<u8> {
        let line = match self.0.format {
            LogFormat::Text => format!("{level:>5} {target}: {message} {field}={count}\n"),
            LogFormat::Json => format!(
                "{{\"level\":\"{level}\",\"message\":\"{message}\",\"{field}\":{count},\"target\":\"{target}\"}}\n"
            ),
        };
        line.into_bytes()
    }

    /// Writes `line` with the time in front. A log that cannot be written must not stop the node, so errors are
    /// nobody's business.
    fn write(&self, sink: &mut Sink, line: &[u8]) {
        let mut time = String::new();
        _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut stamped = Vec::with_capacity(line.len() + time.len() + 16);
        match (self.0.format, line.strip_prefix(b"{")) {
            (LogFormat::Json, Some(rest)) => {
                stamped.extend_from_slice(format!("{{\"timestamp\":\"{time}\",").as_bytes());
                stamped.extend_from_slice(rest);
            }
            (LogFormat::Json | LogFormat::Text, _) => {
                stamped.extend_from_slice(time.as_bytes());
                stamped.push(b' ');
                stamped.extend_from_slice(line);
            }
        }
        _ = sink.out.write_all(&stamped);
    }
}

/// `line` with one more field behind the others: how often it came again.
fn with_count(format: LogFormat, line: &[u8], times: u64) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match (format, line.strip_suffix(b"}")) {
        (LogFormat::Json, Some(open)) => [open, format!(",\"repeated\":{times}}}\n").as_bytes()].concat(),
        (LogFormat::Json | LogFormat::Text, _) => [line, format!(" repeated={times}\n").as_bytes()].concat(),
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { log: self, place: None }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        Line { log: self, place: Some(Place::of(metadata)) }
    }
}

/// Takes one line. The formatter writes each whole, in a single call.
#[derive(Debug)]
struct Line<'a> {
    log: &'a Log,
    /// Where it comes from; without it, it is written.
    place: Option<Place>,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.line(self.place.as_ref(), line, Instant::now());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Some place in the code.
    fn place() -> Place {
        let span = tracing::subscriber::with_default(tracing_subscriber::registry(), || tracing::error_span!("here"));
        Place::of(span.metadata().expect("a span that is on"))
    }

    /// Everything written, readable while the log still writes; the condition tells of each write.
    #[derive(Clone, Default)]
    struct Written(Arc<(Mutex<Vec<u8>>, Condvar)>);

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.0.lock().extend_from_slice(bytes);
            self.0.1.notify_all();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `say` logs, but for the times, and until all of it was said.
    fn logged(format: LogFormat, say: impl FnOnce()) -> String {
        let written = Written::default();
        let log = Log::new(format, Box::new(written.clone()), None);
        let builder = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time();
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), say),
            LogFormat::Json => tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), say),
        }
        log.flush();
        written.text()
    }

    #[test]
    fn a_thousand_events_of_two_lines_in_turn_make_two_lines_and_two_counts() {
        // The clock does not stand still for the test: a slow machine may need more than one second.
        let began = Instant::now();
        let text = logged(LogFormat::Text, || {
            for n in 0..1000 {
                tracing::warn!(room = if n % 2 == 0 { "lobby" } else { "attic" }, "full");
            }
        });
        let seconds = 1 + began.elapsed().as_secs() as usize;
        for room in ["lobby", "attic"] {
            let of_room = text
                .lines()
                .filter(|line| line.contains(&format!(" WARN fanfare_server::log::tests: full room=\"{room}\"")));
            let (counts, lines): (Vec<&str>, Vec<&str>) = of_room.partition(|line| line.contains(" repeated="));
            assert!((1..=seconds).contains(&lines.len()) && lines[0].ends_with('"'), "{text}");
            let counted: usize =
                counts.iter().map(|line| line.split('=').next_back().unwrap().parse::<usize>().unwrap()).sum();
            assert_eq!(counted + lines.len(), 500, "{text}");
        }
    }

    #[test]
    fn json_lines_stay_json_with_the_time_first() {
        let text = logged(LogFormat::Json, || tracing::info!(connection = 7, "closed"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(text.starts_with("{\"timestamp\":\"2"), "{text}");
        assert_eq!((&line["connection"], &line["message"]), (&7.into(), &"closed".into()));

        let count = with_count(LogFormat::Json, b"{\"level\":\"INFO\",\"span\":{\"a\":{}}}\n", 12);
        assert_eq!(String::from_utf8(count).unwrap(), "{\"level\":\"INFO\",\"span\":{\"a\":{}},\"repeated\":12}\n");
    }

    #[test]
    fn a_flood_of_lines_that_differ_is_cut_and_counted_in_both_formats() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let began = Instant::now();
            let text = logged(format, || {
                for connection in 0..1000 {
                    tracing::info!(connection, "evicted");
                }
                tracing::error!("a shard failed");
            });
            let seconds = 1 + began.elapsed().as_secs() as usize;
            let written = text.lines().filter(|line| line.contains("evicted")).count();
            assert!((100..=100 * seconds).contains(&written), "{text}");
            let count = |line: &str| match format {
                LogFormat::Text => line.split(" withheld=").nth(1)?.parse::<usize>().ok(),
                LogFormat::Json => {
                    Some(serde_json::from_str::<serde_json::Value>(line).ok()?["withheld"].as_u64()? as usize)
                }
            };
            assert_eq!(text.lines().filter_map(count).sum::<usize>() + written, 1000, "{text}");
            assert!(text.lines().any(|line| count(line).is_some()
                && line.contains("INFO")
                && line.contains("fanfare_server::log::tests")));
            assert!(text.contains("a shard failed"), "{text}");
        }
    }

    /// A reader that is slow loses lines; it is told how many as soon as there is a place for that, not at the end alone.
    #[test]
    fn lines_that_were_lost_are_told() {
        let (stuck, written) = (Arc::new(Mutex::new(())), Written::default());
        struct Slow(Arc<Mutex<()>>, Written);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _until_it_reads = self.0.lock();
                self.1.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let held = stuck.lock();
        let (out, writer) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(8)
            .finish(Slow(Arc::clone(&stuck), written.clone()));
        let lost = out.error_counter();
        let log = Log::new(LogFormat::Text, Box::new(out), Some(lost.clone()));
        let now = Instant::now();
        for n in 0..50 {
            log.line(None, format!("line {n}\n").as_bytes(), now);
        }
        assert!(lost.dropped_lines() >= 50 - 10, "{}", lost.dropped_lines());
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !written.text().contains("log lines were lost") {
            assert!(Instant::now() < deadline, "nothing was told: {}", written.text());
            log.line(None, b"and on\n", now);
            std::thread::yield_now();
        }
        drop(writer);
    }

    #[test]
    fn a_count_is_written_when_nothing_else_is_said() {
        let written = Written::default();
        let log = Log::new(LogFormat::Text, Box::new(written.clone()), None);
        let waiting = log.clone();
        std::thread::spawn(move || waiting.write_accounts());
        let now = Instant::now();
        for line in [b"a\n", b"b\n", b"a\n"] {
            log.line(Some(&place()), line, now);
        }
        let (bytes, wrote) = &*written.0;
        let mut bytes = bytes.lock();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !String::from_utf8_lossy(&bytes).contains("a repeated=1\n") {
            assert!(!wrote.wait_until(&mut bytes, deadline).timed_out(), "no count was written");
        }
    }
}
