//! Services that HAProxy refuses: which one it is, and for how long it is left out.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::{Endpoint, Service};
use crate::configuration::ports::Pending;
use crate::error::{Error, Reason, Result};

/// A service that HAProxy refused is tried again after this, or when its instances change: an address may resolve by
/// then. Each try costs a check that fails.
const AGAIN: Duration = Duration::from_mins(1);

/// Lets HAProxy check the configuration with these services, those that are left out as they were.
pub(super) type TryOut<'a> = dyn Fn(Vec<Service>) -> Pending<'a, Result<()>> + Send + Sync + 'a;

/// Which service HAProxy refuses, out of its refusal of all together: the one that it names, else the one that is found
/// by halves. `None` when it refuses the configuration without any of them.
pub(super) async fn find(
    services: &[Service],
    prefix: &str,
    refusal: &Error,
    try_out: &TryOut<'_>,
) -> Result<Option<usize>> {
    let open = |service: &Service| service.left_out.is_none();
    let section = refusal.metadata().iter().find(|(key, _)| *key == "section").map(|(_, section)| section.as_str());
    let named = section.and_then(|section| section.strip_prefix("backend ")?.strip_prefix(prefix));
    if let Some(named) = named
        && let Some(found) = services.iter().position(|service| open(service) && service.name == named)
    {
        return Ok(Some(found));
    }
    let mut suspects: Vec<usize> = (0..services.len()).filter(|at| services.get(*at).is_some_and(open)).collect();
    if refuses(services, &[], try_out).await? {
        return Ok(None);
    }
    while suspects.len() > 1 {
        let second = suspects.split_off(suspects.len() / 2);
        if !refuses(services, &suspects, try_out).await? {
            suspects = second;
        }
    }
    Ok(suspects.first().copied())
}

/// Whether HAProxy refuses some of the services, the others left out.
async fn refuses(services: &[Service], some: &[usize], try_out: &TryOut<'_>) -> Result<bool> {
    let without = |(at, service): (usize, &Service)| {
        let left_out = service.left_out.clone().or_else(|| (!some.contains(&at)).then(String::new));
        Service { left_out, ..service.clone() }
    };
    match try_out(services.iter().enumerate().map(without).collect()).await {
        Err(error) if error.reason() == Reason::ConfigurationRejected => Ok(true),
        tried => tried.map(|()| false),
    }
}

/// Services that HAProxy refused before.
#[derive(Debug, Default)]
pub(super) struct Refused(HashMap<String, Refusal>);

#[derive(Debug)]
struct Refusal {
    endpoints: Vec<Endpoint>,
    why: String,
    since: Instant,
}

impl Refused {
    /// Leaves out those of the services that HAProxy refused a short while ago as they are.
    pub(super) fn leave_out(&mut self, services: &mut [Service]) {
        self.0.retain(|_, refusal| refusal.since.elapsed() < AGAIN);
        for service in services.iter_mut().filter(|service| service.left_out.is_none()) {
            let refusal = self.0.get(&service.name).filter(|refusal| refusal.endpoints == service.endpoints);
            service.left_out = refusal.map(|refusal| refusal.why.clone());
        }
    }

    /// Notes a refusal, and returns the reason in words.
    pub(super) fn note(&mut self, service: &Service, error: &Error) -> String {
        let (why, endpoints) = (error.to_string(), service.endpoints.clone());
        self.0.insert(service.name.clone(), Refusal { endpoints, why: why.clone(), since: Instant::now() });
        why
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn services(names: &[&str]) -> Vec<Service> {
        names.iter().map(|name| Service { name: (*name).into(), ..Service::default() }).collect()
    }

    fn refusal() -> Error {
        Error::new(Reason::ConfigurationRejected, "no")
    }

    /// Finds the guilty one of `names` where HAProxy refuses these; also how often it was asked.
    async fn found(names: &[&str], bad: &[&str], refusal: &Error) -> (Option<usize>, usize) {
        let (all, asked) = (services(names), AtomicUsize::new(0));
        let try_out = |some: Vec<Service>| -> Pending<'_, Result<()>> {
            asked.fetch_add(1, Ordering::Relaxed);
            let is_bad = |service: &Service| service.left_out.is_none() && bad.contains(&service.name.as_str());
            let refused = bad.contains(&"itself") || some.iter().any(is_bad);
            Box::pin(std::future::ready(if refused { Err(refusal.clone()) } else { Ok(()) }))
        };
        let found = find(&all, "p-", refusal, &try_out).await.unwrap();
        (found, asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn the_guilty_one_is_found_by_its_name_or_by_halves() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        for (at, name) in names.iter().enumerate() {
            let named = refusal().with("section", format!("backend p-{name}"));
            assert_eq!(found(&names, &[name], &named).await, (Some(at), 0));
            assert_eq!(found(&names, &[name], &refusal()).await, (Some(at), 4));
        }
        let other = refusal().with("section", "backend p-x");
        assert_eq!(found(&names, &["c", "f"], &other).await.0, Some(2));
        assert_eq!(found(&names, &["itself"], &refusal()).await, (None, 1));
        assert_eq!(found(&[], &[], &refusal()).await, (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_service_is_left_out_until_it_changes_or_time_passes() {
        let mut refused = Refused::default();
        let mut all = services(&["a", "b"]);
        assert_eq!(refused.note(&all[0], &refusal()), "no");
        refused.leave_out(&mut all);
        assert_eq!((all[0].left_out.as_deref(), all[1].left_out.as_deref()), (Some("no"), None));
        let mut other = services(&["a"]);
        other[0].endpoints.push(Endpoint { address: "10.0.0.1".into(), port: 1 });
        refused.leave_out(&mut other);
        assert_eq!(other[0].left_out, None);
        tokio::time::advance(AGAIN).await;
        let mut again = services(&["a"]);
        refused.leave_out(&mut again);
        assert_eq!(again[0].left_out, None);
    }
}
