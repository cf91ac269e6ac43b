//! haproxy.cfg as lossless text: lines, sections, edits, differences. Knows no resource, no file and no clock.
//!
//! What it promises:
//! * any bytes are a document, and printing it gives the same bytes;
//! * an edit changes the bytes of the lines that it names and no others. Two things are added where the file would
//!   otherwise break: the line ending that the last line of a file may lack, and a blank line between sections when
//!   the file has that habit;
//! * a document that was edited is cut into sections exactly as its bytes would be when read afresh, so positions mean
//!   the same to the writer of a journal and to its reader;
//! * a clone is a few reference counts; an edit copies the list of sections and one section.
//!
//! `line` says what a line is, `section` edits one section, `parse` cuts a file, `index` finds sections, `header`
//! keeps `# _version=` and its like, `patch` says how two documents differ.

mod header;
mod index;
mod line;
mod parse;
mod patch;
#[cfg(test)]
mod properties;
mod section;
mod style;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use crate::schema::odd;
use index::Index;
pub use line::{LineKind, LineRef, SECTION_KEYWORDS};
pub use patch::Patch;
pub use section::{LineEdits, Section};
pub use style::Style;

use line::{Class, indent_of};

/// A file of HAProxy's configuration.
///
/// The preamble is everything before the first section. All later text belongs to exactly one section.
#[derive(Debug, Clone)]
pub struct Document {
    preamble: Arc<Vec<u8>>,
    sections: Arc<Vec<Arc<Section>>>,
    index: Arc<Index>,
    style: Arc<Style>,
}

impl Default for Document {
    /// An empty file.
    fn default() -> Self {
        Document::parse(b"")
    }
}

impl PartialEq for Document {
    /// Documents are equal when they print the same bytes.
    fn eq(&self, other: &Self) -> bool {
        self.preamble == other.preamble
            && self.sections.len() == other.sections.len()
            && self.sections.iter().zip(other.sections.iter()).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    }
}

impl Eq for Document {}

impl Document {
    /// Reads a file. Never fails: what HAProxy would refuse is kept as it is.
    pub fn parse(bytes: &[u8]) -> Document {
        let parsed = parse::parse(&odd::hold(bytes));
        Document {
            index: Arc::new(Index::build(&parsed.sections)),
            preamble: Arc::new(parsed.preamble),
            sections: Arc::new(parsed.sections),
            style: parsed.style,
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(self.preamble.len() + self.sections.iter().map(|s| s.text().len()).sum::<usize>());
        bytes.extend_from_slice(&odd::release(&self.preamble));
        for section in self.sections.iter() {
            bytes.extend_from_slice(&odd::release(section.text()));
        }
        bytes
    }

    /// Writes the bytes of the file to `out`, in pieces of a section each: give it a buffered writer.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(&odd::release(&self.preamble))?;
        self.sections.iter().try_for_each(|section| out.write_all(&odd::release(section.text())))
    }

    /// Number of bytes of the file.
    pub fn len_bytes(&self) -> usize {
        odd::release(&self.preamble).len() + self.sections.iter().map(|s| odd::release(s.text()).len()).sum::<usize>()
    }

    /// The text before the first section.
    pub fn preamble(&self) -> &[u8] {
        &self.preamble
    }

    /// Layout of the file, for new lines and sections.
    pub fn style(&self) -> &Arc<Style> {
        &self.style
    }

    /// All sections in the order of the file.
    pub fn sections(&self) -> &[Arc<Section>] {
        &self.sections
    }

    /// The section at a position.
    pub fn section(&self, at: usize) -> Option<&Arc<Section>> {
        self.sections.get(at)
    }

    /// Position of the first section of that kind and name, in constant time. `name` is empty for sections without.
    pub fn find(&self, kind: &str, name: &str) -> Option<usize> {
        self.index.matches(&self.sections, kind, name).next()
    }

    /// Positions of all sections of that kind and name, ascending: more than one when the name is ambiguous.
    pub fn find_all(&self, kind: &str, name: &str) -> Vec<usize> {
        self.index.matches(&self.sections, kind, name).collect()
    }

    /// Where a new section of `kind` goes: behind the last of its kind, else at the end. From there to the next place
    /// that is not inside an `.if` block; when the file ends inside of one, to the last such place.
    pub fn place_for_new(&self, kind: &str) -> usize {
        let count = self.sections.len();
        let behind = self.sections.iter().rposition(|s| s.kind() == kind).map_or(count, |at| at + 1);
        let outside = |at: &usize| self.is_outside(*at);
        (behind..=count).find(outside).or_else(|| (0..behind).rev().find(outside)).unwrap_or(count)
    }

    /// True when a section that is inserted before the one at `at`, or at the end, is not inside an `.if` block.
    pub fn is_outside(&self, at: usize) -> bool {
        match self.sections.get(at) {
            Some(section) => section.entry == 0,
            None => self.sections.last().is_none_or(|last| last.exit() == 0),
        }
    }

