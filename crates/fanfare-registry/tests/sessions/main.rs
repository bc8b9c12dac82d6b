//! Sessions, registry, shards and outboxes together, in virtual time and on bytes alone: commands go in as masked frames cut
//! anywhere, events come out as frames that a decoder of our own reads, and every client checks every one of them.
//!
//! The clients subscribe, publish, leave, close rooms, break rules, stop reading and go; the shell around the core crates (`shell.rs`)
//! does what the edge does, without sockets. After every step: what a client has received and what is queued for it is what it is due,
//! to the byte; each room's order is kept; who lost anything was told so by a close frame with its reason.
//!
//! `SIM_SEEDS=n` makes n runs with different seeds; `SIM_SEED=s` repeats one.
#![cfg(not(loom))]

mod audit;
mod client;
mod far;
mod shell;
mod world;

/// Enough dice for a test, and the same on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

#[test]
fn sim_sessions_and_rooms() {
    let read = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match read("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("SIM_SEEDS").unwrap_or(8),
    };
    let mut totals = world::Totals::default();
    for seed in seeds {
        match std::panic::catch_unwind(|| world::run(seed)) {
            Ok(run) => totals.add(&run),
            Err(_) => panic!("seed {seed} failed; repeat with SIM_SEED={seed}"),
        }
    }
    println!("{totals:?}");
    // A simulation in which too little happens proves nothing.
    let enough = totals.evicted > 0 && totals.reaped > 0 && totals.closed_rooms > 0 && totals.overloaded > 0;
    assert!(
        enough
            && totals.timeouts > 0
            && totals.rude > 0
            && totals.acks > 0
            && totals.lost > 0
            && totals.evictions_told > 0,
        "{totals:?}"
    );
    assert!(totals.untold * 100 < totals.ended, "those who lost something must be told: {totals:?}");
    assert!(totals.exact > 0, "{totals:?}");
}
