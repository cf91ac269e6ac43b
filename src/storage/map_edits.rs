//! Changes of the entries of a map that its file does not have yet.

use std::collections::HashMap;

/// One change of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapEdit {
    /// The entries with this key have this value; `None`: there are none.
    Entry(String, Option<String>),
    /// There are no entries.
    Cleared,
}

/// Changes of a map, the last one of each key. Their numbers only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MapEdits {
    /// Number of the last clear: entries of before do not count.
    cleared: Option<usize>,
    entries: HashMap<Vec<u8>, Latest>,
    count: usize,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Latest {
    value: Option<Vec<u8>>,
    /// Number of the edit, so that new entries reach the file in the order in which they were made.
    number: usize,
}

impl MapEdits {
    pub(super) fn is_empty(&self) -> bool {
        self.cleared.is_none() && self.entries.is_empty()
    }

    pub(super) fn push(&mut self, edit: MapEdit) {
        self.count += 1;
        match edit {
            MapEdit::Entry(key, value) => {
                let latest = Latest { value: value.map(String::into_bytes), number: self.count };
                self.entries.insert(key.into_bytes(), latest);
            }
            MapEdit::Cleared => {
                self.entries.clear();
                self.cleared = Some(self.count);
            }
        }
    }

    /// Adds edits that were made after these.
    pub(super) fn append(&mut self, later: &MapEdits) {
        if let Some(number) = later.cleared {
            self.entries.clear();
            self.cleared = Some(self.count + number);
        }
        for (key, latest) in &later.entries {
            let number = self.count + latest.number;
            self.entries.insert(key.clone(), Latest { value: latest.value.clone(), number });
        }
        self.count += later.count;
    }

    /// All of them, with nothing that a later one undid.
    pub(super) fn all(&self) -> Vec<MapEdit> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entry = |(key, latest): (&Vec<u8>, &Latest)| MapEdit::Entry(text(key), latest.value.as_deref().map(text));
        self.cleared.map(|_| MapEdit::Cleared).into_iter().chain(self.entries.iter().map(entry)).collect()
    }

    /// Whether an edit names the key.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// Number of the last edit.
    pub(super) fn last(&self) -> usize {
        self.count
    }

    /// Forgets edits up to this number: the file has them.
    pub(super) fn forget(&mut self, last: usize) {
        self.entries.retain(|_, latest| latest.number > last);
        self.cleared.take_if(|number| *number <= last);
    }

    /// The value of an entry that the map has without the edits; `None` if it is gone.
    pub(super) fn value<'a>(&'a self, key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
        match self.entries.get(key) {
            Some(latest) => latest.value.as_deref(),
            None => self.cleared.is_none().then_some(value),
        }
    }

    /// Keys with their values, in the order in which they were set.
    pub(super) fn set(&self) -> Vec<(&[u8], &[u8])> {
        let set =
            self.entries.iter().filter_map(|(key, latest)| Some((latest.number, &**key, latest.value.as_deref()?)));
        let mut set: Vec<_> = set.collect();
        set.sort_unstable_by_key(|(number, ..)| *number);
        set.into_iter().map(|(_, key, value)| (key, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(all: &[(&str, Option<&str>)]) -> MapEdits {
        let mut edits = MapEdits::default();
        for (key, value) in all {
            edits.push(match *key {
                "clear" => MapEdit::Cleared,
                key => MapEdit::Entry(key.to_owned(), value.map(str::to_owned)),
            });
        }
        edits
    }

    #[test]
    fn the_last_edit_of_a_key_counts_and_a_clear_forgets_those_before() {
        let mut all = edits(&[("b", Some("1")), ("a", Some("1")), ("b", Some("2")), ("c", None)]);
        assert_eq!(all.set(), [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
        assert_eq!(all.value(b"c", b"old"), None);
        assert_eq!(all.value(b"d", b"old"), Some(&b"old"[..]));
        all.push(MapEdit::Cleared);
        all.push(MapEdit::Entry("e".into(), Some("3".into())));
        assert_eq!(all.set(), [(&b"e"[..], &b"3"[..])]);
        assert_eq!(all.value(b"d", b"old"), None);
        assert!(!all.is_empty() && MapEdits::default().is_empty());
    }

    #[test]
    fn edits_add_up_wherever_they_are_cut() {
        let all =
            [("a", Some("1")), ("b", Some("1")), ("clear", None), ("a", Some("2")), ("c", None), ("d", Some("1"))];
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
        assert_eq!(all.set(), [(&b"b"[..], &b"2"[..])]);
        assert_eq!(all.value(b"d", b"old"), Some(&b"old"[..]));
        all.forget(all.last());
        assert!(all.is_empty());
    }
}
