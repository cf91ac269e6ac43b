//! Create, read, replace and delete for every resource, as pure functions over a document.
//!
//! Nothing here knows a single resource: what a resource is stands in the schema. Versions, transactions and files are
//! the store's.

use std::sync::Arc;

use super::address::{Key, Place};
use super::audience::{Audience, keep_zeros};
use super::joined::{Joined, join};
use super::layout::{Layouts, SectionLayout, begins_with, said_by};
use super::refusals::refused;
use super::spelling::respelled;
use crate::document::{Document, LineKind, Section};
use crate::error::{Error, Reason, Result, Violation};
use crate::schema::Schema;
use crate::schema::odd;
use crate::schema::tables::{MessageId, Resource, ResourceKind};
use crate::schema::template::PrintFault;
use crate::schema::value::{Object, Value};
use crate::schema::words::{is_marked, name_bytes, plain, split};

/// Name under which the n-th section of a kind without a name is known, but for the number: `unnamed_defaults_`. Never
/// written to the file.
fn unnamed(kind: &str) -> String {
    format!("unnamed_{}_", kind.replace('-', "_"))
}

/// CRUD over documents. Cheap to share and to clone, never changes.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) schema: Arc<Schema>,
    pub(super) layouts: Arc<Layouts>,
    pub(super) audience: Arc<Audience>,
    /// What callers see and send is that of /v2.
    pub(super) only_v2: bool,
    /// `listen` sections are listed among frontends and backends too.
    listens_as_parts: bool,
    /// Version of the HAProxy that is to load what is written.
    version: Option<(u16, u16)>,
}

/// A changed document and whatever could not be written.
#[derive(Debug)]
pub struct Edited {
    /// The document after the change.
    pub document: Document,
    /// Paths of fields that are set but have no place in the line, such as fields of another rule type.
    pub unused: Vec<String>,
}

impl Engine {
    /// An engine over a schema.
    pub fn new(schema: Arc<Schema>) -> Engine {
        let layouts = Arc::new(Layouts::new(&schema));
        let audience = Arc::new(Audience::new(&schema.tables));
        Engine { schema, layouts, audience, only_v2: false, listens_as_parts: false, version: None }
    }

    /// The engine for callers of REST /v2: objects have only what /v2 knows, and what it does not know is kept when an
    /// object is replaced.
    #[must_use]
    pub fn for_v2(&self) -> Engine {
        Engine { only_v2: true, ..self.clone() }
    }

    /// The engine that shows each `listen` section as a frontend and as a backend of the same name, if `wanted`.
    #[must_use]
    pub fn showing_listens(self, wanted: bool) -> Engine {
        Engine { listens_as_parts: wanted, ..self }
    }

    /// The engine for an HAProxy of this version, major and minor: what needs a later one is refused.
    #[must_use]
    pub fn for_version(self, version: (u16, u16)) -> Engine {
        Engine { version: Some(version), ..self }
    }

    /// The schema it works by.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// All objects of a resource at a place, in the order of the file.
    pub fn list(&self, document: &Document, resource: MessageId, place: &Place) -> Result<Vec<Object>> {
        let whole = self.whole_list(document, resource, place)?;
        Ok(whole.into_iter().map(|object| self.shown(resource, object)).collect())
    }

    /// The same with what callers may not see of them.
    pub(super) fn whole_list(&self, document: &Document, resource: MessageId, place: &Place) -> Result<Vec<Object>> {
        let rules = self.rules(resource)?;
        if let Some(joined) = Self::joined(document, rules, place)? {
            return self.whole_list(joined.document(), resource, place);
        }
        match rules.kind {
            ResourceKind::Tree => return self.list_trees(document, resource),
            ResourceKind::AnyLine => return self.list_any(document, place),
            ResourceKind::Site => return self.list_sites(document),
            _ => {}
        }
        if rules.kind == ResourceKind::Section {
            let sections = self.sections(document, rules);
            return Ok(sections.map(|(at, name)| self.read(document, resource, at, &name)).collect());
        }
        let at = self.known_parent(document, place)?;
        Ok(self.lines(document, resource, at).map(|(_, object)| object).collect())
    }

