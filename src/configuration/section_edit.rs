//! Sections as objects: reading their fields, and changing just the lines whose value differs.

use std::collections::BTreeMap;

use super::address::{Key, Place};
use super::engine::{Edited, Engine, outside};
use super::joined::border;
use super::layout::{SectionLayout, said};
use super::placing::place_for_new;
use super::refusals::refused;
use super::spelling::respelled;
use crate::document::{Document, Section};
use crate::error::{Error, Reason, Result};
use crate::schema::tables::{FieldIndex, Kind, MessageId, Resource};
use crate::schema::template::{Earlier, SectionGrammar, SlotId};
use crate::schema::value::{Object, Value};
use crate::schema::words::{meaning, plain, split};

/// Lines of this rank and above are what the settings of a section apply to: settings stand before them.
const FIRST_SERVER_ORDER: u32 = 90;

impl Engine {
    /// Reads a section with the name that lists show.
    pub(super) fn read(&self, document: &Document, resource: MessageId, at: usize, name: &str) -> Object {
        let section = &document.sections()[at];
        let mut object = self.header_object(resource, section);
        if let Some(rules) = &self.schema.tables.messages[resource].resource
            && let ([field], false) = (&rules.identity[..], name.is_empty())
        {
            object.set(*field, Value::Str(name.into()));
        }
        self.read_lines(resource, section, &mut object);
        object
    }

    fn header_object(&self, resource: MessageId, section: &Section) -> Object {
        self.schema.grammar.parse_line(resource, &section.header_words()).unwrap_or_default()
    }

    fn read_lines(&self, resource: MessageId, section: &Section, object: &mut Object) {
        let Some(layout) = self.layouts.get(section.kind()) else { return };
        let Some(grammar) = self.schema.grammar.section(resource) else { return };
        let mut seen = Earlier::default();
        for line in said(section) {
            match layout.child_of(&line.words) {
                Some(child) => {
                    for (field, message) in &layout.mirrors {
                        if *message == child.message
                            && object.get(*field).is_none()
                            && let Some(first) = self.line_object(*message, &line.words, 0)
                        {
                            object.set(*field, Value::Object(first));
                        }
                    }
                }
                None => {
                    grammar.read_next(&line.words, object, &mut seen);
                }
            }
        }
    }

    pub(super) fn create_section(
        &self,
        document: &Document,
        resource: MessageId,
        rules: &Resource,
        object: &Object,
    ) -> Result<Edited> {
        let name = self.identity(resource, object).unwrap_or_default();
        if rules.singleton && document.find(&rules.keyword, "").is_some()
            || !rules.singleton && Self::find_listed(document, &rules.keyword, name).is_some()
        {
            return Err(Error::new(Reason::ObjectExists, format!("{} {name} already exists", self.noun(resource))));
        }
        self.check_from(document, resource, object)?;
        let header = self.schema.grammar.print_line(resource, object).map_err(refused)?;
        let section = Section::new(&header.text, document.style())?;
        let base = self.schema.tables.messages[resource].field_named("from").and_then(|from| object.str(from));
        let at = if rules.first { 0 } else { place_for_new(document, &rules.keyword, name, base) };
        let mut document = document.clone();
        document.insert_section(at, section);
        self.write_fields(&document, resource, at, object)
    }

    pub(super) fn replace_section(
        &self,
        document: &Document,
        resource: MessageId,
        rules: &Resource,
        place: &Place,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let at = match (self.section_of(document, rules, key), rules.singleton || matches!(key, Key::Singleton)) {
            (Some(at), _) => at,
            (None, true) => {
                let section = Section::new(&rules.keyword, document.style())?;
                let at = if rules.first { 0 } else { place_for_new(document, &rules.keyword, "", None) };
                let mut document = document.clone();
                document.insert_section(at, section);
                return self.write_fields(&document, resource, at, object);
            }
            (None, false) => return Err(self.not_found(resource, place, key)),
        };
        self.check_from(document, resource, object)?;
        let mut wanted = object.clone();
        self.keep_hidden(resource, &self.read(document, resource, at, key.name()), &mut wanted);
        let document = self.write_header(document, resource, at, &wanted)?;
        self.write_fields(&document, resource, at, &wanted)
    }

