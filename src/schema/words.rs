//! Splits a line of haproxy.cfg into raw words, the way HAProxy does but without removing anything.
//!
//! Quotes, backslashes and `${NAME}` stay part of the word: values of the API are raw words of the file. [`meaning`] tells
//! what HAProxy reads them as.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The raw words of one line and where its comment begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "the words are what it holds")]
pub struct Words<'a> {
    /// Words in order.
    pub words: Vec<&'a str>,
    /// Byte position of the `#` that begins the trailing comment.
    pub comment: Option<usize>,
    /// Byte position just behind the last word.
    pub end: usize,
    /// False when a quote is left open or the line ends in a lone backslash.
    pub closed: bool,
}

/// True for the bytes that separate words.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

/// Splits `line`. A `#` outside quotes begins a comment, also in the middle of a word, as in HAProxy.
pub fn split(line: &str) -> Words<'_> {
    let bytes = line.as_bytes();
    let mut out = Words { words: Vec::new(), comment: None, end: 0, closed: true };
    let mut at = 0;
    while at < bytes.len() {
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        if bytes[at] == b'#' {
            out.comment = Some(at);
            break;
        }
        let start = at;
        at = word_end(bytes, at, &mut out.closed);
        out.words.push(&line[start..at]);
        out.end = at;
    }
    out
}

/// The raw word at the start of `line`, which begins with it.
pub fn first(line: &[u8]) -> &[u8] {
    &line[..word_end(line, 0, &mut true)]
}

/// Position behind the word that begins at `at`. Clears `closed` when a quote or an escape is left open.
fn word_end(bytes: &[u8], mut at: usize, closed: &mut bool) -> usize {
    let mut quote = 0u8;
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (0, b'#') => return at,
            (0, blank) if is_blank(blank) => return at,
            (0 | b'"', b'\\') => {
                if at + 1 == bytes.len() {
                    *closed = false;
                }
                at += 1;
            }
            (0, b'"' | b'\'') => quote = byte,
            (open, close) if open == close && open != 0 => quote = 0,
            _ => {}
        }
        at += 1;
    }
    if quote != 0 {
        *closed = false;
    }
    bytes.len()
}

/// True when `text` is exactly one word of the file: not empty, nothing that splits, ends or comments it, and no line
/// break or NUL even in quotes.
pub fn is_one_word(text: &str) -> bool {
    if breaks_line(text) {
        return false;
    }
    let words = split(text);
    words.closed && words.comment.is_none() && words.words.len() == 1 && words.words[0].len() == text.len()
}

/// A text as those see it who ask for a word without blanks: each blank that quotes or escapes hold together with the rest
/// of a word is an underscore. A text that is not one word of the file stays as it is.
pub fn without_held_blanks(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_whitespace) && is_one_word(text) {
        return Cow::Owned(text.replace(char::is_whitespace, "_"));
    }
    Cow::Borrowed(text)
}

/// True when `text` can stand in a line as words: no line break, NUL, open quote or bare `#`.
pub fn is_words(text: &str) -> bool {
    if breaks_line(text) {
        return false;
    }
    let words = split(text);
    words.closed && words.comment.is_none() && !words.words.is_empty()
}

/// The bytes that HAProxy reads a raw word as: without quotes, with escapes and, in double quotes, variables replaced.
/// `variable` looks up a variable; one that is not set stands for nothing. `None` for what HAProxy refuses: an open quote
/// or brace, a bad name of a variable, `\\x` without two hexadecimal digits.
pub fn meaning<'w>(
    word: &'w (impl AsRef<[u8]> + ?Sized),
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<Cow<'w, [u8]>> {
    let word = word.as_ref();
    if !is_marked(word) {
        return Some(Cow::Borrowed(word));
    }
    let mut out = Vec::with_capacity(word.len());
    let mut quote = 0u8;
    let mut rest = word;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (quote, byte) {
            (0, b'"' | b'\'') => quote = byte,
            (open, close) if open == close && open != 0 => quote = 0,
            (0 | b'"', b'\\') => rest = escape(behind, &mut out)?,
            (b'"', b'$') => rest = expand(behind, variable, &mut out)?,
            _ => out.push(byte),
        }
    }
    (quote == 0).then_some(Cow::Owned(out))
}

/// The quote that is open behind the first `at` bytes of a raw word.
pub fn quote_at(word: &str, at: usize) -> Option<char> {
    let mut quote = Quote::default();
    quote.pass(&word.as_bytes()[..at.min(word.len())]);
    quote.open
}

/// Where quotes open and close in a raw word, byte after byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quote {
    /// The one that is open.
    pub open: Option<char>,
    escaped: bool,
}

impl Quote {
    /// Goes on behind some more bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.open, byte) {
                _ if self.escaped => self.escaped = false,
                (None | Some('"'), b'\\') => self.escaped = true,
                (None, b'"' | b'\'') => self.open = Some(char::from(*byte)),
                (Some(quote), byte) if quote == char::from(*byte) => self.open = None,
                _ => {}
            }
        }
    }
}