    /// Puts another section in the place of one; the names may differ. Gives the old one back, or nothing when there
    /// is no section at `at`.
    pub fn replace_section(&mut self, at: usize, section: Section) -> Option<Arc<Section>> {
        if at >= self.sections.len() {
            return None;
        }
        let mut section = section;
        if at + 1 < self.sections.len() {
            section.complete();
        }
        let old = self.swap(at, section);
        self.settle(at + 1);
        self.settle(at);
        self.enter_around(at);
        Some(old)
    }

    /// A copy of the document with another section in the place of one; the same document when there is none at `at`.
    #[must_use]
    pub fn with_section(&self, at: usize, section: Section) -> Document {
        let mut document = self.clone();
        document.replace_section(at, section);
        document
    }

    /// Inserts a section before the one at `at`, or at the end. Adds the line ending that the text before may lack,
    /// and blank lines between sections when the file has them. Blank lines at the end of the file stay there.
    pub fn insert_section(&mut self, at: usize, section: Section) {
        let at = at.min(self.sections.len());
        let mut section = section;
        section.style = Arc::clone(&self.style);
        section.complete();
        self.complete_before(at);
        let ending = self.style.ending();
        let last = if at == self.sections.len() { self.take_blank_end() } else { Vec::new() };
        if !last.is_empty() {
            section.put(section.marks.len()..section.marks.len(), &last);
        }
        if self.style.spaced || !last.is_empty() {
            let starts_blank = section.marks[0].class == Class::Blank;
            if !starts_blank && !self.is_blank_before(at) {
                section.put(0..0, ending);
            }
            let next_starts_blank = |next: &Arc<Section>| next.marks[0].class == Class::Blank;
            if self.sections.get(at).is_some_and(|next| !next_starts_blank(next)) {
                self.edit(at, |next| next.put(0..0, ending));
            }
        }
        self.raw_insert(at, section);
        self.settle(at + 1);
        self.settle(at);
        self.enter_around(at);
    }

    /// Removes a section and the blank lines above it. Comments above its header stay, and so do directives whose
    /// block reaches beyond the section and blank lines at the end of the file. Nothing when there is no section at
    /// `at`.
    pub fn remove_section(&mut self, at: usize) -> Option<Arc<Section>> {
        let mut kept = kept_on_removal(self.sections.get(at)?);
        if at > 0 && at + 1 == self.sections.len() {
            let section = &self.sections[at];
            kept.extend_from_slice(&section.text()[section.start_of(section.marks.len() - section.blank_end())..]);
        }
        let gone = self.raw_remove(at);
        match at.checked_sub(1) {
            None => {
                let blank = self.preamble.is_empty() || ends_in_blank_line(&self.preamble);
                Arc::make_mut(&mut self.preamble).extend_from_slice(&kept);
                if blank && kept.is_empty() && !self.sections.is_empty() {
                    self.edit(0, |next| {
                        let blanks = next.marks[..next.header].iter().take_while(|m| m.class == Class::Blank).count();
                        next.put(0..blanks, b"");
                    });
                }
            }
            Some(before) if !kept.is_empty() => self.edit(before, |section| {
                section.complete();
                section.put(section.marks.len()..section.marks.len(), &kept);
            }),
            Some(_) => {}
        }
        self.settle(at);
        self.enter_around(at);
        Some(gone)
    }

    /// Cuts off the blank lines behind the last section.
    fn take_blank_end(&mut self) -> Vec<u8> {
        let Some(last) = self.sections.last() else { return Vec::new() };
        let (count, at) = (last.blank_end(), self.sections.len() - 1);
        if count == 0 {
            return Vec::new();
        }
        let marks = last.marks.len() - count..last.marks.len();
        let cut = last.text()[last.start_of(marks.start)..].to_vec();
        self.edit(at, |last| last.put(marks, b""));
        cut
    }

    fn edit(&mut self, at: usize, change: impl FnOnce(&mut Section)) {
        if let Some(section) = Arc::make_mut(&mut self.sections).get_mut(at) {
            change(Arc::make_mut(section));
        }
    }

    /// Puts `section` at `at`, which exists, and keeps the index.
    fn swap(&mut self, at: usize, section: Section) -> Arc<Section> {
        let mut fresh = section;
        fresh.style = Arc::clone(&self.style);
        fresh.entry = self.sections[at].entry;
        let old = &self.sections[at];
        let renamed = old.kind() != fresh.kind() || old.name() != fresh.name();
        if renamed {
            Arc::make_mut(&mut self.index).unlink(&self.sections, at);
        }
        let old = std::mem::replace(&mut Arc::make_mut(&mut self.sections)[at], Arc::new(fresh));
        if renamed {
            Arc::make_mut(&mut self.index).link(&self.sections, at);
        }
        old
    }

