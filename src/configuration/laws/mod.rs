//! Laws that hold for every resource, checked with random objects from its tables.

mod random;
mod spelled;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use random::{Dice, field, put, steps, take};

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use super::layout::said;
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::schema::Schema;
use crate::schema::check::check;
use crate::schema::tables::{Kind, MessageId, Resource, ResourceKind, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words::{escaped, plain_text, split};

/// The engine of all tests: making one takes a while.
fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> =
        LazyLock::new(|| Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap())));
    &ENGINE
}

fn tables() -> &'static Tables {
    &engine().schema().tables
}

/// Every resource of haproxy.cfg with its rules.
fn resources() -> impl Iterator<Item = (MessageId, &'static Resource)> {
    let messages = tables().messages.iter().enumerate();
    // SPOE files are documents of their own kind.
    let own = messages.filter(|(_, message)| message.full_name.starts_with("backstay.configuration."));
    own.filter_map(|(id, message)| Some((id, message.resource.as_ref()?)))
}

fn name(resource: MessageId) -> &'static str {
    tables().messages[resource].full_name.rsplit('.').next().unwrap()
}

/// Places that may hold a resource in [`file`].
fn places(rules: &Resource) -> Vec<Place> {
    let place = |section: &str| Place { section: Some(section.into()), name: section_name(section).to_owned() };
    match rules.kind {
        ResourceKind::Section => vec![Place::default()],
        _ => rules.parents.iter().map(|parent| place(&parent.section)).collect(),
    }
}

fn section_name(kind: &str) -> &'static str {
    if kind == "global" { "" } else { "main" }
}

/// A file with a section of every kind. Each holds what no field says, and a line of every kind that it may hold.
fn file(dice: &mut Dice, ending: &str) -> Document {
    let mut kinds = BTreeSet::new();
    for (_, rules) in resources() {
        match rules.kind {
            ResourceKind::Section => drop(kinds.insert(&*rules.keyword)),
            _ => kinds.extend(rules.parents.iter().map(|parent| &*parent.section)),
        }
    }
    let mut text = "# _version=1\n\n".to_owned();
    for kind in kinds {
        let name = section_name(kind);
        write!(
            text,
            "# about {kind}\n{kind} {name}   # main\n\t# why\n\tbrandnew-word   a  \"b c\" # trailing\n\n.if \
             feature(OPENSSL)\n\t  brandnew-word\tin block\n.endif\n    brandnew-last\n\n"
        )
        .unwrap();
    }
    let mut document = Document::parse(text.replace('\n', ending).as_bytes());
    for (resource, rules) in resources().filter(|(_, rules)| !rules.parents.is_empty()) {
        for place in places(rules) {
            let attempt = |object: &Object| engine().create(&document, resource, &place, object);
            if let Some((_, edited)) = fitted(dice, resource, false, &attempt) {
                document = edited.document;
            }
        }
    }
    document
}

/// A random object that passes the checks and that `attempt` takes whole. What cannot be written is put right or
/// dropped, as a caller would who reads the messages.
fn fitted(
    dice: &mut Dice,
    resource: MessageId,
    hostile: bool,
    attempt: &dyn Fn(&Object) -> Result<Edited>,
) -> Option<(Object, Edited)> {
    let tables = tables();
    let mut object = dice.object(tables, resource, hostile, 0);
    let rules = tables.messages[resource].resource.as_ref().unwrap();
    match rules.kind {
        ResourceKind::IndexedLine => object.set(rules.identity[0], Value::Int(0)),
        _ if rules.identity.is_empty() || (hostile && rules.kind == ResourceKind::NamedLine && dice.roll(4) == 0) => {}
        _ => {
            let path: Vec<_> = rules.identity.iter().map(|at| (*at, None)).collect();
            put(&mut object, &path, Value::Str(format!("n{}", dice.roll(1_000_000)).into()));
        }
    }
    for _ in 0..80 {
        let violations = check(tables, resource, &object, "body");
        let fault = match violations.into_iter().next() {
            Some(violation) => violation.field,
            None => match attempt(&object) {
                Ok(edited) if edited.unused.is_empty() => return Some((object, edited)),
                Ok(edited) => {
                    for path in edited.unused {
                        take(&mut object, &steps(tables, resource, &path).unwrap());
                    }
                    continue;
                }
                Err(error) => path_of(&error)?,
            },
        };
        let steps =
            steps(tables, resource, &fault).unwrap_or_else(|| panic!("{}: `{fault}` is no field ", name(resource)));
        let field = field(tables, resource, &steps).unwrap();
        if !take(&mut object, &steps) || dice.roll(2) == 0 {
            put(&mut object, &steps, dice.value(tables, field, false, 0));
        }
    }
    None
}