/// True for a raw word with quotes or escapes.
pub fn is_marked(word: impl AsRef<[u8]>) -> bool {
    memchr::memchr3(b'"', b'\'', b'\\', word.as_ref()).is_some()
}

/// A raw word without its quotes and escapes where it needs none: what HAProxy reads is one word without them, and no
/// variable has a part in it. Any other word as it is.
pub fn plain(word: &str) -> Cow<'_, str> {
    if !is_marked(word) || word.contains('$') {
        return Cow::Borrowed(word);
    }
    let meant = meaning(word, &|_| None).and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
    match meant {
        Some(meant) if is_one_word(&meant) && !is_marked(&meant) => Cow::Owned(meant),
        _ => Cow::Borrowed(word),
    }
}

/// The words of a text, each plain where it can be, with one blank between them.
pub fn plain_text(text: &str) -> String {
    split(text).words.iter().map(|word| plain(word)).collect::<Vec<_>>().join(" ")
}

/// What HAProxy reads a raw word as, to compare names by. A word that a variable may have a part in, or that HAProxy
/// refuses, stays as it is.
pub fn name_bytes(word: &str) -> Cow<'_, [u8]> {
    let meant = if word.contains('$') { None } else { meaning(word, &|_| None) };
    meant.unwrap_or(Cow::Borrowed(word.as_bytes()))
}

/// A text with its control characters as the escapes that HAProxy reads as them. Single quotes know no escapes, so that
/// they are closed around one. Blanks such as a tab stay in quotes; outside they are escaped only in `one_word`, else
/// they separate words. NUL stays: no escape lets HAProxy hold it.
pub fn escaped(text: &str, one_word: bool) -> Cow<'_, str> {
    if !text.contains(|letter: char| letter.is_ascii_control()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_escaped = |letter: char| needs_escape(letter, one_word && quote.is_none());
        if is_escaped(letter) {
            if quote == Some('\'') {
                out.push('\'');
            }
            push_escape(letter, &mut out);
            while let Some(next) = letters.next_if(|next| is_escaped(*next)) {
                push_escape(next, &mut out);
            }
            if quote == Some('\'') {
                out.push('\'');
            }
            continue;
        }
        out.push(letter);
        match (quote, letter) {
            // In front of a control character a backslash stands for itself, and so it does when it is doubled.
            (None | Some('"'), '\\') if letters.peek().is_some_and(|next| needs_escape(*next, false)) => out.push('\\'),
            (None | Some('"'), '\\') => out.extend(letters.next()),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    Cow::Owned(out)
}

fn needs_escape(letter: char, with_blanks: bool) -> bool {
    match letter {
        '\0' => false,
        '\t' | '\u{b}' | '\u{c}' => with_blanks,
        letter => letter.is_ascii_control(),
    }
}

fn push_escape(letter: char, out: &mut String) {
    match letter {
        '\t' => out.push_str("\\t"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        letter => drop(write!(out, "\\x{:02x}", u32::from(letter))),
    }
}

/// Adds what a backslash and the bytes `behind` it stand for, and returns the bytes behind that. A backslash in front of
/// any other byte stands for itself.
fn escape<'w>(behind: &'w [u8], out: &mut Vec<u8>) -> Option<&'w [u8]> {
    let (&byte, rest) = behind.split_first()?;
    out.push(match byte {
        b' ' | b'\\' | b'#' | b'"' | b'\'' | b'$' => byte,
        b't' => b'\t',
        b'n' => b'\n',
        b'r' => b'\r',
        b'x' => {
            let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            return rest.get(2..);
        }
        _ => {
            out.push(b'\\');
            return Some(behind);
        }
    });
    Some(rest)
}

/// Adds the value of the variable that is named `behind` a dollar sign: `NAME`, `{NAME}`, `{NAME-default}` or
/// `{NAME[*]}`. Returns the bytes behind it.
fn expand<'w>(behind: &'w [u8], variable: &dyn Fn(&str) -> Option<String>, out: &mut Vec<u8>) -> Option<&'w [u8]> {
    let inner = behind.strip_prefix(b"{");
    let text = inner.unwrap_or(behind);
    let dot = usize::from(text.first() == Some(&b'.'));
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = dot + text.get(dot..)?.iter().take_while(|byte| is_part(byte)).count();
    let (name, mut rest) = text.split_at(length);
    if length == dot || name.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let mut value = variable(std::str::from_utf8(name).ok()?).map(String::into_bytes);
    if inner.is_some() {
        rest = rest.strip_prefix(b"[*]").unwrap_or(rest);
        let close = rest.iter().position(|byte| *byte == b'}')?;
        let default = rest[..close].strip_prefix(b"-");
        if default.is_none() && close != 0 {
            return None;
        }
        value = value.or_else(|| default.map(<[u8]>::to_vec));
        rest = &rest[close + 1..];
    }
    out.extend(value.unwrap_or_default());
    Some(rest)
}