    /// One object.
    pub fn get(&self, document: &Document, resource: MessageId, place: &Place, key: &Key) -> Result<Object> {
        self.whole(document, resource, place, key).map(|object| self.shown(resource, object))
    }

    /// The same with what callers may not see of it.
    pub(super) fn whole(&self, document: &Document, resource: MessageId, place: &Place, key: &Key) -> Result<Object> {
        let rules = self.rules(resource)?;
        if let Some(joined) = Self::joined(document, rules, place)? {
            return self.whole(joined.document(), resource, place, key);
        }
        match rules.kind {
            ResourceKind::Tree => return self.get_tree(document, resource, key),
            ResourceKind::AnyLine => return self.get_any(document, resource, place, key),
            ResourceKind::Site => return self.get_site(document, key),
            _ => {}
        }
        if rules.kind == ResourceKind::Section {
            let name = key.name();
            return match self.section_at(document, rules, key) {
                Some(at) => Ok(self.read(document, resource, at, name)),
                None if matches!(key, Key::Singleton) => Ok(Object::new()),
                None => Err(self.not_found(resource, place, key)),
            };
        }
        let at = self.known_parent(document, place)?;
        self.find(document, resource, at, key)
            .map(|(_, object)| object)
            .ok_or_else(|| self.not_found(resource, place, key))
    }

    /// Adds an object.
    pub fn create(&self, document: &Document, resource: MessageId, place: &Place, object: &Object) -> Result<Edited> {
        let rules = self.rules(resource)?;
        if let Some(joined) = Self::joined(document, rules, place)? {
            return joined.apart(document, self.create(joined.document(), resource, place, object)?);
        }
        self.check_version(resource, object)?;
        match rules.kind {
            ResourceKind::Tree => self.create_tree(document, resource, object),
            ResourceKind::AnyLine => self.create_any(document, resource, place, object),
            ResourceKind::Site => self.create_site(document, object),
            ResourceKind::Section => self.create_section(document, resource, rules, object),
            ResourceKind::NamedLine => {
                let at = self.known_parent(document, place)?;
                let name = self.identity(resource, object).unwrap_or_default().to_owned();
                if !name.is_empty() && self.find(document, resource, at, &Key::Name(name.clone())).is_some() {
                    return Err(Error::new(
                        Reason::ObjectExists,
                        format!("{} {name} already exists in {place}", self.noun(resource)),
                    ));
                }
                let (text, unused) = self.line_text(resource, object, &[])?;
                let layout = self.layout(document, at)?;
                let section = &document.sections()[at];
                let position = Self::behind_last(section, layout, resource);
                Self::insert(document, at, position, &text, unused)
            }
            ResourceKind::IndexedLine => {
                let at = self.known_parent(document, place)?;
                let index = self.index_of(resource, object).unwrap_or(-1);
                let positions: Vec<usize> = self.lines(document, resource, at).map(|(line, _)| line).collect();
                let section = &document.sections()[at];
                let position = match usize::try_from(index) {
                    Ok(index) if index < positions.len() => positions[index],
                    Ok(index) if index == positions.len() => {
                        Self::behind_last(section, self.layout(document, at)?, resource)
                    }
                    _ => return Err(self.out_of_range(resource, place, index, positions.len())),
                };
                let (text, unused) = self.line_text(resource, object, &[])?;
                Self::insert(document, at, position, &text, unused)
            }
        }
    }

