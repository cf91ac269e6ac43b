//! The samples of the sweep, and what of the schema they cover.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use backstay::configuration::address::Place;
use backstay::configuration::engine::Engine;
use backstay::document::Document;
use backstay::schema::json::{self, JsonRules};
use backstay::schema::tables::{Field, Kind, MessageId, Resource, ResourceKind, Tables};
use backstay::schema::value::{Object, Value};
use serde_json::Value as Json;

use super::generate::Generator;

const PACKAGE: &str = "backstay.configuration.v2.";
const SAMPLES: &str = include_str!("../../data/sweep/samples.jsonl");

/// One object, written as a part of a file that no other sample touches.
pub(crate) struct Sample {
    /// The section that holds it, with all lines it needs.
    pub(crate) text: String,
    /// The lines that say it, for reports.
    pub(crate) shown: String,
    /// The elements of the schema that it says, as [`elements`] names them.
    pub(crate) covers: BTreeSet<String>,
    /// From the first version that has all of them to the first one that no longer has one of them.
    pub(crate) versions: Range<(u16, u16)>,
    /// Batches of samples that may stand in one file.
    pub(crate) batch: &'static str,
}

/// Lines that a text refers to, by what it says: first the kinds of sections, then the words.
const NEEDS: [(&[&str], &[&str], &str); 8] = [
    (
        &["frontend", "backend", "defaults", "fcgi-app"],
        &["is_a", "is_b", "is_c", "is_x"],
        "acl is_a always_true\n  acl is_b always_false\n  acl is_c always_true\n  acl is_x always_true",
    ),
    (&["frontend", "backend"], &["set-bandwidth-limit"], "filter bwlim-in bw1 default-limit 1k default-period 1s"),
    (&["backend"], &["use-fcgi-app"], "server f1 127.0.0.1:9000 proto fcgi"),
    (&["frontend", "backend"], &["cache-use", "cache-store"], "filter cache c1"),
    (&["frontend", "backend"], &["send-spoe-group"], "filter spoe engine eng1 config {dir}/spoe.conf"),
    (&["frontend", "backend"], &["track-sc", "stick "], "stick-table type ip size 1k expire 10s store gpc0"),
    (
        &["frontend"],
        &["capture.req.hdr", "capture.res.hdr", " id 0"],
        "declare capture request len 32\n  declare capture response len 32",
    ),
    (&["userlist"], &["group "], "user u1 insecure-password x\n  user u2 insecure-password x"),
];

/// The text with the lines it refers to behind its header.
fn with_needs(text: &str, dir: &str) -> String {
    let (header, rest) = text.split_once('\n').unwrap_or((text, ""));
    let kind = header.split(' ').next().unwrap_or_default();
    let mut out = format!("{header}\n");
    for (kinds, words, lines) in NEEDS {
        if kinds.contains(&kind) && words.iter().any(|word| rest.contains(word)) {
            writeln!(out, "  {}", lines.replace("{dir}", dir)).unwrap();
        }
    }
    out + rest
}

fn resource<'t>(tables: &'t Tables, name: &str) -> (MessageId, &'t Resource) {
    let id = tables.message_by_name[format!("{PACKAGE}{name}").as_str()];
    (id, tables.messages[id].resource.as_ref().expect("a resource"))
}

/// All samples; `{dir}` in them becomes the folder of the files that they name. Elements that no line of the file has
/// get samples of their own.
pub(crate) fn samples(engine: &Engine, dir: &str) -> Vec<Sample> {
    let tables = &engine.schema().tables;
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    let text = SAMPLES.replace("{dir}", dir);
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (number, line) in lines.iter().enumerate() {
        match sample(engine, number, line, dir) {
            Ok(sample) => samples.push(sample),
            Err((_, fault)) => faults.push(format!("line {}: {fault}: {line}", number + 1)),
        }
    }
    assert!(faults.is_empty(), "samples that cannot be written:\n{}", faults.join("\n"));
    let mut covered: BTreeSet<String> = samples.iter().flat_map(|sample| sample.covers.clone()).collect();
    let generator = Generator::new(tables, lines);
    for element in elements(tables) {
        if !covered.contains(&element)
            && let Some(sample) = generated(engine, &generator, &element, samples.len(), dir)
        {
            covered.extend(sample.covers.iter().cloned());
            samples.push(sample);
        }
    }
    samples
}