/// The field that an error is about; nothing when the object as a whole has no place.
fn path_of(error: &Error) -> Option<String> {
    assert_ne!(error.reason(), Reason::Internal, "{error:?}");
    match (error.reason(), error.violations()) {
        (Reason::InvalidValue, [violation, ..]) => Some(violation.field.clone()),
        (Reason::InvalidValue, []) => Some(error.message().split(':').next().unwrap().to_owned()),
        _ => None,
    }
}

/// What `object` says and `read` does not, or the other way round, as JSON keys.
fn differences(message: MessageId, object: &Object, read: &Object) -> Vec<String> {
    let table = &tables().messages[message];
    let read = &in_the_words_of(message, object, read);
    let mut found = Vec::new();
    for (at, field) in table.fields.iter().enumerate() {
        let same = match (object.get(at), read.get(at), field.kind) {
            (None, None, _) => true,
            (one, two, Kind::Message(inner)) => {
                let object_of = |value: Option<&Value>| match value {
                    Some(Value::Object(object)) => vec![object.clone()],
                    Some(Value::List(items)) => items
                        .iter()
                        .map(|item| if let Value::Object(o) = item { o.clone() } else { panic!() })
                        .collect(),
                    _ => Vec::new(),
                };
                let (mut one, mut two) = (object_of(one), object_of(two));
                if !field.repeated {
                    one.resize(1, Object::new());
                    two.resize(1, Object::new());
                }
                let inside: Vec<_> = one.iter().zip(&two).flat_map(|(one, two)| differences(inner, one, two)).collect();
                found.extend(inside.into_iter().map(|path| format!("{}.{path}", field.json)));
                one.len() == two.len()
            }
            (Some(Value::Str(one)), Some(Value::Str(two)), _) => {
                one == two
                    || canonical(one) == **two
                    || escaped(one, true) == **two
                    || field.word && plain_text(one) == **two
            }
            (Some(Value::List(one)), Some(Value::List(two)), _) if field.word => {
                one.len() == two.len()
                    && one.iter().zip(two).all(|pair| match pair {
                        (Value::Str(one), Value::Str(two)) => plain_text(one) == **two,
                        _ => false,
                    })
            }
            (Some(one), Some(two), _) => one == two,
            // A flag may have no text for this value.
            (Some(Value::Bool(false)), None, _) => true,
            (Some(Value::Enum(_)), None, Kind::Enum(id)) => tables().enums[id].toggle,
            // An implicit zero is written where a line needs a number.
            (None, Some(Value::Int(0)), _) => field.implicit,
            _ => false,
        };
        if !same {
            found.push(format!("{} ({:?} {:?})", field.json, object.get(at), read.get(at)));
        }
    }
    found
}

/// What was read, with the names of /v2 where the object has them.
fn in_the_words_of(message: MessageId, object: &Object, read: &Object) -> Object {
    let mut read = read.clone();
    for (at, field) in tables().messages[message].fields.iter().enumerate() {
        if let Some(other) = field.shown_as
            && object.get(at).is_none()
            && let Some(value) = read.take(at)
        {
            read.set(other, value);
        }
    }
    read
}

/// The spellings that writing unifies: control characters, blanks between words and the brackets of an address.
fn canonical(text: &str) -> String {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    split(&escaped(bare, false)).words.join(" ")
}

fn lines(document: &Document) -> Vec<Vec<u8>> {
    document.to_bytes().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Lines of `old` and of `new` between what both begin and end with.
fn changed(old: &Document, new: &Document) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (old, new) = (lines(old), lines(new));
    let start = old.iter().zip(&new).take_while(|(one, two)| one == two).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(one, two)| one == two).count();
    (old[start..old.len() - end].to_vec(), new[start..new.len() - end].to_vec())
}

fn assert_same(document: &Document, expected: &Document, what: &str) {
    let (gone, come) = changed(expected, document);
    let text = |lines: Vec<Vec<u8>>| String::from_utf8_lossy(&lines.concat()).into_owned();
    assert_eq!(text(come), text(gone), "{what}");
}