    /// Replaces an object whole. No byte changes when it already is as wanted.
    pub fn replace(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let rules = self.rules(resource)?;
        if let Some(joined) = Self::joined(document, rules, place)? {
            return joined.apart(document, self.replace(joined.document(), resource, place, key, object)?);
        }
        self.check_version(resource, object)?;
        let restored = self.restored(document, resource, place, key, object)?;
        let object = restored.as_ref().unwrap_or(object);
        match rules.kind {
            ResourceKind::Tree => return self.replace_tree(document, resource, key, object),
            ResourceKind::AnyLine => return self.replace_any(document, resource, place, key, object),
            ResourceKind::Site => return self.replace_site(document, key, object),
            _ => {}
        }
        if rules.kind == ResourceKind::Section {
            return self.replace_section(document, resource, rules, place, key, object);
        }
        let at = self.known_parent(document, place)?;
        let (line, old) = self.find(document, resource, at, key).ok_or_else(|| self.not_found(resource, place, key))?;
        let mut wanted = object.clone();
        self.keep_hidden(resource, &old, &mut wanted);
        if rules.kind == ResourceKind::NamedLine {
            let name = self.identity(resource, object).unwrap_or_default();
            if !name.is_empty()
                && name != key.name()
                && self
                    .find(document, resource, at, &Key::Name(name.to_owned()))
                    .is_some_and(|(other, _)| other != line)
            {
                return Err(Error::new(
                    Reason::ObjectExists,
                    format!("{} {name} already exists in {place}", self.noun(resource)),
                ));
            }
        } else if let (Some(field), Key::Index(index)) = (rules.identity.first(), key) {
            wanted.set(*field, Value::Int(*index));
        }
        let mut same = wanted.clone();
        same.set_residue(old.residue().to_vec());
        let (text, unused) = self.line_text(resource, &wanted, old.residue())?;
        if same == old || self.reads_as(resource, &text, &old) {
            return Ok(Edited { document: document.clone(), unused });
        }
        let mut section = Section::clone(&document.sections()[at]);
        let words = section.line(line).map(|line| line.words().words).unwrap_or_default();
        let printed = self.line_text(resource, &old, old.residue()).map_or_else(|_| String::new(), |(text, _)| text);
        let spelled = respelled(&words, &printed, &text, |text| self.line_object(resource, &split(text).words, 0));
        section.replace_line(line, &spelled)?;
        Ok(Edited { document: document.with_section(at, section), unused })
    }

    /// An object with the bytes that are not UTF-8 of what it replaces, when it has what is shown of them.
    fn restored(
        &self,
        document: &Document,
        resource: MessageId,
        place: &Place,
        key: &Key,
        object: &Object,
    ) -> Result<Option<Object>> {
        if !odd::is_doubtful(object) {
            return Ok(None);
        }
        let Ok(old) = self.get(document, resource, place, key) else { return Ok(None) };
        let mut restored = object.clone();
        odd::restore(&old, &mut restored).map_err(|path| {
            let field = self.schema.tables.json_path(resource, &path);
            let message = "holds bytes that are not UTF-8: it stays as it is shown, or becomes a text without U+FFFD";
            Error::invalid(vec![Violation { field, message: message.to_owned(), code: 0, location: "body" }])
        })?;
        Ok(Some(restored))
    }

    /// Removes an object.
    pub fn delete(&self, document: &Document, resource: MessageId, place: &Place, key: &Key) -> Result<Edited> {
        let rules = self.rules(resource)?;
        if let Some(joined) = Self::joined(document, rules, place)? {
            return joined.apart(document, self.delete(joined.document(), resource, place, key)?);
        }
        match rules.kind {
            ResourceKind::Tree => return self.delete(document, self.tree_parts(resource)?.section, place, key),
            ResourceKind::AnyLine => return self.delete_any(document, resource, place, key),
            ResourceKind::Site => return self.delete_site(document, key),
            _ => {}
        }
        if rules.kind == ResourceKind::Section {
            let at = self.section_at(document, rules, key).ok_or_else(|| self.not_found(resource, place, key))?;
            let mut document = document.clone();
            document.remove_section(at);
            return Ok(Edited { document, unused: Vec::new() });
        }
        let at = self.known_parent(document, place)?;
        let (line, _) = self.find(document, resource, at, key).ok_or_else(|| self.not_found(resource, place, key))?;
        let mut section = Section::clone(&document.sections()[at]);
        section.remove_line(line)?;
        Ok(Edited { document: document.with_section(at, section), unused: Vec::new() })
    }

    // ---------------------------------------------------------------- finding

    /// The sections that a resource is about as one, where HAProxy reads several as one.
    fn joined(document: &Document, rules: &Resource, place: &Place) -> Result<Option<Joined>> {
        match (rules.kind, place.section.as_deref()) {
            (ResourceKind::Section, _) if rules.singleton => join(document, &rules.keyword),
            (ResourceKind::NamedLine | ResourceKind::IndexedLine, Some("global")) => join(document, "global"),
            _ => Ok(None),
        }
    }