    /// The header keeps its name; only what else it says may change.
    fn write_header(&self, document: &Document, resource: MessageId, at: usize, object: &Object) -> Result<Document> {
        let message = &self.schema.tables.messages[resource];
        let section = &document.sections()[at];
        let Some(from) = message.field_named("from").filter(|_| !section.name().is_empty()) else {
            return Ok(document.clone());
        };
        let old = self.header_object(resource, section);
        if old.str(from) == object.str(from) {
            return Ok(document.clone());
        }
        let mut header = old.clone();
        header.take(from);
        if let Some(value) = object.get(from) {
            header.set(from, value.clone());
        }
        let printed = self.schema.grammar.print_line(resource, &header).map_err(refused)?;
        let mut section = Section::clone(section);
        section.set_header_text(&printed.text)?;
        Ok(document.with_section(at, section))
    }

    /// A section cannot take its settings from a `defaults` section that is not there.
    fn check_from(&self, document: &Document, resource: MessageId, object: &Object) -> Result<()> {
        let Some(from) = self.schema.tables.messages[resource].field_named("from") else { return Ok(()) };
        match object.str(from) {
            Some(name) if !name.is_empty() && document.find("defaults", &plain(name)).is_none() => Err(Error::new(
                Reason::InvalidValue,
                format!(
                    "from: object {} references missing defaults section {name}",
                    self.identity(resource, object).unwrap_or_default()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Makes the lines of a section's fields say what `object` says. Lines that already do stay as they are.
    fn write_fields(&self, document: &Document, resource: MessageId, at: usize, object: &Object) -> Result<Edited> {
        let Some(grammar) = self.schema.grammar.section(resource) else {
            return Ok(Edited { document: document.clone(), unused: Vec::new() });
        };
        let layout = self.layout(document, at)?;
        let section = &document.sections()[at];
        let mut old: BTreeMap<SlotId, Vec<usize>> = BTreeMap::new();
        let mut unread = Vec::new();
        for line in said(section).filter(|line| layout.child_of(&line.words).is_none()) {
            match grammar.owner(&line.words) {
                Some(slot) => old.entry(slot).or_default().push(line.at),
                None => unread.push(line),
            }
        }
        let mut wanted: BTreeMap<SlotId, Vec<String>> = BTreeMap::new();
        let mut first_children = Vec::new();
        let printed = grammar.print(object).map_err(refused)?;
        for (slot, text) in printed.lines {
            let words = split(&text).words;
            // A field that mirrors the first child of a kind.
            if let Some(child) = layout.child_of(&words) {
                first_children.push((child.message, text));
            } else {
                // A successor may own what a deprecated field writes.
                let owner = grammar.owner(&words).unwrap_or(slot);
                wanted.entry(owner).or_default().push(text);
            }
        }
        // A value that is set replaces what nobody could read in its place: of a list only what can mean nothing.
        for line in unread {
            if let Some((slot, dead)) = grammar.meant(&line.words)
                && wanted.contains_key(&slot)
                && (dead || !self.is_list(resource, &grammar.path(slot)))
            {
                let lines = old.entry(slot).or_default();
                lines.push(line.at);
                lines.sort_unstable();
            }
        }
        let mut edit = FieldEdit::new(section);
        let slots: std::collections::BTreeSet<SlotId> = old.keys().chain(wanted.keys()).copied().collect();
        for slot in slots {
            let old = old.get(&slot).map_or(&[][..], Vec::as_slice);
            let new = wanted.get(&slot).map_or(&[][..], Vec::as_slice);
            let says = |texts: &mut dyn Iterator<Item = &str>| {
                let (mut object, mut seen) = (Object::new(), Earlier::default());
                for text in texts {
                    grammar.read_next(&split(text).words, &mut object, &mut seen);
                }
                object.clear_residue();
                object
            };
            let apart = grammar.adds(slot).and_then(|keyword| shared_out(section, keyword, old, new));
            let new = apart.as_deref().unwrap_or(new);
            let before = says(&mut old.iter().filter_map(|at| section.line(*at)?.text()));
            if before == says(&mut new.iter().map(String::as_str)) {
                continue;
            }
            let same = |old: &str, new: &str| {
                split(old).words == split(new).words || says(&mut [old].into_iter()) == says(&mut [new].into_iter())
            };
            let several = apart.is_some() || grammar.has_earlier(slot) || self.is_list(resource, &grammar.path(slot));
            edit.slot(old, new, several, &same, &|old, new| {
                let new = self.with_residue(resource, old, new);
                let said = grammar.print(&says(&mut [old].into_iter())).map(|printed| printed.lines);
                let printed = said.ok().and_then(|lines| lines.into_iter().next()).map(|(_, text)| text);
                let printed = self.with_residue(resource, old, &printed.unwrap_or_default());
                respelled(&split(old).words, &printed, &new, |text| says(&mut [text].into_iter()))
            });
        }
        // A document with another section costs a copy of its list of sections.
        let mut document =
            if edit.is_empty() { document.clone() } else { document.with_section(at, edit.apply(self, layout)?) };
        for (message, text) in first_children {
            document = self.put_first(&document, at, message, &text)?;
        }
        Ok(Edited { document, unused: printed.unused })
    }

    /// What the `stick-table` or `table` line of a stick table says behind a word: `gpc0,http_req_rate(10s)` behind `store`.
    /// Several are joined by commas. The table is named as at run time: by its section, or as `peers-section/table`.
    pub fn table_setting(&self, document: &Document, table: &str, word: &str) -> Option<String> {
        let (section, line) = if let Some((section, table)) = table.split_once('/') {
            (document.find("peers", section)?, Some(table))
        } else {
            let kinds = ["backend", "frontend", "listen", "peers"];
            (kinds.iter().find_map(|kind| document.find(kind, table))?, None)
        };
        let wanted = |words: &[&str]| match line {
            Some(name) => words.first() == Some(&"table") && words.get(1) == Some(&name),
            None => words.first() == Some(&"stick-table"),
        };
        let line = said(document.section(section)?).find(|line| wanted(&line.words))?;
        let said = line.words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1]);
        Some(said.collect::<Vec<_>>().join(","))
    }

    /// Addresses of the `stats socket` lines of the global sections: those of `level admin` first, and each kind in the
    /// order of the file. Variables are those that the lines above set, else those of `environment`.
    pub fn stats_sockets(&self, document: &Document, environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let globals = document.find_all("global", "");
        let lines = globals.iter().filter_map(|at| document.section(*at)).flat_map(|section| said(section));
        let mut set: BTreeMap<String, String> = BTreeMap::new();
        let (mut admin, mut others) = (Vec::new(), Vec::new());
        for line in lines {
            let variable = |name: &str| set.get(name).cloned().or_else(|| environment(name));
            let read = |word: &&str| meaning(word, &variable).map(|read| String::from_utf8_lossy(&read).into_owned());
            let words: Vec<String> = line.words.iter().filter_map(read).collect();
            match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["setenv", name, value, ..] => {
                    set.insert((*name).to_owned(), (*value).to_owned());
                }
                ["presetenv", name, value, ..] if variable(name).is_none() => {
                    set.insert((*name).to_owned(), (*value).to_owned());
                }
                ["stats", "socket", address, rest @ ..] => {
                    let is_admin = rest.windows(2).any(|pair| pair == ["level", "admin"]);
                    if is_admin { &mut admin } else { &mut others }.push((*address).to_owned());
                }
                _ => {}
            }
        }
        admin.append(&mut others);
        admin
    }

    /// The group that HAProxy runs as: what the first `group` or `gid` line of the global sections says, a name or a number.
    pub fn process_group(&self, document: &Document) -> Option<String> {
        let globals = document.find_all("global", "");
        let mut lines = globals.iter().filter_map(|at| document.section(*at)).flat_map(|section| said(section));
        let line = lines.find(|line| matches!(line.words.first(), Some(&"group" | &"gid")))?;
        line.words.get(1).map(|word| word.trim_matches(['"', '\'']).to_owned())
    }

    /// True when each item of the field at a path is a line of its own.
    fn is_list(&self, resource: MessageId, path: &[FieldIndex]) -> bool {
        let mut message = resource;
        for (depth, field) in path.iter().enumerate() {
            let field = &self.schema.tables.messages[message].fields[*field];
            match field.kind {
                Kind::Message(inner) if depth + 1 < path.len() => message = inner,
                _ => return field.repeated,
            }
        }
        false
    }

    /// Unknown parameters of a line that is rewritten stay on it.
    fn with_residue(&self, resource: MessageId, old: &str, new: &str) -> String {
        let residue = self.schema.grammar.section(resource).map(|g| residue_of(g, &split(old).words));
        match residue {
            Some(words) if !words.is_empty() => format!("{new} {}", words.join(" ")),
            _ => new.to_owned(),
        }
    }

    /// Puts a line of a child kind first, unless the section has an equal one.
    fn put_first(&self, document: &Document, at: usize, message: MessageId, text: &str) -> Result<Document> {
        let section = &document.sections()[at];
        let wanted = self.line_object(message, &split(text).words, 0);
        if said(section).any(|line| self.line_object(message, &line.words, 0) == wanted) {
            return Ok(document.clone());
        }
        let layout = self.layout(document, at)?;
        let first = said(section).find(|line| layout.child_of(&line.words).is_some_and(|c| c.message == message));
        let mut section = Section::clone(section);
        match first {
            Some(line) => section.insert_lines(line.at, &[text]).map(|_| ())?,
            None => match Self::before_later(&section, layout, layout.order(message)) {
                Some(position) => section.insert_lines(position, &[text]).map(|_| ())?,
                None => section.append_line(text).map(|_| ())?,
            },
        }
        Ok(document.with_section(at, section))
    }

    fn section_of(&self, document: &Document, rules: &Resource, key: &Key) -> Option<usize> {
        if rules.singleton { document.find(&rules.keyword, "") } else { self.section_at(document, rules, key) }
    }
}

/// The words behind the keyword of the one line that is wanted, each on the old line that has it; what no old line has, on the last one.
/// `None` where they stand in another order, so that they need one line.
fn shared_out(section: &Section, keyword: usize, old: &[usize], new: &[String]) -> Option<Vec<String>> {
    let ([new], true) = (new, old.len() > 1) else { return None };
    let words = split(new).words;
    let (head, tail) = words.split_at_checked(keyword)?;
    let mut rest = tail.to_vec();
    let mut lines: Vec<Vec<&str>> = Vec::new();
    for at in old {
        let there = split(section.line(*at)?.text()?).words;
        let stays: Vec<&str> = there.get(keyword..)?.iter().copied().filter(|word| rest.contains(word)).collect();
        rest.retain(|word| !stays.contains(word));
        lines.push(stays);
    }
    lines.last_mut()?.append(&mut rest);
    let in_order = lines.concat() == tail;
    let said = lines.into_iter().filter(|words| !words.is_empty());
    in_order.then(|| said.map(|words| format!("{} {}", head.join(" "), words.join(" "))).collect())
}

/// Unknown words of a line that a slot reads.
fn residue_of(grammar: &SectionGrammar, words: &[&str]) -> Vec<Box<str>> {
    let mut object = Object::new();
    grammar.read(words, &mut object);
    object.all_residue()
}

/// Edits of a section's lines, collected first so that positions stay those of the section before.
struct FieldEdit<'a> {
    section: &'a Section,
    /// New text by line; nothing: the line goes.
    changed: BTreeMap<usize, Option<String>>,
    /// New lines behind a line, in order.
    behind: BTreeMap<usize, Vec<String>>,
    /// New lines that have no line of their kind to stand behind.
    new: Vec<String>,
}

impl<'a> FieldEdit<'a> {
    fn new(section: &'a Section) -> Self {
        FieldEdit { section, changed: BTreeMap::new(), behind: BTreeMap::new(), new: Vec::new() }
    }

