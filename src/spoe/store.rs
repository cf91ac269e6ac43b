//! The folder of SPOE files, with a version and transactions for each file.
//!
//! Files are read for each call: they are small, and may be changed by hand at any time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::file::SpoeFile;
use crate::configuration::{Status, Target};
use crate::error::{Error, Reason, Result};
use crate::storage::Folder;

/// Largest SPOE file, in bytes.
const LIMIT: u64 = 16 << 20;

/// A transaction of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoeTransaction {
    /// Its id, a UUID.
    pub id: String,
    /// Name of the file.
    pub spoe: String,
    /// Version of the file that it began with.
    pub version: i64,
    /// Where it stands.
    pub status: Status,
}

/// All SPOE files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoeStore {
    folder: Folder,
    /// Held while a file is read, changed and written, so that changes have one order.
    open: Arc<Mutex<Table>>,
    /// Transactions that may be open; 0 for no limit.
    max_open: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// By number, so that the oldest comes first.
    entries: BTreeMap<u64, (SpoeTransaction, SpoeFile)>,
    next: u64,
}

impl Table {
    fn find(&mut self, spoe: &str, id: &str) -> Result<&mut (SpoeTransaction, SpoeFile)> {
        let found = self.entries.values_mut().find(|(transaction, _)| transaction.id == id && transaction.spoe == spoe);
        found.ok_or_else(|| unknown(id))
    }
}

impl SpoeStore {
    /// Opens the folder, see [`Folder::open`].
    pub fn open(path: impl AsRef<Path>, max_open: usize) -> Result<Self> {
        Ok(SpoeStore { folder: Folder::open(path)?, open: Arc::default(), max_open })
    }

    /// Absolute paths of the files, sorted by name.
    pub async fn list(&self) -> Result<Vec<String>> {
        let files = self.folder.list().await?;
        Ok(files.into_iter().filter_map(|(name, _)| self.path(&name)).collect())
    }

    /// A file, byte for byte. `OBJECT_NOT_FOUND`.
    pub async fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut contents = self.folder.read(name).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = contents.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Stores a new file and returns its absolute path. `OBJECT_EXISTS`.
    pub async fn create(&self, name: &str, bytes: &[u8]) -> Result<String> {
        self.write(name, bytes, true).await?;
        Ok(self.path(name).unwrap_or_default())
    }