fn generated(engine: &Engine, generator: &Generator<'_>, element: &str, number: usize, dir: &str) -> Option<Sample> {
    let mut json = generator.sample(element)?;
    for _ in 0..6 {
        match sample(engine, number, &json, dir) {
            Ok(sample) => return sample.covers.contains(element).then_some(sample),
            Err((path, _)) => generator.complete(&mut json, &path)?,
        }
    }
    None
}

/// A sample, or the field at fault and what is wrong with it.
fn sample(engine: &Engine, number: usize, json: &Json, dir: &str) -> Result<Sample, (String, String)> {
    let tables = &engine.schema().tables;
    let fault = |text: String| (text.split(':').next().unwrap_or_default().to_owned(), text);
    let name = json["r"].as_str().ok_or_else(|| fault("r: is required".to_owned()))?;
    let (id, rules) = resource(tables, name);
    let reading = json::read_value(tables, id, &json["o"], JsonRules { drop_zero: false, only_v2: false })
        .map_err(|error| fault(error.message().to_owned()))?;
    if let Some(key) = reading.unknown.first() {
        return Err(fault(format!("{key}: is no field of {name}")));
    }
    if let Some(violation) = reading.refused.first() {
        return Err(fault(format!("{}: {}", violation.field, violation.message)));
    }
    let mut object = reading.object;
    let (document, place, batch) = match rules.kind {
        ResourceKind::Section => {
            if let [identity] = rules.identity[..] {
                object.set(identity, Value::Str(format!("n{number}").into()));
            }
            let batch = match name {
                "Global" => "Global",
                "Defaults" => "Defaults",
                _ => "sections",
            };
            // What `from` may name.
            let text: &[u8] = if rules.singleton { b"" } else { b"defaults base\n" };
            (Document::parse(text), Place::default(), batch)
        }
        kind => {
            if kind == ResourceKind::IndexedLine {
                object.set(rules.identity[0], Value::Int(0));
            }
            let parent = json["in"].as_str().unwrap_or(&rules.parents[0].section);
            let name = if parent == "global" { String::new() } else { format!("p{number}") };
            let more = json["with"].as_str().map(|text| format!("  {}\n", text.replace('\n', "\n  ")));
            let text = format!("{parent} {name}\n{}", more.unwrap_or_default());
            let place = Place { section: Some(parent.into()), name };
            let batch = match parent {
                "global" => "Global",
                "defaults" => "Defaults",
                _ => "lines",
            };
            (Document::parse(text.as_bytes()), place, batch)
        }
    };
    let before = document.to_bytes();
    let edited = engine.create(&document, id, &place, &object).map_err(|error| fault(error.message().to_owned()))?;
    let text = String::from_utf8(edited.document.to_bytes()).map_err(|error| fault(error.to_string()))?;
    let text = text.strip_prefix("defaults base\n").unwrap_or(&text).trim_start();
    let known: BTreeSet<&str> = std::str::from_utf8(&before).unwrap_or_default().lines().collect();
    let shown: Vec<_> = text.lines().filter(|line| !known.contains(line)).map(str::trim).collect();
    let mut covers = BTreeSet::new();
    let mut versions = (2, 6)..(u16::MAX, 0);
    cover(tables, id, &object, name, &mut covers, &mut versions);
    versions.start = versions.start.max(place.section.map_or((0, 0), |section| since(tables, &section)));
    covers.retain(|element| !edited.unused.iter().any(|path| unused(element, name, path)));
    let shown = shown.join(" | ");
    Ok(Sample { text: with_needs(text, dir).trim_end().to_owned() + "\n", shown, covers, versions, batch })
}

/// The first version that has a kind of section.
fn since(tables: &Tables, section: &str) -> (u16, u16) {
    let sections = tables.messages.iter().filter_map(|message| Some((message, message.resource.as_ref()?)));
    let mut wanted = sections.filter(|(_, rules)| rules.kind == ResourceKind::Section && &*rules.keyword == section);
    let name = wanted.next().and_then(|(message, rules)| message.fields.get(*rules.identity.first()?));
    name.and_then(|name| name.since).unwrap_or_default()
}

/// True when an element is about a value that the line has no place for.
fn unused(element: &str, name: &str, path: &str) -> bool {
    let plain: String = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    let element = element.split_once(": ").map_or(element.to_owned(), |(_, rest)| format!("{name}.{rest}"));
    element.split('=').next() == Some(&format!("{name}.{plain}"))
}

