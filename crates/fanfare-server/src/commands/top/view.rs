//! The picture as lines, as many and as wide as there is room for.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::data::{Between, COUNTERS, Picture, Sample};
use crate::commands::why::plain;
use crate::config::bytes;

/// Columns of a name in a table.
const NAME_MAX: usize = 24;

/// Draws all of `picture` that the terminal has room for.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture, now: Instant, has_colour: bool) {
    let area = frame.area();
    let every = humantime::format_duration(picture.every);
    let title = title(picture, now, &format!("every {every}  q quits"));
    let lines = lines(picture, title, usize::from(area.height), has_colour);
    frame.render_widget(Paragraph::new(lines), area);
}

/// The whole picture as plain text, which nobody can quit.
pub(super) fn text(picture: &Picture, now: Instant) -> String {
    let line = |line: &Line<'_>| {
        let text: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
        text.trim_end().to_owned() + "\n"
    };
    let title = title(picture, now, &format!("over {}", humantime::format_duration(picture.every)));
    lines(picture, title, usize::MAX, false).iter().map(line).collect()
}

/// A line, and its rank: where there is too little room, those of the highest go first.
type Ranked = (u8, Line<'static>);

fn lines(picture: &Picture, title: Line<'static>, height: usize, has_colour: bool) -> Vec<Line<'static>> {
    let paint = |color: Color| if has_colour { Style::new().fg(color) } else { Style::new() };
    let mut head: Vec<Ranked> = vec![(0, title.style(paint(Color::Cyan).bold()))];
    if let Some(problem) = picture.problem.as_ref().or(picture.lists_problem.as_ref()) {
        head.push((1, Line::styled(format!("! {}", plain(problem)), paint(Color::Red).bold())));
    }
    let Some((_, sample)) = &picture.sample else {
        let every = humantime::format_duration(picture.every);
        head.push((2, Line::raw(format!("Asking again every {every}; another gateway is named with --url."))));
        return fit(head, height);
    };
    head.extend(numbers(picture, sample, paint(Color::Yellow)));
    let rows = height.saturating_sub(head.len());
    let mut lines = fit(head, height);
    lines.extend(tables(picture, rows));
    lines
}

/// The most important of `lines`, in their order.
fn fit(mut lines: Vec<Ranked>, height: usize) -> Vec<Line<'static>> {
    while lines.len() > height {
        let Some(least) = lines.iter().map(|(rank, _)| *rank).max() else { break };
        lines.retain(|(rank, _)| *rank != least);
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// How the gateway is, and `how` it is looked at.
fn title(picture: &Picture, now: Instant, how: &str) -> Line<'static> {
    let age = picture.sample.as_ref().map(|(at, _)| now.saturating_duration_since(*at));
    // An answer that is waited for is late before it is given up.
    let is_late = age.is_some_and(|age| age > picture.every * 2 + Duration::from_secs(1));
    let state = match (&picture.sample, age) {
        (Some(_), Some(age)) if picture.problem.is_some() || is_late => {
            format!("NO ANSWER, stale: {} s old", age.as_secs())
        }
        (Some((_, sample)), _) if sample.is_ready => "ready".to_owned(),
        (Some(_), _) => "LEAVING SERVICE".to_owned(),
        _ if picture.problem.is_some() => "NO ANSWER".to_owned(),
        _ => "asking".to_owned(),
    };
    Line::raw(format!("fanfare top  {state}  {}  {how}", plain(&picture.url)))
}

/// Everything that is counted.
fn numbers(picture: &Picture, sample: &Sample, alarm: Style) -> Vec<Ranked> {
    let Sample { connections, rooms, subscriptions, outbox_bytes, outbox_bytes_max, .. } = sample;
    let share = outbox_bytes.saturating_mul(100) / (*outbox_bytes_max).max(1);
    let queued = bytes(u128::from(*outbox_bytes));
    let mut lines = vec![
        (2, Line::raw(format!("connections {connections}  rooms {rooms}  subscriptions {subscriptions}"))),
        (6, Line::raw(format!("queued {queued} of {} ({share} %)", bytes(u128::from(*outbox_bytes_max))))),
        (5, Line::raw(format!("{:<10}{:>14}{:>16}", "", "per second", "total")).bold()),
    ];
    for (n, ((name, _), total)) in COUNTERS.iter().zip(sample.totals).enumerate() {
        let rate = picture.between.as_ref().map(|between| between.rates[n]);
        let line = Line::raw(format!("{name:<10}{:>14}{total:>16}", rate.map_or_else(|| "-".to_owned(), per_second)));
        let is_loss = matches!(*name, "dropped" | "evicted") && rate > Some(0.0);
        let rank = if *name == "evicted" { 3 } else { 4 };
        lines.push((rank, if is_loss { line.style(alarm.bold()) } else { line }));
    }
    if let Some(between) = &picture.between {
        lines.push((7, Line::raw(lately(between))));
    }
    let since = sample.closes.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    lines.push((8, Line::raw(format!("closed since the start: {}", by_count(since)))));
    lines
}

/// A rate: small ones with what is behind the point, so that they are not shown as nothing.
fn per_second(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn lately(between: &Between) -> String {
    let Between { time, closes, is_restarted, .. } = between;
    let closes = closes.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let restarted = if *is_restarted { "RESTARTED; " } else { "" };
    format!("{restarted}closed in the last {:.1} s: {}", time.as_secs_f64(), by_count(closes))
}

fn by_count(mut closes: Vec<(&str, u64)>) -> String {
    closes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let closes: Vec<_> = closes.iter().map(|(reason, count)| format!("{} {count}", plain(reason))).collect();
    if closes.is_empty() { "none".to_owned() } else { closes.join(", ") }
}

/// The lists, in so many rows: each has half of them, and what the other does not need.
fn tables(picture: &Picture, rows: usize) -> Vec<Line<'static>> {
    let (slowest, largest) = (slowest(picture), largest(picture));
    let half = rows.div_ceil(2);
    let first = slowest.len().min(half.max(rows.saturating_sub(largest.len())));
    let second = rows.saturating_sub(first);
    slowest.into_iter().take(first).chain(largest.into_iter().take(second)).collect()
}

fn stale(picture: &Picture) -> &'static str {
    if picture.problem.is_some() || picture.lists_problem.is_some() { " (stale)" } else { "" }
}

fn slowest(picture: &Picture) -> Vec<Line<'static>> {
    let mut lines = vec![Line::raw(format!("SLOWEST CONSUMERS{}", stale(picture))).bold()];
    if picture.slowest.is_empty() {
        lines.push(Line::raw("  nothing is queued for anybody"));
        return lines;
    }
    let head = ["QUEUED", "MESSAGES", "CONNECTION", "USER", "ADDRESS", "ROOM"].map(str::to_owned);
    let rows = picture.slowest.iter().map(|slow| {
        let room = match &slow.rooms[..] {
            [] => "-".to_owned(),
            [one] => name(one),
            [one, ..] => format!("{}, …", name(one)),
        };
        [
            bytes(u128::from(slow.queued_bytes)),
            slow.queued_messages.to_string(),
            name(&slow.connection),
            name(slow.user.as_deref().unwrap_or("-")),
            name(slow.address.as_deref().unwrap_or("-")),
            room,
        ]
    });
    lines.extend(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    lines
}

fn largest(picture: &Picture) -> Vec<Line<'static>> {
    let largest = &picture.largest;
    let of = match (largest.has_more, largest.looked_at) {
        (true, count) => format!("of the first {count} by name; there are more"),
        (false, 1) => "the only one".to_owned(),
        (false, count) => format!("of all {count}"),
    };
    let mut lines = vec![Line::raw(format!("LARGEST ROOMS, {of}{}", stale(picture))).bold()];
    if largest.rooms.is_empty() {
        lines.push(Line::raw("  no rooms"));
        return lines;
    }
    let head = ["SUBSCRIBERS", "OFFSET", "ROOM"].map(str::to_owned);
    let rows = largest.rooms.iter().map(|room| [room.occupancy.to_string(), room.offset.to_string(), name(&room.room)]);
    lines.extend(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    lines
}

/// Names are what clients say: no commands for the terminal, and no longer than a column.
fn name(text: &str) -> String {
    let text = plain(text);
    if Span::raw(text.as_str()).width() <= NAME_MAX {
        return text;
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if Span::raw(cut.as_str()).width() >= NAME_MAX {
            cut.pop();
            break;
        }
    }
    cut + "…"
}

fn table<const N: usize>(rows: &[[String; N]]) -> Vec<Line<'static>> {
    let width = |text: &String| Span::raw(text.as_str()).width();
    let widths: [usize; N] = std::array::from_fn(|n| rows.iter().map(|row| width(&row[n])).max().unwrap_or_default());
    let line = |row: &[String; N]| {
        // Wide characters take two columns, which padding by their number would not know.
        let cells = row.iter().zip(widths).map(|(cell, to)| format!("  {cell}{}", " ".repeat(to - width(cell))));
        Line::raw(cells.collect::<String>().trim_end().to_owned())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::data::{Consumer, Largest, Room};
    use super::*;

    fn picture(now: Instant) -> Picture {
        let sample = Sample {
            is_ready: true,
            connections: 12_034,
            rooms: 480,
            subscriptions: 24_100,
            outbox_bytes: 3 << 20,
            outbox_bytes_max: 256 << 20,
            totals: [123_456, 7_890, 9_876_543, 21, 4],
            closes: [("left".to_owned(), 9), ("slow_consumer".to_owned(), 40)].into(),
        };
        let between = Between {
            time: Duration::from_secs(1),
            rates: [120.0, 3.5, 24_000.0, 0.0, 2.0],
            closes: vec![("slow_consumer".to_owned(), 2)],
            is_restarted: false,
        };
        let slow = |n: u64| Consumer {
            connection: format!("0-{n}-1"),
            user: Some("al\u{1b}[2J".to_owned()),
            address: Some("127.0.0.1".to_owned()),
            queued_bytes: 2_048 * (10 - n),
            queued_messages: 3,
            rooms: vec!["房间".to_owned(), "b".to_owned()],
        };
        let room = |n: u64| Room { room: format!("room-{n}-{}", "x".repeat(40)), occupancy: 900 - n, offset: n };
        Picture {
            url: "http://127.0.0.1:8081".to_owned(),
            every: Duration::from_secs(1),
            sample: Some((now, sample)),
            between: Some(between),
            slowest: (0..10).map(slow).collect(),
            largest: Largest { rooms: (0..10).map(room).collect(), looked_at: 5_000, has_more: true },
            problem: None,
            lists_problem: None,
        }
    }

    fn terminal(picture: &Picture, now: Instant, size: (u16, u16), has_colour: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, picture, now, has_colour)).unwrap();
        terminal
    }

    fn shown(picture: &Picture, now: Instant, width: u16, height: u16) -> String {
        terminal(picture, now, (width, height), true).backend().to_string()
    }

    fn has(text: &str, words: &[&str]) {
        for word in words {
            assert!(text.contains(word), "{word:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_usual_terminal_shows_every_section() {
        let now = Instant::now();
        let text = shown(&picture(now), now, 80, 24);
        has(&text, &["fanfare top  ready  http://127.0.0.1:8081  every 1s  q quits"]);
        has(&text, &["connections 12034  rooms 480  subscriptions 24100", "queued 3.0 MiB of 256.0 MiB (1 %)"]);
        has(&text, &["published            120          123456", "received             3.5            7890"]);
        has(&text, &["delivered          24000         9876543", "evicted              2.0               4"]);
        has(&text, &["closed in the last 1.0 s: slow_consumer 2", "closed since the start: slow_consumer 40, left 9"]);
        has(&text, &["SLOWEST CONSUMERS", "20.0 KiB  3         0-0-1       al\u{fffd}[2J", "18.0 KiB"]);
        has(&text, &["LARGEST ROOMS, of the first 5000 by name; there are more"]);
        has(&text, &["  900          0       room-0-xxxxxxxxxxxxxxxx…", "room-1-"]);
    }

    #[test]
    fn a_small_one_shows_what_matters_most() {
        let now = Instant::now();
        let mut picture = picture(now);
        has(
            &shown(&picture, now, 40, 10),
            &["ready", "connections 12034", "published", "per second", "evicted", "2.0"],
        );
        picture.problem = Some("nothing is listening at 127.0.0.1:8081".to_owned());
        let text = shown(&picture, now, 40, 10);
        has(&text, &["NO ANSWER", "nothing is listening", "connections 12034", "published", "delivered", "evicted"]);
        has(&shown(&picture, now, 40, 4), &["NO ANSWER", "connections 12034", "evicted              2.0"]);
        for size in [(1, 1), (1, 50), (200, 1), (3, 2), (200, 200)] {
            shown(&picture, now, size.0, size.1);
            shown(&Picture::default(), now, size.0, size.1);
        }
        assert_eq!(shown(&picture, now, 1, 1), "\"f\"\n");
    }

    #[test]
    fn a_gateway_that_does_not_answer_is_told_and_its_numbers_are_marked() {
        let now = Instant::now();
        let mut nobody = Picture::new("http://127.0.0.1:8081", Duration::from_secs(1));
        has(&shown(&nobody, now, 80, 24), &["fanfare top  asking"]);
        nobody.problem = Some("nothing is listening at x: start the gateway with `fanfare dev`".to_owned());
        has(&shown(&nobody, now, 80, 24), &["NO ANSWER  ", "! nothing is listening", "Asking again every 1s", "--url"]);

        let mut gone = picture(now);
        gone.problem = Some("the HTTP exchange failed".to_owned());
        let text = shown(&gone, now + Duration::from_secs(12), 80, 24);
        has(
            &text,
            &["NO ANSWER, stale: 12 s old", "! the HTTP exchange failed", "connections 12034", "CONSUMERS (stale)"],
        );
        // Nobody has refused, but nobody has answered either.
        has(&shown(&picture(now), now + Duration::from_secs(5), 80, 24), &["NO ANSWER, stale: 5 s old"]);
        let mut late = picture(now);
        late.lists_problem = Some("shard 1 does not answer in time".to_owned());
        has(&shown(&late, now, 80, 24), &["fanfare top  ready", "! shard 1", "SLOWEST CONSUMERS (stale)"]);
        let mut leaving = picture(now);
        leaving.sample.as_mut().unwrap().1.is_ready = false;
        leaving.between.as_mut().unwrap().is_restarted = true;
        has(&shown(&leaving, now, 80, 24), &["LEAVING SERVICE", "RESTARTED; closed in the last"]);
    }

    #[test]
    fn without_colour_the_same_is_said() {
        let now = Instant::now();
        let mut picture = picture(now);
        picture.problem = Some("gone".to_owned());
        let coloured = terminal(&picture, now, (80, 24), true);
        let bare = terminal(&picture, now, (80, 24), false);
        assert_eq!(coloured.backend().to_string(), bare.backend().to_string());
        let colours = |terminal: &Terminal<TestBackend>| {
            terminal.backend().buffer().content().iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert_eq!(colours(&bare), 0);
        assert!(colours(&coloured) > 0);
    }

    #[test]
    fn as_text_nothing_is_cut_off_and_nothing_commands_the_terminal() {
        let now = Instant::now();
        let text = text(&picture(now), now);
        assert!(!text.contains('\u{1b}') && !text.contains(" \n"), "{text}");
        assert_eq!(text.matches("al\u{fffd}[2J").count(), 10, "{text}");
        assert_eq!(text.matches("room-").count(), 10, "{text}");
        has(&text, &["房间, …"]);
        let width = |text: &str| Span::raw(text.to_owned()).width();
        assert_eq!(width(&name(&"房".repeat(30))), 23, "a wide character is not halved");
        assert_eq!(name("short"), "short");
    }
}
