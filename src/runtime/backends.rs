//! Backends as they run, and those that HAProxy takes on while it runs.

use super::client::Runtime;
use super::command::Command;
use super::parse::StatRow;
use super::process::StatKind;
use crate::error::{Error, Reason, Result};

/// First version of HAProxy that adds and removes backends while it runs.
const SINCE: &str = "3.4";

/// A backend as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendState {
    /// Its name.
    pub name: String,
    /// What it speaks, as HAProxy's word.
    pub mode: String,
    /// Whether it takes traffic, by its servers: `UP`, `DOWN`.
    pub status: String,
    /// Whether rules may choose it.
    pub published: bool,
}

impl Runtime {
    /// All backends, those of `listen` sections among them.
    pub async fn backends(&self) -> Result<Vec<BackendState>> {
        let rows = self.stats(None, Some(StatKind::Backend)).await?;
        Ok(rows.flatten().filter_map(|row| state(&row)).collect())
    }

    /// One backend. `OBJECT_NOT_FOUND`.
    pub async fn backend(&self, name: &str) -> Result<BackendState> {
        let rows = self.stats(Some(name), Some(StatKind::Backend)).await?;
        // HAProxy takes a number for that of a proxy.
        let found = rows.flatten().filter_map(|row| state(&row)).find(|state| state.name == name);
        found.ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("no backend '{name}' runs in haproxy")))
    }

    /// Adds a backend with the settings of a `defaults` section, which no rule may choose yet.
    ///
    /// `OBJECT_EXISTS`, `RUNTIME_REJECTED` for what HAProxy does not take, `UNSUPPORTED` before HAProxy 3.4.
    pub async fn add_backend(&self, name: &str, from: &str, mode: Option<&str>, guid: Option<&str>) -> Result<()> {
        let mut command = Command::new("add backend").arg("name", name)?.words("from").arg("from", from)?;
        if let Some(mode) = mode {
            command = command.words("mode").arg("mode", mode)?;
        }
        if let Some(guid) = guid {
            command = command.words("guid").arg("guid", guid)?;
        }
        self.change_backend("add backend", command.settled_by(Reason::ObjectExists)).await
    }

    /// Says whether rules may choose a backend. `OBJECT_NOT_FOUND`, `UNSUPPORTED` before HAProxy 3.4.
    pub async fn publish_backend(&self, name: &str, published: bool) -> Result<()> {
        let words = if published { "publish backend" } else { "unpublish backend" };
        self.change_backend(words, Command::new(words).arg("name", name)?).await
    }

    /// Removes a backend. `OBJECT_NOT_FOUND`, `RUNTIME_REJECTED` while something needs it, `UNSUPPORTED` before HAProxy 3.4.
    pub async fn delete_backend(&self, name: &str) -> Result<()> {
        let command = Command::new("del backend").arg("name", name)?;
        self.change_backend("del backend", command.settled_by(Reason::ObjectNotFound)).await
    }

    async fn change_backend(&self, words: &'static str, command: Command) -> Result<()> {
        match self.short(command).await {
            Ok(_) => Ok(()),
            Err(error) if error.detail_text().is_some_and(|detail| detail.contains("Unknown command")) => {
                let version = self.version().await?;
                let message = format!("haproxy {version} has no runtime command '{words}', {SINCE} and later have it");
                Err(Error::new(Reason::Unsupported, message).with("since", SINCE))
            }
            Err(error) => Err(error),
        }
    }
}

/// A row of a backend: HAProxy tells in its status that none may choose it.
fn state(row: &StatRow) -> Option<BackendState> {
    let text = |column: &str| row.get(column).unwrap_or_default().to_owned();
    let status = text("status");
    let (status, published) = match status.strip_suffix(" (UNPUB)") {
        Some(status) => (status.to_owned(), false),
        None => (status, true),
    };
    Some(BackendState { name: row.get("pxname")?.to_owned(), mode: text("mode"), status, published })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::StatsReader;

    #[test]
    fn a_row_tells_whether_rules_may_choose_the_backend() {
        let mut reader = StatsReader::default();
        let lines = ["# pxname,svname,status,mode,", "a,BACKEND,UP (UNPUB),http,", "b,BACKEND,DOWN,tcp,"];
        let rows: Vec<_> = lines.iter().filter_map(|line| reader.line(line.as_bytes())).collect();
        let told: Vec<_> = rows.iter().filter_map(state).map(|s| (s.name, s.mode, s.status, s.published)).collect();
        let of = |name: &str, mode: &str, status: &str, published| {
            (name.to_owned(), mode.to_owned(), status.to_owned(), published)
        };
        assert_eq!(told, [of("a", "http", "UP", false), of("b", "tcp", "DOWN", true)]);
    }
}
