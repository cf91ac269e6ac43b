//! The loop of one instance: ask, plan, write, wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use rand::distr::Alphanumeric;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::aws;
use super::client::{Client, Trouble};
use super::consul;
use super::guilty::{self, Refused};
use super::instance::{Settings, Source};
use super::pace;
use super::plan::{Planned, Planner, Service, Wish};
use super::status::{State, Status};
use super::surroundings::Surroundings;
use crate::configuration::plan::Live;
use crate::configuration::ports::Pending;
use crate::configuration::{ChangeOptions, Configuration, Target};
use crate::error::{Error, Reason};

/// How often a change is planned anew because the configuration changed meanwhile.
const TRIES: usize = 8;

/// What all searches have in common.
pub(super) struct Shared {
    pub(super) planner: Planner,
    pub(super) configuration: Arc<Configuration>,
    pub(super) around: Surroundings,
    /// One search writes at a time, so that they do not get in each other's way.
    pub(super) writes: tokio::sync::Mutex<()>,
    /// Prefixes of all instances, by their ids.
    pub(super) prefixes: Mutex<HashMap<String, String>>,
    /// Backends, with the id of the instance whose services they hold.
    pub(super) claims: Mutex<HashMap<String, String>>,
}

/// The search of one instance.
pub(super) struct Search {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
    pub(super) settings: Settings,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: CancellationToken,
}

/// What the source said last.
#[derive(Default)]
struct Memory {
    client: Option<Client>,
    consul: consul::Memory,
    aws: aws::Memory,
    refused: Refused,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Notes what the names of the backends of an instance begin with; nothing forgets the instance.
    pub(super) fn note_prefix(&self, id: &str, prefix: Option<&str>) {
        let mut prefixes = locked(&self.prefixes);
        match prefix {
            Some(prefix) => drop(prefixes.insert(id.to_owned(), prefix.to_owned())),
            None => drop(prefixes.remove(id)),
        }
    }

    /// Who else holds a backend.
    fn owner(&self, id: &str, backend: &str) -> Option<String> {
        let owner = locked(&self.claims).get(backend).cloned();
        owner.filter(|owner| owner != id).map(|owner| format!("another search, {owner}"))
    }

    /// Whether a backend without a service was made by this search, by what is known, or by its name alone.
    fn is_left_over(&self, id: &str, backend: &str) -> bool {
        if let Some(owner) = locked(&self.claims).get(backend) {
            return owner == id;
        }
        let prefixes = locked(&self.prefixes);
        let fits = |prefix: &&String| backend.starts_with(prefix.as_str());
        let Some(own) = prefixes.get(id).filter(fits) else { return false };
        // `a-` and `a-b-` may both begin the name: the longer one counts.
        !prefixes.iter().any(|(other, prefix)| other != id && fits(&prefix) && prefix.len() >= own.len())
    }

    /// Notes whose backends these are from now on.
    fn claim(&self, id: &str, backends: impl Iterator<Item = String>) {
        let mut claims = locked(&self.claims);
        claims.retain(|_, owner| owner != id);
        claims.extend(backends.map(|backend| (backend, id.to_owned())));
    }
}

