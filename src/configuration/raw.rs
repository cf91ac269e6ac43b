//! The whole text at once: read it, replace it.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::disk;
use super::header::{self, CHECKSUM};
use super::journal::Origin;
use super::options::{ChangeOptions, Outcome, Snapshot};
use super::store::{Configuration, blocking, mismatch};
use super::write::{Over, Write};
use crate::document::Document;
use crate::error::{Error, Reason, Result, Violation};

/// Which text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawSource<'a> {
    /// The configuration.
    Current,
    /// A transaction, by its id.
    Transaction(&'a str),
    /// The backup of a version.
    Backup(i64),
}

/// A text with the lines of `base` where it has what is shown of them, if that is asked for. Of several lines that are shown
/// alike each takes the place of one, in their order.
fn with_bytes<'t>(base: &Document, text: &'t [u8], options: RawOptions) -> Cow<'t, [u8]> {
    let unknown = memchr::memmem::Finder::new("\u{fffd}");
    if !options.keep_bytes || unknown.find(text).is_none() {
        return Cow::Borrowed(text);
    }
    let bytes = base.to_bytes();
    let mut lines: HashMap<Vec<u8>, VecDeque<&[u8]>> = HashMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| std::str::from_utf8(line).is_err()) {
        let shown = String::from_utf8_lossy(line).into_owned().into_bytes();
        lines.entry(shown).or_default().push_back(line);
    }
    let mut kept = |line: &[u8]| {
        let same = lines.get_mut(line).filter(|_| unknown.find(line).is_some())?;
        if same.len() > 1 { same.pop_front() } else { same.front().copied() }
    };
    let lines: Vec<Vec<u8>> =
        text.split(|byte| *byte == b'\n').map(|line| kept(line).unwrap_or(line).to_vec()).collect();
    Cow::Owned(lines.join(&b'\n'))
}

/// A text with what stands in its header lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawText {
    /// Its version; `None` for a backup that has no version line.
    pub version: Option<i64>,
    /// Every byte.
    pub text: Vec<u8>,
    /// Value of its `# _md5hash=` line.
    pub checksum: Option<String>,
    /// Value of its `# _cluster_version=` line.
    pub cluster_version: Option<String>,
}

impl RawText {
    fn of(document: &Document, text: Vec<u8>) -> Self {
        RawText {
            version: document.version(),
            text,
            checksum: document.header(CHECKSUM).map(str::to_owned),
            cluster_version: document.header("_cluster_version").map(str::to_owned),
        }
    }
}

/// How a text is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are the parameters of the call")]
pub struct RawOptions {
    /// The version that is replaced. Needed unless `skip_version` or `only_validate` is set.
    pub version: Option<i64>,
    /// Replace whatever is there, and keep the version that the text itself carries; the present one when it carries
    /// none. Numbering goes on from there.
    pub skip_version: bool,
    /// Do not ask for a reload.
    pub skip_reload: bool,
    /// Reload now and wait for the result.
    pub force_reload: bool,
    /// Only let HAProxy check the text, exactly as given.
    pub only_validate: bool,
    /// Lines that read like a line of the file, but for U+FFFD in the place of bytes that are not UTF-8, are that line: the
    /// caller could not say more.
    pub keep_bytes: bool,
}

/// What holds for every text that a caller gives, also for one that is only checked. Returns the version that it says
/// it has.
fn admit_text(text: &[u8]) -> Result<Option<i64>> {
    if text.is_empty() {
        return Err(Error::invalid(vec![Violation {
            field: "data".to_owned(),
            message: "is required".to_owned(),
            code: 602,
            location: "body",
        }]));
    }
    header::own_version(&Document::parse(text))
}

impl Configuration {
    /// Everything that [`Configuration::replace_raw`] does before it writes.
    pub async fn check_raw(&self, text: &[u8], options: RawOptions) -> Result<()> {
        let base = self.current();
        let text = &*with_bytes(&base.document, text, options);
        self.admit_raw(&base, text, options)?;
        self.check_change(&base, &Document::parse(&header::without_version(text)), true).await.map(drop)
    }

