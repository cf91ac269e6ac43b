//! Folders of stored files: maps, certificates, files for any use.

use std::path::{Path, PathBuf};

use super::folder::{Contents, Folder, KeyReaders, Writer};
use crate::error::{Error, Reason, Result};

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name in the folder.
    pub name: String,
    /// Its absolute path, as the configuration should name it.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Maps,
    Certificates,
    General,
}

impl Content {
    /// What a file is called in messages.
    fn noun(self) -> &'static str {
        match self {
            Content::Maps => "map file",
            Content::Certificates => "certificate",
            Content::General => "file",
        }
    }
}

/// All files of a folder. Cheap to clone.
///
/// A file is found by its very name. Otherwise a name is first cleaned: the text behind the last dot is the extension,
/// and in both parts each run of characters other than letters, digits, `_`, `-` and `\` becomes one `_`; then, in a
/// folder of maps, `.map` is appended unless it is there. So `a.b.map` is stored as `a_b.map`, and a map `m1.txt` as
/// `m1.txt.map`, and each is found by the name it was given and by the name it got.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: Folder,
    content: Content,
}

impl FileStore {
    /// Opens a folder of maps, see [`Folder::open`].
    pub fn maps(path: impl AsRef<Path>) -> Result<Self> {
        Ok(FileStore { folder: Folder::open(path)?, content: Content::Maps })
    }

    /// Opens a folder of certificates, each with its private key.
    pub fn certificates(path: impl AsRef<Path>) -> Result<Self> {
        Ok(FileStore { folder: Folder::open(path)?, content: Content::Certificates })
    }

    /// Opens a folder of files for any use.
    pub fn general(path: impl AsRef<Path>) -> Result<Self> {
        Ok(FileStore { folder: Folder::open(path)?, content: Content::General })
    }

    /// The same files, of which none can be changed if `on`.
    #[must_use]
    pub fn read_only(self, on: bool) -> Self {
        FileStore { folder: self.folder.read_only(on), ..self }
    }

    /// The same files, of which these may read new private keys.
    #[must_use]
    pub fn key_readers(self, readers: KeyReaders) -> Self {
        FileStore { folder: self.folder.key_readers(readers), ..self }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// All files, sorted by name.
    pub async fn list(&self) -> Result<Vec<StoredFile>> {
        let files = self.folder.list().await?;
        Ok(files.into_iter().filter_map(|(name, size)| self.describe(name, size)).collect())
    }

    /// The file with this name. `OBJECT_NOT_FOUND`; `INVALID_VALUE` for a name with a slash or a NUL, or without
    /// anything in front of its extension.
    pub async fn get(&self, name: &str) -> Result<StoredFile> {
        match self.find(name).await? {
            Some(file) => Ok(file),
            None => Err(Error::new(Reason::ObjectNotFound, format!("no {} '{name}'", self.content.noun()))),
        }
    }

    /// Reads a file in pieces.
    pub async fn read(&self, name: &str) -> Result<Contents> {
        self.folder.read(&self.get(name).await?.name).await
    }

    /// Starts a new file of at most `limit` bytes. `OBJECT_EXISTS`. Returns what it will be, without its size.
    pub async fn create(&self, name: &str, limit: u64) -> Result<(StoredFile, Writer)> {
        if let Some(file) = self.find(name).await? {
            let message = format!("{} '{}' exists already", self.content.noun(), file.name);
            return Err(Error::new(Reason::ObjectExists, message));
        }
        let stored = stored_name(self.content, name)?;
        let writer = self.folder.write(&stored, true, limit).await?;
        let file = self.describe(stored, 0).ok_or_else(|| refused(name))?;
        Ok((file, writer))
    }

    /// Starts replacing a file. `OBJECT_NOT_FOUND`.
    pub async fn replace(&self, name: &str, limit: u64) -> Result<Writer> {
        self.folder.write(&self.get(name).await?.name, false, limit).await
    }

    /// Removes a file. `OBJECT_NOT_FOUND`. Whether the configuration still uses it is for the caller to know.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.folder.delete(&self.get(name).await?.name).await
    }

    /// Name of the file at a path that HAProxy reports, if it lies directly in the folder.
    pub fn name_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = Path::new(path);
        let name = path.file_name()?.to_str()?;
        (path.parent()? == self.folder.path()).then_some(name)
    }

    async fn find(&self, name: &str) -> Result<Option<StoredFile>> {
        let stored = stored_name(self.content, name)?;
        for candidate in [name, &stored] {
            if let Some(size) = self.folder.size(candidate).await? {
                return Ok(self.describe(candidate.to_owned(), size));
            }
        }
        Ok(None)
    }

    fn describe(&self, name: String, size: u64) -> Option<StoredFile> {
        let path = self.folder.file(&name)?;
        Some(StoredFile { name, path, size })
    }
}

