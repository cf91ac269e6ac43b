//! Runs on as another user, with the folders that it writes.

use std::os::unix::fs::chown;
use std::path::Path;

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use crate::error::{Error, Reason, Result};
use crate::settings::Settings;

/// Makes folders and single files belong to the user of the settings, and becomes that user. All threads do.
pub(super) fn change(settings: &Settings, folders: &[&Path], files: &[&Path]) -> Result<()> {
    let (uid, gid) = (settings.uid, settings.gid);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    for folder in folders {
        give(folder, uid, gid);
    }
    for file in files {
        own(file, uid, gid);
    }
    let refused = |what: &str, error| Error::new(Reason::InvalidValue, format!("{what}: cannot change to it: {error}"));
    if let Some(gid) = gid.map(Gid::from_raw).filter(|gid| *gid != Gid::effective()) {
        setgroups(&[gid]).map_err(|error| refused("gid", error))?;
        setgid(gid).map_err(|error| refused("gid", error))?;
    }
    if let Some(uid) = uid.map(Uid::from_raw).filter(|uid| *uid != Uid::effective()) {
        setuid(uid).map_err(|error| refused("uid", error))?;
    }
    Ok(())
}

/// A folder of ours with all that is in it.
fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) {
    own(path, uid, gid);
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let kind = entry.file_type();
        if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
            give(&entry.path(), uid, gid);
        } else if kind.is_ok_and(|kind| kind.is_file()) {
            own(&entry.path(), uid, gid);
        }
    }
}

fn own(path: &Path, uid: Option<u32>, gid: Option<u32>) {
    if let Err(error) = chown(path, uid, gid) {
        tracing::debug!(path = %path.display(), %error, "owner not changed");
    }
}
