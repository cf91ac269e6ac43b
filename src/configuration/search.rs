//! Which changes of a refused text are to blame: texts without some of the changes, and what HAProxy's words point at. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::carry::carried;
use super::change_log::Change;
use super::journal::Origin;
use super::ports::Place;
use crate::document::{Document, Patch};
use crate::error::Result;

/// A change that may be to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    /// The version that it made.
    pub(super) version: i64,
    /// Somebody edited the file: such a change is never dropped.
    pub(super) by_hand: bool,
}

/// The changes since a text that HAProxy has loaded, and every text between them.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    suspects: Vec<Suspect>,
    /// One more than there are suspects: the text before the first, and the one after each.
    texts: Vec<Document>,
}

impl Texts {
    /// Goes back from the present text. Changes since `good` that the log does not know are one that nobody may drop.
    pub(super) fn new(current: &Document, changes: &[Change], good: &Document, unproven: &[i64]) -> Result<Self> {
        let mut texts = vec![current.clone()];
        let mut suspects = Vec::new();
        for change in changes.iter().rev() {
            let before = change.undone(&texts[texts.len() - 1])?;
            texts.push(before);
            suspects.push(Suspect { version: change.version, by_hand: change.origin == Origin::External });
        }
        let unknown = unproven.iter().rev().find(|version| changes.iter().all(|change| change.version != **version));
        if let Some(version) = unknown {
            texts.push(good.clone());
            suspects.push(Suspect { version: *version, by_hand: true });
        }
        texts.reverse();
        suspects.reverse();
        Ok(Texts { suspects, texts })
    }

    /// The changes, oldest first.
    pub(super) fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }

    /// The text after so many changes.
    pub(super) fn after(&self, count: usize) -> &Document {
        &self.texts[count.min(self.suspects.len())]
    }

    /// The text without some changes, with all that could not be carried without them.
    pub(super) fn without(&self, out: &BTreeSet<usize>) -> (Document, BTreeSet<usize>) {
        let mut all = out.clone();
        let first = out.first().copied().unwrap_or(self.suspects.len());
        let mut text = self.texts[first].clone();
        for at in first + 1..self.suspects.len() {
            if out.contains(&at) {
                continue;
            }
            match carried(&text, &self.texts[at], &self.texts[at + 1]) {
                Some(next) => text = next,
                None => {
                    all.insert(at);
                }
            }
        }
        (text, all)
    }

    /// Those of the given changes that wrote a line that HAProxy complains about in `text`; else those that last touched
    /// a section that it names.
    pub(super) fn named(&self, text: &Document, places: &[Place], among: &[usize]) -> BTreeSet<usize> {
        let bytes = text.to_bytes();
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let last = |wrote: &dyn Fn(usize) -> bool| among.iter().rev().copied().find(|at| wrote(*at));
        let of = |place: &Place| {
            let line =
                place.line.and_then(|line| lines.get(line.checked_sub(1)?)).filter(|l| !l.trim_ascii().is_empty());
            let by_line = line.and_then(|line| last(&|at| self.wrote(at, line)));
            by_line.or_else(|| place.section.as_ref().and_then(|name| last(&|at| self.touched(at, name))))
        };
        places.iter().filter_map(of).collect()
    }

    /// Whether a change brought a line into a section.
    fn wrote(&self, at: usize, line: &[u8]) -> bool {
        let has = |text: &[u8]| text.split(|byte| *byte == b'\n').any(|other| other == line);
        Document::diff(&self.texts[at], &self.texts[at + 1]).iter().any(|patch| match patch {
            Patch::Replace(_, text) | Patch::Insert(_, text) => {
                has(text) && !self.texts[at].sections().iter().any(|section| has(section.text()))
            }
            Patch::Preamble(_) | Patch::Remove(_) => false,
        })
    }

    /// Whether a change made a section of that name another one.
    fn touched(&self, at: usize, name: &str) -> bool {
        let of = |text: &Document| -> Vec<Arc<crate::document::Section>> {
            text.sections().iter().filter(|section| section.name() == name).cloned().collect()
        };
        of(&self.texts[at]) != of(&self.texts[at + 1])
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
