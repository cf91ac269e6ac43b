//! What a line says, field by field, before it becomes an object. Made by the parser and, the same way, by the printer.

use std::borrow::Cow;

use super::node::Target;
use crate::schema::value::{Object, Value};

/// One fact of a line.
#[derive(Debug, Clone)]
pub(super) enum Event<'w> {
    /// An integer.
    Int(Target, i64),
    /// A number of an enum.
    Enum(Target, i32),
    /// A flag.
    Bool(Target, bool),
    /// A string.
    Text(Target, Cow<'w, str>),
    /// Words `from..to` of the line, joined by blanks.
    Words(Target, u32, u32),
    /// A string that is joined to what is there with a comma.
    Join(Target, &'w str),
    /// Words `from..to` of the line, joined to what is there with a blank.
    Gather(Target, u32, u32),
    /// A message begins.
    Open(Target),
    /// It ends.
    Close,
    /// Words that no field reads belong to this message.
    Residue,
    /// A value that has no text, so a line does not say it.
    Silent(Target, Option<i32>),
    /// Taken back.
    Dead,
}

impl Event<'_> {
    /// Turns the text or message of a field into an item of a list.
    pub(super) fn list(&mut self, field: u16, list: u16) {
        if let Event::Text(target, _) | Event::Open(target) = self
            && target.field == field
        {
            *target = Target { field: list, push: true, own: false };
        }
    }

    /// The field of a value.
    pub(super) fn field(&self) -> Option<u16> {
        match self {
            Event::Int(target, _)
            | Event::Enum(target, _)
            | Event::Bool(target, _)
            | Event::Text(target, _)
            | Event::Words(target, ..)
            | Event::Join(target, _)
            | Event::Gather(target, ..)
            | Event::Open(target) => Some(target.field),
            Event::Close | Event::Residue | Event::Silent(..) | Event::Dead => None,
        }
    }
}

/// What events refer to.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, 'w> {
    pub words: &'a [&'w str],
    /// Unknown words of the `*` group, in the order they are kept.
    pub residue: &'a [(u32, u32)],
    /// Counts values without text as well.
    pub silent: bool,
}

fn joined(words: &[&str]) -> Box<str> {
    match words {
        [only] => (*only).into(),
        _ => words.join(" ").into(),
    }
}

fn put(object: &mut Object, target: Target, value: Value) {
    if target.push { object.push(target.field as usize, value) } else { object.set(target.field as usize, value) }
}

/// Applies events to an object.
pub(super) fn build(events: &[Event<'_>], source: Source<'_, '_>, object: &mut Object) {
    scope(events, &mut 0, source, object);
}

fn scope(events: &[Event<'_>], at: &mut usize, source: Source<'_, '_>, object: &mut Object) {
    while let Some(event) = events.get(*at) {
        *at += 1;
        match event {
            Event::Int(target, number) => put(object, *target, Value::Int(*number)),
            Event::Enum(target, number) => put(object, *target, Value::Enum(*number)),
            Event::Bool(target, flag) => put(object, *target, Value::Bool(*flag)),
            Event::Text(target, text) => put(object, *target, Value::Str(text.as_ref().into())),
            Event::Words(target, from, to) => {
                put(object, *target, Value::Str(joined(&source.words[*from as usize..*to as usize])));
            }
            Event::Join(target, text) => {
                let value = match object.str(target.field as usize) {
                    Some(before) => format!("{before},{text}").into(),
                    None => (*text).into(),
                };
                object.set(target.field as usize, Value::Str(value));
            }
            Event::Gather(target, from, to) => {
                let more = joined(&source.words[*from as usize..*to as usize]);
                let value = match object.str(target.field as usize) {
                    Some(before) => format!("{before} {more}").into(),
                    None => more,
                };
                object.set(target.field as usize, Value::Str(value));
            }
            Event::Open(target) => open(events, at, source, object, *target),
            Event::Close => return,
            Event::Residue if source.residue.is_empty() => {}
            Event::Residue => {
                let spans = source.residue.iter().flat_map(|(from, to)| &source.words[*from as usize..*to as usize]);
                let mut words = object.residue().to_vec();
                words.extend(spans.map(|word| Box::from(*word)));
                object.set_residue(words);
            }
            Event::Silent(target, None) if source.silent => object.set(target.field as usize, Value::Bool(false)),
            Event::Silent(target, Some(number)) if source.silent => {
                object.set(target.field as usize, Value::Enum(*number));
            }
            Event::Silent(..) | Event::Dead => {}
        }
    }
}

fn open(events: &[Event<'_>], at: &mut usize, source: Source<'_, '_>, object: &mut Object, target: Target) {
    let field = target.field as usize;
    if target.push {
        let mut item = Object::new();
        scope(events, at, source, &mut item);
        object.push(field, Value::Object(item));
        return;
    }
    if let Some(Value::Object(inner)) = object.get_mut(field) {
        scope(events, at, source, inner);
        return;
    }
    let mut inner = Object::new();
    scope(events, at, source, &mut inner);
    // A message counts as set when a field of it is.
    if !inner.is_empty() {
        object.set(field, Value::Object(inner));
    }
}
