//! Field masks: paths by proto name or JSON key, through flattened parameters too.

use super::tables::{Field, FieldIndex, Kind, MessageId, Tables};
use super::value::{Object, Value};
use crate::error::{Error, Result, Violation};

/// The field that a path such as `balance.algorithm`, `agent-check` or `params.weight` names, with the steps to it.
pub fn resolve<'t>(tables: &'t Tables, message: MessageId, path: &str) -> Option<(Vec<FieldIndex>, &'t Field)> {
    let mut steps = Vec::new();
    let mut message = message;
    let mut parts = path.split('.').peekable();
    loop {
        let (mut found, field) = step(tables, message, parts.next()?)?;
        steps.append(&mut found);
        if parts.peek().is_none() {
            return Some((steps, field));
        }
        match field.kind {
            Kind::Message(inner) if !field.repeated => message = inner,
            _ => return None,
        }
    }
}

fn step<'t>(tables: &'t Tables, message: MessageId, name: &str) -> Option<(Vec<FieldIndex>, &'t Field)> {
    let fields = &tables.messages[message].fields;
    if let Some(at) = fields.iter().position(|f| &*f.json == name || &*f.name == name) {
        return Some((vec![at], &fields[at]));
    }
    fields.iter().enumerate().filter(|(_, f)| f.flatten).find_map(|(at, field)| {
        let Kind::Message(inner) = field.kind else { return None };
        let (mut path, field) = step(tables, inner, name)?;
        path.insert(0, at);
        Some((path, field))
    })
}

/// The value that a path of a violation such as `return_hdrs.0.name` names in an object, if it is set.
pub fn value_at<'o>(tables: &Tables, message: MessageId, object: &'o Object, path: &str) -> Option<&'o Value> {
    let (mut message, mut object) = (message, object);
    let mut parts = path.split('.').peekable();
    loop {
        let (steps, field) = step(tables, message, parts.next()?)?;
        let (last, above) = steps.split_last()?;
        let holder = above.iter().try_fold(object, |object, at| object.object(*at))?;
        let mut value = holder.get(*last)?;
        if let (Value::List(items), Some(Ok(at))) = (value, parts.peek().map(|part| part.parse::<usize>())) {
            value = items.get(at)?;
            parts.next();
        }
        match (value, field.kind) {
            _ if parts.peek().is_none() => return Some(value),
            (Value::Object(inner), Kind::Message(id)) => (object, message) = (inner, id),
            _ => return None,
        }
    }
}

/// Copies the named fields from `source` to `target`; a named field that is absent in the source is removed. Without
/// paths all fields that are set are copied.
pub fn apply_mask(
    tables: &Tables,
    message: MessageId,
    target: &mut Object,
    source: &Object,
    paths: &[String],
) -> Result<()> {
    if paths.is_empty() || paths.iter().any(|p| p == "*") {
        for (field, value) in source.iter() {
            let nested = tables.messages[message].fields[field].flatten;
            match value {
                Value::Object(inner) if nested => {
                    let outer = target.object_mut(field);
                    inner.iter().for_each(|(at, value)| outer.set(at, value.clone()));
                }
                _ => target.set(field, value.clone()),
            }
        }
        return Ok(());
    }
    let mut violations = Vec::new();
    for path in paths {
        match resolve(tables, message, path) {
            Some((steps, _)) => {
                copy(target, source, &steps);
                forget(tables, message, target, &steps, paths);
            }
            None => violations.push(Violation {
                field: format!("update_mask.{path}"),
                message: "names no field".into(),
                code: 0,
                location: "body",
            }),
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(Error::invalid(violations)) }
}

/// Removes what is there in the place of a field that is named, unless it is named itself.
fn forget(tables: &Tables, message: MessageId, target: &mut Object, steps: &[FieldIndex], paths: &[String]) {
    let Some((first, rest)) = steps.split_first() else { return };
    let fields = &tables.messages[message].fields;
    if let (false, Kind::Message(inner)) = (rest.is_empty(), fields[*first].kind) {
        if target.object(*first).is_some() {
            forget(tables, inner, target.object_mut(*first), rest, paths);
        }
        return;
    }
    for (at, field) in fields.iter().enumerate().filter(|(_, field)| field.instead_of == Some(*first)) {
        if !paths.iter().any(|path| path.ends_with(&*field.name)) {
            target.take(at);
        }
    }
}

fn copy(target: &mut Object, source: &Object, steps: &[FieldIndex]) {
    let Some((first, rest)) = steps.split_first() else { return };
    if rest.is_empty() {
        match source.get(*first) {
            Some(value) => target.set(*first, value.clone()),
            None => {
                target.take(*first);
            }
        }
        return;
    }
    let empty = Object::new();
    let inner = source.object(*first).unwrap_or(&empty);
    if target.object(*first).is_none() && inner.is_empty() {
        return;
    }
    copy(target.object_mut(*first), inner, rest);
    if target.object(*first).is_some_and(Object::is_empty) {
        target.take(*first);
    }
}
