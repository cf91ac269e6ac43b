//! A section: the text above its header that belongs to it, the header, its lines.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::index::identity;
use super::line::{Class, LineRef, Mark, classify, indent_of, without_ending};
use super::style::Style;
use crate::error::{Error, Reason, Result};
use crate::schema::{odd, words};

/// One section of haproxy.cfg as one piece of text and the positions of its lines.
///
/// The text begins with the *lead*: blank lines, comments and `.if` lines above the header that belong to no line of
/// the section before. Lines are counted from the one below the header. The order of the three parts is the order of
/// the bytes in the file, and printing a section is copying its text.
#[derive(Debug, Clone)]
pub struct Section {
    pub(super) text: Vec<u8>,
    pub(super) marks: Vec<Mark>,
    /// Which mark is the header's: the number of lines of the lead.
    pub(super) header: usize,
    pub(super) entry: u16,
    pub(super) style: Arc<Style>,
    kind: &'static str,
    name: Box<str>,
    identity: u64,
}

/// Edits of a section's lines, by the positions that they have before.
#[derive(Debug, Default)]
pub struct LineEdits {
    /// New text of a line; nothing: the line goes.
    pub changed: BTreeMap<usize, Option<String>>,
    /// New lines before a line; at the number of lines: behind the last one.
    pub before: BTreeMap<usize, Vec<String>>,
}

impl PartialEq for Section {
    /// Sections are equal when their bytes are.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Section {}

impl Section {
    /// A section with a header and no lines. `header` is the whole header line, `backend b1 from d` or `global`.
    /// `style` is that of the document it is meant for.
    pub fn new(header: &str, style: &Arc<Style>) -> Result<Section> {
        let mut text = one_line(header)?.as_bytes().to_vec();
        text.extend_from_slice(style.ending());
        Section::from_text(text, style)
    }

    /// Reads a section back from its text, as `text` gives it.
    ///
    /// Fails when `text` has no header or more than one.
    pub fn from_text(text: Vec<u8>, style: &Arc<Style>) -> Result<Section> {
        let mut marks = Vec::new();
        let mut header = None;
        for (start, end) in line_spans(&text) {
            let (class, keyword) = classify(without_ending(&text[start..end]));
            if let Some(keyword) = keyword
                && header.replace((marks.len(), keyword)).is_some()
            {
                return Err(Error::new(Reason::InvalidValue, "section text has more than one section header"));
            }
            marks.push(Mark { end, level: 0, class });
        }
        let Some((header, kind)) = header else {
            return Err(Error::new(Reason::InvalidValue, "section text has no section header"));
        };
        let mut section = Section::from_parts(text, marks, header, kind, Arc::clone(style));
        section.level_from(0);
        Ok(section)
    }

    /// Puts a section together; the levels of `marks` are the caller's duty.
    pub(super) fn from_parts(
        text: Vec<u8>,
        marks: Vec<Mark>,
        header: usize,
        kind: &'static str,
        style: Arc<Style>,
    ) -> Section {
        let mut section = Section { text, marks, header, entry: 0, style, kind, name: Box::default(), identity: 0 };
        section.read_name();
        section
    }

    fn read_name(&mut self) {
        let line = odd::shown(self.header().text().unwrap_or_default()).into_owned();
        let words = words::split(&line).words;
        // HAProxy reads a quoted name as the name. One that is not set by the file alone stays as it is written.
        let name = words::plain(words.get(1).copied().unwrap_or_default());
        let name: Box<str> = match (self.kind, &*name) {
            // Kinds without names; and `defaults from base`, which has none either.
            ("global" | "traces", _) | ("defaults", "from") => "".into(),
            (_, name) => name.into(),
        };
        self.identity = identity(self.kind, &name);
        self.name = name;
    }

    /// The section's keyword: `backend`.
    pub fn kind(&self) -> &str {
        self.kind
    }

    /// The raw word behind the keyword, quotes included; empty for sections without a name. Bytes that are not UTF-8
    /// are shown as U+FFFD.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// The header line.
    pub fn header(&self) -> LineRef<'_> {
        self.mark_line(self.header)
    }

    /// The raw words of the header, the keyword first.
    pub fn header_words(&self) -> Vec<&str> {
        self.header().words().words
    }

    /// All bytes of the section: lead, header, lines.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The bytes above the header: blank lines, comments, `.if` lines.
    pub fn lead(&self) -> &[u8] {
        &self.text[..self.start_of(self.header)]
    }

