//! Line templates: one string says how a message, a field or an enum value stands in haproxy.cfg; parser and printer are both
//! made from it.
//!
//! A template is a sequence of words, slots `{name}`, choices `{flag=text|text}`, listed words
//! that make a text `{name+text|text _}`, optional groups `[ … | … ]`, groups in any
//! order `< … >`, and `*` for all other fields. [`Grammar::compile`] makes programs of them once and refuses those that could
//! be read in two ways; [`Grammar::parse_line`] and [`Grammar::print_line`] run them.
//!
//! Law: what is printed is parsed again before it is handed out, and a value that would come back different is refused. So
//! `parse(print(m)) == m` for every object that prints, with two spellings unified: blanks between the words of a `{name...}`
//! value become one, and the brackets of an IPv6 literal are left out of the value.

mod check;
mod compile;
mod event;
mod link;
mod names;
mod node;
mod notation;
mod overlap;
mod parse;
mod print;
mod quoted;
mod ready;
mod section;
mod text;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::tables::{MessageId, ResourceKind, Tables};
use super::value::Object;
use compile::{Broken, Compiler, Context};
use event::{Source, build};
use names::Names;
pub use names::Step;
use node::Node;
use parse::Parser;
pub use section::{Earlier, PrintedSection, SectionGrammar, SlotId};

/// The programs of all messages. Immutable and shared freely between threads.
#[derive(Debug)]
pub struct Grammar {
    lines: Vec<Option<Line>>,
    sections: Vec<Option<SectionGrammar>>,
    names: Arc<Names>,
}

/// The program of a line and how it can begin.
#[derive(Debug)]
struct Line {
    nodes: Vec<Node>,
    keywords: Vec<Keyword>,
    /// A word of it is `!`, which may also touch the word behind it.
    negated: bool,
}

/// How a line can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keyword {
    /// The first word is exactly this.
    Word(Box<str>),
    /// The first word begins with this.
    Prefix(Box<str>),
    /// Any word.
    Any,
}

/// A template that breaks a rule of the notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Full name of the message.
    pub message: String,
    /// JSON key of the field, `field=token` for the value of an enum, empty for the line of the message.
    pub element: String,
    /// The template.
    pub template: String,
    /// `A1` to `A12`: A1 slots that touch, A2 and A3 optional words before words of their kind, A4 `...` before anything but
    /// keywords, A5 a keyword of an optional part and of what follows, A6 and A7 items in any order that cannot be told apart,
    /// A8 alternatives, A9 enum values and A10 fields that read the same line, A11 repeated messages that cannot be told from
    /// what follows, A12 faults of the notation itself.
    pub rule: &'static str,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { message, element, template, rule, text } = self;
        let dot = if element.is_empty() { "" } else { "." };
        write!(f, "{message}{dot}{element}: {rule}: {text} in template `{template}`")
    }
}

impl std::error::Error for Fault {}

/// A value that cannot be written to the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} {message}")]
pub struct PrintFault {
    /// JSON path of the value, such as `return_hdrs[1].name`; flattened messages leave no trace in it.
    pub path: String,
    /// The same path as positions of fields, flattened messages included, from the printed message on.
    pub steps: Vec<Step>,
    /// What was expected.
    pub message: String,
}

/// A printed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The line, without indent and line break. Empty when the object stands for no line, as a `disabled` option may.
    pub text: String,
    /// JSON paths of values that are set and that no part of the line has used. The caller refuses or drops them.
    pub unused: Vec<String>,
}

