//! Bringing everything that is kept to a worker that does not have it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::stream::{self, StreamExt as _};

use super::state::{Holder, Override, Record, ServerField, Target};
use super::write::{self, ensure};
use super::{Overrides, map_of};
use crate::error::{Error, Reason, Result};
use crate::runtime::{MapRef, Runtime, ServerState, Worker};

/// Commands that are under way at the same time; the client puts them together.
pub(super) const TOGETHER: usize = 64;

/// What is to become of an override.
enum Fate {
    /// The worker has it now.
    Held,
    /// The file says the same now.
    Same(Override),
    /// It does not apply any more.
    Gone(Override, String),
}

impl Overrides {
    /// Brings everything to a worker, unless it has it all. What no longer applies is dropped.
    pub(super) async fn bring(&self, worker: Worker, runtime: &Runtime) {
        let holder = Holder { pid: worker.pid, started: worker.started };
        if self.journal().state().holder() == Some(holder) {
            return;
        }
        self.overrule().await;
        let all: Vec<Override> = self.journal().state().as_written().into_iter().cloned().collect();
        let number = all.len();
        match self.bring_all(worker, runtime, all).await {
            Ok(()) => {
                if number > 0 {
                    tracing::info!(pid = worker.pid, number, "a new worker of haproxy has the runtime overrides");
                }
                if let Err(error) = self.append(vec![Record::Held(holder)]) {
                    tracing::warn!(%error, "the journal of overrides cannot be written");
                }
            }
            Err(error) => tracing::warn!(%error, pid = worker.pid, "runtime overrides did not all reach a worker"),
        }
    }

    async fn bring_all(&self, worker: Worker, runtime: &Runtime, all: Vec<Override>) -> Result<()> {
        let of_map = |found: &Override| map_of(&[(found.target.clone(), None)]).map(str::to_owned);
        let (mut maps, mut acls, mut servers, mut tables, mut rest) = (
            BTreeMap::<String, Vec<Override>>::new(),
            BTreeMap::<String, Vec<Override>>::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
        );
        for found in all {
            match (&found.target, of_map(&found)) {
                (_, Some(map)) => maps.entry(map).or_default().push(found),
                (Target::AclEntry { acl, .. }, _) => acls.entry(acl.clone()).or_default().push(found),
                (Target::Server { .. }, _) => servers.push(found),
                (Target::TableEntry { .. }, _) => tables.push(found),
                _ => rest.push(found),
            }
        }
        for (map, entries) in maps {
            if self.rooms.maps.check(&map).is_ok() {
                self.bring_our_map(worker, runtime, &map, entries).await?;
            } else {
                self.bring_map(runtime, &map, entries).await?;
            }
        }
        for (acl, entries) in acls {
            self.bring_acl(runtime, &acl, entries).await?;
        }
        self.bring_servers(runtime, servers).await?;
        self.bring_tables(runtime, tables).await?;
        self.ensure_all(runtime, rest.into_iter().map(|found| (found.value.clone(), found)).collect()).await
    }

