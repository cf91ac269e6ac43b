//! Instances in the YAML file of settings: below `service_discovery`, keys in lower case without separators. Pure.
//!
//! A change touches the lines of the instance that it is about and, of these, only those of keys whose values differ; all
//! other lines, comments included, stay as they are. What a change led to is read again before it counts.

use std::fmt::Write as _;
use std::ops::Range;

use marked_yaml::types::MarkedMappingNode;
use marked_yaml::{LoaderOptions, Node, parse_yaml_with_options};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use super::instance::Kind;
use crate::error::{Error, Reason, Result};
use crate::schema::check::check_reading;
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::{Field, Kind as FieldKind, MessageType, Tables};
use crate::schema::value::{Object, Value};

const TOP: &str = "service_discovery";

/// An instance of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) object: Object,
}

/// The instances of a file, and one sentence for each that is left out.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Vec<String>,
}

/// Reads a file.
pub(super) fn read(tables: &Tables, text: &str) -> Read {
    let mut read = Read::default();
    for kind in Kind::ALL {
        for (index, item) in items(text, kind).into_iter().enumerate() {
            match entry(tables, kind, &item) {
                Ok(entry) => read.entries.push(entry),
                Err(words) => {
                    let list = kind.list();
                    read.problems.push(format!("{TOP}.{list}[{index}] (line {}): {words}", item.line));
                }
            }
        }
    }
    read
}

/// The text with an instance as it shall be, or without it.
pub(super) fn with(tables: &Tables, text: &str, kind: Kind, id: &str, object: Option<&Object>) -> Result<String> {
    let found = items(text, kind);
    let at = found.iter().position(|item| entry(tables, kind, item).is_ok_and(|entry| entry.id == id));
    let mut wanted = read(tables, text).entries;
    let place = wanted.iter().position(|entry| entry.kind == kind && entry.id == id);
    match (object, place) {
        (Some(object), Some(place)) => wanted[place].object = object.clone(),
        (Some(object), None) => {
            let behind = wanted.iter().rposition(|entry| entry.kind <= kind).map_or(0, |last| last + 1);
            wanted.insert(behind, Entry { kind, id: id.to_owned(), object: object.clone() });
        }
        (None, Some(place)) => drop(wanted.remove(place)),
        (None, None) => {}
    }
    let message = &tables.messages[kind.message()];
    let values = object.map(|object| values(tables, kind, object));
    let old = at.and_then(|at| entry(tables, kind, found.get(at)?).ok());
    let old = old.map(|entry| self::values(tables, kind, &entry.object));
    let edited = edit(text, kind, at, old.as_ref(), values.as_ref(), message);
    let holds = |text: &str| read(tables, text).entries == wanted;
    if let Some(edited) = edited.filter(|text| holds(text)) {
        return Ok(edited);
    }
    // A notation that is not followed line by line: the list is written anew, unless that loses what cannot be read.
    if let Some(problem) = read(tables, text).problems.first() {
        return Err(Error::new(Reason::Unsupported, format!("the YAML file cannot be edited: {problem}")));
    }
    let of_kind = wanted.iter().filter(|entry| entry.kind == kind);
    let all: Vec<_> = of_kind.map(|entry| self::values(tables, kind, &entry.object)).collect();
    let anew = rewrite(tables, text, kind, &all);
    if holds(&anew) { Ok(anew) } else { Err(Error::internal("the YAML file cannot be edited")) }
}

// ---------------------------------------------------------------- reading

/// An element of a list, as it stands in the file.
struct Item {
    line: usize,
    node: Node,
}

fn items(text: &str, kind: Kind) -> Vec<Item> {
    // A text in quotes is nothing else, whatever it says.
    let options = LoaderOptions::default().prevent_coercion(true);
    let Ok(Node::Mapping(top)) = parse_yaml_with_options(0, text, options) else { return Vec::new() };
    let under = |mapping: &MarkedMappingNode, wanted: &str| -> Option<Node> {
        mapping.iter().find(|(key, _)| key.as_str() == wanted).map(|(_, node)| node.clone())
    };
    let list = under(&top, TOP).and_then(|node| under(node.as_mapping()?, kind.list()));
    let Some(Node::Sequence(list)) = list else { return Vec::new() };
    let line = |node: &Node| node.span().start().map_or(0, marked_yaml::Marker::line);
    list.iter().map(|node| Item { line: line(node), node: node.clone() }).collect()
}

