//! Entries of stick tables that are to stay.
//!
//! Where HAProxy expires an entry, or somebody clears it, its records go. What traffic counts in it after the write goes
//! with the worker: the next one gets what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::doubts::PAUSE;
use super::lives::{Entry, Life, Look};
use super::prepare::TOGETHER;
use super::state::{Holder, Override, Record, Target};
use super::{Overrides, SYNC};
use crate::error::{Error, Reason, Result};
use crate::runtime::{DataType, Filter, Runtime, check_table_key};

/// The longest pause of who follows entries to their ends: the time of day may be set meanwhile.
const LONGEST: Duration = Duration::from_mins(1);
/// Entries that are looked at in one go.
const AT_ONCE: usize = 4096;

impl Overrides {
    /// Refuses a durable write that could not be kept. `NOT_DURABLE`, `OBJECT_NOT_FOUND` without such a table,
    /// `INVALID_VALUE` for a key that does not fit it.
    pub(super) async fn check_lasting(&self, table: &str, key: &str, data: &[(DataType, u64)]) -> Result<()> {
        check_table_key(self.rooms.runtime.table(table).await?.kind, key)?;
        let refused = |message: String| Err(Error::new(Reason::NotDurable, message).with("table", table));
        if let Some(why) = self.taught(table) {
            return refused(format!("an entry of table '{table}' cannot be kept over a reload: {why}"));
        }
        match data.iter().map(|(kind, _)| kind).find(|kind| kind.is_rate() || **kind == DataType::ConnCur) {
            Some(DataType::ConnCur) => refused("conn_cur: it counts open connections, and stays with them".to_owned()),
            Some(kind) => refused(format!("{kind}: a rate fades, so that it cannot be kept over a reload")),
            None => Ok(()),
        }
    }