/// True for a text that no line can hold.
pub fn breaks_line(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_blanks_outside_quotes_and_keeps_the_raw_text() {
        let w = split("  server  s1 \"a b\"\t'c d' e\\ f ${X} # note");
        assert_eq!(w.words, ["server", "s1", "\"a b\"", "'c d'", "e\\ f", "${X}"]);
        assert_eq!(w.comment, Some(35));
        assert!(w.closed);
    }

    #[test]
    fn a_sharp_ends_the_line_unless_quoted_or_escaped() {
        assert_eq!(split("a#b c").words, ["a"]);
        assert_eq!(split("a\\#b '#' \"#\"").words, ["a\\#b", "'#'", "\"#\""]);
    }

    #[test]
    fn a_word_means_what_haproxy_reads() {
        let variable = |name: &str| match name {
            "A" => Some("value a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read = |word: &str| meaning(word, &variable).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        for (word, expected) in [
            ("plain", "plain"),
            ("\"s1\"", "s1"),
            ("a'b 'c\"d\"", "ab cd"),
            (r"p\ x\#\\", r"p x#\"),
            (r"a\1\.b", r"a\1\.b"),
            (r#""\t\n\r\x41\"\$A\'""#, "\t\n\rA\"$A'"),
            (r"'\n$A\x'", r"\n$A\x"),
            ("${A}$A", "${A}$A"),
            ("\"${A}/$A.b/${NONE}/${NONE-x y}/${EMPTY-x}/${A[*]}\"", "value a/value a.b//x y//value a"),
            ("\"\"", ""),
        ] {
            assert_eq!(read(word).as_deref(), Some(expected), "{word}");
        }
        for word in ["\"a", "'a", "a\\", r"\x4", r"\xzz", "\"${A\"", "\"$1\"", "\"${}\"", "\"${A+b}\"", "\"$\""] {
            assert_eq!(read(word), None, "{word}");
        }
    }

    #[test]
    fn a_word_is_plain_where_it_needs_no_quotes() {
        for (word, expected) in [
            ("a", "a"),
            ("\"a\"", "a"),
            ("'a.b'", "a.b"),
            ("a\\ b", "a\\ b"),
            ("\"a b\"", "\"a b\""),
            ("\"a#b\"", "\"a#b\""),
            ("\"${A}\"", "\"${A}\""),
            ("\"\"", "\"\""),
            ("a\\x62", "ab"),
            ("'a\"'", "'a\"'"),
            ("\"a", "\"a"),
        ] {
            assert_eq!(plain(word), expected, "{word}");
        }
    }

    #[test]
    fn control_characters_become_escapes_with_the_same_meaning() {
        for (text, expected) in [
            ("PING\r\n", r"PING\r\n"),
            ("\"a b\r\n\"", r#""a b\r\n""#),
            ("'a b\r\nc'", r"'a b'\r\n'c'"),
            ("a\\\nb", r"a\\\nb"),
            ("a\\\\\nb", r"a\\\nb"),
            ("'a\\\n'", r"'a\'\n''"),
            ("a\tb", r"a\tb"),
            ("\"a\tb\"", "\"a\tb\""),
            ("a\\\tb", "a\\\tb"),
            ("\u{1}\u{b}\u{7f}", r"\x01\x0b\x7f"),
            (r"a\r\n", r"a\r\n"),
        ] {
            assert_eq!(escaped(text, true), expected, "{text:?}");
            assert!(is_one_word(expected), "{expected:?}");
        }
        assert_eq!(escaped("a\tb\n c", false), "a\tb\\n c");
        assert!(!is_one_word(&escaped("a\0b", true)));
    }

    #[test]
    fn names_are_compared_as_haproxy_reads_them() {
        for (one, other, same) in [
            ("\"s1\"", "s1", true),
            (r"a\ b", "\"a b\"", true),
            (r"s\x31", "'s1'", true),
            ("\"${A}\"", "\"${B}\"", false),
            ("\"s1", "s1", false),
        ] {
            assert_eq!(name_bytes(one) == name_bytes(other), same, "{one} {other}");
        }
    }

    #[test]
    fn open_quotes_and_escapes_are_told() {
        assert!(!split("a \"b c").closed);
        assert!(!split("a b\\").closed);
        assert!(split("a 'b\\' c").closed, "a backslash has no meaning inside single quotes");
    }

    #[test]
    fn blanks_inside_a_word_are_no_blanks_to_who_asks_for_a_word() {
        for (text, seen) in [
            ("\"a b\"", "\"a_b\""),
            ("a\\ b", "a\\_b"),
            ("str('a\tb')", "str('a_b')"),
            ("a\u{a0}b", "a_b"),
            ("a b", "a b"),
            ("\"a b", "\"a b"),
            ("\"a b\" c", "\"a b\" c"),
            ("\"a\nb\"", "\"a\nb\""),
            ("ab", "ab"),
        ] {
            assert_eq!(without_held_blanks(text), seen, "{text:?}");
        }
    }

    #[test]
    fn one_word_is_exactly_one_word() {
        assert!(is_one_word("\"a b\"x"));
        for bad in ["", "a b", " a", "a ", "a#", "\"a", "a\nb", "#", "\"a\nb\"", "'a\rb'", "a\0b"] {
            assert!(!is_one_word(bad), "{bad:?}");
        }
    }
}