    /// The lines below the header, in order.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = LineRef<'_>> + ExactSizeIterator {
        (self.header + 1..self.marks.len()).map(|at| self.mark_line(at))
    }

    /// Line `i`, counted from 0 below the header.
    pub fn line(&self, i: usize) -> Option<LineRef<'_>> {
        let at = i.checked_add(self.header + 1)?;
        (at < self.marks.len()).then(|| self.mark_line(at))
    }

    /// Number of lines below the header, blank lines and comments included.
    pub fn len(&self) -> usize {
        self.marks.len() - self.header - 1
    }

    /// True when nothing stands below the header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many `.if` blocks enclose the header.
    pub fn depth(&self) -> u16 {
        self.header().depth()
    }

    /// Layout of the file that the section is from.
    pub fn style(&self) -> &Arc<Style> {
        &self.style
    }

    /// Depth behind the last line, as the next section meets it.
    pub(super) fn exit(&self) -> u16 {
        absolute(self.entry, self.marks.last().map_or(0, |m| m.after()))
    }

    pub(super) fn start_of(&self, mark: usize) -> usize {
        match mark.checked_sub(1) {
            Some(before) => self.marks[before].end,
            None => 0,
        }
    }

    pub(super) fn mark_bytes(&self, mark: usize) -> &[u8] {
        &self.text[self.start_of(mark)..self.marks[mark].end]
    }

    fn mark_line(&self, at: usize) -> LineRef<'_> {
        let mark = self.marks[at];
        LineRef::new(self.mark_bytes(at), mark.class, absolute(self.entry, mark.level))
    }

    /// Works out the levels again from mark `from` on.
    pub(super) fn level_from(&mut self, from: usize) {
        let mut level = match from.checked_sub(1) {
            Some(before) => self.marks[before].after(),
            None => 0,
        };
        for mark in &mut self.marks[from..] {
            if mark.class.closes() {
                level = level.saturating_sub(1);
            }
            mark.level = level;
            level = mark.after();
        }
    }

    /// Replaces whole lines by whole lines, by marks; no line of `bytes` is a header.
    pub(super) fn put(&mut self, range: Range<usize>, bytes: &[u8]) {
        let (from, to) = (self.start_of(range.start), self.start_of(range.end));
        let fresh: Vec<Mark> = line_spans(bytes)
            .map(|(start, end)| Mark {
                end: from + end,
                level: 0,
                class: classify(without_ending(&bytes[start..end])).0,
            })
            .collect();
        for mark in &mut self.marks[range.end..] {
            mark.end = mark.end - (to - from) + bytes.len();
        }
        if range.end <= self.header {
            self.header = self.header - range.len() + fresh.len();
        }
        self.text.splice(from..to, bytes.iter().copied());
        let first = range.start;
        self.marks.splice(range, fresh);
        self.level_from(first);
    }

    /// How many blank lines it ends with.
    pub(super) fn blank_end(&self) -> usize {
        self.marks[self.header + 1..].iter().rev().take_while(|mark| mark.class == Class::Blank).count()
    }

    /// Gives the last line the ending that it lacks.
    pub(super) fn complete(&mut self) {
        if self.text.last() != Some(&b'\n') {
            self.text.extend_from_slice(self.style.ending());
            if let Some(mark) = self.marks.last_mut() {
                mark.end = self.text.len();
            }
        }
    }

    /// Replaces the header, for example to rename the section. `header` is the whole line, as in `new`; indentation,
    /// trailing comment and line ending stay.
    pub fn set_header_text(&mut self, header: &str) -> Result<()> {
        let header = one_line(header)?;
        let (Class::Header, Some(kind)) = classify(header.as_bytes()) else {
            return Err(Error::new(Reason::InvalidValue, "section header must begin with a section keyword"));
        };
        let line = rewritten(self.header(), header)?;
        self.put(self.header..self.header + 1, &line);
        self.kind = kind;
        self.read_name();
        Ok(())
    }

    /// Replaces the lines of `range` by `texts`. A text that says the same as the line in its place leaves that line
    /// as it is, comment included; other lines go whole. New lines are indented as the lines that they replace or,
    /// beyond those, as their neighbours. The range is cut to the lines that exist.
    pub fn splice(&mut self, range: Range<usize>, texts: &[impl AsRef<str>]) -> Result<()> {
        let end = range.end.min(self.len());
        let range = range.start.min(end)..end;
        let mut bytes = Vec::new();
        let usual = self.indent_at(range.start);
        for (k, text) in texts.iter().enumerate() {
            let text = content_line(text.as_ref())?;
            if bytes.last().is_some_and(|&b| b != b'\n') {
                bytes.extend_from_slice(self.style.ending());
            }
            let replaced = (k < range.len()).then(|| self.mark_line(self.header + 1 + range.start + k));
            if let Some(line) = replaced
                && line.text().is_some_and(|old| said(old) == text)
            {
                bytes.extend_from_slice(line.raw_with_ending());
                continue;
            }
            if !text.is_empty() {
                let indent = match replaced {
                    Some(line) if line.kind() != super::LineKind::Blank => &line.raw()[..indent_of(line.raw())],
                    _ => &usual,
                };
                bytes.extend_from_slice(indent);
            }
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(self.style.ending());
        }
        self.put_lines(range, &bytes);
        Ok(())
    }

    /// As `put`, by lines; completes a last line that lacks its ending when something comes behind it.
    fn put_lines(&mut self, range: Range<usize>, bytes: &[u8]) {
        if range.start == self.len() && !bytes.is_empty() {
            self.complete();
        }
        let base = self.header + 1;
        self.put(base + range.start..base + range.end, bytes);
    }

    /// Replaces what line `i` says; indentation, trailing comment with the blanks before it, and line ending stay. A
    /// text with a comment of its own replaces the comment too.
    pub fn replace_line(&mut self, i: usize, text: impl AsRef<str>) -> Result<()> {
        let text = content_line(text.as_ref())?;
        let Some(old) = self.line(i) else {
            return Err(no_line(i));
        };
        let line = rewritten(old, text)?;
        self.put_lines(i..i + 1, &line);
        Ok(())
    }

    /// Makes line `i` this text as it is: indentation and line ending stay, a comment does not.
    pub fn set_line(&mut self, i: usize, text: impl AsRef<str>) -> Result<()> {
        let text = content_line(text.as_ref())?;
        let Some(old) = self.line(i) else {
            return Err(no_line(i));
        };
        let raw = old.raw();
        let mut line = if text.is_empty() { Vec::new() } else { raw[..indent_of(raw)].to_vec() };
        if old.kind() == super::LineKind::Blank && !text.is_empty() {
            line = self.indent_at(i);
        }
        line.extend_from_slice(text.as_bytes());
        line.extend_from_slice(&old.raw_with_ending()[raw.len()..]);
        self.put_lines(i..i + 1, &line);
        Ok(())
    }

    /// Inserts lines before line `at` and says where the first one is now. Comments directly above a line belong to
    /// it: the new lines go above them. Directly behind the last line when `at` is the number of lines or more.
    pub fn insert_lines(&mut self, at: usize, texts: &[impl AsRef<str>]) -> Result<usize> {
        let at = self.above_comments(at.min(self.len()));
        self.splice(at..at, texts)?;
        Ok(at)
    }

    /// Carries out many edits of lines in one pass; positions are those before it. Lines are rewritten as by
    /// `replace_line` and come in as by `insert_lines`.
    pub fn edit_lines(&mut self, edits: &LineEdits) -> Result<()> {
        let mut before: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (at, texts) in &edits.before {
            let at = self.above_comments((*at).min(self.len()));
            before.entry(at).or_default().extend(texts.iter().map(String::as_str));
        }
        let keys = || edits.changed.keys().chain(before.keys()).copied();
        let Some(first) = keys().min() else { return Ok(()) };
        let end = edits.changed.keys().max().map_or(0, |at| at + 1).max(keys().max().unwrap_or(0)).min(self.len());
        let mut bytes = Vec::new();
        for at in first..=end {
            for text in before.get(&at).map_or(&[][..], Vec::as_slice) {
                if bytes.last().is_some_and(|&b| b != b'\n') {
                    bytes.extend_from_slice(self.style.ending());
                }
                bytes.extend_from_slice(&self.indent_at(at));
                bytes.extend_from_slice(content_line(text)?.as_bytes());
                bytes.extend_from_slice(self.style.ending());
            }
            let Some(line) = self.line(at).filter(|_| at < end) else { continue };
            match edits.changed.get(&at) {
                None => bytes.extend_from_slice(line.raw_with_ending()),
                Some(None) => {}
                Some(Some(text)) => bytes.extend_from_slice(&rewritten(line, content_line(text)?)?),
            }
        }
        self.put_lines(first..end, &bytes);
        Ok(())
    }

    /// Where a line goes that is to stand before line `at`: above the comments that belong to that one.
    fn above_comments(&self, mut at: usize) -> usize {
        let owns = self.line(at).is_some_and(|_| {
            matches!(self.marks[self.header + 1 + at].class, Class::Content | Class::Open | Class::Message)
        });
        while owns && at > 0 && self.marks[self.header + at].class == Class::Comment {
            at -= 1;
        }
        at
    }

    /// Inserts a line behind the last one that says something at the level of the header: not inside an `.if` block,
    /// before blank lines and comments at the end. Says where it is now.
    pub fn append_line(&mut self, text: impl AsRef<str>) -> Result<usize> {
        let at = self.end_of_content();
        self.splice(at..at, &[text])?;
        Ok(at)
    }

    /// Number of lines up to the place where `append_line` inserts.
    pub fn end_of_content(&self) -> usize {
        let body = &self.marks[self.header + 1..];
        let home = self.marks[self.header].level;
        let mut end = 0;
        for (i, mark) in body.iter().enumerate() {
            if mark.level < home {
                break;
            }
            if mark.after() == home && !matches!(mark.class, Class::Blank | Class::Comment) {
                end = i + 1;
            }
        }
        end
    }

    /// Removes line `i`. Comments above it stay: what the user wrote is the user's to remove.
    pub fn remove_line(&mut self, i: usize) -> Result<()> {
        if i >= self.len() {
            return Err(no_line(i));
        }
        self.put_lines(i..i + 1, b"");
        Ok(())
    }

    /// Indentation for a new line before line `at`: that of the nearest content line of the same depth, looking up
    /// first, else of any, else the file's.
    fn indent_at(&self, at: usize) -> Vec<u8> {
        let level = self.marks[self.header + at].after();
        let first = self.header + 1;
        let split = first + at;
        let content = |&m: &usize| self.marks[m].class == Class::Content;
        let near = |same: bool| {
            let fits = |m: &usize| content(m) && (!same || self.marks[*m].level == level);
            (first..split).rev().find(fits).or_else(|| (split..self.marks.len()).find(fits))
        };
        match near(true).or_else(|| near(false)) {
            Some(mark) => {
                let bytes = self.mark_bytes(mark);
                bytes[..indent_of(bytes)].to_vec()
            }
            None => self.style.indent.as_bytes().to_vec(),
        }
    }
}

