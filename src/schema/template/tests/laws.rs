//! Laws over every model, with plain and with hostile values: what prints is read back, what is read prints.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::Grammar;
use super::{models, tables};
use crate::schema::tables::{Field, Kind, MessageId, ResourceKind, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words;

const PLAIN: &[&str] = &["a", "src", "x.y", "10.0.0.1", "/run/x", "v1", "\"a b\"", "${X}", "%[src]", "host", "txn"];
const HOSTILE: &[&str] = &[
    "if", "unless", "a:b", "a.b", "a,b", "(", ")", "a(b)", "5", "-1", "log", "global", "no", "ssl", "check", "len", "",
    " ", "a b", "a  b", "\"", "a#", "\n", "\\", "'", "a\\ b", "::1", "[::1]", ":80", "a:80", "/x", "unix@x", "hdr",
    "status", "name", "!", "deny", "if x", "a if b", "1k", "10s", "port", "*", "{", "a;b", "\u{e9}", "\t", "a\tb",
    "\r", "option", "default", "weight 5", "crt", "\u{a0}",
];

/// A small generator that is fed from one seed, so that a failing case is named by it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn text(&mut self, hostile: bool) -> String {
        if hostile && self.roll(2) == 0 {
            return HOSTILE[self.roll(HOSTILE.len())].to_owned();
        }
        PLAIN[self.roll(PLAIN.len())].to_owned()
    }

    fn single(&mut self, tables: &Tables, field: &Field, hostile: bool, depth: usize) -> Value {
        match field.kind {
            Kind::Bool => Value::Bool(self.roll(4) > 0),
            Kind::Int32 | Kind::Int64 if hostile => Value::Int([0, 1, -1, 80, i64::MAX, i64::MIN][self.roll(6)]),
            Kind::Int32 | Kind::Int64 => Value::Int([0, 1, 80, 1000, 86_400_000][self.roll(5)]),
            Kind::Enum(id) => Value::Enum(tables.enums[id].values[self.roll(tables.enums[id].values.len())].number),
            Kind::Message(id) => Value::Object(self.object(tables, id, hostile, depth + 1)),
            _ => Value::Str(self.text(hostile).into()),
        }
    }

    fn field(&mut self, tables: &Tables, field: &Field, hostile: bool, depth: usize) -> Value {
        if field.repeated {
            return Value::List((0..=self.roll(3)).map(|_| self.single(tables, field, hostile, depth)).collect());
        }
        self.single(tables, field, hostile, depth)
    }

    fn object(&mut self, tables: &Tables, message: MessageId, hostile: bool, depth: usize) -> Object {
        let fields = &tables.messages[message].fields;
        let mut object = Object::new();
        let share = 1 + self.roll(fields.len().clamp(2, 12));
        for (at, field) in fields.iter().enumerate() {
            if !field.print_only && !field.no_line && depth < 3 && self.roll(share) == 0 {
                object.set(at, self.field(tables, field, hostile, depth));
            }
        }
        object
    }
}

/// Prints a line, filling in what it says is missing.
fn printed(
    tables: &Tables,
    grammar: &Grammar,
    message: MessageId,
    dice: &mut Dice,
    hostile: bool,
) -> Option<(Object, String, Vec<String>)> {
    let mut object = dice.object(tables, message, hostile, 0);
    for _ in 0..12 {
        match grammar.print_line(message, &object) {
            Ok(printed) if printed.text.is_empty() => return None,
            Ok(printed) => return Some((object, printed.text, printed.unused)),
            Err(fault) => {
                // Only a value of the message itself is filled in; the text tells that nothing is there.
                let [step] = fault.steps[..] else { return None };
                let field = &tables.messages[message].fields[step.field];
                let hostile = hostile && dice.roll(3) == 0;
                let value = dice.field(tables, field, hostile, 0);
                object.set(step.field, value);
            }
        }
    }
    None
}

