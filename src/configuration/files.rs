//! Files that the configuration names, and what HAProxy would say to other ones in their place.

use std::path::Path;

use super::ports::{CheckFile, Pending};
use super::store::Configuration;
use crate::error::Result;

impl CheckFile for Configuration {
    fn check_file<'a>(&'a self, file: &'a Path, candidate: &'a Path) -> Pending<'a, Result<()>> {
        Box::pin(self.check_with(file, candidate))
    }
}

impl Configuration {
    async fn check_with(&self, file: &Path, candidate: &Path) -> Result<()> {
        let (file, candidate) = (file.display().to_string(), candidate.display().to_string());
        let Some(text) = with_path(&self.current().document.to_bytes(), &file, &candidate) else { return Ok(()) };
        self.check(&text, "candidate").await.map(drop).map_err(|error| {
            let (message, detail) =
                (error.message().replace(&candidate, &file), error.detail_text().map(str::to_owned));
            let error = error.message_replaced(message);
            match detail {
                Some(detail) => error.detail(detail.replace(&candidate, &file)),
                None => error,
            }
        })
    }
}

/// The text with one path in the place of another, wherever it stands whole; `None` where it does not.
fn with_path(text: &[u8], path: &str, other: &str) -> Option<Vec<u8>> {
    // A longer name goes on with one of these.
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    let path = path.as_bytes();
    let mut changed = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while at + path.len() <= text.len() {
        let end = at + path.len();
        let whole = text[at..end] == *path
            && !text.get(end).is_some_and(goes_on)
            && !at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(goes_on);
        if whole {
            changed.extend_from_slice(&text[copied..at]);
            changed.extend_from_slice(other.as_bytes());
            (copied, at) = (end, end);
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return None;
    }
    changed.extend_from_slice(&text[copied..]);
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_paths_are_exchanged() {
        let of =
            |text: &str| with_path(text.as_bytes(), "/e/a.cfg", "/t/x").map(|text| String::from_utf8(text).unwrap());
        assert_eq!(of("config /e/a.cfg"), Some("config /t/x".into()));
        assert_eq!(of("\"/e/a.cfg\" /e/a.cfg\n"), Some("\"/t/x\" /t/x\n".into()));
        assert_eq!(of("-f /e/a.cfg,map_str(/e/a.cfg)"), Some("-f /t/x,map_str(/t/x)".into()));
        for other in ["", "/e/a.cf", "/e/a.cfg2", "/e/a.cfg.bak", "/e/a.cfg-1", "/chroot/e/a.cfg", "/e/a.cfg/b"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
