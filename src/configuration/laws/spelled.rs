//! The law of words: whatever Get shows, Replace takes, and no byte changes; in whatever way HAProxy lets a word be written.

use super::*;
use crate::document::Section;
use crate::schema::check::without_inherited;
use crate::schema::words::{is_marked, meaning, split};

/// Runs a law for some seeds, or for many when `BACKSTAY_FULL` is set.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("BACKSTAY_FULL").is_some() { few * 25 } else { few }
}

/// Another way to write a word that has neither quotes nor escapes, or the same word.
fn spelled(dice: &mut Dice, word: &str) -> String {
    if is_marked(word) || word.contains('$') || !word.is_ascii() {
        return word.to_owned();
    }
    let cut = dice.roll(word.len() + 1);
    let (one, two) = word.split_at(cut);
    match dice.roll(6) {
        0 => word.to_owned(),
        1 => format!("\"{word}\""),
        2 => format!("'{word}'"),
        3 => format!("{one}\"{two}\""),
        4 => format!("'{one}'{two}"),
        _ => match two.bytes().next() {
            Some(first) => format!("{one}\\x{first:02x}{}", &two[1..]),
            None => word.to_owned(),
        },
    }
}

/// A word that holds blanks.
fn with_blank(dice: &mut Dice) -> &'static str {
    const WORDS: [&str; 8] =
        ["\"a b\"", "'a b'", "a\\ b", "a\\x20b", "a\"b c\"d", "str(\"a b\")", "field(2,\" \")", "\"a\tb\""];
    WORDS[dice.roll(WORDS.len())]
}

fn all_spelled(dice: &mut Dice, line: &str) -> String {
    let (indent, said) = line.split_at(line.len() - line.trim_start().len());
    let words = split(said);
    let spelled: Vec<String> = words.words.iter().map(|word| spelled(dice, word)).collect();
    format!("{indent}{}{}", spelled.join(" "), &said[words.end..])
}

/// An object with its texts as HAProxy reads them.
fn meant(object: &Object) -> Object {
    fn of(value: &Value) -> Value {
        match value {
            Value::Str(text) => {
                let words = split(text).words;
                let words = words.iter().map(|word| match meaning(word, &|_| None) {
                    Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    None => (*word).to_owned(),
                });
                Value::Str(words.collect::<Vec<_>>().join(" ").into())
            }
            Value::Object(object) => Value::Object(meant(object)),
            Value::List(items) => Value::List(items.iter().map(of).collect()),
            other => other.clone(),
        }
    }
    let mut out = Object::new();
    object.iter().for_each(|(at, value)| out.set(at, of(value)));
    out
}

/// What a caller may not send back, of what it was shown.
fn violations(resource: MessageId, shown: &Object) -> Vec<String> {
    let tables = tables();
    let found = check(tables, resource, shown, "body");
    let found = without_inherited(tables, resource, found, "", shown, shown);
    found.into_iter().map(|violation| format!("{} {}", violation.field, violation.message)).collect()
}

/// The law for one object. Returns what was shown.
fn assert_law(document: &Document, resource: MessageId, place: &Place, key: &Key, what: &str) -> Object {
    let shown = engine().get(document, resource, place, key).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(violations(resource, &shown), [""; 0], "{what}");
    let same = engine().replace(document, resource, place, key, &shown).unwrap_or_else(|error| {
        panic!("{what}: what was shown is refused: {error:?}");
    });
    assert_same(&same.document, document, &format!("{what}: replacing by itself"));
    assert!(same.unused.is_empty(), "{what}: {:?}", same.unused);
    shown
}

/// A document with the line of an object of `resource` in other words, and its key.
fn with_line(document: &Document, at: usize, line: usize, text: &str) -> Document {
    let mut section = Section::clone(&document.sections()[at]);
    section.set_line(line, text).unwrap();
    document.with_section(at, section)
}

