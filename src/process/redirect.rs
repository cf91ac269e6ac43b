//! Files that HAProxy writes also where it only checks lie in a scratch folder during the check. Pure.
//!
//! The rest of the candidate stays as it is, and what HAProxy says of it is told in the words of the candidate.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use super::report::SECTIONS;
use crate::schema::words;

/// A candidate with its files in the scratch folder.
#[derive(Debug)]
pub struct Redirected<'a> {
    /// The text to be checked.
    pub text: Cow<'a, [u8]>,
    /// Paths of the scratch folder, with the words in whose place they stand.
    moved: Vec<(String, String)>,
    /// Numbers of the lines, in the text to be checked, that the candidate does not have.
    added: Vec<usize>,
}

/// What a keyword names, and what becomes of it.
#[derive(Clone, Copy)]
enum Named {
    /// A file that HAProxy makes or rotates.
    Written,
    /// A key that HAProxy makes where there is none.
    Key,
}

/// Where the words are, and what they mean, of what HAProxy writes.
fn named(section: &str, keyword: &str) -> Option<Named> {
    match (section, keyword) {
        ("ring", "backing-file") | ("global", "shm-stats-file") => Some(Named::Written),
        ("acme", "account-key") => Some(Named::Key),
        _ => None,
    }
}

/// Lets the files that HAProxy would write lie in `scratch`, an absolute path. `exists` tells whether there is something
/// at a path, relative ones seen as HAProxy would.
///
/// A file whose folder is missing stays, so that HAProxy says so itself; a key that is there is only read.
pub fn redirect<'a>(candidate: &'a [u8], scratch: &Path, exists: &dyn Fn(&Path) -> bool) -> Redirected<'a> {
    let mut found = Redirected::unchanged(candidate);
    let says = |word: &str| memchr::memmem::find(candidate, word.as_bytes()).is_some();
    if !says("backing-file") && !says("shm-stats-file") && !says("acme") {
        return found;
    }
    let mut out = Vec::with_capacity(candidate.len() + 256);
    let (mut section, mut number) = ("", 0);
    let keyed = sections_with_key(candidate);
    let mut headers = 0;
    for line in candidate.split_inclusive(|byte| *byte == b'\n') {
        number += 1;
        let split = std::str::from_utf8(line).map(words::split).ok();
        let words = split.as_ref().map(|split| &split.words[..]).unwrap_or_default();
        let first = words.first().and_then(|word| literal(word)).unwrap_or_default();
        if let Some(kind) = SECTIONS.iter().find(|kind| **kind == first) {
            section = kind;
            headers += 1;
        }
        let wanted = match (named(section, &first), words.get(1).copied()) {
            (Some(kind), Some(word)) if is_moved(kind, word, exists) => Some(word),
            _ => None,
        };
        if let (Some(word), Ok(text)) = (wanted, std::str::from_utf8(line)) {
            let place = place_of(text, word);
            out.extend_from_slice(&line[..place.start]);
            out.extend_from_slice(found.place(scratch, word).as_bytes());
            out.extend_from_slice(&line[place.end..]);
        } else {
            out.extend_from_slice(line);
        }
        if section == "acme" && first == "acme" && line.ends_with(b"\n") && !keyed.contains(&headers) {
            let default = words.get(1).and_then(|word| literal(word)).map(|name| format!("{name}.account.key"));
            if let Some(default) = default.filter(|default| !exists(Path::new(default))) {
                number += 1;
                found.added.push(number);
                let line = format!("  account-key {}\n", found.place(scratch, &default));
                out.extend_from_slice(line.as_bytes());
            }
        }
    }
    found.text = Cow::Owned(out);
    found
}

/// Which headers, counted from 1, are those of sections with a line for the key of an account.
fn sections_with_key(candidate: &[u8]) -> Vec<usize> {
    let (mut found, mut headers) = (Vec::new(), 0);
    for line in candidate.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let first = words::split(line).words.first().and_then(|word| literal(word)).unwrap_or_default();
        if SECTIONS.contains(&&*first) {
            headers += 1;
        } else if first == "account-key" {
            found.push(headers);
        }
    }
    found
}

fn is_moved(kind: Named, word: &str, exists: &dyn Fn(&Path) -> bool) -> bool {
    // What stands there depends on variables: HAProxy alone knows it.
    let Some(path) = literal(word) else { return true };
    let path = Path::new(&*path);
    match kind {
        Named::Written => !path.is_absolute() || path.parent().is_none_or(exists),
        Named::Key => !exists(path),
    }
}

impl<'a> Redirected<'a> {
    /// A candidate that is checked as it is.
    pub fn unchanged(candidate: &'a [u8]) -> Self {
        Redirected { text: Cow::Borrowed(candidate), moved: Vec::new(), added: Vec::new() }
    }

