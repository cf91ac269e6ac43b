//! Writing.

use crate::schema::odd;
use crate::schema::tables::{Field, Kind, MessageId, MessageType, Tables};
use crate::schema::value::{Object, Value};

/// Appends an object in one line, keys in the order of /v2. What is not set is not written.
pub fn write(tables: &Tables, message: MessageId, object: &Object, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    write_keys(tables, &tables.messages[message], object, &mut first, out);
    out.push(b'}');
}

fn write_keys(tables: &Tables, table: &MessageType, object: &Object, first: &mut bool, out: &mut Vec<u8>) {
    // Most messages have many more fields than an object sets: find the set ones without a search for each.
    let mut set = [0_u64; 8];
    for (at, _) in object.iter() {
        if let Some(word) = set.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
    for &at in &table.json_order {
        if set.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) == 0) {
            continue;
        }
        let Some(value) = object.get(at) else { continue };
        let field = &table.fields[at];
        if let (true, Kind::Message(inner), Value::Object(part)) = (field.flatten, field.kind, value) {
            write_keys(tables, &tables.messages[inner], part, first, out);
            continue;
        }
        if !std::mem::replace(first, false) {
            out.push(b',');
        }
        write_text(&field.json, out);
        out.push(b':');
        write_field(tables, field, value, out);
    }
}

/// Appends the value of one field, for answers that are a part of a message: a list, a word, a bare number.
pub fn write_field(tables: &Tables, field: &Field, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => write_int(*number, out),
        // JSON has no infinities; the shortest digits that read back as the same number otherwise.
        Value::Double(number) if number.is_finite() => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Double(_) => out.extend_from_slice(b"null"),
        Value::Str(text) => write_text(&odd::shown(text), out),
        Value::Bytes(raw) => write_text(&String::from_utf8_lossy(raw), out),
        Value::Enum(number) => {
            let token = match field.kind {
                Kind::Enum(id) => tables.enums[id].value(*number).map(|value| &*value.token),
                _ => None,
            };
            match token {
                Some(token) => write_text(token, out),
                // Present without a word of its own, such as a keyword whose argument was left out.
                None if *number == 0 => write_text("", out),
                None => write_int((*number).into(), out),
            }
        }
        Value::Object(object) => match field.kind {
            Kind::Message(inner) => write(tables, inner, object, out),
            _ => out.extend_from_slice(b"{}"),
        },
        Value::List(list) => {
            out.push(b'[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_field(tables, field, item, out);
            }
            out.push(b']');
        }
    }
}

fn write_int(number: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// A string in quotes. Only what JSON demands is escaped, so `<`, `>` and `&` stay readable.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut copied = 0;
    out.push(b'"');
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
