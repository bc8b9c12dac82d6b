//! `fanfare why`: the close ledger as a table, with what to do next.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use fanfare_protocol::CloseReason;
use serde::Deserialize;

use super::publish::explain;
use crate::cli::{self, WhyArgs};
use crate::config::bytes;

/// The part of the API's answer that is shown.
#[derive(Debug, Deserialize)]
struct Answer {
    closes: Vec<Close>,
    next: Option<u64>,
    kept: usize,
    total: u64,
    reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Close {
    at_ms: u64,
    connection: String,
    user: Option<String>,
    address: Option<String>,
    reason: String,
    code: u16,
    text: String,
    room: Option<String>,
    age_ms: u64,
    queued_bytes: usize,
    queued_messages: usize,
}

/// Asks a running gateway why connections were closed and prints it.
///
/// # Errors
/// A bad address, a gateway that is not there or refuses, an answer that cannot be read.
pub async fn run(args: &WhyArgs) -> anyhow::Result<()> {
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let filters = [("user", &args.user), ("connection", &args.connection), ("reason", &args.reason)];
    query.extend(filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
    let mut api = args.api.client()?;
    let answer = api.get("api/closes", &query).await.map_err(explain)?;
    if args.json {
        return Ok(cli::print(&format!("{}\n", String::from_utf8_lossy(&answer)))?);
    }
    let answer = serde_json::from_slice(&answer).context("the gateway's answer cannot be read")?;
    Ok(cli::print(&report(&answer))?)
}

fn report(answer: &Answer) -> String {
    let mut lines = Vec::new();
    if answer.closes.is_empty() {
        lines.push("No connection that was closed and is remembered is meant by this.".to_owned());
    } else {
        lines.extend(table(&answer.closes));
    }
    if answer.next.is_some() {
        lines.push("There are more: ask with a larger --limit.".to_owned());
    }
    let reasons: Vec<_> = answer.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let Answer { total, kept, .. } = answer;
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    lines.push(format!("\nClosed since the start {total}{reasons}. Remembered one by one: {kept}."));
    lines.extend(advice(&answer.closes));
    lines.join("\n") + "\n"
}

/// What each reason in the table means, once.
fn advice(closes: &[Close]) -> Vec<String> {
    let mut told = Vec::<&str>::new();
    for close in closes {
        if !told.contains(&close.reason.as_str()) {
            told.push(&close.reason);
        }
    }
    let advice = |label: &&str| CloseReason::LABELS.iter().position(|known| known == label);
    let advice = told.iter().filter_map(|label| Some(format!("\n{label}: {}", CloseReason::ADVICE[advice(label)?])));
    advice.collect()
}

fn table(closes: &[Close]) -> Vec<String> {
    let head = ["WHEN", "CONNECTION", "USER", "ADDRESS", "REASON", "CODE", "OPEN FOR", "WHAT"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(closes.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..8).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(close: &Close) -> [String; 8] {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    let when = SystemTime::UNIX_EPOCH + Duration::from_millis(close.at_ms);
    let mut what = plain(&close.text);
    if let Some(room) = &close.room {
        what += &format!("; room {}", plain(room));
    }
    // Where the text does not say it already.
    if close.queued_bytes > 0 && !close.text.contains("queued") {
        what += &format!("; {} in {} messages not taken", bytes(close.queued_bytes as u128), close.queued_messages);
    }
    [
        humantime::format_rfc3339_seconds(when).to_string(),
        plain(&close.connection),
        or_none(&close.user),
        or_none(&close.address),
        plain(&close.reason),
        close.code.to_string(),
        open_for(close.age_ms),
        what,
    ]
}

/// Names are what clients say: nothing of them may reach the terminal as a command.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time in its two largest units.
fn open_for(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(reason: &str, user: Option<&str>, text: &str) -> Close {
        Close {
            at_ms: 1_795_000_000_000,
            connection: "0-1f-3".to_owned(),
            user: user.map(str::to_owned),
            address: Some("127.0.0.1".to_owned()),
            reason: reason.to_owned(),
            code: 4508,
            text: text.to_owned(),
            room: Some("lobby".to_owned()),
            age_ms: 61_500,
            queued_bytes: 2_048,
            queued_messages: 3,
        }
    }

    #[test]
    fn a_table_and_what_to_do_next() {
        let closes = vec![
            close("slow_consumer", Some("al\u{1b}[2J"), "queued 2048 bytes, 3 messages"),
            close("kicked", None, "kicked"),
            close("slow_consumer", Some("房"), "queued 2048 bytes, 3 messages"),
        ];
        let reasons = [("kicked".to_owned(), 1), ("slow_consumer".to_owned(), 5)].into();
        let text = report(&Answer { closes, next: Some(7), kept: 4, total: 6, reasons });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("WHEN                  CONNECTION  USER"), "{text}");
        assert!(lines[1].starts_with("2026-11-18T"), "{text}");
        assert!(lines[1].contains("al\u{fffd}[2J") && !text.contains('\u{1b}'), "{text}");
        assert!(lines[1].ends_with("4508  1m 1s     queued 2048 bytes, 3 messages; room lobby"), "{text}");
        assert!(lines[2].contains(" -  ") && lines[2].ends_with("kicked; room lobby; 2.0 KiB in 3 messages not taken"));
        assert!(text.contains("larger --limit"), "{text}");
        assert!(
            text.contains("Closed since the start 6: kicked 1, slow_consumer 5. Remembered one by one: 4."),
            "{text}"
        );
        assert_eq!(text.matches("\nslow_consumer: ").count(), 1, "{text}");
        assert!(text.contains("\nkicked: An operator"), "{text}");
        let none = report(&Answer { closes: Vec::new(), next: None, kept: 0, total: 0, reasons: BTreeMap::new() });
        assert!(none.starts_with("No connection") && none.contains("Closed since the start 0. "), "{none}");
    }

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (61_000, "1m 1s"),
            (7_260_000, "2h 1m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(open_for(ms), text);
        }
    }
}
