//! The folder of SPOE files, with a version and transactions for each file.
//!
//! Files are read for each call: they are small, and may be changed by hand at any time.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::file::SpoeFile;
use super::transactions::{SpoeTransaction, Transactions};
use crate::configuration::ports::CheckFile;
use crate::configuration::{Status, Target};
use crate::error::{Error, Reason, Result};
use crate::storage::Folder;

/// Largest SPOE file, in bytes.
pub(super) const LIMIT: u64 = 16 << 20;

/// All SPOE files. Cheap to clone.
#[derive(Clone)]
pub struct SpoeStore {
    folder: Folder,
    /// Held while a file is read, changed and written, so that changes have one order.
    open: Arc<Mutex<Transactions>>,
    check: Arc<dyn CheckFile>,
}

impl SpoeStore {
    /// Opens the folder of the files and that of their transactions, see [`Folder::open`]. At most `max_open`
    /// transactions may be open, 0 for no limit. Blocks; for the start of the program.
    ///
    /// A file that the configuration names is checked by HAProxy before it takes its place.
    pub fn open(
        path: impl AsRef<Path>,
        transactions: impl AsRef<Path>,
        max_open: usize,
        check: Arc<dyn CheckFile>,
    ) -> Result<Self> {
        let open = Arc::new(Mutex::new(Transactions::open(transactions.as_ref(), max_open)?));
        Ok(SpoeStore { folder: Folder::open(path)?, open, check })
    }

    /// The same files, of which none can be changed if `on`.
    #[must_use]
    pub fn read_only(self, on: bool) -> Self {
        SpoeStore { folder: self.folder.read_only(on), ..self }
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

    /// Stores a new file and returns its absolute path. `OBJECT_EXISTS`; `CONFIGURATION_REJECTED` when the configuration
    /// names it already, and HAProxy does not take it.
    pub async fn create(&self, name: &str, bytes: &[u8]) -> Result<String> {
        SpoeFile::parse(bytes).own_version()?;
        self.write(name, bytes, true).await?;
        Ok(self.path(name).unwrap_or_default())
    }

    /// Removes a file and its transactions. `OBJECT_NOT_FOUND`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let mut open = self.open.lock().await;
        self.folder.delete(name).await?;
        open.forget_file(name).await
    }

    /// A file as it is, or as a transaction would make it. `PARENT_NOT_FOUND` for an unknown file.
    pub async fn view(&self, spoe: &str, transaction: Option<&str>) -> Result<SpoeFile> {
        let current = self.parse(spoe).await?;
        match transaction {
            None => Ok(current),
            Some(id) => self.open.lock().await.get(spoe, id).map(|(_, file)| file.clone()),
        }
    }

