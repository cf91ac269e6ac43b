//! Splits a line of haproxy.cfg into raw words, the way HAProxy does but without removing anything.
//!
//! Quotes, backslashes and `${NAME}` stay part of the word: values of the API are raw words of the file.

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

/// True when `text` can stand in a line as words: no line break, NUL, open quote or bare `#`.
pub fn is_words(text: &str) -> bool {
    if breaks_line(text) {
        return false;
    }
    let words = split(text);
    words.closed && words.comment.is_none() && !words.words.is_empty()
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
    fn open_quotes_and_escapes_are_told() {
        assert!(!split("a \"b c").closed);
        assert!(!split("a b\\").closed);
        assert!(split("a 'b\\' c").closed, "a backslash has no meaning inside single quotes");
    }

    #[test]
    fn one_word_is_exactly_one_word() {
        assert!(is_one_word("\"a b\"x"));
        for bad in ["", "a b", " a", "a ", "a#", "\"a", "a\nb", "#", "\"a\nb\"", "'a\rb'", "a\0b"] {
            assert!(!is_one_word(bad), "{bad:?}");
        }
    }
}
