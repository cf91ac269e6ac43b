//! Texts that are taken out of use without their author knowing: numbered, the last ones kept.

use std::path::PathBuf;

use super::disk::{self, Steps};
use super::options::StoreSettings;
use crate::error::{Error, Result};

/// How many are kept.
const KEPT: usize = 20;

/// Keeps a text as `<what>-<number>.cfg` in the folder `aside` of the state folder. Blocks.
pub(super) fn keep(settings: &StoreSettings, what: &str, text: &[u8]) -> Result<PathBuf> {
    let folder = settings.aside();
    disk::create_folder(&folder)?;
    let entries =
        std::fs::read_dir(&folder).map_err(|error| Error::internal(format!("{}: {error}", folder.display())))?;
    let mut kept: Vec<(u64, PathBuf)> = entries.flatten().filter_map(|entry| numbered(entry.path())).collect();
    kept.sort();
    let number = kept.last().map_or(1, |(number, _)| number + 1);
    let path = folder.join(format!("{what}-{number}.cfg"));
    disk::replace(&path, text, 0o600, &Steps::NONE)?;
    let old = (kept.len() + 1).saturating_sub(KEPT);
    for (_, path) in kept.iter().take(old) {
        disk::remove(path)?;
    }
    Ok(path)
}

fn numbered(path: PathBuf) -> Option<(u64, PathBuf)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".cfg")?;
    let number = name.rsplit_once('-')?.1.parse().ok()?;
    Some((number, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbered_and_the_last_twenty_kept() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings::new(folder.path().join("haproxy.cfg"), folder.path().join("state"));
        for number in 1..=25 {
            let what = if number % 2 == 0 { "refused" } else { "overwritten" };
            let path = keep(&settings, what, number.to_string().as_bytes()).unwrap();
            assert!(path.ends_with(format!("{what}-{number}.cfg")));
        }
        let left = std::fs::read_dir(settings.aside()).unwrap().count();
        assert_eq!(left, 20);
        assert_eq!(std::fs::read_to_string(settings.aside().join("refused-6.cfg")).unwrap(), "6");
    }
}
