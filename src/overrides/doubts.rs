//! Writes whose outcome nobody knows: this program was killed, or the caller went away, between HAProxy and the journal.
//!
//! A write is in the journal before HAProxy gets it, and its end is noted afterwards. Where the end is missing HAProxy is
//! asked: what it holds is kept like any other write, what it does not hold was not made. Either way the file, the journal
//! and HAProxy agree.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::state::{Begun, Override, Record, Target};
use super::write::{Left, ensure};
use super::{Overrides, Writer, edit, map_of};
use crate::error::{Reason, Result};
use crate::runtime::MapRef;

/// The pause between two tries, when HAProxy does not answer.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Keys with their values.
type Held = HashMap<String, HashSet<String>>;

/// A write between its two records. When this goes without [`Doubtful::end`], HAProxy will be asked.
pub(super) struct Doubtful<'a> {
    overrides: &'a Overrides,
    number: u64,
    several: bool,
    ended: bool,
}

impl Drop for Doubtful<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.overrides.doubted.notify_one();
        }
    }
}

impl Doubtful<'_> {
    /// Notes what became of the write, as far as that is certain.
    pub(super) fn end(mut self, done: Result<()>) -> Result<()> {
        match done {
            Ok(()) => {
                self.note(true).map_err(|error| {
                    let message = "haproxy made the change, but it cannot be kept over a reload: the state folder cannot be written";
                    error.context(message)
                })?;
                self.ended = true;
                Ok(())
            }
            // A part of many may have been made.
            Err(error) if self.several || error.reason() == Reason::OutcomeUnknown => Err(error),
            Err(error) => {
                self.ended = self.note(false).is_ok();
                Err(error)
            }
        }
    }

    /// Notes that it is made, and instead of what it leaves behind this.
    pub(super) fn end_with(mut self, done: Result<Record>) -> Result<()> {
        let number = self.number;
        self.overrides.append(vec![done?, Record::Ended { number, made: false }])?;
        self.ended = true;
        Ok(())
    }

    fn note(&self, made: bool) -> Result<()> {
        self.overrides.append(vec![Record::Ended { number: self.number, made }])
    }
}