    /// The file of a map in our folder is its store: what it holds wins over what it was given before.
    async fn bring_our_map(&self, worker: Worker, runtime: &Runtime, map: &str, entries: Vec<Override>) -> Result<()> {
        // A worker reads its files after its start.
        let mut missing: Vec<Override> = entries;
        missing.retain(|found| found.filed.is_none_or(|at| at / 1000 >= worker.started));
        let keys: HashSet<Vec<u8>> = missing.iter().filter(|found| found.filed.is_some()).filter_map(key).collect();
        let in_file = if keys.is_empty() { Vec::new() } else { self.rooms.maps.read(map, &keys).await? };
        let lines: HashSet<(&str, &str)> = in_file.iter().map(|(key, value)| (&**key, &**value)).collect();
        let mut first: HashMap<&str, &String> = HashMap::new();
        for (key, value) in &in_file {
            first.entry(key).or_insert(value);
        }
        let (cleared, missing): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|found| matches!(found.target, Target::Map { .. }));
        for found in cleared {
            if found.filed.is_some() {
                self.settle(self.rooms.maps.load(runtime, map).await, found)?;
            } else {
                self.settle(ensure(runtime, &found.target, None).await, found)?;
            }
        }
        let wanted = |found: &Override| match (&found.target, found.filed) {
            (Target::MapEntry { key, .. }, Some(_)) => first.get(&**key).map(|value| String::clone(value)),
            (Target::MapLine { key, value, .. }, Some(_)) => lines.contains(&(&**key, &**value)).then(|| value.clone()),
            _ => found.value.clone(),
        };
        let wanted: Vec<_> = missing.into_iter().map(|found| (wanted(&found), found)).collect();
        let map = MapRef::new(map)?;
        let now = entries_now(runtime, &map, wanted.iter().map(|(_, found)| found)).await;
        let work = wanted.into_iter().zip(now).map(|((wanted, found), now)| Entry { found, now, wanted });
        self.bring_entries(runtime, &map, work.collect()).await
    }

    /// Of another map HAProxy read the file just now: where it holds something new, that wins.
    async fn bring_map(&self, runtime: &Runtime, map: &str, entries: Vec<Override>) -> Result<()> {
        let map = MapRef::new(map)?;
        let (cleared, entries): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|found| matches!(found.target, Target::Map { .. }));
        for found in cleared {
            self.settle(ensure(runtime, &found.target, None).await, found)?;
        }
        let (mut work, mut fates) = (Vec::new(), Vec::new());
        let now = entries_now(runtime, &map, entries.iter()).await;
        for (found, now) in entries.into_iter().zip(now) {
            match now {
                Ok(now) if now == found.value => fates.push(Ok(Fate::Same(found))),
                Ok(now) if now != found.base => {
                    fates.push(Ok(Fate::Gone(found, "the file of the map has another value since".to_owned())));
                }
                now => work.push(Entry { wanted: found.value.clone(), found, now }),
            }
        }
        self.finish(fates)?;
        self.bring_entries(runtime, &map, work).await
    }

    /// Changes and deletes entries, and then adds those that are missing, in the order in which they were written.
    async fn bring_entries(&self, runtime: &Runtime, map: &MapRef, entries: Vec<Entry>) -> Result<()> {
        let (mut changed, mut added, mut fates) = (Vec::new(), Vec::new(), Vec::new());
        for Entry { found, now, wanted } in entries {
            match (now, wanted) {
                (Err(error), _) => fates.push(fate(Err(error), found)),
                (Ok(now), wanted) if now == wanted => {}
                (Ok(None), Some(value)) => added.push((found, value)),
                (Ok(_), None) if matches!(found.target, Target::MapLine { .. }) => {}
                (Ok(_), wanted) => changed.push((wanted, found)),
            }
        }
        self.finish(fates)?;
        self.ensure_all(runtime, changed).await?;
        let lines: Vec<(&str, &str)> =
            added.iter().filter_map(|(found, value)| Some((found.target.key()?, value.as_str()))).collect();
        if lines.is_empty() || runtime.map_add_all(map, &lines).await.is_ok() {
            return Ok(());
        }
        // One that cannot be added does not keep the others out.
        for (found, value) in added {
            self.settle(ensure(runtime, &found.target, Some(&value)).await, found)?;
        }
        Ok(())
    }

    async fn bring_acl(&self, runtime: &Runtime, acl: &str, entries: Vec<Override>) -> Result<()> {
        let wanted: HashSet<&str> = entries.iter().filter_map(pattern).collect();
        let mut there = HashSet::new();
        let listed = async {
            let mut listing = runtime.acl_entries(acl).await?;
            while let Some(items) = listing.next().await? {
                there.extend(items.into_iter().map(|item| item.value).filter(|value| wanted.contains(value.as_str())));
            }
            Ok(())
        };
        if let Err(error) = listed.await {
            return self.finish(entries.into_iter().map(|found| fate(Err(Error::clone(&error)), found)).collect());
        }
        let mut fates = Vec::new();
        for found in entries {
            let is_there = pattern(&found).is_some_and(|value| there.contains(value));
            fates.push(match (pattern(&found).map(str::to_owned), is_there) {
                (Some(value), false) if found.value.is_some() => fate(runtime.acl_add(acl, &value).await, found),
                (Some(value), true) if found.value.is_none() => fate(runtime.acl_delete(acl, &value).await, found),
                _ => Ok(Fate::Same(found)),
            });
        }
        self.finish(fates)
    }

    async fn bring_servers(&self, runtime: &Runtime, servers: Vec<Override>) -> Result<()> {
        let mut backends: HashMap<String, Vec<ServerState>> = HashMap::new();
        let (mut values, mut states) = (Vec::new(), Vec::new());
        for found in servers {
            let Target::Server { backend, server, field } = &found.target else { continue };
            if !backends.contains_key(backend) {
                let running = match runtime.servers(backend).await {
                    Ok(running) => running,
                    Err(error) if error.reason() == Reason::ParentNotFound => Vec::new(),
                    Err(error) => return Err(error),
                };
                backends.insert(backend.clone(), running);
            }
            let running = backends.get(backend).and_then(|all| all.iter().find(|state| state.name == *server));
            match running {
                None => self.forget(found, "no such server runs any more"),
                Some(state) if has(state, *field, found.value.as_deref().unwrap_or_default()) => {}
                Some(_) if *field == ServerField::State => states.push((found.value.clone(), found)),
                Some(_) => values.push((found.value.clone(), found)),
            }
        }
        self.ensure_all(runtime, values).await?;
        self.ensure_all(runtime, states).await
    }

    pub(super) async fn ensure_all(&self, runtime: &Runtime, wanted: Vec<(Option<String>, Override)>) -> Result<()> {
        let work = stream::iter(wanted)
            .map(|(value, found)| async move { fate(ensure(runtime, &found.target, value.as_deref()).await, found) });
        self.finish(work.buffered(TOGETHER).collect().await)
    }

    fn settle(&self, done: Result<()>, found: Override) -> Result<()> {
        self.finish(vec![fate(done, found)])
    }

    /// Drops what is of no account any more. Fails when the worker is gone.
    fn finish(&self, fates: Vec<Result<Fate>>) -> Result<()> {
        for fate in fates {
            match fate? {
                Fate::Held => {}
                Fate::Same(found) => self.append(vec![Record::Drop { target: found.target }])?,
                Fate::Gone(found, why) => self.forget(found, &why),
            }
        }
        Ok(())
    }
}

