//! What a gateway tells of itself, and what two tellings say of the time between them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fanfare_client::ApiClient;
use serde::Deserialize;

use crate::cli::ApiArgs;
use crate::commands::publish::explain;

/// Connections and rooms that are kept for showing.
const ROWS_MAX: usize = 10;
/// Rooms of one page, the most that a gateway tells.
const PAGE: usize = 1_000;
/// Pages of one walk: rooms are listed by name, so the largest are found only by looking.
const PAGES_MAX: usize = 5;
/// Pause between two walks over the rooms.
const WALK_EVERY: Duration = Duration::from_secs(5);

/// The counters whose rates are shown: what they are called, and their metric.
pub(super) const COUNTERS: [(&str, &str); 5] = [
    ("published", "fanfare_published_total"),
    ("received", "fanfare_received_total"),
    ("delivered", "fanfare_delivered_total"),
    ("dropped", "fanfare_dropped_total"),
    ("evicted", "fanfare_evicted_total"),
];

/// The metrics at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) is_ready: bool,
    pub(super) connections: u64,
    pub(super) rooms: u64,
    pub(super) subscriptions: u64,
    pub(super) outbox_bytes: u64,
    pub(super) outbox_bytes_max: u64,
    /// In the order of [`COUNTERS`].
    pub(super) totals: [u64; COUNTERS.len()],
    /// By reason, those that ever happened.
    pub(super) closes: BTreeMap<String, u64>,
}

impl Sample {
    /// Reads the page `/metrics`. Families and labels that are not known are passed over.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut sample = Self::default();
        let (mut has_ready, mut has_connections) = (false, false);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            // Saturates: what is below zero or no number is 0.
            let value = value as u64;
            let (family, labels) = name.split_once('{').unwrap_or((name, ""));
            match family {
                "fanfare_ready" => (sample.is_ready, has_ready) = (value == 1, true),
                "fanfare_connections" => (sample.connections, has_connections) = (value, true),
                "fanfare_rooms" => sample.rooms = value,
                "fanfare_subscriptions" => sample.subscriptions = value,
                "fanfare_outbox_bytes" => sample.outbox_bytes = value,
                "fanfare_outbox_bytes_max" => sample.outbox_bytes_max = value,
                "fanfare_closes_total" if value > 0 => {
                    let reason = labels.strip_prefix("reason=\"").and_then(|rest| rest.split('"').next());
                    sample.closes.insert(reason.unwrap_or("unknown").to_owned(), value);
                }
                _ => {
                    // Labels are parts of one sum.
                    if let Some(counter) = COUNTERS.iter().position(|(_, metric)| *metric == family) {
                        sample.totals[counter] = sample.totals[counter].saturating_add(value);
                    }
                }
            }
        }
        anyhow::ensure!(
            has_ready && has_connections,
            "this is not the metrics page of a gateway: give the address of the admin listener with --url"
        );
        Ok(sample)
    }

    /// Whether the process was another one at `before`: a counter never goes down in one.
    fn is_restarted_since(&self, before: &Self) -> bool {
        let fell = self.totals.iter().zip(&before.totals).any(|(now, before)| now < before);
        fell || before.closes.iter().any(|(reason, before)| self.closes.get(reason).is_none_or(|now| now < before))
    }
}

/// What happened between two samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Between {
    /// Time between the two.
    pub(super) time: Duration,
    /// By second, in the order of [`COUNTERS`].
    pub(super) rates: [f64; COUNTERS.len()],
    /// Connections closed, by reason.
    pub(super) closes: Vec<(String, u64)>,
    /// The gateway was started in between; all is counted from its start.
    pub(super) is_restarted: bool,
}

impl Between {
    pub(super) fn new(before: &Sample, now: &Sample, time: Duration) -> Self {
        let is_restarted = now.is_restarted_since(before);
        let nothing = Sample::default();
        let before = if is_restarted { &nothing } else { before };
        let seconds = time.as_secs_f64().max(0.001);
        let rates = std::array::from_fn(|n| (now.totals[n] - before.totals[n]) as f64 / seconds);
        let closes = now.closes.iter().filter_map(|(reason, now)| {
            let count = now - before.closes.get(reason).copied().unwrap_or_default();
            (count > 0).then(|| (reason.clone(), count))
        });
        Self { time, rates, closes: closes.collect(), is_restarted }
    }
}

/// A connection with something queued.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Consumer {
    pub(super) connection: String,
    pub(super) user: Option<String>,
    pub(super) address: Option<String>,
    pub(super) queued_bytes: u64,
    pub(super) queued_messages: u64,
    pub(super) rooms: Vec<String>,
}

#[derive(Deserialize)]
struct Consumers {
    connections: Vec<Consumer>,
}

/// A room and its subscribers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Room {
    pub(super) room: String,
    pub(super) occupancy: u64,
    pub(super) offset: u64,
}

#[derive(Deserialize)]
struct RoomPage {
    rooms: Vec<Room>,
    next: Option<String>,
}