    /// Removes a file and its transactions. `OBJECT_NOT_FOUND`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let mut table = self.open.lock().await;
        self.folder.delete(name).await?;
        table.entries.retain(|_, (transaction, _)| transaction.spoe != name);
        Ok(())
    }

    /// A file as it is, or as a transaction would make it. `PARENT_NOT_FOUND` for an unknown file.
    pub async fn view(&self, spoe: &str, transaction: Option<&str>) -> Result<SpoeFile> {
        let current = self.parse(spoe).await?;
        match transaction {
            None => Ok(current),
            Some(id) => self.open.lock().await.find(spoe, id).map(|(_, file)| file.clone()),
        }
    }

    /// Changes a file or a transaction. Returns the version after it; inside a transaction, the one it began with.
    ///
    /// `VERSION_MISMATCH`, `TRANSACTION_NOT_FOUND`, `TRANSACTION_OUTDATED`, and whatever `edit` returns.
    pub async fn change(
        &self,
        spoe: &str,
        target: Target<'_>,
        edit: impl FnOnce(&mut SpoeFile) -> Result<()> + Send,
    ) -> Result<i64> {
        let mut table = self.open.lock().await;
        let mut file = self.parse(spoe).await?;
        match target {
            Target::Version(version) => {
                expect(&file, version)?;
                edit(&mut file)?;
                file.set_version(version + 1);
                self.write(spoe, &file.to_bytes(), false).await?;
                Ok(version + 1)
            }
            Target::Transaction(id) => {
                let (transaction, file) = table.find(spoe, id)?;
                usable(transaction)?;
                let mut changed = file.clone();
                edit(&mut changed)?;
                *file = changed;
                Ok(transaction.version)
            }
        }
    }

    /// Begins a transaction. `VERSION_MISMATCH`, `TRANSACTION_LIMIT`.
    pub async fn begin(&self, spoe: &str, version: i64) -> Result<SpoeTransaction> {
        let mut table = self.open.lock().await;
        let file = self.parse(spoe).await?;
        expect(&file, version)?;
        let open = table.entries.values().filter(|(one, _)| one.status == Status::InProgress).count();
        if self.max_open > 0 && open >= self.max_open {
            let message = format!("{open} transactions are open, commit or delete one");
            return Err(Error::new(Reason::TransactionLimit, message).with("limit", self.max_open));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let transaction = SpoeTransaction { id, spoe: spoe.to_owned(), version, status: Status::InProgress };
        let number = table.next;
        table.next += 1;
        table.entries.insert(number, (transaction.clone(), file));
        Ok(transaction)
    }

    /// Transactions of a file, oldest first.
    pub async fn transactions(&self, spoe: &str, status: Option<Status>) -> Result<Vec<SpoeTransaction>> {
        self.parse(spoe).await?;
        let table = self.open.lock().await;
        let all = table.entries.values().map(|(transaction, _)| transaction);
        let of_file = all.filter(|transaction| transaction.spoe == spoe);
        Ok(of_file.filter(|transaction| status.is_none_or(|status| transaction.status == status)).cloned().collect())
    }

    /// One transaction. `TRANSACTION_NOT_FOUND`.
    pub async fn transaction(&self, spoe: &str, id: &str) -> Result<SpoeTransaction> {
        self.parse(spoe).await?;
        self.open.lock().await.find(spoe, id).map(|(transaction, _)| transaction.clone())
    }

    /// Removes a transaction with its changes. `TRANSACTION_NOT_FOUND`.
    pub async fn end(&self, spoe: &str, id: &str) -> Result<()> {
        self.parse(spoe).await?;
        let mut table = self.open.lock().await;
        table.find(spoe, id)?;
        table.entries.retain(|_, (transaction, _)| transaction.id != id);
        Ok(())
    }

    /// Writes what a transaction made of its file. Returns it, and the version of the file.
    ///
    /// When the file moved on: `VERSION_MISMATCH`, and `TRANSACTION_OUTDATED` ever after.
    pub async fn commit(&self, spoe: &str, id: &str) -> Result<(SpoeTransaction, i64)> {
        let mut table = self.open.lock().await;
        let current = self.parse(spoe).await?;
        let (transaction, file) = table.find(spoe, id)?;
        usable(transaction)?;
        let version = transaction.version;
        if let Err(error) = expect(&current, version) {
            transaction.status = Status::Outdated;
            return Err(error);
        }
        let mut changed = file.clone();
        changed.set_version(version + 1);
        self.write(spoe, &changed.to_bytes(), false).await?;
        let mut done = transaction.clone();
        done.status = Status::Success;
        table.entries.retain(|_, (transaction, _)| transaction.id != id);
        Ok((done, version + 1))
    }

    async fn parse(&self, spoe: &str) -> Result<SpoeFile> {
        match self.read(spoe).await {
            Ok(bytes) => Ok(SpoeFile::parse(&bytes)),
            Err(error) if error.reason() == Reason::ObjectNotFound => {
                Err(Error::new(Reason::ParentNotFound, format!("client {spoe} not configured")).with("parent", spoe))
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, name: &str, bytes: &[u8], create: bool) -> Result<()> {
        let mut writer = self.folder.write(name, create, LIMIT).await?;
        writer.push(bytes).await?;
        writer.commit().await.map(drop)
    }

    fn path(&self, name: &str) -> Option<String> {
        self.folder.file(name).map(|path| path.display().to_string())
    }
}

fn expect(file: &SpoeFile, version: i64) -> Result<()> {
    let actual = file.version();
    if actual == version {
        return Ok(());
    }
    let message = format!("version in configuration file is {actual}, given version is {version}");
    Err(Error::new(Reason::VersionMismatch, message).with("version", actual))
}

fn usable(transaction: &SpoeTransaction) -> Result<()> {
    if transaction.status == Status::InProgress {
        return Ok(());
    }
    let message = format!("transaction {} is outdated and can only be deleted", transaction.id);
    Err(Error::new(Reason::TransactionOutdated, message).with("transaction_id", &transaction.id))
}

fn unknown(id: &str) -> Error {
    Error::new(Reason::TransactionNotFound, format!("transaction does not exist: {id}")).with("transaction_id", id)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, SpoeStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = SpoeStore::open(dir.path().join("spoe"), 2).unwrap();
        store.create("f.cfg", b"[a]\n").await.unwrap();
        (dir, store)
    }

    fn add(name: &'static str) -> impl FnOnce(&mut SpoeFile) -> Result<()> + Send {
        move |file| file.add_scope(name)
    }

    async fn text(store: &SpoeStore) -> String {
        String::from_utf8(store.read("f.cfg").await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_change_is_made_for_a_version() {
        let (_dir, store) = store().await;
        let wrong = store.change("f.cfg", Target::Version(2), add("[b]")).await.unwrap_err();
        assert_eq!(wrong.reason(), Reason::VersionMismatch);
        assert_eq!(store.change("f.cfg", Target::Version(1), add("[b]")).await.unwrap(), 2);
        assert_eq!(text(&store).await, "# _version=2\n[a]\n[b]\n");
        let failed = store.change("f.cfg", Target::Version(2), add("[b]")).await.unwrap_err();
        assert_eq!(failed.reason(), Reason::ObjectExists);
        assert_eq!(store.view("f.cfg", None).await.unwrap().version(), 2);
        let unknown = store.change("g.cfg", Target::Version(1), add("[b]")).await.unwrap_err();
        assert_eq!((unknown.reason(), unknown.message()), (Reason::ParentNotFound, "client g.cfg not configured"));
    }

    #[tokio::test]
    async fn a_transaction_is_seen_by_itself_until_it_is_committed() {
        let (_dir, store) = store().await;
        let first = store.begin("f.cfg", 1).await.unwrap();
        let second = store.begin("f.cfg", 1).await.unwrap();
        assert_eq!(store.begin("f.cfg", 1).await.unwrap_err().reason(), Reason::TransactionLimit);
        store.change("f.cfg", Target::Transaction(&first.id), add("[b]")).await.unwrap();
        assert_eq!(text(&store).await, "[a]\n");
        let view = store.view("f.cfg", Some(&first.id)).await.unwrap();
        assert_eq!(view.scopes().collect::<Vec<_>>(), ["[a]", "[b]"]);
        assert_eq!(store.commit("f.cfg", &first.id).await.unwrap().1, 2);
        assert_eq!(text(&store).await, "# _version=2\n[a]\n[b]\n");

        assert_eq!(store.commit("f.cfg", &second.id).await.unwrap_err().reason(), Reason::VersionMismatch);
        assert_eq!(store.commit("f.cfg", &second.id).await.unwrap_err().reason(), Reason::TransactionOutdated);
        let edit = store.change("f.cfg", Target::Transaction(&second.id), add("[c]")).await.unwrap_err();
        assert_eq!(edit.reason(), Reason::TransactionOutdated);
        assert_eq!(store.transactions("f.cfg", Some(Status::Outdated)).await.unwrap().len(), 1);
        store.end("f.cfg", &second.id).await.unwrap();
        assert_eq!(store.end("f.cfg", &second.id).await.unwrap_err().reason(), Reason::TransactionNotFound);
        assert_eq!(store.commit("f.cfg", &first.id).await.unwrap_err().reason(), Reason::TransactionNotFound);
    }

    #[tokio::test]
    async fn files_put_there_by_hand_are_seen() {
        let (_dir, store) = store().await;
        let path = store.list().await.unwrap().remove(0);
        std::fs::write(&path, "# _version=7\n").unwrap();
        assert_eq!(store.view("f.cfg", None).await.unwrap().version(), 7);
        assert_eq!(store.create("f.cfg", b"").await.unwrap_err().reason(), Reason::ObjectExists);
        store.delete("f.cfg").await.unwrap();
        assert_eq!(store.delete("f.cfg").await.unwrap_err().reason(), Reason::ObjectNotFound);
        assert!(store.list().await.unwrap().is_empty());
    }
}
