//! Commands of the Runtime API, built so that no argument can end the command or start another one.
//!
//! HAProxy cuts a line into words at blanks, cuts it into commands at `;`, takes a last word that ends in `<<` as the
//! start of a payload, and knows one escape: a backslash makes the next character part of the word. There is no way to
//! send an empty word, and none to send a line feed.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Reason, Result};

/// A command with its arguments, escaped.
#[derive(Debug, Clone)]
pub struct Command {
    line: BytesMut,
    payload: Option<Bytes>,
    settled_by: Option<Reason>,
    guard: Option<Box<Guard>>,
}

/// A question in front of a change.
#[derive(Debug, Clone)]
struct Guard {
    question: Command,
    key: String,
    lets: fn(answer: &str, key: &str) -> bool,
}

impl Command {
    /// Starts with fixed words, such as `add map`.
    pub fn new(words: &'static str) -> Self {
        let mut line = BytesMut::with_capacity(words.len() + 48);
        line.put_slice(words.as_bytes());
        Command { line, payload: None, settled_by: None, guard: None }
    }

    /// A command out of words, each escaped on its own.
    ///
    /// `INVALID_VALUE` for an empty list and for words that cannot be sent, see [`Command::arg`].
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        let mut command = Command { line: BytesMut::new(), payload: None, settled_by: None, guard: None };
        for word in words {
            command = command.arg("word", word.as_ref())?;
        }
        if command.line.is_empty() {
            return Err(Error::new(Reason::InvalidValue, "command: expected at least one word"));
        }
        Ok(command)
    }

    /// Appends an argument. `name` says in the error what it is.
    ///
    /// `INVALID_VALUE` if it is empty or holds a line feed, a carriage return or a NUL.
    pub fn arg(mut self, name: &str, value: &str) -> Result<Self> {
        if value.is_empty() {
            let message = format!("{name}: must not be empty, the runtime socket has no empty words");
            return Err(Error::new(Reason::InvalidValue, message).with("field", name));
        }
        refuse_line_breaks(name, value)?;
        if !self.line.is_empty() {
            self.line.put_u8(b' ');
        }
        for &byte in value.as_bytes() {
            // `<` because a command must not end in `<<`; quotes because they may get a meaning one day.
            if matches!(byte, b' ' | b'\t' | b'\\' | b';' | b'<' | b'"' | b'\'') {
                self.line.put_u8(b'\\');
            }
            self.line.put_u8(byte);
        }
        Ok(self)
    }

    /// Appends fixed words as they are.
    #[must_use]
    pub fn words(mut self, words: &'static str) -> Self {
        self.line.put_u8(b' ');
        self.line.put_slice(words.as_bytes());
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn number(mut self, value: impl Into<i128>) -> Self {
        self.line.put_slice(format!(" {}", value.into()).as_bytes());
        self
    }

    /// Adds a payload of whole lines, each ended by a line feed; the last line of the command becomes `<<`.
    ///
    /// `INVALID_VALUE` if a line is empty (that would end the payload) or the last one is not ended.
    pub fn payload(mut self, lines: impl Into<Bytes>) -> Result<Self> {
        let lines = lines.into();
        let empty_line = lines.first() == Some(&b'\n') || memchr::memmem::find(&lines, b"\n\n").is_some();
        if empty_line || lines.last() != Some(&b'\n') {
            let message = "payload: expected lines that are not empty, each ended by a line feed";
            return Err(Error::new(Reason::InvalidValue, message));
        }
        self.payload = Some(lines);
        Ok(self)
    }

    /// Names the refusal that means, when the command is sent again, that it was carried out the first time.
    #[must_use]
    pub(super) fn settled_by(mut self, refusal: Reason) -> Self {
        self.settled_by = Some(refusal);
        self
    }

    /// Sends it only when the answer to a question about `key` lets it, over the same connection, so that what tells of
    /// the worker behind the command holds for both. Else the answer to the question takes the place of its own, so this
    /// is for commands that answer nothing when they are carried out.
    #[must_use]
    pub(super) fn only_if(self, question: Command, key: &str, lets: fn(answer: &str, key: &str) -> bool) -> Self {
        Command { guard: Some(Box::new(Guard { question, key: key.to_owned(), lets })), ..self }
    }

    /// The question in front of it.
    pub(super) fn question(&self) -> Option<&Command> {
        self.guard.as_ref().map(|guard| &guard.question)
    }

    /// Whether the answer to its question lets it be sent.
    pub(super) fn is_let(&self, answer: &[u8]) -> bool {
        self.guard.as_ref().is_none_or(|guard| (guard.lets)(&String::from_utf8_lossy(answer), &guard.key))
    }

    /// Whether a refusal for this reason, when the command is sent again, means that it was carried out before.
    pub(super) fn is_settled_by(&self, refusal: Reason) -> bool {
        self.settled_by == Some(refusal)
    }

    /// Whether it changes nothing in HAProxy.
    pub(super) fn is_read(&self) -> bool {
        [&b"show "[..], b"get ", b"help"].iter().any(|words| self.line.starts_with(words))
    }

    /// Whether its answer says which worker answers.
    pub(super) fn is_look(&self) -> bool {
        self.line == b"show info"[..]
    }

    /// Bytes on the wire, without the commands sent before it on the same connection.
    pub fn len(&self) -> usize {
        self.line.len() + self.payload.as_ref().map_or(0, Bytes::len) + 5 + self.question().map_or(0, Command::len)
    }

    /// Never: a command has at least one word.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The command line as it is sent, without its payload; for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// Whether the command has a payload. Such a command cannot share a connection with those of other callers.
    pub(super) fn has_payload(&self) -> bool {
        self.payload.is_some()
    }

    /// Everything that ends the command included.
    pub(super) fn write_to(&self, out: &mut BytesMut) {
        out.put_slice(&self.line);
        match &self.payload {
            Some(lines) => {
                out.put_slice(b" <<\n");
                out.put_slice(lines);
                out.put_u8(b'\n');
            }
            None => out.put_u8(b'\n'),
        }
    }
}

