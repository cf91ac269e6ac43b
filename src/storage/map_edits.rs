//! Changes of the entries of a map that its file does not have yet.

use std::collections::HashMap;

/// One change of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapEdit {
    /// The entries with this key have this value; `None`: there are none.
    Entry(String, Option<String>),
    /// There is an entry with this key and this value, behind all others.
    Line(String, String),
    /// There are no entries.
    Cleared,
}

/// Changes of a map, the last one of each key. Their numbers only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MapEdits {
    /// Number of the last clear: entries of before do not count.
    cleared: Option<usize>,
    entries: HashMap<Vec<u8>, Latest>,
    /// Entries that stand beside others with their key, by key.
    lines: HashMap<Vec<u8>, Vec<Line>>,
    count: usize,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Latest {
    value: Option<Vec<u8>>,
    /// Number of the edit.
    number: usize,
    /// Number of the edit that added it, so that new entries reach the file in the order in which they were made.
    place: usize,
    /// It was deleted and added again, so it stands behind all that were there.
    anew: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    value: Vec<u8>,
    /// Number of the edit.
    number: usize,
}

impl MapEdits {
    pub(super) fn is_empty(&self) -> bool {
        self.cleared.is_none() && self.entries.is_empty() && self.lines.is_empty()
    }

    pub(super) fn push(&mut self, edit: MapEdit) {
        let number = self.count + 1;
        match edit {
            MapEdit::Entry(key, value) => {
                let value = value.map(String::into_bytes);
                self.set(key.into_bytes(), Latest { value, number, place: number, anew: false });
            }
            MapEdit::Line(key, value) => {
                self.lines.entry(key.into_bytes()).or_default().push(Line { value: value.into_bytes(), number });
            }
            MapEdit::Cleared => self.clear(number),
        }
        self.count = number;
    }

    fn clear(&mut self, number: usize) {
        self.entries.clear();
        self.lines.clear();
        self.cleared = Some(number);
    }

    fn set(&mut self, key: Vec<u8>, mut latest: Latest) {
        // All lines with the key have the value now.
        let added = self.lines.remove(&key).and_then(|lines| lines.first().map(|line| line.number));
        if latest.value.is_some() && !latest.anew {
            let known = self.entries.get(&key);
            let there = known.filter(|known| known.value.is_some());
            latest.anew = there.map_or(known.is_some() || self.cleared.is_some(), |known| known.anew);
            latest.place = there.map(|known| known.place).or(added).unwrap_or(latest.place);
        }
        self.entries.insert(key, latest);
    }

    /// Adds edits that were made after these.
    pub(super) fn append(&mut self, later: &MapEdits) {
        if let Some(number) = later.cleared {
            self.clear(self.count + number);
        }
        for (key, latest) in &later.entries {
            let (number, place) = (self.count + latest.number, self.count + latest.place);
            self.set(key.clone(), Latest { number, place, ..latest.clone() });
        }
        for (key, lines) in &later.lines {
            let shifted = lines.iter().map(|line| Line { number: self.count + line.number, ..line.clone() });
            self.lines.entry(key.clone()).or_default().extend(shifted);
        }
        self.count += later.count;
    }

    /// All of them in order, with nothing that a later one undid.
    pub(super) fn all(&self) -> Vec<MapEdit> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let gone = self.entries.iter().filter(|(_, latest)| latest.value.is_none());
        let gone = gone.map(|(key, _)| MapEdit::Entry(text(key), None));
        let made = self.made().into_iter().map(|made| {
            let (key, value) = (text(made.key), text(made.value));
            if made.beside { MapEdit::Line(key, value) } else { MapEdit::Entry(key, Some(value)) }
        });
        self.cleared.map(|_| MapEdit::Cleared).into_iter().chain(gone).chain(made).collect()
    }

    /// Whether an edit names the key.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key) || self.lines.contains_key(key)
    }

    /// Number of the last edit.
    pub(super) fn last(&self) -> usize {
        self.count
    }

    /// Forgets edits up to this number: the file has them.
    pub(super) fn forget(&mut self, last: usize) {
        self.entries.retain(|_, latest| latest.number > last);
        self.lines.retain(|_, lines| {
            lines.retain(|line| line.number > last);
            !lines.is_empty()
        });
        self.cleared.take_if(|number| *number <= last);
    }

    /// Forgets edits of a key.
    pub(super) fn forget_key(&mut self, key: &[u8]) {
        self.entries.remove(key);
        self.lines.remove(key);
    }

    /// The value of an entry that HAProxy runs with, or the file has, under the edits; `None` if it is gone.
    pub(super) fn value<'a>(&'a self, key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
        if self.lines.get(key).is_some_and(|lines| lines.iter().any(|line| line.value == value)) {
            return Some(value);
        }
        match self.entries.get(key) {
            Some(latest) => latest.value.as_deref(),
            None => self.cleared.is_none().then_some(value),
        }
    }

    /// Whether entries with this key that were there before are gone, even if there are new ones.
    pub(super) fn is_anew(&self, key: &[u8]) -> bool {
        self.cleared.is_some() || self.entries.get(key).is_some_and(|latest| latest.anew || latest.value.is_none())
    }

    /// Entries that there are, in the order in which they were made.
    pub(super) fn made(&self) -> Vec<Made<'_>> {
        let entries = self.entries.iter().filter_map(|(key, latest)| {
            let value = latest.value.as_deref()?;
            Some((latest.place, Made { key, value, beside: false }))
        });
        let lines = self.lines.iter().flat_map(|(key, lines)| {
            lines.iter().map(|line| (line.number, Made { key, value: &line.value, beside: true }))
        });
        let mut made: Vec<_> = entries.chain(lines).collect();
        made.sort_unstable_by_key(|(place, _)| *place);
        made.into_iter().map(|(_, made)| made).collect()
    }
}