    /// Changes the lines of one field from `old` to `new`, keeping those that already say what is wanted, in
    /// whatever words.
    fn slot(
        &mut self,
        old: &[usize],
        new: &[String],
        repeated: bool,
        same_value: &dyn Fn(&str, &str) -> bool,
        with_residue: &dyn Fn(&str, &str) -> String,
    ) {
        let text = |at: usize| self.section.line(at).and_then(|l| l.text()).unwrap_or_default();
        // A single value: its last line counts, so that one is rewritten and the others go.
        let (mut old, new) = (old.to_vec(), new);
        if !repeated && new.len() == 1 && old.len() > 1 {
            for at in old.drain(..old.len() - 1) {
                self.changed.insert(at, None);
            }
        }
        let same = |at: usize, new: &str| same_value(text(at), new);
        let prefix = old.iter().zip(new).take_while(|(at, new)| same(**at, new)).count();
        let suffix =
            old[prefix..].iter().rev().zip(new[prefix..].iter().rev()).take_while(|(at, new)| same(**at, new)).count();
        let (gone, come) = (&old[prefix..old.len() - suffix], &new[prefix..new.len() - suffix]);
        let shared = gone.len().min(come.len());
        for (at, new) in gone.iter().zip(come) {
            self.changed.insert(*at, Some(with_residue(text(*at), new)));
        }
        for at in &gone[shared..] {
            self.changed.insert(*at, None);
        }
        let rest = &come[shared..];
        if rest.is_empty() {
            return;
        }
        match old[..prefix + shared].last().or_else(|| old.last()) {
            Some(at) => self.behind.entry(*at).or_default().extend_from_slice(rest),
            None => self.new.extend_from_slice(rest),
        }
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.behind.is_empty() && self.new.is_empty()
    }

