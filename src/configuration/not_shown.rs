//! Fields that have a value in the file which their type cannot show, such as `maxconn "${MOST}"`, or several of which it
//! shows the last one.
//!
//! What is not shown stays in the file; a value that no type can hold, until its field is set.

use super::address::{Key, Place};
use super::engine::Engine;
use super::layout::said;
use crate::document::Document;
use crate::schema::tables::{MessageId, ResourceKind};
use crate::schema::value::{Object, Value};

impl Engine {
    /// JSON paths of these fields of an object as it was read.
    pub fn not_shown(&self, document: &Document, resource: MessageId, object: &Object) -> Vec<String> {
        let Ok(rules) = self.rules(resource) else { return Vec::new() };
        if rules.kind != ResourceKind::Section {
            return self.schema.grammar.not_read(resource, object.residue());
        }
        let key = self.identity(resource, object).map_or(Key::Singleton, |name| Key::Name(name.to_owned()));
        let sections = if rules.singleton {
            document.find_all(&rules.keyword, "")
        } else {
            self.section_at(document, rules, &key).into_iter().collect()
        };
        let Some(grammar) = self.schema.grammar.section(resource) else { return Vec::new() };
        let lines = sections.iter().filter_map(|at| document.section(*at)).flat_map(|section| said(section));
        let own =
            |words: &[&str]| self.layouts.get(&rules.keyword).is_some_and(|layout| layout.child_of(words).is_none());
        let unread = lines.filter(|line| own(&line.words) && grammar.owner(&line.words).is_none());
        let meant = unread.filter_map(|line| grammar.meant(&line.words).filter(|(_, dead)| !dead));
        meant.map(|(slot, _)| self.slot_path(resource, slot)).collect()
    }

    /// Of parameters that may stand several times and of which /v2 shows the last one: its JSON path, and the others.
    /// Those of one object, or of a list with the label of each.
    pub fn earlier(&self, document: &Document, resource: MessageId, place: &Place, key: Option<&Key>) -> Vec<String> {
        // Lists of sections are not read twice.
        let whole_list = key.is_none() && self.rules(resource).is_ok_and(|rules| rules.kind == ResourceKind::Section);
        if !self.only_v2 || whole_list || !self.audience.has_earlier(resource) {
            return Vec::new();
        }
        let whole = self.for_grpc();
        let objects = match key {
            Some(key) => whole.get(document, resource, place, key).map(|object| vec![object]),
            None => whole.list(document, resource, place),
        };
        let mut found = Vec::new();
        for object in objects.unwrap_or_default() {
            let label = if key.is_some() { String::new() } else { format!("{}.", self.label(resource, &object)) };
            for unseen in self.audience.unseen_fields(&self.schema.tables, resource, &object) {
                if let (Some(last), Value::List(items)) = (unseen.last, unseen.value) {
                    let texts = items.iter().filter_map(|item| match item {
                        Value::Str(text) => Some(&**text),
                        _ => None,
                    });
                    let texts = texts.collect::<Vec<_>>().join(", ");
                    found.push(if texts.is_empty() {
                        label.clone() + &last
                    } else {
                        format!("{label}{last} ({texts})")
                    });
                }
            }
        }
        found
    }

    /// JSON paths of what an object has and /v2 does not know.
    pub fn unseen(&self, document: &Document, resource: MessageId, place: &Place, key: &Key) -> Vec<String> {
        if !self.only_v2 {
            return Vec::new();
        }
        let Ok(object) = self.for_grpc().get(document, resource, place, key) else { return Vec::new() };
        let fields = self.audience.unseen_fields(&self.schema.tables, resource, &object);
        fields.into_iter().map(|unseen| unseen.path).collect()
    }

    /// What tells an object from others of its list: its name or its index.
    pub fn label(&self, resource: MessageId, object: &Object) -> String {
        let name = self.identity(resource, object).map(str::to_owned);
        name.unwrap_or_else(|| self.index_of(resource, object).map_or_else(String::new, |index| index.to_string()))
    }
}
