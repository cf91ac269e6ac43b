//! Sections that HAProxy reads as one: several `global` sections become one for whoever reads or edits them, and are put
//! apart again, each with the lines that it had.

use super::engine::Edited;
use crate::document::{Document, Section};
use crate::error::{Error, Result};

/// Begins the line between the lines of two sections. No file has such a line.
const BORDER: &[u8] = b"#\x01";

/// A document with one section in the place of several.
pub(super) struct Joined {
    document: Document,
    /// Where the sections stand in the document as it is.
    places: Vec<usize>,
}

/// The document with its sections of a kind in the place of the first one. `None` where there are not several.
pub(super) fn join(document: &Document, kind: &str) -> Result<Option<Joined>> {
    let places = document.find_all(kind, "");
    let ([first, others @ ..], true) = (&places[..], places.len() > 1) else { return Ok(None) };
    let mut text = document.sections()[*first].text().to_vec();
    for at in others {
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(BORDER);
        text.push(b'\n');
        text.extend_from_slice(&parts(&document.sections()[*at]).1);
    }
    let section = Section::from_text(text, document.style())?;
    let mut joined = document.with_section(*first, section);
    for at in others.iter().rev() {
        joined.remove_section(*at);
    }
    Ok(Some(Joined { document: joined, places }))
}

/// The line of a section behind which those of the next one stand.
pub(super) fn border(section: &Section) -> Option<usize> {
    section.lines().position(|line| line.raw().starts_with(BORDER))
}

/// What of a section ends with its header, and its lines.
fn parts(section: &Section) -> (Vec<u8>, Vec<u8>) {
    let length = section.lines().map(|line| line.raw_with_ending().len()).sum::<usize>();
    let (head, lines) = section.text().split_at(section.text().len() - length);
    (head.to_vec(), lines.to_vec())
}

impl Joined {
    /// The document to read or to edit.
    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    /// The sections as they are apart in `document`, with what was edited where they were one.
    pub(super) fn apart(&self, document: &Document, edited: Edited) -> Result<Edited> {
        let first = self.places.first().copied().unwrap_or_default();
        let whole = edited.document.section(first).ok_or_else(|| Error::internal("the joined section is gone"))?;
        let (head, lines) = parts(whole);
        let mut texts = vec![head];
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(BORDER) {
                let at = self.places.get(texts.len()).and_then(|at| document.section(*at));
                texts.push(at.map(|section| parts(section).0).unwrap_or_default());
            } else if let Some(text) = texts.last_mut() {
                text.extend_from_slice(line);
            }
        }
        let mut apart = document.clone();
        for (at, text) in self.places.iter().zip(texts) {
            if document.section(*at).is_some_and(|section| section.text() != text) {
                apart.replace_section(*at, Section::from_text(text, document.style())?);
            }
        }
        Ok(Edited { document: apart, unused: edited.unused })
    }
}
