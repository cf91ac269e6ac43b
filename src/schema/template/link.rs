//! FIRST and FOLLOW: gives each optional place the words that end it, and refuses what they cannot tell apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::compile::Broken;
use super::node::{Any, Group, Index, Leaf, Node, Part, Rest, Star, Stop, Values};
use super::overlap;

type Made = Result<(), Broken>;

/// What can begin something.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is another kind of beginning")]
pub(super) struct First {
    pub words: BTreeSet<Box<str>>,
    pub prefixes: BTreeSet<Box<str>>,
    pub number: bool,
    pub free: bool,
    /// It can be a word that no parameter of a `*` begins with.
    pub unknown: bool,
    /// It may be absent.
    pub nullable: bool,
}

impl First {
    fn add(&mut self, other: &First) {
        self.words.extend(other.words.iter().cloned());
        self.prefixes.extend(other.prefixes.iter().cloned());
        self.number |= other.number;
        self.free |= other.free;
        self.unknown |= other.unknown;
    }

    fn word(&mut self, word: &str) {
        self.words.insert(word.into());
    }

    /// A keyword that both begin with.
    fn common<'a>(&'a self, other: &'a First) -> Option<&'a str> {
        fn prefixed<'a>(words: &'a First, prefixes: &First) -> Option<&'a str> {
            let all = words.words.iter().chain(words.prefixes.iter());
            all.map(|word| &**word).find(|word| prefixes.prefixes.iter().any(|prefix| word.starts_with(&**prefix)))
        }
        let (few, many) = if self.words.len() < other.words.len() { (self, other) } else { (other, self) };
        few.words
            .iter()
            .find(|word| many.words.contains(*word))
            .map(|word| &**word)
            .or_else(|| prefixed(self, other))
            .or_else(|| prefixed(other, self))
    }

    fn stop(&self) -> Arc<Stop> {
        Arc::new(Stop {
            words: self.words.iter().cloned().collect(),
            prefixes: self.prefixes.iter().cloned().collect(),
        })
    }

    fn leaf(&mut self, leaf: &Leaf) {
        match leaf {
            Leaf::Number(_) => self.number = true,
            Leaf::Token(tokens) => {
                let read = tokens.by_word.iter().filter(|(_, (_, print_only))| print_only.is_none());
                self.words.extend(read.map(|(word, _)| word.clone()));
            }
            Leaf::Text { .. } | Leaf::Address { .. } | Leaf::Joined { .. } | Leaf::Variable => self.free = true,
        }
    }
}

/// How a word of several parts can begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It can be exactly this text.
    Exact(String),
    /// It begins with this text and goes on with a value.
    Prefix(String),
    /// It begins with a value.
    Free,
}

