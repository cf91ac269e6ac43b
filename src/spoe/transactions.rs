//! Transactions of SPOE files, in memory and on disk.
//!
//! Each is a copy of its file, `<file>.<id>`, that is replaced with every edit: the files are small. Outdated ones lie
//! in a folder of their own below. The version that a transaction began with is the one that its copy names.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::SpoeFile;
use super::store::LIMIT;
use crate::configuration::Status;
use crate::error::{Error, Reason, Result};
use crate::storage::Folder;

/// A transaction of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoeTransaction {
    /// Its id, a UUID.
    pub id: String,
    /// Name of the file.
    pub spoe: String,
    /// Version of the file that it began with.
    pub version: i64,
    /// Where it stands: open or outdated; `Success` in the answer of a commit.
    pub status: Status,
}

impl SpoeTransaction {
    fn file_name(&self) -> String {
        format!("{}.{}", self.spoe, self.id)
    }
}

type Entry = (SpoeTransaction, SpoeFile);

/// All transactions of all files.
#[derive(Debug)]
pub(super) struct Transactions {
    open: Folder,
    outdated: Folder,
    /// By number, so that the oldest comes first.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// How many may be open; 0 for no limit.
    max_open: usize,
}

impl Transactions {
    /// Opens the folder with what an earlier process left. Blocks.
    pub(super) fn open(path: &Path, max_open: usize) -> Result<Self> {
        let (open, outdated) = (Folder::open(path)?, Folder::open(path.join("outdated"))?);
        let mut found = Vec::new();
        for (folder, status) in [(&open, Status::InProgress), (&outdated, Status::Outdated)] {
            found.extend(left(folder, status)?);
        }
        // The oldest was last changed first, which is as near as one can come.
        found.sort_by_key(|(changed, _)| *changed);
        let entries: BTreeMap<u64, Entry> = (0..).zip(found.into_iter().map(|(_, entry)| entry)).collect();
        Ok(Transactions { open, outdated, next: entries.len() as u64, entries, max_open })
    }

    /// Those of a file, oldest first.
    pub(super) fn list<'a>(&'a self, spoe: &'a str) -> impl Iterator<Item = &'a SpoeTransaction> {
        self.entries.values().map(|(transaction, _)| transaction).filter(move |transaction| transaction.spoe == spoe)
    }

    /// One of a file, with what it makes of the file. `TRANSACTION_NOT_FOUND`.
    pub(super) fn get(&self, spoe: &str, id: &str) -> Result<&Entry> {
        let found = self.entries.values().find(|(transaction, _)| transaction.id == id && transaction.spoe == spoe);
        found.ok_or_else(|| unknown(id))
    }

    /// One that can be changed. `TRANSACTION_NOT_FOUND`, `TRANSACTION_OUTDATED`.
    pub(super) fn usable(&self, spoe: &str, id: &str) -> Result<&Entry> {
        let entry = self.get(spoe, id)?;
        if entry.0.status == Status::InProgress {
            return Ok(entry);
        }
        let message = format!("transaction {id} is outdated and can only be deleted");
        Err(Error::new(Reason::TransactionOutdated, message).with("transaction_id", id))
    }

    /// A new one on a file. `TRANSACTION_LIMIT`.
    pub(super) async fn begin(&mut self, spoe: &str, version: i64, mut file: SpoeFile) -> Result<SpoeTransaction> {
        let open = self.entries.values().filter(|(one, _)| one.status == Status::InProgress).count();
        if self.max_open > 0 && open >= self.max_open {
            let message = format!("{open} transactions are open, commit or delete one");
            return Err(Error::new(Reason::TransactionLimit, message).with("limit", self.max_open));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let transaction = SpoeTransaction { id, spoe: spoe.to_owned(), version, status: Status::InProgress };
        file.set_version(version);
        write(&self.open, &transaction, &file).await?;
        self.entries.insert(self.next, (transaction.clone(), file));
        self.next += 1;
        Ok(transaction)
    }

    /// Keeps what a transaction now makes of its file. `TRANSACTION_NOT_FOUND`.
    pub(super) async fn put(&mut self, spoe: &str, id: &str, file: SpoeFile) -> Result<()> {
        let found = self.entries.values_mut().find(|(transaction, _)| transaction.id == id && transaction.spoe == spoe);
        let (transaction, kept) = found.ok_or_else(|| unknown(id))?;
        write(&self.open, transaction, &file).await?;
        *kept = file;
        Ok(())
    }

    /// Its file moved on.
    pub(super) async fn outdate(&mut self, id: &str) -> Result<()> {
        let Some((transaction, file)) = self.entries.values_mut().find(|(transaction, _)| transaction.id == id) else {
            return Err(unknown(id));
        };
        write(&self.outdated, transaction, file).await?;
        remove(&self.open, transaction).await?;
        transaction.status = Status::Outdated;
        Ok(())
    }

    /// It is over.
    pub(super) async fn end(&mut self, id: &str) -> Result<()> {
        self.remove(|transaction| transaction.id == id).await
    }

    /// A file is gone, and its transactions with it.
    pub(super) async fn forget_file(&mut self, spoe: &str) -> Result<()> {
        self.remove(|transaction| transaction.spoe == spoe).await
    }

    async fn remove(&mut self, which: impl Fn(&SpoeTransaction) -> bool) -> Result<()> {
        for (transaction, _) in self.entries.values().filter(|(transaction, _)| which(transaction)) {
            remove(&self.open, transaction).await?;
            remove(&self.outdated, transaction).await?;
        }
        self.entries.retain(|_, (transaction, _)| !which(transaction));
        Ok(())
    }
}

/// What a folder holds, with the time of the last change.
fn left(folder: &Folder, status: Status) -> Result<Vec<(std::time::SystemTime, Entry)>> {
    let path = folder.path();
    let failed = |error: std::io::Error| Error::of_file("read", path, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Other files are somebody else's, and so are links: none of ours is one.
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some((spoe, id)) = name.rsplit_once('.').filter(|(_, id)| is_file && uuid::Uuid::try_parse(id).is_ok())
        else {
            continue;
        };
        let file = SpoeFile::parse(&std::fs::read(entry.path()).map_err(failed)?);
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        let transaction = SpoeTransaction { id: id.to_owned(), spoe: spoe.to_owned(), version: file.version(), status };
        found.push((changed, (transaction, file)));
    }
    Ok(found)
}

async fn write(folder: &Folder, transaction: &SpoeTransaction, file: &SpoeFile) -> Result<()> {
    let mut writer = folder.write(&transaction.file_name(), false, LIMIT).await?;
    writer.push(&file.to_bytes()).await?;
    writer.commit().await.map(drop)
}

async fn remove(folder: &Folder, transaction: &SpoeTransaction) -> Result<()> {
    match folder.delete(&transaction.file_name()).await {
        Err(error) if error.reason() != Reason::ObjectNotFound => Err(error),
        _ => Ok(()),
    }
}

fn unknown(id: &str) -> Error {
    Error::new(Reason::TransactionNotFound, format!("transaction does not exist: {id}")).with("transaction_id", id)
}