    fn apply(self, engine: &Engine, layout: &SectionLayout) -> Result<Section> {
        let mut section = Section::clone(self.section);
        let place = self.place_for_new(engine, layout);
        let mut lines: Vec<usize> = self.changed.keys().chain(self.behind.keys()).copied().collect();
        lines.sort_unstable();
        lines.dedup();
        // From the end, so that earlier positions stay valid.
        let mut new_done = self.new.is_empty();
        for at in lines.into_iter().rev() {
            if !new_done && place > at {
                section.splice(place..place, &self.new)?;
                new_done = true;
            }
            if let Some(texts) = self.behind.get(&at) {
                let behind = outside(&section, at + 1);
                section.splice(behind..behind, texts)?;
            }
            match self.changed.get(&at) {
                Some(Some(text)) => section.replace_line(at, text)?,
                Some(None) => section.remove_line(at)?,
                None => {}
            }
        }
        if !new_done {
            section.splice(place..place, &self.new)?;
        }
        Ok(section)
    }

    /// Where lines of fields go that the section has not had: behind the last field before the first server, else to
    /// the top; of several sections that are read as one, in the first.
    fn place_for_new(&self, engine: &Engine, layout: &SectionLayout) -> usize {
        let Some(grammar) = layout.message.and_then(|m| engine.schema.grammar.section(m)) else { return 0 };
        let mut place = 0;
        let end = border(self.section).unwrap_or(usize::MAX);
        for line in said(self.section).take_while(|line| line.at < end) {
            match layout.child_of(&line.words) {
                Some(child) if child.order >= FIRST_SERVER_ORDER => break,
                None if grammar.owner(&line.words).is_some() => {
                    place = outside(self.section, line.at + 1);
                }
                Some(_) | None => {}
            }
        }
        place
    }
}