impl Search {
    /// Searches until it is stopped. Begins when the search that it replaces has ended.
    pub(super) async fn run(self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            drop(before.await);
        }
        // The one before may have said something meanwhile.
        self.status.send_replace(Status::before_the_first_attempt(self.settings.enabled));
        if !self.settings.enabled {
            return;
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.search() => {}
        }
        self.shared.claim(&self.id, std::iter::empty());
    }

    async fn search(&self) {
        let mut memory = Memory::default();
        loop {
            let began = Instant::now();
            let result = self.attempt(&mut memory).await;
            let failures = self.note(result);
            let time = pace::wait(self.settings.period, failures, rand::random());
            let next = self.shared.around.now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            self.status.send_modify(|status| status.next_attempt_time = Some(next));
            if failures == 0 {
                self.wait(&mut memory, time).await;
                tokio::time::sleep_until(began + pace::LEAST).await;
            } else {
                tokio::time::sleep(time).await;
            }
        }
    }

    async fn attempt(&self, memory: &mut Memory) -> Result<Planned, Trouble> {
        let services = self.ask(memory).await?;
        self.write(services, &mut memory.refused).await.map_err(|error| {
            let more = [error.detail_text(), error.context_text()].into_iter().flatten().next();
            Trouble(more.map_or_else(|| error.to_string(), |more| format!("{error}: {}", more.trim())))
        })
    }

    async fn ask(&self, memory: &mut Memory) -> Result<Vec<Service>, Trouble> {
        let client = match &memory.client {
            Some(client) => client.clone(),
            None => memory.client.insert(Client::new(self.tls()?)?).clone(),
        };
        match &self.settings.source {
            Source::Consul(agent) => agent.ask(&client, &mut memory.consul).await,
            Source::Aws(region) => region.ask(&client, &self.shared.around, &mut memory.aws).await,
        }
    }

    /// Whether the source is asked over TLS.
    fn tls(&self) -> Result<bool, Trouble> {
        match &self.settings.source {
            Source::Consul(agent) => Ok(agent.tls),
            Source::Aws(region) => Ok(region.endpoint(&self.shared.around)?.scheme_str() == Some("https")),
        }
    }

    /// Waits for the next attempt, or for word of a change.
    async fn wait(&self, memory: &mut Memory, time: Duration) {
        match (&self.settings.source, &memory.client) {
            (Source::Consul(agent), Some(client)) => agent.wait(client, &mut memory.consul, time).await,
            (Source::Aws(_), _) | (_, None) => tokio::time::sleep(time).await,
        }
    }

    /// Makes the configuration hold these services, if it does not yet: all but those that HAProxy refuses.
    async fn write(&self, mut services: Vec<Service>, refused: &mut Refused) -> Result<Planned, Error> {
        refused.leave_out(&mut services);
        let _one = self.shared.writes.lock().await;
        let mut tries = 0;
        loop {
            match self.change(&services, false).await {
                Ok(planned) => {
                    let backends = planned.services.iter().map(|service| service.backend.clone());
                    self.shared.claim(&self.id, backends.chain(planned.left_out.iter().cloned()));
                    return Ok(planned);
                }
                // Somebody else was first.
                Err(error) if error.reason() == Reason::VersionMismatch && tries < TRIES => tries += 1,
                Err(error) if error.reason() == Reason::ConfigurationRejected => {
                    let try_out = |services: Vec<Service>| -> Pending<'_, Result<(), Error>> {
                        Box::pin(async move { self.change(&services, true).await.map(drop) })
                    };
                    let Some(found) = guilty::find(&services, &self.settings.prefix, &error, &try_out).await? else {
                        return Err(error);
                    };
                    let Some(service) = services.get_mut(found) else { return Err(error) };
                    tracing::warn!(id = self.id, service = service.name, %error, "a service is left out");
                    service.left_out = Some(refused.note(service, &error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what has to change for these services, or only lets HAProxy check it.
    async fn change(&self, services: &[Service], validate_only: bool) -> Result<Planned, Error> {
        let shared = &self.shared;
        let wish = Wish {
            services,
            prefix: &self.settings.prefix,
            from: self.settings.from.as_deref(),
            slots: self.settings.slots,
            owner: &|backend| shared.owner(&self.id, backend),
            left_over: &|backend| shared.is_left_over(&self.id, backend),
        };
        let current = shared.configuration.current();
        let planned = shared.planner.plan(&current.document, &wish, &mut slot_name)?;
        // Without a change there is nothing to be written, but what is there can be checked.
        let wanted = planned.document.clone().or_else(|| validate_only.then(|| current.document.clone()));
        if let Some(document) = wanted {
            let options = ChangeOptions { live: Live::Everything, validate_only, ..ChangeOptions::default() };
            let target = Target::Version(current.version);
            let ((), outcome) = shared.configuration.change(target, options, |_| Ok((document, ()))).await?;
            if !validate_only {
                let reload = outcome.reload_id.as_deref().unwrap_or_default();
                tracing::info!(id = self.id, version = outcome.version, reload, "services have changed");
            }
        }
        Ok(planned)
    }

    /// Notes how an attempt went, and returns how many have failed in a row.
    fn note(&self, result: Result<Planned, Trouble>) -> u32 {
        let now = Some(self.shared.around.now());
        self.status.send_modify(|status| match result {
            Ok(planned) => {
                if status.failures > 0 {
                    tracing::info!(id = self.id, failures = status.failures, "service discovery goes on");
                }
                status.state = State::Running;
                status.last_success_time = now;
                status.failures = 0;
                status.services = planned.services;
                status.problems = planned.problems;
            }
            Err(trouble) => {
                tracing::warn!(id = self.id, error = %trouble, "service discovery fails; backends stay as they are");
                status.state = State::Failing;
                status.last_error = trouble.0;
                status.last_error_time = now;
                status.failures = status.failures.saturating_add(1);
            }
        });
        self.status.borrow().failures
    }
}

fn slot_name() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(5).map(char::from).collect::<String>();
    format!("SRV_{letters}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_have_names_of_five_letters_or_digits() {
        let name = super::slot_name();
        assert!(name.len() == 9 && name.starts_with("SRV_"), "{name}");
        assert!(name[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(name, super::slot_name());
    }
}