/// An entry that edits made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// It stands beside others with its key.
    pub(super) beside: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(all: &[(&str, Option<&str>)]) -> MapEdits {
        let mut edits = MapEdits::default();
        for (key, value) in all {
            edits.push(match *key {
                "clear" => MapEdit::Cleared,
                key if key.starts_with('+') => MapEdit::Line(key[1..].to_owned(), value.unwrap().to_owned()),
                key => MapEdit::Entry(key.to_owned(), value.map(str::to_owned)),
            });
        }
        edits
    }

    fn made(edits: &MapEdits) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        edits.made().iter().map(|made| format!("{} {}", text(made.key), text(made.value))).collect()
    }

    #[test]
    fn lines_stand_beside_others_until_their_key_is_set() {
        let mut all = edits(&[("+a", Some("2")), ("+a", Some("1")), ("b", Some("1")), ("+b", Some("2"))]);
        assert_eq!(made(&all), ["a 2", "a 1", "b 1", "b 2"]);
        assert_eq!((all.value(b"a", b"old"), all.value(b"b", b"old")), (Some(&b"old"[..]), Some(&b"1"[..])));
        all.append(&edits(&[("b", Some("3")), ("a", None)]));
        assert_eq!(made(&all), ["b 3"]);
        assert!(all.is_anew(b"a") && !all.is_anew(b"b"));
        all.push(MapEdit::Entry("a".into(), Some("4".into())));
        assert!(all.is_anew(b"a"), "it stands behind those that were there");
        assert_eq!(made(&all), ["b 3", "a 4"]);
    }

    #[test]
    fn the_last_edit_of_a_key_counts_and_a_clear_forgets_those_before() {
        let mut all = edits(&[("b", Some("1")), ("a", Some("1")), ("b", Some("2")), ("c", None)]);
        assert_eq!(made(&all), ["b 2", "a 1"], "a value that is set leaves the entry in its place");
        assert_eq!(all.value(b"c", b"old"), None);
        assert_eq!(all.value(b"d", b"old"), Some(&b"old"[..]));
        all.push(MapEdit::Cleared);
        all.push(MapEdit::Entry("e".into(), Some("3".into())));
        assert_eq!(made(&all), ["e 3"]);
        assert_eq!(all.value(b"d", b"old"), None);
        assert!(!all.is_empty() && MapEdits::default().is_empty());
    }

    #[test]
    fn edits_add_up_wherever_they_are_cut() {
        let all = [
            ("+a", Some("0")),
            ("a", Some("1")),
            ("b", Some("1")),
            ("clear", None),
            ("+a", Some("1")),
            ("a", Some("2")),
            ("c", None),
            ("+c", Some("3")),
            ("d", Some("1")),
            ("d", None),
            ("d", Some("2")),
        ];
        for cut in 0..=all.len() {
            let mut apart = edits(&all[..cut]);
            apart.append(&edits(&all[cut..]));
            assert_eq!(apart, edits(&all), "cut at {cut}");
        }
    }

    #[test]
    fn what_was_written_is_forgotten_and_what_came_meanwhile_is_not() {
        let mut all = edits(&[("clear", None), ("a", Some("1")), ("b", Some("1"))]);
        let written = all.last();
        all.push(MapEdit::Entry("b".into(), Some("2".into())));
        all.forget(written);
        assert_eq!(made(&all), ["b 2"]);
        assert_eq!(all.value(b"d", b"old"), Some(&b"old"[..]));
        all.forget(all.last());
        assert!(all.is_empty());
    }
}
