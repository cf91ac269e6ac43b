//! The last changes of a table, by revision.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::keys::{HEAP, in_cell, put_cell};
use super::mirror::RemovalReason;
use super::rows::Rows;

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
        /// Key as the mirror stores it.
        key: &'a [u8],
        /// Why.
        reason: RemovalReason,
    },
}

/// Marks the slot of a removal.
const REMOVED: u32 = 1 << 31;
/// In the number of a removal, its reason stands above this bit.
const REASON: u32 = 60;
const REASONS: [RemovalReason; 4] =
    [RemovalReason::Expired, RemovalReason::Cleared, RemovalReason::Swept, RemovalReason::Unknown];

/// Changes with the revisions `floor + 1 ..= head`. Four bytes each, and the keys of removed entries.
#[derive(Debug)]
pub(super) struct Log {
    items: Rows<u32>,
    /// Revisions of removals, each with its reason.
    removals: Rows<u64>,
    /// A cell for the key of each.
    keys: Rows<u8>,
    /// Bytes of a key in its cell.
    room: usize,
    /// Keys that are longer, by revision.
    long: BTreeMap<u64, Box<[u8]>>,
    head: u64,
    scratch: Vec<u8>,
}

impl Default for Log {
    fn default() -> Self {
        Log::new(0, 0)
    }
}

impl Log {
    /// A log without changes behind the revision `head`, for keys that mostly have up to `room` bytes.
    pub(super) fn new(head: u64, room: usize) -> Self {
        Log {
            items: Rows::new(1),
            removals: Rows::new(1),
            keys: Rows::new(room + 1),
            room,
            long: BTreeMap::new(),
            head,
            scratch: Vec::new(),
        }
    }

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
    pub(super) fn removed(&mut self, slot: u32, key: Cow<'_, [u8]>, reason: RemovalReason, limit: usize) {
        let revision = self.head + 1;
        let number = REASONS.iter().position(|known| *known == reason).unwrap_or(0) as u64;
        self.removals.push(&[revision | number << REASON]);
        self.scratch.clear();
        if put_cell(&key, self.room, &mut self.scratch) {
            self.long.insert(revision, key.into());
        }
        self.keys.push(&self.scratch);
        self.push(slot | REMOVED, limit);
    }

    fn push(&mut self, item: u32, limit: usize) -> u64 {
        self.items.push(&[item]);
        self.head += 1;
        while self.items.len() > limit {
            self.items.pop_front();
        }
        let floor = self.floor();
        while self.removals.len() > 0 && self.removal(0).0 <= floor {
            if in_cell(self.keys.row(0)).is_none() {
                self.long.remove(&self.removal(0).0);
            }
            self.removals.pop_front();
            self.keys.pop_front();
        }
        self.head
    }

    /// Revision and reason of a removal, counted from the oldest.
    fn removal(&self, at: usize) -> (u64, RemovalReason) {
        let number = self.removals.row(at)[0];
        (number & ((1 << REASON) - 1), REASONS[(number >> REASON) as usize % REASONS.len()])
    }

    /// Forgets all changes but not their numbers.
    pub(super) fn clear(&mut self) {
        *self = Log::new(self.head, self.room);
    }

    /// Forgets all changes; the keys of later ones have so many bytes.
    pub(super) fn set_room(&mut self, room: usize) {
        *self = Log::new(self.head, room);
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        let long: usize = self.long.values().map(|key| key.len() + HEAP + size_of::<(u64, Box<[u8]>)>()).sum();
        self.items.memory() + self.removals.memory() + self.keys.memory() + long
    }

    /// Changes behind `cursor` with their revisions; nothing if some of them are forgotten.
    pub(super) fn since(&self, cursor: u64) -> Option<impl Iterator<Item = (u64, Item<'_>)>> {
        let skip = cursor.checked_sub(self.floor())?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip <= self.items.len())?;
        let mut next = self.first_removal_behind(cursor);
        Some((skip..self.items.len()).filter_map(move |at| {
            let (item, revision) = (self.items.row(at)[0], cursor + 1 + (at - skip) as u64);
            if item & REMOVED == 0 {
                return Some((revision, Item::Changed { slot: item }));
            }
            let (_, reason) = self.removal(next);
            let key = in_cell(self.keys.row(next)).or_else(|| self.long.get(&revision).map(|key| &**key))?;
            next += 1;
            Some((revision, Item::Removed { slot: item & !REMOVED, key, reason }))
        }))
    }

    fn first_removal_behind(&self, cursor: u64) -> usize {
        let (mut low, mut high) = (0, self.removals.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.removal(middle).0 <= cursor { low = middle + 1 } else { high = middle }
        }
        low
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
