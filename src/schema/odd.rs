//! Bytes that are not UTF-8, as characters that stand in for them.
//!
//! HAProxy takes any bytes; values of the API are text. While a configuration is in memory, each such byte is a character
//! of a range that no one uses, so that it is read, moved and written like any other. It becomes the byte again where the
//! configuration is written, and U+FFFD where a value is shown.

use std::borrow::Cow;

use super::value::{Object, Value};

/// A byte `b` from 0x80 to 0xff stands as the character `FIRST + b`: U+10FF80 to U+10FFFF.
const FIRST: u32 = 0x10_ff00;
/// What a value shows in the place of such a byte.
const UNKNOWN: char = '\u{fffd}';
/// All stand-ins begin with these two bytes, followed by 0xbe or 0xbf.
const PREFIX: [u8; 2] = [0xf4, 0x8f];

fn is_stand_in(letter: char) -> bool {
    u32::from(letter) >= FIRST + 0x80
}

fn push(byte: u8, out: &mut String) {
    out.extend(char::from_u32(FIRST + u32::from(byte)));
}

/// The bytes of a file with stand-ins for those that are not UTF-8, which makes them UTF-8. Characters of the range itself
/// are taken apart, so that [`release`] gives back every file.
pub fn hold(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok_and(|text| !holds(text)) {
        return Cow::Borrowed(bytes);
    }
    let mut out = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if is_stand_in(letter) {
                letter.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push(byte, &mut out));
            } else {
                out.push(letter);
            }
        }
        chunk.invalid().iter().for_each(|byte| push(*byte, &mut out));
    }
    Cow::Owned(out.into_bytes())
}

/// The bytes of the file again.
pub fn release(held: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let mut rest = held;
    while let Some(at) = memchr::memmem::find(rest, &PREFIX) {
        let (before, behind) = rest.split_at(at);
        out.extend_from_slice(before);
        if let [_, _, high @ (0xbe | 0xbf), low, more @ ..] = behind {
            out.push(0x80 | ((high & 1) << 6) | (low & 0x3f));
            rest = more;
        } else {
            out.extend_from_slice(&PREFIX);
            rest = &behind[PREFIX.len()..];
        }
    }
    if rest.len() == held.len() {
        return Cow::Borrowed(held);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// True for a text with stand-ins.
pub fn holds(text: &str) -> bool {
    memchr::memchr(PREFIX[0], text.as_bytes()).is_some() && text.contains(is_stand_in)
}

/// Why a caller's text must not have stand-ins: they would become bytes in the file.
pub const REFUSED: &str = "must not hold characters from U+10FF80 to U+10FFFF";

/// A text as callers see it.
pub fn shown(text: &str) -> Cow<'_, str> {
    if holds(text) { Cow::Owned(text.replace(is_stand_in, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// True for an object with a text that may have been shown for another.
pub fn is_doubtful(object: &Object) -> bool {
    fn value(one: &Value) -> bool {
        match one {
            Value::Str(text) => text.contains(UNKNOWN),
            Value::Object(object) => is_doubtful(object),
            Value::List(items) => items.iter().any(value),
            _ => false,
        }
    }
    object.iter().any(|(_, one)| value(one))
}

/// Puts the texts of `old` back into `new` where `new` has what is shown of them. `Err`: the positions of fields on the way
/// to a text that is another, but holds what only the old one can say.
pub fn restore(old: &Object, new: &mut Object) -> Result<(), Vec<usize>> {
    let mut lost = None;
    new.retain(|field, value| {
        if lost.is_none()
            && let Err(mut path) = restore_value(old.get(field), value)
        {
            path.insert(0, field);
            lost = Some(path);
        }
        true
    });
    lost.map_or(Ok(()), Err)
}

fn restore_value(old: Option<&Value>, new: &mut Value) -> Result<(), Vec<usize>> {
    match (old, new) {
        (Some(Value::Str(old)), Value::Str(new)) if new.contains(UNKNOWN) && holds(old) => {
            if shown(old) != **new {
                return Err(Vec::new());
            }
            new.clone_from(old);
        }
        (Some(Value::Object(old)), Value::Object(new)) => return restore(old, new),
        (Some(Value::List(olds)), Value::List(news)) => {
            for (at, new) in news.iter_mut().enumerate() {
                match olds.iter().find(|old| is_shown_as(old, new)) {
                    Some(old) => new.clone_from(old),
                    None => restore_value(olds.get(at), new)?,
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// True when callers see `old` as `new`.
fn is_shown_as(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Str(old), Value::Str(new)) => shown(old) == **new,
        (Value::Object(old), Value::Object(new)) => {
            let pairs = old.iter().zip(new.iter());
            old.iter().count() == new.iter().count()
                && pairs.into_iter().all(|((at, old), (other, new))| at == other && is_shown_as(old, new))
        }
        (Value::List(old), Value::List(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| is_shown_as(old, new))
        }
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_become_characters_and_bytes_again() {
        assert_eq!(hold(b"plain \xc3\xa9"), Cow::Borrowed(b"plain \xc3\xa9"));
        let held = hold(b"a\xe9b\xff\x80");
        let text = std::str::from_utf8(&held).unwrap();
        assert_eq!(text, "a\u{10ffe9}b\u{10ffff}\u{10ff80}");
        assert_eq!(shown(text), "a\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(&*release(&held), b"a\xe9b\xff\x80");
        let own = "\u{10ffe9}\u{10fffd}\u{10ff00}";
        assert_eq!(&*release(&hold(own.as_bytes())), own.as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let held = hold(&bytes);
            prop_assert!(std::str::from_utf8(&held).is_ok());
            prop_assert_eq!(&*release(&held), &bytes[..]);
        }
    }

    #[test]
    fn what_was_shown_is_put_back() {
        let old = |texts: &[&str]| {
            let mut object = Object::new();
            texts.iter().enumerate().for_each(|(at, text)| object.set(at, Value::Str((*text).into())));
            object
        };
        let held = old(&["caf\u{10ffe9}", "x"]);
        let mut new = old(&["caf\u{fffd}", "y"]);
        assert!(is_doubtful(&new) && !is_doubtful(&held));
        assert_eq!(restore(&held, &mut new), Ok(()));
        assert_eq!(new, old(&["caf\u{10ffe9}", "y"]));
        assert_eq!(restore(&held, &mut old(&["caf\u{fffd}s"])), Err(vec![0]));
        assert_eq!(restore(&held, &mut old(&["other", "\u{fffd}"])), Ok(()), "nothing of the old text is in it");
    }
}
