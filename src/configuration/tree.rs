//! Trees: a section with all its lines as one object, and the smallest edit that makes a section say what a tree says.
//!
//! What a tree holds follows from its message: its first field is the section, each list is one kind of lines.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use super::refusals::refused;
use crate::document::{Document, LineEdits, Section};
use crate::error::{Error, Reason, Result};
use crate::schema::tables::{FieldIndex, Kind, MessageId, ResourceKind};
use crate::schema::template::PrintFault;
use crate::schema::value::{Object, Value};
use crate::schema::words::split;

/// Position of the section in every tree.
const SECTION: FieldIndex = 0;

/// What a tree is made of.
pub(super) struct TreeParts {
    /// Message of the section.
    pub section: MessageId,
    /// Lists of lines with their messages.
    lines: Vec<(FieldIndex, MessageId)>,
}

/// A line as it shall be.
struct Wanted {
    /// What a line that is the same has in common with it.
    key: String,
    text: String,
}

impl Engine {
    pub(super) fn tree_parts(&self, tree: MessageId) -> Result<TreeParts> {
        let fields = &self.schema.tables.messages[tree].fields;
        let message = |at: FieldIndex| match fields.get(at).map(|field| field.kind) {
            Some(Kind::Message(inner)) => Ok(inner),
            _ => Err(Error::internal("a tree holds messages only")),
        };
        let lines = (1..fields.len()).map(|at| Ok((at, message(at)?))).collect::<Result<_>>()?;
        Ok(TreeParts { section: message(SECTION)?, lines })
    }

    pub(super) fn list_trees(&self, document: &Document, tree: MessageId) -> Result<Vec<Object>> {
        let parts = self.tree_parts(tree)?;
        let rules = self.rules(parts.section)?;
        Ok(self.sections(document, rules).map(|(at, name)| self.read_tree(document, &parts, at, &name)).collect())
    }

    pub(super) fn get_tree(&self, document: &Document, tree: MessageId, key: &Key) -> Result<Object> {
        let parts = self.tree_parts(tree)?;
        let at = self.section_at(document, self.rules(parts.section)?, key);
        let at = at.ok_or_else(|| self.not_found(parts.section, &Place::default(), key))?;
        Ok(self.read_tree(document, &parts, at, key.name()))
    }

    fn read_tree(&self, document: &Document, parts: &TreeParts, at: usize, name: &str) -> Object {
        let mut tree = Object::new();
        let mut section = self.read(document, parts.section, at, name);
        self.without_mirrors(document, at, &mut section);
        tree.set(SECTION, Value::Object(section));
        for (field, message) in &parts.lines {
            let items: Vec<Value> =
                self.lines(document, *message, at).map(|(_, object)| Value::Object(object)).collect();
            if !items.is_empty() {
                tree.set(*field, Value::List(items));
            }
        }
        tree
    }

    /// Fields that repeat the first line of a kind say nothing that the list of these lines does not say.
    fn without_mirrors(&self, document: &Document, at: usize, section: &mut Object) {
        if let Ok(layout) = self.layout(document, at) {
            for (field, _) in &layout.mirrors {
                section.take(*field);
            }
        }
    }

    pub(super) fn create_tree(&self, document: &Document, tree: MessageId, object: &Object) -> Result<Edited> {
        let parts = self.tree_parts(tree)?;
        let section = object.object(SECTION).cloned().unwrap_or_default();
        let made = self.create(document, parts.section, &Place::default(), &section)?;
        let key = Key::Name(self.identity(parts.section, &section).unwrap_or_default().to_owned());
        self.write_lines(made, tree, &parts, &key, object)
    }

    pub(super) fn replace_tree(
        &self,
        document: &Document,
        tree: MessageId,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let parts = self.tree_parts(tree)?;
        let at = self.section_at(document, self.rules(parts.section)?, key);
        let at = at.ok_or_else(|| self.not_found(parts.section, &Place::default(), key))?;
        let mut section = object.object(SECTION).cloned().unwrap_or_default();
        self.without_mirrors(document, at, &mut section);
        let made = self.replace(document, parts.section, &Place::default(), key, &section)?;
        self.write_lines(made, tree, &parts, key, object)
    }

    fn write_lines(
        &self,
        made: Edited,
        tree: MessageId,
        parts: &TreeParts,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let Edited { mut document, unused } = made;
        let name = |field: FieldIndex| &*self.schema.tables.messages[tree].fields[field].json;
        let mut unused: Vec<String> = unused.into_iter().map(|path| format!("{}.{path}", name(SECTION))).collect();
        let at = self.section_at(&document, self.rules(parts.section)?, key);
        let at = at.ok_or_else(|| self.not_found(parts.section, &Place::default(), key))?;
        for (field, message) in &parts.lines {
            let items = object.list(*field);
            if let Some(section) = self.section_with(&document, at, *message, items, name(*field), &mut unused)? {
                document = document.with_section(at, section);
            }
        }
        Ok(Edited { document, unused })
    }

