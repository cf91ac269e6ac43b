//! Objects as the interpreters pass them on: a message without its Rust type.

/// Position of a field in its message's table, not its number on the wire.
pub type FieldIndex = usize;

/// One value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `bool`.
    Bool(bool),
    /// `int32` and `int64`.
    Int(i64),
    /// `double`.
    Double(f64),
    /// `string`.
    Str(Box<str>),
    /// `bytes`.
    Bytes(bytes::Bytes),
    /// The number of an enum value; its token is looked up in the table.
    Enum(i32),
    /// A message.
    Object(Object),
    /// A repeated field. Never empty inside an object: an empty list is an absent field.
    List(Vec<Value>),
}

impl Value {
    fn clear_residue(&mut self) {
        match self {
            Value::Object(object) => object.clear_residue(),
            Value::List(items) => items.iter_mut().for_each(Value::clear_residue),
            _ => {}
        }
    }
}

/// The set fields of a message, ordered by position. Absent fields are not stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    fields: Vec<(u32, Value)>,
    /// Words of a `*` group that no parameter begins with, kept with the line they stood on.
    residue: Vec<Box<str>>,
}

impl Object {
    /// An object with nothing set.
    pub const fn new() -> Self {
        Object { fields: Vec::new(), residue: Vec::new() }
    }

    /// The value of a field, if set.
    pub fn get(&self, field: FieldIndex) -> Option<&Value> {
        self.position(field).ok().map(|at| &self.fields[at].1)
    }

    /// The value of a field for changing, if set.
    pub fn get_mut(&mut self, field: FieldIndex) -> Option<&mut Value> {
        self.position(field).ok().map(|at| &mut self.fields[at].1)
    }

    /// Sets a field.
    pub fn set(&mut self, field: FieldIndex, value: Value) {
        // Most are set in order.
        if self.fields.last().is_none_or(|(last, _)| (*last as usize) < field) {
            self.fields.push((field as u32, value));
            return;
        }
        match self.position(field) {
            Ok(at) => self.fields[at].1 = value,
            Err(at) => self.fields.insert(at, (field as u32, value)),
        }
    }

    /// Appends to a repeated field.
    pub fn push(&mut self, field: FieldIndex, value: Value) {
        match self.get_mut(field) {
            Some(Value::List(list)) => list.push(value),
            _ => self.set(field, Value::List(vec![value])),
        }
    }

    /// Clears a field and returns what it held.
    pub fn take(&mut self, field: FieldIndex) -> Option<Value> {
        self.position(field).ok().map(|at| self.fields.remove(at).1)
    }

    /// Keeps the fields that `keep` says yes to; it may change them.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldIndex, &mut Value) -> bool) {
        self.fields.retain_mut(|(field, value)| keep(*field as usize, value));
    }

    /// The object in a message field, made when absent.
    pub fn object_mut(&mut self, field: FieldIndex) -> &mut Object {
        if !matches!(self.get(field), Some(Value::Object(_))) {
            self.set(field, Value::Object(Object::new()));
        }
        match self.get_mut(field) {
            Some(Value::Object(object)) => object,
            _ => unreachable!("set just above"),
        }
    }

    /// The object in a message field.
    pub fn object(&self, field: FieldIndex) -> Option<&Object> {
        match self.get(field) {
            Some(Value::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// The text of a string field.
    pub fn str(&self, field: FieldIndex) -> Option<&str> {
        match self.get(field) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of an integer field.
    pub fn int(&self, field: FieldIndex) -> Option<i64> {
        match self.get(field) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// The number of an enum field.
    pub fn enum_number(&self, field: FieldIndex) -> Option<i32> {
        match self.get(field) {
            Some(Value::Enum(number)) => Some(*number),
            _ => None,
        }
    }

    /// True when a bool field is set and true.
    pub fn flag(&self, field: FieldIndex) -> bool {
        matches!(self.get(field), Some(Value::Bool(true)))
    }

    /// The items of a repeated field, none when absent.
    pub fn list(&self, field: FieldIndex) -> &[Value] {
        match self.get(field) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Set fields in order of position.
    pub fn iter(&self) -> impl Iterator<Item = (FieldIndex, &Value)> {
        self.fields.iter().map(|(field, value)| (*field as usize, value))
    }

    /// True when neither a field nor residue is set.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.residue.is_empty()
    }

    /// Unknown words of the line this object was read from.
    pub fn residue(&self) -> &[Box<str>] {
        &self.residue
    }

    /// Forgets unknown words, in nested objects too.
    pub fn clear_residue(&mut self) {
        self.residue.clear();
        for (_, value) in &mut self.fields {
            value.clear_residue();
        }
    }

    /// Unknown words of this object and of all nested ones, in order.
    pub fn all_residue(&self) -> Vec<Box<str>> {
        fn add(object: &Object, out: &mut Vec<Box<str>>) {
            out.extend_from_slice(&object.residue);
            for (_, value) in &object.fields {
                match value {
                    Value::Object(inner) => add(inner, out),
                    Value::List(items) => items.iter().for_each(|item| {
                        if let Value::Object(inner) = item {
                            add(inner, out);
                        }
                    }),
                    _ => {}
                }
            }
        }
        let mut out = Vec::new();
        add(self, &mut out);
        out
    }

    /// Replaces the unknown words.
    pub fn set_residue(&mut self, words: Vec<Box<str>>) {
        self.residue = words;
    }

    fn position(&self, field: FieldIndex) -> Result<usize, usize> {
        self.fields.binary_search_by_key(&(field as u32), |(at, _)| *at)
    }
}
