//! Around our own reloads: the files of maps have everything before, the new worker is met afterwards, and what HAProxy
//! printed is told without the values of its environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::configuration::Configuration;
use crate::configuration::ports::{self, Pending};
use crate::process::environment::{Surroundings, Variables};
use crate::process::strategy::{Outcome, Reloader};
use crate::runtime::{Runtime, Worker, WorkerListener};
use crate::storage::MapSync;

/// How long the worker of our own reload is looked for at most, and the pause between two looks.
const MEET: Duration = Duration::from_millis(200);
const MEET_PAUSE: Duration = Duration::from_millis(2);

/// Reloads when the files of maps have all that was changed while HAProxy ran.
pub(super) struct Flushed {
    pub(super) map_sync: Arc<MapSync>,
    pub(super) runtime: Runtime,
    pub(super) reloader: Arc<dyn Reloader>,
    pub(super) surroundings: Surroundings,
    /// The configuration file, and what else an operator knows: the words of the reload command.
    pub(super) config_file: PathBuf,
    pub(super) known: String,
}

impl Flushed {
    /// What HAProxy or a command printed at a reload, for callers and the log.
    async fn shown(&self, outcome: Outcome, variables: &Variables) -> Outcome {
        let mut known = tokio::fs::read(&self.config_file).await.unwrap_or_default();
        known.extend_from_slice(self.config_file.as_os_str().as_encoded_bytes());
        known.extend_from_slice(self.known.as_bytes());
        outcome.said(|text| variables.hide(text, &known))
    }
}

impl Reloader for Flushed {
    fn reload(&self) -> Pending<'_, Outcome> {
        Box::pin(async {
            let _paused = self.map_sync.pause(&self.runtime).await;
            let before = self.runtime.worker();
            // Afterwards the one that can be asked may be another one, or none.
            let variables = self.surroundings.printable().await;
            let outcome = self.shown(self.reloader.reload().await, &variables).await;
            if matches!(outcome, Outcome::Done(_)) {
                meet(&self.runtime, before).await;
            }
            outcome
        })
    }
}

/// Writes runtime changes of maps to their files, again and again.
pub(super) async fn keep_maps(map_sync: Arc<MapSync>, runtime: Runtime, period: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        match map_sync.round(&runtime).await {
            Ok(looked_at) => {
                for (file, result) in looked_at {
                    if let Err(error) = result {
                        tracing::warn!(file, %error, "map file is not up to date");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "maps cannot be listed"),
        }
    }
}

/// Hears of each worker, the first one included.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Notify);

impl WorkerListener for Newcomers {
    fn changed(&self, _: Worker) {
        self.0.notify_one();
    }
}

impl Newcomers {
    /// Has HAProxy reload when a worker comes, or is there at the start, that lacks a change.
    pub(super) async fn keep_up(
        self: Arc<Self>,
        runtime: Runtime,
        configuration: Arc<Configuration>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.notified() => {}
            }
            let asked = match runtime.began().await {
                Ok((worker, began)) => configuration.met(ports::Worker::new(worker.pid, began)).await,
                // The next one that answers is told of again.
                Err(error) => {
                    tracing::debug!(%error, "haproxy does not say when it began");
                    continue;
                }
            };
            match asked {
                Ok(Some(id)) => {
                    tracing::warn!(id, "haproxy's worker lacks a change of the configuration: a reload follows");
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, context = error.context_text(), "cannot ask for a reload"),
            }
        }
    }
}

/// Looks for the next worker, a moment at most, so that it is known and being prepared when its reload is reported.
async fn meet(runtime: &Runtime, before: Option<Worker>) {
    let met = async {
        while runtime.worker() == before {
            drop(runtime.look().await);
            tokio::time::sleep(MEET_PAUSE).await;
        }
    };
    // A command may have said that it reloaded, and have done nothing.
    drop(tokio::time::timeout(MEET, met).await);
}
