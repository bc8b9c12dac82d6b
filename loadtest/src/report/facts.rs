//! Everything a report is drawn up from, and what the audits in it add up to.

use std::time::Duration;

use crate::audit::Tally;
use crate::process::Usage;
use crate::scenario::Plan;
use crate::swarm::{Ended, Measured};

/// Everything the report is drawn up from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// Time to open all connections.
    pub opening: Duration,
    /// From the beginning of the storm until all were back.
    pub storm: Option<Duration>,
    /// How long connections came and went.
    pub churning: Duration,
    /// How often one that comes and goes came.
    pub joins: u64,
    /// From the start of publishing to the last delivery.
    pub delivering: Duration,
    /// Publications by publisher.
    pub published: Vec<u64>,
    /// By publisher: it was cut off, and the gateway may not have got its last publications.
    pub cut_off: Vec<bool>,
    /// Publications that stopped holding up their publisher before they had arrived everywhere.
    pub written_off: u64,
    /// Every open connection answered the last ping.
    pub flushed: bool,
    /// CPU time and memory on the way.
    pub samples: Samples,
    /// The audits.
    pub ended: Vec<Ended>,
    /// The measurements.
    pub measured: Measured,
}

/// CPU time and memory on the way; absent where they could not be read.
#[derive(Debug, Clone, Copy)]
pub struct Samples {
    /// The gateway before any connection.
    pub before: Option<Usage>,
    /// The gateway with all connections open and nothing published.
    pub open: Option<Usage>,
    /// The gateway when publishing began.
    pub calm: Option<Usage>,
    /// The gateway after the last delivery.
    pub end: Option<Usage>,
    /// The gateway when all had left.
    pub after: Option<Usage>,
    /// The most resident memory that was seen while publishing, KiB.
    pub peak_kib: u64,
    /// This program before any connection.
    pub ours_first: Option<Usage>,
    /// This program when all connections were open.
    pub ours_open: Option<Usage>,
    /// This program, when publishing began.
    pub ours_before: Option<Usage>,
    /// This program, after the last delivery.
    pub ours_end: Option<Usage>,
}

impl Facts<'_> {
    /// Of a publisher that was cut off, only what reached somebody counts as published. Returns how much that leaves out.
    pub(super) fn leave_out_doubtful(&mut self) -> u64 {
        let per_room = self.plan.publishers_per_room;
        let mut reached = vec![0; self.published.len()];
        for ended in &self.ended {
            for within in 0..per_room {
                let reached = &mut reached[ended.room * per_room + within];
                *reached = ended.receiver.next(within).max(*reached);
            }
        }
        let mut doubtful = 0;
        for ((published, reached), cut_off) in self.published.iter_mut().zip(reached).zip(&self.cut_off) {
            if *cut_off && reached < *published {
                doubtful += *published - reached;
                *published = reached;
            }
        }
        doubtful
    }
}

pub(super) fn tally(facts: &Facts<'_>) -> Tally {
    let mut sum = Tally::default();
    for ended in &facts.ended {
        sum.add(&owed(facts, ended));
    }
    sum
}

/// What one receiver was owed and got. What a sender does not hear of itself it is not owed.
fn owed(facts: &Facts<'_>, ended: &Ended) -> Tally {
    let published = published_in(facts, ended.room);
    match ended.deaf_to {
        None => ended.receiver.tally(published, ended.throughout),
        Some(deaf_to) => {
            let mut published = published.to_vec();
            published[deaf_to] = 0;
            ended.receiver.tally(&published, ended.throughout)
        }
    }
}

fn published_in<'a>(facts: &'a Facts<'_>, room: usize) -> &'a [u64] {
    let publishers = facts.plan.publishers_per_room;
    &facts.published[room * publishers..(room + 1) * publishers]
}

/// Members that got everything must have got it in the same order; the others are already at fault elsewhere.
pub(super) fn rooms_without_one_order(facts: &Facts<'_>) -> u64 {
    let mut orders: Vec<Option<u64>> = vec![None; facts.plan.rooms.len()];
    let mut disordered = vec![false; orders.len()];
    for ended in facts.ended.iter().filter(|ended| ended.throughout && ended.deaf_to.is_none()) {
        let tally = ended.receiver.tally(published_in(facts, ended.room), true);
        if !tally.is_accounted() || tally.announced > 0 || ended.receiver.skipped() > 0 {
            continue;
        }
        let order = ended.receiver.order();
        disordered[ended.room] |= *orders[ended.room].get_or_insert(order) != order;
    }
    disordered.into_iter().filter(|&disordered| disordered).count() as u64
}
