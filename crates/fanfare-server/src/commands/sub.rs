//! `fanfare sub`: prints each message of a room on a line, and comes back when the connection is lost.

use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use fanfare_client::{
    Backoff, CloseCode, ConnectOptions, Connection, Error, Event, Incoming, Position, RoomName, TlsFailure, Url,
    advice, connect, may_return,
};
use serde_json::value::RawValue;

use super::publish::unknown_authority;
use crate::cli::SubArgs;

/// Prints the messages of a room on standard output, notices on standard error, until Ctrl-C, a closed standard output, or a close that
/// forbids to come back. `--since` is a position as the gateway gives it: what was missed comes first. When the connection is lost, the
/// next one goes on from the last message that was printed; what is not kept any more is noticed.
///
/// # Errors
/// A bad room name, address or position; a gateway that is not there at first, or refuses; a close of the 44xx range. The
/// texts say what to do next.
pub async fn run(args: &SubArgs) -> anyhow::Result<()> {
    let SubArgs { room, url, since, token, trust } = args;
    let name = RoomName::parse(room).with_context(|| format!("the room {room:?} cannot be used"))?;
    let url = Url::parse(url)?.room(&name);
    let trust = trust.trust(&url)?;
    let mut options = ConnectOptions::new(url);
    options.trust = trust;
    options.token = token.clone();
    options.since = since.as_deref().map(str::parse).transpose().map_err(|why: &str| anyhow!("--since: {why}"))?;
    let mut follower = Follower::new(options, io::stdout(), io::stderr());
    tokio::select! {
        done = follower.follow() => done,
        stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for Ctrl-C"),
    }
}

/// Asks where the stream stands: no room ever stood there.
const NOWHERE: Position = Position { epoch: 0, offset: 0 };

/// One room followed over any number of connections.
struct Follower<O, N> {
    /// `since` is kept at the last position known.
    options: ConnectOptions,
    out: O,
    notices: N,
    backoff: Backoff,
    /// From the gateway's `drain` event: when to come back.
    retry: Option<Duration>,
    /// False until the first connection: until then a failure ends the command instead of being retried.
    was_connected: bool,
}

/// What follows after a connection.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Come back; the text says why.
    Lost(String),
    /// The gateway ended the conversation normally, or nobody reads what is printed.
    Done,
}

impl<O: Write, N: Write> Follower<O, N> {
    fn new(mut options: ConnectOptions, out: O, notices: N) -> Self {
        options.since.get_or_insert(NOWHERE);
        Self { options, out, notices, backoff: Backoff::new(), retry: None, was_connected: false }
    }

    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            let Outcome::Lost(why) = self.follow_once().await? else { return Ok(()) };
            let delay = self.backoff.delay(dice());
            let delay = self.retry.take().map_or(delay, |asked| asked + delay);
            self.notice(&format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64()));
            tokio::time::sleep(delay).await;
        }
    }

    async fn follow_once(&mut self) -> anyhow::Result<Outcome> {
        let mut connection = match connect(&self.options).await {
            Ok(connection) => connection,
            Err(error) => return self.failed(error),
        };
        self.was_connected = true;
        self.notice(&format!("connected to {}", self.options.url));
        let begun = Instant::now();
        let outcome = self.print_all(&mut connection).await;
        // In a quiet room a connection proves itself by lasting.
        if begun.elapsed() > Backoff::LAST {
            self.backoff.reset();
        }
        outcome
    }

    /// Whether a failure to connect is worth another attempt.
    fn failed(&self, error: Error) -> anyhow::Result<Outcome> {
        match &error {
            Error::Refused(refusal) if refusal.is_temporary() => Ok(Outcome::Lost(error.to_string())),
            Error::Refused(refusal) if refusal.status == 401 => Err(anyhow!("{error}; pass the token with --token")),
            Error::NothingListening { .. } if !self.was_connected => {
                Err(anyhow!("{error}: start the gateway with `fanfare dev`, or name its client listener with --url"))
            }
            Error::Refused(refusal) if refusal.status == 404 && refusal.code == "not_found" => Err(anyhow!(
                "{error}; rooms are on the client listener: name the address of `listen` in the configuration with --url"
            )),
            Error::Tls { failure: TlsFailure::UnknownAuthority, .. } => Err(unknown_authority(&error)),
            Error::NothingListening { .. }
            | Error::Unreachable { .. }
            | Error::Tls { failure: TlsFailure::Lost(_), .. }
            | Error::Timeout { .. }
            | Error::Io(_)
            | Error::Http(_)
                if self.was_connected =>
            {
                Ok(Outcome::Lost(error.to_string()))
            }
            _ => Err(error.into()),
        }
    }

    async fn print_all(&mut self, connection: &mut Connection) -> anyhow::Result<Outcome> {
        loop {
            let text = match connection.next().await? {
                Incoming::Text(text) => text,
                Incoming::Binary(_) | Incoming::Pong(_) => continue,
                Incoming::Closed { code, reason } => return closed(code, &reason),
            };
            // A connection that has delivered has held.
            self.backoff.reset();
            match self.take(&text) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Outcome::Done),
                printed => printed.context("cannot write to standard output")?,
            }
        }
    }

    fn take(&mut self, text: &str) -> io::Result<()> {
        match Event::parse(text) {
            Ok(Event::Message { message, offset, .. }) => {
                writeln!(self.out, "{}", printable(message))?;
                self.out.flush()?;
                if let Some(position) = &mut self.options.since {
                    // Where no numbers are told they are counted.
                    position.offset = offset.unwrap_or(position.offset + 1);
                }
            }
            Ok(Event::Subscribed { position, recovered, .. }) => self.subscribed(position, recovered),
            Ok(Event::Gap { count, .. }) => {
                self.notice(&format!("gap: {count} messages were not delivered"));
                if let Some(position) = &mut self.options.since {
                    position.offset = position.offset.saturating_add(count);
                }
            }
            Ok(Event::Drain { retry_ms }) => self.retry = Some(Duration::from_millis(retry_ms)),
            Ok(Event::Error { code, message, .. }) => self.notice(&format!("error {code}: {message}")),
            Ok(Event::RoomClosed { .. }) => self.notice("the room was closed"),
            Ok(_) => {}
            Err(error) => self.notice(&error.to_string()),
        }
        Ok(())
    }

    /// The answer to `?since=`. What was missed follows it, so the position moves only where nothing follows.
    fn subscribed(&mut self, position: Option<Position>, recovered: bool) {
        let (false, Some(here), Some(since)) = (recovered, position, self.options.since) else { return };
        self.options.since = Some(here);
        let text = match here.offset.checked_sub(since.offset) {
            // Nothing was asked for, so nothing is missing.
            _ if since == NOWHERE => return,
            Some(count) if here.epoch == since.epoch => {
                format!("gap: {count} messages since {since} are not kept any more; going on from {here}")
            }
            _ => format!("gap: {since} is not of this life of the room; going on from {here}"),
        };
        self.notice(&text);
    }

    /// Notices are a courtesy: a standard error that is gone ends nothing.
    fn notice(&mut self, text: &str) {
        let _ = writeln!(self.notices, "fanfare: {}", escaped(text));
    }
}

