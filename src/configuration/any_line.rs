//! Lines as they stand in the file, whoever reads them: what no field and no object can say is still listed and edited.

use std::collections::HashMap;

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use crate::document::{Document, LineKind, LineRef, Section};
use crate::error::Result;
use crate::proto::fields::configuration::section_line;
use crate::proto::values::configuration::section_line_kind;
use crate::schema::tables::{Kind, MessageId};
use crate::schema::template::SlotId;
use crate::schema::value::{Object, Value};

impl Engine {
    pub(super) fn list_any(&self, document: &Document, place: &Place) -> Result<Vec<Object>> {
        let at = self.known_parent(document, place)?;
        let section = &document.sections()[at];
        let mut counts: HashMap<MessageId, i64> = HashMap::new();
        let object = |(number, line): (usize, LineRef<'_>)| {
            let mut object = Object::new();
            object.set(section_line::INDEX, Value::Int(number as i64));
            object.set(section_line::TEXT, Value::Str(text_of(&line).into()));
            object.set(section_line::KIND, Value::Enum(kind_number(line.kind())));
            if line.kind() == LineKind::Content {
                self.put_reader(&mut object, section, &line.words().words, &mut counts);
            }
            object
        };
        Ok(section.lines().enumerate().map(object).collect())
    }

    /// Says which object or field a line belongs to; nothing when nobody reads it.
    fn put_reader(&self, object: &mut Object, section: &Section, words: &[&str], counts: &mut HashMap<MessageId, i64>) {
        let Some(layout) = self.layouts.get(section.kind()) else { return };
        if let Some(child) = layout.child_of(words) {
            let count = counts.entry(child.message).or_default();
            let Some(line) = self.line_object(child.message, words, *count) else { return };
            *count += 1;
            let key = match self.identity(child.message, &line) {
                Some(name) => name.to_owned(),
                None => (*count - 1).to_string(),
            };
            object.set(section_line::RESOURCE, Value::Str(self.noun(child.message).into()));
            object.set(section_line::KEY, Value::Str(key.into()));
        } else if let Some(message) = layout.message
            && let Some(grammar) = self.schema.grammar.section(message)
            && let Some(slot) = grammar.owner(words)
        {
            object.set(section_line::FIELD, Value::Str(self.slot_path(message, slot).into()));
        }
    }

    /// JSON path of the field that a slot stands for.
    pub(super) fn slot_path(&self, mut message: MessageId, slot: SlotId) -> String {
        let Some(grammar) = self.schema.grammar.section(message) else { return String::new() };
        let mut names = Vec::new();
        for at in grammar.path(slot) {
            let field = &self.schema.tables.messages[message].fields[at];
            if !field.flatten {
                names.push(&*field.json);
            }
            if let Kind::Message(inner) = field.kind {
                message = inner;
            }
        }
        names.join(".")
    }

    pub(super) fn get_any(&self, document: &Document, message: MessageId, place: &Place, key: &Key) -> Result<Object> {
        let lines = self.list_any(document, place)?;
        let at = position(key).filter(|at| *at < lines.len());
        match at.and_then(|at| lines.into_iter().nth(at)) {
            Some(line) => Ok(line),
            None => Err(self.not_found(message, place, key)),
        }
    }

    pub(super) fn create_any(
        &self,
        document: &Document,
        message: MessageId,
        place: &Place,
        object: &Object,
    ) -> Result<Edited> {
        let at = self.known_parent(document, place)?;
        let mut section = Section::clone(&document.sections()[at]);
        let text = object.str(section_line::TEXT).unwrap_or_default();
        match self.index_of(message, object) {
            None => {
                section.append_line(text)?;
            }
            Some(index) => {
                let position = usize::try_from(index).ok().filter(|position| *position <= section.len());
                let position = position.ok_or_else(|| self.out_of_range(message, place, index, section.len()))?;
                section.splice(position..position, &[text])?;
            }
        }
        Ok(Edited { document: document.with_section(at, section), unused: Vec::new() })
    }

    pub(super) fn replace_any(
        &self,
        document: &Document,
        message: MessageId,
        place: &Place,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let at = self.known_parent(document, place)?;
        let mut section = Section::clone(&document.sections()[at]);
        let number = position(key).filter(|number| *number < section.len());
        let number = number.ok_or_else(|| self.not_found(message, place, key))?;
        let text = object.str(section_line::TEXT).unwrap_or_default();
        if section.line(number).is_none_or(|line| text_of(&line) != text) {
            section.set_line(number, text)?;
        }
        Ok(Edited { document: document.with_section(at, section), unused: Vec::new() })
    }

    pub(super) fn delete_any(
        &self,
        document: &Document,
        message: MessageId,
        place: &Place,
        key: &Key,
    ) -> Result<Edited> {
        let at = self.known_parent(document, place)?;
        let mut section = Section::clone(&document.sections()[at]);
        let number = position(key).filter(|number| *number < section.len());
        section.remove_line(number.ok_or_else(|| self.not_found(message, place, key))?)?;
        Ok(Edited { document: document.with_section(at, section), unused: Vec::new() })
    }
}