/// A key as it is compared: `retry_timeout`, `retry-timeout` and `retrytimeout` are one.
fn bare(key: &str) -> String {
    key.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn field<'t>(message: &'t MessageType, key: &str) -> Option<&'t Field> {
    let key = bare(key);
    message.fields.iter().find(|field| !field.grpc_only && bare(&field.json) == key)
}

impl Item {
    /// The values of known keys as JSON, under the names of the schema.
    fn values(&self, message: &MessageType) -> Map<String, Json> {
        let mut map = Map::new();
        for (key, node) in self.node.as_mapping().into_iter().flat_map(|mapping| mapping.iter()) {
            if let Some(field) = field(message, key.as_str())
                && let Some(value) = value(field, node)
            {
                map.insert(field.json.to_string(), value);
            }
        }
        map
    }
}

/// A value as JSON; nothing for an absent one.
fn value(field: &Field, node: &Node) -> Option<Json> {
    match node {
        Node::Scalar(scalar) => {
            let text = scalar.as_str();
            if text.is_empty() || scalar.may_coerce() && matches!(text, "~" | "null" | "Null" | "NULL") {
                return None;
            }
            Some(match field.kind {
                FieldKind::Bool if matches!(text, "true" | "True" | "yes" | "on") => Json::Bool(true),
                FieldKind::Bool if matches!(text, "false" | "False" | "no" | "off") => Json::Bool(false),
                FieldKind::Int32 | FieldKind::Int64 => {
                    text.parse::<i64>().map_or_else(|_| Json::String(text.to_owned()), Json::from)
                }
                _ => Json::String(text.to_owned()),
            })
        }
        Node::Sequence(list) => Some(Json::Array(list.iter().filter_map(|item| value(field, item)).collect())),
        Node::Mapping(mapping) => {
            let pair = |(key, node): (&marked_yaml::types::MarkedScalarNode, &Node)| {
                let text = Node::as_scalar(node)?.as_str().to_owned();
                Some((key.as_str().to_owned(), Json::String(text)))
            };
            Some(Json::Object(mapping.iter().filter_map(pair).collect()))
        }
    }
}

fn entry(tables: &Tables, kind: Kind, item: &Item) -> Result<Entry, String> {
    if item.node.as_mapping().is_none() {
        return Err("expected the keys of one instance".to_owned());
    }
    let id = kind.message();
    let message = &tables.messages[id];
    let values = Json::Object(item.values(message));
    let rules = JsonRules { drop_zero: true, only_v2: true };
    let reading = json::read_value(tables, id, &values, rules).map_err(|error| error.to_string())?;
    if let Some(first) = check_reading(tables, id, &reading).first() {
        return Err(format!("{} {}", first.field, first.message));
    }
    let mut object = reading.object;
    super::instance::complete(kind, &mut object).map_err(|error| error.to_string())?;
    let at = kind.common().id;
    let known = object.str(at).map(str::to_owned);
    let id = known.unwrap_or_else(|| derived(kind, &values));
    object.set(at, Value::Str(id.as_str().into()));
    Ok(Entry { kind, id, object })
}

