//! ACLs at run time.

use super::client::Runtime;
use super::command::Command;
use super::lines::Listing;
use super::parse::{PatternEntry, PatternInfo, parse_acl_entry, parse_pattern_info};
use crate::error::{Error, Reason, Result};

impl Runtime {
    /// All ACLs, those that HAProxy makes for itself included.
    pub async fn acls(&self) -> Result<Vec<PatternInfo>> {
        let answer = self.short(Command::new("show acl")).await?;
        Ok(answer.lines().filter_map(|line| parse_pattern_info(line.as_bytes())).collect())
    }

    /// The ACL of a number, with or without `#`, or of a file. `OBJECT_NOT_FOUND`.
    pub async fn acl(&self, id: &str) -> Result<PatternInfo> {
        let number = id.strip_prefix('#').unwrap_or(id);
        let acls = self.acls().await?;
        acls.into_iter()
            .find(|acl| acl.id == number || acl.file.as_deref() == Some(id))
            .ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("acl {id} does not exist")).with("id", id))
    }

    /// The word that names an ACL on the socket. The next worker may give the number to another one, so it is only good
    /// for the worker that was asked.
    pub async fn acl_word(&self, id: &str) -> Result<String> {
        Ok(format!("#{}", self.acl(id).await?.id))
    }

    /// The entry of an ACL with this pointer, or with this pattern. `OBJECT_NOT_FOUND`.
    pub async fn acl_entry(&self, acl: &str, id: &str) -> Result<PatternEntry> {
        let mut listing = self.acl_entries(acl).await?;
        while let Some(items) = listing.next().await? {
            if let Some(found) = items.into_iter().find(|item| item.id == id || item.value == id) {
                return Ok(found);
            }
        }
        Err(Error::new(Reason::ObjectNotFound, format!("entry {id} does not exist in acl {acl}")).with("id", id))
    }

    /// Entries of an ACL (`#id` or its file), read in pieces.
    pub async fn acl_entries(&self, acl: &str) -> Result<Listing<PatternEntry>> {
        self.listing(Command::new("show acl").arg("acl", acl)?, parse_acl_entry).await
    }

    /// Adds a pattern; HAProxy does not check whether it is there already.
    pub async fn acl_add(&self, acl: &str, value: &str) -> Result<()> {
        self.short(Command::new("add acl").arg("acl", acl)?.arg("value", value)?).await.map(drop)
    }

    /// Deletes every entry with this pattern. `OBJECT_NOT_FOUND` if there is none.
    pub async fn acl_delete(&self, acl: &str, value: &str) -> Result<()> {
        if value.starts_with('#') {
            // On the socket that is a reference to an entry.
            return self.acl_delete_where(acl, |entry| entry.value == value).await;
        }
        let command = Command::new("del acl").arg("acl", acl)?.arg("value", value)?;
        self.short(command.settled_by(Reason::ObjectNotFound)).await.map(drop)
    }

    /// Deletes the entry with this pointer (`0x…`). `OBJECT_NOT_FOUND` if no entry has it: pointers out of thin air have
    /// brought down some versions of HAProxy, so it is looked up first.
    pub async fn acl_delete_id(&self, acl: &str, id: &str) -> Result<()> {
        self.acl_delete_where(acl, |entry| entry.id == id).await
    }

    /// A pointer means something to one worker only, so it is looked up and used with the same one.
    async fn acl_delete_where(&self, acl: &str, wanted: impl Fn(&PatternEntry) -> bool + Sync) -> Result<()> {
        let wanted = &wanted;
        self.on_one(|one, again| async move {
            let found = match one.find_acl_entry(acl, wanted).await {
                Err(error) if again && error.reason() == Reason::ObjectNotFound => return Ok(()),
                found => found?,
            };
            let command = Command::new("del acl").arg("acl", acl)?.arg("reference", &format!("#{}", found.id))?;
            one.short(command).await.map(drop)
        })
        .await
    }

    async fn find_acl_entry(&self, acl: &str, wanted: impl Fn(&PatternEntry) -> bool) -> Result<PatternEntry> {
        let mut entries = self.acl_entries(acl).await?;
        while let Some(items) = entries.next().await? {
            if let Some(found) = items.into_iter().find(&wanted) {
                return Ok(found);
            }
        }
        Err(Error::new(Reason::ObjectNotFound, format!("no such entry in acl '{acl}'")))
    }
}
