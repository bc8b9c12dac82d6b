//! The hot stages of the gateway, each defined once and measured twice: in time by criterion (`make bench`), and in
//! instructions by callgrind (`make icount`), where a neighbour on the machine changes nothing.
//!
//! A [`Stage`] is made once and then repeats one operation in its steady state: buffers have their size, maps their
//! entries. Every operation checks what it got, so that a stage cannot become fast by doing nothing.
//!
//! What it deliberately does not know: sockets and system calls. What the kernel takes of a delivery is measured by `fanfare-load`.

use std::fmt;

pub mod dialects;
pub mod fanout;
pub mod registry;
pub mod session;
pub mod wire;
pub mod words;

/// The gateway's allocator, so that an allocation costs here what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Repeats a stage's operation so many times.
pub type Run = Box<dyn FnMut(u64)>;

/// What one operation handles, for rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Itself alone.
    One,
    /// Bytes of payload.
    Bytes(u64),
    /// Publications times the members that got them.
    Deliveries(u64),
}

/// One thing that is measured.
pub struct Stage {
    /// File, subject and size, as in `wire/decode/128/whole`.
    pub name: String,
    /// What one operation handles.
    pub amount: Amount,
    /// Operations counted under callgrind. Fixed, so that two counts are of the same work, and enough for costs that come
    /// round now and then (a queue's next block) to be spread evenly.
    pub counted: u64,
    make: Box<dyn Fn() -> Run>,
}

impl Stage {
    /// A stage that `make` prepares, and that counts `counted` operations.
    pub fn new(name: impl Into<String>, amount: Amount, counted: u64, make: impl Fn() -> Run + 'static) -> Self {
        Self { name: name.into(), amount, counted, make: Box::new(make) }
    }

    /// The stage, ready to run.
    #[must_use]
    pub fn prepare(&self) -> Run {
        (self.make)()
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All stages, in the order in which a message meets them.
#[must_use]
pub fn stages() -> Vec<Stage> {
    [wire::stages(), dialects::stages(), session::stages(), words::stages(), registry::stages(), fanout::stages()]
        .into_iter()
        .flatten()
        .collect()
}

/// Repeats `operation`. The loop is compiled with it, so that nothing stands between two operations.
fn repeat(mut operation: impl FnMut() + 'static) -> Run {
    Box::new(move |times| {
        for _ in 0..times {
            operation();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_stage_runs_and_goes_on_running() {
        for stage in stages() {
            let mut run = stage.prepare();
            run(1);
            run(100.min(stage.counted));
        }
    }

    #[test]
    fn stages_have_names_of_their_own() {
        let names: Vec<String> = stages().into_iter().map(|stage| stage.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for name in &names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/_".contains(&b)), "{name}");
        }
    }
}
