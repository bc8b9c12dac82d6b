//! What every rule about single values is written with.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::Problem;
use crate::config::value::{Origin, Setting};

pub(super) const HOUR_MS: u64 = 3_600_000;

/// Collects what is wrong; every method returns some valid value so that the rest can be looked at too.
pub(super) struct Check {
    pub(super) problems: Vec<Problem>,
}

impl Check {
    pub(super) fn problem<T>(&mut self, setting: &Setting<T>, text: String) {
        self.problem_at(setting.origin.clone(), text);
    }

    pub(super) fn problem_at(&mut self, origin: Origin, text: String) {
        self.problems.push(Problem { origin: Some(origin), text });
    }

    pub(super) fn number(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u64>) -> u64 {
        if !range.contains(&setting.value) {
            let (low, high) = (range.start(), range.end());
            self.problem(setting, format!("`{path}` = {} is not between {low} and {high}", setting.value));
        }
        setting.value.clamp(*range.start(), *range.end())
    }

    pub(super) fn count(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u64>) -> usize {
        as_usize(self.number(path, setting, range))
    }

    pub(super) fn number_u32(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u32>) -> u32 {
        let number = self.number(path, setting, (*range.start()).into()..=(*range.end()).into());
        u32::try_from(number).unwrap_or(*range.end())
    }

    pub(super) fn time(&mut self, path: &str, setting: &Setting<u64>, range_ms: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(path, setting, range_ms))
    }
}

pub(super) fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