/// Refuses what can neither be sent to the runtime socket nor stand in a line of a file.
pub(crate) fn refuse_line_breaks(name: &str, value: &str) -> Result<()> {
    match value.bytes().find(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        Some(byte) => {
            let what = match byte {
                b'\n' => "a line feed",
                b'\r' => "a carriage return",
                _ => "a NUL",
            };
            let message = format!("{name}: must not hold {what}");
            Err(Error::new(Reason::InvalidValue, message).with("field", name))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts a line as HAProxy does: at the first unescaped `;`, into words at unescaped blanks, backslashes removed.
    fn haproxy_words(line: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let (mut words, mut word, mut open, mut at) = (Vec::new(), Vec::new(), false, 0);
        while at < line.len() {
            match line[at] {
                b'\\' if at + 1 < line.len() => {
                    at += 1;
                    word.push(line[at]);
                    open = true;
                }
                b';' => return (words, true),
                b' ' | b'\t' => {
                    if std::mem::take(&mut open) {
                        words.push(std::mem::take(&mut word));
                    }
                }
                byte => {
                    word.push(byte);
                    open = true;
                }
            }
            at += 1;
        }
        if open {
            words.push(word);
        }
        (words, false)
    }

    fn sent(command: &Command) -> Vec<u8> {
        let mut out = BytesMut::new();
        command.write_to(&mut out);
        out.to_vec()
    }

    proptest! {
        #[test]
        fn every_argument_arrives_whole_and_alone(key in "[^\n\r\0]{1,40}", value in "[ ;<>\\\\\"'#=&a\t]{1,12}") {
            let command = Command::new("add map").arg("key", &key).unwrap().arg("value", &value).unwrap();
            let bytes = sent(&command);
            let line = bytes.strip_suffix(b"\n").unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert!(!line.ends_with(b"<<"));
            let (words, second) = haproxy_words(line);
            prop_assert!(!second);
            prop_assert_eq!(words, vec![b"add".to_vec(), b"map".to_vec(), key.into_bytes(), value.into_bytes()]);
        }
    }

    #[test]
    fn line_breaks_and_empty_words_are_refused_by_name() {
        for (value, what) in
            [("a\nclear map x", "line feed"), ("a\rb", "carriage return"), ("a\0b", "NUL"), ("", "empty")]
        {
            let error = Command::new("get map").arg("key", value).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue);
            assert!(error.message().starts_with("key: ") && error.message().contains(what), "{error}");
        }
        assert!(Command::from_words::<&str>(&[]).is_err());
    }

    #[test]
    fn a_payload_ends_only_where_it_should() {
        let command = Command::new("add map").arg("map", "#1").unwrap().payload("k v\n").unwrap();
        assert_eq!(sent(&command), b"add map #1 <<\nk v\n\n");
        assert_eq!(sent(&command).len(), command.len());
        for lines in ["k v", "k v\n\nshow info\n", "\nk v\n", ""] {
            assert!(Command::new("add map").payload(lines).is_err(), "{lines:?}");
        }
    }
}
