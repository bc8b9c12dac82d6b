//! What the system says about processes: CPU time, memory, descriptor limits.

use std::{fs, io};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time and memory of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads since it started, microseconds; counted in ticks of 10 ms.
    pub cpu_us: u64,
    /// The system time of it, microseconds: what the kernel did for it.
    pub system_us: u64,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

impl Usage {
    /// Of process `pid`.
    ///
    /// # Errors
    /// No such process, or a `/proc` that cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc has an unknown form"))
    }

    /// Of process `pid` and all its descendants together.
    ///
    /// # Errors
    /// As [`Usage::of`], for `pid` itself; a descendant that has gone meanwhile does not count.
    pub fn of_family(pid: u32) -> io::Result<Self> {
        let mut sum = Self::of(pid)?;
        for child in children(pid) {
            if let Ok(child) = Self::of_family(child) {
                sum.cpu_us += child.cpu_us;
                sum.system_us += child.system_us;
                sum.rss_kib += child.rss_kib;
            }
        }
        Ok(sum)
    }

    fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Self> {
        // The second field is the command's name, in parentheses, and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let user: u64 = fields.nth(11)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = rss.split_ascii_whitespace().next()?.parse().ok()?;
        let us = |ticks: u64| ticks * 1_000_000 / ticks_per_second;
        Some(Self { cpu_us: us(user + system), system_us: us(system), rss_kib })
    }
}

/// Each thread has a list of the processes that it has started.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Makes sure that this process may hold `needed` descriptors, raising its soft limit if it must.
///
/// # Errors
/// The hard limit is lower. The text says what to do.
pub fn ensure_descriptors(needed: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    if !enough(limit.maximum) {
        let hard = limit.maximum.unwrap_or(u64::MAX);
        anyhow::bail!("the descriptor limit is {hard}, need {needed}: ulimit -n {needed}");
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("cannot raise the descriptor limit: ulimit -n {needed}"))
}

/// Raises the soft limit of descriptors to the hard one, where that is allowed.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_even_with_an_odd_command_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 10 11";
        let status = "Name:\ta\nVmHWM:\t  999 kB\nVmRSS:\t  512 kB\n";
        assert_eq!(
            Usage::parse(stat, status, 100),
            Some(Usage { cpu_us: 3_000_000, system_us: 500_000, rss_kib: 512 })
        );
        assert_eq!(Usage::parse("7 (a", status, 100), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(Usage::of(std::process::id()).expect("our own /proc").rss_kib > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn children_count_with_their_parents() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        assert!(children(std::process::id()).contains(&child.id()));
        let alone = Usage::of(std::process::id()).expect("our own /proc");
        let family = Usage::of_family(std::process::id()).expect("our own /proc");
        child.kill().and_then(|()| child.wait()).expect("the child ends");
        assert!(family.rss_kib > alone.rss_kib, "{family:?} {alone:?}");
    }

    #[test]
    fn more_descriptors_than_the_hard_limit_are_refused_with_advice() {
        let Some(hard) = getrlimit(Resource::Nofile).maximum else { return };
        let refused = ensure_descriptors(hard + 1).expect_err("above the hard limit").to_string();
        assert_eq!(refused, format!("the descriptor limit is {hard}, need {0}: ulimit -n {0}", hard + 1));
        ensure_descriptors(hard).expect("the hard limit itself");
    }
}
