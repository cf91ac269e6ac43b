//! Lines with words in quotes or with escapes that need none.
//!
//! HAProxy reads such a word as the word, so keywords, names, numbers and addresses are looked for without quotes. Free
//! text is shown as it is written. A line is therefore read twice: as it is written, and with the plain words. Where both
//! readings fill the same fields, the written one counts, else the plain one.

use std::borrow::Cow;

use crate::schema::value::{Object, Value};
use crate::schema::words;

/// The words of a line, plain where they can be. `None` when all are written so.
pub(super) fn plain_words<'w>(words: &[&'w str]) -> Option<Vec<Cow<'w, str>>> {
    if !words.iter().copied().any(words::is_marked) {
        return None;
    }
    let plain: Vec<Cow<'w, str>> = words.iter().map(|word| words::plain(word)).collect();
    plain.iter().any(|word| matches!(word, Cow::Owned(_))).then_some(plain)
}

/// Reads a line both ways and hands out the reading that counts, and whether it is that of the plain words.
pub(super) fn choose<T>(
    words: &[&str],
    read: impl Fn(&[&str]) -> Option<T>,
    object: impl Fn(&T) -> &Object,
) -> Option<(T, bool)> {
    let written = read(words);
    let Some(plain) = plain_words(words) else { return Some((written?, false)) };
    let plain: Vec<&str> = plain.iter().map(|word| &**word).collect();
    match (written, read(&plain)) {
        (Some(written), Some(meant)) if same_fields(object(&written), object(&meant)) => Some((written, false)),
        (_, Some(meant)) => Some((meant, true)),
        (written, None) => Some((written?, false)),
    }
}

/// True when two readings fill the same fields and differ in nothing but the spelling of texts.
fn same_fields(one: &Object, other: &Object) -> bool {
    one.residue().len() == other.residue().len()
        && one.iter().count() == other.iter().count()
        && one
            .iter()
            .zip(other.iter())
            .all(|((at, value), (other_at, other))| at == other_at && same_value(value, other))
}

fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Str(_), Value::Str(_)) => true,
        (Value::Object(one), Value::Object(other)) => same_fields(one, other),
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_value(one, other))
        }
        (one, other) => one == other,
    }
}
