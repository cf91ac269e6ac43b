//! From services to a document: which backends and servers have to change. Pure.
//!
//! A backend of discovery holds slots: servers named `SRV_` and five letters or digits. Only they are touched. A slot in use
//! has the address of an instance; a free one is `127.0.0.1:80 disabled`. An instance keeps its slot as long as it is there, so
//! that the order of servers stays and hardly anything of a change needs a reload.

use std::collections::{HashMap, HashSet, VecDeque};

use super::slots::Slots;
use super::status::Discovered;
use crate::configuration::address::{Key, Place};
use crate::configuration::engine::Engine;
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::proto::fields::configuration::{backend, backend_tree, server, server_params};
use crate::proto::messages::configuration::BACKEND_TREE;
use crate::proto::values::r#type::toggle::ENABLED;
use crate::schema::value::{Object, Value};

/// Address and port of a free slot.
const NOWHERE: (&str, i64) = ("127.0.0.1", 80);
/// Weight of a new slot.
const WEIGHT: i64 = 128;
/// Most problems that are told.
const TOLD: usize = 20;

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) port: i64,
}

/// A service with the instances that take traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) endpoints: Vec<Endpoint>,
    /// Why its backend stays as it is: nothing is known of its instances, or HAProxy refuses them.
    pub(super) left_out: Option<String>,
}

/// What a search wants of the configuration.
pub(super) struct Wish<'a> {
    /// The services that there are.
    pub(super) services: &'a [Service],
    /// What the names of its backends begin with.
    pub(super) prefix: &'a str,
    /// Section that new backends start from.
    pub(super) from: Option<&'a str>,
    pub(super) slots: Slots,
    /// Who else made a backend of that name.
    pub(super) owner: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Whether a backend without a service is left over from this search.
    pub(super) left_over: &'a (dyn Fn(&str) -> bool + Sync),
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Planned {
    /// The document with all changes; nothing when there are none.
    pub(super) document: Option<Document>,
    /// The services that have a backend.
    pub(super) services: Vec<Discovered>,
    /// Backends of services that were left out.
    pub(super) left_out: Vec<String>,
    /// What was left out, and why.
    pub(super) problems: Vec<String>,
}

/// Plans over the documents of one schema.
pub(super) struct Planner {
    engine: Engine,
}

impl Planner {
    pub(super) fn new(engine: Engine) -> Planner {
        Planner { engine }
    }

    /// Plans the changes of one answer. `names` gives names of slots, again and again.
    pub(super) fn plan(
        &self,
        document: &Document,
        wish: &Wish<'_>,
        names: &mut dyn FnMut() -> String,
    ) -> Result<Planned> {
        if let Some(from) = wish.from.filter(|from| document.find("defaults", from).is_none()) {
            let text = format!("defaults: there is no section defaults {from}");
            return Err(Error::new(Reason::InvalidValue, text));
        }
        let mut changed = None;
        let mut planned = Planned { document: None, services: Vec::new(), left_out: Vec::new(), problems: Vec::new() };
        let mut kept = HashSet::new();
        for service in wish.services {
            let backend = format!("{}{}", wish.prefix, service.name);
            kept.insert(backend.clone());
            if let Some(why) = &service.left_out {
                planned.problems.push(format!("service {} is left out: {why}", service.name));
                planned.left_out.push(backend);
                continue;
            }
            let endpoints = usable(service, &mut planned.problems);
            let present = changed.as_ref().unwrap_or(document);
            match self.backend(present, &backend, &endpoints, wish, names) {
                Ok((next, slots)) => {
                    changed = next.or(changed);
                    let (name, instances) = (service.name.clone(), endpoints.len());
                    planned.services.push(Discovered { name, backend, instances, slots });
                }
                Err(error) => planned.problems.push(format!("service {}: {error}", service.name)),
            }
        }
        for section in document.sections().iter().filter(|section| section.kind() == "backend") {
            let name = section.name();
            if kept.contains(name) || !(wish.left_over)(name) {
                continue;
            }
            let present = changed.as_ref().unwrap_or(document);
            // One that has no slots is not ours, whatever its name.
            if let Ok((next, _)) = self.backend(present, name, &[], &Wish { from: None, ..*wish }, names) {
                changed = next.or(changed);
            }
        }
        planned.document = changed;
        planned.problems.truncate(TOLD);
        Ok(planned)
    }

