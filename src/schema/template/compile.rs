//! Trees to programs: names become fields, slots become readers of their kind.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::node::{
    Alternative, Any, AnyItem, Choice, Empty, Gather, Group, Index, Leaf, Message, Node, Number, Param, Part,
    PrintOnly, Rest, Slot, Star, Stop, Target, Tokens, ValueLine, Values,
};
use super::notation::{self, ChoiceRef, GatherRef, Item, Piece, SlotRef, Tree, Unit};
use crate::schema::tables::{EnumId, Field, FieldIndex, Kind, MessageId, Tables};

/// A broken rule on its way up to the message that is compiled.
#[derive(Debug)]
pub(super) struct Broken {
    pub rule: &'static str,
    pub text: String,
    /// Message, element and template, set where they are known best.
    pub place: Option<(MessageId, String, String)>,
}

impl Broken {
    pub(super) fn new(rule: &'static str, text: impl Into<String>) -> Self {
        Broken { rule, text: text.into(), place: None }
    }

    pub(super) fn at(mut self, message: MessageId, element: &str, template: &str) -> Self {
        self.place.get_or_insert_with(|| (message, element.to_owned(), template.to_owned()));
        self
    }
}

impl From<notation::Problem> for Broken {
    fn from((rule, text): notation::Problem) -> Self {
        Broken::new(rule, text)
    }
}

type Made<T> = Result<T, Broken>;

/// Where a template stands.
#[derive(Clone)]
pub(super) struct Context {
    pub message: MessageId,
    /// The field that carries the template.
    pub own: Option<FieldIndex>,
    /// Enums and messages that are being compiled, to find templates that contain themselves.
    within: Vec<(MessageId, Option<FieldIndex>)>,
}

impl Context {
    pub(super) fn new(message: MessageId, own: Option<FieldIndex>) -> Self {
        Context { message, own, within: Vec::new() }
    }

    fn enter(
        &self,
        message: MessageId,
        own: Option<FieldIndex>,
        mark: (MessageId, Option<FieldIndex>),
    ) -> Made<Context> {
        if self.within.contains(&mark) {
            return Err(Broken::new("A12", "a template that contains itself"));
        }
        let mut within = self.within.clone();
        within.push(mark);
        Ok(Context { message, own, within })
    }
}

/// Makes programs.
pub(super) struct Compiler<'t> {
    pub tables: &'t Tables,
    print_only: PrintOnly,
    named: HashMap<MessageId, BTreeSet<FieldIndex>>,
}

impl<'t> Compiler<'t> {
    pub(super) fn new(tables: &'t Tables) -> Self {
        Compiler { tables, print_only: 0, named: HashMap::new() }
    }

    /// A fresh number for a print-only element.
    pub(super) fn print_only(&mut self, wanted: bool) -> Option<PrintOnly> {
        wanted.then(|| {
            self.print_only += 1;
            self.print_only
        })
    }

    /// The template of a field: its own, or the default of its kind.
    pub(super) fn field_template(&self, message: MessageId, at: FieldIndex) -> String {
        let field = &self.tables.messages[message].fields[at];
        if let Some(template) = &field.template {
            return template.to_string();
        }
        let keyword = field.json.replace('_', "-");
        match field.kind {
            Kind::Bool => format!("{{={keyword}}}"),
            Kind::Enum(id) if self.tables.enums[id].toggle => match &self.tables.messages[message].toggle {
                Some(toggle) => toggle.replace('@', &keyword),
                None => format!("{{={keyword}|no-{keyword}}}"),
            },
            Kind::Message(_) => "{}".to_owned(),
            _ => format!("{keyword} {{}}"),
        }
    }

