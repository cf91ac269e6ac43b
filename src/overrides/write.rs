//! Writes at run time: what each does, and what it leaves behind.

use super::state::{ServerField, Target};
use crate::configuration::plan::{Change, ServerChange};
use crate::error::{Error, Reason, Result};
use crate::runtime::{AdminState, DataType, DatumValue, MapRef, Runtime, ServerState};

/// An ACL that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRef {
    /// Its file, or else its number.
    pub id: String,
    /// Its file; none for patterns that stand in the configuration.
    pub file: Option<String>,
}

/// A write at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new entry of a map.
    MapAdd(MapRef, String, String),
    /// Another value of an entry of a map.
    MapSet(MapRef, String, String),
    /// All entries of a map with a key go.
    MapDelete(MapRef, String),
    /// New entries of a map, keys with values.
    MapAppend(MapRef, Vec<(String, String)>),
    /// All entries of a map go.
    MapClear(MapRef),
    /// A pattern of an ACL that it does not have yet.
    AclCreate(AclRef, String),
    /// Patterns of an ACL, whether it has them or not.
    AclAdd(AclRef, Vec<String>),
    /// A pattern of an ACL goes.
    AclDelete(AclRef, String),
    /// A field of a server gets a value.
    Server(String, String, ServerField, String),
    /// The limit of connections of a frontend.
    FrontendMaxconn(String, u32),
    /// What an entry of a stick table holds of some data types: table, key, numbers.
    TableSet(String, String, Vec<(DataType, u64)>),
}

/// What a write leaves behind: a target and its value, `None` for what is gone.
pub(super) type Left = (Target, Option<String>);

impl Write {
    /// What it leaves behind; nothing for patterns that stand in the configuration itself, which nothing names for long.
    pub(super) fn left(&self) -> Vec<Left> {
        let entry = |map: &MapRef, key: &str| Target::MapEntry { map: map.to_string(), key: key.to_owned() };
        let pattern = |acl: &str, value: &str| Target::AclEntry { acl: acl.to_owned(), value: value.to_owned() };
        match self {
            Write::MapAdd(map, key, value) | Write::MapSet(map, key, value) => {
                vec![(entry(map, key), Some(value.clone()))]
            }
            Write::MapDelete(map, key) => vec![(entry(map, key), None)],
            Write::MapAppend(map, entries) => {
                let map = map.to_string();
                let line = |key: &str, value: &str| Target::MapLine {
                    map: map.clone(),
                    key: key.to_owned(),
                    value: value.to_owned(),
                };
                entries.iter().map(|(key, value)| (line(key, value), Some(value.clone()))).collect()
            }
            Write::MapClear(map) => vec![(Target::Map { map: map.to_string() }, None)],
            Write::AclCreate(acl, value) => {
                acl.file.iter().map(|file| (pattern(file, value), Some(value.clone()))).collect()
            }
            Write::AclAdd(AclRef { file: Some(file), .. }, values) => {
                values.iter().map(|value| (pattern(file, value), Some(value.clone()))).collect()
            }
            Write::AclAdd(AclRef { file: None, .. }, _) => Vec::new(),
            Write::AclDelete(acl, value) => acl.file.iter().map(|file| (pattern(file, value), None)).collect(),
            Write::Server(backend, server, field, value) => {
                let (backend, server, field) = (backend.clone(), server.clone(), *field);
                vec![(Target::Server { backend, server, field }, Some(value.clone()))]
            }
            Write::FrontendMaxconn(frontend, maxconn) => {
                vec![(Target::FrontendMaxconn { frontend: frontend.clone() }, Some(maxconn.to_string()))]
            }
            Write::TableSet(table, key, data) => {
                let field = |kind: &DataType| {
                    let (table, key, field) = (table.clone(), key.clone(), kind.to_string());
                    Target::TableEntry { table, key, field }
                };
                data.iter().map(|(kind, number)| (field(kind), Some(number.to_string()))).collect()
            }
        }
    }

    /// Makes it in HAProxy, as its caller asked for it. Of a server's state it also tells how the server is then, which
    /// costs little in the same go.
    pub(super) async fn carry_out(&self, runtime: &Runtime) -> Result<Option<ServerState>> {
        if let Write::Server(backend, server, ServerField::State, value) = self {
            return runtime.set_server_states(backend, server, None, Some(admin_state(value)?)).await.map(Some);
        }
        self.make(runtime).await.map(|()| None)
    }

