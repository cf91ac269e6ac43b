//! What a line is: its class, its conditional depth, its words.

use std::borrow::Cow;

use crate::schema::odd;
use crate::schema::words::{self, Words, is_blank};

/// Keywords that begin a section wherever they are the first word of a line. HAProxy gives them no other meaning.
///
/// Those of SPOE files are among them: in haproxy.cfg they mean nothing, and the others mean nothing there.
pub const SECTION_KEYWORDS: &[&str] = &[
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "healthcheck",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "spoe-agent",
    "spoe-group",
    "spoe-message",
    "traces",
    "userlist",
];

/// What a line is to an editor of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// Nothing but blanks.
    Blank,
    /// A `#` is its first byte that is not a blank.
    Comment,
    /// Its first word begins with a dot: `.if`, `.elif`, `.else`, `.endif`, `.notice`, `.warning`, `.alert`, `.diag`.
    Directive,
    /// Anything else: a keyword with its arguments, known to somebody or not.
    Content,
}

/// As `LineKind`, with directives told apart by what they do to the depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Blank,
    Comment,
    /// `.if`
    Open,
    /// `.elif`, `.else`
    Middle,
    /// `.endif`
    Close,
    /// A directive that only prints, or one that HAProxy does not know.
    Message,
    Content,
    /// The header of a section.
    Header,
}

impl Class {
    /// True when the lines behind it are one level deeper than itself.
    pub(super) fn opens(self) -> bool {
        matches!(self, Class::Open | Class::Middle)
    }

    /// True when it is one level less deep than the line above.
    pub(super) fn closes(self) -> bool {
        matches!(self, Class::Middle | Class::Close)
    }
}

/// Where a line of a section ends, what it is, and how deep in `.if` blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Byte position behind the line's ending, from the start of the section's text.
    pub(super) end: usize,
    /// Depth relative to the start of the section's text; below zero behind an `.endif` of a block opened further up.
    pub(super) level: i16,
    pub(super) class: Class,
}

impl Mark {
    /// Depth of the line that follows, if it does not close a block itself.
    pub(super) fn after(self) -> i16 {
        self.level.saturating_add(i16::from(self.class.opens()))
    }
}

/// A line of a section. Logical lines are physical lines: HAProxy knows no continuation, a backslash at the end of a
/// line is a literal backslash (an escaped line feed inside a word is written `\n`).
#[derive(Debug, Clone, Copy)]
pub struct LineRef<'a> {
    raw: &'a [u8],
    class: Class,
    depth: u16,
}

impl<'a> LineRef<'a> {
    pub(super) fn new(raw: &'a [u8], class: Class, depth: u16) -> Self {
        LineRef { raw, class, depth }
    }

    /// The bytes with indentation and comment, without the line ending.
    pub fn raw(&self) -> &'a [u8] {
        without_ending(self.raw)
    }

    /// The same bytes and the line ending: `\n`, `\r\n`, or nothing at the end of a file that lacks it.
    pub fn raw_with_ending(&self) -> &'a [u8] {
        self.raw
    }

    /// The text of `raw`, with stand-ins for bytes that are not UTF-8. A document has nothing but text.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.raw()).ok()
    }

    /// False when what the line says holds bytes of the file that are not UTF-8.
    pub fn is_utf8(&self) -> bool {
        self.text().is_some_and(|text| !odd::holds(&text[..words::split(text).end]))
    }

    /// What the line is.
    pub fn kind(&self) -> LineKind {
        match self.class {
            Class::Blank => LineKind::Blank,
            Class::Comment => LineKind::Comment,
            Class::Open | Class::Middle | Class::Close | Class::Message => LineKind::Directive,
            Class::Content | Class::Header => LineKind::Content,
        }
    }

    /// How many `.if` blocks of the file enclose the line. The directives themselves count as outside of their block.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// The raw words, quotes and escapes included.
    pub fn words(&self) -> Words<'a> {
        words::split(self.text().unwrap_or_default())
    }

    /// The trailing comment from its `#` on.
    pub fn comment(&self) -> Option<&'a str> {
        let text = self.text()?;
        words::split(text).comment.map(|at| &text[at..])
    }
}