fn key_of(resource: MessageId, object: &Object) -> Key {
    let rules = tables().messages[resource].resource.as_ref().unwrap();
    match rules.kind {
        ResourceKind::IndexedLine => Key::Index(object.int(rules.identity[0]).unwrap_or(0)),
        _ if rules.singleton => Key::Singleton,
        _ => Key::Name(engine().identity(resource, object).unwrap_or_default().to_owned()),
    }
}

/// The file that others would read has the same objects.
fn assert_reread(document: &Document, resource: MessageId, place: &Place) {
    let again = Document::parse(&document.to_bytes());
    assert_eq!(again.to_bytes(), document.to_bytes());
    assert_eq!(engine().list(&again, resource, place).unwrap(), engine().list(document, resource, place).unwrap());
}

#[test]
fn a_line_reads_as_it_was_sent_and_no_other_line_changes() {
    let (mut created, mut tried) = (0, 0);
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let base = file(&mut dice, if seed % 2 == 0 { "\n" } else { "\r\n" });
        for (resource, rules) in resources().filter(|(_, rules)| !rules.parents.is_empty()) {
            for place in places(rules) {
                for round in 0..6 {
                    let hostile = round % 2 == 1;
                    tried += 1;
                    created += usize::from(check_line(&mut dice, &base, resource, &place, hostile));
                }
            }
        }
    }
    assert!(created * 10 > tried * 8, "only {created} of {tried} objects could be written");
}

fn check_line(dice: &mut Dice, base: &Document, resource: MessageId, place: &Place, hostile: bool) -> bool {
    let attempt = |object: &Object| engine().create(base, resource, place, object);
    let Some((object, edited)) = fitted(dice, resource, hostile, &attempt) else { return false };
    let document = edited.document;
    let what = format!("{} in {place}", name(resource));
    let (gone, come) = changed(base, &document);
    assert!(gone.is_empty() && come.len() == 1, "{what}: {gone:?} became {come:?}");
    let line = String::from_utf8_lossy(&come[0]).into_owned();

    let mut key = key_of(resource, &object);
    let listed = engine().list(&document, resource, place).unwrap();
    if key == Key::Name(String::new()) {
        // The name that the address gives.
        key = key_of(resource, listed.last().unwrap());
    }
    let read =
        engine().get(&document, resource, place, &key).unwrap_or_else(|error| panic!("{what} {line}: {error:?}"));
    let mut sent = object.clone();
    if let Key::Name(name) = &key {
        let rules = tables().messages[resource].resource.as_ref().unwrap();
        put(
            &mut sent,
            &rules.identity.iter().map(|at| (*at, None)).collect::<Vec<_>>(),
            Value::Str(name.as_str().into()),
        );
    }
    assert_eq!(differences(resource, &sent, &read), [""; 0], "{what}: {line}");
    assert!(listed.contains(&read), "{what}: {line}");
    assert_reread(&document, resource, place);

    let same = engine().replace(&document, resource, place, &key, &read).unwrap_or_else(|error| {
        panic!("{what} {line}: what was read is refused: {error:?}");
    });
    assert_same(&same.document, &document, &format!("{what}: replacing by itself"));
    assert!(same.unused.is_empty(), "{what}: {line}: {:?}", same.unused);
    let deleted = engine().delete(&document, resource, place, &key).unwrap().document;
    assert_same(&deleted, base, &format!("{what}: created and deleted"));

    let attempt = |other: &Object| {
        let mut other = other.clone();
        let rules = tables().messages[resource].resource.as_ref().unwrap();
        put(
            &mut other,
            &rules.identity.iter().map(|at| (*at, None)).collect::<Vec<_>>(),
            match &key {
                Key::Index(index) => Value::Int(*index),
                other => Value::Str(other.name().into()),
            },
        );
        engine().replace(&document, resource, place, &key, &other)
    };
    if let Some((_, replaced)) = fitted(dice, resource, hostile, &attempt) {
        let (gone, come) = changed(&document, &replaced.document);
        assert!(gone.len() == come.len() && gone.len() <= 1, "{what}: {gone:?} became {come:?}");
        assert!(gone.is_empty() || gone[0] == line.as_bytes(), "{what}: {gone:?} instead of {line}");
    }
    true
}