    async fn make(&self, runtime: &Runtime) -> Result<()> {
        match self {
            Write::MapAdd(map, key, value) => runtime.map_add(map, key, value).await,
            Write::MapSet(map, key, value) => runtime.map_set(map, key, value).await,
            Write::MapDelete(map, key) => runtime.map_delete(map, key).await,
            Write::MapAppend(map, entries) => {
                let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                runtime.map_add_all(map, &entries).await
            }
            Write::MapClear(map) => runtime.map_clear(map).await,
            Write::AclCreate(acl, value) => create_pattern(runtime, &acl.id, value).await,
            Write::AclAdd(acl, values) => {
                let steps = |one: Runtime, _| async move {
                    let word = one.acl_word(&acl.id).await?;
                    for value in values {
                        one.acl_add(&word, value).await?;
                    }
                    Ok(())
                };
                runtime.on_one(steps).await
            }
            Write::AclDelete(acl, value) => delete_pattern(runtime, &acl.id, value).await,
            Write::Server(backend, server, field, value) => set_server(runtime, backend, server, *field, value).await,
            Write::FrontendMaxconn(frontend, maxconn) => {
                let change = Change::FrontendMaxconn { frontend: frontend.clone(), maxconn: *maxconn };
                runtime.carry_out(&change).await
            }
            Write::TableSet(table, key, data) => {
                let data: Vec<_> = data.iter().map(|(kind, n)| (kind.clone(), DatumValue::Number(*n))).collect();
                runtime.set_table_entry(table, key, &data).await
            }
        }
    }
}

async fn create_pattern(runtime: &Runtime, id: &str, value: &str) -> Result<()> {
    let steps = |one: Runtime, again| async move {
        let acl = one.acl_word(id).await?;
        match one.acl_entry(&acl, value).await {
            // It has arrived, though the answer has not.
            Ok(_) if again => Ok(()),
            Ok(_) => {
                let message = format!("entry {value} already exists in acl {acl}");
                Err(Error::new(Reason::ObjectExists, message).with("value", value))
            }
            Err(error) if error.reason() == Reason::ObjectNotFound => one.acl_add(&acl, value).await,
            Err(error) => Err(error),
        }
    };
    runtime.on_one(steps).await
}

async fn delete_pattern(runtime: &Runtime, id: &str, value: &str) -> Result<()> {
    let steps = |one: Runtime, again| async move {
        let acl = one.acl_word(id).await?;
        match one.acl_entry(&acl, value).await {
            // It has gone, though the answer has not come.
            Err(error) if again && error.reason() == Reason::ObjectNotFound => Ok(()),
            found => one.acl_delete(&acl, &found?.value).await,
        }
    };
    runtime.on_one(steps).await
}

async fn set_server(runtime: &Runtime, backend: &str, server: &str, field: ServerField, value: &str) -> Result<()> {
    let set = match field {
        ServerField::State => return runtime.set_server_state(backend, server, admin_state(value)?).await,
        ServerField::Weight => ServerChange::Weight(value.parse().map_err(|_| unreadable(field, value))?),
        ServerField::Address => {
            let (address, port) = address(value);
            ServerChange::Address(address.to_owned(), port)
        }
        ServerField::AgentCheck => ServerChange::AgentCheck(value == "on"),
        ServerField::AgentAddress => ServerChange::AgentAddress(value.to_owned()),
        ServerField::AgentSend => ServerChange::AgentSend(value.to_owned()),
    };
    let change = Change::Server { backend: backend.to_owned(), server: server.to_owned(), set };
    runtime.carry_out(&change).await
}

fn admin_state(value: &str) -> Result<AdminState> {
    let all = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
    all.into_iter().find(|state| state.word() == value).ok_or_else(|| unreadable(ServerField::State, value))
}

fn unreadable(field: ServerField, value: &str) -> Error {
    Error::new(Reason::InvalidValue, format!("{}: cannot be '{value}'", field.name())).with("field", field.name())
}

/// Address and port out of `address:port` or `address`.
pub(super) fn address(value: &str) -> (&str, Option<u16>) {
    match value.rsplit_once(':').map(|(address, port)| (address, port.parse())) {
        Some((address, Ok(port))) if !address.ends_with(':') => (address, Some(port)),
        _ => (value, None),
    }
}

