//! How two documents differ, as a short list of steps that can be written to a journal.

use std::collections::HashMap;
use std::sync::Arc;

use super::section::Section;
use super::{Document, parse};
use crate::error::{Error, Reason, Result};

/// One step from a document to another. Positions are those of the document that the earlier steps of the list made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch {
    /// The text before the first section is now this.
    Preamble(Vec<u8>),
    /// The section at a position is now this text.
    Replace(usize, Vec<u8>),
    /// A section with this text stands now before that position.
    Insert(usize, Vec<u8>),
    /// The section at a position is gone, its comments included.
    Remove(usize),
}

impl Patch {
    /// Appends the step to `out`: a tag, the position and the length as 8 bytes little endian, the text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (tag, at, text): (u8, usize, &[u8]) = match self {
            Patch::Preamble(text) => (1, 0, text),
            Patch::Replace(at, text) => (2, *at, text),
            Patch::Insert(at, text) => (3, *at, text),
            Patch::Remove(at) => (4, *at, &[]),
        };
        out.push(tag);
        out.extend_from_slice(&(at as u64).to_le_bytes());
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text);
    }

    /// Reads one step from the front of `bytes` and gives the rest.
    pub fn decode(bytes: &[u8]) -> Result<(Patch, &[u8])> {
        let cut = || Error::internal("journal holds a step of the configuration that is cut off or of an unknown kind");
        let (&tag, rest) = bytes.split_first().ok_or_else(cut)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let at = usize::try_from(u64::from_le_bytes(*at)).map_err(|_| cut())?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let patch = match tag {
            1 => Patch::Preamble(text.to_vec()),
            2 => Patch::Replace(at, text.to_vec()),
            3 => Patch::Insert(at, text.to_vec()),
            4 if text.is_empty() => Patch::Remove(at),
            _ => return Err(cut()),
        };
        Ok((patch, rest))
    }
}

impl Document {
    /// The steps from `old` to `new`; none when their bytes are equal. Sections that both share cost a comparison of
    /// pointers.
    pub fn diff(old: &Document, new: &Document) -> Vec<Patch> {
        let mut patches = Vec::new();
        if !Arc::ptr_eq(&old.preamble, &new.preamble) && old.preamble != new.preamble {
            patches.push(Patch::Preamble(new.preamble.to_vec()));
        }
        let (a, b) = (old.sections(), new.sections());
        if Arc::ptr_eq(&old.sections, &new.sections) {
            return patches;
        }
        let same = |x: &Arc<Section>, y: &Arc<Section>| Arc::ptr_eq(x, y) || x == y;
        let head = a.iter().zip(b).take_while(|(x, y)| same(x, y)).count();
        let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| same(x, y)).count();
        let (a, b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);

        let pairs = pairs(a, b);
        let mut at = head;
        let (mut i, mut j) = (0, 0);
        for (x, y) in pairs.into_iter().chain([(a.len(), b.len())]) {
            patches.extend((i..x).map(|_| Patch::Remove(at)));
            for section in &b[j..y] {
                patches.push(Patch::Insert(at, section.text().to_vec()));
                at += 1;
            }
            if let (Some(before), Some(after)) = (a.get(x), b.get(y)) {
                if !same(before, after) {
                    patches.push(Patch::Replace(at, after.text().to_vec()));
                }
                at += 1;
            }
            (i, j) = (x + 1, y + 1);
        }
        patches
    }

    /// Does one step of a list that `diff` made, on the document that the earlier steps made. When all are done the
    /// document equals the new one.
    pub fn apply(&mut self, patch: &Patch) -> Result<()> {
        let count = self.sections().len();
        let missing = |at: usize| Error::internal(format!("step names section {at}, the configuration has {count}"));
        match patch {
            Patch::Preamble(text) => {
                if !parse::parse(text).sections.is_empty() {
                    return Err(Error::new(
                        Reason::InvalidValue,
                        "text before the first section holds a section header",
                    ));
                }
                self.preamble = Arc::new(text.clone());
                self.enter_around(0);
            }
            Patch::Replace(at, text) if *at < count => {
                let section = Section::from_text(text.clone(), self.style())?;
                self.swap(*at, section);
                self.enter_around(*at);
            }
            Patch::Insert(at, text) if *at <= count => {
                let section = Section::from_text(text.clone(), self.style())?;
                self.raw_insert(*at, section);
                self.enter_around(*at);
            }
            Patch::Remove(at) if *at < count => {
                self.raw_remove(*at);
                self.enter_around(*at);
            }
            Patch::Replace(at, _) | Patch::Insert(at, _) | Patch::Remove(at) => return Err(missing(*at)),
        }
        Ok(())
    }
}

/// Positions of sections of `a` and `b` that are the same section by kind and name, ascending in both: the longest
/// such list, equal names paired in their order.
fn pairs(a: &[Arc<Section>], b: &[Arc<Section>]) -> Vec<(usize, usize)> {
    let mut places: HashMap<(&str, &str), std::collections::VecDeque<usize>> = HashMap::with_capacity(b.len());
    for (j, section) in b.iter().enumerate() {
        places.entry((section.kind(), section.name())).or_default().push_back(j);
    }
    let met: Vec<(usize, usize)> = a
        .iter()
        .enumerate()
        .filter_map(|(i, s)| Some((i, places.get_mut(&(s.kind(), s.name()))?.pop_front()?)))
        .collect();
    // Longest ascending run over the positions in `b`: `ends[l]` is where the best run of length l + 1 ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(met.len());
    for (k, &(_, j)) in met.iter().enumerate() {
        let length = ends.partition_point(|&e| met[e].1 < j);
        before.push(length.checked_sub(1).map(|l| ends[l]));
        if length == ends.len() {
            ends.push(k);
        } else {
            ends[length] = k;
        }
    }
    let mut chain = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(k) = next {
        chain.push(met[k]);
        next = before[k];
    }
    chain.reverse();
    chain
}