    /// Changes a file or a transaction. Returns the version after it; inside a transaction, the one it began with.
    ///
    /// `VERSION_MISMATCH`, `TRANSACTION_NOT_FOUND`, `TRANSACTION_OUTDATED`, `CONFIGURATION_REJECTED` when HAProxy does
    /// not take the file, and whatever `edit` returns. A transaction is checked when it is committed.
    pub async fn change(
        &self,
        spoe: &str,
        target: Target<'_>,
        edit: impl FnOnce(&mut SpoeFile) -> Result<()> + Send,
    ) -> Result<i64> {
        self.folder.writable()?;
        let mut open = self.open.lock().await;
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
                let (transaction, file) = open.usable(spoe, id)?;
                let (version, mut changed) = (transaction.version, file.clone());
                edit(&mut changed)?;
                open.put(spoe, id, changed).await?;
                Ok(version)
            }
        }
    }

    /// Begins a transaction. `VERSION_MISMATCH`, `TRANSACTION_LIMIT`.
    pub async fn begin(&self, spoe: &str, version: i64) -> Result<SpoeTransaction> {
        self.folder.writable()?;
        let mut open = self.open.lock().await;
        let file = self.parse(spoe).await?;
        expect(&file, version)?;
        open.begin(spoe, version, file).await
    }

    /// Transactions of a file, oldest first.
    pub async fn transactions(&self, spoe: &str, status: Option<Status>) -> Result<Vec<SpoeTransaction>> {
        self.parse(spoe).await?;
        let open = self.open.lock().await;
        let of_file = open.list(spoe);
        Ok(of_file.filter(|transaction| status.is_none_or(|status| transaction.status == status)).cloned().collect())
    }

    /// One transaction. `TRANSACTION_NOT_FOUND`.
    pub async fn transaction(&self, spoe: &str, id: &str) -> Result<SpoeTransaction> {
        self.parse(spoe).await?;
        self.open.lock().await.get(spoe, id).map(|(transaction, _)| transaction.clone())
    }

    /// Removes a transaction with its changes. `TRANSACTION_NOT_FOUND`.
    pub async fn end(&self, spoe: &str, id: &str) -> Result<()> {
        self.parse(spoe).await?;
        let mut open = self.open.lock().await;
        open.get(spoe, id)?;
        open.end(id).await
    }

    /// Writes what a transaction made of its file. Returns it, and the version of the file.
    ///
    /// When the file moved on: `VERSION_MISMATCH`, and `TRANSACTION_OUTDATED` ever after. `CONFIGURATION_REJECTED`
    /// when HAProxy does not take the file; the transaction stays open to be mended.
    pub async fn commit(&self, spoe: &str, id: &str) -> Result<(SpoeTransaction, i64)> {
        let mut open = self.open.lock().await;
        let current = self.parse(spoe).await?;
        let (transaction, file) = open.usable(spoe, id)?;
        let (mut done, mut changed) = (transaction.clone(), file.clone());
        if let Err(error) = expect(&current, done.version) {
            open.outdate(id).await?;
            return Err(error);
        }
        let version = done.version + 1;
        changed.set_version(version);
        self.write(spoe, &changed.to_bytes(), false).await?;
        open.end(id).await?;
        done.status = Status::Success;
        Ok((done, version))
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
        if bytes.last().is_some_and(|last| *last != b'\n') {
            // HAProxy refuses a file whose last line has no ending.
            writer.push(b"\n").await?;
        }
        writer.settle().await?;
        self.check.check_file(writer.target(), writer.candidate()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::ports::Pending;

    async fn store() -> (tempfile::TempDir, SpoeStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        store.create("f.cfg", b"[a]\n").await.unwrap();
        (dir, store)
    }

    fn open(dir: &tempfile::TempDir) -> SpoeStore {
        SpoeStore::open(dir.path().join("spoe"), dir.path().join("open"), 2, Arc::new(Refuses("[bad]"))).unwrap()
    }

    /// Refuses files that contain a word.
    struct Refuses(&'static str);

    impl CheckFile for Refuses {
        fn check_file<'a>(&'a self, file: &'a Path, candidate: &'a Path) -> Pending<'a, Result<()>> {
            let bad = std::fs::read_to_string(candidate).unwrap().contains(self.0);
            let refusal = Error::new(Reason::ConfigurationRejected, file.display().to_string());
            Box::pin(std::future::ready(if bad { Err(refusal) } else { Ok(()) }))
        }
    }

    fn add(name: &'static str) -> impl FnOnce(&mut SpoeFile) -> Result<()> + Send {
        move |file| file.add_scope(name)
    }

    async fn text(store: &SpoeStore) -> String {
        text_of(store, "f.cfg").await
    }

    async fn text_of(store: &SpoeStore, name: &str) -> String {
        String::from_utf8(store.read(name).await.unwrap()).unwrap()
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
    async fn versions_have_an_end_and_files_a_line_feed() {
        let (_dir, store) = store().await;
        for words in ["9007199254740992", "9223372036854775807", "99999999999999999999"] {
            let text = format!("# _version={words}\n[a]\n");
            let error = store.create("g.cfg", text.as_bytes()).await.unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue, "{words}");
            // By hand it counts as none.
            std::fs::write(store.folder.file("f.cfg").unwrap(), text).unwrap();
            assert_eq!(store.change("f.cfg", Target::Version(1), add("[b]")).await.unwrap(), 2, "{words}");
            assert_eq!(text_of(&store, "f.cfg").await, "# _version=2\n[a]\n[b]\n");
        }
        store.create("g.cfg", b"[a]").await.unwrap();
        assert_eq!(text_of(&store, "g.cfg").await, "[a]\n");
    }

    #[tokio::test]
    async fn transactions_outlive_the_process() {
        let (dir, first) = store().await;
        let one = first.begin("f.cfg", 1).await.unwrap();
        let two = first.begin("f.cfg", 1).await.unwrap();
        first.change("f.cfg", Target::Transaction(&two.id), add("[two]")).await.unwrap();
        first.change("f.cfg", Target::Version(1), add("[b]")).await.unwrap();
        assert_eq!(first.commit("f.cfg", &one.id).await.unwrap_err().reason(), Reason::VersionMismatch);
        drop(first);

        let second = open(&dir);
        assert_eq!(second.transaction("f.cfg", &one.id).await.unwrap().status, Status::Outdated);
        assert_eq!(second.transaction("f.cfg", &two.id).await.unwrap(), two);
        let view = second.view("f.cfg", Some(&two.id)).await.unwrap();
        assert_eq!(view.scopes().collect::<Vec<_>>(), ["[a]", "[two]"]);
        second.end("f.cfg", &two.id).await.unwrap();
        second.end("f.cfg", &one.id).await.unwrap();
        drop(second);
        assert!(open(&dir).transactions("f.cfg", None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_haproxy_refuses_changes_nothing() {
        let (_dir, store) = store().await;
        let refused = store.change("f.cfg", Target::Version(1), add("[bad]")).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::ConfigurationRejected);
        assert!(refused.message().ends_with("/spoe/f.cfg"), "{refused}");
        let transaction = store.begin("f.cfg", 1).await.unwrap();
        store.change("f.cfg", Target::Transaction(&transaction.id), add("[bad]")).await.unwrap();
        let refused = store.commit("f.cfg", &transaction.id).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::ConfigurationRejected);
        assert_eq!(store.transaction("f.cfg", &transaction.id).await.unwrap().status, Status::InProgress);
        assert_eq!(text(&store).await, "[a]\n");
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