/// What became of an override that was set; an error when that says nothing of it.
fn fate(done: Result<()>, found: Override) -> Result<Fate> {
    match done {
        Ok(()) => Ok(Fate::Held),
        Err(error) => match error.reason() {
            Reason::ObjectNotFound
            | Reason::ParentNotFound
            | Reason::RuntimeRejected
            | Reason::InvalidValue
            | Reason::TooLarge => Ok(Fate::Gone(found, error.message().to_owned())),
            _ => Err(error),
        },
    }
}

fn key(found: &Override) -> Option<Vec<u8>> {
    found.target.key().map(|key| key.as_bytes().to_vec())
}

fn pattern(found: &Override) -> Option<&str> {
    match &found.target {
        Target::AclEntry { value, .. } => Some(value),
        _ => None,
    }
}

/// Whether a server that runs has a value already.
fn has(state: &ServerState, field: ServerField, value: &str) -> bool {
    match field {
        ServerField::State => state.admin_state.word() == value,
        ServerField::Weight => value.parse() == Ok(state.weight),
        ServerField::Address => {
            let (address, port) = write::address(value);
            state.address.as_deref() == Some(address) && (port.is_none() || port == state.port)
        }
        ServerField::AgentCheck | ServerField::AgentAddress | ServerField::AgentSend => false,
    }
}

/// An entry of a map that is to be brought to a worker.
struct Entry {
    found: Override,
    /// What the worker holds.
    now: Result<Option<String>>,
    wanted: Option<String>,
}

/// What a worker holds of entries of a map: the value of a key, or whether there is a line.
async fn entries_now(
    runtime: &Runtime,
    map: &MapRef,
    entries: impl Iterator<Item = &Override>,
) -> Vec<Result<Option<String>>> {
    let targets: Vec<Target> = entries.map(|found| found.target.clone()).collect();
    let lookups = stream::iter(targets.clone())
        .map(|target| async move { value_now(runtime, map, target.key().unwrap_or_default()).await });
    let mut now: Vec<Result<Option<String>>> = lookups.buffered(TOGETHER).collect().await;
    let beside = |target: &Target, now: &Result<Option<String>>| match target {
        Target::MapLine { key, value, .. } => {
            matches!(now, Ok(Some(found)) if found != value).then(|| (key.clone(), value.clone()))
        }
        _ => None,
    };
    let wanted: HashSet<_> = targets.iter().zip(&now).filter_map(|(target, now)| beside(target, now)).collect();
    if wanted.is_empty() {
        return now;
    }
    let there = lines_there(runtime, map, &wanted).await;
    for (target, now) in targets.iter().zip(&mut now) {
        if let Some(line) = beside(target, now) {
            *now = there.as_ref().map(|there| there.contains(&line).then_some(line.1)).map_err(Error::clone);
        }
    }
    now
}

async fn value_now(runtime: &Runtime, map: &MapRef, key: &str) -> Result<Option<String>> {
    match runtime.map_entry(map, key).await {
        Ok(entry) => Ok(Some(entry.value)),
        Err(error) if error.reason() == Reason::ObjectNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those of these keys and values that a map holds.
async fn lines_there(
    runtime: &Runtime,
    map: &MapRef,
    wanted: &HashSet<(String, String)>,
) -> Result<HashSet<(String, String)>> {
    let mut entries = runtime.map_entries(map).await?;
    let mut there = HashSet::new();
    while let Some(items) = entries.next().await? {
        there.extend(items.into_iter().map(|item| (item.key, item.value)).filter(|line| wanted.contains(line)));
    }
    Ok(there)
}