    /// A new path in the scratch folder for what stands in the candidate, as a word of the file.
    fn place(&mut self, scratch: &Path, word: &str) -> String {
        let path = scratch.join(format!("written-{}", self.moved.len())).display().to_string();
        let shown = literal(word).map_or_else(|| word.to_owned(), Cow::into_owned);
        self.moved.push((path.clone(), shown));
        format!("'{}'", path.replace('\'', r"'\''"))
    }

    /// What HAProxy printed, in the words of the candidate: with the paths and the numbers of lines that it has.
    /// `file` is what the file is called there.
    pub fn restored(&self, output: &str, file: &str) -> String {
        // The last path first: the first one is the beginning of the tenth.
        let output =
            self.moved.iter().rev().fold(output.to_owned(), |text, (path, word)| text.replace(path.as_str(), word));
        if self.added.is_empty() {
            return output;
        }
        let mark = format!("{file}:");
        let mut pieces = output.split(mark.as_str());
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            text.push_str(&mark);
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = piece.split_at(digits);
            match number.parse::<usize>() {
                Ok(number) => {
                    let added = self.added.iter().filter(|line| **line <= number).count();
                    text.push_str(&(number - added.min(number)).to_string());
                }
                Err(_) => text.push_str(number),
            }
            text.push_str(rest);
        }
        text
    }
}

/// Where a word, which is a part of the text, stands in it.
fn place_of(text: &str, word: &str) -> Range<usize> {
    let start = word.as_ptr().addr() - text.as_ptr().addr();
    start..start + word.len()
}

/// A word without its quotes; nothing when variables or escapes decide what it is.
fn literal(word: &str) -> Option<Cow<'_, str>> {
    if !word.contains(['"', '\'', '\\']) {
        return Some(Cow::Borrowed(word));
    }
    let (mut text, mut quote) = (String::new(), None);
    for c in word.chars() {
        match (quote, c) {
            (None | Some('"'), '\\') | (Some('"'), '$') => return None,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), close) if open == close => quote = None,
            _ => text.push(c),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (String, Redirected<'_>) {
        let found = redirect(text.as_bytes(), Path::new("/s"), &|path| {
            ["/there", "/there/key", "b.account.key"].iter().any(|one| Path::new(one) == path)
        });
        (String::from_utf8(found.text.to_vec()).unwrap(), found)
    }

    #[test]
    fn files_that_are_written_lie_in_the_scratch_folder() {
        let text = "global\n  shm-stats-file /there/s # note\nring a\n\t\"backing-file\"  '/there/a b'\n  size 1\nring b\n  \
                    backing-file \"${X}/b\"\nring c\n backing-file rel\nring d\n backing-file /gone/x\nfrontend f\n  \
                    backing-file /there/x\n";
        let wanted = "global\n  shm-stats-file '/s/written-0' # note\nring a\n\t\"backing-file\"  '/s/written-1'\n  \
                      size 1\nring b\n  backing-file '/s/written-2'\nring c\n backing-file '/s/written-3'\nring d\n \
                      backing-file /gone/x\nfrontend f\n  backing-file /there/x\n";
        let (got, found) = of(text);
        assert_eq!(got, wanted);
        let said = "parsing [F:4] : '/s/written-1' and /s/written-2";
        assert_eq!(found.restored(said, "F"), "parsing [F:4] : '/there/a b' and \"${X}/b\"");
    }

    #[test]
    fn keys_that_would_be_made_lie_there_too() {
        let text = "acme a\n  directory x\nacme b\n  directory x\nacme c\n  account-key /there/key\nacme d\n  \
                    account-key new\nfrontend f\n";
        let wanted = "acme a\n  account-key '/s/written-0'\n  directory x\nacme b\n  directory x\nacme c\n  \
                      account-key /there/key\nacme d\n  account-key '/s/written-1'\nfrontend f\n";
        let (got, found) = of(text);
        assert_eq!(got, wanted);
        for (said, shown) in [
            ("[F:1] x", "[F:1] x"),
            ("[F:2] /s/written-0", "[F:1] a.account.key"),
            ("[F:3] (F:10) F:x F", "[F:2] (F:9) F:x F"),
        ] {
            assert_eq!(found.restored(said, "F"), shown);
        }
    }

    #[test]
    fn other_candidates_stay_as_they_are() {
        for text in ["", "global\n", "frontend acme\n bind x\n", "ring r\n  backing-file\n", "acme\n", "acme x"] {
            let (got, found) = of(text);
            assert_eq!(got, text);
            assert!(found.moved.is_empty() && found.added.is_empty());
        }
        let bytes = b"ring \xff\n  # backing-file\n  backing-file \xff\n";
        assert_eq!(&*redirect(bytes, Path::new("/s"), &|_| true).text, bytes);
    }

    #[test]
    fn many_files_are_told_apart() {
        let text: Vec<String> = (0..12).map(|n| format!("ring r{n}\n  backing-file f{n}\n")).collect();
        let text = text.concat();
        let (_, found) = of(&text);
        assert_eq!(found.restored("/s/written-11 /s/written-1", "F"), "f11 f1");
    }
}
