//! What differs from the file, and how it is given up.

use std::collections::HashSet;

use super::file_says::without;
use super::prepare::load_file;
use super::state::{Override, Record, ServerField, Target};
use super::write::ensure;
use super::{DROPPED, Overrides, map_of};
use crate::error::{Error, Reason, Result};
use crate::runtime::{Command, Runtime};
use crate::storage::MapEdit;

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
    /// All that differs from the configuration and the files, in a fixed order.
    pub fn list(&self) -> Vec<Override> {
        self.overrule();
        self.journal().state().iter().filter(|found| found.filed.is_none()).cloned().collect()
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
            (Target::Server { .. }, None) => Ok(false),
        }
    }

    async fn restore_from_file(&self, map: &str, target: &Target) -> Result<bool> {
        let (runtime, maps): (&Runtime, _) = (&self.rooms.runtime, &self.rooms.maps);
        if let Target::MapEntry { key, .. } = target {
            let only = HashSet::from([key.clone().into_bytes()]);
            let in_file = maps.read(map, Some(&only)).await?;
            let value = in_file.into_values().next().map(|value| String::from_utf8_lossy(&value).into_owned());
            ensure(runtime, target, value.as_deref()).await?;
            // What was to be written is as it is.
            maps.changed(map, [MapEdit::Entry(key.clone(), value)]);
        } else {
            load_file(runtime, map, maps.read(map, None).await?).await?;
            maps.replaced(map);
        }
        Ok(true)
    }
}