impl Grammar {
    /// Compiles every message that has a line or is a section, with all messages inside them.
    pub fn compile(tables: &Tables) -> Result<Grammar, Vec<Fault>> {
        let mut compiler = Compiler::new(tables);
        let names = Arc::new(Names::new(tables));
        let (mut lines, mut sections, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for (id, message) in tables.messages.iter().enumerate() {
            lines.push(match &message.line {
                None => None,
                Some(_) => match compile_line(&mut compiler, id) {
                    Ok(line) => Some(line),
                    Err(broken) => {
                        faults.push(fault(tables, id, broken));
                        None
                    }
                },
            });
            let is_section = message.resource.as_ref().is_some_and(|resource| resource.kind == ResourceKind::Section);
            sections.push(if is_section {
                match section::compile(&mut compiler, id, &names) {
                    Ok(section) => Some(section),
                    Err(broken) => {
                        faults.extend(broken.into_iter().map(|broken| fault(tables, id, broken)));
                        None
                    }
                }
            } else {
                None
            });
        }
        let mut seen = BTreeSet::new();
        faults.retain(|fault| seen.insert(fault.to_string()));
        if faults.is_empty() { Ok(Grammar { lines, sections, names }) } else { Err(faults) }
    }

    /// Reads the whole line of a message, or the header of a section. `None`: the line is not of this form.
    pub fn parse_line(&self, message: MessageId, words: &[&str]) -> Option<Object> {
        quoted::choose(words, |words| self.parse_words(message, words), |object| object).map(|(object, _)| object)
    }

    fn parse_words(&self, message: MessageId, words: &[&str]) -> Option<Object> {
        let line = self.lines.get(message)?.as_ref()?;
        let read = |words: &[&str]| {
            let mut parser = Parser::new(words, &[]);
            if !parser.line(&line.nodes) {
                return None;
            }
            let mut object = Object::new();
            build(&parser.events, Source { words, residue: &parser.residue, silent: false }, &mut object);
            Some(object)
        };
        read(words).or_else(|| if line.negated { read(&apart(words)?) } else { None })
    }

    /// Prints the line of a message, or the header of a section.
    pub fn print_line(&self, message: MessageId, object: &Object) -> Result<Printed, PrintFault> {
        let Some(line) = self.lines.get(message).and_then(Option::as_ref) else {
            return Err(PrintFault {
                path: String::new(),
                steps: Vec::new(),
                message: "is no line of the file".to_owned(),
            });
        };
        let program = check::Program { nodes: &line.nodes, own: None, message, names: &self.names };
        let (text, consumed) = program.print(object, None)?;
        let header: &[usize] = &[];
        let unused = self.names.unused(message, object, &consumed, header);
        // A section's other fields are lines of their own.
        let unused = if self.section(message).is_some() { Vec::new() } else { unused };
        Ok(Printed { text, unused })
    }

    /// JSON paths of the parameters among words that stayed on a line because their fields cannot hold the values, or hold
    /// later ones.
    pub fn not_read(&self, message: MessageId, residue: &[Box<str>]) -> Vec<String> {
        residue.iter().filter_map(|word| self.parameter(message, word)).collect()
    }

    /// Words that stayed on a line without the parameters of some JSON paths, each with all words up to the next one.
    pub fn without(&self, message: MessageId, residue: &[Box<str>], paths: &[String]) -> Vec<Box<str>> {
        let (mut kept, mut gone) = (residue.to_vec(), false);
        kept.retain(|word| {
            if let Some(path) = self.parameter(message, word) {
                gone = paths.contains(&path);
            }
            !gone
        });
        kept
    }

    /// JSON path of the parameter that begins with a word.
    fn parameter(&self, message: MessageId, word: &str) -> Option<String> {
        let nodes = self.lines.get(message).and_then(Option::as_ref).map_or(&[][..], |line| &line.nodes);
        let Some(Node::Star(star)) = nodes.last() else { return None };
        let param = &star.params[star.index.find(word).next()?];
        let step = |field: u16| Step { field: usize::from(field), item: None };
        let steps: Vec<Step> = param.via.into_iter().chain([param.target.field]).map(step).collect();
        Some(self.names.path(message, &steps))
    }

    /// The field lines of a section.
    pub fn section(&self, message: MessageId) -> Option<&SectionGrammar> {
        self.sections.get(message)?.as_ref()
    }

    /// How the line of a message can begin; empty for messages without a line.
    pub fn keywords(&self, message: MessageId) -> &[Keyword] {
        self.lines.get(message).and_then(Option::as_ref).map_or(&[], |line| &line.keywords)
    }
}

/// Milliseconds of a time as HAProxy writes it: `10s`, `1m30s`, a bare number of milliseconds.
pub fn milliseconds(text: &str) -> Option<i64> {
    units::read(text, Some(notation::Unit::Milliseconds))
}

/// The words with the first `!` that touches another word as a word of its own.
fn apart<'w>(words: &[&'w str]) -> Option<Vec<&'w str>> {
    let at = words.iter().position(|word| word.len() > 1 && word.starts_with('!'))?;
    let (mark, word) = words[at].split_at(1);
    Some([&words[..at], &[mark, word], &words[at + 1..]].concat())
}

/// True when a program has the word `!`.
fn negates(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match node {
        Node::Choice(choice) => choice.yes.iter().any(|word| **word == *"!"),
        Node::Group(group) => group.alternatives.iter().any(|alternative| negates(&alternative.nodes)),
        Node::Any(any) => any.items.iter().any(|item| negates(&item.nodes)),
        Node::Values(values) => values.lines.iter().any(|value| negates(&value.nodes)),
        Node::Message(message) => negates(&message.nodes),
        _ => false,
    })
}

fn compile_line(compiler: &mut Compiler<'_>, id: MessageId) -> Result<Line, Broken> {
    let mut nodes = compiler.line(&Context::new(id, None))?;
    let template = compiler.tables.messages[id].line.as_deref().unwrap_or_default();
    link::line(&mut nodes).map_err(|broken| broken.at(id, "", template))?;
    let first = link::first_of(&nodes);
    let mut keywords: Vec<Keyword> = first.words.into_iter().map(Keyword::Word).collect();
    keywords.extend(first.prefixes.into_iter().map(Keyword::Prefix));
    if first.free || first.unknown || first.number {
        keywords.push(Keyword::Any);
    }
    Ok(Line { negated: negates(&nodes), nodes, keywords })
}

fn fault(tables: &Tables, id: MessageId, broken: Broken) -> Fault {
    let (message, element, template) = broken.place.unwrap_or((id, String::new(), String::new()));
    Fault {
        message: tables.messages[message].full_name.to_string(),
        element,
        template,
        rule: broken.rule,
        text: broken.text,
    }
}
