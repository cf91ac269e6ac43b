//! Can two programs read the same line? Compares up to four words.

use std::rc::Rc;

use super::compile::Broken;
use super::link::{Opening, openings};
use super::node::{Any, Group, Leaf, Node, Part, Rest, Values};
use super::units;

/// Words that are compared.
const DEPTH: usize = 4;

/// What stands in the place of one word.
#[derive(Clone)]
pub(super) enum Token<'n> {
    Exact(&'n str),
    Pattern(&'n [Part]),
    Number,
    Free,
}

/// What is left to read.
pub(super) type Tail<'n> = Option<Rc<Link<'n>>>;

/// One link of it.
pub(super) enum Link<'n> {
    Nodes(&'n [Node], Tail<'n>),
    Words(&'n [Box<str>], Tail<'n>),
    Items(&'n Any, u128, Tail<'n>),
    More(&'n Rest, Tail<'n>),
    Star(Tail<'n>),
}

/// The next words that `tail` can read, each with what is left then, and whether it can end here.
pub(super) fn steps<'n>(tail: &Tail<'n>, out: &mut Vec<(Token<'n>, Tail<'n>)>) -> bool {
    let Some(link) = tail else { return true };
    match &**link {
        Link::Nodes(nodes, next) => nodes_steps(nodes, next, out),
        Link::Words(words, next) => match words.split_first() {
            None => steps(next, out),
            Some((word, rest)) => {
                out.push((Token::Exact(word), Some(Rc::new(Link::Words(rest, next.clone())))));
                false
            }
        },
        Link::Items(any, used, next) => {
            for (at, item) in any.items.iter().enumerate() {
                let bit = 1u128 << at;
                if used & bit == 0 {
                    let used = if item.many { *used } else { used | bit };
                    nodes_steps(&item.nodes, &Some(Rc::new(Link::Items(any, used, next.clone()))), out);
                }
            }
            steps(next, out)
        }
        Link::More(rest, next) => {
            rest_steps(rest, next, out);
            steps(next, out)
        }
        Link::Star(next) => {
            out.push((Token::Free, tail.clone()));
            steps(next, out)
        }
    }
}

fn leaf_steps<'n>(leaf: &'n Leaf, after: &Tail<'n>, out: &mut Vec<(Token<'n>, Tail<'n>)>) {
    match leaf {
        Leaf::Number(_) => out.push((Token::Number, after.clone())),
        Leaf::Token(tokens) => {
            let read = tokens.by_word.iter().filter(|(_, (_, print_only))| print_only.is_none());
            out.extend(read.map(|(word, _)| (Token::Exact(word), after.clone())));
        }
        Leaf::Text { .. } | Leaf::Address { .. } | Leaf::Joined { .. } | Leaf::Variable => {
            out.push((Token::Free, after.clone()));
        }
    }
}

fn rest_steps<'n>(rest: &'n Rest, after: &Tail<'n>, out: &mut Vec<(Token<'n>, Tail<'n>)>) {
    let more = Some(Rc::new(Link::More(rest, after.clone())));
    match &rest.item {
        None => out.push((Token::Free, more)),
        Some(leaf) => leaf_steps(leaf, &more, out),
    }
}

fn nodes_steps<'n>(nodes: &'n [Node], tail: &Tail<'n>, out: &mut Vec<(Token<'n>, Tail<'n>)>) -> bool {
    let Some((node, rest)) = nodes.split_first() else { return steps(tail, out) };
    let after = if rest.is_empty() { tail.clone() } else { Some(Rc::new(Link::Nodes(rest, tail.clone()))) };
    match node {
        Node::Literal(word) => out.push((Token::Exact(word), after)),
        Node::Word(parts) => out.push((Token::Pattern(parts), after)),
        Node::Slot(slot) => leaf_steps(&slot.leaf, &after, out),
        Node::List(_) => out.push((Token::Free, after)),
        Node::Rest(rest) => rest_steps(rest, &after, out),
        Node::Choice(choice) => {
            for words in [Some(&choice.yes), choice.no.as_ref()].into_iter().flatten() {
                steps(&Some(Rc::new(Link::Words(words, after.clone()))), out);
            }
        }
        // The words that belong to a keyword are not compared.
        Node::Gather(gather) => out.extend(gather.words.iter().map(|(word, _)| (Token::Exact(word), after.clone()))),
        Node::Values(values) => {
            let mut end = false;
            for value in values.lines.iter().filter(|value| value.print_only.is_none()) {
                end |= nodes_steps(&value.nodes, &after, out);
            }
            return end;
        }
        Node::Message(message) => return nodes_steps(&message.nodes, &after, out),
        Node::Group(group) => {
            let mut end = false;
            for alternative in group.alternatives.iter().filter(|alternative| alternative.print_only.is_none()) {
                end |= nodes_steps(&alternative.nodes, &after, out);
            }
            if !group.required {
                end |= steps(&after, out);
            }
            return end;
        }
        Node::Any(any) => return steps(&Some(Rc::new(Link::Items(any, 0, after))), out),
        Node::Star(star) => {
            let next = Some(Rc::new(Link::Star(after.clone())));
            for param in star.params.iter().filter(|param| param.print_only.is_none()) {
                nodes_steps(&param.nodes, &next, out);
            }
            return steps(&next, out);
        }
    }
    false
}

