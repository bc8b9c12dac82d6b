//! What the configuration needs to know about the machine it is for.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

/// The machine, or the share of it that this process was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Cores this process may use at once.
    pub(crate) cores: NonZeroUsize,
    /// Memory, bytes: the machine's, or the control group's limit where that is lower.
    pub(crate) memory_bytes: u64,
    /// Its name on the network.
    pub(crate) host_name: String,
}

/// What is assumed where the system does not say how much memory there is, bytes.
const MEMORY_BYTES_ASSUMED: u64 = 2 << 30;

impl Machine {
    /// The one this process runs on.
    pub(crate) fn this() -> Self {
        let physical = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(mem_total);
        let group = fs::read_to_string("/proc/self/cgroup")
            .ok()
            .and_then(|groups| group_limit(&groups, Path::new("/sys/fs/cgroup")));
        let memory_bytes = match (physical, group) {
            (Some(physical), Some(group)) => physical.min(group),
            (Some(bytes), None) | (None, Some(bytes)) => bytes,
            (None, None) => MEMORY_BYTES_ASSUMED,
        };
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_bytes,
            host_name: if host_name.is_empty() { "fanfare".to_owned() } else { host_name },
        }
    }
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The lowest memory limit on the way from the root to this process's control group, bytes. Reads both versions of
/// control groups: `groups` is `/proc/self/cgroup`, `root` where they are mounted.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // Inside a container the path may be the host's, which is not visible here; then only the root's file is.
        let leaf = base.join(path.trim_start_matches('/'));
        let limits = leaf
            .ancestors()
            .take_while(|folder| folder.starts_with(&base))
            .filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok());
        lowest = limits.chain(lowest).min();
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_total_is_read_in_bytes() {
        assert_eq!(mem_total("MemTotal:       24683964 kB\nMemFree: 1 kB\n"), Some(24_683_964 * 1024));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_lowest_limit_on_the_path_of_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(1000));
        assert_eq!(group_limit("0::/elsewhere\n", root.path()), None);
        write("memory/memory.limit_in_bytes", "500");
        assert_eq!(group_limit("3:cpu,memory:/hidden\n0::/a\n", root.path()), Some(500));
        assert_eq!(group_limit("3:cpu:/x\n", root.path()), None);
    }

    #[test]
    fn this_machine_has_some_of_everything() {
        let machine = Machine::this();
        assert!(machine.memory_bytes > 1 << 20);
        assert!(!machine.host_name.is_empty());
    }
}
