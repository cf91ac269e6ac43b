//! Finds sections by kind and name in constant time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::section::Section;

/// Hash of a section's identity, kept with the section so that the table can be rebuilt without reading names.
pub(super) fn identity(kind: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}

/// An open-addressing table of positions. It holds no names: those are compared in the sections, so a copy is one
/// `memcpy` and moving all later positions by one is one pass over integers.
///
/// Invariant: at most half of the slots are taken; every section has exactly one slot, reachable from its home slot
/// over taken slots only.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Position + 1, or 0 for a free slot. The length is a power of two, or zero.
    slots: Vec<u32>,
}

impl Index {
    pub(super) fn build(sections: &[Arc<Section>]) -> Index {
        let size = (sections.len() * 4).next_power_of_two().max(16);
        let mut index = Index { slots: vec![0; size] };
        for (at, section) in sections.iter().enumerate() {
            index.place(section.identity(), at);
        }
        index
    }

    fn place(&mut self, identity: u64, at: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = identity as usize & mask;
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = at as u32 + 1;
    }

    /// Positions of the sections of that identity, in no order.
    pub(super) fn matches<'a>(
        &'a self,
        sections: &'a [Arc<Section>],
        kind: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        let hash = identity(kind, name);
        self.candidates(hash).filter(move |&at| {
            sections.get(at).is_some_and(|s| s.identity() == hash && s.kind() == kind && s.name() == name)
        })
    }

    fn candidates(&self, identity: u64) -> impl Iterator<Item = usize> + '_ {
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = identity as usize & mask;
        std::iter::from_fn(move || {
            let value = *self.slots.get(slot)?;
            slot = (slot + 1) & mask;
            (value != 0).then(|| value as usize - 1)
        })
    }

    /// Takes over that a section was inserted at `at`; `sections` is the list with it.
    pub(super) fn inserted(&mut self, sections: &[Arc<Section>], at: usize) {
        if sections.len() * 2 > self.slots.len() {
            *self = Index::build(sections);
            return;
        }
        for slot in &mut self.slots {
            *slot += u32::from(*slot > at as u32);
        }
        self.place(sections[at].identity(), at);
    }

    /// Takes over that the section at `at` was removed; `sections` is the list without it.
    pub(super) fn removed(&mut self, sections: &[Arc<Section>], at: usize, gone: &Section) {
        if !self.free(at, gone.identity()) {
            *self = Index::build(sections);
            return;
        }
        for slot in &mut self.slots {
            *slot -= u32::from(*slot > at as u32 + 1);
        }
        // The slots behind the gap, up to the next free one, may have been pushed there by it.
        self.settle(sections, gone.identity());
    }

    /// Takes over that the section at `at` got another identity.
    pub(super) fn renamed(&mut self, sections: &[Arc<Section>], at: usize, old: u64) {
        if !self.free(at, old) {
            *self = Index::build(sections);
            return;
        }
        self.settle(sections, old);
        self.place(sections[at].identity(), at);
    }

    fn slot_of(&self, at: usize, identity: u64) -> Option<usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = identity as usize & mask;
        loop {
            match *self.slots.get(slot)? {
                0 => return None,
                value if value as usize == at + 1 => return Some(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn free(&mut self, at: usize, identity: u64) -> bool {
        match self.slot_of(at, identity) {
            Some(slot) => {
                self.slots[slot] = 0;
                true
            }
            None => false,
        }
    }

    /// Places again every entry of the run of slots that held `identity`, so that no gap hides one.
    fn settle(&mut self, sections: &[Arc<Section>], identity: u64) {
        let mask = self.slots.len() - 1;
        let mut slot = identity as usize & mask;
        // The run up to the gap needs no move; then the one gap; then the entries that the gap may hide.
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slot = (slot + 1) & mask;
        let mut hidden = Vec::new();
        while self.slots[slot] != 0 {
            hidden.push(self.slots[slot] as usize - 1);
            self.slots[slot] = 0;
            slot = (slot + 1) & mask;
        }
        for at in hidden {
            if let Some(section) = sections.get(at) {
                self.place(section.identity(), at);
            }
        }
    }
}
