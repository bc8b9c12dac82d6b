//! The seeded simulations: the core crates together, in virtual time, against models that know what everybody must get.
//!
//! `rooms` has the registry and shards with many clients and short frames, `comebacks` clients that come back to what they missed,
//! `sessions` everything from masked frames to frames that decoders of our own read. `SIM_SEEDS=n` runs n seeds, `SIM_SEED=s` repeats one.
#![cfg(not(loom))]

mod comebacks;
mod dice;
mod frames;
mod rooms;
mod seeds;
mod sessions;
mod wires;
