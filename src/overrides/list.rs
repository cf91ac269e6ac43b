//! What differs from the file, and how it is given up.

use std::collections::HashSet;

use super::file_says::without;
use super::state::{Override, Record, ServerField, Target};
use super::write::ensure;
use super::{DROPPED, Overrides, map_of};
use crate::error::{Error, Reason, Result};
use crate::runtime::{Command, MapRef, Runtime};

/// An override that was dropped because it did not apply any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// What it was.
    pub found: Override,
    /// Why.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

impl Overrides {
    /// All that differs from the configuration and the files, and goes to the next worker, in a fixed order.
    pub fn list(&self) -> Vec<Override> {
        let mut all: Vec<Override> =
            self.journal().state().iter().filter(|found| found.filed.is_none()).cloned().collect();
        all.retain(|found| !self.is_overruled(found));
        all
    }

    /// The last ones that were dropped because they did not apply any more, oldest first.
    pub fn dropped(&self) -> Vec<Dropped> {
        self.dropped.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn note_dropped(&self, found: Override, why: &str) {
        let mut dropped = self.dropped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while dropped.len() >= DROPPED {
            dropped.pop_front();
        }
        dropped.push_back(Dropped { found, why: why.to_owned(), at: self.now() });
    }

    /// Drops one override and sets what the file says. `OBJECT_NOT_FOUND` when there is none of that target; the errors
    /// of the runtime socket, and then it stays.
    ///
    /// False when HAProxy keeps the value until its next reload, since nothing says what it had before.
    pub async fn give_up(&self, target: &Target) -> Result<bool> {
        let kept = |target: &Target| self.journal().state().get(target).filter(|found| found.filed.is_none()).cloned();
        let found =
            kept(target).ok_or_else(|| Error::new(Reason::ObjectNotFound, "there is no such runtime override"))?;
        let before = self.rooms.runtime.worker();
        let mut restored = self.restored(&found).await?;
        self.append(vec![Record::Drop { target: found.target.clone() }])?;
        if self.rooms.runtime.worker() != before {
            // The worker that followed may have got it before it was dropped.
            self.rooms.runtime.prepared().await;
            restored = self.restored(&found).await?;
        }
        Ok(restored)
    }

    async fn restored(&self, found: &Override) -> Result<bool> {
        match self.restore(found).await {
            // What is not there needs nothing.
            Err(error) if matches!(error.reason(), Reason::ObjectNotFound | Reason::ParentNotFound) => Ok(true),
            restored => restored,
        }
    }

    async fn restore(&self, found: &Override) -> Result<bool> {
        let (runtime, target) = (&self.rooms.runtime, &found.target);
        if let Some(map) = map_of(&[(target.clone(), None)]).filter(|map| self.rooms.maps.check(map).is_ok()) {
            return self.restore_from_file(map, target).await;
        }
        match (target, without(target, found.base.as_deref())) {
            (Target::Map { .. }, _) => Ok(false),
            (Target::MapLine { map, key, value }, _) => {
                let line = (key.clone(), value.clone());
                let mut lines = self.lines(map, key).await?;
                lines.retain(|other| *other != line);
                self.set_lines(map, key, lines).await.map(|()| true)
            }
            (Target::MapEntry { .. } | Target::AclEntry { .. }, value) => {
                ensure(runtime, target, value.as_deref()).await.map(|()| true)
            }
            (_, Some(value)) => ensure(runtime, target, Some(&value)).await.map(|()| true),
            (Target::Server { backend, server, field: ServerField::Weight }, None) => {
                let words = ["set", "weight", &format!("{backend}/{server}"), "100%"];
                runtime.raw(Command::from_words(&words)?).await.map(|_| true)
            }
            (Target::FrontendMaxconn { .. }, None) => {
                let limit = runtime.info().await?.int("Maxconn").map(|limit| limit.to_string());
                ensure(runtime, target, limit.as_deref()).await.map(|()| limit.is_some())
            }
            // An entry of a stick table stays until it expires.
            (Target::Server { .. } | Target::TableEntry { .. }, None) => Ok(false),
        }
    }

    async fn restore_from_file(&self, map: &str, target: &Target) -> Result<bool> {
        let (runtime, maps): (&Runtime, _) = (&self.rooms.runtime, &self.rooms.maps);
        if let Some(key) = target.key() {
            let in_file = maps.read(map, &HashSet::from([key.as_bytes().to_vec()])).await?;
            self.set_lines(map, key, in_file).await?;
            maps.unchanged(map, key);
        } else {
            maps.load(runtime, map).await?;
            maps.replaced(map);
        }
        Ok(true)
    }

    /// The entries of a map with a key, as HAProxy holds them.
    async fn lines(&self, map: &str, key: &str) -> Result<Vec<(String, String)>> {
        let mut entries = self.rooms.runtime.map_entries(&MapRef::new(map)?).await?;
        let mut lines = Vec::new();
        while let Some(items) = entries.next().await? {
            lines.extend(items.into_iter().filter(|item| item.key == key).map(|item| (item.key, item.value)));
        }
        Ok(lines)
    }

    /// Makes these the entries of a map with the key.
    async fn set_lines(&self, map: &str, key: &str, lines: Vec<(String, String)>) -> Result<()> {
        let runtime = &self.rooms.runtime;
        let target = Target::MapEntry { map: map.to_owned(), key: key.to_owned() };
        if let [] | [_] = &lines[..] {
            return ensure(runtime, &target, lines.first().map(|(_, value)| value.as_str())).await;
        }
        if self.lines(map, key).await? == lines {
            return Ok(());
        }
        ensure(runtime, &target, None).await?;
        let lines: Vec<(&str, &str)> = lines.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        runtime.map_add_all(&MapRef::new(map)?, &lines).await
    }
}
