//! What the results of reloads do to the configuration: the last good state, and the way back to it.

use std::sync::{Arc, Weak};

use super::disk::{self, Steps};
use super::journal::Origin;
use super::ports::{Pending, ReloadListener};
use super::store::{Shared, blocking};
use super::write::{Over, Write};
use crate::error::{Reason, Result};

/// Hears of reloads. Does not keep the configuration alive: the reload queue lives as long as it does.
pub(super) struct Listener(pub(super) Weak<Shared>);

impl ReloadListener for Listener {
    fn version(&self) -> i64 {
        let Some(shared) = self.0.upgrade() else { return 0 };
        let current = shared.current.load_full();
        let version = current.version;
        shared.recent().pin(current);
        version
    }

    fn accepted(&self, version: i64) -> Pending<'_, ()> {
        Box::pin(async move {
            let Some(shared) = self.0.upgrade() else { return };
            if let Err(error) = shared.accepted(version).await {
                tracing::error!(version, context = error.context_text(), "cannot keep the last good configuration");
            }
        })
    }

    fn refusal(&self, version: i64) -> Pending<'_, Option<String>> {
        Box::pin(async move {
            let shared = self.0.upgrade()?;
            let text = shared.recent().find(version)?.document.to_bytes();
            match shared.check.check(&text, "candidate").await {
                Err(error) if error.reason() == Reason::ConfigurationRejected => {
                    Some(error.detail_text().unwrap_or(error.message()).to_owned())
                }
                _ => None,
            }
        })
    }

    fn refused(&self, version: i64, message: String) -> Pending<'_, Vec<i64>> {
        Box::pin(async move {
            let Some(shared) = self.0.upgrade() else { return Vec::new() };
            shared.refused(version, &message).await.unwrap_or_else(|error| {
                tracing::error!(
                    version,
                    context = error.context_text(),
                    "cannot go back to the last good configuration"
                );
                Vec::new()
            })
        })
    }
}

impl Shared {
    async fn accepted(self: Arc<Self>, version: i64) -> Result<()> {
        let mut writer = self.writer.clone().lock_owned().await;
        blocking(move || {
            let state = writer.journal.state();
            let current = self.current.load_full();
            let known = self.recent().find(version).or((current.version == version).then_some(current));
            if let Some(snapshot) = &known {
                self.loaded.store(snapshot.clone());
            }
            if state.version != version && !state.unproven.contains(&version) {
                return Ok(());
            }
            match known {
                Some(snapshot) if snapshot.hash == writer.good.hash && state.reload_wanted.is_none() => Ok(()),
                Some(snapshot) => writer.keep_good(&self.settings, &snapshot),
                None => {
                    tracing::warn!(version, "a reload loaded a version whose text is gone; the last good one stays");
                    Ok(())
                }
            }
        })
        .await
    }

    /// Goes back to the last good state, with every version since then: the newer ones stand on the refused one.
    async fn refused(self: Arc<Self>, version: i64, message: &str) -> Result<Vec<i64>> {
        let mut writer = self.writer.clone().lock_owned().await;
        let (taken, now) = blocking(move || {
            let taken = writer.journal.state().unproven.clone();
            // What someone wrote by hand, and HAProxy refuses, is not ours to take back.
            if !taken.contains(&version) || self.trouble.load().is_some() {
                return Ok((Vec::new(), version));
            }
            let refused = self.current.load_full();
            disk::replace(&self.settings.set_aside("refused"), &refused.document.to_bytes(), 0o600, &Steps::NONE)?;
            let write = Write::new(Origin::Rollback, writer.good.document.clone()).over(Over::Anything);
            let Some((snapshot, _)) = self.write_file(&mut writer, write)? else { return Ok((Vec::new(), version)) };
            writer.keep_good(&self.settings, &snapshot)?;
            Ok((taken, snapshot.version))
        })
        .await?;
        if !taken.is_empty() {
            tracing::error!(refused = version, version = now, taken_back = ?taken, message, "HAProxy refused to load, the last good configuration is back");
        }
        Ok(taken)
    }
}
