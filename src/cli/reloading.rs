//! Around our own reloads: the files of maps have everything before, and the new worker is met afterwards.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::configuration::Configuration;
use crate::configuration::ports::{self, Pending};
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
}

impl Reloader for Flushed {
    fn reload(&self) -> Pending<'_, Outcome> {
        Box::pin(async {
            let _paused = self.map_sync.pause(&self.runtime).await;
            let before = self.runtime.worker();
            let outcome = self.reloader.reload().await;
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
                    tracing::warn!(id, "haproxy's worker lacks a change of the configuration: a reload follows")
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
