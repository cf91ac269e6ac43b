//! The rules of the schema, checked over a whole object at once.

use super::json::Reading;
use super::mask::value_at;
use super::odd;
use super::tables::{EnumType, Field, Kind, MessageId, MessageType, ResourceKind, Tables};
use super::value::{Object, Value};
use super::words;
use crate::error::{Error, Reason, Result, Violation};

/// All broken rules, in the order of [`MessageType::json_order`](super::tables::MessageType::json_order), which is
/// the order in which /v2 looks for the one it reports. Paths are JSON keys: `balance.algorithm`,
/// `return_hdrs.0.name`. At most one violation is reported for a value.
pub fn check(tables: &Tables, message: MessageId, object: &Object, location: &'static str) -> Vec<Violation> {
    run(tables, message, object, location, &[])
}

/// All broken rules of a JSON body, the words that no enum has among them.
pub fn check_reading(tables: &Tables, message: MessageId, reading: &Reading) -> Vec<Violation> {
    run(tables, message, &reading.object, "body", &reading.refused)
}

/// Takes away the broken rules that `object` has from `before`, which it is to replace: the same field breaks the same rule
/// there with the same value. HAProxy has taken it, so that it may stay. `prefix` stands before the paths of `violations`.
pub fn without_inherited(
    tables: &Tables,
    message: MessageId,
    mut violations: Vec<Violation>,
    prefix: &str,
    object: &Object,
    before: &Object,
) -> Vec<Violation> {
    // Items of a list may have moved.
    let unnumbered =
        |path: &str| path.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
    let old = check(tables, message, before, "body");
    violations.retain(|violation| {
        let path = violation.field.strip_prefix(prefix).unwrap_or(&violation.field);
        !old.iter().any(|old| {
            old.code == violation.code
                && old.message == violation.message
                && unnumbered(&old.field) == unnumbered(path)
                && value_at(tables, message, before, &old.field) == value_at(tables, message, object, path)
        })
    });
    violations
}

/// Refuses an object of /v2 with broken rules. Values that are wrong by themselves come first; what fields demand of each
/// other is another kind of error there.
pub fn refuse(mut violations: Vec<Violation>) -> Result<()> {
    violations.sort_by_key(|violation| violation.code == 0);
    match violations.first() {
        None => Ok(()),
        Some(first) if first.code != 0 => Err(Error::invalid(violations)),
        Some(first) => {
            let error = Error::new(Reason::InvalidValue, format!("{}: {}", first.field, first.message));
            Err(violations.into_iter().fold(error, Error::with_violation))
        }
    }
}

fn run(
    tables: &Tables,
    message: MessageId,
    object: &Object,
    location: &'static str,
    refused: &[Violation],
) -> Vec<Violation> {
    let mut checker = Checker {
        tables,
        location,
        refused,
        path: String::new(),
        found: Vec::new(),
        in_tree: false,
        section: "",
        in_file: false,
    };
    checker.object(message, object);
    checker.found
}

struct Checker<'a> {
    tables: &'a Tables,
    location: &'static str,
    /// Found while reading; put at their places in the order.
    refused: &'a [Violation],
    /// Path of the object being checked, with a dot at its end unless empty.
    path: String,
    found: Vec<Violation>,
    /// The object is an item of a tree, where its place in the list is its index.
    in_tree: bool,
    /// Keyword of the section that is looked at.
    section: &'a str,
    /// The object is one of a file of HAProxy, whose values are words.
    in_file: bool,
}

const EMPTY: &Object = &Object::new();

