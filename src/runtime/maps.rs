//! Maps at run time.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::client::Runtime;
use super::command::Command;
use super::lines::{Lines, Listing};
use super::parse::{
    Lookup, MapEntry, PatternInfo, check_key, check_value, parse_entry, parse_lookup, parse_pattern_info,
};
use crate::error::{Error, Reason, Result};

/// Names a loaded map: its file as the configuration writes it, or `#id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MapRef(String);

impl MapRef {
    /// `INVALID_VALUE` for what the socket would take for something else.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.starts_with('@') || name.starts_with("<<") {
            let message = format!("map '{name}': expected a file name or '#' with a number");
            return Err(Error::new(Reason::InvalidValue, message).with("field", "map"));
        }
        Command::new("show map").arg("map", &name)?;
        Ok(MapRef(name))
    }
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happens to the entries that a map has before a [`MapLoad`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// They are replaced, all at once, when the load is committed.
    Replace,
    /// They stay; new entries take effect in pieces while they are pushed.
    Append,
}

impl Runtime {
    /// All loaded maps.
    pub async fn maps(&self) -> Result<Vec<PatternInfo>> {
        let answer = self.short(Command::new("show map")).await?;
        Ok(answer.lines().filter_map(|line| parse_pattern_info(line.as_bytes())).collect())
    }

    /// Entries of a map, read in pieces. The first item fails with `OBJECT_NOT_FOUND` if the map is not loaded.
    pub async fn map_entries(&self, map: &MapRef) -> Result<Listing<MapEntry>> {
        self.listing(Command::new("show map").arg("map", &map.0)?, parse_entry).await
    }

    /// The same as lines, for [`super::parse_raw_entry`].
    pub async fn map_lines(&self, map: &MapRef) -> Result<Lines> {
        self.lines(Command::new("show map").arg("map", &map.0)?).await
    }

    /// The entry with exactly this key, without its pointer. `OBJECT_NOT_FOUND` if there is none, or no such map.
    ///
    /// Quick for maps that compare whole strings or beginnings; for others the listing is read.
    pub async fn map_entry(&self, map: &MapRef, key: &str) -> Result<MapEntry> {
        match self.find(map, key).await? {
            Some(entry) => Ok(entry),
            None => Err(no_entry(map, key)),
        }
    }

    /// Adds an entry. `OBJECT_EXISTS` if the key is there, `INVALID_VALUE` if key or value would not survive.
    pub async fn map_add(&self, map: &MapRef, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let command = &Command::new("add map").arg("map", &map.0)?.arg("key", key)?.arg("value", value)?;
        let question = Command::new("get map").arg("map", &map.0)?.arg("key", key)?;
        let _alone = self.adding(key).await;
        let mut before = false;
        match self.guarded(command.clone().only_if(question, key, is_absent)).await {
            Ok((answer, _)) if answer.is_empty() => return Ok(()),
            Ok((answer, again)) => match parse_lookup(&answer, key) {
                Lookup::Found(found) => return there(map, key, again && found == value),
                Lookup::Absent | Lookup::Unknown => before = again,
            },
            // A key that `get map` cannot read, or another refusal, which comes again.
            Err(error) if error.reason() == Reason::RuntimeRejected => {}
            Err(error) => return Err(error),
        }
        // Only the listing tells.
        self.on_one(|one, again| async move {
            match one.scan(map, key).await? {
                Some(entry) => there(map, key, (again || before) && entry.value == value),
                None => one.short(command.clone()).await.map(drop),
            }
        })
        .await
    }

    /// Sets the value of an entry. `OBJECT_NOT_FOUND` if there is none.
    pub async fn map_set(&self, map: &MapRef, key: &str, value: &str) -> Result<()> {
        check_value(value)?;
        let set = self.on_one(|one, _| async move {
            let reference = one.reference(map, key).await?;
            let command = Command::new("set map").arg("map", &map.0)?.arg("key", &reference)?.arg("value", value)?;
            one.short(command).await.map(drop)
        });
        set.await.map_err(|error| keyed(error, map, key))
    }

