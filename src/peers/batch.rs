//! Updates of one table that came together. They are told together: who keeps them can look for many at a time, which
//! costs much less than one after the other where each is a walk through memory.

use std::collections::HashMap;

use super::Malformed;
use super::data::{Value, take_values};
use super::session::Update;
use super::table::Table;

/// So many are told together at most.
const MOST: usize = 64;
/// Texts that a peer may number.
const TEXTS: u64 = 4_096;

/// Updates of one table in the order in which they came, at least one.
#[derive(Debug, Clone, Copy)]
pub struct Updates<'a> {
    heads: &'a [Head<'a>],
    /// Those of all, one after the other: equally many for each.
    values: &'a [Value<'a>],
}

impl<'a> Updates<'a> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Update<'a>> + Clone + use<'a> {
        let (heads, values) = (self.heads, self.values);
        let each = values.len() / heads.len().max(1);
        heads.iter().enumerate().map(move |(at, head)| Update {
            key: head.key,
            number: head.number,
            expires_in: head.expires_in,
            values: values.get(at * each..(at + 1) * each).unwrap_or_default(),
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Head<'a> {
    key: &'a [u8],
    number: u32,
    expires_in: Option<u32>,
}

/// Texts of a session by their numbers.
pub(super) type Texts = HashMap<u64, Box<[u8]>>;

/// Where updates are gathered.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    heads: Vec<Head<'a>>,
    values: Vec<Value<'a>>,
    /// Values of the one that is being read.
    own: Vec<Value<'a>>,
    /// Some values are numbers of texts.
    known: bool,
}

impl<'a> Batch<'a> {
    /// Adds an update of `table`, which all that are here are of. Those that cannot wait for it are told before.
    pub(super) fn take(
        &mut self,
        table: &Table,
        (number, expires_in): (u32, Option<u32>),
        mut body: &'a [u8],
        texts: &mut Texts,
        mut tell: impl FnMut(Updates<'_>),
    ) -> Result<(), Malformed> {
        let key = table.take_key(&mut body)?;
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        take_values(&table.columns, &mut body, &mut own)?;
        for value in &own {
            if let Value::Text(id, text) = value {
                if *id > TEXTS {
                    return Err(Malformed::OutOfRange);
                }
                if texts.get(id).is_none_or(|known| **known != **text) {
                    // Earlier updates may mean the text that had this number before.
                    self.tell(texts, &mut tell);
                    texts.insert(*id, (*text).into());
                }
            }
        }
        for value in &own {
            if let Value::Known(id) = value {
                self.known = true;
                if !texts.contains_key(id) {
                    return Err(Malformed::UnknownText);
                }
            }
        }
        self.heads.push(Head { key, number, expires_in });
        self.values.append(&mut own);
        self.own = own;
        if self.heads.len() >= MOST {
            self.tell(texts, tell);
        }
        Ok(())
    }

    /// Tells all that are here.
    pub(super) fn tell(&mut self, texts: &Texts, mut tell: impl FnMut(Updates<'_>)) {
        if self.heads.is_empty() {
            return;
        }
        if std::mem::take(&mut self.known) {
            let resolve = |value: &Value<'a>| match value {
                Value::Known(id) => texts.get(id).map_or(Value::Nothing, |text| Value::Text(*id, text)),
                other => other.clone(),
            };
            let values: Vec<_> = self.values.iter().map(resolve).collect();
            tell(Updates { heads: &self.heads, values: &values });
        } else {
            tell(Updates { heads: &self.heads, values: &self.values });
        }
        self.heads.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Column, KeyType, put_values};

    fn body(key: &[u8], values: &[Value<'_>]) -> Vec<u8> {
        let mut body = key.to_vec();
        put_values(values, &mut body);
        body
    }

    /// What is told of updates that come together, as keys with their values.
    fn told(bodies: &[Vec<u8>]) -> (Vec<Vec<String>>, Result<(), Malformed>) {
        let columns = ["gpc0", "server_key"].iter().map(|name| Column::named(name, 1, None).unwrap()).collect();
        let (key_type, key_length) = (KeyType::Binary, 1);
        let table = Table { id: 1, name: "t".into(), key_type, key_length, columns, expire: 0, unknown: None };
        let (mut batch, mut texts, mut all) = (Batch::default(), Texts::new(), Vec::new());
        let mut tell = |updates: Updates<'_>| {
            let lines = updates.iter().map(|update| {
                let [Value::Number(count), text] = update.values else { panic!("{:?}", update.values) };
                let text = match text {
                    Value::Text(_, text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                };
                format!("{}#{}: {count} {text}", update.key[0], update.number)
            });
            let lines: Vec<_> = lines.collect();
            assert!(!lines.is_empty());
            all.push(lines);
        };
        let mut number = 0;
        let read = bodies.iter().try_for_each(|body| {
            number += 1;
            batch.take(&table, (number, None), body, &mut texts, &mut tell)
        });
        batch.tell(&texts, &mut tell);
        batch.tell(&texts, &mut tell);
        (all, read)
    }

    #[test]
    fn a_number_of_a_text_means_what_was_sent_before_it() {
        let number = Value::Number;
        let bodies = [
            body(&[1], &[number(5), Value::Text(1, b"one")]),
            body(&[2], &[number(6), Value::Known(1)]),
            body(&[3], &[number(7), Value::Text(1, b"one")]),
            body(&[1], &[number(8), Value::Text(1, b"other")]),
            body(&[2], &[number(9), Value::Known(1)]),
            body(&[3], &[number(10), Value::Nothing]),
        ];
        let (told, read) = told(&bodies);
        let first = vec!["1#1: 5 one".to_owned(), "2#2: 6 one".into(), "3#3: 7 one".into()];
        let second = vec!["1#4: 8 other".to_owned(), "2#5: 9 other".into(), "3#6: 10 Nothing".into()];
        assert_eq!((told, read), (vec![first, second], Ok(())));
    }

    #[test]
    fn what_came_before_something_malformed_is_told_and_not_too_much_is_kept() {
        let good = body(&[1], &[Value::Number(5), Value::Text(1, b"one")]);
        for (bad, why) in [
            (body(&[1], &[Value::Number(5), Value::Known(2)]), Malformed::UnknownText),
            (body(&[1], &[Value::Number(5), Value::Text(TEXTS + 1, b"x")]), Malformed::OutOfRange),
            (vec![1], Malformed::Truncated),
            (Vec::new(), Malformed::Truncated),
        ] {
            let mut bodies = vec![good.clone(); 2 * MOST + 3];
            bodies.push(bad);
            let (told, read) = told(&bodies);
            let lengths: Vec<_> = told.iter().map(Vec::len).collect();
            assert_eq!((lengths, read), (vec![MOST, MOST, 3], Err(why)));
        }
    }
}