/// All beginnings of a word.
pub(super) fn openings(parts: &[Part]) -> Vec<Opening> {
    fn walk(parts: &[Part], rest: &[&[Part]], text: &str, out: &mut Vec<Opening>) {
        match parts.split_first() {
            None => match rest.split_last() {
                None if text.is_empty() => {}
                None => out.push(Opening::Exact(text.to_owned())),
                Some((next, rest)) => walk(next, rest, text, out),
            },
            Some((Part::Text(more), tail)) => walk(tail, rest, &format!("{text}{more}"), out),
            Some((Part::Slot { .. }, _)) if text.is_empty() => out.push(Opening::Free),
            Some((Part::Slot { .. }, _)) => out.push(Opening::Prefix(text.to_owned())),
            Some((Part::Optional(inner), tail)) => {
                let mut with = rest.to_vec();
                with.push(tail);
                walk(inner, &with, text, out);
                walk(tail, rest, text, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(parts, &[], "", &mut out);
    out
}

/// FIRST of one node.
pub(super) fn first(node: &Node) -> First {
    let mut set = First::default();
    match node {
        Node::Literal(word) => set.word(word),
        Node::Word(parts) => {
            for opening in openings(parts) {
                match opening {
                    Opening::Exact(word) => set.word(&word),
                    Opening::Prefix(prefix) => {
                        set.prefixes.insert(prefix.into());
                    }
                    Opening::Free => set.free = true,
                }
            }
        }
        Node::Slot(slot) => set.leaf(&slot.leaf),
        Node::List(_) => set.free = true,
        Node::Rest(rest) => set.leaf(rest.item.as_ref().unwrap_or(&Leaf::Text { strict: false, bare: false })),
        Node::Choice(choice) => {
            choice.yes.first().iter().for_each(|word| set.word(word));
            choice.no.iter().filter_map(|no| no.first()).for_each(|word| set.word(word));
        }
        Node::Gather(gather) => gather.words.iter().for_each(|(word, _)| set.word(word)),
        Node::Values(values) => {
            for value in values.lines.iter().filter(|value| value.print_only.is_none()) {
                let inner = first_of(&value.nodes);
                set.nullable |= inner.nullable;
                set.add(&inner);
            }
        }
        Node::Message(message) => set = first_of(&message.nodes),
        Node::Group(group) => {
            set.nullable = !group.required;
            for alternative in &group.alternatives {
                let inner = first_of(&alternative.nodes);
                set.nullable |= inner.nullable;
                set.add(&inner);
            }
        }
        Node::Any(any) => {
            any.items.iter().for_each(|item| set.add(&first_of(&item.nodes)));
            set.nullable = true;
        }
        Node::Star(star) => {
            star.params.iter().for_each(|param| set.add(&first_of(&param.nodes)));
            set.unknown = true;
            set.nullable = true;
        }
    }
    set
}

/// FIRST of a sequence.
pub(super) fn first_of(nodes: &[Node]) -> First {
    let mut set = First { nullable: true, ..First::default() };
    for node in nodes {
        let inner = first(node);
        set.add(&inner);
        if !inner.nullable {
            set.nullable = false;
            break;
        }
    }
    set
}

/// Links a whole line.
pub(super) fn line(nodes: &mut [Node]) -> Made {
    sequence(nodes, &First::default())
}

fn sequence(nodes: &mut [Node], follow: &First) -> Made {
    let mut after = follow.clone();
    for at in (0..nodes.len()).rev() {
        let begin = first(&nodes[at]);
        link(&mut nodes[at], &after, &begin)?;
        if begin.nullable {
            after.add(&begin);
        } else {
            after = begin;
        }
    }
    Ok(())
}

fn link(node: &mut Node, follow: &First, begin: &First) -> Made {
    match node {
        Node::Literal(_) | Node::Slot(_) | Node::List(_) | Node::Choice(_) | Node::Gather(_) => Ok(()),
        Node::Word(parts) => word(parts, &[]),
        Node::Rest(rest) => rest_of_line(rest, follow),
        Node::Values(values) => enum_values(values, follow),
        Node::Message(message) => {
            let mut after = follow.clone();
            if message.many {
                if begin.free || begin.unknown || begin.number {
                    return Err(Broken::new("A11", "a repeated message begins with a free word or a number"));
                }
                if let Some(word) = begin.common(follow) {
                    return Err(Broken::new("A11", format!("`{word}` begins a repeated message and what follows it")));
                }
                after.add(begin);
            }
            sequence(&mut message.nodes, &after)
        }
        Node::Group(group) => alternatives(group, follow, begin),
        Node::Any(any) => any_order(any, follow),
        Node::Star(star) => parameters(star),
    }
}

fn rest_of_line(rest: &mut Rest, follow: &First) -> Made {
    if follow.free || follow.number || follow.unknown {
        return Err(Broken::new("A4", "`...` is followed by something that is not a keyword"));
    }
    rest.stop = follow.stop();
    Ok(())
}

fn alternatives(group: &mut Group, follow: &First, begin: &First) -> Made {
    if !group.required {
        if begin.free && (follow.free || follow.number) {
            return Err(Broken::new("A2", "an optional free word before a free word or a number"));
        }
        if begin.number && follow.number {
            return Err(Broken::new("A3", "an optional number before a number"));
        }
        if let Some(word) = begin.common(follow) {
            return Err(Broken::new("A5", format!("`{word}` can belong to an optional part and to what follows it")));
        }
        group.guard = follow.stop();
    }
    for alternative in &mut group.alternatives {
        sequence(&mut alternative.nodes, follow)?;
    }
    overlap::alternatives(group)
}

fn any_order(any: &mut Any, follow: &First) -> Made {
    let begins: Vec<First> = any.items.iter().map(|item| first_of(&item.nodes)).collect();
    for (at, begin) in begins.iter().enumerate() {
        if begin.free || begin.unknown || begin.number || begin.nullable {
            return Err(Broken::new("A6", "an item in any order begins with a free word or a number"));
        }
        if let Some(word) = begins[..at].iter().find_map(|other| begin.common(other)) {
            return Err(Broken::new("A7", format!("two items in any order begin with `{word}`")));
        }
        if let Some(word) = begin.common(follow) {
            return Err(Broken::new("A7", format!("`{word}` begins an item in any order and what follows the group")));
        }
    }
    for at in 0..any.items.len() {
        let mut after = follow.clone();
        for (other, begin) in begins.iter().enumerate() {
            if other != at || any.items[at].many {
                after.add(begin);
            }
        }
        sequence(&mut any.items[at].nodes, &after)?;
    }
    any.index = index(begins.iter());
    Ok(())
}

fn enum_values(values: &mut Values, follow: &First) -> Made {
    for value in &mut values.lines {
        sequence(&mut value.nodes, follow)?;
    }
    overlap::values(values)?;
    let begins: Vec<First> = values.lines.iter().map(|value| first_of(&value.nodes)).collect();
    let read = |at: usize| values.lines[at].print_only.is_none();
    let mut made = index_of(begins.iter().enumerate().filter(|(at, _)| read(*at)));
    made.print_only = (0..values.lines.len()).filter(|at| !read(*at)).map(|at| at as u16).collect();
    values.index = made;
    Ok(())
}

fn parameters(star: &mut Star) -> Made {
    let begins: Vec<First> = star.params.iter().map(|param| first_of(&param.nodes)).collect();
    let mut all = First::default();
    for (at, begin) in begins.iter().enumerate() {
        if begin.free || begin.unknown || begin.number || begin.nullable {
            return Err(Broken::new("A6", "a parameter begins with a free word or a number"));
        }
        let read = |at: usize| star.params[at].print_only.is_none();
        if let Some(word) =
            (0..at).filter(|other| read(at) && read(*other)).find_map(|other| begin.common(&begins[other]))
        {
            return Err(Broken::new("A7", format!("two parameters begin with `{word}`")));
        }
        all.add(begin);
    }
    for param in &mut star.params {
        sequence(&mut param.nodes, &all)?;
    }
    let read = |at: usize| star.params[at].print_only.is_none();
    let mut made = index_of(begins.iter().enumerate().filter(|(at, _)| read(*at)));
    // Those that stand before the last of several are told by the one behind them.
    let is_earlier = |at: usize| {
        let param = &star.params[at];
        star.params.iter().any(|last| last.via == param.via && last.earlier == Some(param.target.field))
    };
    made.print_only = (0..begins.len()).filter(|at| !read(*at) && !is_earlier(*at)).map(|at| at as u16).collect();
    star.index = made;
    Ok(())
}

fn index<'f>(begins: impl Iterator<Item = &'f First>) -> Index {
    index_of(begins.enumerate())
}

fn index_of<'f>(begins: impl Iterator<Item = (usize, &'f First)>) -> Index {
    let mut words: std::collections::BTreeMap<Box<str>, Vec<u16>> = std::collections::BTreeMap::new();
    let (mut prefixes, mut free) = (Vec::new(), Vec::new());
    for (at, begin) in begins {
        for word in &begin.words {
            words.entry(word.clone()).or_default().push(at as u16);
        }
        prefixes.extend(begin.prefixes.iter().map(|prefix| (prefix.clone(), at as u16)));
        if begin.free || begin.unknown || begin.number || begin.nullable {
            free.push(at as u16);
        }
    }
    Index {
        words: words.into_iter().map(|(word, list)| (word, list.into())).collect(),
        prefixes: prefixes.into(),
        free: free.into(),
        print_only: Box::default(),
    }
}

/// Checks that no two values of a word touch, and gives each the bytes that may follow it.
fn word(parts: &mut [Part], after: &[u8]) -> Made {
    let mut follow = after.to_vec();
    for part in parts.iter_mut().rev() {
        match part {
            Part::Text(text) => follow = text.as_bytes().first().copied().into_iter().collect(),
            Part::Slot { stops, .. } => {
                if follow.contains(&SLOT) {
                    return Err(Broken::new("A1", "two slots touch"));
                }
                *stops = follow.clone().into();
                follow = vec![SLOT];
            }
            Part::Optional(inner) => {
                word(inner, &follow)?;
                follow.extend(opening_bytes(inner));
            }
        }
    }
    Ok(())
}

/// Stands for a value among the bytes that may follow; no text begins with it.
const SLOT: u8 = 0;

fn opening_bytes(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => {
                bytes.extend(text.as_bytes().first());
                return bytes;
            }
            Part::Slot { .. } => {
                bytes.push(SLOT);
                return bytes;
            }
            Part::Optional(inner) => bytes.extend(opening_bytes(inner)),
        }
    }
    bytes
}
