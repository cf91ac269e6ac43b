//! Who may see what of an object: REST /v2 knows only its own fields and values, an older HAProxy only its own keywords.

use crate::error::Violation;
use crate::schema::tables::{Field, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};

/// Which messages have anything that not everybody may see.
#[derive(Debug)]
pub struct Audience {
    hidden: Vec<bool>,
    versioned: Vec<bool>,
    earlier: Vec<bool>,
}

/// What is set in an object and /v2 does not know.
#[derive(Debug)]
pub struct Unseen<'o> {
    /// JSON path of the field.
    pub path: String,
    /// JSON path of the field that has the last of several, of which this one has those before it, or that cannot hold
    /// this value.
    pub last: Option<String>,
    /// Its value.
    pub value: &'o Value,
}

impl Audience {
    /// Made once from the schema.
    pub fn new(tables: &Tables) -> Audience {
        let value = |field: &Field, has: fn(&crate::schema::tables::EnumValue) -> bool| match field.kind {
            Kind::Enum(id) => tables.enums[id].values.iter().any(has),
            _ => false,
        };
        Audience {
            hidden: spread(tables, |field| field.grpc_only || value(field, |value| value.grpc_only)),
            earlier: spread(tables, |field| field.earlier_of.is_some() || field.instead_of.is_some()),
            versioned: spread(tables, |field| {
                field.since.is_some() || field.removed.is_some() || value(field, |value| value.since.is_some())
            }),
        }
    }

    /// True where /v2 may show the last of several parameters and not those before it, or nothing of a value.
    pub fn has_earlier(&self, message: MessageId) -> bool {
        self.earlier[message]
    }

    /// False for an object that /v2 cannot show at all: one of its own values is unknown there.
    pub fn is_shown(&self, tables: &Tables, message: MessageId, object: &Object) -> bool {
        !self.hidden[message]
            || object.iter().all(|(at, value)| {
                let field = &tables.messages[message].fields[at];
                match (field.kind, value) {
                    _ if field.grpc_only => true,
                    (Kind::Message(inner), Value::Object(object)) if field.flatten => {
                        self.is_shown(tables, inner, object)
                    }
                    _ => !is_hidden_value(tables, field, value),
                }
            })
    }

    /// Takes away what /v2 does not have, and puts what it calls differently where it looks for it.
    pub fn hide(&self, tables: &Tables, message: MessageId, object: &mut Object) {
        if !self.hidden[message] {
            return;
        }
        let set: Vec<usize> = object.iter().map(|(at, _)| at).collect();
        for at in set {
            let field = &tables.messages[message].fields[at];
            if field.grpc_only {
                if let (Some(value), Some(other)) = (object.take(at), field.shown_as) {
                    object.set(other, value);
                }
                continue;
            }
            let keep = match (field.kind, object.get_mut(at)) {
                // It is there, although perhaps nothing of it is shown.
                (Kind::Message(inner), Some(Value::Object(part))) => {
                    let shown = self.is_shown(tables, inner, part);
                    self.hide(tables, inner, part);
                    shown
                }
                (Kind::Message(inner), Some(Value::List(items))) => {
                    items.retain_mut(|item| match item {
                        Value::Object(part) => self.hide_part(tables, inner, part),
                        _ => true,
                    });
                    !items.is_empty()
                }
                (_, Some(value)) => !is_hidden_value(tables, field, value),
                (_, None) => true,
            };
            if !keep {
                object.take(at);
            }
        }
    }

    fn hide_part(&self, tables: &Tables, message: MessageId, part: &mut Object) -> bool {
        if !self.is_shown(tables, message, part) {
            return false;
        }
        let was_empty = part.is_empty();
        self.hide(tables, message, part);
        was_empty || !part.is_empty()
    }