fn absolute(entry: u16, level: i16) -> u16 {
    entry.saturating_add_signed(level)
}

/// Start and end of each line of `text`, endings included.
pub(super) fn line_spans(text: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == text.len() {
            return None;
        }
        let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at + 1);
        let span = (start, end);
        start = end;
        Some(span)
    })
}

/// What a line says: without indentation, comment and the blanks around them. A comment line says itself.
fn said(line: &str) -> &str {
    let line = line.trim_matches(|c: char| c.is_ascii() && words::is_blank(c as u8));
    if line.starts_with('#') { line } else { &line[..words::split(line).end] }
}

/// The new bytes of `old` when it says `text`.
fn rewritten(old: LineRef<'_>, text: &str) -> Result<Vec<u8>> {
    let line = old.text().unwrap_or_default();
    let indent = indent_of(line.as_bytes());
    let words = words::split(line);
    let mut bytes = line.as_bytes()[..indent].to_vec();
    bytes.extend_from_slice(text.as_bytes());
    if words.comment.is_some_and(|at| at > indent) {
        let fresh = words::split(text);
        if !fresh.closed {
            return Err(Error::new(
                Reason::InvalidValue,
                "line with an open quote or escape would swallow its comment",
            ));
        }
        if fresh.comment.is_none() {
            bytes.extend_from_slice(&old.raw()[words.end..]);
        }
    }
    bytes.extend_from_slice(&old.raw_with_ending()[old.raw().len()..]);
    Ok(bytes)
}

fn no_line(i: usize) -> Error {
    Error::new(Reason::InvalidValue, format!("section has no line {i}"))
}

/// `text` without indentation, when it is one line.
fn one_line(text: &str) -> Result<&str> {
    if text.bytes().any(|b| matches!(b, b'\n' | b'\r' | 0)) {
        return Err(Error::new(Reason::InvalidValue, "line holds a line break or a NUL"));
    }
    Ok(text.trim_start_matches(|c: char| c.is_ascii() && words::is_blank(c as u8)))
}

/// As `one_line`, when it does not begin another section: a value must never be able to do that.
fn content_line(text: &str) -> Result<&str> {
    let text = one_line(text)?;
    match classify(text.as_bytes()) {
        (_, Some(keyword)) => {
            Err(Error::new(Reason::InvalidValue, format!("line begins with the section keyword {keyword}")))
        }
        _ => Ok(text),
    }
}
