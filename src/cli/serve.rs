//! `serve`: joins the rooms and serves until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Authenticator, User};
use crate::configuration::engine::Engine;
use crate::configuration::{Configuration, StoreSettings};
use crate::error::{Error, Reason, Result};
use crate::gateway::server::{Bounds, Protocols, bind, serve};
use crate::gateway::{Foundation, Gateway, Page, Settings as GatewaySettings};
use crate::grpc::health::Health;
use crate::grpc::server::GrpcServer;
use crate::grpc::services::{Rooms, Services};
use crate::process::check::{CheckOptions, Checker};
use crate::process::reload::{ReloadOptions, ReloadQueue};
use crate::process::strategy::{How, Presence, Strategy};
use crate::proto;
use crate::runtime::Runtime;
use crate::schema::Schema;
use crate::stick_table::{Hub, Poll};

/// What is served and how.
pub struct Setup {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The managed file and its state.
    pub store: StoreSettings,
    /// HAProxy's binary.
    pub haproxy_bin: PathBuf,
    /// Time between a change and its reload.
    pub reload_delay: Duration,
    /// How HAProxy is reloaded.
    pub how: How,
    /// How to see whether it runs.
    pub presence: Presence,
    /// Who may call.
    pub users: Vec<User>,
}

/// Serves until `stop`.
pub async fn run(setup: Setup, stop: CancellationToken) -> Result<()> {
    let listener = bind(setup.listen).await.map_err(|error| Error::new(Reason::Unsupported, error.to_string()))?;
    let schema = Schema::compile(proto::SCHEMA).map_err(|faults| Error::internal(faults.join("; ")))?;
    let schema = Arc::new(schema);
    let tasks = TaskTracker::new();
    let state_dir = setup.store.state_dir.clone();
    std::fs::create_dir_all(&state_dir).map_err(Error::internal)?;
    let check = Checker::new(CheckOptions::new(&setup.haproxy_bin, &state_dir, &setup.store.file))?;
    let reloader = Arc::new(Strategy::new(setup.how, setup.presence.clone()));
    let options = ReloadOptions { delay: setup.reload_delay, ..ReloadOptions::default() };
    let reloads = ReloadQueue::new(options, reloader);
    let configuration = Configuration::open(setup.store, Arc::new(check), reloads.clone()).await?;
    tasks.spawn(Arc::clone(&reloads).run(stop.clone()));
    tasks.spawn(Arc::clone(&configuration).watch(stop.clone()));
    let runtime = Runtime::new(Vec::new());
    let rooms = Rooms {
        engine: Engine::new(Arc::clone(&schema)),
        schema: Arc::clone(&schema),
        configuration: Arc::clone(&configuration),
        reloads,
        hub: Hub::new(Poll::new(runtime.clone())),
        runtime,
        presence: setup.presence,
        show_system_info: false,
    };
    let api = Arc::new(Services::new(rooms));
    let authenticator = Arc::new(Authenticator::new(setup.users));
    let health = Health::new();
    let grpc = GrpcServer::new(
        Arc::clone(&schema.tables),
        api.clone(),
        Arc::clone(&authenticator),
        &health,
        proto::REFLECTION,
        stop.clone(),
    )?;
    let versions = Arc::clone(&configuration);
    let gateway = Gateway::new(Foundation {
        tables: Arc::clone(&schema.tables),
        api,
        authenticator,
        health: health.clone(),
        version: Arc::new(move |transaction| versions.version_of(transaction)),
        pages: pages(),
        settings: GatewaySettings::default(),
        stop: stop.clone(),
    })?;
    tracing::info!(address = %setup.listen, "serving gRPC and REST");
    serve(listener, Protocols::new(grpc, gateway), Bounds::default(), stop).await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn pages() -> Vec<Page> {
    vec![Page {
        path: "/v2/docs",
        content_type: "text/html; charset=utf-8",
        body: Bytes::from_static(include_bytes!("../gateway/docs.html")),
        open: true,
    }]
}