fn position(key: &Key) -> Option<usize> {
    match key {
        Key::Index(index) => usize::try_from(*index).ok(),
        Key::Name(_) | Key::Singleton => None,
    }
}

fn kind_number(kind: LineKind) -> i32 {
    match kind {
        LineKind::Blank => section_line_kind::BLANK,
        LineKind::Comment => section_line_kind::COMMENT,
        LineKind::Directive => section_line_kind::DIRECTIVE,
        LineKind::Content => section_line_kind::CONTENT,
    }
}

/// The line without the blanks around it.
fn text_of(line: &LineRef<'_>) -> String {
    line.text().unwrap_or_default().trim_matches([' ', '\t', '\u{b}', '\u{c}']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Reason;
    use crate::schema::Schema;

    const FILE: &str = "traces\n\ttrace h1 start now\n\nbackend b\n  # why\n  mode http # plain\n  brandnew x\n\n  server s1 127.0.0.1\n  http-request deny\n  http-request allow\n";

    fn case() -> (Engine, MessageId, Document, Place) {
        let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
        let message = crate::proto::messages::configuration::SECTION_LINE;
        let place = Place { section: Some("backend".into()), name: "b".into() };
        (engine, message, Document::parse(FILE.as_bytes()), place)
    }

    fn shown(engine: &Engine, message: MessageId, object: &Object) -> String {
        let mut out = Vec::new();
        crate::schema::json::write(&engine.schema.tables, message, object, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_is_listed_with_whoever_reads_it() {
        let (engine, message, document, place) = case();
        let lines: Vec<_> =
            engine.list_any(&document, &place).unwrap().iter().map(|l| shown(&engine, message, l)).collect();
        assert_eq!(
            lines,
            [
                r##"{"index":0,"kind":"comment","text":"# why"}"##,
                r#"{"field":"mode","index":1,"kind":"content","text":"mode http # plain"}"#,
                r#"{"index":2,"kind":"content","text":"brandnew x"}"#,
                r#"{"index":3,"kind":"blank","text":""}"#,
                r#"{"index":4,"key":"s1","kind":"content","resource":"server","text":"server s1 127.0.0.1"}"#,
                r#"{"index":5,"key":"0","kind":"content","resource":"http_request_rule","text":"http-request deny"}"#,
                r#"{"index":6,"key":"1","kind":"content","resource":"http_request_rule","text":"http-request allow"}"#,
            ]
        );
        let place = Place { section: Some("traces".into()), name: String::new() };
        let lines = engine.list_any(&document, &place).unwrap();
        assert_eq!(
            shown(&engine, message, &lines[0]),
            r#"{"field":"traces","index":0,"kind":"content","text":"trace h1 start now"}"#
        );
    }

    #[test]
    fn lines_are_added_replaced_and_removed_one_by_one() {
        let (engine, message, document, place) = case();
        let line = |index: Option<i64>, text: &str| {
            let mut object = Object::new();
            if let Some(index) = index {
                object.set(section_line::INDEX, Value::Int(index));
            }
            object.set(section_line::TEXT, Value::Str(text.into()));
            object
        };
        let text = |edited: Result<Edited>| String::from_utf8(edited.unwrap().document.to_bytes()).unwrap();
        let create = |index, new: &str| engine.create(&document, message, &place, &line(index, new));
        assert_eq!(
            text(create(Some(2), "other y # z")),
            FILE.replace("  brandnew x\n", "  other y # z\n  brandnew x\n")
        );
        assert_eq!(text(create(None, "last")), format!("{FILE}  last\n"));
        let replace =
            |index, new: &str| engine.replace(&document, message, &place, &Key::Index(index), &line(None, new));
        assert_eq!(text(replace(1, "mode tcp")), FILE.replace("mode http # plain", "mode tcp"));
        assert_eq!(text(replace(1, "mode http # plain")), FILE);
        assert_eq!(text(engine.delete(&document, message, &place, &Key::Index(2))), FILE.replace("  brandnew x\n", ""));

        for bad in ["a\nb", "a\0", "a\r", "backend other", "global"] {
            assert_eq!(create(None, bad).unwrap_err().reason(), Reason::InvalidValue, "{bad:?}");
            assert_eq!(replace(2, bad).unwrap_err().reason(), Reason::InvalidValue, "{bad:?}");
        }
        assert_eq!(create(Some(8), "x").unwrap_err().reason(), Reason::IndexOutOfRange);
        assert_eq!(replace(7, "x").unwrap_err().reason(), Reason::ObjectNotFound);
        let nowhere = Place { section: Some("backend".into()), name: "zz".into() };
        let error = engine.delete(&document, message, &nowhere, &Key::Index(0)).unwrap_err();
        assert_eq!(error.reason(), Reason::ParentNotFound);
    }
}
