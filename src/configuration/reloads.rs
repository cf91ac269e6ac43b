//! What the results of reloads do to the configuration: the last good state, or the way back (`blame.rs`).

use std::sync::{Arc, Weak};

use super::ports::{Blame, Load, Pending, Refusal, ReloadListener};
use super::store::{Shared, blocking};
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
            match shared.check.check(&text, "candidate", "").await {
                Err(error) if error.reason() == Reason::ConfigurationRejected => {
                    Some(error.detail_text().unwrap_or(error.message()).to_owned())
                }
                _ => None,
            }
        })
    }

    fn refused<'a>(&'a self, version: i64, refusal: Refusal, loads: &'a dyn Load) -> Pending<'a, Blame> {
        Box::pin(async move {
            let Some(shared) = self.0.upgrade() else { return Blame::default() };
            let message = refusal.message.clone();
            shared.blame(version, refusal, loads).await.unwrap_or_else(|error| {
                tracing::error!(version, context = error.context_text(), %error, "cannot take back what HAProxy refuses");
                Blame { pending: Some(message), ..Blame::default() }
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
                self.refused_edit.store(None);
                // Who follows what HAProxy runs hears of it as well.
                self.changes.send_replace(self.current.load().version);
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
}
