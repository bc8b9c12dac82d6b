//! Runs worlds by their seeds, on all cores.
//!
//! `SIM_SEEDS=n` runs the first n seeds; `SIM_SEED=s` repeats one.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "worlds have a time of their own; who waits for them has ours"
)]

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The last of so many seeds has a world as large as it gets; many small ones find more in the same time.
const LARGE_EVERY: u64 = 100;

/// What happened in a world, or in several.
pub(crate) trait Tally: Debug + Default + Send {
    fn add(&mut self, other: &Self);
}

/// Declares `Totals`, a [`Tally`] of these numbers.
macro_rules! totals {
    ($($(#[$about:meta])* $field:ident,)*) => {
        /// What happened in a world, or in several.
        #[derive(Debug, Default)]
        pub(crate) struct Totals {
            $($(#[$about])* pub(crate) $field: u64,)*
        }

        impl crate::seeds::Tally for Totals {
            fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}
pub(crate) use totals;

/// Whether the world of this seed is a large one.
pub(crate) fn is_large(seed: u64) -> bool {
    seed % LARGE_EVERY == LARGE_EVERY - 1
}

/// Runs the worlds of the seeds that were asked for, `by_default` so many. `None` where it was a single one: in that too little may have
/// happened.
pub(crate) fn run<T: Tally>(name: &str, by_default: u64, world: impl Fn(u64) -> T + Sync) -> Option<T> {
    let read = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let single = read("SIM_SEED");
    let seeds = single.map_or(0..read("SIM_SEEDS").unwrap_or(by_default), |seed| seed..seed + 1);
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let (total, failed) = (Mutex::new(T::default()), Mutex::new(None::<u64>));
    let (began, waiting) = (Instant::now(), thread::current());
    let work = || {
        while failed.lock().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match catch_unwind(AssertUnwindSafe(|| world(seed))) {
                Ok(happened) => total.lock().add(&happened),
                Err(_) => *failed.lock() = Some(seed),
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        waiting.unpark();
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from).min((seeds.end - seeds.start) as usize);
        // Named as the test is, so that a panic tells whose it was.
        let start = |_| thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).expect("a thread");
        let workers: Vec<_> = (0..cores).map(start).collect();
        let mut said = began;
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::park_timeout(Duration::from_millis(200));
            if said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                let (done, of) = (done.load(Ordering::Relaxed), seeds.end - seeds.start);
                println!("{name}: {done} of {of} seeds, {} s", began.elapsed().as_secs());
            }
        }
    });
    if let Some(seed) = *failed.lock() {
        panic!("seed {seed} failed; repeat with SIM_SEED={seed}");
    }
    let total = total.into_inner();
    println!("{name}: {} seeds in {:.1} s: {total:?}", seeds.end - seeds.start, began.elapsed().as_secs_f64());
    single.is_none().then_some(total)
}
