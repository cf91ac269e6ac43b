//! The last changes of a table, by revision.

use std::collections::VecDeque;

use super::mirror::RemovalReason;

/// One change. What an entry holds now stands in its slot only.
#[derive(Debug)]
pub(super) enum Item {
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
        key: Box<[u8]>,
        /// Why.
        reason: RemovalReason,
    },
}

/// Changes with the revisions `floor + 1 ..= head`.
#[derive(Debug, Default)]
pub(super) struct Log {
    items: VecDeque<Item>,
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
    pub(super) fn push(&mut self, item: Item, limit: usize) -> u64 {
        self.items.push_back(item);
        while self.items.len() > limit {
            self.items.pop_front();
        }
        self.head += 1;
        self.head
    }

    /// Forgets all changes but not their numbers.
    pub(super) fn clear(&mut self) {
        self.items = VecDeque::new();
    }

    /// Changes behind `cursor` with their revisions; nothing if some of them are forgotten.
    pub(super) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = (u64, &Item)>> {
        let skip = cursor.checked_sub(self.floor())?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip <= self.items.len())?;
        Some(self.items.range(skip..).enumerate().map(move |(at, item)| (cursor + 1 + at as u64, item)))
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
            assert_eq!(log.push(Item::Changed { slot }, 3), u64::from(slot) + 1);
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
}
