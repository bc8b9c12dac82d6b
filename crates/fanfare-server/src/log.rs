//! Log lines on stderr, as text or JSON, with repetitions collapsed.
//!
//! A node under trouble says the same thing thousands of times a second. Of identical lines that follow each other
//! within a second the first is written, the others are counted, and the count is written when another line comes or
//! the second is over. Lines are compared without their time, which is put in front only when they are written.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::cli::colour;
use crate::config::LogFormat;

/// Time in which identical lines become one.
const WINDOW: Duration = Duration::from_secs(1);

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
    lost: ErrorCounter,
    /// Dropped last: it writes what waits.
    _writer: WorkerGuard,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.log.flush();
        let lost = self.lost.dropped_lines();
        if lost > 0 {
            tracing::warn!(lost, "log lines were lost: stderr was read too slowly");
        }
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
    let log = Log::new(format, Box::new(out));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(level)?)
        .with_writer(log.clone())
        .with_ansi(colour())
        .without_time();
    match format {
        LogFormat::Text => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    let waiting = log.clone();
    std::thread::Builder::new().name("log".to_owned()).spawn(move || waiting.write_counts())?;
    Ok(LogGuard { log, lost, _writer: writer })
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
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("format", &self.0.format).finish_non_exhaustive()
    }
}

impl Log {
    fn new(format: LogFormat, out: Box<dyn Write + Send>) -> Self {
        let sink = Mutex::new(Sink { repeats: Repeats::default(), out });
        Self(Arc::new(Shared { format, sink, counting: Condvar::new() }))
    }

    fn line(&self, line: &[u8], now: Instant) {
        let mut sink = self.0.sink.lock();
        match sink.repeats.take(line, now) {
            Verdict::Write { repeated } => {
                self.write_count(&mut sink, repeated);
                self.write(&mut sink, line);
            }
            Verdict::First => _ = self.0.counting.notify_one(),
            Verdict::Again => {}
        }
    }

    fn flush(&self) {
        let mut sink = self.0.sink.lock();
        let repeated = sink.repeats.end();
        self.write_count(&mut sink, repeated);
    }

    /// Writes each count when its time is over. Never returns.
    fn write_counts(&self) {
        let mut sink = self.0.sink.lock();
        loop {
            match sink.repeats.deadline() {
                None => self.0.counting.wait(&mut sink),
                Some(deadline) => {
                    let over = self.0.counting.wait_until(&mut sink, deadline).timed_out();
                    // The count may have been written, and another begun, while this thread slept.
                    if over && sink.repeats.deadline() == Some(deadline) {
                        let repeated = sink.repeats.end();
                        self.write_count(&mut sink, repeated);
                    }
                }
            }
        }
    }

    fn write_count(&self, sink: &mut Sink, repeated: u64) {
        if repeated == 0 {
            return;
        }
        let line = match self.0.format {
            LogFormat::Text => format!(" INFO fanfare_server::log: the line before was repeated {repeated} times\n"),
            LogFormat::Json => format!(
                "{{\"level\":\"INFO\",\"message\":\"the line before was repeated\",\"repeated\":{repeated},\
                 \"target\":\"fanfare_server::log\"}}\n"
            ),
        };
        self.write(sink, line.as_bytes());
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

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

/// Takes one line. The formatter writes each whole, in a single call.
#[derive(Debug)]
struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line, Instant::now());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last line written and how often it came again. A plain value that is told the time.
#[derive(Debug, Default)]
struct Repeats {
    /// The line, and when it was written.
    last: Option<(Vec<u8>, Instant)>,
    repeated: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Write it, after the count of the line before where that is not 0.
    Write {
        /// How often the line before was held back.
        repeated: u64,
    },
    /// Hold it back; it is the first that is.
    First,
    /// Hold it back.
    Again,
}

impl Repeats {
    fn take(&mut self, line: &[u8], now: Instant) -> Verdict {
        let again = self.last.as_ref().is_some_and(|(last, at)| last == line && now.duration_since(*at) < WINDOW);
        if again {
            self.repeated += 1;
            return if self.repeated == 1 { Verdict::First } else { Verdict::Again };
        }
        let repeated = self.end();
        self.last = Some((line.to_vec(), now));
        Verdict::Write { repeated }
    }