    /// Deletes every entry with this key. `OBJECT_NOT_FOUND` if there is none.
    pub async fn map_delete(&self, map: &MapRef, key: &str) -> Result<()> {
        self.on_one(|one, again| async move {
            let delete = async {
                let reference = one.reference(map, key).await?;
                let command = Command::new("del map").arg("map", &map.0)?.arg("key", &reference)?;
                let all = command.clone().settled_by(Reason::ObjectNotFound);
                if reference.starts_with('#') {
                    return one.short(all).await.map(drop);
                }
                // Of several entries with the key, HAProxy 3.4 deletes one at a time.
                let [first, mut next] = one.together([all, command.clone()]).await?;
                first?;
                while next.is_ok() {
                    next = one.short(command.clone()).await;
                }
                match next {
                    Err(error) if !is_no_entry(&error) => Err(error),
                    _ => Ok(()),
                }
            };
            match delete.await {
                // It has gone, though the answer has not come.
                Err(error) if again && is_no_entry(&error) => Ok(()),
                other => other.map_err(|error| keyed(error, map, key)),
            }
        })
        .await
    }

    /// Removes all entries.
    pub async fn map_clear(&self, map: &MapRef) -> Result<()> {
        self.long(Command::new("clear map").arg("map", &map.0)?).await.map(drop)
    }

    /// Starts loading many entries. `OBJECT_NOT_FOUND` if the map is not loaded.
    pub async fn map_load(&self, map: &MapRef, mode: LoadMode) -> Result<MapLoad> {
        let (one, version) = self
            .on_one(|one, _| async move {
                if mode == LoadMode::Append {
                    return Ok((one, None));
                }
                let answer = one.long(Command::new("prepare map").arg("map", &map.0)?).await?;
                let number = answer.rsplit_once(':').and_then(|(_, number)| number.trim().parse::<u32>().ok());
                let unread = || Error::internal(format!("unexpected answer to prepare map: {answer}"));
                let number = number.ok_or_else(unread)?;
                Ok((one, Some(number)))
            })
            .await?;
        Ok(MapLoad { runtime: one, map: map.clone(), version, lines: BytesMut::new(), entries: 0 })
    }

    /// Adds entries without looking for those that are there. What a reload cuts off begins again with the new worker.
    pub async fn map_add_all(&self, map: &MapRef, entries: &[(&str, &str)]) -> Result<()> {
        self.on_one(|one, _| async move {
            let mut load = one.map_load(map, LoadMode::Append).await?;
            for (key, value) in entries {
                load.push(key, value).await?;
            }
            load.commit().await.map(drop)
        })
        .await
    }

    async fn find(&self, map: &MapRef, key: &str) -> Result<Option<MapEntry>> {
        let command = Command::new("get map").arg("map", &map.0)?.arg("key", key)?;
        let answer = match self.short(command).await {
            Ok(answer) => answer,
            // No such map; or a key that the type of the map cannot read, such as a network.
            Err(error) if error.reason() == Reason::RuntimeRejected => String::new(),
            Err(error) => return Err(error),
        };
        match parse_lookup(&answer, key) {
            Lookup::Found(value) => Ok(Some(MapEntry { id: None, key: key.to_owned(), value })),
            Lookup::Absent => Ok(None),
            Lookup::Unknown => self.scan(map, key).await,
        }
    }