/// The id of an instance that was written by hand without one: it follows from what the instance is.
fn derived(kind: Kind, values: &Json) -> String {
    let digest = Sha256::digest(format!("{} {values}", kind.list()));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// What of an object stands in the file.
fn values(tables: &Tables, kind: Kind, object: &Object) -> Map<String, Json> {
    let mut bytes = Vec::new();
    json::write(tables, kind.message(), object, &mut bytes);
    match serde_json::from_slice(&bytes) {
        Ok(Json::Object(map)) => map,
        _ => Map::new(),
    }
}

// ---------------------------------------------------------------- writing

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Blank lines and comments say nothing.
fn silent(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

/// The lines of a key and of all below it, among lines of one indentation. Silent lines at its end are not part of it.
fn key_block(lines: &[&str], within: Range<usize>, indent_of: usize, key: &str) -> Option<Range<usize>> {
    let begins = |line: &str| {
        let rest = line.get(indent_of..).unwrap_or_default();
        let rest = rest.strip_prefix(key).or_else(|| rest.strip_prefix(&format!("\"{key}\""))).unwrap_or_default();
        indent(line) == indent_of && rest.starts_with(':')
    };
    let first = within.clone().find(|at| lines.get(*at).is_some_and(|line| begins(line)))?;
    // A list may stand as deep as its key.
    let inside =
        |line: &str| indent(line) > indent_of || indent(line) == indent_of && line.trim_start().starts_with("- ");
    let mut end = first + 1;
    for at in first + 1..within.end {
        let line = lines.get(at).copied().unwrap_or_default();
        if silent(line) {
            continue;
        }
        if !inside(line) {
            break;
        }
        end = at + 1;
    }
    Some(first..end)
}

/// The text with one element of the list changed, added or taken out. Nothing where the lines are in another notation.
fn edit(
    text: &str,
    kind: Kind,
    at: Option<usize>,
    old: Option<&Map<String, Json>>,
    new: Option<&Map<String, Json>>,
    message: &MessageType,
) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let top = key_block(&lines, 0..lines.len(), 0, TOP)?;
    let inner = (top.start + 1..top.end).find(|at| !silent(lines[*at])).map(|at| indent(lines[at]))?;
    let list = key_block(&lines, top.clone(), inner, kind.list())?;
    let dash = |at: &usize| lines[*at].trim_start().starts_with("- ");
    let first = (list.start + 1..list.end).find(|at| !silent(lines[*at])).filter(dash)?;
    let depth = indent(lines[first]);
    let starts: Vec<usize> = (first..list.end).filter(|at| dash(at) && indent(lines[*at]) == depth).collect();
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let end_of = |number: usize| {
        let limit = starts.get(number + 1).copied().unwrap_or(list.end);
        (starts[number]..limit).rev().find(|at| !silent(lines[*at])).map_or(limit, |last| last + 1)
    };
    match (at, new) {
        (Some(number), Some(new)) => {
            let range = *starts.get(number)?..end_of(number);
            let item = changed_item(&lines[range.clone()], depth, old?, new, message)?;
            out.splice(range, item);
        }
        (Some(number), None) if starts.len() > 1 => {
            drop(out.splice(*starts.get(number)?..end_of(number), Vec::new()));
        }
        (Some(_), None) => {
            out.splice(list.clone(), [format!("{}{}: []", " ".repeat(inner), kind.list())]);
        }
        (None, Some(new)) => {
            let end = end_of(starts.len() - 1);
            out.splice(end..end, printed(new, depth));
        }
        (None, None) => {}
    }
    Some(joined(text, &out))
}

/// The lines of an element with those keys changed that differ.
fn changed_item(
    lines: &[&str],
    depth: usize,
    old: &Map<String, Json>,
    new: &Map<String, Json>,
    message: &MessageType,
) -> Option<Vec<String>> {
    // Without its dash the first line is one like the others.
    let mut first = lines.first()?.to_string();
    first.replace_range(depth..=depth, " ");
    let lines: Vec<&str> = std::iter::once(first.as_str()).chain(lines.iter().skip(1).copied()).collect();
    let column = indent(lines[0]);
    let keys: Vec<usize> = (0..lines.len())
        .filter(|at| indent(lines[*at]) == column && !silent(lines[*at]) && !lines[*at].trim_start().starts_with("- "))
        .collect();
    let mut left = new.clone();
    let mut out: Vec<String> = Vec::new();
    for (number, start) in keys.iter().enumerate() {
        let end = keys.get(number + 1).copied().unwrap_or(lines.len());
        let key = lines[*start].trim_start().split(':').next().unwrap_or_default().trim_matches('"');
        let known = field(message, key).map(|field| field.json.to_string());
        let unchanged = match &known {
            Some(name) => old.get(name) == new.get(name),
            None => true,
        };
        let value = known.as_ref().and_then(|name| left.remove(name));
        if unchanged {
            out.extend(lines[*start..end].iter().map(|line| (*line).to_owned()));
        } else if let Some(value) = value {
            let place = out.len();
            print_key(&mut out, key, &value, column);
            if let Some(line) = out.get_mut(place) {
                line.push_str(comment(lines[*start]));
            }
            let silent_lines = lines[*start + 1..end].iter().filter(|line| silent(line));
            out.extend(silent_lines.map(|line| (*line).to_owned()));
        }
    }
    // An id that was not there followed from the values that change now.
    left.retain(|name, value| name == "id" || old.get(name) != Some(value));
    for (name, value) in &left {
        print_key(&mut out, &bare(name), value, column);
    }
    let first = out.first_mut()?;
    (indent(first) > depth).then(|| first.replace_range(depth..=depth, "-"))?;
    Some(out)
}

/// The comment behind what a line says, with the blanks before it.
fn comment(line: &str) -> &str {
    let value = line.split_once(':').map_or("", |(_, value)| value.trim_start());
    let quoted = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].rfind(quote).map_or(0, |end| end + 2),
        _ => 0,
    };
    let rest = &value[quoted..];
    rest.find(" #").map_or("", |at| &rest[rest[..at].trim_end().len()..])
}

