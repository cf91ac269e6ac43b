//! Fields that have a value in the file which their type cannot show, such as `maxconn "${MOST}"`, or several of which it
//! shows the last one.
//!
//! What is not shown stays in the file; a value that no type can hold, until its field is set.

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use super::layout::said;
use super::refusals::refused;
use crate::document::{Document, Section};
use crate::error::Result;
use crate::schema::mask::{resolve, value_at};
use crate::schema::tables::{MessageId, ResourceKind};
use crate::schema::template::{SectionGrammar, SlotId};
use crate::schema::value::{Object, Value};

impl Engine {
    /// JSON paths of these fields of an object as it was read.
    pub fn not_shown(&self, document: &Document, resource: MessageId, object: &Object) -> Vec<String> {
        let Ok(rules) = self.rules(resource) else { return Vec::new() };
        if rules.kind != ResourceKind::Section {
            return self.schema.grammar.not_read(resource, object.residue());
        }
        let key = self.identity(resource, object).map_or(Key::Singleton, |name| Key::Name(name.to_owned()));
        let Some(grammar) = self.schema.grammar.section(resource) else { return Vec::new() };
        let sections = self.sections_of(document, resource, &key);
        let sections = sections.iter().filter_map(|at| document.section(*at));
        let slots = sections.flat_map(|section| self.unread(section, &rules.keyword, grammar));
        slots.map(|(slot, _)| self.slot_path(resource, slot)).collect()
    }

    /// Positions of the sections that are an object.
    fn sections_of(&self, document: &Document, resource: MessageId, key: &Key) -> Vec<usize> {
        let Ok(rules) = self.rules(resource) else { return Vec::new() };
        if rules.singleton {
            return document.find_all(&rules.keyword, "");
        }
        self.section_at(document, rules, key).into_iter().collect()
    }

    /// Lines of a section that were meant for a field and mean something, but nothing that it can show.
    fn unread<'a>(
        &'a self,
        section: &'a Section,
        keyword: &'a str,
        grammar: &'a SectionGrammar,
    ) -> impl Iterator<Item = (SlotId, usize)> + 'a {
        let own = |words: &[&str]| self.layouts.get(keyword).is_some_and(|layout| layout.child_of(words).is_none());
        said(section).filter_map(move |line| {
            if !own(&line.words) || grammar.owner(&line.words).is_some() {
                return None;
            }
            grammar.meant(&line.words).filter(|(_, dead)| !dead).map(|(slot, _)| (slot, line.at))
        })
    }

    /// All objects of a place, as `list`, and the parameters before the last one that /v2 does not show of them, each with the
    /// label of its object. Of lists of sections none are told.
    pub fn list_with_earlier(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
    ) -> Result<(Vec<Object>, Vec<String>)> {
        let whole = self.whole_list(document, resource, place)?;
        let told = self.rules(resource)?.kind != ResourceKind::Section;
        let label = |object| format!("{}.", self.label(resource, object));
        let earlier = whole.iter().filter(|_| told).flat_map(|object| self.earlier(resource, object, || label(object)));
        let earlier = earlier.collect();
        Ok((whole.into_iter().map(|object| self.shown(resource, object)).collect(), earlier))
    }

    /// One object, as `get`, and the parameters before the last one that /v2 does not show of it.
    pub fn get_with_earlier(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
        key: &Key,
    ) -> Result<(Object, Vec<String>)> {
        let whole = self.whole(document, resource, place, key)?;
        let earlier = self.earlier(resource, &whole, String::new);
        Ok((self.shown(resource, whole), earlier))
    }

    /// Of parameters that may stand several times and of which /v2 shows the last one: its JSON path, and the others.
    fn earlier(&self, resource: MessageId, object: &Object, label: impl Fn() -> String) -> Vec<String> {
        if !self.only_v2 || !self.audience.has_earlier(resource) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for unseen in self.audience.unseen_fields(&self.schema.tables, resource, object) {
            let Some(last) = unseen.last else { continue };
            let items = match unseen.value {
                Value::List(items) => &items[..],
                item => std::slice::from_ref(item),
            };
            let texts = items.iter().filter_map(|item| if let Value::Str(text) = item { Some(&**text) } else { None });
            let texts = texts.collect::<Vec<_>>().join(", ");
            found.push(if texts.is_empty() { label() + &last } else { format!("{}{last} ({texts})", label()) });
        }
        found
    }

    /// JSON paths of what an object has and /v2 does not know.
    pub fn unseen(&self, document: &Document, resource: MessageId, place: &Place, key: &Key) -> Vec<String> {
        if !self.only_v2 {
            return Vec::new();
        }
        let Ok(object) = self.whole(document, resource, place, key) else { return Vec::new() };
        let fields = self.audience.unseen_fields(&self.schema.tables, resource, &object);
        fields.into_iter().map(|unseen| unseen.path).collect()
    }

    /// Replaces an object by one in which the fields of an update mask have changed: what was not shown of those that are
    /// empty now goes too.
    pub fn update(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
        key: &Key,
        object: &Object,
        mask: &[String],
    ) -> Result<Edited> {
        let tables = &self.schema.tables;
        let named = mask.iter().filter_map(|path| resolve(tables, resource, path)).map(|(steps, _)| steps);
        let paths: Vec<String> = named.map(|steps| tables.json_path(resource, &steps)).collect();
        let emptied: Vec<String> =
            paths.into_iter().filter(|path| value_at(tables, resource, object, path).is_none()).collect();
        let cleared = self.without_unread(document, resource, place, key, &emptied)?;
        self.replace(cleared.as_ref().unwrap_or(document), resource, place, key, object)
    }

    /// A document without the words that the fields of some JSON paths of an object cannot show. `None`: there are none.
    fn without_unread(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
        key: &Key,
        paths: &[String],
    ) -> Result<Option<Document>> {
        let rules = self.rules(resource)?;
        let mut cleared = None;
        if paths.is_empty() {
            return Ok(None);
        }
        if let (ResourceKind::Section, Some(grammar)) = (rules.kind, self.schema.grammar.section(resource)) {
            for at in self.sections_of(document, resource, key) {
                let mut section = Section::clone(&document.sections()[at]);
                let unread = self.unread(&document.sections()[at], &rules.keyword, grammar);
                let gone: Vec<usize> = unread
                    .filter(|(slot, _)| paths.contains(&self.slot_path(resource, *slot)))
                    .map(|(_, line)| line)
                    .collect();
                for line in gone.iter().rev() {
                    section.remove_line(*line)?;
                }
                if !gone.is_empty() {
                    cleared = Some(cleared.as_ref().unwrap_or(document).with_section(at, section));
                }
            }
        } else if matches!(rules.kind, ResourceKind::NamedLine | ResourceKind::IndexedLine)
            && let Some(at) = self.parent(document, place)
            && let Some((line, mut object)) = self.find(document, resource, at, key)
        {
            let residue = self.schema.grammar.without(resource, object.residue(), paths);
            if residue.len() < object.residue().len() {
                object.clear_residue();
                let (text, _) = self.printed(resource, &object, &residue).map_err(refused)?;
                let mut section = Section::clone(&document.sections()[at]);
                section.replace_line(line, &text)?;
                cleared = Some(document.with_section(at, section));
            }
        }
        Ok(cleared)
    }

    /// What tells an object from others of its list: its name or its index.
    pub fn label(&self, resource: MessageId, object: &Object) -> String {
        let name = self.identity(resource, object).map(str::to_owned);
        name.unwrap_or_else(|| self.index_of(resource, object).map_or_else(String::new, |index| index.to_string()))
    }
}