    /// Whether a text may be checked and written. Returns the version that it says it has.
    fn admit_raw(&self, base: &Snapshot, text: &[u8], options: RawOptions) -> Result<Option<i64>> {
        self.shared.settings.writable()?;
        let own = admit_text(text)?;
        match options.version {
            _ if options.skip_version => {}
            Some(version) if version == base.version => {}
            Some(version) => return Err(mismatch(base.version, version)),
            None => {
                let text =
                    "version or transaction not specified: version or transaction not specified, specify only one";
                return Err(Error::new(Reason::TargetMissing, text));
            }
        }
        if !text.contains(&b'\n') {
            return Err(Error::new(Reason::InvalidValue, "invalid configuration: no newline character found"));
        }
        Ok(own)
    }

    /// A text as it stands: the file, a transaction, or a backup (`OBJECT_NOT_FOUND` when there is none).
    pub async fn raw_text(&self, source: RawSource<'_>) -> Result<RawText> {
        match source {
            RawSource::Current => {
                let current = self.current();
                let raw = RawText::of(&current.document, current.document.to_bytes());
                // What stands in a text that someone else wrote is not what it counts as.
                Ok(RawText { version: Some(current.version), ..raw })
            }
            RawSource::Transaction(id) => {
                let view = self.view(Some(id))?;
                let (document, text) = header::stamped(&view.document, view.version, self.shared.settings.header);
                Ok(RawText { version: Some(view.version), ..RawText::of(&document, text) })
            }
            RawSource::Backup(version) => {
                let path = self.shared.settings.backup(version);
                let kept = self.shared.settings.backups_number > 0;
                let text = if kept { blocking(move || disk::read(&path)).await? } else { None };
                let text = text.ok_or_else(|| {
                    let text = format!("missing object: backup file for version {version} does not exist");
                    Error::new(Reason::ObjectNotFound, text)
                })?;
                Ok(RawText::of(&Document::parse(&text), text))
            }
        }
    }

    /// Replaces the whole text. Version lines in it are dropped (unless `skip_version` asks for them), every other
    /// byte is kept. Open transactions are not outdated by it, but cannot be committed on another text.
    ///
    /// With `skip_version`, a text of someone else that was not seen before is kept aside.
    pub async fn replace_raw(&self, text: &[u8], options: RawOptions) -> Result<Outcome> {
        let base = self.current();
        let text = &*with_bytes(&base.document, text, options);
        if options.only_validate {
            // A check runs HAProxy on the text, which is more than a server may let be done that only shows things.
            self.shared.settings.writable()?;
            admit_text(text)?;
            let all = self.check(text, "candidate").await?;
            let warnings = self.brought(&base, &all).await;
            return Ok(Outcome { version: base.version, warnings, ..Outcome::default() });
        }
        let own = self.admit_raw(&base, text, options)?;
        let document = Document::parse(&header::without_version(text));
        let all = self.check_change(&base, &document, true).await?;
        let warnings = self.brought(&base, &all).await;
        let reloading = ChangeOptions {
            force_reload: options.force_reload,
            skip_reload: options.skip_reload,
            ..ChangeOptions::default()
        };
        let write = |over| Write::new(Origin::Raw, document.clone()).reloading(reloading).over(over);
        let writer = self.shared.writer.clone().lock_owned().await;
        let current = self.current();
        let write = if options.skip_version {
            write(Over::Anything).renumbered(own.unwrap_or(current.version))
        } else if Arc::ptr_eq(&current, &base) {
            write(Over::Nothing)
        } else {
            return Err(mismatch(current.version, base.version));
        };
        let outcome = self.write(writer, write, None).await?;
        self.remember(outcome.version, all);
        Ok(Outcome { warnings, ..outcome })
    }
}
