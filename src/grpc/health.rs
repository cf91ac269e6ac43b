//! Health of the process and of its areas, for `grpc.health.v1` and `/healthz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

/// Says who serves. Clones share their state.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    serving: Arc<AtomicBool>,
}

impl Health {
    /// The whole process serves; areas are unknown until set.
    pub fn new() -> Self {
        Health { reporter: HealthReporter::new(), serving: Arc::new(AtomicBool::new(true)) }
    }

    /// Sets an area, named by the full name of its service; the empty name is the whole process.
    pub async fn set(&self, service: &str, serving: bool) {
        if service.is_empty() {
            self.serving.store(serving, Ordering::Relaxed);
        }
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }

    /// True while the whole process serves.
    pub fn serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    pub(super) fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }
}

impl Default for Health {
    fn default() -> Self {
        Health::new()
    }
}
