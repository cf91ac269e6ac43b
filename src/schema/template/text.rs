//! The words of values, and what to say when a value is not one.

use std::borrow::Cow;

use super::node::{Leaf, PrintOnly};
use super::units;
use crate::schema::value::Value;
use crate::schema::words;

/// The word of one value, and the number of a print-only token.
pub(super) fn of<'v>(leaf: &Leaf, value: &'v Value) -> Result<(Cow<'v, str>, Option<PrintOnly>), String> {
    match (leaf, value) {
        (Leaf::Text { strict: false, .. }, Value::Str(text)) => {
            let text = words::escaped(text, true);
            one_word(&text).map(|()| (text, None))
        }
        (Leaf::Text { .. } | Leaf::Joined { .. } | Leaf::Variable, Value::Str(text)) => {
            one_word(text).map(|()| (Cow::Borrowed(&**text), None))
        }
        (Leaf::Address { .. }, Value::Str(text)) => one_word(text).map(|()| (units::address_text(text), None)),
        (Leaf::Number(number), Value::Int(value)) => {
            if !number.listed.is_empty() && !number.listed.contains(value) {
                let listed: Vec<_> = number.listed.iter().map(i64::to_string).collect();
                return Err(format!("must be one of {}", listed.join(", ")));
            }
            if *value < 0 && number.unit.is_some() {
                return Err("must not be negative".to_owned());
            }
            Ok((Cow::Owned(units::text(*value, number.unit)), None))
        }
        (Leaf::Token(tokens), Value::Enum(number)) => match tokens.by_number.get(number) {
            Some((word, print_only)) => Ok((Cow::Owned(word.to_string()), *print_only)),
            None => Err("is not a value of its enum".to_owned()),
        },
        _ => Err("has a value of another type".to_owned()),
    }
}

fn one_word(text: &str) -> Result<(), String> {
    if words::is_one_word(text) {
        return Ok(());
    }
    if words::breaks_line(text) {
        return Err("must be one word of the file, without line breaks and NUL".to_owned());
    }
    Err(format!("must be one word of the file: write it as {}", quoted(text)))
}

/// Why a text cannot stand in a line as words.
pub(super) fn not_words(text: &str) -> String {
    if words::breaks_line(text) {
        return "must be words of one line, without line breaks and NUL".to_owned();
    }
    if text.trim().is_empty() {
        return "must be one or more words".to_owned();
    }
    "must be words of one line: close every quote, and quote or escape `#`".to_owned()
}

/// `text` in quotes, so that it is one word with the same meaning.
fn quoted(text: &str) -> String {
    if !text.contains('\'') {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for letter in text.chars() {
        if matches!(letter, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    out
}
