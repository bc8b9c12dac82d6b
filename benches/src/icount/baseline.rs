//! The stored counts: a text file that people can read and that a diff shows line by line.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Instructions per operation, by stage, in the order of the stages.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Baseline {
    /// What counted: compiler, processor, valgrind.
    pub(crate) toolchain: String,
    pub(crate) counts: Vec<(String, f64)>,
}

const PREAMBLE: &str =
    "# Instructions per operation, counted by callgrind. `make icount` compares, `make icount-baseline` stores.\n";
const COUNTED_BY: &str = "# counted by: ";

impl Baseline {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; `make icount-baseline` stores one", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Written beside its place and then moved there, so that a reader finds the old one or the new one.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, self.text()).with_context(|| format!("cannot write {}", beside.display()))?;
        fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> String {
        let mut text = format!("{PREAMBLE}{COUNTED_BY}{}\n", self.toolchain);
        for (stage, count) in &self.counts {
            let _ = writeln!(text, "{stage:<36}{count:>14.1}");
        }
        text
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut baseline = Self { toolchain: String::new(), counts: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if let Some(toolchain) = line.strip_prefix(COUNTED_BY) {
                toolchain.clone_into(&mut baseline.toolchain);
            }
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let number = index + 1;
            let mut words = line.split_whitespace();
            let (Some(stage), Some(count), None) = (words.next(), words.next(), words.next()) else {
                bail!("line {number}: a stage and its count are wanted");
            };
            match count.parse::<f64>() {
                Ok(count) if count.is_finite() && count > 0.0 => baseline.counts.push((stage.to_owned(), count)),
                _ => bail!("line {number}: {count:?} is no count of instructions"),
            }
            if baseline.counts.iter().filter(|(other, _)| other == stage).count() > 1 {
                bail!("line {number}: {stage} stands here twice");
            }
        }
        Ok(baseline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let baseline = Baseline {
            toolchain: "rustc 1.95.0, x86_64 with AVX2, valgrind-3.19.0".to_owned(),
            counts: vec![("a/1".to_owned(), 57.0), ("a/2".to_owned(), 1_234_567.5)],
        };
        assert_eq!(Baseline::parse(&baseline.text()).expect("it was just written"), baseline);
        let folder = std::env::temp_dir().join(format!("fanfare-icount-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        let path = folder.join("icount.baseline");
        baseline.write(&path).expect("it can be written");
        assert_eq!(Baseline::read(&path).expect("it can be read"), baseline);
        assert_eq!(fs::read_dir(&folder).expect("the folder is there").count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&folder).expect("the folder can go");
    }

    #[test]
    fn a_broken_baseline_is_refused_with_its_line() {
        let check = |text: &str, expect: &str| {
            let error = Baseline::parse(text).expect_err(text).to_string();
            assert!(error.contains(expect), "{error:?} has no {expect:?}");
        };
        check("a 1\nb\n", "line 2");
        check("a 1 2\n", "line 1");
        check("a many\n", "\"many\"");
        check("a NaN\n", "\"NaN\"");
        check("a 0\n", "\"0\"");
        check("a 1\na 2\n", "twice");
    }
}