impl Checker<'_> {
    fn object(&mut self, message: MessageId, object: &Object) {
        let tables = self.tables;
        let table = &tables.messages[message];
        let has_place = std::mem::take(&mut self.in_tree);
        self.in_file |= table.resource.is_some();
        let is_tree = table.resource.as_ref().is_some_and(|resource| resource.kind == ResourceKind::Tree);
        if let Some(resource) = table.resource.as_ref().filter(|resource| resource.kind == ResourceKind::Section) {
            self.section = &resource.keyword;
        }
        for &at in &table.json_order {
            self.in_tree = is_tree;
            let field = &table.fields[at];
            let value = object.get(at);
            if let (true, Kind::Message(inner)) = (field.flatten, field.kind) {
                // The keys of an absent part may still be required.
                self.object(inner, object.object(at).unwrap_or(EMPTY));
            } else if !self.take_refused(field) {
                match value {
                    Some(value) => self.field(field, value),
                    None if has_place && &*field.name == "index" => {}
                    None if field.check.required && !is_replaced(table, field, object) => {
                        self.fault(&field.json, 602, "is required".to_owned());
                    }
                    None => {}
                }
            }
        }
        self.relations(table, object);
    }

    /// What fields demand of each other. These come behind the rules of single values and have the code 0.
    fn relations(&mut self, table: &MessageType, object: &Object) {
        let tables = self.tables;
        let set = |name: &str| table.field_named(name).is_some_and(|field| object.get(field).is_some());
        let key = |name: &str| {
            table.field_named(name).map_or_else(|| name.to_owned(), |at| table.fields[at].json.to_string())
        };
        for (at, value) in object.iter() {
            let field = &table.fields[at];
            let value = match (field.kind, value) {
                (Kind::Enum(id), Value::Enum(number)) => tables.enums[id].value(*number),
                _ => None,
            };
            if let Some(value) = value.filter(|value| !value.one_of.is_empty())
                && value.one_of.iter().filter(|name| set(name)).count() != 1
            {
                let keys: Vec<String> = value.one_of.iter().map(|name| key(name)).collect();
                let message = format!("{} needs exactly one of {}", value.token, keys.join(", "));
                self.fault(&field.json, 0, message);
            }
            if let Some((name, _)) = value.and_then(|value| value.goes_with.first())
                && let Some(other) = token(tables, table, object, name)
                && let Some(value) = value.filter(|v| !v.goes_with.iter().any(|(_, token)| **token == *other))
            {
                let fits: Vec<&str> = value.goes_with.iter().map(|(_, token)| &**token).collect();
                let message =
                    format!("{} goes only with {} {}, not {other}", value.token, key(name), fits.join(" or "));
                self.fault(&field.json, 0, message);
            }
            if field.not_in.iter().any(|section| **section == *self.section) {
                self.fault(&field.json, 0, format!("haproxy does not take it in {} sections", self.section));
            }
            if let Some(other) = field.instead_of.map(|at| &table.fields[at].json)
                && set(other)
            {
                self.fault(&field.json, 0, format!("cannot be set beside {}", key(other)));
            }
            for name in field.check.needs.iter().filter(|name| !set(name)) {
                self.fault(&field.json, 0, format!("needs {} to be set too", key(name)));
            }
        }
    }

    /// Moves what reading found for this field, or for items of its list, to the result.
    fn take_refused(&mut self, field: &Field) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        let mut taken = false;
        for violation in self.refused {
            let rest = violation.field.strip_prefix(&*self.path).and_then(|rest| rest.strip_prefix(&*field.json));
            let own = match (rest, field.kind) {
                (Some(""), _) => true,
                (Some(rest), Kind::Enum(_)) => field.repeated && rest.starts_with('.'),
                _ => false,
            };
            if own {
                self.found.push(violation.clone());
                taken = true;
            }
        }
        taken
    }

    fn field(&mut self, field: &Field, value: &Value) {
        let Value::List(list) = value else { return self.value(field, &field.json, value) };
        for (index, item) in list.iter().enumerate() {
            self.value(field, &format!("{}.{index}", field.json), item);
        }
    }

    fn value(&mut self, field: &Field, name: &str, value: &Value) {
        let fault = match (field.kind, value) {
            (Kind::Message(inner), Value::Object(object)) => {
                let length = self.path.len();
                let in_tree = self.in_tree;
                self.path.push_str(name);
                self.path.push('.');
                self.object(inner, object);
                self.path.truncate(length);
                self.in_tree = in_tree;
                return;
            }
            (Kind::Enum(id), Value::Enum(number)) => {
                let table = &self.tables.enums[id];
                table.value(*number).is_none().then(|| (606, table.expected(false)))
            }
            (_, Value::Int(number)) => integer(field, *number),
            (_, Value::Str(text)) => string(field, text, self.in_file),
            _ => None,
        };
        if let Some((code, message)) = fault {
            self.fault(name, code, message);
        }
    }

    fn fault(&mut self, name: &str, code: u16, message: String) {
        let field = format!("{}{name}", self.path);
        self.found.push(Violation { field, message, code, location: self.location });
    }
}

/// True where another field that is set stands for a required one.
fn is_replaced(table: &MessageType, field: &Field, object: &Object) -> bool {
    let other = field.check.unless.as_deref().and_then(|name| table.field_named(name));
    other.is_some_and(|other| object.get(other).is_some())
}

/// The word that a field of an object has, when it is set to one.
fn token<'t>(tables: &'t Tables, table: &MessageType, object: &Object, name: &str) -> Option<&'t str> {
    let at = table.field_named(name)?;
    match (table.fields[at].kind, object.get(at)?) {
        (Kind::Enum(id), Value::Enum(number)) => Some(&tables.enums[id].value(*number)?.token),
        _ => None,
    }
}

fn integer(field: &Field, number: i64) -> Option<(u16, String)> {
    let narrow = field.kind == Kind::Int32;
    let min = field.check.min.or(narrow.then_some(i32::MIN.into()));
    let max = field.check.max.or(narrow.then_some(i32::MAX.into()));
    match (min, max) {
        (Some(min), _) if number < min => Some((609, format!("should be greater than or equal to {min}"))),
        (_, Some(max)) if number > max => Some((608, format!("should be less than or equal to {max}"))),
        _ if field.numbers.is_empty() || field.numbers.contains(&number) => None,
        _ => Some((606, one_of(field.numbers.iter().map(ToString::to_string)))),
    }
}

fn string(field: &Field, text: &str, in_file: bool) -> Option<(u16, String)> {
    let check = &field.check;
    if in_file && odd::holds(text) {
        return Some((605, odd::REFUSED.to_owned()));
    }
    // Where an explicit empty string is a value, it is set; the pattern may still refuse it.
    if check.required && !check.nullable && text.is_empty() {
        return Some((602, "is required".to_owned()));
    }
    let pattern = check.pattern.as_ref()?;
    let seen = if in_file { words::without_held_blanks(text) } else { text.into() };
    (!pattern.is_match(&seen)).then(|| (605, format!("should match '{}'", check.pattern_text)))
}

fn one_of(words: impl Iterator<Item = String>) -> String {
    format!("should be one of [{}]", words.collect::<Vec<_>>().join(" "))
}

impl EnumType {
    /// What is expected of a value, for messages: `should be one of [enabled disabled]`; only values of /v2 when those
    /// are asked for.
    pub fn expected(&self, only_v2: bool) -> String {
        let values = self.values.iter().filter(|value| !(only_v2 && value.grpc_only));
        one_of(values.map(|value| value.token.to_string()))
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
