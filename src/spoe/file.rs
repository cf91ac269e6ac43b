//! An SPOE file as lossless text: lines before the first scope, and scopes.
//!
//! A line that begins with `[` opens a scope, named up to its `]` with both brackets. Sections stand inside of scopes;
//! what stands before the first one belongs to nobody but for the version line.

use crate::configuration::{counted_version, own_version};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// A file. Any bytes are one, and printing it gives the same bytes.
#[derive(Debug, Clone, Default)]
pub struct SpoeFile {
    head: Document,
    scopes: Vec<Scope>,
}

#[derive(Debug, Clone)]
struct Scope {
    name: String,
    /// The line that opens it, with its ending.
    line: Vec<u8>,
    body: Document,
}

impl SpoeFile {
    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> SpoeFile {
        // Where the text of the head and of each scope begins, and behind the line that opens the scope.
        let mut starts: Vec<(String, usize, usize)> = Vec::new();
        let mut at = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let end = at + line.len();
            if let Some(name) = scope_name(line) {
                starts.push((name, at, end));
            }
            at = end;
        }
        let head = Document::parse(&bytes[..starts.first().map_or(bytes.len(), |(_, start, _)| *start)]);
        let mut scopes = Vec::with_capacity(starts.len());
        for (number, (name, start, end)) in starts.iter().enumerate() {
            let until = starts.get(number + 1).map_or(bytes.len(), |(_, next, _)| *next);
            scopes.push(Scope {
                name: name.clone(),
                line: bytes[*start..*end].to_vec(),
                body: Document::parse(&bytes[*end..until]),
            });
        }
        SpoeFile { head, scopes }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_bytes();
        for scope in &self.scopes {
            bytes.extend_from_slice(&scope.line);
            bytes.extend_from_slice(&scope.body.to_bytes());
        }
        bytes
    }

    /// Its version; 1 when it has none, or one from which numbers cannot go on.
    pub fn version(&self) -> i64 {
        counted_version(&self.head).unwrap_or(1)
    }

    /// The version that it says it has. `INVALID_VALUE` for one that no version can be.
    pub fn own_version(&self) -> Result<Option<i64>> {
        own_version(&self.head)
    }

    /// Writes the version into the line that is there, else as a new first line.
    pub fn set_version(&mut self, version: i64) {
        self.head.set_version(version);
    }

    /// Names of the scopes in the order of the file.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| &*scope.name)
    }

    /// The sections of a scope. `PARENT_NOT_FOUND`.
    pub fn scope(&self, name: &str) -> Result<&Document> {
        let scope = self.scopes.iter().find(|scope| scope.name == name);
        scope.map(|scope| &scope.body).ok_or_else(|| missing(name))
    }

    /// Puts other sections into a scope. `PARENT_NOT_FOUND`.
    pub fn set_scope(&mut self, name: &str, body: Document) -> Result<()> {
        let Some(at) = self.scopes.iter().position(|scope| scope.name == name) else { return Err(missing(name)) };
        if body.len_bytes() > 0 {
            complete(&mut self.scopes[at].line);
        }
        self.scopes[at].body = body;
        Ok(())
    }

    /// Adds a scope at the end. `OBJECT_EXISTS`; `INVALID_VALUE` for a name that is not `[name]`.
    pub fn add_scope(&mut self, name: &str) -> Result<()> {
        if self.scopes.iter().any(|scope| scope.name == name) {
            return Err(Error::new(Reason::ObjectExists, format!("scope {name} already exists")));
        }
        let plain =
            |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '[' | ']' | '#' | '"' | '\'' | '\\');
        let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if !inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(plain)) {
            let message = format!("scope '{name}': expected a name without blanks in brackets, such as [name]");
            return Err(Error::new(Reason::InvalidValue, message).with("field", "name"));
        }
        let mut line = Vec::new();
        if self.to_bytes().last().is_some_and(|last| *last != b'\n') {
            line.push(b'\n');
        }
        line.extend_from_slice(name.as_bytes());
        line.push(b'\n');
        self.scopes.push(Scope { name: name.to_owned(), line, body: Document::default() });
        Ok(())
    }

    /// Removes a scope and its sections. `OBJECT_NOT_FOUND`.
    pub fn remove_scope(&mut self, name: &str) -> Result<()> {
        let at = self.scopes.iter().position(|scope| scope.name == name).ok_or_else(|| no_scope(name))?;
        self.scopes.remove(at);
        Ok(())
    }

    /// `OBJECT_NOT_FOUND` unless there is such a scope.
    pub fn know_scope(&self, name: &str) -> Result<()> {
        if self.scopes().any(|known| known == name) { Ok(()) } else { Err(no_scope(name)) }
    }
}