/// True when what `object` says is in `read` as well. Flags without text and absent zeros are not said.
fn says(tables: &Tables, message: MessageId, object: &Object, read: &Object) -> bool {
    object.iter().all(|(at, value)| {
        let field = &tables.messages[message].fields[at];
        match (value, read.get(at), field.kind) {
            (Value::Object(one), Some(Value::Object(two)), Kind::Message(id)) => says(tables, id, one, two),
            (Value::Object(one), None, Kind::Message(id)) => says(tables, id, one, &Object::new()),
            (Value::List(one), Some(Value::List(two)), Kind::Message(id)) => {
                one.len() == two.len()
                    && one.iter().zip(two).all(|pair| match pair {
                        (Value::Object(one), Value::Object(two)) => says(tables, id, one, two),
                        _ => false,
                    })
            }
            (Value::Str(one), Some(Value::Str(two)), _) => {
                let word = field.word && words::plain_text(one) == **two;
                one == two || canonical(one) == **two || words::escaped(one, true) == **two || word
            }
            (one, Some(two), _) => one == two,
            // A flag may have no text for this value.
            (Value::Bool(false), None, _) => true,
            (Value::Enum(_), None, Kind::Enum(id)) => tables.enums[id].toggle,
            (_, None, _) => false,
        }
    })
}

/// The spellings that printing unifies: control characters, blanks between words and brackets of an address.
fn canonical(text: &str) -> String {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    words::split(&words::escaped(bare, false)).words.join(" ")
}

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn with_line(tables: &Tables) -> Vec<MessageId> {
    (0..tables.messages.len()).filter(|id| tables.messages[*id].line.is_some()).collect()
}

#[test]
fn what_prints_is_read_back_the_same() {
    let (tables, grammar) = models();
    let ids = with_line(&tables);
    for hostile in [false, true] {
        let printed_some = std::cell::Cell::new(0usize);
        runner(6000)
            .run(&any::<u64>(), |seed| {
                let mut dice = Dice(seed);
                let message = ids[dice.roll(ids.len())];
                let Some((object, text, unused)) = printed(&tables, &grammar, message, &mut dice, hostile) else {
                    return Ok(());
                };
                printed_some.set(printed_some.get() + 1);
                let read = grammar.parse_line(message, &words::split(&text).words);
                let Some(read) = read else { return Err(TestCaseError::fail(format!("{text:?} is not read"))) };
                let name = &tables.messages[message].full_name;
                prop_assert!(!text.contains(['\n', '\r', '\0']), "{text:?}");
                if unused.is_empty()
                    && grammar.section(message).is_none()
                    && !print_only_value(&tables, message, &object)
                {
                    prop_assert!(says(&tables, message, &object, &read), "{name} {text:?}\n{object:?}\n{read:?}");
                }
                // What was read says exactly the same line again.
                let again = grammar
                    .print_line(message, &read)
                    .map_err(|fault| TestCaseError::fail(format!("{text:?}: {fault}")))?;
                prop_assert!(again.unused.is_empty(), "{name} {text:?} leaves {:?}", again.unused);
                let once_more = grammar.parse_line(message, &words::split(&again.text).words);
                prop_assert_eq!(once_more, Some(read), "{} {:?} {:?}", name, text, again.text);
                Ok(())
            })
            .unwrap();
        assert!(printed_some.get() > 2000, "only {} of 6000 objects could be printed", printed_some.get());
    }
}

fn print_only_value(tables: &Tables, message: MessageId, object: &Object) -> bool {
    object.iter().any(|(at, value)| match (tables.messages[message].fields[at].kind, value) {
        (Kind::Enum(id), Value::Enum(number)) => tables.enums[id].value(*number).is_some_and(|value| value.print_only),
        _ => false,
    })
}