/// The largest rooms of those that were looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Largest {
    pub(super) rooms: Vec<Room>,
    pub(super) looked_at: usize,
    /// Whether there are rooms behind those, by name.
    pub(super) has_more: bool,
}

impl Largest {
    fn take(&mut self, page: Vec<Room>) {
        self.looked_at += page.len();
        self.rooms.extend(page);
        self.rooms.sort_by(|a, b| (Reverse(a.occupancy), &a.room).cmp(&(Reverse(b.occupancy), &b.room)));
        self.rooms.truncate(ROWS_MAX);
    }
}

/// The lists at one moment; rooms only when it was time for another walk.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) slowest: Vec<Consumer>,
    pub(super) largest: Option<Largest>,
}

/// One round of questions. Each part fails by itself: a shard that is too busy to tell of its connections hides no rates.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) at: Instant,
    pub(super) sample: anyhow::Result<Sample>,
    pub(super) lists: anyhow::Result<Lists>,
}

/// Who asks a gateway, again and again.
#[derive(Debug)]
pub(super) struct Inquiry {
    api: ApiClient,
    walked: Option<Instant>,
}

impl Inquiry {
    pub(super) fn new(args: &ApiArgs) -> anyhow::Result<Self> {
        Ok(Self { api: args.client()?, walked: None })
    }

    pub(super) async fn sample(&mut self) -> anyhow::Result<Sample> {
        let page = self.api.get("metrics", &[]).await.map_err(explain)?;
        Sample::parse(&String::from_utf8_lossy(&page))
    }

    pub(super) async fn lists(&mut self) -> anyhow::Result<Lists> {
        let limit = ROWS_MAX.to_string();
        let slow = self.api.get("api/connections", &[("slow", "1"), ("limit", &limit)]).await.map_err(explain)?;
        let slow: Consumers = read(&slow)?;
        let mut largest = None;
        if self.walked.is_none_or(|walked| walked.elapsed() >= WALK_EVERY) {
            largest = Some(self.walk().await?);
            self.walked = Some(Instant::now());
        }
        Ok(Lists { slowest: slow.connections, largest })
    }

    /// Asks for all. One who did not answer the first question is not asked the others.
    pub(super) async fn round(&mut self) -> Round {
        let sample = self.sample().await;
        let at = Instant::now();
        let lists = match &sample {
            Ok(_) => self.lists().await,
            Err(_) => Err(anyhow::anyhow!("not asked")),
        };
        Round { at, sample, lists }
    }

    async fn walk(&mut self) -> anyhow::Result<Largest> {
        let limit = PAGE.to_string();
        let mut largest = Largest::default();
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let query = [("limit", limit.as_str()), ("after", &after)];
            // An empty `after` is the beginning.
            let page = self.api.get("api/rooms", &query).await.map_err(explain)?;
            let page: RoomPage = read(&page)?;
            largest.take(page.rooms);
            let Some(next) = page.next else { return Ok(largest) };
            after = next;
        }
        largest.has_more = true;
        Ok(largest)
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer).context("the gateway's answer cannot be read: is it of another version?")
}

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) url: String,
    pub(super) every: Duration,
    /// The latest metrics, and when they came.
    pub(super) sample: Option<(Instant, Sample)>,
    pub(super) between: Option<Between>,
    pub(super) slowest: Vec<Consumer>,
    pub(super) largest: Largest,
    /// Why there are no newer numbers.
    pub(super) problem: Option<String>,
    /// Why there are no newer lists, where there are newer numbers.
    pub(super) lists_problem: Option<String>,
}

impl Picture {
    pub(super) fn new(url: &str, every: Duration) -> Self {
        Self { url: url.to_owned(), every, ..Self::default() }
    }