/// The name under which a file is stored.
fn stored_name(content: Content, name: &str) -> Result<String> {
    if name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(refused(name));
    }
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let (stem, extension) = (clean(stem), clean(extension));
    if stem.is_empty() {
        return Err(refused(name));
    }
    let stored = match (content, extension.as_str()) {
        (Content::Maps, "" | "map") => format!("{stem}.map"),
        (Content::Maps, other) => format!("{stem}.{other}.map"),
        (_, "") => stem,
        (_, other) => format!("{stem}.{other}"),
    };
    if stored.len() > 200 { Err(refused(name)) } else { Ok(stored) }
}

fn clean(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    let mut gap = false;
    for c in part.chars() {
        let kept = c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '\\');
        if kept {
            out.push(c);
        } else if !gap {
            out.push('_');
        }
        gap = !kept;
    }
    out
}

fn refused(name: &str) -> Error {
    let message = format!("name '{name}': expected a file name of at most 200 bytes without a slash");
    Error::new(Reason::InvalidValue, message).with("field", "name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned_as_the_contract_says() {
        for (given, stored) in [
            ("a.map", "a.map"),
            ("a", "a.map"),
            ("a.b.map", "a_b.map"),
            ("m1.txt", "m1.txt.map"),
            ("a b  c.map", "a_b_c.map"),
            ("é.map", "_.map"),
            ("a-b_c\\d.map", "a-b_c\\d.map"),
            ("a.", "a.map"),
        ] {
            assert_eq!(stored_name(Content::Maps, given).unwrap(), stored, "{given}");
        }
        for (given, stored) in
            [("a.pem", "a.pem"), ("a.b.pem", "a_b.pem"), ("a", "a"), ("a.", "a"), ("x y.crt", "x_y.crt")]
        {
            assert_eq!(stored_name(Content::Certificates, given).unwrap(), stored, "{given}");
        }
        for name in ["", ".map", ".", "..", "a/b", "../a", "a\0", &"x".repeat(300)] {
            assert_eq!(stored_name(Content::Maps, name).unwrap_err().reason(), Reason::InvalidValue, "{name}");
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_was_stored_is_found_by_both_names(names in prop::collection::vec("[a. b\\\\mp]{1,6}", 1..6)) {
            let dir = tempfile::tempdir().unwrap();
            runtime().block_on(async {
                let store = FileStore::maps(dir.path()).unwrap();
                for name in names {
                    let before = store.list().await.unwrap().len();
                    match store.create(&name, 10).await {
                        Ok((file, writer)) => {
                            writer.commit().await.unwrap();
                            assert_eq!(store.get(&name).await.unwrap(), file);
                            assert_eq!(store.get(&file.name).await.unwrap(), file);
                            assert_eq!(store.list().await.unwrap().len(), before + 1);
                        }
                        Err(error) if error.reason() == Reason::ObjectExists => drop(store.get(&name).await.unwrap()),
                        Err(error) => assert_eq!(error.reason(), Reason::InvalidValue),
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn a_file_is_created_replaced_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::maps(dir.path().join("maps")).unwrap();
        assert_eq!(store.get("m1.txt").await.unwrap_err().reason(), Reason::ObjectNotFound);
        assert_eq!(store.replace("m1.txt", 9).await.unwrap_err().reason(), Reason::ObjectNotFound);
        let (file, mut writer) = store.create("m1.txt", 9).await.unwrap();
        writer.push(b"a b\n").await.unwrap();
        writer.commit().await.unwrap();
        assert_eq!(file.name, "m1.txt.map");
        assert_eq!(store.name_of(&file.path.display().to_string()), Some("m1.txt.map"));
        assert_eq!(store.name_of("/elsewhere/m1.txt.map"), None);
        assert_eq!(store.create("m1.txt.map", 9).await.unwrap_err().reason(), Reason::ObjectExists);
        let writer = store.replace("m1.txt", 9).await.unwrap();
        writer.commit().await.unwrap();
        assert_eq!(store.get("m1.txt.map").await.unwrap().size, 0);
        assert!(store.read("m1.txt").await.unwrap().next().await.unwrap().is_none());
        store.delete("m1.txt.map").await.unwrap();
        assert_eq!(store.delete("m1.txt").await.unwrap_err().reason(), Reason::ObjectNotFound);
    }
}
