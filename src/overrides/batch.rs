//! So many new entries of a map that no memory holds them: they lie in a file from before HAProxy gets them until the
//! file of the map has them, and the journal names that file meanwhile.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::doubts::Doubtful;
use super::state::{Begun, Override, Record, Target};
use super::{Overrides, Write, Writer};
use crate::error::{Error, Reason, Result};
use crate::runtime::{LoadMode, MapRef, Runtime, Worker};
use crate::storage::{MapBatch, MapBatchWriter};

/// Names of the files, each with a number behind it.
const FILES: &str = "overrides.batch-";

impl Overrides {
    /// Begins a batch of new entries.
    pub async fn batch(&self) -> Result<MapBatchWriter> {
        let number = self.batches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        MapBatch::create(self.folder.join(format!("{FILES}{}-{number}", std::process::id()))).await
    }

    /// Adds entries to a map without a look at those that are there, as [`Write::MapAppend`] does. When it returns, those
    /// that are to stay are kept. Fails as that does.
    pub async fn append_batch(&self, map: &MapRef, mut batch: MapBatch, writer: &Writer) -> Result<MapBatch> {
        let (runtime, file) = (&self.rooms.runtime, map.to_string());
        let ours = self.rooms.maps.check(&file);
        let filed = writer.force_sync || self.rooms.maps.is_looking();
        if writer.force_sync {
            ours.clone()?;
        }
        if !(writer.durable || filed && ours.is_ok()) {
            add(runtime, map, &batch).await?;
            return Ok(batch);
        }
        if ours.is_err() {
            // The journal is the store.
            self.write(Write::MapAppend(map.clone(), read(&batch).await?), writer).await?;
            return Ok(batch);
        }
        let _alone = self.alone(&[(Target::Map { map: file.clone() }, None)]).await;
        let before = runtime.worker();
        let begun = self.begin_batch(&mut batch, &file, writer)?;
        let done = match add(runtime, map, &batch).await {
            Ok(()) => self.keep_batch(&file, &batch, writer.force_sync, before).await,
            Err(error) => Err(error),
        };
        begun.end_with(done.map(|()| self.in_file(&file, &writer.by)))?;
        batch.kept = false;
        Ok(batch)
    }

    fn begin_batch(&self, batch: &mut MapBatch, map: &str, writer: &Writer) -> Result<Doubtful<'_>> {
        let path = batch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let batch_of = BatchOf { map: map.to_owned(), file: path, by: writer.by.clone() };
        batch.kept = true;
        let begun = self.begin_write(Begun { left: Vec::new(), ours: true, batch: Some(batch_of) });
        batch.kept = begun.is_ok();
        begun
    }

    /// Puts entries that HAProxy has into the file of their map, and makes sure that a worker that has followed since has
    /// them as well.
    async fn keep_batch(&self, map: &str, batch: &MapBatch, whole: bool, before: Option<Worker>) -> Result<()> {
        let (runtime, mut known) = (&self.rooms.runtime, before);
        let put = self.rooms.maps.put_batch(runtime, map, batch, whole).await;
        put.map_err(|error| {
            error
                .context("haproxy has the entries, but they cannot be kept over a reload: their file cannot be written")
        })?;
        while runtime.worker() != known {
            known = runtime.worker();
            runtime.prepared().await;
            complete(runtime, &MapRef::new(map)?, batch).await?;
        }
        Ok(())
    }

    /// What the journal says when the file of a map has all that was written: a worker that started before is given it.
    fn in_file(&self, map: &str, by: &str) -> Record {
        let (since, target) = (self.now(), Target::Map { map: map.to_owned() });
        Record::Put(Override { target, value: None, base: None, since, by: by.to_owned(), filed: Some(since) })
    }

    /// Finds out what became of entries whose addition did not end: those that HAProxy holds are kept.
    pub(super) async fn settle_batch(&self, number: u64, of: &BatchOf) -> Result<()> {
        let (runtime, map) = (&self.rooms.runtime, MapRef::new(&of.map)?);
        let mut batch = MapBatch::kept_in(self.folder.join(&of.file));
        let (mut records, before) = (Vec::new(), runtime.worker());
        let lies_there = tokio::fs::try_exists(batch.path()).await.unwrap_or_default();
        if lies_there && let Some(there) = entries_there(runtime, &map).await? {
            let (mut made, mut count) = (self.batch().await?, 0_usize);
            let mut entries = batch.read().await?;
            while let Some((key, value)) = entries.next().await? {
                if there.contains(&hash(key, value)) {
                    made.push(key, value).await?;
                    count += 1;
                }
            }
            tracing::info!(count, map = of.map, "the outcome of a large write was unknown: what haproxy holds is kept");
            if count > 0 {
                self.keep_batch(&of.map, &made.finish().await?, false, before).await?;
                records.push(self.in_file(&of.map, &of.by));
            }
        }
        records.push(Record::Ended { number, made: false });
        self.append(records)?;
        batch.kept = !lies_there;
        Ok(())
    }
}

/// Entries of a map that are being added.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct BatchOf {
    /// The file of the map, as HAProxy knows it.
    pub(super) map: String,
    /// Where the entries lie, a name in the state folder.
    pub(super) file: String,
    /// Who adds them.
    pub(super) by: String,
}

/// Removes what earlier runs left behind and no write in doubt names. Blocks.
pub(super) fn sweep(folder: &Path, begun: &[&BatchOf]) {
    let old = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(FILES) && !begun.iter().any(|of| of.file == name)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(old) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "what an earlier run left behind stays");
        }
    }
}

/// Adds all of them. What a reload cuts off begins again with the new worker.
async fn add(runtime: &Runtime, map: &MapRef, batch: &MapBatch) -> Result<()> {
    let steps = |one: Runtime, _| async move {
        let (mut load, mut entries) = (one.map_load(map, LoadMode::Append).await?, batch.read().await?);
        while let Some((key, value)) = entries.next().await? {
            load.push(key, value).await?;
        }
        load.commit().await.map(drop)
    };
    runtime.on_one(steps).await
}

/// Adds those that a map does not hold.
async fn complete(runtime: &Runtime, map: &MapRef, batch: &MapBatch) -> Result<()> {
    let steps = |one: Runtime, _| async move {
        let there = entries_there(&one, map).await?.unwrap_or_default();
        let (mut load, mut entries) = (one.map_load(map, LoadMode::Append).await?, batch.read().await?);
        while let Some((key, value)) = entries.next().await? {
            if !there.contains(&hash(key, value)) {
                load.push(key, value).await?;
            }
        }
        load.commit().await.map(drop)
    };
    runtime.on_one(steps).await
}

async fn read(batch: &MapBatch) -> Result<Vec<(String, String)>> {
    let (mut reader, mut entries) = (batch.read().await?, Vec::new());
    while let Some((key, value)) = reader.next().await? {
        entries.push((key.to_owned(), value.to_owned()));
    }
    Ok(entries)
}

/// Hashes of the entries of a map: 8 bytes for each instead of the text. Nothing when there is no such map.
async fn entries_there(runtime: &Runtime, map: &MapRef) -> Result<Option<HashSet<u64>>> {
    let mut there = HashSet::new();
    let listed = async {
        let mut entries = runtime.map_entries(map).await?;
        while let Some(items) = entries.next().await? {
            there.extend(items.iter().map(|entry| hash(&entry.key, &entry.value)));
        }
        Ok::<(), Error>(())
    };
    match listed.await {
        Ok(()) => Ok(Some(there)),
        Err(error) if error.reason() == Reason::ObjectNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn hash(key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}
