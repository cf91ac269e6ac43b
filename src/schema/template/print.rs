//! Objects to words: prints a program, and notes as events what the line says.

use std::borrow::Cow;

use super::Step;
use super::event::Event;
use super::node::{
    Choice, Empty, Gather, Leaf, Message, Node, Param, Part, PrintOnly, Rest, Slot, Star, Target, Values,
};
use super::parse::Parser;
use super::ready::{Here, count, first_target, flag, is_blank, param_value, parts_ready, ready};
use super::text;
use super::units;
use crate::schema::value::{Object, Value};
use crate::schema::words;

/// Why nothing was printed.
#[derive(Debug)]
pub(super) enum Halt {
    /// A value that stands for no line at all.
    Silent(Target, Option<i32>),
    /// A value is missing or cannot be written.
    Fault(Vec<Step>, String),
}

/// A line being printed.
pub(super) struct Printer<'o> {
    pub out: String,
    pub events: Vec<Event<'o>>,
    /// Words that stayed on the line, for the events.
    pub residue: Vec<&'o str>,
    /// Print-only elements that were printed.
    pub enabled: Vec<PrintOnly>,
    path: Vec<Step>,
}

type Done = Result<(), Halt>;

impl<'o> Printer<'o> {
    pub(super) fn new() -> Self {
        Printer { out: String::new(), events: Vec::new(), residue: Vec::new(), enabled: Vec::new(), path: Vec::new() }
    }

