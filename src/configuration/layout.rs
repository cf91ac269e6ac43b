//! Which lines of a section belong to whom: to an object of their own, to a field of the section, or to nobody we know.

use std::collections::HashMap;

use crate::document::{LineKind, LineRef, Section};
use crate::schema::Schema;
use crate::schema::tables::{FieldIndex, Kind, MessageId, ResourceKind};
use crate::schema::template::Keyword;
use crate::schema::words::{is_blank, is_marked, plain};

/// Layouts of all kinds of sections.
#[derive(Debug)]
pub struct Layouts {
    by_kind: HashMap<Box<str>, SectionLayout>,
}

/// What may stand in sections of one kind.
#[derive(Debug)]
pub struct SectionLayout {
    /// The section keyword.
    pub kind: Box<str>,
    /// The message of the section itself; kinds that only hold lines of others have none.
    pub message: Option<MessageId>,
    /// Objects that are lines of such a section.
    pub children: Vec<Child>,
    /// Children by the first word of their lines.
    by_word: HashMap<Box<str>, Vec<usize>>,
    /// Fields of the section that repeat what its first child of a kind says (`http-check` of backends).
    pub mirrors: Vec<(FieldIndex, MessageId)>,
}

/// A kind of object that is a line of a section.
#[derive(Debug)]
pub struct Child {
    /// Its message.
    pub message: MessageId,
    /// First word of its lines.
    pub keyword: Box<str>,
    /// Rank that says where the first line of its kind goes.
    pub order: u32,
}

impl Layouts {
    /// Made once from the schema.
    pub fn new(schema: &Schema) -> Layouts {
        let mut by_kind: HashMap<Box<str>, SectionLayout> = HashMap::new();
        let empty = |kind: &str| SectionLayout {
            kind: kind.into(),
            message: None,
            children: Vec::new(),
            by_word: HashMap::new(),
            mirrors: Vec::new(),
        };
        for (id, message) in schema.tables.messages.iter().enumerate() {
            let Some(resource) = &message.resource else { continue };
            if matches!(resource.kind, ResourceKind::Tree | ResourceKind::AnyLine | ResourceKind::Site) {
                continue;
            }
            if resource.kind == ResourceKind::Section {
                let layout = by_kind.entry(resource.keyword.clone()).or_insert_with_key(|kind| empty(kind));
                layout.message = Some(id);
                continue;
            }
            for parent in &resource.parents {
                let layout = by_kind.entry(parent.section.clone()).or_insert_with_key(|kind| empty(kind));
                let at = layout.children.len();
                layout.children.push(Child { message: id, keyword: resource.keyword.clone(), order: resource.order });
                for keyword in schema.grammar.keywords(id) {
                    if let Keyword::Word(word) = keyword {
                        layout.by_word.entry(word.clone()).or_default().push(at);
                    }
                }
            }
        }
        for layout in by_kind.values_mut() {
            let Some(message) = layout.message else { continue };
            for (at, field) in schema.tables.messages[message].fields.iter().enumerate() {
                if let Kind::Message(child) = field.kind
                    && field.print_only
                    && layout.children.iter().any(|c| c.message == child)
                {
                    layout.mirrors.push((at, child));
                }
            }
        }
        Layouts { by_kind }
    }

    /// Layout of a kind of section.
    pub fn get(&self, kind: &str) -> Option<&SectionLayout> {
        self.by_kind.get(kind)
    }
}

impl SectionLayout {
    /// The child that a line with these words is, by its first words only: the line may still be unreadable.
    pub fn child_of(&self, words: &[&str]) -> Option<&Child> {
        let first = plain(words.first()?);
        let candidates = self.by_word.get(&*first)?;
        // A line such as `no log` begins with a word that many keywords share.
        candidates
            .iter()
            .map(|at| &self.children[*at])
            .find(|c| *c.keyword == *first || words.iter().any(|word| *plain(word) == *c.keyword))
    }

    /// Rank of the objects of a message.
    pub fn order(&self, message: MessageId) -> u32 {
        self.children.iter().find(|c| c.message == message).map_or(0, |c| c.order)
    }
}

/// A line that says something, with its position in the section.
pub struct Said<'a> {
    /// Position among the lines of the section.
    pub at: usize,
    /// Its words.
    pub words: Vec<&'a str>,
}

/// The lines of a section that say something.
pub fn said(section: &Section) -> impl Iterator<Item = Said<'_>> {
    section.lines().enumerate().filter_map(|(at, line)| {
        if line.kind() != LineKind::Content {
            return None;
        }
        let words = line.words().words;
        (!words.is_empty()).then_some(Said { at, words })
    })
}

/// The lines of a section whose first word is `keyword` or `no`, without splitting the others.
pub fn said_by<'a>(section: &'a Section, keyword: &'a str) -> impl Iterator<Item = Said<'a>> {
    section.lines().enumerate().filter_map(move |(at, line)| {
        if !begins_with(&line, keyword) && !begins_with(&line, "no") {
            return None;
        }
        Some(Said { at, words: line.words().words })
    })
}

/// True when the first word of a line is `word`, in quotes or not.
pub fn begins_with(line: &LineRef<'_>, word: &str) -> bool {
    line.kind() == LineKind::Content
        && line.text().is_some_and(|text| {
            let text = text.trim_start();
            match text.strip_prefix(word) {
                Some(rest) if rest.bytes().next().is_none_or(is_blank) => true,
                _ => {
                    let first = text.split(|c: char| c.is_ascii() && is_blank(c as u8)).next().unwrap_or_default();
                    is_marked(first) && *plain(first) == *word
                }
            }
        })
}
