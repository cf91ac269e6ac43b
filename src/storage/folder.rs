//! A folder of files that are read in pieces and replaced as a whole.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::beneath;
use crate::error::{Error, Reason, Result};

/// Files that are being written. No stored file may look like that.
const TEMPORARY: &str = ".backstay-";
/// A whole file, while its text is written into one of the name behind this that cannot be exchanged.
const WHOLE: &str = ".backstay-whole-";
const CHUNK: usize = 64 * 1024;

/// What the text of a private key holds, of whatever kind and form.
const KEY: &[u8] = b"PRIVATE KEY-----";
/// Modes of new files: for everybody to read; for us alone; for us and a group.
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;
const SHARED: u32 = 0o640;

/// Says as which group HAProxy reads private keys, if not as root or as our own user. Asked for each new key.
#[derive(Clone)]
pub struct KeyReaders(Arc<dyn Fn() -> Option<u32> + Send + Sync>);

impl KeyReaders {
    /// Asks this function, which may block.
    pub fn new(group: impl Fn() -> Option<u32> + Send + Sync + 'static) -> Self {
        KeyReaders(Arc::new(group))
    }
}

impl fmt::Debug for KeyReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyReaders")
    }
}

/// A folder that this process alone writes to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Every change is refused.
    read_only: bool,
    readers: Option<KeyReaders>,
    /// Held from the last look at the target to the rename.
    commits: Mutex<()>,
    counter: AtomicU64,
}

