//! Stages under `valgrind --tool=callgrind`.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, bail};
use fanfare_benches::{Run, Stage};

/// Counts every stage, as many at a time as there are processors.
pub(crate) fn count(stages: &[Stage], profiles: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    fs::create_dir_all(profiles).with_context(|| format!("cannot make {}", profiles.display()))?;
    // Stages hold closures that stay on their thread; the workers need the names and numbers alone.
    let wanted: Vec<(&str, u64)> = stages.iter().map(|stage| (stage.name.as_str(), stage.counted)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&(name, operations)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((name, count_one(name, operations, profiles)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..thread::available_parallelism().map_or(1, NonZero::get)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("workers do not panic")).collect::<Vec<_>>()
    });
    done.sort_by_key(|(name, _)| wanted.iter().position(|(wanted, _)| wanted == name));
    done.into_iter().map(|(name, count)| Ok((name.to_owned(), count?))).collect()
}

/// Instructions per operation of one stage.
fn count_one(name: &str, operations: u64, profiles: &Path) -> anyhow::Result<f64> {
    let profile = profiles.join(format!("{}.out", name.replace('/', "-")));
    let this = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", COLLECT])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(this)
        .args(["stage", name])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        // The allocator gives pages back after a time. Under valgrind that time has always passed, or never.
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .env("GLIBC_TUNABLES", PLAIN_COPIES)
        .output()
        .context("cannot start valgrind; `tools/need valgrind` installs it or says how")?;
    if !output.status.success() {
        bail!("{name} under valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = fs::read_to_string(&profile).with_context(|| format!("cannot read {}", profile.display()))?;
    match total(&text) {
        // As precise as the baseline: a stage that has not changed compares as equal.
        Some(total @ 1..) => Ok((total as f64 / operations as f64 * 10.0).round() / 10.0),
        _ => bail!("{name}: callgrind counted nothing; see {}", profile.display()),
    }
}

/// Has the C library copy memory with what every x86-64 processor has: counts are then alike on all of them, and a copy is
/// not counted byte for byte, as callgrind does for the one instruction that newer processors copy with. Each feature
/// stands here under the names that different versions know; others are ignored.
const PLAIN_COPIES: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-AVX2_Usable,-AVX512VL,-ERMS,-FSRM,-RTM";

/// The instructions a profile tells of.
fn total(profile: &str) -> Option<u64> {
    profile.lines().rev().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// Callgrind counts while [`measured`] runs, and in what it calls.
const COLLECT: &str = "--toggle-collect=*icount::callgrind::measured*";

/// Runs a stage so that callgrind counts its operations alone: not what prepares them, not what brings them to their
/// steady state.
pub(crate) fn serve(stage: &Stage) {
    let mut run = stage.prepare();
    run(stage.counted.div_ceil(4));
    measured(&mut run, stage.counted);
}

#[inline(never)]
fn measured(run: &mut Run, operations: u64) {
    run(std::hint::black_box(operations));
}

/// What counts depend on besides the code: compiler, processor, valgrind.
pub(crate) fn toolchain() -> anyhow::Result<String> {
    let version = |program: &str| -> anyhow::Result<String> {
        let output =
            Command::new(program).arg("--version").output().with_context(|| format!("cannot start {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // `rustc 1.95.0 (hash date)`: the number tells compilers apart.
        Ok(text.split('(').next().unwrap_or_default().trim().to_owned())
    };
    Ok(format!("{}, {}, {}", version("rustc")?, processor(), version("valgrind")?))
}

/// The processor family, and whether it has the vector instructions that code looks for when it runs.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let extra = if std::is_x86_feature_detected!("avx2") { " with AVX2" } else { " without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let extra = "";
    format!("{}{extra}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_found() {
        assert_eq!(total("events: Ir\nfn=(1) f\n3 7\n\ntotals: 4711\n"), Some(4_711));
        assert_eq!(total("events: Ir\n"), None);
        assert_eq!(total("totals: 1 2\n"), None);
    }
}
