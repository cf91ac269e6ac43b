//! Compiled templates: what the parser and the printer walk over.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::notation::Unit;

/// Number of a print-only element; the read-back tries those that were printed first.
pub(super) type PrintOnly = u32;

/// A step of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// One word of fixed text.
    Literal(Box<str>),
    /// One word of several parts.
    Word(Box<[Part]>),
    /// One word that is a value.
    Slot(Slot),
    /// One or more words.
    Rest(Rest),
    /// One word of several values, split at commas.
    List(Slot),
    /// Fixed words that stand for true or false.
    Choice(Choice),
    /// Listed words that make a text.
    Gather(Gather),
    /// An enum of which values have templates.
    Values(Values),
    /// A nested message.
    Message(Message),
    /// Alternatives, optional unless `required`.
    Group(Group),
    /// Items in any order.
    Any(Any),
    /// All other fields, and words that no field reads.
    Star(Box<Star>),
}

/// A field of the message that a node reads or prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// Its position.
    pub field: u16,
    /// It is an item of a list: reading appends, printing prints the item at hand.
    pub push: bool,
    /// It is the field that carries the template, so it may be present and empty.
    pub own: bool,
}

/// One value.
#[derive(Debug)]
pub(super) struct Slot {
    pub target: Target,
    pub leaf: Leaf,
    /// Prints 0 when unset and needed.
    pub implicit: bool,
}

/// How the text of one value is read.
#[derive(Debug)]
pub(super) enum Leaf {
    /// Any word. Of a `strict` one, a name or the like, quotes are no part: one that needs none is not read. A `bare` one
    /// may be given in such quotes all the same.
    Text { strict: bool, bare: bool },
    /// An address.
    Address { listen: bool },
    /// A word that is joined with a comma when it occurs again.
    Joined { strict: bool },
    /// A word with a variable in it.
    Variable,
    /// A number.
    Number(Number),
    /// The token of an enum.
    Token(Arc<Tokens>),
}

/// Which numbers a slot takes.
#[derive(Debug)]
pub(super) struct Number {
    pub narrow: bool,
    /// The smallest one that the field takes: a smaller one of the file is not its value.
    pub min: Option<i64>,
    pub unit: Option<Unit>,
    pub listed: Box<[i64]>,
}

/// Tokens of an enum.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub by_word: Words<(i32, Option<PrintOnly>)>,
    pub by_number: HashMap<i32, (Box<str>, Option<PrintOnly>)>,
}

/// A part of a word.
#[derive(Debug)]
pub(super) enum Part {
    Text(Box<str>),
    /// `stops` are the bytes that may follow the value inside the word.
    Slot {
        slot: Slot,
        stops: Box<[u8]>,
    },
    Optional(Box<[Part]>),
}

/// One or more words: a text, or a list of values.
#[derive(Debug)]
pub(super) struct Rest {
    pub target: Target,
    /// Reads each word when the field is a list.
    pub item: Option<Leaf>,
    /// The words of a text are strict.
    pub strict: bool,
    /// Words that may follow.
    pub stop: Arc<Stop>,
}

/// Fixed words for true and false, or for enabled and disabled.
#[derive(Debug)]
pub(super) struct Choice {
    pub target: Target,
    /// Numbers of enabled and disabled when the field is an enum.
    pub toggle: Option<(i32, i32)>,
    pub yes: Box<[Box<str>]>,
    pub no: Option<Box<[Box<str>]>>,
}

/// Listed words that make a text, in the order in which they stand.
#[derive(Debug)]
pub(super) struct Gather {
    pub target: Target,
    /// Each keyword, and how many words belong to it.
    pub words: Box<[(Box<str>, usize)]>,
}

/// An enum of which values have templates.
#[derive(Debug)]
pub(super) struct Values {
    pub target: Target,
    pub lines: Box<[ValueLine]>,
    pub index: Index,
}

