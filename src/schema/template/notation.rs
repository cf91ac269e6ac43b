//! The notation of templates: text to tree.

/// A problem of a template: the rule it breaks and what is wrong.
pub(super) type Problem = (&'static str, String);

/// Alternatives of items.
pub(super) type Tree = Vec<Vec<Item>>;

/// What stands between blanks.
#[derive(Debug)]
pub(super) enum Item {
    /// Text and slots that touch, or plain text.
    Word(Vec<Piece>),
    /// A slot on its own.
    Slot(SlotRef),
    /// A choice of two texts.
    Choice(ChoiceRef),
    /// Listed words that make a text.
    Gather(GatherRef),
    /// Optional words.
    Group(Tree),
    /// Items in any order.
    Any(Vec<Item>),
    /// All other fields.
    Star,
}

/// A part of a word.
#[derive(Debug)]
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// A slot.
    Slot(SlotRef),
    /// An optional part.
    Optional(Vec<Piece>),
}

/// `{name...:unit}`.
#[derive(Debug)]
pub(super) struct SlotRef {
    /// Absent: the field that carries the template.
    pub name: Option<String>,
    /// True with `...`.
    pub rest: bool,
    /// Unit, if any.
    pub unit: Option<Unit>,
}

/// `{name=words|words}`.
#[derive(Debug)]
pub(super) struct ChoiceRef {
    /// Absent: the field that carries the template.
    pub name: Option<String>,
    /// Words for true or enabled.
    pub yes: Vec<String>,
    /// Words for false or disabled.
    pub no: Option<Vec<String>>,
}

/// `{name+words|words}`: `_` stands for any word.
#[derive(Debug)]
pub(super) struct GatherRef {
    /// Absent: the field that carries the template.
    pub name: Option<String>,
    /// Each keyword, and how many words belong to it.
    pub words: Vec<(String, usize)>,
}

/// How the text of a value differs from the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Milliseconds, a bare number is milliseconds.
    Milliseconds,
    /// Seconds, a bare number is seconds.
    Seconds,
    /// Milliseconds, a bare number is seconds.
    MillisecondsOfSeconds,
    /// Bytes.
    Size,
    /// An address that something connects to: an IPv6 literal has brackets in the line only.
    Address,
    /// An address that something listens on: the same behind a family too, as in `mptcp@[::1]`.
    Listen,
    /// A word with a variable in it, which stands for a number.
    Variable,
    /// Items joined by commas.
    Csv,
}

impl Unit {
    fn named(name: &str) -> Option<Unit> {
        Some(match name {
            "ms" => Unit::Milliseconds,
            "s" => Unit::Seconds,
            "ms/s" => Unit::MillisecondsOfSeconds,
            "size" => Unit::Size,
            "addr" => Unit::Address,
            "listen" => Unit::Listen,
            "var" => Unit::Variable,
            "csv" => Unit::Csv,
            _ => return None,
        })
    }
}