fn missing(name: &str) -> Error {
    Error::new(Reason::ParentNotFound, format!("scope missing: {name} is no scope of the file")).with("parent", name)
}

fn no_scope(name: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("scope {name} does not exist"))
}

fn complete(line: &mut Vec<u8>) {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
}

/// Name of the scope that a line opens.
fn scope_name(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.trim_start_matches([' ', '\t']);
    let end = text.starts_with('[').then(|| text.find(']'))??;
    let rest = text[end + 1..].trim();
    (rest.is_empty() || rest.starts_with('#')).then(|| text[..=end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "# _version=3\n# mine\n[one] # c\nspoe-agent a\n  messages m\n[two]\nspoe-group g";

    fn text(file: &SpoeFile) -> String {
        String::from_utf8(file.to_bytes()).unwrap()
    }

    #[test]
    fn a_file_is_scopes_of_sections() {
        let mut file = SpoeFile::parse(TEXT.as_bytes());
        assert_eq!(file.scopes().collect::<Vec<_>>(), ["[one]", "[two]"]);
        assert_eq!(file.version(), 3);
        let body = file.scope("[one]").unwrap();
        assert_eq!(body.find("spoe-agent", "a"), Some(0));
        assert_eq!(file.scope("[two]").unwrap().find("spoe-group", "g"), Some(0));
        assert_eq!(file.scope("one").unwrap_err().reason(), Reason::ParentNotFound);
        file.set_version(4);
        file.add_scope("[three]").unwrap();
        assert_eq!(text(&file), format!("{}\n[three]\n", TEXT.replace("=3", "=4")));
        file.remove_scope("[two]").unwrap();
        assert_eq!(file.remove_scope("[two]").unwrap_err().reason(), Reason::ObjectNotFound);
        assert_eq!(text(&file), "# _version=4\n# mine\n[one] # c\nspoe-agent a\n  messages m\n\n[three]\n");
    }

    #[test]
    fn a_scope_without_a_line_end_gets_one_with_its_first_section() {
        let mut file = SpoeFile::parse(b"[one]");
        file.set_scope("[one]", Document::parse(b"spoe-agent a\n")).unwrap();
        assert_eq!(text(&file), "[one]\nspoe-agent a\n");
        assert_eq!(file.version(), 1);
    }

    #[test]
    fn names_of_scopes_are_plain_words_in_brackets() {
        let mut file = SpoeFile::default();
        for name in ["", "x", "[]", "[a b]", "[a", "a]", "[a]]", "[a\n]", "[a#]"] {
            assert_eq!(file.add_scope(name).unwrap_err().reason(), Reason::InvalidValue, "{name:?}");
        }
        file.add_scope("[a.b-c]").unwrap();
        assert_eq!(file.add_scope("[a.b-c]").unwrap_err().reason(), Reason::ObjectExists);
        assert_eq!(text(&file), "[a.b-c]\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_file(lines in prop::collection::vec("[\\[\\]a \n#]{0,6}", 0..8), end in any::<[u8; 2]>()) {
            let mut bytes = lines.concat().into_bytes();
            bytes.extend_from_slice(&end);
            prop_assert_eq!(SpoeFile::parse(&bytes).to_bytes(), bytes);
        }
    }
}
