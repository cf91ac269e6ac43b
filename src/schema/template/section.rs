//! The lines of a section: which field reads a line, and all lines of an object.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::check::Program;
use super::compile::{Broken, Compiler, Context};
use super::event::{Source, build};
use super::names::{Names, Step};
use super::node::{Empty, Leaf, Node, Part, PrintOnly, Target, Words};
use super::overlap::{self, Link, Tail, Token, steps};
use super::parse::Parser;
use super::print::lists_itself;
use super::quoted::{choose, plain_words};
use super::ready::is_blank;
use super::{PrintFault, link, notation};
use crate::schema::tables::{FieldIndex, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words;

/// Position of a field template in its section: declaration order, which is also the order of printing.
pub type SlotId = usize;

/// The field lines of a section. Fields of its header are not among them.
#[derive(Debug)]
pub struct SectionGrammar {
    message: MessageId,
    slots: Vec<Slot>,
    dispatch: Dispatch,
    /// Print-only slots, asked when no other reads a line.
    mirrors: Dispatch,
    header: Vec<FieldIndex>,
    names: Arc<Names>,
}

/// The lines of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct PrintedSection {
    /// Lines in order of declaration, each with its slot.
    pub lines: Vec<(SlotId, String)>,
    /// JSON paths of values that are set and that no line has used. The caller refuses or drops them.
    pub unused: Vec<String>,
}

#[derive(Debug)]
struct Slot {
    /// Messages between the section and the field that have no line of their own.
    path: Vec<usize>,
    /// The message of the field.
    message: MessageId,
    target: Target,
    nodes: Vec<Node>,
    name: String,
    empty: Empty,
    print_only: Option<PrintOnly>,
    /// Each item of the list is a line.
    each: bool,
    /// Fields that a later line replaces.
    replaced: Vec<usize>,
    /// Each line adds its words to those of the lines above it.
    adds: bool,
    /// The slot of the list that has the lines before the last one.
    earlier: Option<SlotId>,
}

/// Lines that were read so far, of fields that show the last of several.
#[derive(Debug, Default)]
pub struct Earlier<'w>(BTreeMap<SlotId, Vec<&'w str>>);

/// Slots by the first words of a line.
#[derive(Debug, Default)]
struct Dispatch {
    words: Words<Dispatch>,
    slots: Vec<u16>,
}

/// Words of a line that dispatch looks at.
const DISPATCH_DEPTH: usize = 3;
/// So many words may be missing at the end of a line.
const MISSING: usize = 2;
/// A slot that can go on in more ways is not followed further.
const DISPATCH_WIDTH: usize = 100;

impl Dispatch {
    fn add(&mut self, tail: &Tail<'_>, slot: u16, depth: usize) {
        let mut tokens = Vec::new();
        let end = steps(tail, &mut tokens);
        let exact = tokens.iter().all(|(token, _)| matches!(token, Token::Exact(_)));
        if depth == DISPATCH_DEPTH || end || !exact || tokens.len() > DISPATCH_WIDTH {
            if !self.slots.contains(&slot) {
                self.slots.push(slot);
            }
            return;
        }
        for (token, after) in &tokens {
            if let Token::Exact(word) = token {
                self.words.entry((*word).into()).or_default().add(after, slot, depth + 1);
            }
        }
    }

    /// All slots from here on.
    fn slots_below(&self, into: &mut BTreeSet<u16>) {
        into.extend(&self.slots);
        self.words.values().for_each(|next| next.slots_below(into));
    }
}

