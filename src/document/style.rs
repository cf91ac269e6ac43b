//! How the author of a file lays it out, so that new lines look like the old ones.

/// Layout of new lines and sections, read off the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Blanks before a line of a section; two spaces unless the file has another habit.
    pub indent: String,
    /// `\r\n` line endings instead of `\n`.
    pub crlf: bool,
    /// A blank line stands before each section.
    pub spaced: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style { indent: "  ".to_owned(), crlf: false, spaced: true }
    }
}

impl Style {
    /// The bytes that end a line.
    pub fn ending(&self) -> &'static [u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }
}

/// Counts habits while a file is read.
#[derive(Debug, Default)]
pub(super) struct Habits<'a> {
    indents: Vec<(&'a [u8], usize)>,
    spaced: usize,
    dense: usize,
}

impl<'a> Habits<'a> {
    /// Sees the blanks before the first line of a section.
    pub(super) fn indent(&mut self, blanks: &'a [u8]) {
        if blanks.is_empty() {
            return;
        }
        if let Some((_, count)) = self.indents.iter_mut().find(|(seen, _)| *seen == blanks) {
            *count += 1;
        } else if self.indents.len() < 16 {
            // A file with more than a few habits has none.
            self.indents.push((blanks, 1));
        }
    }

    /// Sees whether a section that is not the first has a blank line above.
    pub(super) fn boundary(&mut self, spaced: bool) {
        if spaced {
            self.spaced += 1;
        } else {
            self.dense += 1;
        }
    }

    pub(super) fn style(&self, crlf: bool) -> Style {
        let mut usual: Option<(&[u8], usize)> = None;
        for &(blanks, count) in &self.indents {
            if usual.is_none_or(|(_, most)| count > most) {
                usual = Some((blanks, count));
            }
        }
        let indent = usual.and_then(|(blanks, _)| std::str::from_utf8(blanks).ok()).unwrap_or("  ");
        Style { indent: indent.to_owned(), crlf, spaced: self.spaced >= self.dense }
    }
}
