//! Against captures of real HAProxys, and against anything else.

mod captures;
mod fuzz;
mod sessions;
mod teaching;

use super::{Session, Sink, Table, Update, Updates, Value};

/// Notes what a session tells.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) lines: Vec<String>,
    pub(super) tables: Vec<Table>,
    pub(super) updates: usize,
}

impl Sink for Notes {
    fn resync(&mut self) {
        self.lines.push("resync".into());
    }

    fn resynced(&mut self) {
        self.lines.push("resynced".into());
    }

    fn asked(&mut self) {
        self.lines.push("asked".into());
    }

    fn table(&mut self, table: &Table) {
        self.lines.push(format!("table {}", table.name));
        self.tables.push(table.clone());
    }

    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        updates.iter().for_each(|update| self.update(table, update));
    }
}

impl Notes {
    fn update(&mut self, table: &Table, update: Update<'_>) {
        self.updates += 1;
        let mut key = Vec::new();
        table.show_key(update.key, &mut key);
        let values: Vec<String> = update.values.iter().map(shown).collect();
        let (key, values) = (String::from_utf8_lossy(&key).into_owned(), values.join(" "));
        let expires = update.expires_in.map(|left| format!(" for {left}")).unwrap_or_default();
        self.lines.push(format!("{} {key} #{}{expires}: {values}", table.name, update.number));
    }
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Rate(rate) => format!("{}/{}/{}", rate.age, rate.current, rate.previous),
        Value::Nothing => "-".into(),
        Value::Text(_, text) => String::from_utf8_lossy(text).into_owned(),
        Value::Known(id) => panic!("text {id} is not resolved"),
    }
}

pub(super) fn open() -> Session {
    let options = super::Options { local: "agent".into(), remote: "hap1".into(), pid: 42 };
    Session::new(&options, 0)
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
