//! Words to events: matches a program against the words of a line, left to right, the whole line.

use std::borrow::Cow;

use super::event::Event;
use super::node::{Any, Choice, Empty, Group, Leaf, Message, Node, Part, PrintOnly, Slot, Star, Target, Values};
use super::units;
use crate::schema::words::{self, Quote};

/// Nested optional places, items in any order and repetitions that are followed before a line counts as foreign.
/// HAProxy itself takes 64 words a line; the bound keeps the stack small whatever the file holds.
const MAX_DEPTH: u32 = 400;

/// What is left to match after the nodes at hand.
enum Then<'p, 'c> {
    /// The end of the line.
    End,
    /// Anything: stop here.
    Anywhere,
    Nodes(&'p [Node], &'c Then<'p, 'c>),
    Items(&'p Any, u128, &'c Then<'p, 'c>),
    Close(&'p Message, &'c Then<'p, 'c>),
}

/// What is left of a word.
enum Tail<'p, 'c> {
    End,
    Parts(&'p [Part], &'c Tail<'p, 'c>),
}

/// A line being matched.
pub(super) struct Parser<'p, 'a, 'w> {
    pub words: &'a [&'w str],
    pub events: Vec<Event<'w>>,
    pub residue: Vec<(u32, u32)>,
    /// Print-only elements that are read like any other, and before them.
    enabled: &'p [PrintOnly],
    stopped: usize,
    depth: u32,
}

/// A parameter that was read: its position, its words and its events.
struct Seen {
    param: u16,
    words: (u32, u32),
    events: (usize, usize),
}

