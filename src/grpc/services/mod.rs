//! What the methods do: one generic service for all configuration resources, and a hand-written function for each
//! other method. Each decodes nothing and formats nothing; it makes one call into the rooms below.

mod acl_files;
mod aggregations;
mod changes;
mod cluster;
mod discovery;
mod filter;
mod health;
mod info;
mod map_entries;
mod map_names;
mod maps;
mod native_stats;
mod paging;
mod peers;
mod raw;
mod registry;
mod reloads;
mod resources;
mod runtime_actions;
mod runtime_backends;
mod runtime_frontends;
mod runtime_overrides;
mod runtime_servers;
mod spoe_files;
mod spoe_scopes;
mod spoe_transactions;
mod stick_tables;
mod storage_certificates;
mod storage_general;
mod storage_maps;
mod stored;
mod transactions;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use self::changes::Change;
pub use self::map_names::MapNames;
use self::registry::Handler;
use super::call::{Answer, Api, Call, Transport};

use crate::aggregation::Aggregations;
use crate::configuration::Configuration;
use crate::configuration::address::Plan;
use crate::configuration::engine::Engine;
use crate::configuration::ports::Pending;
use crate::discovery::Directory;
use crate::error::{Error, Reason, Result};
use crate::overrides::Overrides;
use crate::process::presence::Presence;
use crate::process::reload::ReloadQueue;
use crate::runtime::Runtime;
use crate::schema::Schema;
use crate::schema::tables::MethodId;
use crate::spoe::SpoeStore;
use crate::stick_table::{Hub, Push};
use crate::storage::{FileStore, MapSync, Uploads};

/// Everything that methods work on.
pub struct Rooms {
    /// The schema.
    pub schema: Arc<Schema>,
    /// CRUD over documents, with all that the schema knows.
    pub engine: Engine,
    /// The same for callers of REST /v2.
    pub v2_engine: Engine,
    /// The managed file, its versions and transactions.
    pub configuration: Arc<Configuration>,
    /// Reloads.
    pub reloads: Arc<ReloadQueue>,
    /// HAProxy's runtime socket.
    pub runtime: Runtime,
    /// Writes at run time, and those that stay.
    pub overrides: Arc<Overrides>,
    /// Whether writes stay whose callers do not say.
    pub durable_writes: bool,
    /// Watches of stick tables.
    pub hub: Hub,
    /// Sessions with HAProxy as one of its peers.
    pub push: Arc<Push>,
    /// Where HAProxy is to listen for us as a peer.
    pub peers_socket: PathBuf,
    /// Map files.
    pub maps: FileStore,
    /// Certificates with their private keys.
    pub certificates: FileStore,
    /// Files for any use.
    pub general: FileStore,
    /// What is uploaded in pieces.
    pub uploads: Uploads,
    /// SPOE files.
    pub spoe: SpoeStore,
    /// Instances of service discovery.
    pub discovery: Arc<Directory>,
    /// Stick tables brought together over several HAProxys.
    pub aggregations: Arc<Aggregations>,
    /// What callers call maps.
    pub map_names: MapNames,
    /// Writes runtime changes of maps to their files.
    pub map_sync: Arc<MapSync>,
    /// How to find out whether HAProxy runs.
    pub presence: Presence,
    /// Whether health is only known by a status command, as callers of the Data Plane API expect.
    pub health_by_command: bool,
    /// What was found wanting at the start, a sentence each; part of what health tells.
    pub remarks: Vec<String>,
    /// What `GetInfo` says of this program.
    pub version: &'static str,
    /// Whether `GetInfo` tells of the machine.
    pub show_system_info: bool,
}

/// All methods, behind both transports.
pub struct Services {
    rooms: Arc<Rooms>,
    plans: Vec<Option<Plan>>,
    handlers: HashMap<MethodId, Handler>,
}

/// What a hand-written method gets besides its request.
#[derive(Clone)]
pub(super) struct Context {
    rooms: Arc<Rooms>,
    /// That of the rooms, for the caller.
    configuration: Arc<Configuration>,
    transport: Transport,
    caller: Option<Box<str>>,
    /// The bytes of the request came as JSON, which cannot carry all of them.
    is_json: bool,
}

impl std::ops::Deref for Context {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.rooms
    }
}

impl Services {
    /// All methods over the rooms.
    pub fn new(rooms: Rooms) -> Services {
        let plans = (0..rooms.schema.tables.methods.len()).map(|id| Plan::new(&rooms.schema, id)).collect();
        let handlers = registry::handlers(&rooms.schema);
        Services { rooms: Arc::new(rooms), plans, handlers }
    }

    /// Paths of methods that nothing answers. Empty, or the program is incomplete; a test looks.
    pub fn unanswered(&self) -> Vec<&str> {
        let tables = &self.rooms.schema.tables;
        let answered = |id: &usize| self.plans[*id].is_some() || self.handlers.contains_key(id);
        (0..tables.methods.len()).filter(|id| !answered(id)).map(|id| &*tables.methods[id].path).collect()
    }

    /// The rooms, for the gateway's headers and for shutting down.
    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }
}

impl Api for Services {
    fn warnings(&self) -> Vec<String> {
        let trouble = self.rooms.configuration.trouble().map(|error| error.to_string());
        let edit = self.rooms.configuration.refused_edit();
        trouble.into_iter().chain(edit).chain(self.rooms.reloads.warning()).collect()
    }

    fn call(&self, call: Call) -> Pending<'_, Result<Answer>> {
        let tables = &self.rooms.schema.tables;
        match Change::of(tables, &call) {
            None => self.answer(call),
            Some(change) => Box::pin(async move {
                let answer = self.answer(call).await?;
                change.tell(tables, &answer);
                Ok(answer)
            }),
        }
    }
}

impl Services {
    fn answer(&self, call: Call) -> Pending<'_, Result<Answer>> {
        if let Some(plan) = &self.plans[call.method] {
            return Box::pin(resources::call(&self.rooms, plan, call));
        }
        match self.handlers.get(&call.method) {
            Some(handler) => {
                let context = Context {
                    rooms: Arc::clone(&self.rooms),
                    configuration: self.rooms.configuration.used_by(call.caller.as_deref().unwrap_or_default()),
                    transport: call.transport,
                    caller: call.caller.clone(),
                    is_json: call.is_json,
                };
                handler(context, call)
            }
            None => Box::pin(async { Err(Error::new(Reason::Unsupported, "method is not supported")) }),
        }
    }
}
