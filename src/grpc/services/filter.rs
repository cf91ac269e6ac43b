//! Filters of lists: `field=value`, several joined by ` AND `.

use crate::error::{Error, Result, Violation};
use crate::schema::mask::resolve;
use crate::schema::tables::{FieldIndex, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};

/// A parsed filter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    terms: Vec<(Vec<FieldIndex>, Option<MessageIdEnum>, String)>,
}

/// The enum whose tokens a value is compared with.
type MessageIdEnum = usize;

impl Filter {
    /// Reads a filter; an empty one matches everything.
    pub(super) fn parse(tables: &Tables, message: MessageId, text: &str) -> Result<Filter> {
        let mut filter = Filter::default();
        for term in text.split(" AND ").map(str::trim).filter(|t| !t.is_empty()) {
            let (path, value) = term.split_once('=').ok_or_else(|| wrong(format!("`{term}` should be field=value")))?;
            let (path, field) =
                resolve(tables, message, path.trim()).ok_or_else(|| wrong(format!("there is no field {path}")))?;
            let item = if let Kind::Enum(id) = field.kind { Some(id) } else { None };
            filter.terms.push((path, item, value.trim().to_owned()));
        }
        Ok(filter)
    }

    /// True when all terms hold.
    pub(super) fn matches(&self, tables: &Tables, object: &Object) -> bool {
        self.terms.iter().all(|(path, item, wanted)| {
            let mut at = object;
            let Some((last, steps)) = path.split_last() else { return false };
            for step in steps {
                match at.object(*step) {
                    Some(inner) => at = inner,
                    None => return wanted.is_empty(),
                }
            }
            match at.get(*last) {
                None => wanted.is_empty(),
                Some(Value::Str(text)) => **text == **wanted,
                Some(Value::Int(number)) => wanted.parse() == Ok(*number),
                Some(Value::Bool(flag)) => wanted.parse() == Ok(*flag),
                Some(Value::Enum(number)) => {
                    item.and_then(|id| tables.enums[id].value(*number)).is_some_and(|value| *value.token == **wanted)
                }
                Some(_) => false,
            }
        })
    }
}

fn wrong(message: String) -> Error {
    Error::invalid(vec![Violation { field: "filter".into(), message, code: 0, location: "query" }])
}