/// Compiles the fields of a section.
pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    message: MessageId,
    names: &Arc<Names>,
) -> Result<SectionGrammar, Vec<Broken>> {
    let mut slots = Vec::new();
    let mut broken = Vec::new();
    let mut header = Vec::new();
    let table = &compiler.tables.messages[message];
    if let Some(Ok(tree)) = table.line.as_deref().map(notation::parse) {
        let mut mentioned = Vec::new();
        notation::names(&tree, &mut mentioned);
        header = mentioned.iter().filter_map(|name| table.by_json.get(name.as_str()).copied()).collect();
    }
    let skip: BTreeSet<FieldIndex> = header.iter().copied().collect();
    let section = table.resource.as_ref().map_or("", |resource| &*resource.keyword);
    spread(compiler, (message, section), &[], &skip, &mut slots, &mut broken);
    place_earlier(compiler.tables, &mut slots);
    let read: Vec<usize> = (0..slots.len()).filter(|at| slots[*at].print_only.is_none()).collect();
    if broken.is_empty() {
        let programs: Vec<&[Node]> = read.iter().map(|at| &slots[*at].nodes[..]).collect();
        if let Some((one, two)) = overlap::fields(&programs) {
            let (one, two) = (&slots[read[one]], &slots[read[two]]);
            let template = compiler.field_template(two.message, two.target.field as usize);
            let text = format!("reads the same line as the field `{}`", one.name);
            broken.push(Broken::new("A10", text).at(message, &two.name, &template));
        }
    }
    if !broken.is_empty() {
        return Err(broken);
    }
    let (mut dispatch, mut mirrors) = (Dispatch::default(), Dispatch::default());
    for (at, slot) in slots.iter().enumerate() {
        if slot.print_only.is_some() && is_resource(compiler.tables, slot) {
            continue;
        }
        let dispatch = if slot.print_only.is_some() { &mut mirrors } else { &mut dispatch };
        dispatch.add(&Some(Rc::new(Link::Nodes(&slots[at].nodes, None))), at as u16, 0);
    }
    Ok(SectionGrammar { message, slots, dispatch, mirrors, header, names: names.clone() })
}

/// Puts each list of the lines before the last one in front of the field that has the last one, which is told of it.
fn place_earlier(tables: &Tables, slots: &mut Vec<Slot>) {
    let last_of = |slot: &Slot| tables.messages[slot.message].fields[slot.target.field as usize].earlier_of;
    let is_field = |slot: &Slot, list: &Slot, field: FieldIndex| {
        (&slot.path, slot.message, slot.target.field as usize) == (&list.path, list.message, field)
    };
    for list in 0..slots.len() {
        let Some(field) = last_of(&slots[list]) else { continue };
        let Some(last) = slots.iter().position(|slot| is_field(slot, &slots[list], field)) else { continue };
        let moved = slots.remove(list);
        slots.insert(if list < last { last - 1 } else { last }, moved);
    }
    for at in 1..slots.len() {
        let is_list = last_of(&slots[at - 1]).is_some_and(|field| is_field(&slots[at], &slots[at - 1], field));
        slots[at].earlier = is_list.then_some(at - 1);
    }
}

/// True for a field that mirrors lines of a resource, which are that resource's alone.
fn is_resource(tables: &Tables, slot: &Slot) -> bool {
    match tables.messages[slot.message].fields[slot.target.field as usize].kind {
        Kind::Message(inner) => tables.messages[inner].resource.is_some(),
        _ => false,
    }
}

fn spread(
    compiler: &mut Compiler<'_>,
    (message, section): (MessageId, &str),
    path: &[usize],
    skip: &BTreeSet<FieldIndex>,
    slots: &mut Vec<Slot>,
    broken: &mut Vec<Broken>,
) {
    let tables = compiler.tables;
    let named = match compiler.named(message) {
        Ok(named) => named,
        Err(fault) => return broken.push(fault),
    };
    for (at, field) in tables.messages[message].fields.iter().enumerate() {
        let no_slot = field.no_line || skip.contains(&at) || field.not_in.iter().any(|other| **other == *section);
        if no_slot || (field.template.is_none() && named.contains(&at)) {
            continue;
        }
        if let Kind::Message(inner) = field.kind
            && (field.flatten || (field.template.is_none() && tables.messages[inner].line.is_none()))
        {
            if field.repeated || path.len() > 8 {
                broken.push(Broken::new("A12", "a list of messages without a line").at(message, &field.json, ""));
                continue;
            }
            let path: Vec<usize> = path.iter().copied().chain([at]).collect();
            spread(compiler, (inner, section), &path, &BTreeSet::new(), slots, broken);
            continue;
        }
        let template = compiler.field_template(message, at);
        match slot(compiler, message, at, path, &template) {
            Ok(slot) => slots.push(slot),
            Err(fault) => broken.push(fault.at(message, &field.json, &template)),
        }
    }
}

