//! Two counts side by side, for people.

use std::fmt::Write as _;

use super::baseline::Baseline;

/// Whether the table has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    Coloured,
}

/// What became of one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    /// From a count to a count.
    Counted { before: f64, now: f64 },
    /// The baseline does not have it.
    New { now: f64 },
    /// The baseline has it, the stages do not.
    Missing { before: f64 },
}

/// The stored counts and those of today.
#[derive(Debug)]
pub(crate) struct Comparison {
    rows: Vec<(String, Change)>,
    limit: f64,
    /// Then and today, where they are not the same.
    toolchains: Option<(String, String)>,
}

impl Comparison {
    /// Compares the stages whose names contain `only`. A stage is worse when it takes over `limit` percent more.
    pub(crate) fn new(stored: &Baseline, now: &Baseline, only: &str, limit: f64) -> Self {
        let find =
            |counts: &[(String, f64)], name: &str| counts.iter().find(|(n, _)| n == name).map(|&(_, count)| count);
        let today = now.counts.iter().map(|(name, now)| {
            let change = match find(&stored.counts, name) {
                Some(before) => Change::Counted { before, now: *now },
                None => Change::New { now: *now },
            };
            (name.clone(), change)
        });
        let gone = stored.counts.iter().filter(|(name, _)| name.contains(only) && find(&now.counts, name).is_none());
        let gone = gone.map(|(name, before)| (name.clone(), Change::Missing { before: *before }));
        let is_same = stored.toolchain == now.toolchain;
        let toolchains = (!is_same).then(|| (stored.toolchain.clone(), now.toolchain.clone()));
        Self { rows: today.chain(gone).collect(), limit, toolchains }
    }

    /// True when no stage became worse, and none is without a count to compare it with: a stage that vanished or came must
    /// enter the baseline in the same change.
    pub(crate) fn is_well(&self) -> bool {
        self.rows.iter().all(|(_, change)| matches!(self.judge(*change), Judgement::Same | Judgement::Better))
    }