/// Makes one target what it is to be, whatever it is, and whoever else does the same. `OBJECT_NOT_FOUND` and its like when
/// there is nothing to set.
pub(super) async fn ensure(runtime: &Runtime, target: &Target, value: Option<&str>) -> Result<()> {
    match (target, value) {
        (Target::Map { map }, _) => runtime.map_clear(&MapRef::new(map)?).await,
        (Target::MapEntry { map, key }, Some(value)) => {
            let map = MapRef::new(map)?;
            match runtime.map_entry(&map, key).await {
                Ok(found) if found.value == value => Ok(()),
                Ok(_) => runtime.map_set(&map, key, value).await,
                Err(error) if error.reason() == Reason::ObjectNotFound => match runtime.map_add(&map, key, value).await
                {
                    Err(error) if error.reason() == Reason::ObjectExists => runtime.map_set(&map, key, value).await,
                    added => added,
                },
                Err(error) => Err(error),
            }
        }
        (Target::MapEntry { map, key }, None) => {
            let map = MapRef::new(map)?;
            unless_gone(match runtime.map_entry(&map, key).await {
                Ok(_) => runtime.map_delete(&map, key).await,
                Err(error) => Err(error),
            })
        }
        (Target::MapLine { map, key, .. }, Some(value)) => {
            let map = MapRef::new(map)?;
            if has_line(runtime, &map, key, value).await? {
                return Ok(());
            }
            runtime.map_add_all(&map, &[(key, value)]).await
        }
        (Target::AclEntry { acl, value: pattern }, wanted) => {
            let there = has_pattern(runtime, acl, pattern).await?;
            match wanted {
                Some(_) if !there => runtime.acl_add(acl, pattern).await,
                None if there => unless_gone(runtime.acl_delete(acl, pattern).await),
                _ => Ok(()),
            }
        }
        (Target::Server { backend, server, field }, Some(value)) => {
            set_server(runtime, backend, server, *field, value).await
        }
        (Target::FrontendMaxconn { frontend }, Some(value)) => {
            let maxconn = value.parse().map_err(|_| Error::internal("a limit of connections that is no number"))?;
            runtime.carry_out(&Change::FrontendMaxconn { frontend: frontend.clone(), maxconn }).await
        }
        (Target::TableEntry { table, key, field }, Some(value)) => {
            let number = value.parse().map_err(|_| Error::internal("a datum of a stick table that is no number"))?;
            runtime.set_table_entry(table, key, &[(DataType::parse(field), DatumValue::Number(number))]).await
        }
        (_, None) => Ok(()),
    }
}

/// What is not there needs no deleting.
fn unless_gone(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.reason() == Reason::ObjectNotFound => Ok(()),
        other => other,
    }
}

async fn has_line(runtime: &Runtime, map: &MapRef, key: &str, value: &str) -> Result<bool> {
    match runtime.map_entry(map, key).await {
        Ok(found) if found.value == value => return Ok(true),
        Ok(_) => {}
        Err(error) if error.reason() == Reason::ObjectNotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut entries = runtime.map_entries(map).await?;
    while let Some(items) = entries.next().await? {
        if items.iter().any(|entry| entry.key == key && entry.value == value) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn has_pattern(runtime: &Runtime, acl: &str, pattern: &str) -> Result<bool> {
    let mut entries = runtime.acl_entries(acl).await?;
    while let Some(items) = entries.next().await? {
        if items.iter().any(|entry| entry.value == pattern) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_ports() {
        assert_eq!(address("127.0.0.1:80"), ("127.0.0.1", Some(80)));
        assert_eq!(address("127.0.0.1"), ("127.0.0.1", None));
        assert_eq!(address("2001:db8::1:80"), ("2001:db8::1", Some(80)));
        assert_eq!(address("::"), ("::", None));
    }

    #[test]
    fn a_write_leaves_what_it_made() {
        let map = MapRef::new("/m.map").unwrap();
        let entry = |key: &str| Target::MapEntry { map: "/m.map".into(), key: key.into() };
        assert_eq!(Write::MapAdd(map.clone(), "k".into(), "v".into()).left(), [(entry("k"), Some("v".into()))]);
        assert_eq!(Write::MapDelete(map.clone(), "k".into()).left(), [(entry("k"), None)]);
        let two = Write::MapAppend(map, vec![("a".into(), "1".into()), ("a".into(), "2".into())]);
        let line = |value: &str| Target::MapLine { map: "/m.map".into(), key: "a".into(), value: value.into() };
        assert_eq!(two.left(), [(line("1"), Some("1".into())), (line("2"), Some("2".into()))]);
        let acl = AclRef { id: "#1".into(), file: None };
        assert_eq!(Write::AclAdd(acl, vec!["p".into()]).left(), []);
    }
}
