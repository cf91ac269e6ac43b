//! The last changes of a table, by revision.

use std::collections::VecDeque;

use super::mirror::RemovalReason;

/// One change. What an entry holds now stands in its slot only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// The entry in this slot was added or changed. Superseded if the slot has a later revision.
    Changed {
        /// Slot of the mirror.
        slot: u32,
    },
    /// The entry that was in this slot is gone.
    Removed {
        /// Slot of the mirror, perhaps taken by another entry since.
        slot: u32,
        /// Escaped key.
        key: &'a [u8],
        /// Why.
        reason: RemovalReason,
    },
}

/// Marks the slot of a removal.
const REMOVED: u32 = 1 << 31;

#[derive(Debug)]
struct Removal {
    revision: u64,
    key: Box<[u8]>,
    reason: RemovalReason,
}

/// Changes with the revisions `floor + 1 ..= head`. Four bytes each, and the keys of removed entries.
#[derive(Debug, Default)]
pub(super) struct Log {
    items: VecDeque<u32>,
    removals: VecDeque<Removal>,
    head: u64,
}

impl Log {
    /// Revision of the last change, 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Whoever has seen this revision, or a later one, can go on without a gap.
    pub(super) fn floor(&self) -> u64 {
        self.head - self.items.len() as u64
    }

    /// Appends a change, keeping at most `limit`, and returns its revision.
    pub(super) fn changed(&mut self, slot: u32, limit: usize) -> u64 {
        self.push(slot, limit)
    }

    /// Appends a removal, keeping at most `limit`.
    pub(super) fn removed(&mut self, slot: u32, key: Box<[u8]>, reason: RemovalReason, limit: usize) {
        self.removals.push_back(Removal { revision: self.head + 1, key, reason });
        self.push(slot | REMOVED, limit);
    }

    fn push(&mut self, item: u32, limit: usize) -> u64 {
        self.items.push_back(item);
        self.head += 1;
        while self.items.len() > limit {
            self.items.pop_front();
        }
        let floor = self.floor();
        while self.removals.front().is_some_and(|removal| removal.revision <= floor) {
            self.removals.pop_front();
        }
        self.head
    }

    /// Forgets all changes but not their numbers.
    pub(super) fn clear(&mut self) {
        self.items = VecDeque::new();
        self.removals = VecDeque::new();
    }

    /// Changes behind `cursor` with their revisions; nothing if some of them are forgotten.
    pub(super) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = (u64, Item<'_>)>> {
        let skip = cursor.checked_sub(self.floor())?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip <= self.items.len())?;
        let first = self.removals.partition_point(|removal| removal.revision <= cursor);
        let mut removals = self.removals.range(first..);
        let items = self.items.range(skip..).enumerate();
        Some(items.filter_map(move |(at, &item)| {
            let revision = cursor + 1 + at as u64;
            if item & REMOVED == 0 {
                return Some((revision, Item::Changed { slot: item }));
            }
            let Removal { key, reason, .. } = removals.next()?;
            Some((revision, Item::Removed { slot: item & !REMOVED, key, reason: *reason }))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_forgets_from_the_front_and_knows_it() {
        let mut log = Log::default();
        assert_eq!(log.since(0).unwrap().count(), 0);
        for slot in 0..5 {
            assert_eq!(log.changed(slot, 3), u64::from(slot) + 1);
        }
        assert_eq!((log.floor(), log.head()), (2, 5));
        assert!(log.since(1).is_none());
        assert!(log.since(6).is_none());
        let seen: Vec<u64> = log.since(3).unwrap().map(|(revision, _)| revision).collect();
        assert_eq!(seen, [4, 5]);
        log.clear();
        assert_eq!((log.floor(), log.head()), (5, 5));
        assert!(log.since(3).is_none());
    }

    #[test]
    fn removals_keep_their_keys_as_long_as_their_numbers() {
        let mut log = Log::default();
        for n in 0..10 {
            log.removed(n, vec![b'a' + n as u8].into(), RemovalReason::Swept, 4);
            log.changed(n, 4);
        }
        let seen: Vec<_> = log.since(17).unwrap().collect();
        let reason = RemovalReason::Swept;
        assert_eq!(
            seen,
            [
                (18, Item::Changed { slot: 8 }),
                (19, Item::Removed { slot: 9, key: b"j", reason }),
                (20, Item::Changed { slot: 9 }),
            ]
        );
        assert_eq!(log.removals.len(), 2);
    }
}
