//! Protobuf's wire format to objects and back, by table.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use super::odd;
use super::tables::{Field, FieldIndex, Kind, MessageId, MessageType, Tables};
use super::value::{Object, Value};
use crate::error::{Error, Reason, Result, Violation};

/// Deepest nesting of messages that is read, the limit of the common protobuf libraries.
const DEPTH: u32 = 100;

/// Reads a message. Repeated scalars may be packed or not, fields may come in any order, of a scalar the last
/// occurrence counts, occurrences of a message are merged, unknown fields are skipped. The zero of a singular enum
/// (`..._UNSPECIFIED`) means "not set" and is not stored, whatever the field's presence.
pub fn decode(tables: &Tables, message: MessageId, bytes: &[u8]) -> Result<Object> {
    let mut object = Object::new();
    let mut input = bytes;
    merge(tables, message, &mut object, &mut input, DEPTH).map_err(Fault::into_error)?;
    Ok(object)
}

/// Appends a message in canonical form: fields by number, repeated scalars packed, nothing for absent fields.
/// Values of another type than their field's are left out; the readers of this crate never produce them.
pub fn encode(tables: &Tables, message: MessageId, object: &Object, out: &mut Vec<u8>) {
    let table = &tables.messages[message];
    let number = |at: FieldIndex| table.fields[at].number;
    let mut last = 0;
    if object.iter().all(|(at, _)| std::mem::replace(&mut last, number(at)) < number(at)) {
        for (at, value) in object.iter() {
            encode_field(tables, &table.fields[at], value, out);
        }
    } else {
        let mut set: Vec<(FieldIndex, &Value)> = object.iter().collect();
        set.sort_unstable_by_key(|(at, _)| number(*at));
        for (at, value) in set {
            encode_field(tables, &table.fields[at], value, out);
        }
    }
}

/// Takes a list of messages apart: what else a message holds, and the items in pieces that are messages of the same kind
/// with nothing else, of about so many bytes each.
pub fn split(message: &Bytes, list: u32, piece: usize) -> Result<(Vec<u8>, Vec<Bytes>)> {
    let (mut input, mut rest, mut pieces) = (&message[..], Vec::new(), Vec::new());
    let place = |input: &[u8]| message.len() - input.len();
    let (mut begun, mut ended) = (0, 0);
    while !input.is_empty() {
        let start = place(input);
        let fault = |what| Fault::new(what).into_error();
        let (number, wire) = decode_key(&mut input).map_err(|_| fault("malformed field key"))?;
        if number != list {
            skip_field(wire, number, &mut input, DecodeContext::default()).map_err(|_| fault("malformed field"))?;
            rest.extend_from_slice(&message[start..place(input)]);
            continue;
        }
        delimited(wire, &mut input).map_err(Fault::into_error)?;
        if start != ended || ended - begun >= piece {
            pieces.push(message.slice(begun..ended));
            begun = start;
        }
        ended = place(input);
    }
    pieces.push(message.slice(begun..ended));
    pieces.retain(|piece| !piece.is_empty());
    Ok((rest, pieces))
}

/// What is wrong, and in which field; the path grows from the inside out.
#[derive(Debug)]
struct Fault {
    path: Vec<Box<str>>,
    what: &'static str,
}

type Decoded<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    fn new(what: &'static str) -> Self {
        Fault { path: Vec::new(), what }
    }

    fn into_error(self) -> Error {
        let path = self.path.iter().rev().map(|part| &**part).collect::<Vec<_>>().join(".");
        if path.is_empty() {
            return Error::new(Reason::MalformedRequest, format!("message: {}", self.what));
        }
        Error::new(Reason::MalformedRequest, format!("{path}: {}", self.what)).with_violation(Violation {
            field: path,
            message: self.what.to_owned(),
            code: 0,
            location: "body",
        })
    }
}

fn merge(tables: &Tables, message: MessageId, object: &mut Object, input: &mut &[u8], depth: u32) -> Decoded {
    let table = &tables.messages[message];
    let mut expected = 0;
    while !input.is_empty() {
        let (number, wire) = decode_key(input).map_err(|_| Fault::new("malformed field key"))?;
        let Some(at) = field_at(table, number, expected) else {
            skip_field(wire, number, input, DecodeContext::default())
                .map_err(|_| Fault::new("malformed unknown field"))?;
            continue;
        };
        expected = at + 1;
        let field = &table.fields[at];
        merge_field(tables, field, at, object, wire, input, depth).map_err(|mut fault| {
            fault.path.push(field.name.clone());
            fault
        })?;
    }
    Ok(())
}

/// Senders write fields in order of their numbers, so the next one declared is the likely one.
fn field_at(table: &MessageType, number: u32, expected: FieldIndex) -> Option<FieldIndex> {
    match table.fields.get(expected) {
        Some(field) if field.number == number => Some(expected),
        _ => table.by_number.get(&number).copied(),
    }
}

fn merge_field(
    tables: &Tables,
    field: &Field,
    at: FieldIndex,
    object: &mut Object,
    wire: WireType,
    input: &mut &[u8],
    depth: u32,
) -> Decoded {
    if let Kind::Message(inner) = field.kind {
        let mut bytes = delimited(wire, input)?;
        let depth = depth.checked_sub(1).ok_or_else(|| Fault::new("nested too deeply"))?;
        if field.repeated {
            let mut item = Object::new();
            merge(tables, inner, &mut item, &mut bytes, depth)?;
            object.push(at, Value::Object(item));
        } else {
            merge(tables, inner, object.object_mut(at), &mut bytes, depth)?;
        }
        return Ok(());
    }
    if !field.repeated {
        let value = scalar(field.kind, wire, input)?;
        if is_unset(field, &value) {
            object.take(at);
        } else {
            object.set(at, value);
        }
        return Ok(());
    }
    let own = wire_type(field.kind);
    if wire == WireType::LengthDelimited && own != WireType::LengthDelimited {
        let mut packed = delimited(wire, input)?;
        while !packed.is_empty() {
            object.push(at, scalar(field.kind, own, &mut packed)?);
        }
    } else {
        object.push(at, scalar(field.kind, wire, input)?);
    }
    Ok(())
}

fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Enum(_) => WireType::Varint,
        Kind::Double => WireType::SixtyFourBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
    }
}

fn scalar(kind: Kind, wire: WireType, input: &mut &[u8]) -> Decoded<Value> {
    match kind {
        Kind::Bool => varint(wire, input).map(|raw| Value::Bool(raw != 0)),
        Kind::Int32 => varint(wire, input).map(|raw| Value::Int(i64::from(raw as i32))),
        Kind::Int64 => varint(wire, input).map(|raw| Value::Int(raw as i64)),
        Kind::Enum(_) => varint(wire, input).map(|raw| Value::Enum(raw as i32)),
        Kind::Double => {
            if wire != WireType::SixtyFourBit {
                return Err(Fault::new("wrong wire type"));
            }
            let (bytes, rest) = input.split_first_chunk::<8>().ok_or_else(|| Fault::new("cut short"))?;
            *input = rest;
            Ok(Value::Double(f64::from_le_bytes(*bytes)))
        }
        Kind::String => {
            let text = std::str::from_utf8(delimited(wire, input)?).map_err(|_| Fault::new("must be UTF-8"))?;
            Ok(Value::Str(text.into()))
        }
        Kind::Bytes => delimited(wire, input).map(|raw| Value::Bytes(bytes::Bytes::copy_from_slice(raw))),
        Kind::Message(_) => unreachable!("messages are merged, not read as scalars"),
    }
}

fn varint(wire: WireType, input: &mut &[u8]) -> Decoded<u64> {
    if wire != WireType::Varint {
        return Err(Fault::new("wrong wire type"));
    }
    decode_varint(input).map_err(|_| Fault::new("malformed integer"))
}

fn delimited<'a>(wire: WireType, input: &mut &'a [u8]) -> Decoded<&'a [u8]> {
    if wire != WireType::LengthDelimited {
        return Err(Fault::new("wrong wire type"));
    }
    let length = decode_varint(input).map_err(|_| Fault::new("malformed length"))?;
    let split = usize::try_from(length).ok().and_then(|length| input.split_at_checked(length));
    let (bytes, rest) = split.ok_or_else(|| Fault::new("cut short"))?;
    *input = rest;
    Ok(bytes)
}

/// True for values that mean "not set" in this field.
fn is_unset(field: &Field, value: &Value) -> bool {
    match value {
        Value::Enum(number) => *number == 0,
        _ if field.presence => false,
        Value::Bool(flag) => !flag,
        Value::Int(number) => *number == 0,
        Value::Double(number) => number.to_bits() == 0,
        Value::Str(text) => text.is_empty(),
        Value::Bytes(raw) => raw.is_empty(),
        Value::Object(_) | Value::List(_) => false,
    }
}

fn encode_field(tables: &Tables, field: &Field, value: &Value, out: &mut Vec<u8>) {
    let own = wire_type(field.kind);
    match value {
        Value::List(list) if field.repeated && own != WireType::LengthDelimited => {
            encode_key(field.number, WireType::LengthDelimited, out);
            with_length(out, |out| {
                for item in list {
                    encode_payload(tables, field.kind, item, out);
                }
            });
        }
        Value::List(list) if field.repeated => {
            for item in list.iter().filter(|item| fits(field.kind, item)) {
                encode_key(field.number, own, out);
                encode_payload(tables, field.kind, item, out);
            }
        }
        _ if field.repeated || !fits(field.kind, value) || is_unset(field, value) => {}
        _ => {
            encode_key(field.number, own, out);
            encode_payload(tables, field.kind, value, out);
        }
    }
}

fn fits(kind: Kind, value: &Value) -> bool {
    matches!(
        (kind, value),
        (Kind::Bool, Value::Bool(_))
            | (Kind::Int32 | Kind::Int64, Value::Int(_))
            | (Kind::Enum(_), Value::Enum(_))
            | (Kind::Double, Value::Double(_))
            | (Kind::String, Value::Str(_))
            | (Kind::Bytes, Value::Bytes(_))
            | (Kind::Message(_), Value::Object(_))
    )
}

fn encode_payload(tables: &Tables, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (Kind::Bool, Value::Bool(flag)) => out.push(u8::from(*flag)),
        (Kind::Int32 | Kind::Int64, Value::Int(number)) => encode_varint(*number as u64, out),
        // Negative numbers of int32 and enums are sign-extended to ten bytes.
        (Kind::Enum(_), Value::Enum(number)) => encode_varint(i64::from(*number) as u64, out),
        (Kind::Double, Value::Double(number)) => out.extend_from_slice(&number.to_le_bytes()),
        (Kind::String, Value::Str(text)) => encode_bytes(odd::shown(text).as_bytes(), out),
        (Kind::Bytes, Value::Bytes(raw)) => encode_bytes(raw, out),
        (Kind::Message(inner), Value::Object(object)) => {
            with_length(out, |out| encode(tables, inner, object, out));
        }
        _ => {}
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a length and what it measures in one pass: nearly every nested part is shorter than 128 bytes, so one byte
/// is kept free for the length and longer parts are moved.
fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out[at] = short,
        _ => {
            let mut prefix = Vec::with_capacity(10);
            encode_varint(length as u64, &mut prefix);
            out.splice(at..=at, prefix);
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
