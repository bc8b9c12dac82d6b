//! Sessions, registry, shards and outboxes together, in virtual time and on bytes alone: commands go in as masked frames cut
//! anywhere, events come out as frames that a decoder of our own reads, and every client checks every one of them.
//!
//! The clients speak either dialect, take compressed messages with any window, or listen to event streams. They subscribe, publish,
//! leave, close rooms, break rules, stop reading, go, and come back to where they were, to rooms of all policies; the shell around the
//! core crates (`shell/`) does what the edge does, without sockets. After every step: what a client has received and what is queued for it is what it is due,
//! to the byte; each room's order is kept; who lost anything was told so by a close frame with its reason.

mod audit;
mod client;
mod far;
mod hear;
mod model;
mod shell;
mod world;

use crate::seeds;

#[test]
fn sim_sessions_and_rooms() {
    let Some(totals) = seeds::run("sim_sessions_and_rooms", 8, world::run) else { return };
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
    let came_back = totals.recovered > 0 && totals.unrecovered > 0 && totals.replayed > 0 && totals.rooms_evicted > 0;
    let heard = totals.gaps > 0 && totals.missed > totals.gaps && totals.inflated > 0 && totals.streamed > 0;
    assert!(came_back && heard, "{totals:?}");
    assert!(totals.untold * 100 < totals.ended, "those who lost something must be told: {totals:?}");
    assert!(totals.exact > 0, "{totals:?}");
}