fn cover(
    tables: &Tables,
    message: MessageId,
    object: &Object,
    path: &str,
    into: &mut BTreeSet<String>,
    versions: &mut Range<(u16, u16)>,
) {
    let table = &tables.messages[message];
    let kinds: Vec<(&str, &str)> = table
        .fields
        .iter()
        .enumerate()
        .filter(|(_, field)| is_kind(field))
        .filter_map(|(at, field)| Some((&*field.json, token(tables, field, object.get(at)?)?)))
        .collect();
    for (at, value) in object.iter() {
        let field = &table.fields[at];
        versions.start = versions.start.max(field.since.unwrap_or_default());
        versions.end = field.removed.map_or(versions.end, |removed| versions.end.min(removed));
        let own = if field.flatten { path.to_owned() } else { format!("{path}.{}", field.json) };
        let items = match value {
            Value::List(items) => &items[..],
            value => std::slice::from_ref(value),
        };
        for item in items {
            match (item, field.kind) {
                (Value::Object(inner), Kind::Message(id)) => cover(tables, id, inner, &own, into, versions),
                (item, _) => {
                    into.insert(own.clone());
                    if let Some(token) = token(tables, field, item) {
                        into.insert(format!("{own}={token}"));
                        if let (Kind::Enum(id), Value::Enum(number)) = (field.kind, item) {
                            let value = tables.enums[id].value(*number);
                            let since = value.and_then(|value| value.since).unwrap_or_default();
                            versions.start = versions.start.max(since);
                        }
                    }
                }
            }
            for (key, kind) in &kinds {
                into.insert(format!("{path}.{key}={kind}: {}", field.json));
            }
        }
    }
}

fn token<'t>(tables: &'t Tables, field: &Field, value: &Value) -> Option<&'t str> {
    match (field.kind, value) {
        (Kind::Enum(id), Value::Enum(number)) => tables.enums[id].value(*number).map(|value| &*value.token),
        _ => None,
    }
}

/// True for the enum that says which other fields a line has.
fn is_kind(field: &Field) -> bool {
    matches!(&*field.json, "type" | "action") && matches!(field.kind, Kind::Enum(_))
}

/// Everything of the schema that a file can say: `Resource.field`, `Resource.field=word`, and for every type of a rule
/// its own fields, as `Resource.type=word: field` or `Resource.action=word: field`.
pub(crate) fn elements(tables: &Tables) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (id, message) in tables.messages.iter().enumerate() {
        // SPOE files are not for `haproxy -c`.
        if let (Some(rules), Some(name)) = (&message.resource, message.full_name.strip_prefix(PACKAGE)) {
            // Made of others, as a `listen` section is of a frontend and a backend.
            let composed = matches!(rules.kind, ResourceKind::Tree | ResourceKind::AnyLine | ResourceKind::Site);
            if composed || name == "Listen" {
                continue;
            }
            walk(tables, id, name, 0, &mut out);
        }
    }
    out
}

fn walk(tables: &Tables, message: MessageId, path: &str, depth: usize, into: &mut BTreeSet<String>) {
    if depth > 4 {
        return;
    }
    for field in tables.messages[message].fields.iter().filter(|field| !field.no_line) {
        let own = if field.flatten { path.to_owned() } else { format!("{path}.{}", field.json) };
        match field.kind {
            // Mirrors of lines that are resources of their own.
            Kind::Message(id) if tables.messages[id].resource.is_some() => {}
            Kind::Message(id) => walk(tables, id, &own, depth + 1, into),
            Kind::Enum(id) => {
                into.insert(own.clone());
                for value in &tables.enums[id].values {
                    into.insert(format!("{own}={}", value.token));
                    if let (true, Some(line)) = (is_kind(field), &value.line) {
                        let slots = line
                            .split('{')
                            .skip(1)
                            .map(|rest| rest.split([':', '=', '}', '.']).next().unwrap_or_default().to_owned());
                        let known = |slot: &String| tables.messages[message].by_json.contains_key(slot.as_str());
                        into.extend(
                            slots.filter(known).map(|slot| format!("{path}.{}={}: {slot}", field.json, value.token)),
                        );
                    }
                }
            }
            _ => drop(into.insert(own)),
        }
    }
}
