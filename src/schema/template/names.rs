//! Names of fields for messages to people, and what of an object was left unused.

use crate::schema::tables::{FieldIndex, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};

use super::ready::is_blank;

/// One step of a path into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Position of the field in its message.
    pub field: FieldIndex,
    /// Position in the list, when the field is one.
    pub item: Option<usize>,
}

#[derive(Debug)]
struct Name {
    json: Box<str>,
    inner: Option<MessageId>,
    flatten: bool,
    /// Says where the line stands instead of what it says.
    is_position: bool,
}

/// Names of the fields of all messages.
#[derive(Debug)]
pub(super) struct Names(Vec<Vec<Name>>);

impl Names {
    pub(super) fn new(tables: &Tables) -> Self {
        let name = |field: &crate::schema::tables::Field| Name {
            json: field.json.clone(),
            inner: if let Kind::Message(id) = field.kind { Some(id) } else { None },
            flatten: field.flatten,
            is_position: field.no_line && &*field.name == "index",
        };
        Names(tables.messages.iter().map(|message| message.fields.iter().map(name).collect()).collect())
    }

    /// JSON path of `steps` from a message on.
    pub(super) fn path(&self, mut message: MessageId, steps: &[Step]) -> String {
        let mut out = String::new();
        for step in steps {
            let Some(name) = self.0.get(message).and_then(|fields| fields.get(step.field)) else { break };
            if !name.flatten {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&name.json);
                if let Some(item) = step.item {
                    out.push('[');
                    out.push_str(&item.to_string());
                    out.push(']');
                }
            }
            match name.inner {
                Some(inner) => message = inner,
                None => break,
            }
        }
        out
    }

    /// Paths of values that are set in `object` and not in `consumed`. Positions and the fields in `skip` do not count.
    pub(super) fn unused(
        &self,
        message: MessageId,
        object: &Object,
        consumed: &Object,
        skip: &[FieldIndex],
    ) -> Vec<String> {
        let mut found = Vec::new();
        self.walk(message, object, consumed, &mut Vec::new(), &mut |steps| {
            if !skip.contains(&steps[0].field) {
                found.push(self.path(message, steps));
            }
        });
        found
    }

    fn walk(
        &self,
        message: MessageId,
        object: &Object,
        consumed: &Object,
        steps: &mut Vec<Step>,
        found: &mut dyn FnMut(&[Step]),
    ) {
        for (field, value) in object.iter() {
            let Some(name) = self.0.get(message).and_then(|fields| fields.get(field)) else { continue };
            if name.is_position {
                continue;
            }
            steps.push(Step { field, item: None });
            match (value, consumed.get(field), name.inner) {
                (Value::Object(object), _, _) if is_blank(object) => {}
                (Value::Object(object), Some(Value::Object(consumed)), Some(inner)) => {
                    self.walk(inner, object, consumed, steps, found);
                }
                (Value::List(items), Some(Value::List(used)), Some(inner)) if items.len() == used.len() => {
                    for (at, pair) in items.iter().zip(used).enumerate() {
                        if let (Value::Object(object), Value::Object(consumed)) = pair {
                            let last = steps.len() - 1;
                            steps[last].item = Some(at);
                            self.walk(inner, object, consumed, steps, found);
                        }
                    }
                }
                (_, Some(_), _) => {}
                (_, None, _) => found(steps),
            }
            steps.pop();
        }
    }
}

/// The first place where two objects differ.
pub(super) fn difference(one: &Object, two: &Object, steps: &mut Vec<Step>) {
    let fields = one.iter().chain(two.iter()).map(|(field, _)| field);
    let Some(field) = fields.into_iter().find(|field| one.get(*field) != two.get(*field)) else { return };
    steps.push(Step { field, item: None });
    let last = steps.len() - 1;
    match (one.get(field), two.get(field)) {
        (Some(Value::Object(one)), Some(Value::Object(two))) => difference(one, two, steps),
        (Some(Value::List(one)), Some(Value::List(two))) => {
            let at = one.iter().zip(two).position(|(one, two)| one != two).unwrap_or(one.len().min(two.len()));
            steps[last].item = Some(at.min(one.len().saturating_sub(1)));
            if let (Some(Value::Object(one)), Some(Value::Object(two))) = (one.get(at), two.get(at)) {
                difference(one, two, steps);
            }
        }
        _ => {}
    }
}