    /// Fields that stand in the line of the message, in an enum value of it, or in the template of another field.
    pub(super) fn named(&mut self, message: MessageId) -> Made<BTreeSet<FieldIndex>> {
        if let Some(set) = self.named.get(&message) {
            return Ok(set.clone());
        }
        let table = &self.tables.messages[message];
        let mut names = Vec::new();
        if let Some(line) = &table.line {
            notation::names(&notation::parse(line).map_err(|p| Broken::from(p).at(message, "", line))?, &mut names);
        }
        for field in &table.fields {
            if let Kind::Enum(id) = field.kind {
                for value in &self.tables.enums[id].values {
                    let Some(line) = &value.line else { continue };
                    let element = format!("{}={}", field.json, value.token);
                    notation::names(
                        &notation::parse(line).map_err(|p| Broken::from(p).at(message, &element, line))?,
                        &mut names,
                    );
                }
            }
            if let Some(template) = &field.template {
                let mut others = Vec::new();
                notation::names(
                    &notation::parse(template).map_err(|p| Broken::from(p).at(message, &field.json, template))?,
                    &mut others,
                );
                names.extend(others.into_iter().filter(|name| **name != *field.json));
            }
        }
        let set: BTreeSet<FieldIndex> =
            names.iter().filter_map(|name| table.by_json.get(name.as_str()).copied()).collect();
        self.named.insert(message, set.clone());
        Ok(set)
    }

    /// The program of the line of a message.
    pub(super) fn line(&mut self, context: &Context) -> Made<Vec<Node>> {
        let table = &self.tables.messages[context.message];
        match &table.line {
            Some(line) => self.text(line, context).map_err(|broken| broken.at(context.message, "", line)),
            None => self.params_in_any_order(context),
        }
    }

    /// The program of a template.
    pub(super) fn text(&mut self, template: &str, context: &Context) -> Made<Vec<Node>> {
        let tree = notation::parse(template)?;
        self.tree(&tree, context)
    }

    fn params_in_any_order(&mut self, context: &Context) -> Made<Vec<Node>> {
        let mut items = Vec::new();
        for param in self.params(context, &BTreeSet::new())? {
            if param.via.is_some() || param.print_only.is_some() {
                return Err(Broken::new("A12", "a message inside a line has no flattened or print-only field"));
            }
            items.push(AnyItem { nodes: param.nodes, many: param.many });
        }
        any(items).map(|node| vec![node])
    }

    fn tree(&mut self, tree: &Tree, context: &Context) -> Made<Vec<Node>> {
        match &tree[..] {
            [only] => self.items(only, context),
            _ => Ok(vec![self.group(tree, true, context)?]),
        }
    }

    fn group(&mut self, tree: &Tree, required: bool, context: &Context) -> Made<Node> {
        let fields = &self.tables.messages[context.message].fields;
        let mut alternatives = Vec::new();
        for items in tree {
            let nodes = self.items(items, context)?;
            let mut names = Vec::new();
            notation::item_names(items, &mut names);
            let has = |field: &Field| names.iter().any(|name| **name == *field.json);
            // What /v2 calls differently is another spelling of what our own fields say.
            let other_name = |at: usize| fields.iter().any(|field| field.shown_as == Some(at));
            let print_only = tree.len() > 1
                && fields.iter().enumerate().any(|(at, field)| (field.print_only || other_name(at)) && has(field));
            alternatives.push(Alternative { nodes, print_only: self.print_only(print_only) });
        }
        Ok(Node::Group(Group { alternatives: alternatives.into(), required, guard: Arc::new(Stop::default()) }))
    }