    /// The document in which a backend has these instances, if it is another one, and the number of its slots.
    fn backend(
        &self,
        document: &Document,
        name: &str,
        endpoints: &[Endpoint],
        wish: &Wish<'_>,
        names: &mut dyn FnMut() -> String,
    ) -> Result<(Option<Document>, usize)> {
        let refuse = |words: String| Err(Error::new(Reason::InvalidValue, words));
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)) {
            return refuse(format!("haproxy takes no backend named {name:?}"));
        }
        if let Some(owner) = (wish.owner)(name) {
            return refuse(format!("backend {name} is that of {owner}"));
        }
        if document.find("listen", name).is_some() {
            return refuse(format!("a section listen {name} is there already"));
        }
        let count = wish.slots.count(endpoints.len());
        let (place, key) = (Place::default(), Key::Name(name.to_owned()));
        if document.find("backend", name).is_none() {
            let mut tree = Object::new();
            let backend = tree.object_mut(backend_tree::BACKEND);
            backend.set(backend::NAME, Value::Str(name.into()));
            if let Some(from) = wish.from {
                backend.set(backend::FROM, Value::Str(from.into()));
            }
            let mut servers = Vec::new();
            fill(&mut servers, endpoints, count, names);
            tree.set(backend_tree::SERVERS, Value::List(servers.into_iter().map(Value::Object).collect()));
            let edited = self.engine.create(document, BACKEND_TREE, &place, &tree)?;
            return Ok((Some(edited.document), count));
        }
        let mut tree = self.engine.get(document, BACKEND_TREE, &place, &key)?;
        let mut servers: Vec<Object> = Vec::new();
        for value in tree.list(backend_tree::SERVERS) {
            if let Value::Object(server) = value {
                servers.push(server.clone());
            }
        }
        if !servers.iter().any(is_slot) {
            return refuse(format!("backend {name} is not made by discovery: it has no server named SRV_xxxxx"));
        }
        let mut same = !fill(&mut servers, endpoints, count, names);
        if let Some(from) = wish.from
            && tree.object(backend_tree::BACKEND).and_then(|backend| backend.str(backend::FROM)) != Some(from)
        {
            tree.object_mut(backend_tree::BACKEND).set(backend::FROM, Value::Str(from.into()));
            same = false;
        }
        let slots = servers.iter().filter(|server| is_slot(server)).count();
        if same {
            return Ok((None, slots));
        }
        tree.set(backend_tree::SERVERS, Value::List(servers.into_iter().map(Value::Object).collect()));
        let edited = self.engine.replace(document, BACKEND_TREE, &place, &key, &tree)?;
        Ok((Some(edited.document), slots))
    }
}