    /// When the count has to be written; `None` while there is none.
    fn deadline(&self) -> Option<Instant> {
        self.last.as_ref().filter(|_| self.repeated > 0).map(|(_, at)| *at + WINDOW)
    }

    /// Ends the count; the next line is written whatever it says.
    fn end(&mut self) -> u64 {
        self.last = None;
        std::mem::take(&mut self.repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn identical_lines_within_a_second_are_counted() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.take(b"a", at(0)), Verdict::Write { repeated: 0 });
        assert_eq!(repeats.deadline(), None);
        assert_eq!(repeats.take(b"a", at(10)), Verdict::First);
        assert_eq!(repeats.take(b"a", at(999)), Verdict::Again);
        assert_eq!(repeats.deadline(), Some(at(1000)));
        assert_eq!(repeats.take(b"a", at(1000)), Verdict::Write { repeated: 2 });
        assert_eq!(repeats.take(b"b", at(1001)), Verdict::Write { repeated: 0 });
        assert_eq!(repeats.take(b"a", at(1002)), Verdict::Write { repeated: 0 });
        assert_eq!(repeats.take(b"a", at(1003)), Verdict::First);
        assert_eq!(repeats.take(b"c", at(1004)), Verdict::Write { repeated: 1 });
    }

    #[test]
    fn a_thousand_identical_events_make_two_lines() {
        let written = Written::default();
        let log = Log::new(LogFormat::Text, Box::new(written.clone()));
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().finish();
        // The clock does not stand still for the test: a slow machine may need more than one window.
        let began = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1000 {
                tracing::warn!(room = "lobby", "full");
            }
        });
        log.flush();
        let windows = 1 + began.elapsed().as_secs() as usize;
        let text = written.text();
        let (counts, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("was repeated"));
        assert!((1..=windows).contains(&lines.len()), "{text}");
        assert!(lines[0].contains(" WARN ") && lines[0].ends_with("full room=\"lobby\""), "{text}");
        let held: usize =
            counts.iter().map(|line| line.split(' ').rev().nth(1).unwrap().parse::<usize>().unwrap()).sum();
        assert_eq!(held + lines.len(), 1000, "{text}");
    }

    #[test]
    fn json_lines_stay_json_with_the_time_first() {
        let written = Written::default();
        let log = Log::new(LogFormat::Json, Box::new(written.clone()));
        let builder = tracing_subscriber::fmt().with_writer(log.clone()).without_time().json().flatten_event(true);
        tracing::subscriber::with_default(builder.finish(), || {
            for connection in [7, 7, 8] {
                tracing::info!(connection, "closed");
            }
        });
        log.flush();
        let text = written.text();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.lines().all(|line| line.starts_with("{\"timestamp\":\"2")), "{text}");
        assert_eq!((&lines[0]["connection"], &lines[0]["message"]), (&7.into(), &"closed".into()));
        assert_eq!(lines[1]["repeated"], 1);
        assert_eq!(lines[2]["connection"], 8);
    }

    #[test]
    fn a_count_is_written_when_nothing_else_is_said() {
        let written = Written::default();
        let log = Log::new(LogFormat::Text, Box::new(written.clone()));
        let waiting = log.clone();
        std::thread::spawn(move || waiting.write_counts());
        let now = Instant::now();
        log.line(b"a\n", now);
        log.line(b"a\n", now);
        let (bytes, wrote) = &*written.0;
        let mut bytes = bytes.lock();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !String::from_utf8_lossy(&bytes).contains("was repeated 1 times") {
            assert!(!wrote.wait_until(&mut bytes, deadline).timed_out(), "no count was written");
        }
    }
}
