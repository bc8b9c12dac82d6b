//! Where a node is in the log. Entries are numbered densely within an epoch: what is gone shows.

/// No room has counted further: it would take centuries, and numbers in JSON are exact up to here. What says so was not counted by a node.
pub(crate) const OFFSET_MAX: u64 = (1 << 53) - 1;

/// A place in the log: `epoch-number`, as Redis writes the id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, number) = text.split_once('-').ok_or(())?;
        Ok(Self { epoch: epoch.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? })
    }
}

/// How far a node has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The last entry read.
    pub(crate) place: Place,
    /// Who posted that one, and under which number: so it is known again, after the log has lost its end and has grown another.
    pub(crate) mark: Option<(u64, u64)>,
}

/// How an entry follows what was read before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// It is the next one.
    Next,
    /// It says only that its epoch has begun, or was read before.
    Nothing,
    /// Something between is not there any more.
    Hole,
    /// The log has begun anew.
    OtherEpoch,
}

impl Cursor {
    pub(crate) fn follows(&self, place: Place) -> Follows {
        if place.epoch != self.place.epoch {
            return Follows::OtherEpoch;
        }
        match place.number {
            number if number <= self.place.number => Follows::Nothing,
            number if number == self.place.number + 1 => Follows::Next,
            _ => Follows::Hole,
        }
    }

    /// Whether somebody who has read this far can read on in a log that stands at `last`, has this mark where the cursor is (`None`: that
    /// entry is gone), and whose oldest entry is `first`.
    pub(crate) fn resumes(&self, last: Place, marked: Option<(u64, u64)>, first: Option<Place>) -> Resume {
        if last.epoch != self.place.epoch {
            return Resume::Anew;
        }
        if last.number < self.place.number {
            return Resume::LostEnd;
        }
        match (marked, self.mark) {
            (Some(found), Some(mark)) if found != mark => Resume::LostEnd,
            (Some(_), _) => Resume::On,
            (None, _) if last.number == self.place.number => Resume::On,
            // It reaches back to where the cursor is, or to what follows that.
            (None, _) if first.is_some_and(|first| matches!(self.follows(first), Follows::Next | Follows::Nothing)) => {
                Resume::On
            }
            (None, _) => Resume::Anew,
        }
    }
}

/// How a node goes on that was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Where it stopped.
    On,
    /// From the oldest entry there is: something was missed.
    Anew,
    /// The log has lost entries that this node has read: what was said with their numbers may be said otherwise. Another epoch must begin.
    LostEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place { epoch: 5, number }
    }

    fn cursor() -> Cursor {
        Cursor { place: place(10), mark: Some((1, 7)) }
    }

    #[test]
    fn what_is_gone_shows() {
        let follows = |number| cursor().follows(place(number));
        assert_eq!((follows(11), follows(12)), (Follows::Next, Follows::Hole));
        assert_eq!((follows(10), follows(0)), (Follows::Nothing, Follows::Nothing));
        assert_eq!(cursor().follows(Place { epoch: 6, number: 0 }), Follows::OtherEpoch);
    }

    #[test]
    fn who_was_away_reads_on_only_where_nothing_was_missed() {
        let same = Some((1, 7));
        let resumes = |last, marked, first: Option<u64>| cursor().resumes(place(last), marked, first.map(place));
        assert_eq!(resumes(10, same, Some(3)), Resume::On);
        assert_eq!(resumes(99, same, Some(3)), Resume::On);
        assert_eq!(resumes(99, None, Some(11)), Resume::On, "what was read is gone, what follows is not");
        assert_eq!(resumes(99, None, Some(12)), Resume::Anew);
        assert_eq!(resumes(99, None, None), Resume::Anew);
        assert_eq!(resumes(10, None, None), Resume::On, "nothing was said since");
        assert_eq!(resumes(9, None, Some(3)), Resume::LostEnd);
        assert_eq!(resumes(99, Some((2, 7)), Some(3)), Resume::LostEnd, "the end was lost and has grown again");
        assert_eq!(cursor().resumes(Place { epoch: 6, number: 99 }, None, None), Resume::Anew);
        assert_eq!(cursor().resumes(Place { epoch: 6, number: 99 }, same, Some(place(3))), Resume::Anew);
        let begun = Cursor { place: place(0), mark: None };
        assert_eq!(
            begun.resumes(place(8), None, Some(place(0))),
            Resume::On,
            "nothing was read yet, and all of it is there"
        );
        assert_eq!(begun.resumes(place(8), None, Some(place(2))), Resume::Anew);
        let unmarked = Cursor { mark: None, ..cursor() };
        assert_eq!(unmarked.resumes(place(10), same, None), Resume::On);
    }

    #[test]
    fn ids_read_back() {
        assert_eq!(place(10).to_string(), "5-10");
        assert_eq!("5-10".parse(), Ok(place(10)));
        for bad in ["", "5", "5-", "-", "5-10-1", "5-x"] {
            assert_eq!(bad.parse::<Place>(), Err(()), "{bad}");
        }
    }
}
