//! A long JSON array that is read while it arrives: its items go on as pieces of the request message, so that neither the
//! text nor the objects are ever there as a whole.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio_stream::StreamExt as _;

use crate::error::{Error, Reason, Result};
use crate::grpc::call::{Chunks, PIECE};
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::{FieldIndex, MessageId, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::{check, wire};

/// What the items are.
pub(super) struct Items {
    /// The schema.
    pub(super) tables: Arc<Tables>,
    /// The request message.
    pub(super) request: MessageId,
    /// Its list.
    pub(super) field: FieldIndex,
    /// The message of an item.
    pub(super) item: MessageId,
    /// How they are read.
    pub(super) rules: JsonRules,
    /// Keys that no field has are refused.
    pub(super) strict: bool,
}

impl Items {
    /// Pieces of the request message in the form of the wire, with nothing but items. Keys that no field has are not told
    /// of, unless they are refused.
    pub(super) fn pieces(self, body: Chunks) -> Chunks {
        let cutter = Cutter::default();
        let state = (self, body, cutter, 0_usize, false);
        Box::pin(futures_util::stream::try_unfold(
            state,
            |(items, mut body, mut cutter, mut number, ended)| async move {
                if ended {
                    return Ok(None);
                }
                let mut out = Vec::new();
                while out.len() < PIECE {
                    let Some(chunk) = body.next().await.transpose()? else {
                        cutter.finish()?;
                        return Ok(Some((Bytes::from(out), (items, body, cutter, number, true))));
                    };
                    cutter.feed(&chunk, |item| {
                        items.append(number, item, &mut out)?;
                        number += 1;
                        Ok(())
                    })?;
                }
                Ok(Some((Bytes::from(out), (items, body, cutter, number, false))))
            },
        ))
    }

    fn append(&self, number: usize, item: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let read = json::read(&self.tables, self.item, item, self.rules)?;
        let mut violations = check::check_reading(&self.tables, self.item, &read);
        for violation in &mut violations {
            violation.field = format!("{number}.{}", violation.field);
        }
        check::refuse(violations)?;
        if self.strict && !(read.unknown.is_empty() && read.recased.is_empty()) {
            let keys = [&read.unknown[..], &read.recased[..]].concat().join(&format!(", {number}."));
            return Err(Error::new(Reason::MalformedRequest, format!("unknown fields or parameters: {number}.{keys}")));
        }
        let mut piece = Object::new();
        piece.push(self.field, Value::Object(read.object));
        wire::encode(&self.tables, self.request, &piece, out);
        Ok(())
    }
}

/// Cuts an array into its items, whatever they are.
#[derive(Debug, Default)]
struct Cutter {
    place: Place,
    /// Brackets and braces that are open within the item.
    depth: usize,
    /// Within a string of the item, and behind a backslash there.
    string: bool,
    escaped: bool,
    item: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In front of the array.
    #[default]
    Before,
    /// In front of the first item, or of the end.
    First,
    /// In front of an item, or in it.
    Item,
    /// Behind the array: as with all bodies, what comes there is not looked at.
    Behind,
}

impl Cutter {
    /// Takes the next bytes, and hands over each item that ends in them.
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for &byte in bytes {
            match self.place {
                Place::Behind => return Ok(()),
                Place::Before | Place::First if byte.is_ascii_whitespace() => {}
                Place::Before if byte == b'[' => self.place = Place::First,
                // Whatever it is, it is no array.
                Place::Before => return no_array(&[byte]),
                Place::First if byte == b']' => self.place = Place::Behind,
                Place::First | Place::Item => self.take(byte, &mut each)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, byte: u8, each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.place = Place::Item;
        if self.string {
            self.string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
        } else {
            match byte {
                b',' | b']' if self.depth == 0 => {
                    if self.item.trim_ascii().is_empty() {
                        return no_array(&[b'[', byte]);
                    }
                    each(&self.item)?;
                    self.item.clear();
                    if byte == b']' {
                        self.place = Place::Behind;
                    }
                    return Ok(());
                }
                b'"' => self.string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.item.push(byte);
        Ok(())
    }

    /// Whether the array has ended.
    fn finish(&self) -> Result<()> {
        match self.place {
            Place::Behind => Ok(()),
            Place::Before => no_array(b""),
            Place::First | Place::Item => no_array(b"["),
        }
    }
}

/// What is wrong with a text that is no array.
fn no_array(text: &[u8]) -> Result<()> {
    serde_json::from_slice::<Vec<IgnoredAny>>(text).map(drop).map_err(|error| json::not_json(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    /// The items of a text that comes in pieces of so many bytes.
    fn cut(text: &[u8], size: usize) -> Result<Vec<Json>> {
        let (mut cutter, mut items) = (Cutter::default(), Vec::new());
        for piece in text.chunks(size.max(1)) {
            cutter.feed(piece, |item| {
                items.push(serde_json::from_slice(item).map_err(|error| json::not_json(&error))?);
                Ok(())
            })?;
        }
        cutter.finish().map(|()| items)
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i32>().prop_map(Json::from),
            "[a\"\\\\{}\\[\\], \n\u{e9}]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                proptest::collection::vec(("[a\"\\\\]{0,3}", inner), 0..3)
                    .prop_map(|keys| Json::Object(keys.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn items_are_the_same_however_the_array_comes(
            items in proptest::collection::vec(any_json(), 0..5),
            size in 1_usize..40,
            pretty in any::<bool>(),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&items) } else { serde_json::to_string(&items) };
            let text = format!(" {}\n[1", text.unwrap());
            prop_assert_eq!(cut(text.as_bytes(), size).unwrap(), items);
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["", "  ", "{}", "null", "1", "[", "[1", "[1,", "[,1]", "[1,,2]", "[1,]", "[{]}", "[\"]", "]"] {
            for size in [1, 100] {
                let error = cut(text.as_bytes(), size).unwrap_err();
                assert_eq!(error.reason(), crate::error::Reason::MalformedRequest, "{text}");
            }
        }
    }
}
