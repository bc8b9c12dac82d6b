//! The connections of one user: nearly always one or two, and a set of them where it is many.

use std::collections::{HashSet, hash_set};
use std::slice;

use smallvec::SmallVec;

use super::Place;

/// From this number on they are looked up and not looked through.
const MANY: usize = 16;

/// Connections of one user, each once, in no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(Kept);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Few(SmallVec<[Place; 1]>),
    Many(HashSet<Place>),
}

impl Default for Places {
    fn default() -> Self {
        Self(Kept::Few(SmallVec::new()))
    }
}

impl Places {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Few(places) => places.len(),
            Kept::Many(places) => places.len(),
        }
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Place> {
        let (few, many): (slice::Iter<'_, Place>, Option<hash_set::Iter<'_, Place>>) = match &self.0 {
            Kept::Few(places) => (places.iter(), None),
            Kept::Many(places) => ([].iter(), Some(places.iter())),
        };
        few.chain(many.into_iter().flatten()).copied()
    }

    pub(super) fn insert(&mut self, place: Place) {
        match &mut self.0 {
            Kept::Few(places) if places.contains(&place) => debug_assert!(false, "a connection comes once"),
            Kept::Few(places) if places.len() < MANY => places.push(place),
            Kept::Few(places) => {
                let many = places.drain(..).chain([place]).collect();
                self.0 = Kept::Many(many);
            }
            Kept::Many(places) => _ = places.insert(place),
        }
    }

    /// `false` when it is not among them.
    pub(super) fn remove(&mut self, place: Place) -> bool {
        match &mut self.0 {
            Kept::Few(places) => {
                let at = places.iter().position(|&own| own == place);
                at.map(|at| places.swap_remove(at)).is_some()
            }
            Kept::Many(places) => {
                let was_there = places.remove(&place);
                // Half of the bound: who comes and goes there does not turn one into the other each time.
                if places.len() <= MANY / 2 {
                    self.0 = Kept::Few(places.drain().collect());
                }
                was_there
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use fanfare_fanout::LaneId;

    fn place(n: u32) -> Place {
        Place { shard: n as usize % 3, lane: LaneId { index: n, generation: 1 }, hears: true }
    }

    #[test]
    fn few_become_many_and_few_again_without_losing_one() {
        let mut places = Places::default();
        let mut expected = HashSet::new();
        for n in 0..40 {
            places.insert(place(n));
            expected.insert(place(n));
            assert_eq!(places.iter().collect::<HashSet<_>>(), expected);
            assert_eq!(places.len(), expected.len());
        }
        for n in (0..40).rev() {
            assert!(places.remove(place(n)) && expected.remove(&place(n)));
            assert!(!places.remove(place(n)), "it is removed once");
            assert_eq!(places.iter().collect::<HashSet<_>>(), expected);
        }
        assert!(places.is_empty());
    }
}
