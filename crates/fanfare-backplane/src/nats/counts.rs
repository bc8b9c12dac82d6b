//! The stream of tallies that were written down.

use std::collections::BTreeSet;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, StorageType, Stream};
use futures_util::TryStreamExt as _;

use super::tally::Tally;
use super::written::Assembly;
use super::{Found, Names, away, bounds, mark_ns};
use crate::relay::Broken;

/// Bytes of a part of a tally.
pub(super) const PART_BYTES_MAX: usize = 60 * 1_024;

/// The subject of a part. `node` is who has written it: two that write the same do not mix.
pub(super) fn subject(written: &str, life: u64, number: u64, node: u64, part: u32) -> String {
    format!("{written}.{life}.{number}.{node:016x}.{part}")
}

/// A tally that was written down, or begun to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Copy {
    life: u64,
    number: u64,
    node: u64,
}

pub(super) struct Counts {
    stream: Stream,
    log: Stream,
    /// What the subjects begin with.
    written: String,
}

impl Counts {
    /// The stream; it is made if it is not there.
    pub(super) async fn open(context: &Context, names: &Names, log: &Stream, replicas: usize) -> Result<Self, Broken> {
        let config = Config {
            name: names.counts.clone(),
            subjects: vec![format!("{}.>", names.written)],
            storage: StorageType::File,
            num_replicas: replicas,
            ..Config::default()
        };
        let stream = context.get_or_create_stream(config).await.map_err(away)?;
        Ok(Self { stream, log: log.clone(), written: names.written.clone() })
    }

    /// The earliest tally behind which all entries are there, and which is of this log as it is now.
    pub(super) async fn earliest(&self, found: &Found, first: u64) -> Result<Option<Tally>, Broken> {
        for copy in self.copies().await? {
            if copy.life != found.life || !(first..=found.last).contains(&copy.number) {
                continue;
            }
            let Some(tally) = self.read(copy).await? else { continue };
            // A log that has lost its end may have grown another.
            if tally.number == copy.number && mark_ns(&self.log, copy.number).await? == Some(tally.mark_ns) {
                return Ok(Some(tally));
            }
        }
        Ok(None)
    }

    async fn copies(&self) -> Result<BTreeSet<Copy>, Broken> {
        let mut subjects = self.stream.info_with_subjects(format!("{}.>", self.written)).await.map_err(away)?;
        let mut copies = BTreeSet::new();
        while let Some((subject, _)) = subjects.try_next().await.map_err(away)? {
            let Some(rest) = subject.strip_prefix(&self.written) else { continue };
            let parts: Vec<_> = rest.split('.').collect();
            let [_, life, number, node, _] = parts[..] else { continue };
            let (Ok(life), Ok(number), Ok(node)) = (life.parse(), number.parse(), u64::from_str_radix(node, 16)) else {
                continue;
            };
            copies.insert(Copy { life, number, node });
        }
        Ok(copies)
    }

    /// `None`: it is not whole.
    async fn read(&self, copy: Copy) -> Result<Option<Tally>, Broken> {
        let Copy { life, number, node } = copy;
        let mut assembly = Assembly::default();
        while assembly.is_open() {
            let subject = subject(&self.written, life, number, node, assembly.next());
            let part = match self.stream.get_last_raw_message_by_subject(&subject).await {
                Ok(part) => part,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => return Err(away(error)),
            };
            if assembly.add(&part.payload).is_none() {
                return Ok(None);
            }
        }
        Ok(assembly.finish())
    }

    /// Takes those away with which nobody can begin any more.
    pub(super) async fn trim(&self) -> Result<(), Broken> {
        let (life, first, _) = bounds(&self.log.get_info().await.map_err(away)?);
        for Copy { life, number, node } in
            self.copies().await?.into_iter().filter(|copy| copy.life != life || copy.number < first)
        {
            let subject = format!("{}.{life}.{number}.{node:016x}.>", self.written);
            self.stream.purge().filter(subject).await.map_err(away)?;
        }
        Ok(())
    }
}