#[test]
fn what_a_section_prints_is_read_back_the_same() {
    let (tables, grammar) = models();
    let is_section =
        |id: &MessageId| tables.messages[*id].resource.as_ref().is_some_and(|r| r.kind == ResourceKind::Section);
    let ids: Vec<_> = (0..tables.messages.len()).filter(is_section).collect();
    for hostile in [false, true] {
        let lines_seen = std::cell::Cell::new(0usize);
        runner(1500)
            .run(&any::<u64>(), |seed| {
                let mut dice = Dice(seed);
                let message = ids[dice.roll(ids.len())];
                let section = grammar.section(message).unwrap();
                let mut object = dice.object(&tables, message, hostile, 0);
                let mut tries = 0;
                let printed = loop {
                    match section.print(&object) {
                        Ok(printed) => break printed,
                        // The field at fault is dropped, or filled in when it is missing, until the rest prints.
                        Err(fault) => {
                            tries += 1;
                            prop_assert!(tries < 500, "{fault}");
                            let at = fault.steps[0].field;
                            if object.take(at).is_none() {
                                object.set(at, dice.field(&tables, &tables.messages[message].fields[at], hostile, 0));
                            }
                        }
                    }
                };
                lines_seen.set(lines_seen.get() + printed.lines.len());
                let mut read = Object::new();
                let mut last = 0;
                for (slot, line) in &printed.lines {
                    prop_assert_eq!(section.read(&words::split(line).words, &mut read), Some(*slot), "{:?}", line);
                    prop_assert!(last <= *slot, "lines stand in order of declaration");
                    last = *slot;
                }
                let again = section
                    .print(&read)
                    .map_err(|fault| TestCaseError::fail(format!("{:?}: {fault}", printed.lines)))?;
                prop_assert!(again.unused.is_empty(), "{:?} leaves {:?}", printed.lines, again.unused);
                prop_assert_eq!(&again.lines, &printed.lines);
                Ok(())
            })
            .unwrap();
        assert!(lines_seen.get() > 3000, "only {} lines", lines_seen.get());
    }
}

#[test]
fn what_is_read_prints_and_is_read_again_the_same() {
    let (tables, grammar) = models();
    let ids = with_line(&tables);
    // Words of all templates, so that lines come close to what is read.
    let mut vocabulary: Vec<String> =
        HOSTILE.iter().chain(PLAIN).filter(|word| words::is_one_word(word)).map(|word| (*word).to_owned()).collect();
    let templates = tables.messages.iter().filter_map(|message| message.line.clone());
    let lines = tables
        .enums
        .iter()
        .flat_map(|kind| kind.values.iter().map(|value| value.line.clone().unwrap_or(value.token.clone())));
    for template in templates.chain(lines) {
        let clean = template.replace(['{', '}', '[', ']', '<', '>', '|', '=', '*'], " ");
        vocabulary.extend(clean.split_ascii_whitespace().map(|word| word.trim_end_matches("...").to_owned()));
    }
    vocabulary.retain(|word| words::is_one_word(word));
    let read_some = std::cell::Cell::new(0usize);
    runner(12_000)
        .run(&any::<u64>(), |seed| {
            let mut dice = Dice(seed);
            let message = ids[dice.roll(ids.len())];
            // A printed line with a few words changed.
            let Some((_, text, _)) = printed(&tables, &grammar, message, &mut dice, true) else { return Ok(()) };
            let mut line: Vec<String> = words::split(&text).words.into_iter().map(str::to_owned).collect();
            for _ in 0..=dice.roll(3) {
                let word = vocabulary[dice.roll(vocabulary.len())].clone();
                let at = dice.roll(line.len() + 1);
                match (dice.roll(3), at < line.len()) {
                    (0, true) => line[at] = word,
                    (1, true) => drop(line.remove(at)),
                    _ => line.insert(at, word),
                }
            }
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let Some(read) = grammar.parse_line(message, &line) else { return Ok(()) };
            read_some.set(read_some.get() + 1);
            let again = grammar
                .print_line(message, &read)
                .map_err(|fault| TestCaseError::fail(format!("{line:?}: {fault}")))?;
            prop_assert!(again.unused.is_empty(), "{line:?} leaves {:?}", again.unused);
            prop_assert_eq!(
                grammar.parse_line(message, &words::split(&again.text).words),
                Some(read),
                "{:?} {:?}",
                line,
                again.text
            );
            Ok(())
        })
        .unwrap();
    assert!(read_some.get() > 1000, "only {} lines were read", read_some.get());
}

#[test]
fn defaults_of_the_table_are_found_without_being_told() {
    let (tables, _) = models();
    let compiler = super::super::compile::Compiler::new(&tables);
    let templates = tables::default_templates(super::MODELS);
    assert!(templates.len() > 300);
    for (model, field, template) in templates {
        let message = tables.message_by_name[model.as_str()];
        let at = tables.messages[message].by_json[field.as_str()];
        assert_eq!(compiler.field_template(message, at), template, "{model}.{field}");
    }
}
