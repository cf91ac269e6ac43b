//! Cuts the bytes of a file into the preamble and sections. Total: any bytes are a document.

use std::sync::Arc;

use super::line::{Class, Mark, classify, indent_of, without_ending};
use super::section::{Section, line_spans};
use super::style::{Habits, Style};

/// A line as the first pass sees it; `end` is a position in the file.
struct RawLine {
    end: usize,
    class: Class,
}

/// What `Document::parse` is made of.
pub(super) struct Parsed {
    /// Bytes before the first section.
    pub(super) preamble: Vec<u8>,
    pub(super) sections: Vec<Arc<Section>>,
    pub(super) style: Arc<Style>,
}

/// Where a section's text begins, and its header.
struct Cut {
    first: usize,
    header: usize,
    kind: &'static str,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut lines: Vec<RawLine> = Vec::with_capacity(bytes.len() / 24);
    let mut cuts: Vec<Cut> = Vec::new();
    for (start, end) in line_spans(bytes) {
        let (class, keyword) = classify(without_ending(&bytes[start..end]));
        if let Some(kind) = keyword {
            cuts.push(Cut { first: lines.len(), header: lines.len(), kind });
        }
        lines.push(RawLine { end, class });
    }
    let start_of = |line: usize| line.checked_sub(1).map_or(0, |before| lines[before].end);
    let line_bytes = |line: usize| &bytes[start_of(line)..lines[line].end];

    let mut habits = Habits::default();
    for k in 0..cuts.len() {
        let header = cuts[k].header;
        if let Some(line) = lines.get(header + 1)
            && line.class == Class::Content
        {
            let first = line_bytes(header + 1);
            habits.indent(&first[..indent_of(first)]);
        }
        // All of the text before the first header is the preamble.
        if let Some(before) = k.checked_sub(1) {
            let from = cuts[before].header + 1;
            let kept = keep(
                header - from,
                |i| lines[from + i].class,
                |i| indent_of(line_bytes(from + i)),
                indent_of(line_bytes(header)),
            );
            cuts[k].first = from + kept;
            habits.boundary(lines[cuts[k].first].class == Class::Blank);
        }
    }
    let crlf = lines.first().is_some_and(|line| bytes[..line.end].ends_with(b"\r\n"));
    let style = Arc::new(habits.style(crlf));

    let mut entry = 0u16;
    let first = cuts.first().map_or(lines.len(), |cut| cut.first);
    let preamble = bytes[..start_of(first)].to_vec();
    for line in &lines[..first] {
        entry = step(entry, line.class).1;
    }
    let mut sections = Vec::with_capacity(cuts.len());
    for (k, cut) in cuts.iter().enumerate() {
        let until = cuts.get(k + 1).map_or(lines.len(), |next| next.first);
        let base = start_of(cut.first);
        let marks: Vec<Mark> = lines[cut.first..until]
            .iter()
            .map(|line| Mark { end: line.end - base, level: 0, class: line.class })
            .collect();
        let text = bytes[base..start_of(until)].to_vec();
        let mut section = Section::from_parts(text, marks, cut.header - cut.first, cut.kind, Arc::clone(&style));
        section.level_from(0);
        section.entry = entry;
        entry = section.exit();
        sections.push(Arc::new(section));
    }
    Parsed { preamble, sections, style }
}

/// Depth of a line of `class` and of the line behind it, from the depth behind the line before.
fn step(depth: u16, class: Class) -> (u16, u16) {
    let own = depth.saturating_sub(u16::from(class.closes()));
    (own, own.saturating_add(u16::from(class.opens())))
}

/// Depth behind the last line of `text`, which stands at the start of a file.
pub(super) fn depth_behind(text: &[u8]) -> u16 {
    line_spans(text).fold(0, |depth, (start, end)| step(depth, classify(without_ending(&text[start..end])).0).1)
}

/// How many of the `count` lines between two headers stay with the first section; the others are the second one's
/// lead.
///
/// Everything up to the last line that says something, or closes a block, stays. Of the rest these stay too:
/// comments that are indented more than the next header, and a block of comments that follows directly and is cut off
/// from the header by a blank line. So a comment block directly above a header belongs to that header, and an `.if`
/// to the section that it opens.
pub(super) fn keep(
    count: usize,
    class: impl Fn(usize) -> Class,
    indent: impl Fn(usize) -> usize,
    header_indent: usize,
) -> usize {
    let mut kept = count;
    while kept > 0 && matches!(class(kept - 1), Class::Blank | Class::Comment | Class::Open | Class::Message) {
        kept -= 1;
    }
    let opened = (kept..count).find(|&i| matches!(class(i), Class::Open | Class::Message)).unwrap_or(count);
    if let Some(deeper) = (kept..opened).rev().find(|&i| class(i) == Class::Comment && indent(i) > header_indent) {
        kept = deeper + 1;
    }
    let mut behind = kept;
    while behind < opened && class(behind) == Class::Comment {
        behind += 1;
    }
    if behind < opened { behind } else { kept }
}