fn closed(code: CloseCode, reason: &str) -> anyhow::Result<Outcome> {
    let said = match reason {
        "" => format!("closed with {}", code.0),
        reason => format!("closed with {}: {reason}", code.0),
    };
    match code.0 {
        1000 => Ok(Outcome::Done),
        _ if may_return(code) => Ok(Outcome::Lost(said)),
        _ => Err(anyhow!("{} (what to do: {})", escaped(&said), advice(code))),
    }
}

/// A message on one line: strings as plain text, everything else as JSON.
fn printable(message: &RawValue) -> String {
    match serde_json::from_str::<String>(message.get()) {
        Ok(text) => escaped(&text),
        Err(_) => escaped(message.get()),
    }
}

/// Control characters are written as escapes: a message can neither break its line nor steer the terminal.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            c if c.is_control() => write!(line, "{}", c.escape_default()).expect("writing to a string cannot fail"),
            c => line.push(c),
        }
    }
    line
}

/// A number from 0 up to 1, from the seed the standard library draws for each hash map.
fn dice() -> f64 {
    let random = std::hash::RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TrustArgs;

    fn follower(since: Option<&str>) -> Follower<Vec<u8>, Vec<u8>> {
        let url = Url::parse("ws://127.0.0.1:8080/room/lobby").expect("a valid address");
        let mut options = ConnectOptions::new(url);
        options.since = since.map(|since| since.parse().expect("a valid position"));
        Follower::new(options, Vec::new(), Vec::new())
    }

    /// Feeds `events` and returns what was printed, what was noticed, and the position kept.
    fn check(since: Option<&str>, events: &[&str]) -> (String, String, Option<String>) {
        let mut follower = follower(since);
        for event in events {
            follower.take(event).expect("writing to memory");
        }
        let position = follower.options.since.map(|position| position.to_string());
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(follower.out), text(follower.notices), position)
    }

    #[test]
    fn each_message_is_a_line_of_text_or_json() {
        let (out, notices, _) = check(
            None,
            &[
                r#"{"name":"message","message":"hello 房间"}"#,
                r#"{"name":"message","message":{"a": [1, "x"]},"user":"Al"}"#,
                r#"{"name":"joined","user":"Al"}"#,
                r#"{"name":"message","message":"two\nlines\u001b[2J\t."}"#,
                r#"{"name":"message","message":null}"#,
            ],
        );
        assert_eq!(out, "hello 房间\n{\"a\": [1, \"x\"]}\ntwo\\nlines\\u{1b}[2J\t.\nnull\n");
        assert_eq!(notices, "");
    }

    #[test]
    fn the_position_follows_the_messages_and_starts_over_after_a_gap() {
        let since = Some("00000000000000ab:3");
        let subscribed = r#"{"name":"subscribed","epoch":"00000000000000ab","offset":9,"recovered":true}"#;
        let fourth = r#"{"name":"message","message":1,"offset":4}"#;
        assert_eq!(check(since, &[subscribed]).2.as_deref(), since, "what was missed has not come yet");
        assert_eq!(check(since, &[subscribed, fourth]).2.as_deref(), Some("00000000000000ab:4"));
        let lost = r#"{"name":"subscribed","epoch":"00000000000000cd","offset":2,"recovered":false}"#;
        let (_, notices, position) = check(since, &[lost, r#"{"name":"message","message":1,"offset":3}"#]);
        assert_eq!(position.as_deref(), Some("00000000000000cd:3"));
        let former = "gap: 00000000000000ab:3 is not of this life of the room; going on from 00000000000000cd:2";
        assert_eq!(notices, format!("fanfare: {former}\n"));
        let lost = r#"{"name":"subscribed","epoch":"00000000000000ab","offset":9,"recovered":false}"#;
        let (_, notices, position) = check(since, &[lost]);
        assert_eq!(position.as_deref(), Some("00000000000000ab:9"));
        let old = "gap: 6 messages since 00000000000000ab:3 are not kept any more; going on from 00000000000000ab:9";
        assert_eq!(notices, format!("fanfare: {old}\n"));
    }

    #[test]
    fn without_a_position_the_first_answer_gives_one_and_messages_without_numbers_are_counted() {
        let first = r#"{"name":"subscribed","epoch":"00000000000000ab","offset":2,"recovered":false}"#;
        let message = r#"{"name":"message","message":1}"#;
        let (_, notices, position) = check(None, &[first, message, message]);
        assert_eq!(notices, "", "nothing was missed that was asked for");
        assert_eq!(position.as_deref(), Some("00000000000000ab:4"));
        let gap = r#"{"name":"gap","from":5,"to":7,"count":3}"#;
        assert_eq!(check(None, &[first, message, message, gap, message]).2.as_deref(), Some("00000000000000ab:8"));
    }

    #[test]
    fn gaps_errors_and_what_cannot_be_read_are_noticed() {
        let (out, notices, _) = check(
            None,
            &[
                r#"{"name":"gap","from":1,"to":3,"count":3}"#,
                r#"{"name":"error","code":"not_allowed","message":"no"}"#,
                "garbage\u{7}",
            ],
        );
        assert_eq!(out, "");
        let lines: Vec<&str> = notices.lines().collect();
        assert_eq!(lines[..2], ["fanfare: gap: 3 messages were not delivered", "fanfare: error not_allowed: no"]);
        assert!(lines[2].starts_with("fanfare: cannot read the gateway's answer"), "{notices}");
    }

    #[test]
    fn close_codes_decide_what_follows() {
        for code in [1006, 1011, 1012, 4500, 4508] {
            let said = format!("closed with {code}: why");
            assert_eq!(closed(CloseCode(code), "why").expect("to come back"), Outcome::Lost(said));
        }
        assert_eq!(closed(CloseCode(1000), "bye").expect("a normal end"), Outcome::Done);
        let kicked = closed(CloseCode(4401), "no\u{1b} token").expect_err("44xx ends the command").to_string();
        assert_eq!(kicked, "closed with 4401: no\\u{1b} token (what to do: pass a valid token)");
    }

    #[tokio::test]
    async fn the_first_connection_must_succeed_and_later_ones_are_retried() {
        let unused =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        let args = SubArgs {
            room: "lobby".to_owned(),
            url: format!("ws://{unused}"),
            since: None,
            token: None,
            trust: TrustArgs::default(),
        };
        let nobody = run(&args).await.expect_err("nobody listens").to_string();
        assert_eq!(
            nobody,
            format!(
                "nothing is listening at {unused}: start the gateway with `fanfare dev`, or name its client listener with --url"
            )
        );
        let mut follower = follower(None);
        let gone = || Error::NothingListening { authority: "h:1".to_owned() };
        assert!(follower.failed(gone()).is_err());
        follower.was_connected = true;
        assert_eq!(follower.failed(gone()).expect("a retry"), Outcome::Lost("nothing is listening at h:1".to_owned()));
    }

    #[test]
    fn the_dice_stay_in_range_and_roll() {
        let rolls: Vec<f64> = (0..100).map(|_| dice()).collect();
        assert!(rolls.iter().all(|roll| (0.0..1.0).contains(roll)));
        assert!(rolls.iter().any(|roll| *roll != rolls[0]));
    }
}