    /// Why the entries of a table are left to HAProxy.
    fn taught(&self, table: &str) -> Option<&'static str> {
        let document = &self.rooms.configuration.current().document;
        match self.rooms.engine.table_setting(document, table, "peers") {
            None => Some("the configuration does not say whether it has peers"),
            Some(peers) if table.contains('/') || !peers.is_empty() => {
                Some("it has peers, which teach each new worker what is newer")
            }
            Some(_) => None,
        }
    }

    /// Notes how long an entry stays that was just written, by the name that HAProxy has for it. Where that cannot be
    /// found out, it will be.
    pub(super) async fn note_life(&self, entry: Entry) {
        let asked = self.now();
        let found = match self.rooms.runtime.table_entry(&entry.table, &entry.key).await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "when an entry of a stick table ends is not known yet");
                return;
            }
        };
        let life = Life::of(self.look(asked, found.expires_in));
        let mut records = Vec::new();
        let known = Entry { table: entry.table.clone(), key: found.key };
        if known != entry {
            let named = |found: Override| match found.target {
                Target::TableEntry { field, .. } => {
                    let (table, key) = (known.table.clone(), known.key.clone());
                    Record::Put(Override { target: Target::TableEntry { table, key, field }, ..found })
                }
                target => Record::Put(Override { target, ..found }),
            };
            records.extend(self.journal().state().of_entry(&entry).into_iter().map(named));
            records.push(Record::Gone { entry });
        }
        records.push(Record::Lives { entry: known, life });
        if let Err(error) = self.append(records) {
            tracing::warn!(%error, "the journal of overrides cannot be written");
        }
    }

    fn look(&self, asked: i64, expires_in: u64) -> Look {
        Look { asked, told: self.now(), expires_in: i64::try_from(expires_in).unwrap_or(i64::MAX) }
    }

    /// Removes the entry of a key for good. Errors as those of [`Runtime::clear_table_entry`].
    pub async fn clear_table_entry(&self, table: &str, key: &str) -> Result<()> {
        let runtime = &self.rooms.runtime;
        let asked = Entry { table: table.to_owned(), key: key.to_owned() };
        if !self.journal().state().has_table(table) {
            return runtime.clear_table_entry(table, key).await;
        }
        // One entry may be called by several keys, such as addresses in other spellings.
        let named = runtime.table_entry(table, key).await?.map(|found| Entry { key: found.key, ..asked.clone() });
        let gone: BTreeSet<Entry> = named.into_iter().chain([asked]).collect();
        let _alone = self.all_alone().await;
        let before = runtime.worker();
        runtime.clear_table_entry(table, key).await?;
        self.append(gone.into_iter().map(|entry| Record::Gone { entry }).collect())?;
        if runtime.worker() != before {
            // The worker that followed may have been given it before its records went.
            runtime.prepared().await;
            runtime.clear_table_entry(table, key).await?;
        }
        Ok(())
    }

    /// Removes the entries that meet all filters for good; without filters, all. Errors as those of
    /// [`Runtime::clear_table`].
    pub async fn clear_table(&self, table: &str, filters: &[Filter]) -> Result<()> {
        let runtime = &self.rooms.runtime;
        if !self.journal().state().has_table(table) {
            return runtime.clear_table(table, filters).await;
        }
        let _alone = self.all_alone().await;
        loop {
            let before = runtime.worker();
            runtime.clear_table(table, filters).await?;
            let kept = self.journal().state().entries_of(table);
            let gone = if filters.is_empty() { kept } else { absent(runtime, kept).await? };
            self.append(gone.into_iter().map(|entry| Record::Gone { entry }).collect())?;
            if runtime.worker() == before {
                return Ok(());
            }
            runtime.prepared().await;
        }
    }

    /// Brings entries to a worker, but those that have ended meanwhile.
    pub(super) async fn bring_tables(&self, runtime: &Runtime, all: Vec<Override>) -> Result<()> {
        let (mut wanted, mut lives, mut ended) = (Vec::new(), BTreeMap::new(), Vec::new());
        for found in all {
            let Some(entry) = found.target.entry() else { continue };
            let life = self.journal().state().life(&entry);
            if life.has_ended(self.now()) {
                ended.push(Record::Gone { entry });
            } else if let Some(why) = self.taught(&entry.table) {
                self.forget(found, why);
            } else {
                lives.insert(entry, life);
                wanted.push((found.value.clone(), found));
            }
        }
        self.append(ended)?;
        self.ensure_all(runtime, wanted).await?;
        let looks = stream::iter(lives).map(|(entry, life)| async move {
            let asked = self.now();
            let found = runtime.table_entry(&entry.table, &entry.key).await.ok().flatten()?;
            let life = life.carried(self.look(asked, found.expires_in));
            Some(Record::Lives { entry, life })
        });
        let records: Vec<_> = looks.buffered(TOGETHER).filter_map(std::future::ready).collect().await;
        self.append(records)
    }

    /// Follows entries to their ends. Ends never.
    pub(super) async fn keep_lives(&self) {
        loop {
            let next = self.journal().state().lives().map(|(_, life)| life.until).min();
            let Some(next) = next else {
                self.lived.notified().await;
                tokio::time::sleep(SYNC).await;
                continue;
            };
            let pause = Duration::from_millis(u64::try_from(next - self.now()).unwrap_or(0)).min(LONGEST);
            if pause.is_zero() {
                if let Err(error) = self.end_lives().await {
                    tracing::debug!(%error, "haproxy cannot be asked for entries of stick tables");
                    tokio::time::sleep(PAUSE).await;
                }
                tokio::time::sleep(SYNC).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.lived.notified() => tokio::time::sleep(SYNC).await,
            }
        }
    }

    /// Asks HAProxy for entries whose end has come.
    async fn end_lives(&self) -> Result<()> {
        let runtime = &self.rooms.runtime;
        let worker = runtime.look().await?;
        runtime.prepared().await;
        let holder = Holder { pid: worker.pid, started: worker.started };
        if self.journal().state().holder() != Some(holder) {
            // What it lacks was not brought to it, and has not ended.
            return Err(Error::new(Reason::RuntimeUnavailable, "haproxy's worker does not hold all runtime overrides"));
        }
        let (one, now) = (&runtime.one(worker), self.now());
        let due: Vec<Entry> = {
            let journal = self.journal();
            let due = journal.state().lives().filter(|(_, life)| life.until <= now).map(|(entry, _)| entry.clone());
            due.take(AT_ONCE).collect()
        };
        let looks = stream::iter(due).map(|entry| self.end_life(one, entry));
        let done: Vec<Result<()>> = looks.buffer_unordered(TOGETHER).collect().await;
        done.into_iter().collect()
    }

    async fn end_life(&self, one: &Runtime, entry: Entry) -> Result<()> {
        let target = Target::TableEntry { table: entry.table.clone(), key: entry.key.clone(), field: String::new() };
        let _alone = self.alone(&[(target, None)]).await;
        let (asked, life) = (self.now(), self.journal().state().life(&entry));
        if life.until > asked {
            // It was written again meanwhile.
            return Ok(());
        }
        let look = match one.table_entry(&entry.table, &entry.key).await {
            Ok(Some(found)) => self.look(asked, found.expires_in),
            Ok(None) => return self.append(vec![Record::Gone { entry }]),
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                let all = self.journal().state().of_entry(&entry);
                for found in all {
                    self.forget(found, error.message());
                }
                return Ok(());
            }
        };
        if let Some(life) = life.at_end(look) {
            return self.append(vec![Record::Lives { entry, life }]);
        }
        match one.clear_table_entry(&entry.table, &entry.key).await {
            Ok(()) => self.append(vec![Record::Gone { entry }]),
            Err(error) if is_away(&error) => Err(error),
            // A session that is open tracks it, so that it lives on.
            Err(_) => self.append(vec![Record::Lives { entry, life: Life::of(look) }]),
        }
    }
}

fn is_away(error: &Error) -> bool {
    matches!(error.reason(), Reason::RuntimeUnavailable | Reason::OutcomeUnknown)
}

/// Those that HAProxy does not have.
async fn absent(runtime: &Runtime, entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let looks = stream::iter(entries).map(|entry| async move {
        let found = runtime.table_entry(&entry.table, &entry.key).await?;
        Ok(found.is_none().then_some(entry))
    });
    let found: Vec<Result<Option<Entry>>> = looks.buffered(TOGETHER).collect().await;
    Ok(found.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