/// `line` without `\n` or `\r\n` at its end.
pub(super) fn without_ending(line: &[u8]) -> &[u8] {
    match line {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n'] => rest,
        _ => line,
    }
}

/// Bytes of blanks at the start of `line`.
pub(super) fn indent_of(line: &[u8]) -> usize {
    line.iter().position(|&b| !is_blank(b)).unwrap_or(line.len())
}

/// Tells what `line` is, and which section a header begins.
pub(super) fn classify(line: &[u8]) -> (Class, Option<&'static str>) {
    let rest = &line[indent_of(line)..];
    match rest.first() {
        None => return (Class::Blank, None),
        Some(b'#') => return (Class::Comment, None),
        Some(_) => {}
    }
    let word = first_word(rest);
    if word.first() == Some(&b'.') {
        let class = match &*word {
            b".if" => Class::Open,
            b".elif" | b".else" => Class::Middle,
            b".endif" => Class::Close,
            _ => Class::Message,
        };
        return (class, None);
    }
    match section_keyword(&word) {
        Some(keyword) => (Class::Header, Some(keyword)),
        None => (Class::Content, None),
    }
}

/// The first word of `rest`, which begins with it, as HAProxy reads it.
fn first_word(rest: &[u8]) -> Cow<'_, [u8]> {
    let word = words::first(rest);
    words::meaning(word, &|_| None).unwrap_or(Cow::Borrowed(word))
}

fn section_keyword(word: &[u8]) -> Option<&'static str> {
    let keyword = match word {
        b"acme" => "acme",
        b"backend" => "backend",
        b"cache" => "cache",
        b"crt-store" => "crt-store",
        b"defaults" => "defaults",
        b"fcgi-app" => "fcgi-app",
        b"frontend" => "frontend",
        b"global" => "global",
        b"healthcheck" => "healthcheck",
        b"http-errors" => "http-errors",
        b"listen" => "listen",
        b"log-forward" => "log-forward",
        b"log-profile" => "log-profile",
        b"mailers" => "mailers",
        b"peers" => "peers",
        b"program" => "program",
        b"resolvers" => "resolvers",
        b"ring" => "ring",
        b"spoe-agent" => "spoe-agent",
        b"spoe-group" => "spoe-group",
        b"spoe-message" => "spoe-message",
        b"traces" => "traces",
        b"userlist" => "userlist",
        _ => return None,
    };
    Some(keyword)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_keyword_begins_a_section_quoted_or_indented() {
        for &keyword in SECTION_KEYWORDS {
            for line in [
                keyword.to_owned(),
                format!(" \t{keyword} x"),
                format!("\"{keyword}\" x"),
                format!("{keyword}#"),
                format!("'{}'{} x", &keyword[..2], &keyword[2..]),
                format!("\\x{:02x}{}", keyword.as_bytes()[0], &keyword[1..]),
            ] {
                assert_eq!(classify(line.as_bytes()), (Class::Header, Some(keyword)), "{line}");
            }
            assert_eq!(classify(format!("no {keyword} x").as_bytes()).0, Class::Content);
            assert_eq!(classify(format!("{keyword}x").as_bytes()).0, Class::Content);
        }
    }

    #[test]
    fn directives_change_the_depth_by_their_first_word() {
        for (line, class) in [
            (".if defined(A)", Class::Open),
            ("  .elif 1", Class::Middle),
            (".else", Class::Middle),
            ("\t.endif # x", Class::Close),
            ("\".endif\"", Class::Close),
            (".notice \"x\"", Class::Message),
            (".IF 1", Class::Message),
            ("# .if", Class::Comment),
            ("bind .if", Class::Content),
            (" \t\r", Class::Blank),
            ("\\.if", Class::Content),
            ("\\x2eif 1", Class::Open),
        ] {
            assert_eq!(classify(line.as_bytes()).0, class, "{line}");
        }
    }

    #[test]
    fn a_carriage_return_belongs_to_the_ending_only_before_a_line_feed() {
        assert_eq!(without_ending(b"a\r\n"), b"a");
        assert_eq!(without_ending(b"a\n"), b"a");
        assert_eq!(without_ending(b"a\r"), b"a\r");
        assert_eq!(without_ending(b"\n"), b"");
    }
}