impl Overrides {
    /// Notes that a write begins.
    pub(super) fn begin(
        &self,
        left: &[Left],
        bases: Vec<Option<String>>,
        ours: bool,
        writer: &Writer,
    ) -> Result<Doubtful<'_>> {
        let (since, by) = (self.now(), &writer.by);
        let left = left.iter().zip(bases).map(|((target, value), base)| Override {
            target: target.clone(),
            value: value.clone(),
            base,
            since,
            by: by.clone(),
            filed: None,
        });
        self.begin_write(Begun { left: left.collect(), ours, batch: None })
    }

    /// The same for a write that is put together already.
    pub(super) fn begin_write(&self, write: Begun) -> Result<Doubtful<'_>> {
        let several = write.left.len() != 1;
        let number = self.journal().begin(write).map_err(|error| {
            let message =
                "the change is not made: it could not be kept over a reload, the state folder cannot be written";
            error.context(message)
        })?;
        self.appended.notify_one();
        Ok(Doubtful { overrides: self, number, several, ended: false })
    }

    /// Finds out what became of writes, at the start and whenever one is in doubt. Ends never.
    pub(super) async fn settle_doubts(&self) {
        loop {
            let numbers: Vec<u64> = self.journal().state().begun().keys().copied().collect();
            let mut again = false;
            for number in numbers {
                if let Err(error) = self.settle_doubt(number).await {
                    tracing::debug!(%error, "what became of a write at run time is not known yet");
                    again = true;
                    break;
                }
            }
            if again {
                tokio::time::sleep(PAUSE).await;
            } else {
                self.doubted.notified().await;
            }
        }
    }

    async fn settle_doubt(&self, number: u64) -> Result<()> {
        let begun = || self.journal().state().begun().get(&number).cloned();
        let Some(write) = begun() else { return Ok(()) };
        let mut targets: Vec<Left> =
            write.left.iter().map(|found| (found.target.clone(), found.value.clone())).collect();
        targets.extend(write.batch.iter().map(|batch| (Target::Map { map: batch.map.clone() }, None)));
        // A write that goes on holds this, and notes its end.
        let _alone = self.alone(&targets).await;
        if begun().as_ref() != Some(&write) {
            return Ok(());
        }
        let runtime = &self.rooms.runtime;
        runtime.look().await?;
        runtime.prepared().await;
        if let Some(batch) = &write.batch {
            return self.settle_batch(number, batch).await;
        }
        let before = runtime.worker();
        let made = self.standing(&write.left).await?;
        let (of, number_made) = (write.left.len(), made.len());
        tracing::info!(
            of,
            made = number_made,
            "the outcome of a write at run time was unknown: what haproxy holds of it is kept"
        );
        let held: Vec<Left> = made.iter().map(|found| (found.target.clone(), found.value.clone())).collect();
        let mut records: Vec<Record> = write.records(made).collect();
        records.push(Record::Ended { number, made: false });
        self.append(records)?;
        self.follow(before, &held).await?;
        if let Some(map) = map_of(&held).filter(|_| write.ours) {
            self.rooms.maps.changed(map, held.iter().filter_map(edit));
        }
        Ok(())
    }

    /// Those of a write that HAProxy holds. What is set whatever it was before is set again.
    async fn standing(&self, left: &[Override]) -> Result<Vec<Override>> {
        let runtime = &self.rooms.runtime;
        let held = match left.first().map(|found| &found.target) {
            Some(Target::Map { map }) => self.pairs(map, None).await.map(|pairs| pairs.is_empty().then_some(pairs)),
            Some(Target::MapEntry { map, .. } | Target::MapLine { map, .. }) => {
                self.pairs(map, Some(left)).await.map(Some)
            }
            Some(Target::AclEntry { acl, .. }) => self.patterns(acl, left).await.map(Some),
            _ => {
                let mut all = Ok(Some(Held::new()));
                for found in left {
                    all = ensure(runtime, &found.target, found.value.as_deref()).await.and(all);
                }
                all
            }
        };
        let held = match held {
            Ok(held) => held,
            Err(error) if matches!(error.reason(), Reason::RuntimeUnavailable | Reason::OutcomeUnknown) => {
                return Err(error);
            }
            // There is no such object, or it does not take such a value.
            Err(_) => None,
        };
        let Some(held) = held else { return Ok(Vec::new()) };
        let has = |key: &str| held.contains_key(key);
        let stands = |found: &&Override| match (&found.target, &found.value) {
            (Target::MapEntry { key, .. } | Target::MapLine { key, .. }, Some(value)) => {
                held.get(key).is_some_and(|values| values.contains(value))
            }
            (Target::MapEntry { key, .. }, None) => !has(key),
            (Target::AclEntry { value, .. }, wanted) => wanted.is_some() == has(value),
            _ => true,
        };
        Ok(left.iter().filter(stands).cloned().collect())
    }

    /// Entries of a map with the keys of these targets; without any, the first ones there are.
    async fn pairs(&self, map: &str, of: Option<&[Override]>) -> Result<Held> {
        let keys: HashSet<&str> = of.unwrap_or_default().iter().filter_map(|found| found.target.key()).collect();
        let mut entries = self.rooms.runtime.map_entries(&MapRef::new(map)?).await?;
        let mut pairs = Held::new();
        while let Some(items) = entries.next().await? {
            for item in items.into_iter().filter(|item| of.is_none() || keys.contains(item.key.as_str())) {
                pairs.entry(item.key).or_default().insert(item.value);
            }
            if of.is_none() && !pairs.is_empty() {
                break;
            }
        }
        Ok(pairs)
    }

    async fn patterns(&self, acl: &str, of: &[Override]) -> Result<Held> {
        let keys: HashSet<&str> = of.iter().filter_map(|found| found.target.key()).collect();
        let mut entries = self.rooms.runtime.acl_entries(acl).await?;
        let mut patterns = Held::new();
        while let Some(items) = entries.next().await? {
            let items = items.into_iter().filter(|item| keys.contains(item.value.as_str()));
            patterns.extend(items.map(|item| (item.value, HashSet::new())));
        }
        Ok(patterns)
    }
}