fn fault(text: impl Into<String>) -> Problem {
    ("A12", text.into())
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Tree, Problem> {
    if let Some(rest) = text.strip_prefix("[no ]") {
        if rest.trim().is_empty() || rest.contains(['{', '}', '[', ']', '|']) {
            return Err(fault("`[no ]` is followed by plain words only"));
        }
        let yes: Vec<String> = rest.split_ascii_whitespace().map(str::to_owned).collect();
        let mut no = vec!["no".to_owned()];
        no.extend(yes.iter().cloned());
        return Ok(vec![vec![Item::Choice(ChoiceRef { name: None, yes, no: Some(no) })]]);
    }
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    let tree = reader.alternatives(None)?;
    if reader.at < text.len() {
        return Err(fault(format!("unbalanced `{}`", &text[reader.at..=reader.at])));
    }
    Ok(tree)
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn blank_or_end(&self, at: usize) -> bool {
        self.bytes.get(at).is_none_or(|byte| *byte == b' ')
    }

    /// Sequences up to `close` (left unread) or the end.
    fn alternatives(&mut self, close: Option<u8>) -> Result<Tree, Problem> {
        let mut tree = Vec::new();
        loop {
            let items = self.sequence(close)?;
            if items.is_empty() {
                return Err(fault("an empty template or alternative"));
            }
            tree.push(items);
            if self.peek(0) != Some(b'|') {
                return Ok(tree);
            }
            self.at += 1;
        }
    }

    fn sequence(&mut self, close: Option<u8>) -> Result<Vec<Item>, Problem> {
        let mut items = Vec::new();
        loop {
            while self.peek(0) == Some(b' ') {
                self.at += 1;
            }
            match self.peek(0) {
                None => return Ok(items),
                Some(byte) if Some(byte) == close && (byte != b'>' || self.blank_or_end(self.at + 1)) => {
                    return Ok(items);
                }
                Some(b'|') if close != Some(b'>') => return Ok(items),
                _ => items.push(self.item()?),
            }
        }
    }

    fn item(&mut self) -> Result<Item, Problem> {
        match self.peek(0) {
            Some(b'<') if self.peek(1) == Some(b' ') => {
                self.at += 1;
                let items = self.sequence(Some(b'>'))?;
                if self.peek(0) != Some(b'>') || items.is_empty() {
                    return Err(fault("unbalanced `<`"));
                }
                self.at += 1;
                Ok(Item::Any(items))
            }
            Some(b'*') if self.stands_alone(self.at + 1) => {
                self.at += 1;
                Ok(Item::Star)
            }
            Some(b'[') => {
                let end = self.matching(b'[', b']')?;
                if !self.stands_alone(end + 1) {
                    return self.word();
                }
                self.at += 1;
                let tree = self.alternatives(Some(b']'))?;
                if self.peek(0) != Some(b']') {
                    return Err(fault("unbalanced `[`"));
                }
                self.at += 1;
                Ok(Item::Group(tree))
            }
            Some(b'{') => {
                let end = self.matching(b'{', b'}')?;
                if !self.stands_alone(end + 1) {
                    return self.word();
                }
                let inside = &self.text[self.at + 1..end];
                self.at = end + 1;
                if inside.contains('+') {
                    gather(inside).map(Item::Gather)
                } else if inside.contains('=') {
                    choice(inside).map(Item::Choice)
                } else {
                    slot(inside).map(Item::Slot)
                }
            }
            _ => self.word(),
        }
    }

    fn stands_alone(&self, at: usize) -> bool {
        self.blank_or_end(at) || matches!(self.bytes[at], b']' | b'|')
    }

    /// Position of the bracket that closes the one at the current position.
    fn matching(&self, open: u8, close: u8) -> Result<usize, Problem> {
        let mut depth = 0usize;
        for (at, byte) in self.bytes.iter().enumerate().skip(self.at) {
            if *byte == open {
                depth += 1;
            } else if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
        Err(fault(format!("unbalanced `{}`", char::from(open))))
    }

    fn word(&mut self) -> Result<Item, Problem> {
        let pieces = self.pieces(false)?;
        if pieces.is_empty() {
            return Err(fault(format!("unbalanced `{}`", &self.text[self.at..])));
        }
        Ok(Item::Word(pieces))
    }

    fn pieces(&mut self, inside: bool) -> Result<Vec<Piece>, Problem> {
        let mut pieces = Vec::new();
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' if inside => return Err(fault("a blank inside a word")),
                b' ' | b']' => break,
                b'{' => {
                    let end = self.matching(b'{', b'}')?;
                    let inner = &self.text[self.at + 1..end];
                    if inner.contains('=') {
                        return Err(fault("a choice inside a word"));
                    }
                    let slot = slot(inner)?;
                    if slot.rest {
                        return Err(fault("`...` inside a word"));
                    }
                    pieces.push(Piece::Slot(slot));
                    self.at = end + 1;
                }
                b'[' => {
                    self.matching(b'[', b']')?;
                    self.at += 1;
                    let inner = self.pieces(true)?;
                    if inner.is_empty() || self.peek(0) != Some(b']') {
                        return Err(fault("unbalanced `[`"));
                    }
                    self.at += 1;
                    pieces.push(Piece::Optional(inner));
                }
                b'}' | b'|' => return Err(fault(format!("unbalanced `{}`", char::from(byte)))),
                _ => {
                    let start = self.at;
                    while self.peek(0).is_some_and(|b| !matches!(b, b' ' | b'{' | b'}' | b'[' | b']' | b'|')) {
                        self.at += 1;
                    }
                    pieces.push(Piece::Text(self.text[start..self.at].to_owned()));
                }
            }
        }
        Ok(pieces)
    }
}

fn name(text: &str) -> Result<Option<String>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Ok(Some(text.to_owned()));
    }
    Err(fault(format!("`{text}` is no field name")))
}

fn slot(inside: &str) -> Result<SlotRef, Problem> {
    let (text, unit) = match inside.split_once(':') {
        None => (inside, None),
        Some((text, unit)) => (text, Some(Unit::named(unit).ok_or_else(|| fault(format!("unknown unit `{unit}`")))?)),
    };
    let (text, rest) = match text.strip_suffix("...") {
        Some(text) => (text, true),
        None => (text, false),
    };
    Ok(SlotRef { name: name(text)?, rest, unit })
}

fn choice(inside: &str) -> Result<ChoiceRef, Problem> {
    let (field, texts) = inside.split_once('=').unwrap_or((inside, ""));
    let mut texts =
        texts.split('|').map(|text| -> Vec<String> { text.split_ascii_whitespace().map(str::to_owned).collect() });
    let yes = texts.next().unwrap_or_default();
    let no = texts.next();
    if texts.next().is_some() || yes.is_empty() || no.as_ref().is_some_and(Vec::is_empty) {
        return Err(fault("a choice has one or two texts"));
    }
    Ok(ChoiceRef { name: name(field)?, yes, no })
}

fn gather(inside: &str) -> Result<GatherRef, Problem> {
    let (field, texts) = inside.split_once('+').unwrap_or((inside, ""));
    let mut words = Vec::new();
    for text in texts.split('|') {
        let mut rest = text.split_ascii_whitespace();
        let keyword = rest.next().ok_or_else(|| fault("a listed word is empty"))?;
        if rest.clone().any(|word| word != "_") {
            return Err(fault("a listed word is followed by `_` only"));
        }
        words.push((keyword.to_owned(), rest.count()));
    }
    Ok(GatherRef { name: name(field)?, words })
}

/// Names of the fields that a tree mentions.
pub(super) fn names(tree: &Tree, into: &mut Vec<String>) {
    for sequence in tree {
        item_names(sequence, into);
    }
}

/// Names of the fields that items mention.
pub(super) fn item_names(items: &[Item], into: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Word(pieces) => piece_names(pieces, into),
            Item::Slot(slot) => into.extend(slot.name.clone()),
            Item::Choice(choice) => into.extend(choice.name.clone()),
            Item::Gather(gather) => into.extend(gather.name.clone()),
            Item::Group(tree) => names(tree, into),
            Item::Any(inner) => item_names(inner, into),
            Item::Star => {}
        }
    }
}

fn piece_names(pieces: &[Piece], into: &mut Vec<String>) {
    for piece in pieces {
        match piece {
            Piece::Text(_) => {}
            Piece::Slot(slot) => into.extend(slot.name.clone()),
            Piece::Optional(inner) => piece_names(inner, into),
        }
    }
}