    /// Gives `wanted`, which comes from /v2, what `old` has and /v2 cannot say. Items of lists are the same when /v2
    /// sees them so.
    pub fn keep(&self, tables: &Tables, message: MessageId, old: &Object, wanted: &mut Object) {
        if !self.hidden[message] {
            return;
        }
        for (at, value) in old.iter() {
            let field = &tables.messages[message].fields[at];
            let absent = wanted.get(at).is_none();
            if field.grpc_only {
                let replaced = field.instead_of.is_some_and(|other| wanted.get(other).is_some());
                if absent && field.shown_as.is_none() && !replaced {
                    wanted.set(at, value.clone());
                    keep_last(tables, message, at, wanted);
                }
                continue;
            }
            match (field.kind, value) {
                (Kind::Message(inner), Value::Object(part)) if self.hidden[inner] => {
                    if !absent {
                        self.keep(tables, inner, part, wanted.object_mut(at));
                    } else if let Some(rest) = self.unseen(tables, inner, part) {
                        wanted.set(at, Value::Object(rest));
                    }
                }
                (Kind::Message(inner), Value::List(items)) if self.hidden[inner] => {
                    let Some(Value::List(list)) = wanted.get_mut(at) else { continue };
                    for (item, new) in items.iter().zip(list) {
                        let (Value::Object(part), Value::Object(new)) = (item, new) else { continue };
                        let mut seen = part.clone();
                        self.hide(tables, inner, &mut seen);
                        seen.clear_residue();
                        if seen == *new {
                            self.keep(tables, inner, part, new);
                        }
                    }
                }
                _ if absent && is_hidden_value(tables, field, value) => wanted.set(at, value.clone()),
                _ => {}
            }
        }
    }

    /// An object of which /v2 sees nothing at all, so that its absence there says nothing.
    fn unseen(&self, tables: &Tables, message: MessageId, part: &Object) -> Option<Object> {
        let mut seen = part.clone();
        (!self.hide_part(tables, message, &mut seen) && !part.is_empty()).then(|| part.clone())
    }