    /// The section with exactly these lines of a kind; nothing when it has them already.
    pub(super) fn section_with(
        &self,
        document: &Document,
        at: usize,
        resource: MessageId,
        items: &[Value],
        name: &str,
        unused: &mut Vec<String>,
    ) -> Result<Option<Section>> {
        let named = self.rules(resource)?.kind == ResourceKind::NamedLine;
        let old: Vec<(usize, Object)> = self.lines(document, resource, at).collect();
        let old_keys: Vec<String> = old.iter().map(|(_, object)| self.key_of(resource, named, object)).collect();
        let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
        for (place, key) in old_keys.iter().enumerate() {
            places.entry(key).or_default().push_back(place);
        }

        let mut wanted = Vec::with_capacity(items.len());
        // For each wanted line the old one that is the same.
        let mut same: Vec<Option<usize>> = Vec::with_capacity(items.len());
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            let Value::Object(sent) = item else { continue };
            let object = &self.with_hidden(resource, sent, &old, &places);
            let path = |path: &str| format!("{name}[{number}].{path}");
            let line = |residue: &[Box<str>]| {
                self.printed(resource, object, residue)
                    .map_err(|fault| refused(PrintFault { path: path(&fault.path), ..fault }))
            };
            let (text, spare) = line(&[])?;
            unused.extend(spare.iter().map(|spare| path(spare)));
            let key = if named { self.name_of(resource, object, &text) } else { text.clone() };
            if named && let Some(first) = seen.insert(key.clone(), number) {
                let message = format!("{name}[{number}]: {key} is the name of {name}[{first}] too");
                return Err(Error::new(Reason::ObjectExists, message));
            }
            let place = places.get_mut(key.as_str()).and_then(VecDeque::pop_front);
            let residue = place.map_or(&[][..], |place| old[place].1.residue());
            let text = if residue.is_empty() { text } else { line(residue)?.0 };
            same.push(place);
            wanted.push(Wanted { key, text });
        }
        let kept = longest_rising(&same);

        let section = &document.sections()[at];
        let mut edits = LineEdits::default();
        let (mut next_old, mut next_new) = (0, 0);
        let end = (old.len(), wanted.len());
        let pairs = kept.iter().filter_map(|new| same[*new].map(|old| (old, *new))).chain([end]);
        for (old_at, new_at) in pairs {
            // Between two lines that stay: rewritten as far as lines without a name are there, then gone or new.
            let (mut gone, mut come) = (&old[next_old..old_at], &wanted[next_new..new_at]);
            let shared = if named { 0 } else { gone.len().min(come.len()) };
            for ((line, _), new) in gone.iter().zip(come).take(shared) {
                edits.changed.insert(*line, Some(new.text.clone()));
            }
            (gone, come) = (&gone[shared..], &come[shared..]);
            for (line, _) in gone {
                edits.changed.insert(*line, None);
            }
            if !come.is_empty() {
                let before = match old.get(old_at) {
                    Some((line, _)) => *line,
                    None => Self::behind_last(section, self.layout(document, at)?, resource),
                };
                edits.before.entry(before).or_default().extend(come.iter().map(|new| new.text.clone()));
            }
            if let (Some((line, object)), Some(new)) = (old.get(old_at), wanted.get(new_at))
                && new.key == old_keys[old_at]
                && !self.reads_as(resource, &new.text, object)
            {
                edits.changed.insert(*line, Some(new.text.clone()));
            }
            (next_old, next_new) = (old_at + 1, new_at + 1);
        }
        if edits.changed.is_empty() && edits.before.is_empty() {
            return Ok(None);
        }
        let mut section = Section::clone(section);
        section.edit_lines(&edits)?;
        Ok(Some(section))
    }

    /// A line with a name, with what its sender cannot see of the old line of that name.
    fn with_hidden<'o>(
        &self,
        resource: MessageId,
        sent: &'o Object,
        old: &[(usize, Object)],
        places: &HashMap<&str, VecDeque<usize>>,
    ) -> Cow<'o, Object> {
        let place = self.identity(resource, sent).and_then(|name| places.get(name)?.front());
        match place {
            Some(place) => {
                let mut whole = sent.clone();
                self.keep_hidden(resource, &old[*place].1, &mut whole);
                Cow::Owned(whole)
            }
            None => Cow::Borrowed(sent),
        }
    }

    /// What an old line is told by: its name, or all that it says.
    fn key_of(&self, resource: MessageId, named: bool, object: &Object) -> String {
        if named {
            return self.identity(resource, object).unwrap_or_default().to_owned();
        }
        self.printed(resource, object, object.residue()).map(|(text, _)| text).unwrap_or_default()
    }

    /// The name of an object, which may follow from what its line says.
    fn name_of(&self, resource: MessageId, object: &Object, text: &str) -> String {
        match self.identity(resource, object) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => {
                let read = self.line_object(resource, &split(text).words, 0).unwrap_or_default();
                self.identity(resource, &read).unwrap_or_default().to_owned()
            }
        }
    }
}

/// Positions of the longest part of `places` that rises; what is nothing has no part in it.
fn longest_rising(places: &[Option<usize>]) -> Vec<usize> {
    // For each length the position whose place is lowest, and for each position the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; places.len()];
    for (at, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        let length = ends.partition_point(|end| places[*end].is_some_and(|other| other < *place));
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut rising = Vec::new();
    let mut at = ends.last().copied();
    while let Some(position) = at {
        rising.push(position);
        at = before[position];
    }
    rising.reverse();
    rising
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