#[test]
fn lists_keep_the_order_of_the_file_and_indices_count_from_zero() {
    for (resource, rules) in resources().filter(|(_, rules)| !rules.parents.is_empty()) {
        let mut dice = Dice(resource as u64);
        let place = &places(rules)[resource % rules.parents.len()];
        let mut document = file(&mut dice, "\n");
        let mut model = engine().list(&document, resource, place).unwrap();
        for _ in 0..12 {
            let at = dice.roll(model.len() + 1);
            if dice.roll(4) == 0 && at < model.len() {
                document = engine().delete(&document, resource, place, &key_of(resource, &model[at])).unwrap().document;
                model.remove(at);
            } else {
                let attempt = |object: &Object| {
                    let mut object = object.clone();
                    if rules.kind == ResourceKind::IndexedLine {
                        object.set(rules.identity[0], Value::Int(at as i64));
                    }
                    engine().create(&document, resource, place, &object)
                };
                let Some((_, edited)) = fitted(&mut dice, resource, false, &attempt) else { continue };
                document = edited.document;
                let list = engine().list(&document, resource, place).unwrap();
                // Names go to the end, rules where they were asked to.
                let at = if rules.kind == ResourceKind::IndexedLine { at } else { model.len() };
                model.insert(at, list[at].clone());
            }
            if rules.kind == ResourceKind::IndexedLine {
                for (at, object) in model.iter_mut().enumerate() {
                    object.set(rules.identity[0], Value::Int(at as i64));
                }
            }
            assert_eq!(engine().list(&document, resource, place).unwrap(), model, "{} in {place}", name(resource));
            for object in &model {
                let key = key_of(resource, object);
                assert_eq!(engine().get(&document, resource, place, &key).as_ref().ok(), Some(object), "{key:?}");
            }
        }
        if rules.kind == ResourceKind::IndexedLine && !model.is_empty() {
            for index in [-1, model.len() as i64 + 1, i64::MAX] {
                let mut object = model[0].clone();
                object.set(rules.identity[0], Value::Int(index));
                let error = engine().create(&document, resource, place, &object).unwrap_err();
                assert_eq!(error.reason(), Reason::IndexOutOfRange, "{}", name(resource));
                let key = Key::Index(if index > 0 { index - 1 } else { index });
                for error in [
                    engine().get(&document, resource, place, &key).unwrap_err(),
                    engine().delete(&document, resource, place, &key).unwrap_err(),
                    engine().replace(&document, resource, place, &key, &object).unwrap_err(),
                ] {
                    assert_eq!(error.reason(), Reason::ObjectNotFound, "{} {key:?}", name(resource));
                }
            }
        }
    }
}

#[test]
fn a_section_reads_as_it_was_sent_and_no_other_line_changes() {
    let (mut written, mut tried) = (0, 0);
    for seed in 0..6 {
        let mut dice = Dice(100 + seed);
        let base = file(&mut dice, if seed % 2 == 0 { "\n" } else { "\r\n" });
        for (resource, rules) in resources().filter(|(_, rules)| rules.kind == ResourceKind::Section) {
            for round in 0..6 {
                tried += 1;
                written += usize::from(check_section(&mut dice, &base, resource, rules, round % 2 == 1));
            }
        }
    }
    assert!(written * 10 > tried * 8, "only {written} of {tried} sections could be written");
}

/// The section that `base` has of a kind.
fn main_key(rules: &Resource) -> Key {
    if rules.singleton { Key::Singleton } else { Key::Name("main".to_owned()) }
}

/// That section replaced by a random object that it takes.
fn replaced_main(
    dice: &mut Dice,
    base: &Document,
    resource: MessageId,
    rules: &Resource,
    hostile: bool,
) -> Option<Edited> {
    let key = main_key(rules);
    let attempt = |object: &Object| {
        let mut object = object.clone();
        if let [identity] = rules.identity[..] {
            object.set(identity, Value::Str("main".into()));
        }
        engine().replace(base, resource, &Place::default(), &key, &object)
    };
    fitted(dice, resource, hostile, &attempt).map(|(_, edited)| edited)
}