impl<'p, 'a, 'w> Parser<'p, 'a, 'w> {
    pub(super) fn new(words: &'a [&'w str], enabled: &'p [PrintOnly]) -> Self {
        Parser {
            words,
            events: Vec::with_capacity(words.len() + 8),
            residue: Vec::new(),
            enabled,
            stopped: 0,
            depth: 0,
        }
    }

    /// Matches the whole line.
    pub(super) fn line(&mut self, nodes: &'p [Node]) -> bool {
        self.run(nodes, 0, &Then::End)
    }

    /// Matches a program at the beginning of the line and returns how many words it took.
    pub(super) fn prefix(&mut self, nodes: &'p [Node]) -> Option<usize> {
        self.run(nodes, 0, &Then::Anywhere).then_some(self.stopped)
    }

    /// Notes that a field is present and empty when its line was read and nothing was said about it.
    pub(super) fn empty(&mut self, from: usize, target: Target, empty: Empty) {
        if empty == Empty::Never || self.events[from..].iter().any(|event| event.field() == Some(target.field)) {
            return;
        }
        self.events.push(match empty {
            Empty::Text => Event::Text(target, Cow::Borrowed("")),
            _ => Event::Enum(target, 0),
        });
    }

    fn is_read(&self, print_only: Option<PrintOnly>) -> bool {
        print_only.is_none_or(|id| self.enabled.contains(&id))
    }

    /// Runs a branch; takes its events back when it does not fit.
    fn attempt(&mut self, nodes: &'p [Node], at: usize, then: &Then<'p, '_>) -> bool {
        if self.depth >= MAX_DEPTH {
            return false;
        }
        let mark = self.events.len();
        self.depth += 1;
        let fits = self.run(nodes, at, then);
        self.depth -= 1;
        if !fits {
            self.events.truncate(mark);
        }
        fits
    }

    fn resume(&mut self, then: &Then<'p, '_>, at: usize) -> bool {
        match then {
            Then::End => at == self.words.len(),
            Then::Anywhere => {
                self.stopped = at;
                true
            }
            Then::Nodes(nodes, next) => self.run(nodes, at, next),
            Then::Items(any, used, next) => self.items(any, *used, at, next),
            Then::Close(message, next) => {
                self.events.push(Event::Close);
                if message.many && at < self.words.len() && self.message(message, at, next) {
                    return true;
                }
                self.resume(next, at)
            }
        }
    }

    fn run(&mut self, mut nodes: &'p [Node], mut at: usize, then: &Then<'p, '_>) -> bool {
        while let Some((node, rest)) = nodes.split_first() {
            match node {
                Node::Literal(text) => match self.words.get(at) {
                    Some(word) if **word == **text => at += 1,
                    _ => return false,
                },
                Node::Word(parts) => {
                    let Some(word) = self.words.get(at).copied() else { return false };
                    if !self.parts(parts, word, 0, &Tail::End) {
                        return false;
                    }
                    at += 1;
                }
                Node::Slot(slot) => {
                    let Some(word) = self.words.get(at).copied() else { return false };
                    let Some(event) = self.leaf(&slot.leaf, slot.target, word, true) else { return false };
                    self.events.push(event);
                    at += 1;
                }
                Node::List(slot) => {
                    let Some(word) = self.words.get(at).copied() else { return false };
                    if !self.list(slot, word) {
                        return false;
                    }
                    at += 1;
                }
                Node::Rest(more) => {
                    let start = at;
                    while self.words.get(at).is_some_and(|word| !more.stop.has(word)) {
                        if let Some(leaf) = &more.item {
                            let target = Target { push: true, ..more.target };
                            let Some(event) = self.leaf(leaf, target, self.words[at], true) else { return false };
                            self.events.push(event);
                        }
                        at += 1;
                    }
                    if at == start {
                        return false;
                    }
                    if more.strict && self.words[start..at].iter().any(|word| is_quoted(word)) {
                        return false;
                    }
                    if more.item.is_none() {
                        self.events.push(Event::Words(more.target, start as u32, at as u32));
                    }
                }
                Node::Gather(gather) => {
                    let more =
                        self.words.get(at).and_then(|word| gather.words.iter().find(|(text, _)| **text == **word));
                    let Some(end) = more.map(|(_, more)| at + 1 + more).filter(|end| *end <= self.words.len()) else {
                        return false;
                    };
                    self.events.push(Event::Gather(gather.target, at as u32, end as u32));
                    at = end;
                }
                Node::Choice(choice) => return self.choice(choice, rest, at, then),
                Node::Values(values) => return self.values(values, at, &Then::Nodes(rest, then)),
                Node::Message(message) => return self.message(message, at, &Then::Nodes(rest, then)),
                Node::Group(group) => {
                    if self.group(group, at, &Then::Nodes(rest, then)) {
                        return true;
                    }
                    if group.required {
                        return false;
                    }
                }
                Node::Any(any) => return self.items(any, 0, at, &Then::Nodes(rest, then)),
                Node::Star(star) => {
                    if !self.star(star, at) {
                        return false;
                    }
                    at = self.words.len();
                }
            }
            nodes = rest;
        }
        self.resume(then, at)
    }

    fn group(&mut self, group: &'p Group, at: usize, then: &Then<'p, '_>) -> bool {
        if !group.required && self.words.get(at).is_none_or(|word| group.guard.has(word)) {
            return false;
        }
        if !self.enabled.is_empty() {
            for alternative in &group.alternatives {
                if alternative.print_only.is_some()
                    && self.is_read(alternative.print_only)
                    && self.attempt(&alternative.nodes, at, then)
                {
                    return true;
                }
            }
        }
        group
            .alternatives
            .iter()
            .any(|alternative| alternative.print_only.is_none() && self.attempt(&alternative.nodes, at, then))
    }

    fn choice(&mut self, choice: &'p Choice, rest: &'p [Node], at: usize, then: &Then<'p, '_>) -> bool {
        for (flag, words) in [(true, Some(&choice.yes)), (false, choice.no.as_ref())] {
            let Some(words) = words else { continue };
            let fits = self.words.len() >= at + words.len()
                && words.iter().zip(&self.words[at..]).all(|(text, word)| **text == **word);
            if !fits {
                continue;
            }
            let mark = self.events.len();
            self.events.push(match choice.toggle {
                None => Event::Bool(choice.target, flag),
                Some((yes, no)) => Event::Enum(choice.target, if flag { yes } else { no }),
            });
            if self.attempt(rest, at + words.len(), then) {
                return true;
            }
            self.events.truncate(mark);
        }
        false
    }

    fn values(&mut self, values: &'p Values, at: usize, then: &Then<'p, '_>) -> bool {
        let Some(word) = self.words.get(at).copied() else { return false };
        if !self.enabled.is_empty() {
            for value in &values.index.print_only {
                let value = &values.lines[*value as usize];
                if self.is_read(value.print_only) && self.value(values.target, value.number, &value.nodes, at, then) {
                    return true;
                }
            }
        }
        values.index.find(word).any(|value| {
            let value = &values.lines[value];
            self.value(values.target, value.number, &value.nodes, at, then)
        })
    }

    fn value(&mut self, target: Target, number: i32, nodes: &'p [Node], at: usize, then: &Then<'p, '_>) -> bool {
        let mark = self.events.len();
        self.events.push(Event::Enum(target, number));
        if self.attempt(nodes, at, then) {
            return true;
        }
        self.events.truncate(mark);
        false
    }

    fn message(&mut self, message: &'p Message, at: usize, then: &Then<'p, '_>) -> bool {
        let mark = self.events.len();
        self.events.push(Event::Open(message.target));
        if self.attempt(&message.nodes, at, &Then::Close(message, then)) {
            return true;
        }
        self.events.truncate(mark);
        false
    }

    fn items(&mut self, any: &'p Any, used: u128, at: usize, then: &Then<'p, '_>) -> bool {
        if let Some(word) = self.words.get(at).copied() {
            for item in any.index.find(word) {
                let bit = 1u128 << item;
                if used & bit != 0 {
                    continue;
                }
                let item = &any.items[item];
                let used = if item.many { used } else { used | bit };
                if self.attempt(&item.nodes, at, &Then::Items(any, used, then)) {
                    return true;
                }
            }
        }
        self.resume(then, at)
    }

    /// Reads parameters and unknown words to the end of the line.
    fn star(&mut self, star: &'p Star, mut at: usize) -> bool {
        let words = self.words;
        let mut seen: Vec<Seen> = Vec::with_capacity(words.len() - at.min(words.len()));
        let mut unknown: Vec<(u32, u32)> = Vec::new();
        let mut repeated: Vec<(u32, u32)> = Vec::new();
        let mut inside: Option<u16> = None;
        while let Some(word) = words.get(at).copied() {
            let Some(found) = self.param(star, word, &seen) else {
                match unknown.last_mut() {
                    Some((_, to)) if *to as usize == at => *to += 1,
                    _ => unknown.push((at as u32, at as u32 + 1)),
                }
                at += 1;
                continue;
            };
            let param = &star.params[found];
            let via = param.via;
            if via != inside {
                if inside.is_some() {
                    self.events.push(Event::Close);
                }
                if let Some(field) = via {
                    self.events.push(Event::Open(Target { field, push: false, own: false }));
                }
                inside = via;
            }
            let mark = self.events.len();
            if !self.run(&param.nodes, at, &Then::Anywhere) {
                // Its field cannot hold the value: the words stay on the line.
                self.events.truncate(mark);
                let end = (at + 1..words.len()).find(|at| self.param(star, words[*at], &seen).is_some());
                unknown.push((at as u32, end.unwrap_or(words.len()) as u32));
                at = end.unwrap_or(words.len());
                continue;
            }
            self.empty(mark, param.target, param.empty);
            let now = Seen {
                param: found as u16,
                words: (at as u32, self.stopped as u32),
                events: (mark, self.events.len()),
            };
            at = self.stopped;
            if !param.many
                && let Some(before) = seen.iter_mut().find(|before| before.param == now.param)
            {
                let events = &mut self.events[before.events.0..before.events.1];
                if let Some(list) = param.earlier {
                    for event in events {
                        event.list(param.target.field, list);
                    }
                } else {
                    // The later one counts; the words of the earlier one stay on the line.
                    events.fill(Event::Dead);
                    repeated.push(before.words);
                }
                *before = now;
                continue;
            }
            seen.push(now);
        }
        if inside.is_some() {
            self.events.push(Event::Close);
        }
        if !repeated.is_empty() || !unknown.is_empty() {
            // Unknown words first: whatever follows them is told by its keyword.
            repeated.sort_unstable();
            unknown.append(&mut repeated);
            self.residue = unknown;
            self.events.push(Event::Residue);
        }
        true
    }

    /// The parameter that begins with `word`: one that was not read yet, when several do.
    fn param(&self, star: &Star, word: &str, seen: &[Seen]) -> Option<usize> {
        if !self.enabled.is_empty() {
            let fresh = star.index.print_only.iter().map(|at| *at as usize).find(|at| {
                let param = &star.params[*at];
                self.is_read(param.print_only)
                    && begins(&param.nodes, word)
                    && (param.many || seen.iter().all(|before| before.param as usize != *at))
            });
            if fresh.is_some() {
                return fresh;
            }
        }
        star.index.find(word).next()
    }

    fn parts(&mut self, parts: &'p [Part], word: &'w str, at: usize, tail: &Tail<'p, '_>) -> bool {
        match parts.split_first() {
            None => match tail {
                Tail::End => at == word.len() || is_closing(word, at),
                Tail::Parts(parts, next) => self.parts(parts, word, at, next),
            },
            Some((Part::Text(text), rest)) => {
                // A quote that opens or closes in front of a keyword is none of it.
                let at = at + usize::from(!word[at..].starts_with(&**text) && is_quote(word, at));
                word[at..].starts_with(&**text) && self.parts(rest, word, at + text.len(), tail)
            }
            Some((Part::Optional(inner), rest)) => {
                let mark = self.events.len();
                // A text that began with what ends it would swallow the part behind: `hdr_ip(,-1)` has no header.
                let absent = matches!(inner.first(), Some(Part::Slot { slot, stops })
                    if matches!(slot.leaf, Leaf::Text { .. }) && word.as_bytes().get(at).is_some_and(|first| stops.contains(first)));
                if !absent && self.parts(inner, word, at, &Tail::Parts(rest, tail)) {
                    return true;
                }
                self.events.truncate(mark);
                self.parts(rest, word, at, tail)
            }
            Some((Part::Slot { slot, stops }, rest)) => {
                let (mark, bytes) = (self.events.len(), word.as_bytes());
                // Where nothing may follow, all of the word is looked at once.
                let from = if stops.is_empty() { word.len() } else { at + 1 };
                let ends = (from..word.len()).filter(|end| stops.contains(&bytes[*end]));
                let ends = ends.chain((at < word.len()).then_some(word.len()));
                let (marked, mut quote, mut passed) = (words::is_marked(word), Quote::default(), 0);
                let mut quote_at = |at: usize| {
                    if marked {
                        quote.pass(&bytes[passed..at]);
                        passed = at;
                    }
                    quote.open
                };
                let open = quote_at(at);
                for end in ends {
                    let Some(event) = self.cut(slot, word, (at, open), (end, quote_at(end))) else { continue };
                    self.events.push(event);
                    if self.parts(rest, word, end, tail) {
                        return true;
                    }
                    self.events.truncate(mark);
                }
                false
            }
        }
    }

    /// Reads the bytes of a word between two places, each with the quote that is open there: it is closed and opened again.
    fn cut(
        &self,
        slot: &'p Slot,
        word: &'w str,
        (at, open): (usize, Option<char>),
        (end, close): (usize, Option<char>),
    ) -> Option<Event<'w>> {
        let (text, whole) = (&word[at..end], end == word.len());
        if open.is_none() && close.is_none() {
            return self.leaf(&slot.leaf, slot.target, text, whole);
        }
        if text.len() == 1 && open != close {
            // Nothing but a quote.
            return None;
        }
        let text: String = open.into_iter().chain(text.chars()).chain(close).collect();
        match self.leaf(&slot.leaf, slot.target, &words::plain(&text), whole)? {
            Event::Text(target, text) => Some(Event::Text(target, Cow::Owned(text.into_owned()))),
            Event::Int(target, number) => Some(Event::Int(target, number)),
            Event::Enum(target, number) => Some(Event::Enum(target, number)),
            _ => None,
        }
    }

    /// Reads one value.
    fn leaf<'t>(&self, leaf: &'p Leaf, target: Target, text: &'t str, whole: bool) -> Option<Event<'t>> {
        match leaf {
            Leaf::Text { strict: true, .. } | Leaf::Joined { strict: true } | Leaf::Address { .. }
                if is_quoted(text) =>
            {
                None
            }
            Leaf::Text { .. } => Some(Event::Text(target, Cow::Borrowed(text))),
            Leaf::Variable => text.contains('$').then_some(Event::Text(target, Cow::Borrowed(text))),
            Leaf::Joined { .. } => Some(Event::Join(target, text)),
            Leaf::Address { listen } => units::address(text, whole, *listen).map(|text| Event::Text(target, text)),
            Leaf::Number(number) => {
                let value = units::read(text, number.unit)?;
                let narrow =
                    (!number.narrow || i32::try_from(value).is_ok()) && number.min.is_none_or(|min| value >= min);
                let listed = number.listed.is_empty() || number.listed.contains(&value);
                (narrow && listed).then_some(Event::Int(target, value))
            }
            Leaf::Token(tokens) => {
                if !self.enabled.is_empty() {
                    let printed = tokens
                        .by_number
                        .iter()
                        .find(|(_, (word, id))| **word == *text && id.is_some() && self.is_read(*id));
                    if let Some((number, _)) = printed {
                        return Some(Event::Enum(target, *number));
                    }
                }
                let (number, print_only) = tokens.by_word.get(text)?;
                self.is_read(*print_only).then_some(Event::Enum(target, *number))
            }
        }
    }

    fn list(&mut self, slot: &'p Slot, word: &'w str) -> bool {
        if matches!(slot.leaf, Leaf::Text { strict: true, .. }) && is_quoted(word) {
            return false;
        }
        let target = Target { push: true, ..slot.target };
        for item in word.split(',') {
            if item.is_empty() {
                return false;
            }
            let Some(event) = self.leaf(&slot.leaf, target, item, true) else { return false };
            self.events.push(event);
        }
        true
    }
}

/// True when a parameter can begin with `word`.
fn begins(nodes: &[Node], word: &str) -> bool {
    match nodes.first() {
        Some(Node::Literal(text)) => **text == *word,
        Some(Node::Choice(choice)) => {
            choice.yes.first().is_some_and(|text| **text == *word)
                || choice.no.as_ref().and_then(|no| no.first()).is_some_and(|text| **text == *word)
        }
        _ => true,
    }
}

/// True for a word that is written with quotes or escapes and needs none.
fn is_quoted(word: &str) -> bool {
    matches!(words::plain(word), Cow::Owned(_))
}

/// True for a quote at `at` that opens or closes.
fn is_quote(word: &str, at: usize) -> bool {
    at < word.len() && words::quote_at(word, at) != words::quote_at(word, at + 1)
}

/// True when nothing but the quote that is open stands at the end of a word.
fn is_closing(word: &str, at: usize) -> bool {
    at + 1 == word.len() && words::quote_at(word, at).is_some() && words::quote_at(word, at + 1).is_none()
}