    /// One line per stage, then one that sums up.
    pub(crate) fn table(&self, look: Look) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("stage".len());
        let mut table = format!("{:<width$} {:>14} {:>14} {:>9}\n", "stage", "baseline", "now", "change");
        for (name, change) in &self.rows {
            let judgement = self.judge(*change);
            let (before, now, word) = match *change {
                Change::Counted { before, now } => (grouped(before), grouped(now), signed_percent(before, now)),
                Change::New { now } => ("-".to_owned(), grouped(now), "new".to_owned()),
                Change::Missing { before } => (grouped(before), "-".to_owned(), "missing".to_owned()),
            };
            let (on, off) = judgement.colour(look);
            let _ = writeln!(table, "{on}{name:<width$} {before:>14} {now:>14} {word:>9}{off}");
        }
        table.push('\n');
        table.push_str(&self.summary());
        table
    }

    fn summary(&self) -> String {
        let count = |wanted| self.rows.iter().filter(|(_, change)| self.judge(*change) == wanted).count();
        let (worse, better, unstored) = (count(Judgement::Worse), count(Judgement::Better), count(Judgement::Unstored));
        let same = self.rows.len() - worse - better - unstored;
        let limit = self.limit;
        let mut summary = format!("stages: {same} within {limit} % of the baseline, {better} better, {worse} worse\n");
        if unstored > 0 {
            let _ = writeln!(summary, "{unstored} new or missing: `make icount-baseline` stores the stages there are");
        }
        if let Some((then, today)) = &self.toolchains {
            let _ = writeln!(summary, "the baseline is of another toolchain, which alone may change counts:");
            let _ = writeln!(summary, "  baseline: {then}\n  now:      {today}");
        }
        summary
    }

    fn judge(&self, change: Change) -> Judgement {
        let Change::Counted { before, now } = change else { return Judgement::Unstored };
        match percent(before, now) {
            more if more > self.limit => Judgement::Worse,
            less if less < -self.limit => Judgement::Better,
            _ => Judgement::Same,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Same,
    Better,
    Worse,
    Unstored,
}

impl Judgement {
    /// What switches its colour on and off.
    fn colour(self, look: Look) -> (&'static str, &'static str) {
        match (look, self) {
            (Look::Plain, _) | (_, Self::Same) => ("", ""),
            (Look::Coloured, Self::Better) => ("\x1b[32m", "\x1b[0m"),
            (Look::Coloured, Self::Worse) => ("\x1b[31m", "\x1b[0m"),
            (Look::Coloured, Self::Unstored) => ("\x1b[33m", "\x1b[0m"),
        }
    }
}

fn percent(before: f64, now: f64) -> f64 {
    (now - before) / before * 100.0
}

/// As in `+4.2 %`. What rounds to nothing has no sign.
fn signed_percent(before: f64, now: f64) -> String {
    let percent = percent(before, now);
    if percent.abs() < 0.05 { "0.0 %".to_owned() } else { format!("{percent:+.1} %") }
}

/// One decimal, and a comma between thousands.
fn grouped(count: f64) -> String {
    let text = format!("{count:.1}");
    let (whole, tenth) = text.split_once('.').unwrap_or((&text, "0"));
    let mut grouped = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped}.{tenth}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(counts: &[(&str, f64)]) -> Baseline {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Baseline { toolchain: "rustc 1.95.0".to_owned(), counts }
    }

    #[test]
    fn a_stage_is_worse_only_beyond_the_limit() {
        let check = |now: f64, limit: f64, is_well: bool| {
            let comparison = Comparison::new(&baseline(&[("a", 100.0)]), &baseline(&[("a", now)]), "", limit);
            assert_eq!(comparison.is_well(), is_well, "100 → {now} with {limit} %");
        };
        check(100.0, 0.0, true);
        check(103.0, 3.0, true);
        check(103.1, 3.0, false);
        check(103.1, 4.0, true);
        check(100.1, 0.0, false);
        check(50.0, 3.0, true);
    }

    #[test]
    fn a_stage_that_came_or_vanished_must_be_stored() {
        let (one, two) = (baseline(&[("a", 1.0)]), baseline(&[("a", 1.0), ("b", 1.0)]));
        assert!(!Comparison::new(&one, &two, "", 3.0).is_well());
        assert!(!Comparison::new(&two, &one, "", 3.0).is_well());
        assert!(Comparison::new(&two, &one, "a", 3.0).is_well(), "b was not asked for");
    }

    #[test]
    fn the_table_is_for_people() {
        let stored = baseline(&[("wire/a", 57.0), ("wire/b", 1_234_567.8), ("wire/c", 200.0), ("gone", 9.0)]);
        let now = baseline(&[("wire/a", 57.01), ("wire/b", 1_300_000.0), ("wire/c", 100.0), ("came", 3.0)]);
        let comparison = Comparison::new(&stored, &now, "", 3.0);
        let expect = "\
stage        baseline            now    change
wire/a           57.0           57.0     0.0 %
wire/b    1,234,567.8    1,300,000.0    +5.3 %
wire/c          200.0          100.0   -50.0 %
came                -            3.0       new
gone              9.0              -   missing

stages: 1 within 3 % of the baseline, 1 better, 1 worse
2 new or missing: `make icount-baseline` stores the stages there are
";
        assert_eq!(comparison.table(Look::Plain), expect);
        let coloured = comparison.table(Look::Coloured);
        let red = coloured.lines().filter(|line| line.starts_with("\x1b[31m")).collect::<Vec<_>>();
        assert!(red.len() == 1 && red[0].contains("wire/b") && red[0].ends_with("\x1b[0m"), "{coloured:?}");
        assert!(coloured.contains("\x1b[32mwire/c") && coloured.contains("\nwire/a "), "{coloured:?}");
    }

    #[test]
    fn another_toolchain_is_said() {
        let stored = baseline(&[("a", 1.0)]);
        let now = Baseline { toolchain: "rustc 1.96.0".to_owned(), ..stored.clone() };
        let table = Comparison::new(&stored, &now, "", 3.0).table(Look::Plain);
        assert!(table.contains("baseline: rustc 1.95.0\n  now:      rustc 1.96.0"), "{table}");
        assert!(!Comparison::new(&stored, &stored, "", 3.0).table(Look::Plain).contains("toolchain"));
    }
}