impl Folder {
    /// Opens a folder, creating it with mode 0750 if it is absent, and removes what an earlier process left half
    /// written. Blocks; for the start of the program.
    ///
    /// `INTERNAL` with the path when it cannot be created or is no folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error: io::Error| {
            let message = format!("folder {}: {error}", path.display());
            Error::new(Reason::Internal, message)
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(failed)?;
        // Links on the way are resolved once, so that paths compare with those of the configuration as written there.
        let path = std::path::absolute(path).map_err(failed)?;
        for entry in std::fs::read_dir(&path).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(TEMPORARY) {
                continue;
            }
            let finished = match name.strip_prefix(WHOLE).map(|name| path.join(name)) {
                Some(target) if target.is_file() => write_in_place(&entry.path(), &target),
                _ => Ok(()),
            };
            if let Err(error) = finished.and_then(|()| std::fs::remove_file(entry.path())) {
                tracing::warn!(path = %entry.path().display(), %error, "what an earlier run left behind stays");
            }
        }
        Ok(Folder::new(path, false, None))
    }

    fn new(path: PathBuf, read_only: bool, readers: Option<KeyReaders>) -> Self {
        let (commits, counter) = (Mutex::new(()), AtomicU64::new(0));
        Folder { inner: Arc::new(Inner { path, read_only, readers, commits, counter }) }
    }

    /// The same folder, in which nothing can be changed if `on`.
    #[must_use]
    pub fn read_only(self, on: bool) -> Self {
        Folder::new(self.inner.path.clone(), on, self.inner.readers.clone())
    }

    /// The same folder, in which these may read new private keys.
    #[must_use]
    pub fn key_readers(self, readers: KeyReaders) -> Self {
        Folder::new(self.inner.path.clone(), self.inner.read_only, Some(readers))
    }

    /// Fails with `UNSUPPORTED` when nothing can be changed.
    pub fn writable(&self) -> Result<()> {
        if self.inner.read_only {
            let text = format!("{} is read-only: the server was started with read-only", self.path().display());
            return Err(Error::new(Reason::Unsupported, text).with("setting", "read_only"));
        }
        Ok(())
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Names and sizes of the regular files in it, sorted; hidden ones are left out, and links that lead out of it.
    pub async fn list(&self) -> Result<Vec<(String, u64)>> {
        let path = self.path().to_owned();
        let listed = blocking(move || {
            let mut files = Vec::new();
            for entry in std::fs::read_dir(&path)? {
                let Ok(name) = entry?.file_name().into_string() else { continue };
                if name.starts_with('.') {
                    continue;
                }
                // A file may be gone by now.
                if let Ok(Some(stat)) = beneath::stat(&path, &name) {
                    files.push((name, u64::try_from(stat.st_size).unwrap_or_default()));
                }
            }
            files.sort_unstable();
            Ok(files)
        });
        listed.await.map_err(|error| self.failed(self.path(), &error))
    }

    /// Path of a name in the folder; nothing for names that are no single, visible path component.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let safe = !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0']);
        safe.then(|| self.path().join(name))
    }

    /// Size of a regular file, if there is one of that name.
    pub async fn size(&self, name: &str) -> Result<Option<u64>> {
        let found = self.look(name, beneath::stat).await?;
        Ok(found.map(|stat| u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// Reads a file in pieces. `OBJECT_NOT_FOUND`.
    pub async fn read(&self, name: &str) -> Result<Contents> {
        let (file, path) = (self.open_file(name).await?, self.path().join(name));
        Ok(Contents { file: file.ok_or_else(|| no_file(name))?, path, _temporary: None })
    }

    /// Opens a file to read it, if there is one of that name.
    pub(super) async fn open_file(&self, name: &str) -> Result<Option<File>> {
        Ok(self.look(name, beneath::open).await?.map(File::from_std))
    }

    async fn look<T: Send + 'static>(
        &self,
        name: &str,
        look: fn(&Path, &str) -> io::Result<Option<T>>,
    ) -> Result<Option<T>> {
        let Some(path) = self.file(name) else { return Ok(None) };
        let (folder, name) = (self.path().to_owned(), name.to_owned());
        blocking(move || look(&folder, &name)).await.map_err(|error| self.failed(&path, &error))
    }

    /// Starts writing a file, which takes its place with [`Writer::commit`]. `INVALID_VALUE` for an unusable name.
    ///
    /// With `create`, committing fails with `OBJECT_EXISTS` if there is such a file. More than `limit` bytes are refused
    /// with `TOO_LARGE`.
    pub async fn write(&self, name: &str, create: bool, limit: u64) -> Result<Writer> {
        self.writable()?;
        let target = self.file(name).ok_or_else(|| {
            let message = format!("name '{name}': expected a plain file name of at most 200 bytes");
            Error::new(Reason::InvalidValue, message).with("field", "name")
        })?;
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.path().join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(PRIVATE).open(&path).await;
        let file = file.map_err(|error| self.failed(&path, &error))?;
        Ok(Writer {
            folder: self.clone(),
            file,
            temporary: Temporary(path),
            target,
            name: name.to_owned(),
            create,
            left: limit,
            limit,
            is_key: false,
            tail: Vec::new(),
        })
    }

    /// Removes a file. `OBJECT_NOT_FOUND`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.writable()?;
        let path = self.file(name).ok_or_else(|| no_file(name))?;
        let _alone = self.inner.commits.lock().await;
        match tokio::fs::remove_file(&path).await {
            Ok(()) => self.flush().await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_file(name)),
            Err(error) => Err(Error::of_file("remove", &path, &error)),
        }
    }

    /// Makes renames and removals durable.
    async fn flush(&self) -> Result<()> {
        let failed = |error: io::Error| self.failed(self.path(), &error);
        File::open(self.path()).await.map_err(failed)?.sync_all().await.map_err(failed)
    }

    #[allow(clippy::unused_self, reason = "all errors of the folder are made here")]
    fn failed(&self, path: &Path, error: &io::Error) -> Error {
        Error::of_file("use", path, error)
    }
}

/// Writes the text of one file into another. Blocks.
fn write_in_place(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = std::fs::File::open(from)?;
    // What is mounted is no link, and a link would lead elsewhere.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut target = std::fs::OpenOptions::new().write(true).custom_flags(no_link).open(to)?;
    let size = source.metadata()?.len();
    // Where there is no room, the old text stays.
    if let Err(error @ (Errno::NOSPC | Errno::DQUOT)) = fallocate(&target, FallocateFlags::KEEP_SIZE, 0, size) {
        return Err(error.into());
    }
    let length = io::copy(&mut source, &mut target)?;
    target.set_len(length)?;
    target.sync_all()
}