#[test]
fn a_line_in_other_spellings_is_the_same_object() {
    let mut tried = 0;
    for seed in seeds(2) {
        let mut dice = Dice(7000 + seed);
        let base = file(&mut dice, "\n");
        for (resource, rules) in resources().filter(|(_, rules)| !rules.parents.is_empty()) {
            for place in places(rules) {
                for _ in 0..3 {
                    tried += usize::from(respell_line(&mut dice, &base, resource, &place));
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

fn respell_line(dice: &mut Dice, base: &Document, resource: MessageId, place: &Place) -> bool {
    let attempt = |object: &Object| engine().create(base, resource, place, object);
    let Some((object, edited)) = fitted(dice, resource, false, &attempt) else { return false };
    let plain = edited.document;
    let at = engine().parent(&plain, place).unwrap();
    let key = match key_of(resource, &object) {
        Key::Name(name) if name.is_empty() => {
            let listed = engine().list(&plain, resource, place).unwrap();
            key_of(resource, listed.last().unwrap())
        }
        key => key,
    };
    let read = engine().get(&plain, resource, place, &key).unwrap();
    let index = if let Key::Index(index) = key { index as usize } else { usize::MAX };
    let found = engine().lines(&plain, resource, at).enumerate().find(|(number, (_, object))| match &key {
        Key::Name(name) => engine().identity(resource, object) == Some(name),
        _ => *number == index,
    });
    let line = found.unwrap().1.0;
    let said = plain.sections()[at].line(line).unwrap().text().unwrap().trim().to_owned();
    let text = all_spelled(dice, &said);
    let document = with_line(&plain, at, line, &text);
    let what = format!("{} in {place}: {said} as {text}", name(resource));
    let key = match (&key, rules_of(resource).derived_name) {
        // A name that follows from the address is spelled as that.
        (Key::Name(_), true) => {
            let listed: Vec<Object> =
                engine().lines(&document, resource, at).filter(|(at, _)| *at == line).map(|l| l.1).collect();
            assert_eq!(listed.len(), 1, "{what}");
            key_of(resource, &listed[0])
        }
        _ => key,
    };
    let shown = assert_law(&document, resource, place, &key, &what);
    assert_eq!(differences(resource, &meant(&read), &meant(&shown)), [""; 0], "{what}");

    // Deleted and created again it is the same.
    let gone = engine().delete(&document, resource, place, &key).unwrap().document;
    let again = engine().create(&gone, resource, place, &shown).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let read = engine().get(&again.document, resource, place, &key).unwrap();
    assert_eq!(differences(resource, &shown, &read), [""; 0], "{what}: created again");

    with_blanks(dice, &plain, (at, line), resource, place, &said);
    true
}

/// The same law with a blank in one word, for lines that are still read.
fn with_blanks(
    dice: &mut Dice,
    plain: &Document,
    (at, line): (usize, usize),
    resource: MessageId,
    place: &Place,
    said: &str,
) {
    let words = split(said).words;
    let changed = 1 + dice.roll(words.len());
    let mut text: Vec<&str> = words.clone();
    let Some(word) = text.get_mut(changed) else { return };
    *word = with_blank(dice);
    let text = text.join(" ");
    let document = with_line(plain, at, line, &text);
    let found = engine().lines(&document, resource, at).find(|(number, _)| *number == line);
    let Some((_, object)) = found else { return };
    let key = key_of(resource, &object);
    let what = format!("{} in {place}: {text}", name(resource));
    if matches!(&key, Key::Name(name) if engine().lines(&document, resource, at).filter(|(_, o)| engine().identity(resource, o) == Some(name)).count() > 1)
    {
        return;
    }
    let shown = assert_law(&document, resource, place, &key, &what);
    let gone = engine().delete(&document, resource, place, &key).unwrap().document;
    let again = engine().create(&gone, resource, place, &shown).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let read = engine().get(&again.document, resource, place, &key).unwrap();
    assert_eq!(differences(resource, &shown, &read), [""; 0], "{what}: created again");
    // Names have patterns of their own; wherever else a word may stand, one with a blank may.
    let refused: Vec<_> =
        check(tables(), resource, &shown, "body").into_iter().filter(|v| v.message.ends_with("'^[^\\s]+$'")).collect();
    assert_eq!(refused, [], "{what}");
}

fn rules_of(resource: MessageId) -> &'static Resource {
    tables().messages[resource].resource.as_ref().unwrap()
}

#[test]
fn a_section_in_other_spellings_is_the_same_object() {
    let mut tried = 0;
    for seed in seeds(2) {
        let mut dice = Dice(8000 + seed);
        let base = file(&mut dice, "\n");
        for (resource, rules) in resources().filter(|(_, rules)| rules.kind == ResourceKind::Section) {
            for _ in 0..3 {
                tried += usize::from(respell_section(&mut dice, &base, resource, rules));
            }
        }
    }
    assert!(tried > 50, "{tried}");
}

fn respell_section(dice: &mut Dice, base: &Document, resource: MessageId, rules: &Resource) -> bool {
    let nowhere = Place::default();
    let key = main_key(rules);
    let Some(edited) = replaced_main(dice, base, resource, rules, false) else { return false };
    let plain = edited.document;
    let read = engine().get(&plain, resource, &nowhere, &key).unwrap();
    let at = engine().section_at(&plain, rules, &key).unwrap();
    let layout = engine().layouts.get(&rules.keyword).unwrap();
    let mut section = Section::clone(&plain.sections()[at]);
    let lines: Vec<(usize, String)> = said(&section)
        .filter(|line| layout.child_of(&line.words).is_none())
        .map(|line| (line.at, line.words.join(" ")))
        .collect();
    for (line, text) in &lines {
        section.set_line(*line, all_spelled(dice, text)).unwrap();
    }
    let header = all_spelled(dice, &section.header_words().join(" "));
    section.set_header_text(&header).unwrap();
    let document = plain.with_section(at, section);
    let what = format!("{}: {}", name(resource), String::from_utf8_lossy(document.sections()[at].text()));
    let shown = assert_law(&document, resource, &nowhere, &key, &what);
    assert_eq!(differences(resource, &meant(&read), &meant(&shown)), [""; 0], "{what}");
    true
}

/// Objects of a document by resource, place and key.
fn everything(document: &Document) -> Vec<(MessageId, Place, Key)> {
    let mut found = Vec::new();
    for (resource, rules) in resources() {
        let places: Vec<Place> = if rules.kind == ResourceKind::Section {
            vec![Place::default()]
        } else {
            let holds = |kind: &str| rules.parents.iter().any(|parent| &*parent.section == kind);
            let sections = document.sections().iter().filter(|section| holds(section.kind()));
            sections.map(|s| Place { section: Some(s.kind().into()), name: s.name().to_owned() }).collect()
        };
        for place in places {
            let Ok(objects) = engine().list(document, resource, &place) else { continue };
            found.extend(objects.iter().map(|object| (resource, place.clone(), key_of(resource, object))));
        }
    }
    found
}

#[test]
fn files_in_other_spellings_hold_the_same_objects() {
    let mut objects = 0;
    for entry in std::fs::read_dir("tests/data/configs").unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let plain = Document::parse(text.as_bytes());
        let known = everything(&plain);
        for seed in seeds(2) {
            let mut dice = Dice(9000 + seed);
            let mut spelled = String::new();
            for line in text.split_inclusive('\n') {
                let end = line.trim_end_matches(['\n', '\r']).len();
                if line.trim_start().starts_with(['#', '.']) || !split(line).closed {
                    spelled.push_str(line);
                } else {
                    spelled.push_str(&all_spelled(&mut dice, &line[..end]));
                    spelled.push_str(&line[end..]);
                }
            }
            let document = Document::parse(spelled.as_bytes());
            let what = format!("{} {seed}", entry.path().display());
            for (resource, place, key) in &known {
                let what = format!("{what}: {} {key:?} in {place}", name(*resource));
                let read = engine().get(&plain, *resource, place, key).unwrap();
                if rules_of(*resource).derived_name {
                    continue;
                }
                let shown = assert_law(&document, *resource, place, key, &what);
                assert_eq!(differences(*resource, &meant(&read), &meant(&shown)), [""; 0], "{what}");
                objects += 1;
            }
        }
    }
    assert!(objects > 200, "{objects}");
}