fn check_section(dice: &mut Dice, base: &Document, resource: MessageId, rules: &Resource, hostile: bool) -> bool {
    let nowhere = Place::default();
    let what = name(resource);
    if !rules.singleton {
        let attempt = |object: &Object| engine().create(base, resource, &nowhere, object);
        let Some((object, edited)) = fitted(dice, resource, hostile, &attempt) else { return false };
        let (gone, come) = changed(base, &edited.document);
        let come = come.concat();
        let come = String::from_utf8_lossy(&come);
        assert!(gone.is_empty(), "{what}: {gone:?} became {come}");
        let key = key_of(resource, &object);
        let read = engine().get(&edited.document, resource, &nowhere, &key).unwrap();
        assert_eq!(differences(resource, &object, &read), [""; 0], "{what}: {come}");
        assert_reread(&edited.document, resource, &nowhere);
        let deleted = engine().delete(&edited.document, resource, &nowhere, &key).unwrap().document;
        assert_same(&deleted, base, &format!("{what}: created and deleted"));
    }

    let key = main_key(rules);
    let bare = engine().get(base, resource, &nowhere, &key).unwrap();
    let Some(edited) = replaced_main(dice, base, resource, rules, hostile) else { return false };
    let document = edited.document;
    assert_eq!(foreign(&document, resource), foreign(base, resource), "{what}");
    let read = engine().get(&document, resource, &nowhere, &key).unwrap();
    let same = engine().replace(&document, resource, &nowhere, &key, &read).unwrap_or_else(|error| {
        panic!("{what}: what was read is refused: {error:?}");
    });
    assert_same(&same.document, &document, &format!("{what}: replacing by itself"));
    let attempt = |object: &Object| {
        let mut object = object.clone();
        if let [identity] = rules.identity[..] {
            object.set(identity, Value::Str("main".into()));
        }
        engine().replace(&document, resource, &nowhere, &key, &object)
    };
    if let Some((_, other)) = fitted(dice, resource, hostile, &attempt) {
        assert_eq!(foreign(&other.document, resource), foreign(base, resource), "{what}");
    }
    let back = engine().replace(&document, resource, &nowhere, &key, &bare).unwrap().document;
    assert_same(&back, base, &format!("{what}: with all fields removed again"));
    true
}

/// All lines of a document that are no field of a section of this kind, in order.
fn foreign(document: &Document, resource: MessageId) -> String {
    let rules = tables().messages[resource].resource.as_ref().unwrap();
    let grammar = engine().schema().grammar.section(resource).unwrap();
    let mut out = String::new();
    for section in document.sections() {
        let layout = engine().layouts.get(section.kind()).unwrap();
        let owned: BTreeSet<usize> = said(section)
            .filter(|_| section.kind() == &*rules.keyword)
            .filter(|line| layout.child_of(&line.words).is_none() && grammar.owner(&line.words).is_some())
            .map(|line| line.at)
            .collect();
        writeln!(out, "{:?}", section.lead()).unwrap();
        writeln!(out, "{:?}", section.header().raw().split(|byte| *byte == b' ').next()).unwrap();
        for (at, line) in section.lines().enumerate().filter(|(at, _)| !owned.contains(at)) {
            writeln!(out, "{} {:?}", owned.contains(&at), line.raw_with_ending()).unwrap();
        }
    }
    out
}

#[test]
fn whatever_a_file_holds_replacing_it_by_itself_changes_nothing() {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for folder in ["tests/data/configs", "/usr/share/doc/haproxy/examples", "/etc/haproxy"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "cfg") {
                texts.push(std::fs::read(entry.path()).unwrap());
            }
        }
    }
    assert!(texts.len() > 5);
    let mut objects = 0;
    for bytes in texts {
        let document = Document::parse(&bytes);
        assert_eq!(document.to_bytes(), bytes);
        for (resource, rules) in resources() {
            let places: Vec<Place> = if rules.kind == ResourceKind::Section {
                vec![Place::default()]
            } else {
                let holds = |kind: &str| rules.parents.iter().any(|parent| &*parent.section == kind);
                let sections = document.sections().iter().filter(|section| holds(section.kind()));
                sections.map(|s| Place { section: Some(s.kind().into()), name: s.name().to_owned() }).collect()
            };
            for place in places {
                for object in engine().list(&document, resource, &place).unwrap() {
                    let key = key_of(resource, &object);
                    // Of several objects with one name, the name means the first.
                    let object = engine().get(&document, resource, &place, &key).unwrap();
                    let same = engine().replace(&document, resource, &place, &key, &object).unwrap_or_else(|error| {
                        panic!("{} {key:?} in {place}: {error:?}", name(resource));
                    });
                    assert_same(&same.document, &document, &format!("{} {key:?} in {place}", name(resource)));
                    objects += 1;
                }
            }
        }
    }
    assert!(objects > 150, "{objects} objects");
}