    fn word(&mut self, word: &str) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(word);
    }

    fn fault(&self, target: Target, here: Here<'o>, text: impl Into<String>) -> Halt {
        let mut steps = self.path.clone();
        let item = if target.own { here.item.map(|(at, _)| at) } else { None };
        steps.push(Step { field: target.field as usize, item });
        Halt::Fault(steps, text.into())
    }

    /// Prints a sequence.
    pub(super) fn sequence(&mut self, nodes: &[Node], here: Here<'o>) -> Done {
        nodes.iter().try_for_each(|node| self.node(node, here))
    }

    fn node(&mut self, node: &Node, here: Here<'o>) -> Done {
        match node {
            Node::Literal(text) => {
                self.word(text);
                Ok(())
            }
            Node::Word(parts) => self.parts_word(parts, here),
            Node::Slot(slot) => {
                let text = self.slot(slot, here)?;
                self.word(&text);
                Ok(())
            }
            Node::List(slot) => self.list(slot, here),
            Node::Rest(rest) => self.rest(rest, here),
            Node::Gather(gather) => self.gather(gather, here),
            Node::Choice(choice) => self.choice(choice, here),
            Node::Values(values) => self.values(values, here),
            Node::Message(message) => self.messages(message, here),
            Node::Group(group) => {
                let ready = group.alternatives.iter().find(|alternative| ready(&alternative.nodes, here));
                let chosen = match ready {
                    Some(alternative) => alternative,
                    None if !group.required => return Ok(()),
                    // Nothing is complete: the one with most values tells best what is missing.
                    None => match group.alternatives.iter().max_by_key(|alternative| count(&alternative.nodes, here)) {
                        Some(alternative) => alternative,
                        None => return Ok(()),
                    },
                };
                self.enabled.extend(chosen.print_only);
                self.sequence(&chosen.nodes, here)
            }
            Node::Any(any) => any
                .items
                .iter()
                .filter(|item| ready(&item.nodes, here))
                .try_for_each(|item| self.optional(&item.nodes, here)),
            Node::Star(star) => self.star(star, here),
        }
    }

    /// Prints something that may as well print nothing.
    fn optional(&mut self, nodes: &[Node], here: Here<'o>) -> Done {
        let (out, events, path) = (self.out.len(), self.events.len(), self.path.len());
        match self.sequence(nodes, here) {
            Err(Halt::Silent(target, number)) => {
                self.out.truncate(out);
                self.events.truncate(events);
                self.path.truncate(path);
                self.events.push(Event::Silent(target, number));
                Ok(())
            }
            done => done,
        }
    }

    fn parts_word(&mut self, parts: &[Part], here: Here<'o>) -> Done {
        let mut text = String::new();
        let mut last = None;
        self.parts(parts, here, &mut text, &mut last)?;
        if text.is_empty() {
            let target = first_target(parts);
            return Err(match target {
                Some(target) => self.fault(target, here, "is needed: a word of the line would be empty"),
                None => Halt::Fault(self.path.clone(), "a word of the line would be empty".to_owned()),
            });
        }
        self.word(&text);
        Ok(())
    }

    fn parts(&mut self, parts: &[Part], here: Here<'o>, text: &mut String, last: &mut Option<Target>) -> Done {
        for part in parts {
            match part {
                Part::Text(more) => text.push_str(more),
                Part::Slot { slot, .. } => {
                    let value = self.slot(slot, here)?;
                    text.push_str(&value);
                    *last = Some(slot.target);
                }
                Part::Optional(inner) if parts_ready(inner, here) => self.parts(inner, here, text, last)?,
                Part::Optional(_) => {}
            }
        }
        Ok(())
    }

    fn slot(&mut self, slot: &Slot, here: Here<'o>) -> Result<Cow<'o, str>, Halt> {
        let zero = Value::Int(0);
        let value = match here.get(slot.target) {
            Some(value) => value,
            None if slot.implicit => {
                self.events.push(Event::Int(slot.target, 0));
                return match text::of(&slot.leaf, &zero) {
                    Ok((text, _)) => Ok(Cow::Owned(text.into_owned())),
                    Err(why) => Err(self.fault(slot.target, here, why)),
                };
            }
            None => return Err(self.fault(slot.target, here, "is needed by what else is set")),
        };
        let (text, print_only) = text::of(&slot.leaf, value).map_err(|why| self.fault(slot.target, here, why))?;
        self.enabled.extend(print_only);
        self.events.push(match (&slot.leaf, value) {
            // Brackets are the line's, not the value's.
            (Leaf::Address { listen }, Value::Str(value)) => {
                let read = units::address(&text, true, *listen).map(Cow::into_owned);
                Event::Text(slot.target, read.map_or(Cow::Borrowed(&**value), Cow::Owned))
            }
            _ => said(&slot.leaf, slot.target, value, &text),
        });
        Ok(text)
    }

    fn list(&mut self, slot: &Slot, here: Here<'o>) -> Done {
        let mut text = String::new();
        for (at, value) in here.object.list(slot.target.field as usize).iter().enumerate() {
            let (word, print_only) = self.item(&slot.leaf, slot.target, at, value)?;
            if word.contains(',') {
                return Err(self.item_fault(slot.target, at, "must not hold a comma"));
            }
            self.enabled.extend(print_only);
            if at > 0 {
                text.push(',');
            }
            text.push_str(&word);
            self.events.push(said(&slot.leaf, Target { push: true, ..slot.target }, value, &word));
        }
        if text.is_empty() {
            return Err(self.fault(slot.target, here, "is needed by what else is set"));
        }
        self.word(&text);
        Ok(())
    }

    fn item<'v>(
        &self,
        leaf: &Leaf,
        target: Target,
        at: usize,
        value: &'v Value,
    ) -> Result<(Cow<'v, str>, Option<PrintOnly>), Halt> {
        text::of(leaf, value).map_err(|why| self.item_fault(target, at, why))
    }

    fn item_fault(&self, target: Target, at: usize, text: impl Into<String>) -> Halt {
        let mut steps = self.path.clone();
        steps.push(Step { field: target.field as usize, item: Some(at) });
        Halt::Fault(steps, text.into())
    }

    fn rest(&mut self, rest: &Rest, here: Here<'o>) -> Done {
        let Some(value) = here.get(rest.target) else {
            return Err(self.fault(rest.target, here, "is needed by what else is set"));
        };
        match (&rest.item, value) {
            (None, Value::Str(_)) => self.text(rest.target, rest.strict, here),
            (Some(leaf), Value::List(items)) => {
                for (at, value) in items.iter().enumerate() {
                    let (word, print_only) = self.item(leaf, rest.target, at, value)?;
                    self.enabled.extend(print_only);
                    self.word(&word);
                    self.events.push(said(leaf, Target { push: true, ..rest.target }, value, &word));
                }
                Ok(())
            }
            _ => Err(self.fault(rest.target, here, "has a value of another type")),
        }
    }

    /// A text of listed words, and of those that belong to them.
    fn gather(&mut self, gather: &Gather, here: Here<'o>) -> Done {
        let words =
            here.get(gather.target).and_then(|value| if let Value::Str(text) = value { Some(text) } else { None });
        let words = words.map(|text| words::split(text).words).unwrap_or_default();
        let mut at = 0;
        while at < words.len() {
            let listed = gather.words.iter().find(|(word, _)| **word == *words[at]);
            let Some(end) = listed.map(|(_, more)| at + 1 + more).filter(|end| *end <= words.len()) else {
                let list: Vec<&str> = gather.words.iter().map(|(word, _)| &**word).collect();
                return Err(self.fault(gather.target, here, format!("must be made of {}", list.join(", "))));
            };
            at = end;
        }
        self.text(gather.target, false, here)
    }

    /// A text of one or more words, of which quotes are no part when they are strict.
    fn text(&mut self, target: Target, strict: bool, here: Here<'o>) -> Done {
        let Some(Value::Str(text)) = here.get(target) else {
            return Err(self.fault(target, here, "is needed by what else is set"));
        };
        let text = words::escaped(text, false);
        if !words::is_words(&text) {
            return Err(self.fault(target, here, text::not_words(&text)));
        }
        // Blanks between words mean nothing in the file: one is enough.
        let split = words::split(&text).words;
        let bare = split.iter().map(|word| word.len() + 1).sum::<usize>() == text.len() + 1;
        let joined = (!bare || text.contains(['\t', '\u{b}', '\u{c}'])).then(|| split.join(" "));
        let text = joined.map_or(text, Cow::Owned);
        self.word(&text);
        let plain = (strict && words::is_marked(&*text)).then(|| words::plain_text(&text));
        self.events.push(Event::Text(target, plain.map_or(text, Cow::Owned)));
        Ok(())
    }

    fn choice(&mut self, choice: &Choice, here: Here<'o>) -> Done {
        let Some(value) = here.get(choice.target) else {
            return Err(self.fault(choice.target, here, "is needed by what else is set"));
        };
        let Some(flag) = flag(choice, value) else {
            return Err(self.fault(choice.target, here, "is neither on nor off"));
        };
        let words = if flag { Some(&choice.yes) } else { choice.no.as_ref() };
        let Some(words) = words else {
            let number = if let Value::Enum(number) = value { Some(*number) } else { None };
            return Err(Halt::Silent(choice.target, number));
        };
        words.iter().for_each(|word| self.word(word));
        self.events.push(event(choice.target, value));
        Ok(())
    }

    fn values(&mut self, values: &Values, here: Here<'o>) -> Done {
        let Some(value) = here.get(values.target) else {
            return Err(self.fault(values.target, here, "is needed by what else is set"));
        };
        let found = match value {
            Value::Enum(number) => values.lines.iter().find(|value| value.number == *number),
            _ => None,
        };
        let Some(line) = found else {
            return Err(self.fault(values.target, here, "is not a value of its enum"));
        };
        self.enabled.extend(line.print_only);
        self.events.push(event(values.target, value));
        self.sequence(&line.nodes, here)
    }

    fn messages(&mut self, message: &Message, here: Here<'o>) -> Done {
        match here.get(message.target) {
            Some(Value::Object(object)) => {
                let item = if message.target.own { here.item.map(|(at, _)| at) } else { None };
                self.message(message, object, item)
            }
            Some(Value::List(items)) => items.iter().enumerate().try_for_each(|(at, item)| match item {
                Value::Object(object) => self.message(message, object, Some(at)),
                _ => Err(self.item_fault(message.target, at, "has a value of another type")),
            }),
            Some(_) => Err(self.fault(message.target, here, "has a value of another type")),
            None => Err(self.fault(message.target, here, "is needed by what else is set")),
        }
    }

    fn message(&mut self, message: &Message, object: &'o Object, item: Option<usize>) -> Done {
        let before = (self.out.len(), self.events.len());
        self.path.push(Step { field: message.target.field as usize, item });
        self.events.push(Event::Open(message.target));
        let done = self.sequence(&message.nodes, Here { object, item: None });
        match done {
            Err(Halt::Silent(target, number)) => {
                self.out.truncate(before.0);
                self.events.truncate(before.1 + 1);
                self.events.push(Event::Silent(target, number));
                self.events.push(Event::Close);
                self.path.pop();
                Ok(())
            }
            Err(halt) => Err(halt),
            Ok(()) => {
                self.events.push(Event::Close);
                self.path.pop();
                Ok(())
            }
        }
    }

    fn star(&mut self, star: &Star, here: Here<'o>) -> Done {
        let residue: Vec<&'o str> = here.object.residue().iter().map(|word| &**word).collect();
        if let Some(word) = residue.iter().find(|word| !words::is_one_word(word)) {
            return Err(Halt::Fault(
                self.path.clone(),
                format!("the unknown parameter `{word}` is not one word of the file"),
            ));
        }
        let residue = without_set(star, here, residue);
        let (unknown, repeated) = split_residue(star, &residue);
        // Unknown words stand last, but not behind a parameter that would take them for its own.
        let open = star.params.iter().any(|param| is_open(&param.nodes) && param_value(param, here).is_some());
        if open {
            self.words(&unknown);
        }
        self.words(&repeated);
        for param in &star.params {
            self.param(param, here)?;
        }
        if !open {
            self.words(&unknown);
        }
        if !residue.is_empty() {
            self.residue = unknown;
            self.residue.extend(repeated);
            self.events.push(Event::Residue);
        }
        Ok(())
    }

    fn words(&mut self, words: &[&str]) {
        for word in words {
            self.word(word);
        }
    }

    fn param(&mut self, param: &Param, here: Here<'o>) -> Done {
        let Some(via) = param.via else { return self.param_of(param, here) };
        let Some(object) = here.object.object(via as usize) else { return Ok(()) };
        if param_value(param, here).is_none() {
            return Ok(());
        }
        self.path.push(Step { field: via as usize, item: None });
        self.events.push(Event::Open(Target { field: via, push: false, own: false }));
        self.param_of(param, Here { object, item: None })?;
        self.events.push(Event::Close);
        self.path.pop();
        Ok(())
    }

    fn param_of(&mut self, param: &Param, here: Here<'o>) -> Done {
        match here.object.get(param.target.field as usize) {
            None => Ok(()),
            Some(Value::Object(inner)) if is_blank(inner) => Ok(()),
            Some(Value::List(items)) if param.target.push && !lists_itself(&param.nodes) => {
                for (at, item) in items.iter().enumerate() {
                    self.enabled.extend(param.print_only);
                    self.own(&param.nodes, param.target, param.empty, Here { item: Some((at, item)), ..here })?;
                }
                Ok(())
            }
            Some(_) => {
                self.enabled.extend(param.print_only);
                self.own(&param.nodes, param.target, param.empty, here)
            }
        }
    }

    /// Prints the template of a field that is set.
    pub(super) fn own(&mut self, nodes: &[Node], target: Target, empty: Empty, here: Here<'o>) -> Done {
        let mark = self.events.len();
        self.optional(nodes, here)?;
        if empty != Empty::Never && !self.events[mark..].iter().any(|event| event.field() == Some(target.field)) {
            match here.get(target) {
                Some(Value::Str(text)) if text.is_empty() => self.events.push(Event::Text(target, Cow::Borrowed(""))),
                Some(Value::Enum(0)) => self.events.push(Event::Enum(target, 0)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// True when the template prints the whole list on one line.
pub(super) fn lists_itself(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match node {
        Node::List(slot) => slot.target.own,
        Node::Rest(rest) => rest.target.own && rest.item.is_some(),
        Node::Group(group) => group.alternatives.iter().any(|alternative| lists_itself(&alternative.nodes)),
        Node::Any(any) => any.items.iter().any(|item| lists_itself(&item.nodes)),
        _ => false,
    })
}

/// What a line says of a value that stands in it as `word`: of a text, the word, without quotes where they are no part.
fn said<'o>(leaf: &Leaf, target: Target, value: &'o Value, word: &Cow<'o, str>) -> Event<'o> {
    let Value::Str(_) = value else { return event(target, value) };
    match (leaf, words::plain(word)) {
        (Leaf::Text { bare: true, .. } | Leaf::Joined { strict: true }, Cow::Owned(plain)) => {
            Event::Text(target, Cow::Owned(plain))
        }
        _ => Event::Text(target, word.clone()),
    }
}

fn event(target: Target, value: &Value) -> Event<'_> {
    match value {
        Value::Bool(flag) => Event::Bool(target, *flag),
        Value::Int(number) => Event::Int(target, *number),
        Value::Enum(number) => Event::Enum(target, *number),
        Value::Str(text) => Event::Text(target, Cow::Borrowed(text)),
        _ => Event::Dead,
    }
}

/// True when a program may take more words than it printed.
fn is_open(nodes: &[Node]) -> bool {
    match nodes.last() {
        None | Some(Node::Literal(_) | Node::Word(_) | Node::Slot(_) | Node::List(_) | Node::Choice(_)) => false,
        Some(Node::Rest(_) | Node::Any(_) | Node::Star(_) | Node::Gather(_)) => true,
        Some(Node::Group(group)) => !group.required || group.alternatives.iter().any(|one| is_open(&one.nodes)),
        Some(Node::Values(values)) => values.lines.iter().any(|value| is_open(&value.nodes)),
        Some(Node::Message(message)) => is_open(&message.nodes),
    }
}

/// The words that stayed on a line but for values that a field now says: such a parameter with all words up to the next.
fn without_set<'o>(star: &Star, here: Here<'_>, residue: Vec<&'o str>) -> Vec<&'o str> {
    let mut kept = Vec::with_capacity(residue.len());
    let mut at = 0;
    while at < residue.len() {
        let begins = |at: usize| star.index.find(residue[at]).next();
        let param = begins(at).map(|param| &star.params[param]);
        let end = (at + 1..residue.len()).find(|at| begins(*at).is_some()).unwrap_or(residue.len());
        let unread = |param: &Param| Parser::new(&residue[at..], &[]).prefix(&param.nodes).is_none();
        if !param.is_some_and(|param| unread(param) && param_value(param, here).is_some()) {
            kept.extend(&residue[at..end]);
        }
        at = end;
    }
    kept
}

/// Splits words that stayed on a line into those that no parameter begins with and earlier occurrences of parameters.
fn split_residue<'o>(star: &Star, residue: &[&'o str]) -> (Vec<&'o str>, Vec<&'o str>) {
    let (mut unknown, mut repeated) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < residue.len() {
        let known = star.index.find(residue[at]).next();
        let taken = known.and_then(|param| Parser::new(&residue[at..], &[]).prefix(&star.params[param].nodes));
        if let Some(taken) = taken {
            repeated.extend(&residue[at..at + taken]);
            at += taken;
        } else {
            unknown.push(residue[at]);
            at += 1;
        }
    }
    (unknown, repeated)
}
