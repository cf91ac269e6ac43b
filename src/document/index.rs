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

/// An open-addressing table of positions. It holds no names: those are compared in the sections, so a copy is two
/// `memcpy`s and moving all later positions by one is one pass over integers.
///
/// A position is stored plus one, 0 is none. Invariants: at most half of the slots are taken; each slot holds the
/// first section of its identity, reachable from the identity's home slot over taken slots only; the others of that
/// identity follow in `next`, ascending, so that a file full of equal names costs no more than another.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// The length is a power of two.
    slots: Vec<u32>,
    /// For each section the next one of the same identity.
    next: Vec<u32>,
}

impl Index {
    pub(super) fn build(sections: &[Arc<Section>]) -> Index {
        let size = (sections.len() * 4).next_power_of_two().max(16);
        let mut index = Index { slots: vec![0; size], next: vec![0; sections.len()] };
        // Backwards, so that each becomes the first of its identity.
        for at in (0..sections.len()).rev() {
            let slot = index.slot_for(sections, sections[at].identity());
            index.next[at] = std::mem::replace(&mut index.slots[slot], at as u32 + 1);
        }
        index
    }

    /// Positions of the sections of that kind and name, ascending.
    pub(super) fn matches<'a>(
        &'a self,
        sections: &'a [Arc<Section>],
        kind: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = usize> + 'a {
        let mut link = self.slots[self.slot_for(sections, identity(kind, name))];
        std::iter::from_fn(move || {
            let at = (link as usize).checked_sub(1)?;
            link = self.next[at];
            Some(at)
        })
        .filter(move |&at| sections[at].kind() == kind && sections[at].name() == name)
    }

    /// The slot that holds that identity, or the free one where it belongs.
    fn slot_for(&self, sections: &[Arc<Section>], identity: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = identity as usize & mask;
        while let Some(at) = (self.slots[slot] as usize).checked_sub(1)
            && sections[at].identity() != identity
        {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Takes over that a section was inserted at `at`; `sections` is the list with it.
    pub(super) fn inserted(&mut self, sections: &[Arc<Section>], at: usize) {
        if sections.len() * 2 > self.slots.len() {
            *self = Index::build(sections);
            return;
        }
        for links in [&mut self.slots, &mut self.next] {
            for link in links {
                *link += u32::from(*link > at as u32);
            }
        }
        self.next.insert(at, 0);
        self.link(sections, at);
    }

    /// Takes over that the section at `at` is about to be removed; `sections` is the list that still has it.
    pub(super) fn removing(&mut self, sections: &[Arc<Section>], at: usize) {
        self.unlink(sections, at);
        self.next.remove(at);
        for links in [&mut self.slots, &mut self.next] {
            for link in links {
                *link -= u32::from(*link > at as u32 + 1);
            }
        }
    }

    /// Enters the section at `at`, which is not entered yet. Positions in the table are those of `sections`.
    pub(super) fn link(&mut self, sections: &[Arc<Section>], at: usize) {
        let own = at as u32 + 1;
        let slot = self.slot_for(sections, sections[at].identity());
        let mut before = None;
        let mut link = self.slots[slot];
        while link != 0 && link < own {
            before = Some(link as usize - 1);
            link = self.next[link as usize - 1];
        }
        self.next[at] = link;
        match before {
            Some(before) => self.next[before] = own,
            None => self.slots[slot] = own,
        }
    }

    /// Takes the section at `at` out. Positions in the table are those of `sections`, which still has it.
    pub(super) fn unlink(&mut self, sections: &[Arc<Section>], at: usize) {
        let own = at as u32 + 1;
        let behind = std::mem::take(&mut self.next[at]);
        let slot = self.slot_for(sections, sections[at].identity());
        let mut link = self.slots[slot];
        if link == own {
            self.slots[slot] = behind;
            if behind == 0 {
                self.close_gap(sections, slot);
            }
            return;
        }
        while link != 0 {
            let before = link as usize - 1;
            link = self.next[before];
            if link == own {
                self.next[before] = behind;
                return;
            }
        }
    }

    /// Places again the entries behind a slot that became free, which it would hide.
    fn close_gap(&mut self, sections: &[Arc<Section>], gap: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = (gap + 1) & mask;
        while self.slots[slot] != 0 {
            let link = std::mem::take(&mut self.slots[slot]);
            let home = self.slot_for(sections, sections[link as usize - 1].identity());
            self.slots[home] = link;
            slot = (slot + 1) & mask;
        }
    }
}
