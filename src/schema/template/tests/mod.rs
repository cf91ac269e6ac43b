//! The cases of `tests/data/templates`, and laws over all models.

mod behaviour;
mod laws;
mod tables;

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{Fault, Grammar, Keyword};
use crate::schema::tables::{MessageId, Tables};
use crate::schema::value::Object;
use crate::schema::words;

const CASES: &str = include_str!("../../../../tests/data/templates/cases.jsonl");
const MODELS: &str = include_str!("../../../../tests/data/templates/v2-templates.json");

fn cases() -> Vec<Json> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn models() -> (Tables, Grammar) {
    let tables = tables::of_models(MODELS);
    let grammar = Grammar::compile(&tables).unwrap_or_else(|faults| panic!("{}", texts(&faults)));
    (tables, grammar)
}

fn texts(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads a line of a message, or a field line of a section.
fn parse(grammar: &Grammar, message: MessageId, line: &str) -> Option<Object> {
    let words = words::split(line).words;
    if let Some(object) = grammar.parse_line(message, &words) {
        return Some(object);
    }
    let section = grammar.section(message)?;
    let mut object = Object::new();
    if section.read(&words, &mut object).is_some() {
        return Some(object);
    }
    // Print-only fields are never chosen, but their templates read as well.
    (0..section.len())
        .filter(|slot| section.is_print_only(*slot))
        .find_map(|slot| section.read_as(slot, &words, &mut object))
        .map(|()| object)
}

/// Prints an object; an error when a value cannot be written or is left unused.
fn print(grammar: &Grammar, message: MessageId, object: &Object, line: &str) -> Result<String, String> {
    let header = grammar
        .keywords(message)
        .iter()
        .any(|keyword| matches!(keyword, Keyword::Word(word) if line.split(' ').next() == Some(word)));
    let (text, unused) = match grammar.section(message) {
        Some(section) if !header => {
            let printed = section.print(object).map_err(|fault| fault.to_string())?;
            let lines: Vec<_> = printed.lines.into_iter().map(|(_, line)| line).collect();
            (lines.join("\n"), printed.unused)
        }
        _ => {
            let printed = grammar.print_line(message, object).map_err(|fault| fault.to_string())?;
            (printed.text, printed.unused)
        }
    };
    if unused.is_empty() { Ok(text) } else { Err(format!("unused {unused:?}")) }
}

fn run(case: &Json, tables: &Tables, grammar: &Grammar, message: MessageId) -> Result<(), String> {
    let line = case["line"].as_str().unwrap_or_default();
    let test = case["test"].as_str().unwrap();
    if test == "print-error" {
        let object = tables::object(tables, message, &case["json"]);
        return match print(grammar, message, &object, line) {
            Ok(text) => Err(format!("printed {text:?}")),
            Err(_) => Ok(()),
        };
    }
    let expected = case["json"].as_object().map(|_| tables::object(tables, message, &case["json"]));
    let parsed = parse(grammar, message, line);
    if parsed != expected {
        return Err(format!("{line:?}\n      read {parsed:?}\n  expected {expected:?}"));
    }
    let printed = if test == "both" { Some(line) } else { case["printed"].as_str() };
    if let (Some(object), Some(printed)) = (expected, printed) {
        let text = print(grammar, message, &object, line)?;
        if text != printed {
            return Err(format!("printed {text:?}\n  expected {printed:?}"));
        }
    }
    Ok(())
}

fn refused_by(note: &str) -> &'static str {
    match note {
        "two slots touch" | "a slot touches an optional slot" => "A1",
        "optional free word before a free word" | "optional free word before a number" => "A2",
        "optional number before a number" => "A3",
        "rest of line before a free word" => "A4",
        "keyword of an optional part can also begin what follows" => "A5",
        "an any-order item must begin with a keyword or an enum token" => "A6",
        "two any-order items begin alike" | "an any-order item begins like what follows the group" => "A7",
        "alternatives read the same line" | "free word before the narrower number in alternatives" => "A8",
        "two values read the same line" | "two values begin with a free word" => "A9",
        "repetition and what follows begin alike" | "a repeated message must begin with a keyword" => "A11",
        _ => "A12",
    }
}

#[test]
fn all_cases_of_the_notation_hold() {
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in cases().iter().filter(|case| case["kind"] == "notation") {
        ran += 1;
        let tables = tables::of_case(case);
        let compiled = Grammar::compile(&tables);
        let outcome = match (case["test"].as_str().unwrap(), &compiled) {
            ("refuse", Ok(_)) => Err("compiles".to_owned()),
            ("refuse", Err(faults)) if faults[0].rule == refused_by(case["note"].as_str().unwrap()) => Ok(()),
            (_, Err(faults)) => Err(texts(faults)),
            (_, Ok(grammar)) => run(case, &tables, grammar, 0),
        };
        if let Err(why) = outcome {
            failed.push(format!("{} {}: {why}", case["id"], case["template"]));
        }
    }
    assert!(failed.is_empty(), "{} of {ran}:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(ran, 189);
}

#[test]
fn all_cases_of_the_models_hold() {
    let (tables, grammar) = models();
    let ids: HashMap<&str, MessageId> = tables.message_by_name.iter().map(|(name, id)| (&**name, *id)).collect();
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in cases().iter().filter(|case| case["kind"] == "model") {
        ran += 1;
        if let Err(why) = run(case, &tables, &grammar, ids[case["model"].as_str().unwrap()]) {
            failed.push(format!("{} {}: {why}", case["id"], case["model"]));
        }
    }
    assert!(failed.is_empty(), "{} of {ran}:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(ran, 419);
}