/// Runs work that blocks beside the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn no_file(name: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("no file '{name}'"))
}

/// A file that is being read.
#[derive(Debug)]
pub struct Contents {
    file: File,
    path: PathBuf,
    /// A file that is removed once it has been read.
    _temporary: Option<Temporary>,
}

impl Contents {
    /// The next bytes, 64 KiB at most; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let read = self.file.read_buf(&mut buffer).await;
        let read = read.map_err(|error| Error::of_file("read", &self.path, &error))?;
        Ok((read > 0).then(|| buffer.freeze()))
    }

    /// Begins at the beginning again.
    pub async fn rewind(&mut self) -> Result<()> {
        self.file.rewind().await.map(drop).map_err(|error| Error::of_file("read", &self.path, &error))
    }
}

/// Removes the file when it is dropped: after a commit there is none of that name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a temporary file could not be removed");
        }
    }
}

/// A file that is being written. Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    folder: Folder,
    file: File,
    temporary: Temporary,
    target: PathBuf,
    name: String,
    create: bool,
    left: u64,
    limit: u64,
    /// A private key has been pushed.
    is_key: bool,
    /// The last bytes, in which a key may have begun.
    tail: Vec<u8>,
}

impl Writer {
    /// Appends bytes. `TOO_LARGE` beyond the limit.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let message = format!("file '{}': larger than {} bytes", self.name, self.limit);
            Error::new(Reason::TooLarge, message).with("limit", self.limit)
        })?;
        self.look_for_key(bytes);
        self.file.write_all(bytes).await.map_err(|error| self.failed(&error))
    }

    fn look_for_key(&mut self, bytes: &[u8]) {
        let find = |text: &[u8]| memchr::memmem::find(text, KEY).is_some();
        // What is cut in two stands in the end of the one and the beginning of the other.
        self.tail.extend_from_slice(bytes.get(..KEY.len()).unwrap_or(bytes));
        self.is_key = self.is_key || find(&self.tail) || find(bytes);
        let kept = if bytes.len() > KEY.len() { bytes } else { &self.tail };
        self.tail = kept[kept.len().saturating_sub(KEY.len())..].to_vec();
    }

    /// Where the bytes lie until the file takes its place. They are all there after [`Writer::settle`].
    pub fn candidate(&self) -> &Path {
        &self.temporary.0
    }

    /// The place that the file is to take.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Lets others read what has been pushed so far.
    pub async fn settle(&mut self) -> Result<()> {
        self.file.flush().await.map_err(|error| self.failed(&error))
    }

    /// Reads what has been pushed. It takes no place, and is removed with its reader.
    pub async fn read_back(mut self) -> Result<Contents> {
        self.settle().await?;
        let file = File::open(&self.temporary.0).await.map_err(|error| self.failed(&error))?;
        Ok(Contents { file, path: self.temporary.0.clone(), _temporary: Some(self.temporary) })
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.limit - self.left
    }

    /// Puts the file in its place, durably. Returns its size.
    ///
    /// Mode and owner of a file that is replaced stay. A new one has mode 0644; with a private key in it 0600, or 0640
    /// with the group of those who may read it.
    pub async fn commit(mut self) -> Result<u64> {
        self.file.flush().await.map_err(|error| self.failed(&error))?;
        let held = self.folder.clone();
        let _alone = held.inner.commits.lock().await;
        if self.create && tokio::fs::symlink_metadata(&self.target).await.is_ok() {
            return Err(Error::new(Reason::ObjectExists, format!("file '{}' exists already", self.name)));
        }
        let file = self.file.try_clone().await.map_err(|error| self.failed(&error))?.into_std().await;
        let readers = self.folder.inner.readers.clone().filter(|_| self.is_key);
        let (folder, name, is_key) = (self.folder.path().to_owned(), self.name.clone(), self.is_key);
        let ready = blocking(move || {
            let mode = match beneath::stat(&folder, &name)? {
                Some(old) => {
                    if let Err(error) = fchown(&file, Some(old.st_uid), Some(old.st_gid)) {
                        // Only root may give files away; the file then belongs to us, as with any editor.
                        tracing::debug!(name, %error, "cannot keep the owner of the file");
                    }
                    old.st_mode & 0o7777
                }
                None if !is_key => PUBLIC,
                None => match readers.and_then(|readers| (readers.0)()) {
                    Some(group) if fchown(&file, None, Some(group)).is_ok() => SHARED,
                    _ => PRIVATE,
                },
            };
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        });
        ready.await.map_err(|error| self.failed(&error))?;
        match tokio::fs::rename(&self.temporary.0, &self.target).await {
            // A single file that is mounted there cannot be exchanged.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.overwrite().await?,
            renamed => renamed.map_err(|error| self.failed(&error))?,
        }
        self.folder.flush().await?;
        Ok(self.size())
    }

    /// Writes the text into the target, so that a kill meanwhile is made good by the next start.
    async fn overwrite(&mut self) -> Result<()> {
        let whole = self.folder.path().join(format!("{WHOLE}{}", self.name));
        let moved = tokio::fs::rename(&self.temporary.0, &whole).await;
        moved.map_err(|error| self.failed(&error))?;
        self.temporary = Temporary(whole.clone());
        self.folder.flush().await?;
        let target = self.target.clone();
        let written = tokio::task::spawn_blocking(move || write_in_place(&whole, &target)).await;
        written.map_err(Error::internal)?.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::of_file("write", &self.target, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn content(folder: &Folder, name: &str) -> Result<Vec<u8>> {
        let mut contents = folder.read(name).await?;
        let mut all = Vec::new();
        while let Some(bytes) = contents.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("a/b")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o750);

        let mut writer = folder.write("x", true, 10).await.unwrap();
        writer.push(b"12345").await.unwrap();
        assert!(folder.list().await.unwrap().is_empty());
        assert_eq!(writer.commit().await.unwrap(), 5);
        assert_eq!(mode(&folder.file("x").unwrap()), 0o644);
        assert_eq!(content(&folder, "x").await.unwrap(), b"12345");

        let mut writer = folder.write("x", false, 10).await.unwrap();
        assert_eq!(writer.push(&[0; 11]).await.unwrap_err().reason(), Reason::TooLarge);
        drop(writer);
        let writer = folder.write("x", true, 10).await.unwrap();
        assert_eq!(writer.commit().await.unwrap_err().reason(), Reason::ObjectExists);
        assert_eq!(content(&folder, "x").await.unwrap(), b"12345");
        let mut writer = folder.write("x", false, 10).await.unwrap();
        writer.push(b"new").await.unwrap();
        writer.commit().await.unwrap();
        assert_eq!(folder.list().await.unwrap(), [("x".to_owned(), 3)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");

        folder.delete("x").await.unwrap();
        assert_eq!(folder.delete("x").await.unwrap_err().reason(), Reason::ObjectNotFound);
        assert_eq!(content(&folder, "x").await.unwrap_err().reason(), Reason::ObjectNotFound);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_exchanged_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("maps")).unwrap();
        let (outside, mounted) = (dir.path().join("outside"), folder.file("m").unwrap());
        std::fs::write(&outside, "long long text\n").unwrap();
        std::fs::write(&mounted, "").unwrap();
        let mount = std::process::Command::new("mount").arg("--bind").args([&outside, &mounted]).output();
        #[allow(clippy::print_stderr, reason = "a test that does not run says why")]
        if !mount.as_ref().is_ok_and(|done| done.status.success()) {
            eprintln!("skipped, nothing can be mounted: {mount:?}");
            return;
        }
        let written = async {
            let mut writer = folder.write("m", false, 100).await?;
            writer.push(b"short\n").await?;
            writer.commit().await
        };
        let written = written.await;
        let deleted = folder.delete("m").await;
        drop(std::process::Command::new("umount").arg("-l").arg(&mounted).status());
        assert_eq!(written.unwrap(), 6);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "short\n");
        assert!(deleted.unwrap_err().message().contains("a file system is mounted there"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");

        // Cut off by a kill: the next start ends it.
        std::fs::write(&mounted, "shxx").unwrap();
        std::fs::write(folder.path().join(".backstay-whole-m"), "short\n").unwrap();
        std::fs::write(folder.path().join(".backstay-whole-gone"), "x").unwrap();
        Folder::open(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&mounted).unwrap(), "short\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn private_keys_are_private_and_modes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let facts = |name: &str| {
            use std::os::unix::fs::MetadataExt as _;
            let facts = std::fs::metadata(dir.path().join(name)).unwrap();
            (facts.mode() & 0o7777, facts.gid())
        };
        let put = async |folder: &Folder, name: &str, pieces: &[&str]| {
            let mut writer = folder.write(name, false, 1000).await.unwrap();
            for piece in pieces {
                writer.push(piece.as_bytes()).await.unwrap();
            }
            writer.commit().await.unwrap();
        };
        let (key, group) = ("-----BEGIN EC PRIVATE KEY-----\n", rustix::process::getegid().as_raw());
        put(&folder, "public", &["-----BEGIN PUBLIC KEY-----\n"]).await;
        put(&folder, "whole", &["x", key]).await;
        let letters: Vec<String> = key.chars().map(String::from).collect();
        put(&folder, "letters", &letters.iter().map(String::as_str).collect::<Vec<_>>()).await;
        put(&folder, "cut", &[&key[..20], &key[20..]]).await;
        assert_eq!(["public", "whole", "letters", "cut"].map(|name| facts(name).0), [0o644, 0o600, 0o600, 0o600]);
        put(&folder.clone().key_readers(KeyReaders::new(move || Some(group))), "group", &[key]).await;
        assert_eq!(facts("group"), (0o640, group));
        for mode in [0o644, 0o604, 0o400] {
            std::fs::set_permissions(dir.path().join("whole"), Permissions::from_mode(mode)).unwrap();
            put(&folder, "whole", &[key]).await;
            assert_eq!(facts("whole").0, mode);
        }
    }

    #[tokio::test]
    async fn a_link_that_leads_out_is_no_file_and_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let folder = Folder::open(dir.path().join("maps")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.path().join("link")).unwrap();
        assert_eq!((folder.list().await.unwrap(), folder.size("link").await.unwrap()), (vec![], None));
        assert_eq!(content(&folder, "link").await.unwrap_err().reason(), Reason::ObjectNotFound);
        let writer = folder.write("link", true, 9).await.unwrap();
        assert_eq!(writer.commit().await.unwrap_err().reason(), Reason::ObjectExists);
        folder.write("link", false, 9).await.unwrap().commit().await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"s");
        assert_eq!(folder.size("link").await.unwrap(), Some(0));
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_can_be_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let folder = Folder::open(dir.path().join("maps")).unwrap();
        std::fs::write(folder.path().join(".backstay-1-1"), "half").unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "half-written files are removed");
        for name in ["", ".", "..", "../secret", "a/b", "/etc/passwd", ".hidden", "a\0b", &"x".repeat(201)] {
            assert_eq!(content(&folder, name).await.unwrap_err().reason(), Reason::ObjectNotFound, "{name}");
            assert_eq!(folder.write(name, true, 1).await.unwrap_err().reason(), Reason::InvalidValue, "{name}");
            assert_eq!(folder.delete(name).await.unwrap_err().reason(), Reason::ObjectNotFound, "{name}");
        }
    }
}