/// Which differences between two words count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The earlier may be the narrower one.
    Alternatives,
    /// One of the two may begin with a free word.
    Values,
    /// None may read what the other reads.
    Fields,
}

fn rank(token: &Token<'_>) -> u8 {
    match token {
        Token::Pattern(parts) if openings(parts).contains(&Opening::Free) => 2,
        Token::Exact(_) | Token::Pattern(_) => 0,
        Token::Number => 1,
        Token::Free => 2,
    }
}

fn alike(a: &Token<'_>, b: &Token<'_>) -> bool {
    match (a, b) {
        (Token::Exact(a), Token::Exact(b)) => a == b,
        (Token::Exact(word), Token::Number) | (Token::Number, Token::Exact(word)) => units::number(word).is_some(),
        (Token::Exact(word), Token::Pattern(parts)) | (Token::Pattern(parts), Token::Exact(word)) => {
            openings(parts).iter().any(|opening| match opening {
                Opening::Exact(text) => text == word,
                Opening::Prefix(prefix) => word.starts_with(prefix.as_str()),
                Opening::Free => true,
            })
        }
        (Token::Pattern(parts), Token::Number) | (Token::Number, Token::Pattern(parts)) => {
            openings(parts).contains(&Opening::Free)
        }
        (Token::Pattern(a), Token::Pattern(b)) => {
            openings(a).iter().any(|one| openings(b).iter().any(|two| meet(one, two)))
        }
        (Token::Number, Token::Number) | (Token::Free, _) | (_, Token::Free) => true,
    }
}

fn meet(one: &Opening, two: &Opening) -> bool {
    match (one, two) {
        (Opening::Free, _) | (_, Opening::Free) => true,
        (Opening::Exact(a), Opening::Exact(b)) => a == b,
        (Opening::Exact(word), Opening::Prefix(prefix)) | (Opening::Prefix(prefix), Opening::Exact(word)) => {
            word.starts_with(prefix.as_str())
        }
        (Opening::Prefix(a), Opening::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
    }
}

/// The next words of a program and whether it can end there.
struct Front<'n> {
    tokens: Vec<(Token<'n>, Tail<'n>)>,
    end: bool,
}

impl<'n> Front<'n> {
    fn of(tail: &Tail<'n>) -> Self {
        let mut tokens = Vec::new();
        let end = steps(tail, &mut tokens);
        Front { tokens, end }
    }

    fn nodes(nodes: &'n [Node]) -> Self {
        Front::of(&Some(Rc::new(Link::Nodes(nodes, None))))
    }
}

fn meets(a: &Front<'_>, b: &Front<'_>, depth: usize, mode: Mode) -> bool {
    if a.end && b.end {
        return true;
    }
    for (one, after_one) in &a.tokens {
        for (two, after_two) in &b.tokens {
            if !alike(one, two) {
                continue;
            }
            let settled = match mode {
                Mode::Alternatives => rank(one) < rank(two),
                Mode::Values => depth == DEPTH && rank(one) != rank(two),
                Mode::Fields => false,
            };
            if settled {
                continue;
            }
            if depth == 1 || meets(&Front::of(after_one), &Front::of(after_two), depth - 1, mode) {
                return true;
            }
        }
    }
    false
}

/// A8.
pub(super) fn alternatives(group: &Group) -> Result<(), Broken> {
    let fronts: Vec<_> = group.alternatives.iter().map(|alternative| Front::nodes(&alternative.nodes)).collect();
    for (later, front) in fronts.iter().enumerate() {
        if group.alternatives[later].print_only.is_some() {
            continue;
        }
        for (earlier, other) in fronts[..later].iter().enumerate() {
            if group.alternatives[earlier].print_only.is_none() && meets(other, front, DEPTH, Mode::Alternatives) {
                return Err(Broken::new(
                    "A8",
                    format!("alternatives {} and {} read the same line", earlier + 1, later + 1),
                ));
            }
        }
    }
    Ok(())
}

/// A9.
pub(super) fn values(values: &Values) -> Result<(), Broken> {
    let read: Vec<_> = values.lines.iter().filter(|value| value.print_only.is_none()).collect();
    let fronts: Vec<_> = read.iter().map(|value| Front::nodes(&value.nodes)).collect();
    for (later, front) in fronts.iter().enumerate() {
        for (earlier, other) in fronts[..later].iter().enumerate() {
            let both_free = |front: &Front<'_>| front.tokens.iter().any(|(token, _)| rank(token) == 2);
            if (both_free(front) && both_free(other)) || meets(other, front, DEPTH, Mode::Values) {
                let (one, two) = (&read[earlier].token, &read[later].token);
                return Err(Broken::new("A9", format!("the values `{one}` and `{two}` read the same line")));
            }
        }
    }
    Ok(())
}

/// A10: the first pair of programs that read the same line.
pub(super) fn fields(programs: &[&[Node]]) -> Option<(usize, usize)> {
    let fronts: Vec<_> = programs.iter().map(|nodes| Front::nodes(nodes)).collect();
    for later in 0..fronts.len() {
        for earlier in 0..later {
            if meets(&fronts[earlier], &fronts[later], DEPTH, Mode::Fields) {
                return Some((earlier, later));
            }
        }
    }
    None
}