    async fn scan(&self, map: &MapRef, key: &str) -> Result<Option<MapEntry>> {
        let mut entries = self.map_entries(map).await?;
        while let Some(items) = entries.next().await? {
            if let Some(found) = items.into_iter().find(|entry| entry.key == key) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The word that names the entry on the socket: its key, or for keys with `#`, which HAProxy takes for references,
    /// its pointer out of the listing of this moment.
    async fn reference(&self, map: &MapRef, key: &str) -> Result<String> {
        if !key.starts_with('#') {
            return Ok(key.to_owned());
        }
        match self.scan(map, key).await?.and_then(|entry| entry.id) {
            Some(id) => Ok(format!("#{id}")),
            None => Err(no_entry(map, key)),
        }
    }
}

/// Whether the answer of `get map` says for sure that there is no such key.
fn is_absent(answer: &str, key: &str) -> bool {
    matches!(parse_lookup(answer, key), Lookup::Absent)
}

/// What it means for an addition that the key is there: it has arrived, though its answer has not come, or there was one.
fn there(map: &MapRef, key: &str, arrived: bool) -> Result<()> {
    if arrived {
        return Ok(());
    }
    let message = format!("key '{key}' exists already in map '{map}'");
    Err(Error::new(Reason::ObjectExists, message).with("key", key))
}

fn no_entry(map: &MapRef, key: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("no entry with key '{key}' in map '{map}'")).with("key", key)
}

/// Whether it is the entry that is missing, and not the map.
fn is_no_entry(error: &Error) -> bool {
    let of_map = error.detail_text().is_some_and(|detail| detail.contains("identifier"));
    error.reason() == Reason::ObjectNotFound && !of_map
}

/// Says which entry.
fn keyed(error: Error, map: &MapRef, key: &str) -> Error {
    if is_no_entry(&error) { no_entry(map, key) } else { error }
}

/// A load of many entries into a map, in pieces of bounded size.
///
/// In [`LoadMode::Replace`] nothing takes effect before [`MapLoad::commit`]; a load that is dropped instead leaves its
/// entries in HAProxy's memory until the next commit, [`MapLoad::abort`] frees them. HAProxy does not look for keys
/// that come twice. A reload in between makes the load fail, not half succeed.
#[derive(Debug)]
pub struct MapLoad {
    runtime: Runtime,
    map: MapRef,
    version: Option<u32>,
    lines: BytesMut,
    entries: u64,
}

impl MapLoad {
    /// Adds an entry. `INVALID_VALUE`, with the number of the entry, if key or value would not survive.
    pub async fn push(&mut self, key: &str, value: &str) -> Result<()> {
        let checked = check_key(key).and_then(|()| check_value(value));
        checked.map_err(|error| {
            let message = format!("entry {}: {}", self.entries + 1, error.message());
            error.message_replaced(message)
        })?;
        let limit = self.runtime.limits().max_command.saturating_sub(self.map.0.len() * 2 + 64);
        let length = key.len() + value.len() + 2;
        if length > limit {
            let message =
                format!("entry {}: takes {length} bytes, {limit} fit through the runtime socket", self.entries + 1);
            return Err(Error::new(Reason::InvalidValue, message).with("limit", limit));
        }
        if self.lines.len() + length > limit {
            self.flush().await?;
        }
        self.lines.put_slice(key.as_bytes());
        self.lines.put_u8(b' ');
        self.lines.put_slice(value.as_bytes());
        self.lines.put_u8(b'\n');
        self.entries += 1;
        Ok(())
    }

    /// Sends what is left and makes it effective. Returns the number of entries pushed.
    pub async fn commit(mut self) -> Result<u64> {
        self.flush().await?;
        if self.version.is_some() {
            self.send(self.command("commit map")?).await?;
        }
        Ok(self.entries)
    }

    /// Gives up, freeing what HAProxy has got so far. Entries of [`LoadMode::Append`] stay.
    pub async fn abort(self) -> Result<()> {
        if self.version.is_some() {
            self.send(self.command("clear map")?).await?;
        }
        Ok(())
    }

    fn command(&self, words: &'static str) -> Result<Command> {
        let command = Command::new(words);
        let command = match self.version {
            Some(version) => command.arg("version", &format!("@{version}"))?,
            None => command,
        };
        command.arg("map", &self.map.0)
    }

    async fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = self.lines.split().freeze();
        self.send(self.command("add map")?.payload(lines)?).await
    }

    async fn send(&self, command: Command) -> Result<()> {
        let sent = self.runtime.long(command).await;
        sent.map(drop).map_err(|error| {
            if !self.runtime.is_replaced() {
                return error;
            }
            // What the worker before was given went with it.
            let message = format!("haproxy was reloaded while map '{}' was loaded, load it again", self.map);
            Error::new(Reason::RuntimeUnavailable, message)
        })
    }
}
