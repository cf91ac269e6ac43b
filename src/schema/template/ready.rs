//! What of an object is set, and so which optional places are printed.

use super::node::{Choice, Node, Param, Part, Target};
use crate::schema::value::{Object, Value};

/// The message at hand.
#[derive(Clone, Copy)]
pub(super) struct Here<'o> {
    pub object: &'o Object,
    /// The item of the list that carries the template.
    pub item: Option<(usize, &'o Value)>,
}

impl<'o> Here<'o> {
    pub(super) fn get(&self, target: Target) -> Option<&'o Value> {
        match self.item {
            Some((_, item)) if target.own => Some(item),
            _ => self.object.get(target.field as usize),
        }
    }

    /// True when a value is set that can fill a slot.
    pub(super) fn has(&self, target: Target) -> bool {
        match self.get(target) {
            None | Some(Value::Enum(0)) => false,
            // Present and empty prints the keyword without its value.
            Some(Value::Str(text)) => !target.own || !text.is_empty(),
            Some(Value::Object(inner)) => !is_blank(inner),
            Some(_) => true,
        }
    }
}

/// True when nothing is set in an object or in the objects inside it.
pub(super) fn is_blank(object: &Object) -> bool {
    object.residue().is_empty()
        && object.iter().all(|(_, value)| matches!(value, Value::Object(inner) if is_blank(inner)))
}

/// The flag that a value stands for.
pub(super) fn flag(choice: &Choice, value: &Value) -> Option<bool> {
    match (choice.toggle, value) {
        (None, Value::Bool(flag)) => Some(*flag),
        (Some((yes, _)), Value::Enum(number)) if *number == yes => Some(true),
        (Some((_, no)), Value::Enum(number)) if *number == no => Some(false),
        _ => None,
    }
}

/// True when an optional part has all it needs.
pub(super) fn ready(nodes: &[Node], here: Here<'_>) -> bool {
    let mut needed = nodes.iter().filter(|node| needs(node)).peekable();
    if needed.peek().is_some() {
        return needed.all(|node| filled(node, here));
    }
    nodes.iter().any(|node| filled(node, here))
}

/// True for nodes that print nothing useful without a value.
fn needs(node: &Node) -> bool {
    match node {
        Node::Literal(_) | Node::Any(_) | Node::Star(_) => false,
        Node::Word(parts) => parts.iter().any(|part| matches!(part, Part::Slot { .. })),
        Node::Group(group) => group.required,
        _ => true,
    }
}

fn filled(node: &Node, here: Here<'_>) -> bool {
    match node {
        Node::Literal(_) => false,
        Node::Word(parts) => parts_ready(parts, here),
        Node::Slot(slot) | Node::List(slot) => here.has(slot.target),
        Node::Rest(rest) => here.has(rest.target),
        Node::Gather(gather) => here.has(gather.target),
        Node::Choice(choice) => here
            .get(choice.target)
            .is_some_and(|value| flag(choice, value).is_none_or(|flag| flag || choice.no.is_some())),
        Node::Values(values) => here.has(values.target),
        Node::Message(message) => here.has(message.target),
        Node::Group(group) => group.alternatives.iter().any(|alternative| ready(&alternative.nodes, here)),
        Node::Any(any) => any.items.iter().any(|item| ready(&item.nodes, here)),
        Node::Star(star) => {
            !here.object.residue().is_empty() || star.params.iter().any(|param| param_value(param, here).is_some())
        }
    }
}

/// The same for a part of a word.
pub(super) fn parts_ready(parts: &[Part], here: Here<'_>) -> bool {
    let mut slots =
        parts.iter().filter_map(|part| if let Part::Slot { slot, .. } = part { Some(slot) } else { None }).peekable();
    if slots.peek().is_some() {
        return slots.all(|slot| here.has(slot.target));
    }
    parts.iter().any(|part| matches!(part, Part::Optional(inner) if parts_ready(inner, here)))
}

/// How many values of an alternative are set.
pub(super) fn count(nodes: &[Node], here: Here<'_>) -> usize {
    nodes.iter().filter(|node| filled(node, here)).count()
}

/// The first value of a word.
pub(super) fn first_target(parts: &[Part]) -> Option<Target> {
    parts.iter().find_map(|part| match part {
        Part::Text(_) => None,
        Part::Slot { slot, .. } => Some(slot.target),
        Part::Optional(inner) => first_target(inner),
    })
}

/// The value of a parameter of a `*` group.
pub(super) fn param_value<'o>(param: &Param, here: Here<'o>) -> Option<&'o Value> {
    let object = match param.via {
        None => here.object,
        Some(via) => here.object.object(via as usize)?,
    };
    object.get(param.target.field as usize)
}