fn slot(
    compiler: &mut Compiler<'_>,
    message: MessageId,
    at: FieldIndex,
    path: &[usize],
    template: &str,
) -> Result<Slot, Broken> {
    let field = &compiler.tables.messages[message].fields[at];
    let mut nodes = compiler.text(template, &Context::new(message, Some(at)))?;
    link::line(&mut nodes)?;
    let empty = compiler.empty(message, at, &nodes)?;
    let whole = lists_itself(&nodes);
    let mut replaced = BTreeSet::new();
    fields_of(&nodes, &mut replaced);
    if field.repeated || ends_in_star(&nodes) {
        replaced.remove(&at);
    }
    Ok(Slot {
        path: path.to_vec(),
        message,
        target: Target { field: at as u16, push: field.repeated && !whole, own: true },
        name: field.json.to_string(),
        empty,
        print_only: compiler.print_only(field.print_only || field.earlier_of.is_some()),
        each: field.repeated && !whole,
        replaced: replaced.into_iter().collect(),
        adds: field.adds || (field.repeated && whole),
        earlier: None,
        nodes,
    })
}

/// A number that a program would take where it takes only listed ones.
fn listed(nodes: &[Node]) -> Option<i64> {
    nodes.iter().find_map(|node| match node {
        Node::Slot(slot) => match &slot.leaf {
            Leaf::Number(number) => number.listed.first().copied(),
            _ => None,
        },
        Node::Message(message) => listed(&message.nodes),
        _ => None,
    })
}

fn ends_in_star(nodes: &[Node]) -> bool {
    match nodes.last() {
        Some(Node::Star(_)) => true,
        Some(Node::Message(message)) => ends_in_star(&message.nodes),
        _ => false,
    }
}

/// Fields of the message itself that a program sets.
fn fields_of(nodes: &[Node], into: &mut BTreeSet<usize>) {
    fn parts(list: &[Part], into: &mut BTreeSet<usize>) {
        for part in list {
            match part {
                Part::Text(_) => {}
                Part::Slot { slot, .. } => {
                    into.insert(slot.target.field as usize);
                }
                Part::Optional(inner) => parts(inner, into),
            }
        }
    }
    for node in nodes {
        let target = match node {
            Node::Literal(_) => continue,
            Node::Word(list) => {
                parts(list, into);
                continue;
            }
            Node::Group(group) => {
                group.alternatives.iter().for_each(|alternative| fields_of(&alternative.nodes, into));
                continue;
            }
            Node::Any(any) => {
                any.items.iter().for_each(|item| fields_of(&item.nodes, into));
                continue;
            }
            Node::Star(star) => {
                star.params.iter().for_each(|param| fields_of(&param.nodes, into));
                continue;
            }
            Node::Slot(slot) | Node::List(slot) => slot.target,
            Node::Rest(rest) => rest.target,
            Node::Gather(gather) => gather.target,
            Node::Choice(choice) => choice.target,
            Node::Message(message) => message.target,
            Node::Values(values) => {
                values.lines.iter().for_each(|value| fields_of(&value.nodes, into));
                values.target
            }
        };
        into.insert(target.field as usize);
    }
}

impl SectionGrammar {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when the section has no field lines.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// JSON key of the field of a slot.
    pub fn name(&self, slot: SlotId) -> &str {
        self.slots.get(slot).map_or("", |slot| &slot.name)
    }

    /// Positions of the field of a slot, from the section down.
    pub fn path(&self, slot: SlotId) -> Vec<FieldIndex> {
        self.slots
            .get(slot)
            .map_or_else(Vec::new, |slot| slot.path.iter().copied().chain([slot.target.field as usize]).collect())
    }

