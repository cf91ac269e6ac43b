//! Files of a folder by their names. Links are followed as long as they do not lead out of the folder.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// How often a name is looked up anew because something above it was renamed meanwhile.
const TRIES: usize = 8;

/// Opens a regular file to read it. `None` when there is none of that name in the folder.
pub(super) fn open(folder: &Path, name: &str) -> io::Result<Option<File>> {
    // Neither waits for the other end of a pipe, nor takes a terminal.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Some(found) = resolve(folder, name, flags)? else { return Ok(None) };
    Ok(is_regular(&rustix::fs::fstat(&found)?).then(|| File::from(found)))
}

/// Facts of a regular file, which need not be readable. `None` when there is none of that name in the folder.
pub(super) fn stat(folder: &Path, name: &str) -> io::Result<Option<Stat>> {
    let Some(found) = resolve(folder, name, OFlags::PATH)? else { return Ok(None) };
    Ok(Some(rustix::fs::fstat(&found)?).filter(is_regular))
}

fn is_regular(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
}

fn resolve(folder: &Path, name: &str, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let above = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = flags | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut found = rustix::fs::openat2(&above, name, flags, Mode::empty(), within);
    for _ in 1..TRIES {
        if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
        found = rustix::fs::openat2(&above, name, flags, Mode::empty(), within);
    }
    if matches!(found, Err(Errno::NOSYS | Errno::PERM)) {
        // A kernel or a container without this call: then no link is followed.
        found = rustix::fs::openat(&above, name, flags | OFlags::NOFOLLOW, Mode::empty());
    }
    match found {
        Ok(found) => Ok(Some(found)),
        // Out of the folder, round in circles, or a socket.
        Err(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_to_files_of_the_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("maps");
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        for file in ["secret", "maps/plain", "maps/..data/deep"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        symlink("plain", folder.join("near")).unwrap();
        symlink("..data/deep", folder.join("down")).unwrap();
        symlink("../secret", folder.join("up")).unwrap();
        symlink("../maps/plain", folder.join("round")).unwrap();
        symlink(dir.path().join("secret"), folder.join("far")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        symlink("/proc/self/cwd/Cargo.toml", folder.join("magic")).unwrap();
        symlink("absent", folder.join("broken")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), Mode::RWXU).unwrap();
        for (name, text) in [("plain", "maps/plain"), ("near", "maps/plain"), ("down", "maps/..data/deep")] {
            let mut read = String::new();
            open(&folder, name).unwrap().unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
            assert_eq!(usize::try_from(stat(&folder, name).unwrap().unwrap().st_size).unwrap(), text.len());
        }
        for name in ["up", "round", "far", "loop", "magic", "broken", "pipe", "..data", "absent"] {
            assert!(open(&folder, name).unwrap().is_none(), "{name}");
            assert!(stat(&folder, name).unwrap().is_none(), "{name}");
        }
    }
}