    pub(super) fn take(&mut self, round: Round) {
        match round.sample {
            Err(error) => self.problem = Some(format!("{error:#}")),
            Ok(sample) => {
                self.problem = None;
                if let Some((then, before)) = &self.sample {
                    self.between = Some(Between::new(before, &sample, round.at.duration_since(*then)));
                }
                self.sample = Some((round.at, sample));
                self.lists_problem = round.lists.as_ref().err().map(|error| format!("{error:#}"));
            }
        }
        if let Ok(lists) = round.lists {
            self.slowest = lists.slowest;
            self.largest = lists.largest.unwrap_or_else(|| std::mem::take(&mut self.largest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "# HELP fanfare_connections WebSocket connections open\n# TYPE fanfare_connections gauge\n\
        fanfare_connections 12\nfanfare_rooms 3\nfanfare_subscriptions 30\nfanfare_published_total 100\n\
        fanfare_received_total 5\nfanfare_delivered_total 1e3\nfanfare_dropped_total{policy=\"drop_oldest\"} 4\n\
        fanfare_dropped_total{policy=\"latest\"} 3\nfanfare_evicted_total 2\n\
        fanfare_closes_total{reason=\"slow_consumer\"} 2\nfanfare_closes_total{reason=\"left\"} 0\n\
        fanfare_publish_to_write_seconds_bucket{le=\"+Inf\"} 9\nfanfare_new_thing{a=\"b c\"} NaN\nnonsense\n\n\
        fanfare_outbox_bytes 2048\nfanfare_outbox_bytes_max 4096\nfanfare_ready 1\n";

    #[test]
    fn the_metrics_page_is_read_and_what_is_unknown_passed_over() {
        let sample = Sample::parse(PAGE_TEXT).unwrap();
        let expected = Sample {
            is_ready: true,
            connections: 12,
            rooms: 3,
            subscriptions: 30,
            outbox_bytes: 2_048,
            outbox_bytes_max: 4_096,
            totals: [100, 5, 1_000, 7, 2],
            closes: [("slow_consumer".to_owned(), 2)].into(),
        };
        assert_eq!(sample, expected);
        for text in ["", "<html>hello</html>", "fanfare_connections 3", "node_load1 0.3\n"] {
            assert!(Sample::parse(text).unwrap_err().to_string().contains("--url"), "{text}");
        }
        let odd = Sample::parse("fanfare_connections -1\nfanfare_rooms 1e300\nfanfare_ready 0\n").unwrap();
        assert_eq!((odd.is_ready, odd.connections, odd.rooms), (false, 0, u64::MAX));
    }

    fn sample(totals: [u64; 5], closes: &[(&str, u64)]) -> Sample {
        let closes = closes.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Sample { totals, closes, ..Sample::default() }
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let before = sample([100, 10, 1_000, 0, 1], &[("left", 5), ("kicked", 1)]);
        let now = sample([160, 10, 4_000, 1, 3], &[("left", 9), ("kicked", 1), ("slow_consumer", 2)]);
        let between = Between::new(&before, &now, Duration::from_secs(2));
        assert_eq!(between.rates, [30.0, 0.0, 1_500.0, 0.5, 1.0]);
        assert_eq!(between.closes, [("left".to_owned(), 4), ("slow_consumer".to_owned(), 2)]);
        assert!(!between.is_restarted);
    }

    /// One counter that fell tells of a new process: the others may have overtaken their old values already.
    #[test]
    fn after_a_restart_all_is_counted_from_zero() {
        let before = sample([100, 10, 1_000, 0, 1], &[("left", 5)]);
        let now = sample([120, 4, 600, 0, 0], &[("left", 6)]);
        let between = Between::new(&before, &now, Duration::from_secs(2));
        assert_eq!(between.rates, [60.0, 2.0, 300.0, 0.0, 0.0]);
        assert_eq!(between.closes, [("left".to_owned(), 6)]);
        assert!(between.is_restarted);
        let quiet = Between::new(&before, &sample([100, 10, 1_000, 0, 1], &[]), Duration::from_secs(1));
        assert!(quiet.is_restarted, "a reason that is gone was counted by another process");
    }

    #[test]
    fn the_largest_rooms_are_kept_from_page_to_page() {
        let room = |n: u64| Room { room: format!("r{n:04}"), occupancy: n % 700, offset: 0 };
        let mut largest = Largest::default();
        largest.take((0..1_000).map(room).collect());
        largest.take((1_000..1_500).map(room).collect());
        let names: Vec<_> = largest.rooms.iter().map(|room| (room.room.as_str(), room.occupancy)).collect();
        assert_eq!((largest.looked_at, names.len()), (1_500, ROWS_MAX));
        assert_eq!(names[..3], [("r0699", 699), ("r1399", 699), ("r0698", 698)]);
    }

    fn round(sample: anyhow::Result<Sample>, lists: anyhow::Result<Lists>) -> Round {
        Round { at: Instant::now(), sample, lists }
    }

    #[test]
    fn what_was_known_stays_when_the_gateway_is_gone_or_a_shard_is_late() {
        let mut picture = Picture::new("http://a", Duration::from_secs(1));
        let largest = Largest { looked_at: 7, ..Largest::default() };
        let lists = Lists { slowest: Vec::new(), largest: Some(largest) };
        picture.take(round(Ok(sample([1; 5], &[])), Ok(lists)));
        assert!(picture.between.is_none(), "one sample has no rate");
        picture.take(round(Ok(sample([2; 5], &[])), Err(anyhow::anyhow!("late"))));
        assert_eq!((picture.problem.as_deref(), picture.lists_problem.as_deref()), (None, Some("late")));
        assert!(picture.between.is_some());
        picture.take(round(Err(anyhow::anyhow!("gone")), Err(anyhow::anyhow!("not asked"))));
        assert_eq!((picture.problem.as_deref(), picture.lists_problem.as_deref()), (Some("gone"), Some("late")));
        assert_eq!(picture.sample.as_ref().map(|(_, sample)| sample.totals), Some([2; 5]));
        let lists = Lists { slowest: Vec::new(), largest: None };
        picture.take(round(Ok(sample([3; 5], &[])), Ok(lists)));
        assert_eq!((picture.problem, picture.lists_problem, picture.largest.looked_at), (None, None, 7));
    }
}