    fn raw_insert(&mut self, at: usize, section: Section) {
        Arc::make_mut(&mut self.sections).insert(at, Arc::new(section));
        Arc::make_mut(&mut self.index).inserted(&self.sections, at);
    }

    fn raw_remove(&mut self, at: usize) -> Arc<Section> {
        Arc::make_mut(&mut self.index).removing(&self.sections, at);
        Arc::make_mut(&mut self.sections).remove(at)
    }

    /// Gives the last line of the file the ending that it may lack: without it HAProxy takes the file for cut off.
    pub fn complete(&mut self) {
        self.complete_before(self.sections.len());
    }

    /// Completes the last line of the text before the section at `at`.
    fn complete_before(&mut self, at: usize) {
        match at.checked_sub(1) {
            Some(before) => {
                if self.sections[before].text().last() != Some(&b'\n') {
                    self.edit(before, Section::complete);
                }
            }
            None => {
                if self.preamble.last().is_some_and(|&b| b != b'\n') {
                    Arc::make_mut(&mut self.preamble).extend_from_slice(self.style.ending());
                }
            }
        }
    }

    /// True when nothing, or a blank line, stands directly above the text of the section at `at`.
    fn is_blank_before(&self, at: usize) -> bool {
        match at.checked_sub(1) {
            Some(before) => self.sections[before].marks.last().is_some_and(|m| m.class == Class::Blank),
            None => self.preamble.is_empty() || ends_in_blank_line(&self.preamble),
        }
    }

    /// Moves lines between the section before `at` and the lead of the one at `at`, so that the document is cut as its
    /// bytes would be when read afresh.
    fn settle(&mut self, at: usize) {
        let Some(next) = self.sections.get(at) else {
            return;
        };
        let Some(before) = at.checked_sub(1) else {
            let lead = next.lead().to_vec();
            if !lead.is_empty() {
                Arc::make_mut(&mut self.preamble).extend_from_slice(&lead);
                self.edit(0, |next| next.put(0..next.header, b""));
            }
            return;
        };
        let first = &self.sections[before];
        let (own, base) = (first.len(), first.header + 1);
        let place = |i: usize| if i < own { (first, base + i) } else { (next, i - own) };
        let kept = parse::keep(
            own + next.header,
            |i| {
                let (section, mark) = place(i);
                section.marks[mark].class
            },
            |i| {
                let (section, mark) = place(i);
                indent_of(section.mark_bytes(mark))
            },
            indent_of(next.header().raw()),
        );
        if kept < own {
            let moved = first.text()[first.start_of(base + kept)..].to_vec();
            self.edit(before, |s| s.put(base + kept..base + own, b""));
            self.edit(at, |s| s.put(0..0, &moved));
        } else if kept > own {
            let moved = next.text()[..next.start_of(kept - own)].to_vec();
            self.edit(at, |s| s.put(0..kept - own, b""));
            self.edit(before, |s| s.put(base + own..base + own, &moved));
        }
    }

    /// Tells the sections around `changed` how deep in `.if` blocks they begin, and the later ones until one of them
    /// knows already.
    fn enter_around(&mut self, changed: usize) {
        for at in changed.saturating_sub(1)..self.sections.len() {
            let entry = match at.checked_sub(1) {
                Some(before) => self.sections[before].exit(),
                None => parse::depth_behind(&self.preamble),
            };
            if self.sections[at].entry != entry {
                self.edit(at, |section| section.entry = entry);
            } else if at > changed + 1 {
                break;
            }
        }
    }
}

fn ends_in_blank_line(text: &[u8]) -> bool {
    let last = text.strip_suffix(b"\n").map(|rest| &rest[memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1)..]);
    last.is_some_and(|line| indent_of(line) == line.len())
}

/// The lines of a removed section that are not its own.
fn kept_on_removal(section: &Section) -> Vec<u8> {
    let mut kept = Vec::new();
    if section.marks[..section.header].iter().any(|m| m.class != Class::Blank) {
        kept.extend_from_slice(section.lead());
    }
    // Groups of directives that are open: the lines of each.
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut foreign: Vec<usize> = Vec::new();
    for (mark, line) in section.marks.iter().enumerate().skip(section.header + 1) {
        match line.class {
            Class::Open => open.push(vec![mark]),
            Class::Middle => open.last_mut().unwrap_or(&mut foreign).push(mark),
            Class::Close => match open.pop() {
                Some(_) => {}
                None => foreign.push(mark),
            },
            _ => {}
        }
    }
    foreign.extend(open.into_iter().flatten());
    foreign.sort_unstable();
    for mark in foreign {
        kept.extend_from_slice(section.mark_bytes(mark));
    }
    kept
}