/// Puts instances into slots, and makes or removes free ones until there are `count`. True when something changed.
fn fill(servers: &mut Vec<Object>, endpoints: &[Endpoint], count: usize, names: &mut dyn FnMut() -> String) -> bool {
    let mut changed = false;
    let mut missing: HashMap<&Endpoint, usize> = endpoints.iter().zip(0..).collect();
    let mut free = VecDeque::new();
    let mut slots = 0;
    for (at, server) in servers.iter().enumerate().filter(|(_, server)| is_slot(server)) {
        slots += 1;
        // A slot that someone put into maintenance holds its instance all the same.
        let held = endpoint(server).filter(|endpoint| missing.remove(endpoint).is_some());
        if held.is_none() {
            free.push_back(at);
        }
    }
    let mut coming: Vec<(usize, &Endpoint)> = missing.into_iter().map(|(endpoint, at)| (at, endpoint)).collect();
    coming.sort_unstable();
    let mut taken: HashSet<String> = servers.iter().map(|server| name(server).to_owned()).collect();
    while slots < count {
        let name = names();
        if taken.insert(name.clone()) {
            free.push_back(servers.len());
            servers.push(new_slot(&name));
            slots += 1;
            changed = true;
        }
    }
    for (_, endpoint) in coming {
        // There are as many slots as instances, and more.
        let Some(server) = free.pop_front().and_then(|at| servers.get_mut(at)) else { break };
        occupy(server, endpoint);
        changed = true;
    }
    let mut gone = HashSet::new();
    for at in free.into_iter().rev() {
        if slots > count {
            slots -= 1;
            gone.insert(at);
        } else if let Some(server) = servers.get_mut(at) {
            changed |= vacate(server);
        }
    }
    if !gone.is_empty() {
        changed = true;
        let mut at = 0..;
        servers.retain(|_| at.next().is_none_or(|at| !gone.contains(&at)));
    }
    changed
}

/// The instances of a service that a server line can hold, each once, in the order in which they were given.
fn usable(service: &Service, problems: &mut Vec<String>) -> Vec<Endpoint> {
    let mut seen = HashSet::new();
    let mut endpoints = Vec::new();
    for endpoint in &service.endpoints {
        let Endpoint { address, port } = endpoint;
        let letters = address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte));
        if !letters || address.is_empty() || !(1..=65_535).contains(port) {
            problems.push(format!("service {}: {address:?} port {port} is no address of a server", service.name));
        } else if seen.insert(endpoint) {
            endpoints.push(endpoint.clone());
        }
    }
    endpoints
}

fn is_slot(server: &Object) -> bool {
    let rest = name(server).strip_prefix("SRV_");
    rest.is_some_and(|rest| rest.len() == 5 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn endpoint(server: &Object) -> Option<Endpoint> {
    let address = server.str(server::ADDRESS)?.to_owned();
    let endpoint = Endpoint { address, port: server.int(server::PORT)? };
    let free = (endpoint.address.as_str(), endpoint.port) == NOWHERE && is_off(server);
    (!free).then_some(endpoint)
}

/// True when the slot was not free.
fn vacate(server: &mut Object) -> bool {
    let (address, port) = NOWHERE;
    if server.str(server::ADDRESS) == Some(address) && server.int(server::PORT) == Some(port) && is_off(server) {
        return false;
    }
    server.set(server::ADDRESS, Value::Str(address.into()));
    server.set(server::PORT, Value::Int(port));
    server.object_mut(server::PARAMS).set(server_params::MAINTENANCE, Value::Enum(ENABLED));
    true
}

fn new_slot(name: &str) -> Object {
    let mut server = Object::new();
    server.set(server::NAME, Value::Str(name.into()));
    let params = server.object_mut(server::PARAMS);
    // Checks cannot be switched on while HAProxy runs; in maintenance there are none.
    params.set(server_params::CHECK, Value::Enum(ENABLED));
    params.set(server_params::WEIGHT, Value::Int(WEIGHT));
    vacate(&mut server);
    server
}

fn name(server: &Object) -> &str {
    server.str(server::NAME).unwrap_or_default()
}

fn is_off(server: &Object) -> bool {
    let params = server.object(server::PARAMS);
    params.and_then(|params| params.enum_number(server_params::MAINTENANCE)) == Some(ENABLED)
}

fn occupy(server: &mut Object, endpoint: &Endpoint) {
    server.set(server::ADDRESS, Value::Str(endpoint.address.as_str().into()));
    server.set(server::PORT, Value::Int(endpoint.port));
    let params = server.object_mut(server::PARAMS);
    params.take(server_params::MAINTENANCE);
    if params.get(server_params::CHECK).is_none() {
        params.set(server_params::CHECK, Value::Enum(ENABLED));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
