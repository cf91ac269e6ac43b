//! What a writer was told, and whether that is what is found after a crash.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// What is written: a kind of thing, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// A number stands for a content; `None` for a thing that is not there.
pub(super) type Value = Option<u32>;

/// Things that change together, and what they become.
pub(super) type Change = Vec<(Key, Value)>;

/// What is there.
pub(super) type Found = BTreeMap<Key, u32>;

/// How many of the last answers about a thing are kept as evidence.
const REMEMBERED: usize = 8;

/// The answers that one writer got. Nobody else writes its things.
#[derive(Debug)]
pub(super) struct Ledger {
    begun: Instant,
    acknowledged: Found,
    doubtful: Vec<Change>,
    history: BTreeMap<Key, VecDeque<String>>,
    /// Number of changes that were acknowledged.
    pub(super) changes: usize,
}

impl Ledger {
    pub(super) fn new(begun: Instant) -> Self {
        let (acknowledged, doubtful, history) = Default::default();
        Ledger { begun, acknowledged, doubtful, history, changes: 0 }
    }

    /// What a thing should be.
    pub(super) fn value(&self, key: &Key) -> Value {
        self.acknowledged.get(key).copied()
    }

    /// Whether nobody knows what a thing is, until [`Ledger::settle`].
    pub(super) fn is_doubtful(&self, key: &Key) -> bool {
        self.doubtful.iter().flatten().any(|(doubtful, _)| doubtful == key)
    }

    /// Whether there is anything of which nobody knows what it is.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Notes an acknowledged change.
    pub(super) fn done(&mut self, change: &Change, how: &str) {
        self.changes += 1;
        self.note(change, &format!("acknowledged, {how}"));
        make(&mut self.acknowledged, change);
    }

    /// Notes a change that may have been made or not.
    pub(super) fn doubt(&mut self, change: Change, why: &str) {
        self.note(&change, &format!("in doubt, {why}"));
        self.doubtful.push(change);
    }

    fn note(&mut self, change: &Change, what: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        let together = change.len();
        for (key, value) in change {
            let history = self.history.entry(key.clone()).or_default();
            history.push_back(format!("{at:.3} s: {value:?} (one of {together}) {what}"));
            if history.len() > REMEMBERED {
                history.pop_front();
            }
        }
    }

    /// Whether all that was acknowledged is there, as far as it is not in doubt.
    pub(super) fn agrees(&self, found: &Found) -> bool {
        self.acknowledged
            .keys()
            .chain(found.keys())
            .all(|key| self.is_doubtful(key) || self.value(key) == found.get(key).copied())
    }

    /// Compares with what is there, which is taken for right afterwards. Returns what must not be.
    pub(super) fn settle(&mut self, found: &Found) -> Vec<String> {
        let mut faults = Vec::new();
        for change in std::mem::take(&mut self.doubtful) {
            let is_new = |(key, value): &&(Key, Value)| found.get(key).copied() == *value;
            let made = change.iter().filter(is_new).count();
            if made == change.len() {
                make(&mut self.acknowledged, &change);
            } else if made > 0 {
                faults.push(format!("{made} of {} of one change: {change:?}", change.len()));
            }
        }
        for key in self.acknowledged.keys().chain(found.keys().filter(|key| !self.acknowledged.contains_key(*key))) {
            let (wanted, found) = (self.acknowledged.get(key), found.get(key));
            if wanted != found {
                let history: Vec<_> = self.history.get(key).into_iter().flatten().cloned().collect();
                let lines = history.join("\n      ");
                faults.push(format!("{} {} is {found:?}, not {wanted:?}\n      {lines}", key.kind, key.name));
            }
        }
        self.acknowledged.clone_from(found);
        faults
    }
}

fn make(things: &mut Found, change: &Change) {
    for (key, value) in change {
        match value {
            Some(value) => things.insert(key.clone(), *value),
            None => things.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { kind: "k", name: name.to_owned() }
    }

    fn found<const N: usize>(things: [(&str, u32); N]) -> Found {
        things.map(|(name, value)| (key(name), value)).into()
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_nothing_else() {
        let mut ledger = Ledger::new(Instant::now());
        ledger.done(&vec![(key("a"), Some(1))], "");
        ledger.done(&vec![(key("b"), Some(2))], "");
        ledger.done(&vec![(key("b"), None)], "");
        assert_eq!(ledger.settle(&found([("a", 1)])), [""; 0]);
        assert_eq!(ledger.settle(&found([])).len(), 1, "lost");
        assert_eq!(ledger.settle(&found([])), [""; 0], "what is found is the new truth");
        assert_eq!(ledger.settle(&found([("b", 2)])).len(), 1, "a deleted one is back");
    }

    #[test]
    fn what_was_not_answered_is_there_or_not_but_whole() {
        for (after, faults) in
            [(found([("a", 1)]), 0), (found([("a", 2), ("b", 2)]), 0), (found([("a", 2)]), 2), (found([("a", 3)]), 1)]
        {
            let mut ledger = Ledger::new(Instant::now());
            ledger.done(&vec![(key("a"), Some(1))], "");
            ledger.doubt(vec![(key("a"), Some(2)), (key("b"), Some(2))], "");
            assert!(ledger.is_doubtful(&key("b")) && !ledger.is_doubtful(&key("c")));
            assert_eq!(ledger.settle(&after).len(), faults, "{after:?}");
            assert!(!ledger.is_doubtful(&key("b")));
        }
    }
}
