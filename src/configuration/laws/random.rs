//! Random objects of any message, from its tables: types, listed words and numbers, ranges and patterns.

use crate::schema::tables::{Field, FieldIndex, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};

/// Words that are fine nearly everywhere.
const PLAIN: [&str; 22] = [
    "a",
    "src",
    "x.y",
    "10.0.0.1",
    "/run/x",
    "v1",
    "\"a b\"",
    "${X}",
    "%[src]",
    "host",
    "txn",
    "main",
    "http",
    "GET",
    "/a",
    "hdr(host)",
    "{ path /x }",
    "\"Content-Type\"",
    "1.2.3.4",
    "my_var",
    "10s",
    "x y z",
];

/// Texts that would become something else if they were written down carelessly.
const HOSTILE: [&str; 58] = [
    "if",
    "unless",
    "a:b",
    "a.b",
    "a,b",
    "(",
    ")",
    "a(b)",
    "5",
    "-1",
    "log",
    "global",
    "no",
    "ssl",
    "check",
    "len",
    "",
    " ",
    "a b",
    "a  b",
    "\"",
    "a#",
    "# c",
    "\n",
    "a\nserver x y",
    "\\",
    "'",
    "a\\ b",
    "::1",
    "[::1]",
    ":80",
    "a:80",
    "/x",
    "unix@x",
    "hdr",
    "status",
    "name",
    "!",
    "deny",
    "if x",
    "a if b",
    "1k",
    "10s",
    "port",
    "*",
    "{",
    "a;b",
    "\u{e9}",
    "\t",
    "a\tb",
    "\r",
    "option",
    "default",
    "weight 5",
    "crt",
    "\u{a0}",
    "\0",
    ".if",
];

/// A generator that is fed from one seed, so that the seed names a failing case.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn text(&mut self, field: &Field, hostile: bool) -> String {
        if hostile && self.roll(3) == 0 {
            return HOSTILE[self.roll(HOSTILE.len())].to_owned();
        }
        let fits = |text: &str| field.check.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        for _ in 0..20 {
            let text = PLAIN[self.roll(PLAIN.len())];
            if fits(text) {
                return text.to_owned();
            }
        }
        ["0600", "1", "A", "1s", "::", "10.0.0.1:80"].into_iter().find(|text| fits(text)).unwrap_or("a").to_owned()
    }

    fn integer(&mut self, field: &Field, hostile: bool) -> i64 {
        if !field.numbers.is_empty() {
            return field.numbers[self.roll(field.numbers.len())];
        }
        if hostile && self.roll(3) == 0 {
            return [0, -1, i64::MAX, i64::MIN][self.roll(4)];
        }
        let min = field.check.min.unwrap_or(0);
        let max = field.check.max.unwrap_or(if field.kind == Kind::Int32 { i32::MAX.into() } else { 1 << 40 });
        [min, max, min.saturating_add(self.roll(100) as i64).min(max), 1000.clamp(min, max)][self.roll(4)]
    }

    fn single(&mut self, tables: &Tables, field: &Field, hostile: bool, depth: usize) -> Value {
        match field.kind {
            Kind::Bool => Value::Bool(self.roll(4) > 0),
            Kind::Int32 | Kind::Int64 => Value::Int(self.integer(field, hostile)),
            Kind::Double => Value::Double(f64::from(self.roll(100) as u32)),
            Kind::Bytes => Value::Bytes(bytes::Bytes::from_static(b"x")),
            Kind::String => Value::Str(self.text(field, hostile).into()),
            Kind::Enum(id) => {
                // Others read back as their successors.
                let values: Vec<_> = tables.enums[id].values.iter().filter(|value| !value.print_only).collect();
                Value::Enum(values[self.roll(values.len())].number)
            }
            Kind::Message(id) => Value::Object(self.object(tables, id, hostile, depth + 1)),
        }
    }

    /// A value of a field.
    pub(super) fn value(&mut self, tables: &Tables, field: &Field, hostile: bool, depth: usize) -> Value {
        if field.repeated {
            return Value::List((0..=self.roll(3)).map(|_| self.single(tables, field, hostile, depth)).collect());
        }
        self.single(tables, field, hostile, depth)
    }

    /// An object with all required fields and some of the others.
    pub(super) fn object(&mut self, tables: &Tables, message: MessageId, hostile: bool, depth: usize) -> Object {
        let fields = &tables.messages[message].fields;
        let mut object = Object::new();
        let share = 1 + self.roll(fields.len().clamp(2, 16));
        for (at, field) in fields.iter().enumerate() {
            if field.print_only || field.no_line || depth > 3 {
                continue;
            }
            if field.flatten || field.check.required || self.roll(share) == 0 {
                object.set(at, self.value(tables, field, hostile, depth));
            }
        }
        object
    }
}

