//! Fields that have a value in the file which their type cannot show, such as `maxconn "${MOST}"`, or several of which it
//! shows the last one.
//!
//! What is not shown stays in the file; a value that no type can hold, until its field is set.

use super::address::Key;
use super::engine::Engine;
use super::layout::said;
use crate::document::Document;
use crate::schema::tables::{MessageId, ResourceKind};
use crate::schema::value::Object;

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

    /// What tells an object from others of its list: its name or its index.
    pub fn label(&self, resource: MessageId, object: &Object) -> String {
        let name = self.identity(resource, object).map(str::to_owned);
        name.unwrap_or_else(|| self.index_of(resource, object).map_or_else(String::new, |index| index.to_string()))
    }
}
