//! Printing with the read-back rule: a line is handed out only when it says what was printed.

use super::PrintFault;
use super::event::{Event, Source, build};
use super::names::{Names, Step, difference};
use super::node::{Empty, Node, Target};
use super::parse::Parser;
use super::print::{Halt, Printer};
use super::quoted::choose;
use super::ready::Here;
use crate::schema::tables::MessageId;
use crate::schema::value::{Object, Value};
use crate::schema::words;

/// A program with what is needed to print it.
pub(super) struct Program<'g> {
    pub nodes: &'g [Node],
    /// The field that carries the template.
    pub own: Option<(Target, Empty)>,
    pub message: MessageId,
    pub names: &'g Names,
}

/// Why a line was not accepted.
enum Refusal {
    Fault(Vec<Step>, String),
    /// The line cannot be read at all.
    Unreadable(String),
}

impl Program<'_> {
    /// Prints a line and returns it with the values that it says or that stand for silence.
    pub(super) fn print(&self, object: &Object, item: Option<(usize, &Value)>) -> Result<(String, Object), PrintFault> {
        self.accept(object, item).map_err(|refusal| match refusal {
            Refusal::Fault(steps, message) => {
                PrintFault { path: self.names.path(self.message, &steps), steps, message }
            }
            Refusal::Unreadable(line) => {
                let steps = self.culprit(object, item).unwrap_or_default();
                let message = format!("cannot be written as it is: nothing reads the line `{line}`");
                PrintFault { path: self.names.path(self.message, &steps), steps, message }
            }
        })
    }

    fn accept(&self, object: &Object, item: Option<(usize, &Value)>) -> Result<(String, Object), Refusal> {
        let mut printer = Printer::new();
        let here = Here { object, item };
        let done = match self.own {
            Some((target, empty)) => printer.own(self.nodes, target, empty, here),
            None => printer.sequence(self.nodes, here),
        };
        match done {
            Ok(()) => {}
            Err(Halt::Silent(target, number)) => {
                printer.out.clear();
                printer.events = vec![Event::Silent(target, number)];
            }
            Err(Halt::Fault(steps, message)) => return Err(Refusal::Fault(steps, message)),
        }
        let residue = [(0, printer.residue.len() as u32)];
        let source = Source {
            words: &printer.residue,
            residue: &residue[..usize::from(!printer.residue.is_empty())],
            silent: false,
        };
        let mut expected = Object::new();
        build(&printer.events, source, &mut expected);
        let consumed = if printer.events.iter().any(|event| matches!(event, Event::Silent(..))) {
            let mut consumed = Object::new();
            build(&printer.events, Source { silent: true, ..source }, &mut consumed);
            Some(consumed)
        } else {
            None
        };
        if printer.out.is_empty() {
            return Ok((printer.out, consumed.unwrap_or(expected)));
        }
        match self.read(&printer) {
            Some(read) if read == expected => Ok((printer.out, consumed.unwrap_or(expected))),
            Some(read) => {
                let mut steps = Vec::new();
                difference(&expected, &read, &mut steps);
                if let (Some(first), Some((at, _)), Some((target, _))) = (steps.first_mut(), item, self.own)
                    && first.field == target.field as usize
                {
                    first.item = Some(at);
                }
                Err(Refusal::Fault(
                    steps,
                    format!("cannot be written as it is: the line `{}` would be read differently", printer.out),
                ))
            }
            None => Err(Refusal::Unreadable(printer.out)),
        }
    }

    fn read(&self, printer: &Printer<'_>) -> Option<Object> {
        let split = words::split(&printer.out);
        if !split.closed || split.comment.is_some() {
            return None;
        }
        choose(&split.words, |words| self.read_words(words, printer), |object| object).map(|(object, _)| object)
    }

    fn read_words(&self, words: &[&str], printer: &Printer<'_>) -> Option<Object> {
        let mut parser = Parser::new(words, &printer.enabled);
        if !parser.line(self.nodes) {
            return None;
        }
        if let Some((target, empty)) = self.own {
            parser.empty(0, target, empty);
        }
        let mut object = Object::new();
        build(&parser.events, Source { words, residue: &parser.residue, silent: false }, &mut object);
        Some(object)
    }

    /// The first text that makes the line unreadable: with a plain word in its place the line is read.
    fn culprit(&self, object: &Object, item: Option<(usize, &Value)>) -> Option<Vec<Step>> {
        let readable = |object: &Object, item: Option<(usize, &Value)>| {
            !matches!(self.accept(object, item), Err(Refusal::Unreadable(_)))
        };
        if let (Some((at, value)), Some((target, _))) = (item, self.own) {
            let own = Step { field: target.field as usize, item: Some(at) };
            let Value::Object(inner) = value else { return Some(vec![own]) };
            let mut texts = Vec::new();
            texts_of(inner, &mut Vec::new(), &mut texts);
            return texts.into_iter().find_map(|steps| {
                let mut changed = inner.clone();
                plain(&mut changed, &steps);
                readable(object, Some((at, &Value::Object(changed))))
                    .then(|| std::iter::once(own).chain(steps).collect())
            });
        }
        let mut texts = Vec::new();
        texts_of(object, &mut Vec::new(), &mut texts);
        texts.into_iter().find(|steps| {
            let mut changed = object.clone();
            plain(&mut changed, steps);
            readable(&changed, item)
        })
    }
}

/// Paths of all texts of an object.
fn texts_of(object: &Object, steps: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    for (field, value) in object.iter() {
        let items: Vec<(Option<usize>, &Value)> = match value {
            Value::List(items) => items.iter().enumerate().map(|(at, value)| (Some(at), value)).collect(),
            value => vec![(None, value)],
        };
        for (item, value) in items {
            steps.push(Step { field, item });
            match value {
                Value::Str(_) => found.push(steps.clone()),
                Value::Object(inner) => texts_of(inner, steps, found),
                _ => {}
            }
            steps.pop();
        }
    }
}

/// Puts a plain word in the place of a text.
fn plain(object: &mut Object, steps: &[Step]) {
    let Some((step, rest)) = steps.split_first() else { return };
    let value = match (object.get_mut(step.field), step.item) {
        (Some(Value::List(items)), Some(at)) => items.get_mut(at),
        (value, _) => value,
    };
    match value {
        Some(Value::Object(inner)) => plain(inner, rest),
        Some(value) => *value = Value::Str("x".into()),
        None => {}
    }
}