/// A place in an object: fields from the top down, each with the position in its list.
pub(super) type Steps = Vec<(FieldIndex, Option<usize>)>;

/// The place that a JSON path such as `return_hdrs[1].name` or `return_hdrs.1.name` names.
pub(super) fn steps(tables: &Tables, mut message: MessageId, path: &str) -> Option<Steps> {
    let mut steps: Steps = Vec::new();
    for part in path.split(['.', '[']) {
        let part = part.trim_end_matches(']');
        if let (Ok(item), Some(last)) = (part.parse(), steps.last_mut()) {
            last.1 = Some(item);
            continue;
        }
        let found = named(tables, message, part)?;
        for at in found {
            if let Kind::Message(inner) = tables.messages[message].fields[at].kind {
                message = inner;
            }
            steps.push((at, None));
        }
    }
    Some(steps)
}

fn named(tables: &Tables, message: MessageId, json: &str) -> Option<Vec<FieldIndex>> {
    let table = &tables.messages[message];
    if let Some(at) = table.by_json.get(json) {
        return Some(vec![*at]);
    }
    table.fields.iter().enumerate().filter(|(_, field)| field.flatten).find_map(|(at, field)| match field.kind {
        Kind::Message(inner) => {
            let mut found = named(tables, inner, json)?;
            found.insert(0, at);
            Some(found)
        }
        _ => None,
    })
}

/// The field at the end of a place.
pub(super) fn field<'t>(tables: &'t Tables, mut message: MessageId, steps: &Steps) -> Option<&'t Field> {
    let mut found = None;
    for (at, _) in steps {
        let field = tables.messages[message].fields.get(*at)?;
        if let Kind::Message(inner) = field.kind {
            message = inner;
        }
        found = Some(field);
    }
    found
}

/// Clears what stands at a place; false when nothing stood there. An item of a list takes the list with it.
pub(super) fn take(object: &mut Object, steps: &[(FieldIndex, Option<usize>)]) -> bool {
    match steps {
        [] => false,
        [(at, _)] => object.take(*at).is_some(),
        [(at, item), rest @ ..] => match (object.get_mut(*at), item) {
            (Some(Value::Object(inner)), _) => take(inner, rest),
            (Some(Value::List(items)), Some(item)) => match items.get_mut(*item) {
                Some(Value::Object(inner)) => take(inner, rest),
                _ => object.take(*at).is_some(),
            },
            _ => false,
        },
    }
}

/// Sets the value at a place, and makes the objects around it.
pub(super) fn put(object: &mut Object, steps: &[(FieldIndex, Option<usize>)], value: Value) {
    match steps {
        [] => {}
        [(at, _)] => object.set(*at, value),
        [(at, Some(item)), rest @ ..] => {
            if let Some(Value::List(items)) = object.get_mut(*at)
                && let Some(Value::Object(inner)) = items.get_mut(*item)
            {
                put(inner, rest, value);
            }
        }
        [(at, None), rest @ ..] => put(object.object_mut(*at), rest, value),
    }
}