    fn items(&mut self, items: &[Item], context: &Context) -> Made<Vec<Node>> {
        let mut nodes = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            nodes.push(match item {
                Item::Word(pieces) => match &pieces[..] {
                    [Piece::Text(text)] => Node::Literal(text.as_str().into()),
                    _ => Node::Word(self.parts(pieces, context)?),
                },
                Item::Slot(slot) => self.slot(slot, context)?,
                Item::Choice(choice) => self.choice(choice, context)?,
                Item::Gather(gather) => self.gather(gather, context)?,
                Item::Group(tree) => self.group(tree, false, context)?,
                Item::Any(inner) => self.any_order(inner, context)?,
                Item::Star if at + 1 < items.len() => return Err(Broken::new("A12", "`*` is not last")),
                Item::Star => self.star(context)?,
            });
        }
        Ok(nodes)
    }

    fn any_order(&mut self, inner: &[Item], context: &Context) -> Made<Node> {
        let mut items = Vec::new();
        for item in inner {
            let mut nodes = match item {
                Item::Group(tree) => self.tree(tree, context)?,
                Item::Star => return Err(Broken::new("A12", "`*` is not last")),
                item => self.items(std::slice::from_ref(item), context)?,
            };
            let mut many = repeats(&nodes);
            for node in &mut nodes {
                if let Node::Message(message) = node {
                    many |= message.many;
                    message.many = false;
                }
            }
            items.push(AnyItem { nodes, many });
        }
        any(items)
    }

    fn find(&self, name: Option<&str>, context: &Context) -> Made<FieldIndex> {
        let table = &self.tables.messages[context.message];
        match name {
            Some(name) => {
                table.by_json.get(name).copied().ok_or_else(|| Broken::new("A12", format!("unknown field `{name}`")))
            }
            None => context
                .own
                .ok_or_else(|| Broken::new("A12", "a slot without a name where no field carries the template")),
        }
    }

    fn target(at: FieldIndex, push: bool, context: &Context) -> Target {
        Target { field: at as u16, push, own: context.own == Some(at) }
    }

    fn slot(&mut self, slot: &SlotRef, context: &Context) -> Made<Node> {
        let at = self.find(slot.name.as_deref(), context)?;
        let field = &self.tables.messages[context.message].fields[at];
        let own = context.own == Some(at);
        if let Kind::Message(id) = field.kind {
            if slot.rest || slot.unit.is_some() {
                return Err(Broken::new(
                    "A12",
                    format!("`{}` is a message and takes neither `...` nor a unit", field.json),
                ));
            }
            let inner = context.enter(id, None, (id, None))?;
            let nodes = self.line(&inner)?;
            let many = field.repeated && !own;
            return Ok(Node::Message(Message { target: Self::target(at, field.repeated, context), many, nodes }));
        }
        if let Kind::Enum(id) = field.kind {
            let templates = self.tables.enums[id].values.iter().any(|value| value.line.is_some());
            if templates && !slot.rest && slot.unit.is_none() && !self.tables.enums[id].toggle {
                if field.repeated && !own {
                    return Err(Broken::new("A12", format!("`{}` is a list of values with templates", field.json)));
                }
                return self.values(at, id, field.repeated, context);
            }
        }
        let unit = slot.unit;
        let leaf = self.leaf(field, if unit == Some(Unit::Csv) { None } else { unit })?;
        if slot.rest {
            if unit.is_some() || (!field.repeated && !matches!(leaf, Leaf::Text { .. })) {
                return Err(Broken::new("A12", format!("`{}...` must be a string or a list", field.json)));
            }
            let target = Self::target(at, false, context);
            return Ok(Node::Rest(Rest {
                target,
                item: field.repeated.then_some(leaf),
                strict: field.word,
                stop: Arc::new(Stop::default()),
            }));
        }
        if unit == Some(Unit::Csv) {
            if field.repeated {
                return Ok(Node::List(Slot { target: Self::target(at, false, context), leaf, implicit: false }));
            }
            if !matches!(leaf, Leaf::Text { .. }) {
                return Err(Broken::new("A12", format!("`{}:csv` must be a string or a list", field.json)));
            }
            return Ok(Node::Slot(Slot {
                target: Self::target(at, false, context),
                leaf: Leaf::Joined { strict: field.word },
                implicit: false,
            }));
        }
        if field.repeated && !own {
            return Err(Broken::new("A12", format!("the list `{}` needs `...` or `:csv`", field.json)));
        }
        Ok(Node::Slot(Slot { target: Self::target(at, field.repeated, context), leaf, implicit: field.implicit }))
    }

    fn leaf(&mut self, field: &Field, unit: Option<Unit>) -> Made<Leaf> {
        let wrong = |what: &str| Err(Broken::new("A12", format!("`{}` {what}", field.json)));
        match (field.kind, unit) {
            (Kind::String, None) => {
                // A pattern of letters may let quotes through that a variable needs.
                let of_letters = field.check.pattern.as_ref().is_some_and(|pattern| !pattern.is_match("\"a/\""));
                let strict = field.word || of_letters || is_name(self.tables, field);
                Ok(Leaf::Text { strict, bare: field.word })
            }
            (Kind::String, Some(Unit::Variable)) => Ok(Leaf::Variable),
            (Kind::String, Some(unit @ (Unit::Address | Unit::Listen))) => {
                Ok(Leaf::Address { listen: unit == Unit::Listen })
            }
            (
                Kind::Int32 | Kind::Int64,
                None | Some(Unit::Milliseconds | Unit::Seconds | Unit::MillisecondsOfSeconds | Unit::Size),
            ) => Ok(Leaf::Number(Number {
                narrow: field.kind == Kind::Int32,
                min: field.check.min,
                unit,
                listed: field.numbers.clone().into(),
            })),
            (Kind::Enum(id), None) if !self.tables.enums[id].toggle => {
                self.tokens(id).map(|tokens| Leaf::Token(Arc::new(tokens)))
            }
            (Kind::Enum(id), None) if self.tables.enums[id].toggle => {
                wrong("is on or off and has no text but in a choice")
            }
            (Kind::Bool, _) => wrong("is a flag and has no text but in a choice"),
            (Kind::Message(_), _) => wrong("is a message and cannot stand inside a word"),
            (Kind::Double | Kind::Bytes, _) => wrong("has a type that no line can hold"),
            _ => wrong("cannot have this unit"),
        }
    }

    fn tokens(&mut self, id: EnumId) -> Made<Tokens> {
        let mut tokens = Tokens::default();
        for value in &self.tables.enums[id].values {
            let text = value.line.as_ref().unwrap_or(&value.token);
            if text.contains([' ', '{', '[', '|']) {
                return Err(Broken::new(
                    "A12",
                    format!("the value `{}` has a template and cannot stand here", value.token),
                ));
            }
            let print_only = self.print_only(value.print_only);
            let entry = (value.number, print_only);
            match tokens.by_word.get(text) {
                Some((_, None)) if print_only.is_none() => {
                    return Err(Broken::new("A9", format!("two values read `{text}`")));
                }
                Some((_, None)) => {}
                _ => {
                    tokens.by_word.insert(text.clone(), entry);
                }
            }
            tokens.by_number.insert(value.number, (text.clone(), print_only));
        }
        Ok(tokens)
    }

    fn values(&mut self, at: FieldIndex, id: EnumId, push: bool, context: &Context) -> Made<Node> {
        let inner = context.enter(context.message, None, (context.message, Some(at)))?;
        let field = self.tables.messages[context.message].fields[at].json.clone();
        let mut values = Vec::new();
        for value in &self.tables.enums[id].values {
            let nodes = match &value.line {
                None => vec![Node::Literal(value.token.clone())],
                Some(line) => self
                    .text(line, &inner)
                    .map_err(|broken| broken.at(context.message, &format!("{field}={}", value.token), line))?,
            };
            let print_only = self.print_only(value.print_only);
            values.push(ValueLine { number: value.number, token: value.token.clone(), nodes, print_only });
        }
        Ok(Node::Values(Values {
            target: Self::target(at, push, context),
            lines: values.into(),
            index: Index::default(),
        }))
    }

    fn choice(&mut self, choice: &ChoiceRef, context: &Context) -> Made<Node> {
        let at = self.find(choice.name.as_deref(), context)?;
        let field = &self.tables.messages[context.message].fields[at];
        let toggle = match field.kind {
            Kind::Bool => None,
            Kind::Enum(id) if self.tables.enums[id].toggle => {
                let number = |token| self.tables.enums[id].number(token);
                let (Some(yes), Some(no)) = (number("enabled"), number("disabled")) else {
                    return Err(Broken::new("A12", "an on/off enum has the values `enabled` and `disabled`"));
                };
                Some((yes, no))
            }
            _ => {
                return Err(Broken::new(
                    "A12",
                    format!("a choice of texts, but `{}` is neither a flag nor on or off", field.json),
                ));
            }
        };
        if field.repeated {
            return Err(Broken::new("A12", format!("`{}` is a list of flags", field.json)));
        }
        let words = |list: &[String]| list.iter().map(|word| word.as_str().into()).collect();
        Ok(Node::Choice(Choice {
            target: Self::target(at, false, context),
            toggle,
            yes: words(&choice.yes),
            no: choice.no.as_deref().map(words),
        }))
    }

    fn gather(&self, gather: &GatherRef, context: &Context) -> Made<Node> {
        let at = self.find(gather.name.as_deref(), context)?;
        let field = &self.tables.messages[context.message].fields[at];
        if field.kind != Kind::String || field.repeated {
            return Err(Broken::new("A12", format!("listed words make a string, which `{}` is not", field.json)));
        }
        let words = gather.words.iter().map(|(word, more)| (word.as_str().into(), *more)).collect();
        Ok(Node::Gather(Gather { target: Self::target(at, false, context), words }))
    }

    fn parts(&mut self, pieces: &[Piece], context: &Context) -> Made<Box<[Part]>> {
        let mut parts = Vec::new();
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(text.as_str().into()),
                Piece::Optional(inner) => Part::Optional(self.parts(inner, context)?),
                Piece::Slot(slot) => {
                    let at = self.find(slot.name.as_deref(), context)?;
                    let field = &self.tables.messages[context.message].fields[at];
                    if field.repeated {
                        return Err(Broken::new(
                            "A12",
                            format!("the list `{}` cannot stand inside a word", field.json),
                        ));
                    }
                    let leaf = self.leaf(field, slot.unit)?;
                    let slot = Slot { target: Self::target(at, false, context), leaf, implicit: field.implicit };
                    Part::Slot { slot, stops: Box::default() }
                }
            });
        }
        Ok(parts.into())
    }

    fn star(&mut self, context: &Context) -> Made<Node> {
        let named = self.named(context.message)?;
        let params = self.params(context, &named)?;
        Ok(Node::Star(Box::new(Star { params: params.into(), index: Index::default() })))
    }

    fn params(&mut self, context: &Context, skip: &BTreeSet<FieldIndex>) -> Made<Vec<Param>> {
        let tables = self.tables;
        let mut params = Vec::new();
        for (at, field) in tables.messages[context.message].fields.iter().enumerate() {
            if field.no_line || skip.contains(&at) {
                continue;
            }
            match field.kind {
                Kind::Message(inner) if field.flatten => {
                    let named = self.named(inner)?;
                    for (nested, inner_field) in tables.messages[inner].fields.iter().enumerate() {
                        if inner_field.flatten {
                            return Err(Broken::new("A12", "a flattened message inside a flattened message"));
                        }
                        let elsewhere = inner_field.template.is_none() && named.contains(&nested);
                        if !inner_field.no_line && !elsewhere {
                            params.push(self.param(inner, nested, Some(at as u16), context)?);
                        }
                    }
                }
                _ => params.push(self.param(context.message, at, None, context)?),
            }
        }
        // What stands before the last occurrence is written before it.
        for last in (0..params.len()).rev() {
            let (via, list) = (params[last].via, params[last].earlier);
            let Some(list) = list else { continue };
            if let Some(at) = params.iter().position(|param| param.via == via && param.target.field == list) {
                let earlier = params.remove(at);
                params.insert(if at < last { last - 1 } else { last }, earlier);
            }
        }
        Ok(params)
    }

    fn param(&mut self, message: MessageId, at: FieldIndex, via: Option<u16>, context: &Context) -> Made<Param> {
        let field = &self.tables.messages[message].fields[at];
        let template = self.field_template(message, at);
        let inner = Context { message, own: Some(at), within: context.within.clone() };
        let nodes = self.text(&template, &inner).map_err(|broken| broken.at(message, &field.json, &template))?;
        let empty = self.empty(message, at, &nodes).map_err(|broken| broken.at(message, &field.json, &template))?;
        Ok(Param {
            via,
            target: Self::target(at, field.repeated, &inner),
            many: field.repeated || repeats(&nodes),
            earlier: self.earlier(message, at),
            print_only: self.print_only(field.print_only || field.earlier_of.is_some()),
            nodes,
            empty,
        })
    }

    /// The list of the occurrences of a field's parameter before the last one.
    fn earlier(&self, message: MessageId, at: FieldIndex) -> Option<u16> {
        let fields = &self.tables.messages[message].fields;
        fields.iter().position(|field| field.earlier_of == Some(at)).map(|list| list as u16)
    }

    /// What the template says when the slot of its own field is left out.
    pub(super) fn empty(&self, message: MessageId, at: FieldIndex, nodes: &[Node]) -> Made<Empty> {
        if !own_slot_is_optional(nodes, false) {
            return Ok(Empty::Never);
        }
        match self.tables.messages[message].fields[at].kind {
            Kind::String => Ok(Empty::Text),
            Kind::Enum(_) => Ok(Empty::Enum),
            Kind::Message(_) => Ok(Empty::Never),
            _ => Err(Broken::new("A12", "only a string or an enum may leave out its own slot")),
        }
    }
}