/// The text with the whole list written anew.
fn rewrite(tables: &Tables, text: &str, kind: Kind, all: &[Map<String, Json>]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let Some(top) = key_block(&lines, 0..lines.len(), 0, TOP) else {
        out.push(format!("{TOP}:"));
        out.extend(list_lines(kind, all, 2));
        return joined(text, &out);
    };
    let inner = (top.start + 1..top.end).find(|at| !silent(lines[*at])).map(|at| indent(lines[at]));
    let block_style = lines[top.start].split('#').next().unwrap_or_default().trim_end().ends_with(':');
    if let Some(inner) = inner.filter(|_| block_style) {
        let list = key_block(&lines, top.clone(), inner, kind.list());
        out.splice(list.unwrap_or(top.end..top.end), list_lines(kind, all, inner));
    } else {
        // `service_discovery:` without anything, or on one line: its other lists are written anew too.
        let mut anew = vec![format!("{TOP}:")];
        anew.extend(list_lines(kind, all, 2));
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            let message = &tables.messages[other.message()];
            let found: Vec<_> = items(text, other).iter().map(|item| item.values(message)).collect();
            anew.extend(list_lines(other, &found, 2));
        }
        out.splice(top, anew);
    }
    joined(text, &out)
}

fn list_lines(kind: Kind, all: &[Map<String, Json>], indent: usize) -> Vec<String> {
    let head = format!("{}{}:", " ".repeat(indent), kind.list());
    if all.is_empty() {
        return vec![format!("{head} []")];
    }
    std::iter::once(head).chain(all.iter().flat_map(|values| printed(values, indent + 2))).collect()
}

/// Lines with the line ends of a text.
fn joined(text: &str, lines: &[String]) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    lines.iter().flat_map(|line| [line.as_str(), end]).collect()
}

/// An element of a list, with its dash at this depth.
fn printed(values: &Map<String, Json>, depth: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (name, value) in values {
        print_key(&mut out, &bare(name), value, depth + 2);
    }
    if let Some(first) = out.first_mut() {
        first.replace_range(depth..=depth, "-");
    }
    out
}

fn print_key(out: &mut Vec<String>, key: &str, value: &Json, column: usize) {
    let space = " ".repeat(column);
    match value {
        Json::Array(items) => {
            out.push(format!("{space}{key}:"));
            for item in items {
                match item {
                    Json::Object(map) => {
                        let mut mark = '-';
                        for (name, value) in map {
                            out.push(format!("{space}{mark} {}: {}", bare(name), scalar(value)));
                            mark = ' ';
                        }
                    }
                    item => out.push(format!("{space}- {}", scalar(item))),
                }
            }
        }
        value => out.push(format!("{space}{key}: {}", scalar(value))),
    }
}

/// A value on one line. Text that YAML might take for something else is quoted.
fn scalar(value: &Json) -> String {
    let Json::String(text) = value else { return value.to_string() };
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !matches!(text.to_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    if plain {
        return text.clone();
    }
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a text cannot fail.
            letter if letter.is_control() => drop(write!(out, "\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