    /// True for a slot that is printed when set, but reads a line only when no other slot does, and never one of another
    /// resource.
    pub fn is_print_only(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.print_only.is_some())
    }

    /// The slot that reads a line. Lines of resources inside the section belong to none.
    pub fn owner(&self, words: &[&str]) -> Option<SlotId> {
        if plain_words(words).is_none() {
            return self.matched(words).map(|(slot, _)| slot);
        }
        self.read(words, &mut Object::new())
    }

    /// Reads a line into an object of the section and tells the slot. A line that occurs again replaces what the earlier one
    /// said; lists grow; lines of free parameters (`default-server`) merge parameter by parameter.
    pub fn read(&self, words: &[&str], into: &mut Object) -> Option<SlotId> {
        let Some(plain) = plain_words(words) else { return self.read_words(words, into) };
        let alone = |words: &[&str]| {
            let mut object = Object::new();
            self.read_words(words, &mut object).map(|_| object)
        };
        match choose(words, alone, |object| object)? {
            (_, true) => self.read_words(&plain.iter().map(|word| &**word).collect::<Vec<_>>(), into),
            (_, false) => self.read_words(words, into),
        }
    }

    fn read_words(&self, words: &[&str], into: &mut Object) -> Option<SlotId> {
        let (slot, parser) = self.matched(words)?;
        self.apply(slot, &parser, into);
        Some(slot)
    }

    /// As `read`, for line after line of a section: of lines that add up and of which a field shows the last one, a list
    /// has those before it.
    pub fn read_next<'w>(&self, words: &[&'w str], into: &mut Object, seen: &mut Earlier<'w>) -> Option<SlotId> {
        let slot = self.read(words, into)?;
        if let Some(list) = self.slots[slot].earlier
            && let Some(before) = seen.0.insert(slot, words.to_vec())
        {
            let plain = plain_words(&before).unwrap_or_default();
            let plain: Vec<&str> = plain.iter().map(|word| &**word).collect();
            self.read_as(list, &before, into).or_else(|| self.read_as(list, &plain, into));
        }
        Some(slot)
    }

    /// Reads a line with a given slot, whichever would own it. `None`: the line is not of this form.
    pub fn read_as(&self, slot: SlotId, words: &[&str], into: &mut Object) -> Option<()> {
        let parser = self.try_slot(slot, words)?;
        self.apply(slot, &parser, into);
        Some(())
    }

    /// The slot that an unreadable line was meant for: the only one whose lines begin as it does. With it, whether the
    /// line can never mean anything: words are missing at its end, or 0 stands for a number out of a list, which is
    /// how an absent one may have been written.
    pub fn meant<'w>(&self, words: &[&'w str]) -> Option<(SlotId, bool)> {
        let mut level = &self.dispatch;
        let mut depth = 0;
        while let Some(next) = words.get(depth).and_then(|word| level.words.get(*word)) {
            level = next;
            depth += 1;
        }
        let mut slots = BTreeSet::new();
        level.slots_below(&mut slots);
        let slot = usize::from(*slots.first().filter(|_| depth > 0 && slots.len() == 1)?);
        let number = listed(&self.slots[slot].nodes).map(|number| number.to_string());
        let filled = |word: &&'w str| number.as_deref().filter(|_| *word == "0").unwrap_or(word);
        let mut whole: Vec<&str> = words.iter().map(filled).collect();
        let dead = (0..=MISSING).any(|missing| {
            whole.resize(words.len() + missing, "x");
            self.try_slot(slot, &whole).is_some()
        });
        Some((slot, dead))
    }

    fn matched<'a, 'w>(&self, words: &'a [&'w str]) -> Option<(SlotId, Parser<'_, 'a, 'w>)> {
        self.search(&self.dispatch, words).or_else(|| self.search(&self.mirrors, words))
    }

    fn search<'a, 'w>(&self, mut level: &Dispatch, words: &'a [&'w str]) -> Option<(SlotId, Parser<'_, 'a, 'w>)> {
        let mut rest = words.iter();
        loop {
            for slot in &level.slots {
                if let Some(parser) = self.try_slot(*slot as usize, words) {
                    return Some((*slot as usize, parser));
                }
            }
            level = level.words.get(*rest.next()?)?;
        }
    }

    fn try_slot<'a, 'w>(&self, slot: SlotId, words: &'a [&'w str]) -> Option<Parser<'_, 'a, 'w>> {
        let slot = self.slots.get(slot)?;
        let mut parser = Parser::new(words, &[]);
        if !parser.line(&slot.nodes) {
            return None;
        }
        parser.empty(0, slot.target, slot.empty);
        Some(parser)
    }

    fn apply(&self, slot: SlotId, parser: &Parser<'_, '_, '_>, into: &mut Object) {
        let slot = &self.slots[slot];
        let object = slot.path.iter().fold(into, |object, field| object.object_mut(*field));
        let own = slot.target.field as usize;
        let before = if slot.adds { object.str(own).map(str::to_owned) } else { None };
        for field in &slot.replaced {
            object.take(*field);
        }
        build(&parser.events, Source { words: parser.words, residue: &parser.residue, silent: false }, object);
        if let (Some(before), Some(more)) = (before, object.str(own)) {
            let whole = format!("{before} {more}");
            object.set(own, Value::Str(whole.into()));
        }
    }

    /// For a slot of which each line adds its words to those of the lines above it: how many words of its keyword stand
    /// before them.
    pub fn adds(&self, slot: SlotId) -> Option<usize> {
        let slot = self.slots.get(slot).filter(|slot| slot.adds)?;
        Some(slot.nodes.iter().take_while(|node| matches!(node, Node::Literal(_))).count())
    }

    /// True for a slot that shows the last of several lines, and a list those before it.
    pub fn has_earlier(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.earlier.is_some())
    }

    /// Prints all field lines of an object.
    pub fn print(&self, object: &Object) -> Result<PrintedSection, PrintFault> {
        let mut lines = Vec::new();
        let mut consumed = Object::new();
        for (id, slot) in self.slots.iter().enumerate() {
            let found = slot.path.iter().try_fold(object, |object, field| object.object(*field));
            let Some(scope) = found else { continue };
            let items: Vec<Option<(usize, &Value)>> = match scope.get(slot.target.field as usize) {
                None => continue,
                Some(Value::Object(inner)) if is_blank(inner) => continue,
                Some(Value::List(items)) if slot.each => items.iter().enumerate().map(Some).collect(),
                Some(_) => vec![None],
            };
            let program = Program {
                nodes: &slot.nodes,
                own: Some((slot.target, slot.empty)),
                message: slot.message,
                names: &self.names,
            };
            for item in items {
                let (text, said) = program.print(scope, item).map_err(|fault| self.outer(slot, fault))?;
                merge(slot.path.iter().fold(&mut consumed, |object, field| object.object_mut(*field)), said);
                if text.is_empty() || has_no_parameters(slot, &text) {
                    continue;
                }
                self.confirm(id, item, &text)?;
                lines.push((id, text));
            }
        }
        self.confirm_last(&lines)?;
        let unused = self.names.unused(self.message, object, &consumed, &self.header);
        Ok(PrintedSection { lines, unused })
    }

    /// The line must belong to the slot that printed it.
    fn confirm(&self, id: SlotId, item: Option<(usize, &Value)>, text: &str) -> Result<(), PrintFault> {
        let slot = &self.slots[id];
        if slot.print_only.is_some() {
            return Ok(());
        }
        let message = match self.owner(&words::split(text).words) {
            Some(owner) if owner == id => return Ok(()),
            Some(owner) => {
                format!("cannot be written as it is: the line `{text}` would be read as `{}`", self.slots[owner].name)
            }
            None => format!("cannot be written as it is: nothing reads the line `{text}`"),
        };
        let steps = vec![Step { field: slot.target.field as usize, item: item.map(|(at, _)| at) }];
        Err(self.outer(slot, PrintFault { path: String::new(), steps, message }))
    }

    /// A list of the lines before the last one needs the last one: else its own last line would be read as that.
    fn confirm_last(&self, lines: &[(SlotId, String)]) -> Result<(), PrintFault> {
        let printed = |id: SlotId| lines.iter().any(|(slot, _)| *slot == id);
        for (id, last) in self.slots.iter().enumerate() {
            let Some(list) = last.earlier.filter(|list| printed(*list) && !printed(id)) else { continue };
            let list = &self.slots[list];
            let message = format!("needs a line of `{}`, which is the last one", last.name);
            let steps = vec![Step { field: list.target.field as usize, item: None }];
            return Err(self.outer(list, PrintFault { path: String::new(), steps, message }));
        }
        Ok(())
    }

    fn outer(&self, slot: &Slot, fault: PrintFault) -> PrintFault {
        let mut steps: Vec<Step> = slot.path.iter().map(|field| Step { field: *field, item: None }).collect();
        steps.extend(fault.steps);
        PrintFault { path: self.names.path(self.message, &steps), steps, message: fault.message }
    }
}

/// True when a line of free parameters has none, such as a bare `default-server`.
fn has_no_parameters(slot: &Slot, text: &str) -> bool {
    match &slot.nodes[..] {
        [Node::Message(message)] => match &message.nodes[..] {
            [Node::Literal(keyword), Node::Star(_)] => **keyword == *text,
            _ => false,
        },
        _ => false,
    }
}

/// Adds what one line said to what the lines before it said.
fn merge(into: &mut Object, from: Object) {
    for (field, value) in from.iter() {
        match (into.get_mut(field), value) {
            (Some(Value::List(list)), Value::List(more)) => list.extend(more.iter().cloned()),
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more.clone()),
            _ => into.set(field, value.clone()),
        }
    }
}