fn any(items: Vec<AnyItem>) -> Made<Node> {
    if items.len() > 128 {
        return Err(Broken::new("A12", "more than 128 items in any order"));
    }
    Ok(Node::Any(Any { items: items.into(), index: Index::default() }))
}

/// True when an item adds to its field each time it occurs.
fn repeats(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match node {
        Node::List(_) | Node::Gather(_) => true,
        Node::Slot(slot) => slot.target.push || matches!(slot.leaf, Leaf::Joined { .. }),
        Node::Values(values) => values.target.push,
        Node::Message(message) => message.target.push,
        Node::Rest(rest) => rest.item.is_some(),
        _ => false,
    })
}

fn own_slot_is_optional(nodes: &[Node], optional: bool) -> bool {
    let part = |parts: &[Part]| parts.iter().any(|part| matches!(part, Part::Optional(inner) if part_has_own(inner)));
    nodes.iter().any(|node| match node {
        Node::Slot(slot) | Node::List(slot) => optional && slot.target.own,
        Node::Rest(rest) => optional && rest.target.own,
        Node::Gather(gather) => optional && gather.target.own,
        Node::Values(values) => optional && values.target.own,
        Node::Word(parts) => part(parts) || (optional && part_has_own(parts)),
        Node::Group(group) => group
            .alternatives
            .iter()
            .any(|alternative| own_slot_is_optional(&alternative.nodes, optional || !group.required)),
        Node::Any(any) => any.items.iter().any(|item| own_slot_is_optional(&item.nodes, true)),
        Node::Choice(_) | Node::Literal(_) | Node::Message(_) | Node::Star(_) => false,
    })
}

fn part_has_own(parts: &[Part]) -> bool {
    parts.iter().any(|part| match part {
        Part::Text(_) => false,
        Part::Slot { slot, .. } => slot.target.own,
        Part::Optional(inner) => part_has_own(inner),
    })
}

/// True for the field that names a resource.
fn is_name(tables: &Tables, field: &Field) -> bool {
    tables.messages.iter().any(|message| {
        let mut message = message;
        let mut last = None;
        let resource = message.resource.as_ref().filter(|resource| !resource.singleton);
        for at in resource.iter().flat_map(|resource| &resource.identity) {
            last = message.fields.get(*at);
            if let Some(Kind::Message(inner)) = last.map(|field| field.kind) {
                message = &tables.messages[inner];
            }
        }
        last.is_some_and(|last| std::ptr::eq(last, field))
    })
}