    pub(super) fn rules(&self, resource: MessageId) -> Result<&Resource> {
        self.schema.tables.messages[resource].resource.as_ref().ok_or_else(|| Error::internal("not a resource"))
    }

    /// Position of the section that a place names.
    pub(super) fn parent(&self, document: &Document, place: &Place) -> Option<usize> {
        let kind = place.section.as_deref()?;
        match kind {
            "global" => document.find("global", ""),
            "defaults" => Self::defaults(document, &place.name),
            _ => self.find_section(document, kind, &place.name),
        }
    }

    pub(super) fn known_parent(&self, document: &Document, place: &Place) -> Result<usize> {
        self.parent(document, place)
            .ok_or_else(|| Error::new(Reason::ParentNotFound, format!("{place} does not exist")).with("parent", place))
    }

    /// A section by kind and listed name; a `listen` section is also found as its parts, when they are to be shown.
    fn find_section(&self, document: &Document, kind: &str, name: &str) -> Option<usize> {
        let listen = || self.shows_listens(kind).then(|| document.find("listen", name)).flatten();
        Self::find_listed(document, kind, name).or_else(listen)
    }

    fn shows_listens(&self, kind: &str) -> bool {
        self.listens_as_parts && matches!(kind, "frontend" | "backend")
    }

    /// A `defaults` section by its listed name; the last one when no name is given.
    fn defaults(document: &Document, name: &str) -> Option<usize> {
        if name.is_empty() {
            return document.sections().iter().rposition(|s| s.kind() == "defaults");
        }
        Self::find_listed(document, "defaults", name)
    }

    /// A section by kind and listed name, in whatever quotes or escapes either is written.
    pub(super) fn find_listed(document: &Document, kind: &str, name: &str) -> Option<usize> {
        let name = &*plain(name);
        let spelled = || {
            let wanted = is_marked(name).then(|| name_bytes(name))?;
            document.sections().iter().position(|s| s.kind() == kind && name_bytes(s.name()) == wanted)
        };
        document.find(kind, name).or_else(spelled).or_else(|| {
            let number: usize = name.strip_prefix(&*unnamed(kind))?.parse().ok()?;
            let sections = document.sections().iter().enumerate();
            let unnamed = sections.filter(|(_, section)| section.kind() == kind && section.name().is_empty());
            unnamed.map(|(at, _)| at).nth(number.checked_sub(1)?)
        })
    }