/// The template of an enum value.
#[derive(Debug)]
pub(super) struct ValueLine {
    pub number: i32,
    pub token: Box<str>,
    pub nodes: Vec<Node>,
    pub print_only: Option<PrintOnly>,
}

/// A nested message.
#[derive(Debug)]
pub(super) struct Message {
    pub target: Target,
    /// Repeats while it fits.
    pub many: bool,
    pub nodes: Vec<Node>,
}

/// Alternatives.
#[derive(Debug)]
pub(super) struct Group {
    pub alternatives: Box<[Alternative]>,
    pub required: bool,
    /// Words that may follow: never taken by the group.
    pub guard: Arc<Stop>,
}

/// One alternative.
#[derive(Debug)]
pub(super) struct Alternative {
    pub nodes: Vec<Node>,
    pub print_only: Option<PrintOnly>,
}

/// Items in any order.
#[derive(Debug)]
pub(super) struct Any {
    pub items: Box<[AnyItem]>,
    pub index: Index,
}

/// One of them.
#[derive(Debug)]
pub(super) struct AnyItem {
    pub nodes: Vec<Node>,
    /// May occur more than once.
    pub many: bool,
}

/// A `*` group.
#[derive(Debug)]
pub(super) struct Star {
    pub params: Box<[Param]>,
    pub index: Index,
}

/// A parameter of a `*` group.
#[derive(Debug)]
pub(super) struct Param {
    /// The flattened message that holds it.
    pub via: Option<u16>,
    pub target: Target,
    pub nodes: Vec<Node>,
    pub print_only: Option<PrintOnly>,
    /// Every occurrence adds to the value.
    pub many: bool,
    /// The list of the same message that has the occurrences before the last one.
    pub earlier: Option<u16>,
    pub empty: Empty,
}

/// What a template whose own slot was left out says about its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// The slot cannot be left out.
    Never,
    /// The empty text.
    Text,
    /// The unspecified number of an enum.
    Enum,
}

/// Words that may follow something.
#[derive(Debug, Default)]
pub(super) struct Stop {
    pub words: HashSet<Box<str>, BuildHasherDefault<WordHasher>>,
    pub prefixes: Box<[Box<str>]>,
}

impl Stop {
    /// True when `word` is one of them.
    pub(super) fn has(&self, word: &str) -> bool {
        (!self.words.is_empty() && self.words.contains(word)) || self.prefixes.iter().any(|p| word.starts_with(&**p))
    }
}

/// Finds candidates by a first word.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub words: Words<Box<[u16]>>,
    pub prefixes: Box<[(Box<str>, u16)]>,
    /// Candidates that begin with a free word or a number.
    pub free: Box<[u16]>,
    /// Print-only candidates.
    pub print_only: Box<[u16]>,
}

impl Index {
    /// Candidates in order: exact word, prefix, free.
    pub(super) fn find<'i>(&'i self, word: &'i str) -> impl Iterator<Item = usize> + 'i {
        let exact: &[u16] = self.words.get(word).map_or(&[], |list| list);
        let prefixed = self.prefixes.iter().filter(move |(prefix, _)| word.starts_with(&**prefix)).map(|(_, at)| at);
        exact.iter().chain(prefixed).chain(self.free.iter()).map(|at| *at as usize)
    }
}

/// A map by word. The keys come from the schema, so a plain fast hash is safe.
pub(super) type Words<V> = HashMap<Box<str>, V, BuildHasherDefault<WordHasher>>;

/// FNV-like hash over eight bytes at a time.
#[derive(Debug, Default)]
pub(super) struct WordHasher(u64);

impl WordHasher {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut eight = [0u8; 8];
            eight.copy_from_slice(chunk);
            self.add(u64::from_le_bytes(eight));
        }
        let mut last = 0u64;
        for byte in chunks.remainder() {
            last = (last << 8) | u64::from(*byte);
        }
        self.add(last);
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn finish(&self) -> u64 {
        // The low bits of a product are weak; the table uses both ends.
        self.0 ^ (self.0 >> 32)
    }
}