    /// What is set in an object and /v2 does not know.
    pub fn unseen_fields<'o>(&self, tables: &Tables, message: MessageId, object: &'o Object) -> Vec<Unseen<'o>> {
        let mut found = Vec::new();
        self.find_unseen(tables, message, object, "", &mut found);
        found
    }

    fn find_unseen<'o>(
        &self,
        tables: &Tables,
        message: MessageId,
        object: &'o Object,
        prefix: &str,
        found: &mut Vec<Unseen<'o>>,
    ) {
        if !self.hidden[message] {
            return;
        }
        for (at, value) in object.iter() {
            let field = &tables.messages[message].fields[at];
            let path = if field.flatten { prefix.to_owned() } else { joined(prefix, &field.json) };
            match (field.kind, value) {
                _ if field.grpc_only && field.shown_as.is_some() => {}
                _ if field.grpc_only || is_hidden_value(tables, field, value) => {
                    let last = field
                        .earlier_of
                        .or(field.instead_of)
                        .map(|at| joined(prefix, &tables.messages[message].fields[at].json));
                    found.push(Unseen { path, last, value });
                }
                (Kind::Message(inner), Value::Object(part)) => self.find_unseen(tables, inner, part, &path, found),
                (Kind::Message(inner), Value::List(items)) => {
                    for (number, item) in items.iter().enumerate() {
                        if let Value::Object(part) = item {
                            self.find_unseen(tables, inner, part, &format!("{path}.{number}"), found);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// What is set in `object` and HAProxy of this version does not know yet, or no longer, as violations.
    pub fn unknown(&self, tables: &Tables, message: MessageId, object: &Object, version: (u16, u16)) -> Vec<Violation> {
        let mut found = Vec::new();
        self.find_unknown(tables, message, object, version, "", &mut found);
        found
    }

    fn find_unknown(
        &self,
        tables: &Tables,
        message: MessageId,
        object: &Object,
        version: (u16, u16),
        prefix: &str,
        found: &mut Vec<Violation>,
    ) {
        if !self.versioned[message] {
            return;
        }
        for (at, value) in object.iter() {
            let field = &tables.messages[message].fields[at];
            let path = if field.flatten { prefix.to_owned() } else { joined(prefix, &field.json) };
            let mut refuse = |what: String| {
                let message = format!("{what}, this is {}.{}", version.0, version.1);
                found.push(Violation { field: path.clone(), message, code: 0, location: "body" });
            };
            if let Some(since) = field.since.filter(|since| *since > version)
                && says_something(value)
            {
                refuse(format!("the keyword needs haproxy {}.{} or later", since.0, since.1));
                continue;
            }
            if let Some(removed) = field.removed.filter(|removed| *removed <= version)
                && says_something(value)
            {
                let last = before(removed);
                refuse(format!(
                    "the keyword is gone from haproxy {}.{} on, the last that has it is {}.{}",
                    removed.0, removed.1, last.0, last.1
                ));
                continue;
            }
            match (field.kind, value) {
                (Kind::Enum(id), Value::Enum(number)) => {
                    if let Some(value) = tables.enums[id].value(*number)
                        && let Some(since) = value.since.filter(|since| *since > version)
                    {
                        refuse(format!("`{}` needs haproxy {}.{} or later", value.token, since.0, since.1));
                    }
                }
                (Kind::Message(inner), Value::Object(part)) => {
                    self.find_unknown(tables, inner, part, version, &path, found);
                }
                (Kind::Message(inner), Value::List(items)) => {
                    for (number, item) in items.iter().enumerate() {
                        if let Value::Object(part) = item {
                            let path = format!("{path}.{number}");
                            self.find_unknown(tables, inner, part, version, &path, found);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// The version of HAProxy before another one: 2.9 came before 3.0.
fn before((major, minor): (u16, u16)) -> (u16, u16) {
    if minor == 0 { (major.saturating_sub(1), 9) } else { (major, minor - 1) }
}

/// Of several parameters the last one stands in a field of its own: where that one goes, the one before it is the last,
/// if the field can hold it; else they all go.
fn keep_last(tables: &Tables, message: MessageId, at: usize, wanted: &mut Object) {
    let fields = &tables.messages[message].fields;
    let says_nothing = |value: Option<&Value>| matches!(value, None | Some(Value::Bool(false)));
    let Some(last) = fields[at].earlier_of.filter(|last| says_nothing(wanted.get(*last))) else { return };
    let Some(Value::List(mut items)) = wanted.take(at) else { return };
    let item = match (items.pop(), fields[at].kind) {
        (item, kind) if kind == fields[last].kind => item,
        // A message that holds nothing but the value.
        (Some(Value::Object(mut item)), Kind::Message(inner))
            if tables.messages[inner].fields.len() == 1
                && tables.messages[inner].fields[0].kind == fields[last].kind =>
        {
            item.take(0)
        }
        _ => return,
    };
    if let Some(item) = item {
        wanted.set(last, item);
        if !items.is_empty() {
            wanted.set(at, Value::List(items));
        }
    }
}

/// Gives `wanted`, which comes from /v2, the zeros of `old` that /v2 does not show: where it is silent, they stay.
pub(super) fn keep_zeros(tables: &Tables, message: MessageId, old: &Object, wanted: &mut Object) {
    for (at, value) in old.iter() {
        let field = &tables.messages[message].fields[at];
        let zero = matches!(value, Value::Int(0) | Value::Bool(false));
        match (field.kind, value, wanted.get_mut(at)) {
            (Kind::Message(inner), Value::Object(old), Some(Value::Object(wanted))) => {
                keep_zeros(tables, inner, old, wanted);
            }
            (Kind::Message(inner), Value::List(olds), Some(Value::List(wanteds))) if olds.len() == wanteds.len() => {
                for (old, wanted) in olds.iter().zip(wanteds) {
                    if let (Value::Object(old), Value::Object(wanted)) = (old, wanted) {
                        keep_zeros(tables, inner, old, wanted);
                    }
                }
            }
            (Kind::Message(inner), Value::Object(old), None) => {
                let mut kept = Object::new();
                keep_zeros(tables, inner, old, &mut kept);
                if kept == *old && !kept.is_empty() {
                    wanted.set(at, Value::Object(kept));
                }
            }
            (_, _, None) if zero && !field.check.nullable => wanted.set(at, value.clone()),
            _ => {}
        }
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// A flag that is off and an empty message write nothing.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

fn is_hidden_value(tables: &Tables, field: &Field, value: &Value) -> bool {
    match (field.kind, value) {
        (Kind::Enum(id), Value::Enum(number)) => tables.enums[id].value(*number).is_some_and(|value| value.grpc_only),
        _ => false,
    }
}

/// Messages that have such a field, or a message inside that has.
fn spread(tables: &Tables, has: impl Fn(&Field) -> bool) -> Vec<bool> {
    let mut marked: Vec<bool> = tables.messages.iter().map(|message| message.fields.iter().any(&has)).collect();
    loop {
        let more: Vec<usize> = (0..marked.len())
            .filter(|id| !marked[*id])
            .filter(|id| {
                tables.messages[*id].fields.iter().any(|field| match field.kind {
                    Kind::Message(inner) => marked[inner],
                    _ => false,
                })
            })
            .collect();
        if more.is_empty() {
            return marked;
        }
        for id in more {
            marked[id] = true;
        }
    }
}

#[cfg(test)]
#[path = "audience_tests.rs"]
mod tests;