    /// Sections of a kind with their listed names.
    pub(super) fn sections<'a>(
        &self,
        document: &'a Document,
        rules: &'a Resource,
    ) -> impl Iterator<Item = (usize, String)> + use<'a> {
        let mut count = 0;
        let listens = self.shows_listens(&rules.keyword);
        let wanted = move |kind: &str| kind == &*rules.keyword || listens && kind == "listen";
        document.sections().iter().enumerate().filter(move |(_, s)| wanted(s.kind())).map(move |(at, section)| {
            let mut name = section.name().to_owned();
            if name.is_empty() && !rules.singleton {
                count += 1;
                name = format!("{}{count}", unnamed(section.kind()));
            }
            (at, name)
        })
    }

    pub(super) fn section_at(&self, document: &Document, rules: &Resource, key: &Key) -> Option<usize> {
        match key {
            // The deprecated view of `defaults` shows the section that comes first by its listed name.
            Key::Singleton => self.sections(document, rules).min_by(|a, b| a.1.cmp(&b.1)).map(|(at, _)| at),
            Key::Name(name) if &*rules.keyword == "defaults" => {
                if name.is_empty() {
                    None
                } else {
                    Self::defaults(document, name)
                }
            }
            Key::Name(name) => self.find_section(document, &rules.keyword, name),
            Key::Index(_) => None,
        }
    }

    pub(super) fn layout(&self, document: &Document, at: usize) -> Result<&SectionLayout> {
        let kind = document.sections()[at].kind();
        self.layouts.get(kind).ok_or_else(|| Error::internal(format!("no layout for {kind}")))
    }

    /// Readable lines of a resource in a section, with their line numbers.
    pub(super) fn lines<'a>(
        &'a self,
        document: &'a Document,
        resource: MessageId,
        at: usize,
    ) -> impl Iterator<Item = (usize, Object)> + 'a {
        let section = &document.sections()[at];
        let keyword = self.schema.tables.messages[resource].resource.as_ref().map_or("", |r| &*r.keyword);
        let mut index = 0;
        said_by(section, keyword).filter_map(move |line| {
            let object = self.line_object(resource, &line.words, index)?;
            index += 1;
            Some((line.at, object))
        })
    }

    /// Reads one line as an object with its derived identity.
    pub(super) fn line_object(&self, resource: MessageId, words: &[&str], index: i64) -> Option<Object> {
        let mut object = self.schema.grammar.parse_line(resource, words)?;
        let rules = self.schema.tables.messages[resource].resource.as_ref()?;
        match rules.kind {
            ResourceKind::IndexedLine => object.set(*rules.identity.first()?, Value::Int(index)),
            ResourceKind::NamedLine if rules.derived_name && self.identity(resource, &object).is_none() => {
                set_path(&mut object, &rules.identity, Value::Str((*plain(words.get(1)?)).into()));
            }
            _ => {}
        }
        (!self.only_v2 || self.audience.is_shown(&self.schema.tables, resource, &object)).then_some(object)
    }

    /// What callers may see of an object. /v2 has no trees and no lines without a reader: of them nothing is hidden.
    pub(super) fn shown(&self, resource: MessageId, mut object: Object) -> Object {
        let kind = self.rules(resource).map(|rules| rules.kind);
        if self.only_v2 && !matches!(kind, Ok(ResourceKind::Tree | ResourceKind::AnyLine)) {
            self.audience.hide(&self.schema.tables, resource, &mut object);
        }
        object
    }

    /// Gives an object from /v2 what /v2 cannot say about the one that it replaces.
    pub(super) fn keep_hidden(&self, resource: MessageId, old: &Object, wanted: &mut Object) {
        if self.only_v2 {
            self.audience.keep(&self.schema.tables, resource, old, wanted);
            keep_zeros(&self.schema.tables, resource, old, wanted);
        }
    }

    /// Refuses what the HAProxy in use is too old or too new for.
    fn check_version(&self, resource: MessageId, object: &Object) -> Result<()> {
        let Some(version) = self.version else { return Ok(()) };
        let violations = self.audience.unknown(&self.schema.tables, resource, object, version);
        if violations.is_empty() { Ok(()) } else { Err(Error::invalid(violations)) }
    }

    pub(super) fn find(
        &self,
        document: &Document,
        resource: MessageId,
        at: usize,
        key: &Key,
    ) -> Option<(usize, Object)> {
        match key {
            Key::Index(index) => self.lines(document, resource, at).nth(usize::try_from(*index).ok()?),
            Key::Name(name) => {
                let section = &document.sections()[at];
                let keyword = &*self.schema.tables.messages[resource].resource.as_ref()?.keyword;
                // A name stands in its line as it is, unless quotes or escapes cut it: other lines need not be read.
                let meant = name_bytes(name);
                let finder = memchr::memmem::Finder::new(&*meant);
                let name = odd::shown(name);
                let is_same = |other: &str| other == name || name_bytes(other) == meant;
                let is_shown = name.contains('\u{fffd}');
                let may_hold = |raw: &[u8]| finder.find(raw).is_some() || is_marked(raw) || is_shown;
                section.lines().enumerate().filter(|(_, line)| begins_with(line, keyword)).find_map(|(number, line)| {
                    may_hold(line.raw()).then_some(())?;
                    let object = self.line_object(resource, &line.words().words, 0)?;
                    is_same(&odd::shown(self.identity(resource, &object)?)).then_some((number, object))
                })
            }
            Key::Singleton => None,
        }
    }

    /// The name of an object.
    pub(super) fn identity<'o>(&self, resource: MessageId, object: &'o Object) -> Option<&'o str> {
        match self.schema.tables.messages[resource].resource.as_ref()?.identity[..] {
            [field] => object.str(field),
            [params, field] => object.object(params)?.str(field),
            _ => None,
        }
    }

    pub(super) fn index_of(&self, resource: MessageId, object: &Object) -> Option<i64> {
        object.int(*self.schema.tables.messages[resource].resource.as_ref()?.identity.first()?)
    }

    // ---------------------------------------------------------------- placing

    /// Where a new last line of a resource goes: behind the last line with its keyword, readable or not; without one,
    /// before the first line of a kind that comes later, else to the end. Never into an `.if` block.
    pub(super) fn behind_last(section: &Section, layout: &SectionLayout, resource: MessageId) -> usize {
        let keyword = layout.children.iter().find(|c| c.message == resource).map_or("", |c| &*c.keyword);
        // Lines such as `no log` are of the kind too.
        let of_kind = |words: &[&str]| layout.child_of(words).is_some_and(|child| child.message == resource);
        if let Some(last) = said_by(section, keyword).filter(|line| of_kind(&line.words)).last() {
            return outside(section, last.at + 1);
        }
        Self::before_later(section, layout, layout.order(resource)).unwrap_or_else(|| section.end_of_content())
    }

    /// Position of the first line whose rank is above `order`, unless it stands in an `.if` block.
    pub(super) fn before_later(section: &Section, layout: &SectionLayout, order: u32) -> Option<usize> {
        let later = super::layout::said(section)
            .find(|line| layout.child_of(&line.words).is_some_and(|child| child.order > order))?;
        // The start of the block, when it stands in one.
        let mut at = later.at;
        while is_inside(section, at) {
            at -= 1;
        }
        Some(at)
    }

    fn insert(document: &Document, at: usize, position: usize, text: &str, unused: Vec<String>) -> Result<Edited> {
        let mut section = Section::clone(&document.sections()[at]);
        if position >= section.end_of_content() {
            section.append_line(text)?;
        } else {
            section.insert_lines(position, &[text])?;
        }
        Ok(Edited { document: document.with_section(at, section), unused })
    }

    // ---------------------------------------------------------------- writing

    /// The line of an object, with unknown words of the line that it replaces.
    fn line_text(&self, resource: MessageId, object: &Object, residue: &[Box<str>]) -> Result<(String, Vec<String>)> {
        self.printed(resource, object, residue).map_err(refused)
    }

    /// As `line_text`, with the fault itself.
    pub(super) fn printed(
        &self,
        resource: MessageId,
        object: &Object,
        residue: &[Box<str>],
    ) -> std::result::Result<(String, Vec<String>), PrintFault> {
        let grammar = &self.schema.grammar;
        let printed = if residue.is_empty() {
            grammar.print_line(resource, object)
        } else {
            let mut whole = object.clone();
            whole.set_residue(residue.to_vec());
            grammar.print_line(resource, &whole)
        };
        printed.map(|printed| (printed.text, printed.unused))
    }

    /// True when a text reads as `old`, apart from derived identities.
    pub(super) fn reads_as(&self, resource: MessageId, text: &str, old: &Object) -> bool {
        let words = crate::schema::words::split(text).words;
        let index = self.index_of(resource, old).unwrap_or(0);
        self.line_object(resource, &words, index).is_some_and(|object| object == *old)
    }
}

fn set_path(object: &mut Object, path: &[usize], value: Value) {
    match *path {
        [field] => object.set(field, value),
        [params, field] => object.object_mut(params).set(field, value),
        _ => {}
    }
}

/// The next position at or behind `at` that is not inside an `.if` block of the section.
pub(super) fn outside(section: &Section, at: usize) -> usize {
    let mut position = at;
    while position < section.len() && is_inside(section, position) {
        position += 1;
    }
    position
}

/// True when a line inserted at `at` would be inside an `.if` block of the section.
pub(super) fn is_inside(section: &Section, at: usize) -> bool {
    at.checked_sub(1).and_then(|before| section.line(before)).is_some_and(|line| {
        let opens = |text: &str| text.trim_start().starts_with(".if") || text.trim_start().starts_with(".el");
        line.depth() > section.depth() || (line.kind() == LineKind::Directive && line.text().is_some_and(opens))
    })
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
