//! `serve`: joins the rooms and serves until it is told to stop.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listen;
use super::owner;
use super::pid_file::PidFile;
use super::reloading::{Flushed, Newcomers, keep_maps};
use super::users;
use super::welcome;
use crate::aggregation::{Aggregations, Joining};
use crate::auth::{Authenticator, Wording};
use crate::configuration::engine::Engine;
use crate::configuration::look::looks;
use crate::configuration::ports::Pending;
use crate::configuration::{Claim, Configuration, HeaderPolicy, StoreSettings};
use crate::discovery::{Directory, DirectorySettings};
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::gateway::listen::Sockets;
use crate::gateway::server::{Protocols, serve};
use crate::gateway::{Cors, Foundation, Gateway, Limits, Page, Settings as GatewaySettings};
use crate::grpc::health::Health;
use crate::grpc::server::GrpcServer;
use crate::grpc::services::{MapNames, Rooms, Services};
use crate::overrides::{self, Bringer, Overrides, Overruling};
use crate::process::child::{ChildOptions, Supervised};
use crate::process::environment::{Surroundings, Variables};
use crate::process::master::MasterSocket;
use crate::process::presence::{Answered, Listening, Presence, Standing, StatsSockets};
use crate::process::reload::{ReloadOptions, ReloadQueue};
use crate::process::standalone::Standalone;
use crate::process::strategy::{How, Outcome, Reloader, Strategy};
use crate::process::systemd;
use crate::process::version::Version;
use crate::proto;
use crate::runtime::{Address, LiveChanges, Runtime, Worker, WorkerListener};
use crate::schema::Schema;
use crate::schema::comments::comments;
use crate::schema::openapi::{Dialect, document};
use crate::schema::tables::Tables;
use crate::settings::{DelayedStart, Profile, ReloadMethod, Settings};
use crate::spoe::SpoeStore;
use crate::stick_table::{Hub, Poll, Push, Tls};
use crate::storage::{FileStore, MapSync, UploadLimits, Uploads};

/// Uploads in pieces at the same time, and when one to which nothing is added is given up.
const UPLOADS: usize = 16;
const UPLOAD_IDLE: Duration = Duration::from_mins(10);

/// Time between two looks for a worker that others have started.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a change of a file with users is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// Looks up an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What stays from one run to the next in the same process: nobody is refused meanwhile, and what the first run could do
/// as root need not be done again.
#[derive(Debug, Default)]
pub struct Lasting {
    sockets: Sockets,
    pid_file: Option<PidFile>,
}

/// Serves until `stop`.
pub async fn run(
    settings: Settings,
    environment: Environment,
    lasting: &mut Lasting,
    stop: CancellationToken,
) -> Result<()> {
    // The sockets first: two servers on one file must not both get further.
    let ports = listen::open(&settings, &mut lasting.sockets).await?;
    let version = Version::of(&settings.haproxy_bin).await?;
    let standalone = match &settings.standalone {
        Some(folder) => Some(Standalone::prepare(folder, settings.frontend_addr)?),
        None => None,
    };
    let schema = Schema::compile(proto::SCHEMA).map_err(|faults| Error::internal(faults.join("; ")))?;
    let schema = Arc::new(schema);
    let engine = Engine::new(Arc::clone(&schema)).for_version((version.major, version.minor));
    // Nothing is made before it is known that the file can be served, and to whom.
    let claim = Claim::take(store(&settings)).await.map_err(shown)?;
    users::somebody(&settings, &users::all(&settings, &*environment, claim.document())?)?;
    let tls = settings.peer_tls.as_ref().map(|tls| {
        let identity = tls.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Tls::load(&tls.ca, identity, tls.name.as_deref())
    });
    let tls = tls.transpose()?;
    let tasks = TaskTracker::new();
    make_folder(&settings.state_dir)?;
    if settings.profile == Profile::DropIn {
        make_folder(&settings.transaction_dir.join("failed"))?;
        make_folder(&settings.maps_dir)?;
        make_folder(&settings.ssl_certs_dir)?;
        make_folder(&settings.general_storage_dir)?;
        make_folder(&settings.spoe_dir)?;
        make_folder(&settings.spoe_transaction_dir)?;
    }
    if lasting.pid_file.as_ref().map(PidFile::path) != settings.pid_file.as_deref() {
        let write = |path: &PathBuf| PidFile::write(path).map_err(|error| cannot("write", path, &error));
        lasting.pid_file = settings.pid_file.as_ref().map(write).transpose()?;
    }
    let folders = [
        &settings.state_dir,
        &settings.maps_dir,
        &settings.ssl_certs_dir,
        &settings.general_storage_dir,
        &settings.spoe_dir,
        &settings.spoe_transaction_dir,
    ];
    owner::change(&settings, &folders.map(PathBuf::as_path), &lasting.sockets.files().collect::<Vec<_>>())?;

    let (check, runtime, weakness) = super::check::checker(&settings, &engine)?;

    let reloader = Arc::new(LateReloader::default());
    let options = ReloadOptions {
        delay: settings.reload_delay,
        retention: settings.reload_retention,
        patience: settings.reload_timeout,
        numbers: Some(settings.state_dir.join("reload-numbers")),
        failures: Some(settings.state_dir.join("reload-failures")),
    };
    let maps = FileStore::maps(&settings.maps_dir).map_err(shown)?.read_only(settings.read_only);
    let map_sync = MapSync::new(maps.clone(), settings.update_map_files_period);
    let map_sync = Arc::new(map_sync.looking(settings.update_map_files));
    let flushed = Flushed {
        map_sync: Arc::clone(&map_sync),
        runtime: runtime.clone(),
        reloader: reloader.clone(),
        surroundings: Surroundings::asked(runtime.clone(), Variables::ours()),
        config_file: settings.config_file.clone(),
        known: format!("{:?} {:?}", settings.reload_method, settings.master_runtime),
    };
    let reloads = ReloadQueue::new(options, Arc::new(flushed));
    let configuration = Configuration::open_claimed(claim, check.clone(), reloads.clone()).await.map_err(shown)?;
    check.sweep();
    let presence = presence(&settings, standalone.as_ref(), &engine, &configuration);

    let overrides = overrides::Rooms {
        runtime: runtime.clone(),
        maps: Arc::clone(&map_sync),
        engine: engine.clone(),
        configuration: Arc::clone(&configuration),
        clock: store(&settings).clock,
    };
    let overrides = Overrides::open(&settings.state_dir, overrides)?;
    let live = Arc::new(LiveChanges::new(Engine::new(Arc::clone(&schema)), runtime.clone()));
    configuration.apply_with(Arc::new(Overruling::new(live, &overrides)));
    tasks.spawn(Arc::clone(&overrides).run(stop.clone()));
    let hub = Hub::new(Poll::new(runtime.clone()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let push = Arc::new(Push::new(hub.clone(), settings.peer_name.clone(), host).over_tls(tls.clone()));
    let readers = super::keys::readers(engine.clone(), Arc::clone(&configuration), settings.stats_socket.clone());
    let shared = |store: FileStore| store.key_readers(readers.clone()).read_only(settings.read_only);
    let certificates = shared(FileStore::certificates(&settings.ssl_certs_dir).map_err(shown)?);
    let general = shared(FileStore::general(&settings.general_storage_dir).map_err(shown)?);
    let max_open = settings.max_open_transactions.unwrap_or(0);
    let spoe = SpoeStore::open(&settings.spoe_dir, &settings.spoe_transaction_dir, max_open, configuration.clone());
    let spoe = spoe.map_err(shown)?.read_only(settings.read_only);
    let wording = if settings.profile == Profile::DropIn { Wording::Recorded } else { Wording::Same };
    let authenticator = Arc::new(Authenticator::new(Vec::new(), wording));
    let follower = Follower {
        engine: engine.clone(),
        settings: settings.clone(),
        environment: Arc::clone(&environment),
        runtime: runtime.clone(),
        push: Arc::clone(&push),
        authenticator: Arc::clone(&authenticator),
    };
    follower.follow_haproxy(&configuration);
    follower.follow_users(&configuration.current().document)?;

    let in_order = configuration.trouble().is_none();
    let (how, child, mut remarks) = how(&settings, &version, standalone.as_ref(), in_order).await?;
    remarks.extend(weakness);
    let mut strategy = Strategy::new(how, presence.clone());
    strategy.patience = settings.reload_timeout;
    strategy.trust_exit_status = settings.profile == Profile::DropIn;
    reloader.set(strategy);
    if let Some(child) = child {
        tasks.spawn(supervise(child, Arc::clone(&configuration), stop.clone()));
    }
    if let Some(patience) = &settings.delayed_start {
        wait_for_haproxy(&presence, patience, &stop).await;
    }
    tasks.spawn(Arc::clone(&reloads).run(stop.clone()));
    tasks.spawn(Arc::clone(&configuration).watch(stop.clone()));
    tasks.spawn(follower.run(Arc::clone(&configuration), stop.clone()));
    let newcomers = Arc::new(Newcomers::default());
    runtime.listen(newcomers.clone());
    tasks.spawn(newcomers.keep_up(runtime.clone(), Arc::clone(&configuration), stop.clone()));
    runtime.listen(Arc::new(Forget(hub.clone())));
    runtime.listen(Arc::new(Bringer::new(&overrides)));
    // Checks may have asked HAProxy already: the worker that runs is new to those who listen.
    runtime.set_addresses(runtime.addresses());
    tasks.spawn(watch_workers(runtime.clone(), stop.clone()));
    if !settings.read_only {
        let period = settings.update_map_files_period;
        tasks.spawn(keep_maps(Arc::clone(&map_sync), runtime.clone(), period, stop.clone()));
    }

    let store = store(&settings);
    let discovery = DirectorySettings {
        yaml: settings.yaml_file.clone(),
        state_dir: settings.state_dir.clone(),
        clock: Arc::clone(&store.clock),
        environment: Arc::clone(&environment),
    };
    let discovery =
        Directory::open(discovery, engine.clone(), Arc::clone(&configuration), tasks.clone(), stop.clone()).await?;

    let limits = UploadLimits { size: settings.max_upload_size as u64, number: UPLOADS, idle: UPLOAD_IDLE };
    let joining = Joining { lines: push.lines().clone(), peer_name: settings.peer_name.clone(), tls };
    let tables = Arc::clone(&schema.tables);
    let aggregations = Aggregations::open(&settings.state_dir, tables, joining, Arc::clone(&store.clock));
    let aggregations = aggregations.await.map_err(shown)?;

    let rooms = Rooms {
        uploads: Uploads::open(settings.state_dir.join("uploads"), limits)?,
        schema: Arc::clone(&schema),
        v2_engine: engine.for_v2().showing_listens(settings.rest_listen_sections),
        engine,
        configuration: Arc::clone(&configuration),
        reloads,
        runtime,
        overrides,
        durable_writes: settings.durable_writes,
        hub,
        push,
        // HAProxy would look for a relative path from its own folder.
        peers_socket: std::path::absolute(settings.state_dir.join("peers.sock"))
            .map_err(|error| cannot("use", &settings.state_dir, &error))?,
        maps,
        certificates,
        general,
        spoe,
        discovery,
        aggregations,
        map_names: MapNames::default(),
        map_sync,
        presence,
        remarks,
        health_by_command: settings.profile == Profile::DropIn,
        version: settings.profile.version(),
        show_system_info: settings.show_system_info,
    };
    let protocols = protocols(&settings, &schema, rooms, authenticator, stop.clone())?;
    for port in &ports {
        let (address, tls) = (port.socket.shown(), port.tls.is_some());
        tracing::info!(address, tls, haproxy = %version, file = %settings.config_file.display(), "serving gRPC and REST");
    }
    if let Some(standalone) = &standalone {
        welcome::print(standalone, &ports, settings.frontend_addr)?;
    }
    serve(ports, protocols, settings.listeners.grace, stop).await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn store(settings: &Settings) -> StoreSettings {
    let mut store = StoreSettings::new(&settings.config_file, &settings.state_dir);
    store.durable_transactions = settings.durability;
    store.max_open_transactions = settings.max_open_transactions.unwrap_or(0);
    store.transaction_expiry = settings.transaction_expiry;
    store.backups_number = settings.backups_number;
    store.backups_dir.clone_from(&settings.backups_dir);
    store.read_only = settings.read_only;
    store.watch = settings.watch_file;
    if settings.profile == Profile::DropIn {
        store.header = HeaderPolicy::VersionAndChecksum;
        store.trust_file_version = true;
        store.last_good_beside = !settings.read_only;
        store.list_refused = true;
    }
    if settings.version_outside || settings.read_only {
        store.header = HeaderPolicy::Outside;
        store.trust_file_version = false;
    }
    store
}

fn presence(
    settings: &Settings,
    standalone: Option<&Standalone>,
    engine: &Engine,
    configuration: &Arc<Configuration>,
) -> Presence {
    let master = match (standalone, &settings.master_runtime) {
        (Some(standalone), _) => Some(MasterSocket::new(&standalone.master_socket)),
        (None, Some(path)) => Some(MasterSocket::new(path)),
        (None, None) => None,
    };
    let (engine, configured) = (engine.clone(), settings.stats_socket.clone());
    let addresses = move |document: &Document| -> Vec<Address> {
        stats_sockets(configured.as_ref(), &engine, document).iter().filter_map(|socket| socket.parse().ok()).collect()
    };
    // The reload queue, which the configuration holds, must not hold the configuration.
    let configuration = Arc::downgrade(configuration);
    let stats = move || match configuration.upgrade() {
        Some(configuration) => Listening {
            loaded: addresses(&configuration.loaded().document),
            present: addresses(&configuration.current().document),
        },
        None => Listening::default(),
    };
    let (stats, status_cmd) = (Some(Arc::new(stats) as StatsSockets), settings.status_cmd.clone());
    Presence { master, stats, status_cmd, answered: Answered::kept(settings.state_dir.join("workers")) }
}

/// The stats sockets of a text, unless the settings name one.
fn stats_sockets(configured: Option<&String>, engine: &Engine, document: &Document) -> Vec<String> {
    let variable = |name: &str| std::env::var(name).ok();
    configured.map_or_else(|| engine.stats_sockets(document, &variable), |socket| vec![socket.clone()])
}

/// Waits until HAProxy runs, as long as the settings say. Connections wait meanwhile.
async fn wait_for_haproxy(presence: &Presence, patience: &DelayedStart, stop: &CancellationToken) {
    let running = async {
        while matches!(presence.standing().await, Standing::Down(_)) {
            tokio::time::sleep(patience.tick).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = running => {}
        () = tokio::time::sleep(patience.max) => {
            tracing::warn!(waited = ?patience.max, "haproxy does not run yet, runtime calls will fail until it does");
        }
    }
}

/// How HAProxy is reloaded, and what is missing for it; the embedded one is started.
async fn how(
    settings: &Settings,
    version: &Version,
    standalone: Option<&Standalone>,
    in_order: bool,
) -> Result<(How, Option<Arc<Supervised>>, Vec<String>)> {
    match (&settings.reload_method, standalone) {
        (ReloadMethod::Supervised, Some(made)) => {
            let options =
                ChildOptions::new(&settings.haproxy_bin, &made.config_file, &made.master_socket, &made.pid_file);
            let child = if in_order { Supervised::start(options).await? } else { Supervised::later(options)? };
            let how = if version.at_least(2, 7) {
                How::Master(child.master())
            } else {
                How::Signal { pid: child.pid(), master: child.master(), log: child.log() }
            };
            Ok((how, Some(child), Vec::new()))
        }
        (ReloadMethod::Master(path), _) => Ok((How::Master(MasterSocket::new(path)), None, Vec::new())),
        (ReloadMethod::Command { reload, .. }, _) => Ok((How::Command(reload.clone()), None, Vec::new())),
        (ReloadMethod::Systemd { unit }, _) => {
            let (command, missing) = systemd::reload_command(unit).await;
            if let Some(missing) = &missing {
                tracing::warn!("{missing}");
            }
            Ok((How::Command(command), None, missing.into_iter().collect()))
        }
        (ReloadMethod::Supervised, None) => Err(Error::internal("a supervised haproxy without its folder")),
    }
}

/// Watches over the embedded HAProxy once its file is in order. Until then the API is there to repair the file, and an
/// HAProxy of a former run goes on.
async fn supervise(child: Arc<Supervised>, configuration: Arc<Configuration>, stop: CancellationToken) {
    let mut changes = configuration.changes();
    while !child.is_started() && configuration.trouble().is_some() {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {}
            // Trouble may also end without a change.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    child.run(stop).await;
}

fn protocols(
    settings: &Settings,
    schema: &Arc<Schema>,
    rooms: Rooms,
    authenticator: Arc<Authenticator>,
    stop: CancellationToken,
) -> Result<Protocols> {
    let versions = Arc::clone(&rooms.configuration);
    let api = Arc::new(Services::new(rooms));
    let health = Health::new();
    let grpc = GrpcServer::new(
        Arc::clone(&schema.tables),
        api.clone(),
        Arc::clone(&authenticator),
        &health,
        proto::REFLECTION,
        stop.clone(),
    );
    let gateway = Gateway::new(Foundation {
        tables: Arc::clone(&schema.tables),
        api,
        authenticator,
        health,
        version: Arc::new(move |transaction| versions.version_of(transaction)),
        pages: pages(&schema.tables),
        settings: GatewaySettings {
            cors: Cors::of(&settings.cors_origins),
            limits: Limits { body: settings.max_body_size, upload: settings.max_upload_size },
            version_for_all: settings.profile == Profile::DropIn,
            ..GatewaySettings::default()
        },
        stop,
    })?;
    Ok(Protocols::new(grpc, gateway))
}

/// The documentation, which is the same for everyone.
fn pages(tables: &Arc<Tables>) -> Vec<Page> {
    let described = |dialect| {
        let tables = Arc::clone(tables);
        move || {
            let json = document(&tables, &comments(proto::REFLECTION), dialect, env!("CARGO_PKG_VERSION"));
            Bytes::from(format!("{json}\n"))
        }
    };
    let (swagger, openapi) = (described(Dialect::Swagger2), described(Dialect::OpenApi3));
    let docs = || Bytes::from_static(include_bytes!("../gateway/docs.html"));
    vec![
        Page::new("/v2/docs", "text/html; charset=utf-8", true, docs),
        Page::new("/swagger.json", "application/json", true, openapi.clone()),
        Page::new("/v2/specification", "application/json", false, swagger),
        Page::new("/v2/specification_openapiv3", "application/json", false, openapi),
    ]
}

/// Follows what the configuration says about sockets and users.
struct Follower {
    engine: Engine,
    settings: Settings,
    environment: Environment,
    runtime: Runtime,
    push: Arc<Push>,
    authenticator: Arc<Authenticator>,
}

impl Follower {
    /// Sockets and peers of the HAProxy that runs. It listens where the text says that it has loaded last, and is about to
    /// where the present one says.
    fn follow_haproxy(&self, configuration: &Configuration) {
        let (loaded, current) = (configuration.loaded(), configuration.current());
        let document = &current.document;
        let listed = |document| stats_sockets(self.settings.stats_socket.as_ref(), &self.engine, document);
        let mut sockets = listed(&loaded.document);
        sockets.extend(listed(document));
        let mut seen = HashSet::new();
        sockets.retain(|socket| seen.insert(socket.clone()));
        let mut addresses = Vec::new();
        for socket in &sockets {
            match socket.parse::<Address>() {
                Ok(address) => addresses.push(address),
                Err(error) => tracing::warn!(socket, %error, "stats socket cannot be used"),
            }
        }
        if addresses != self.runtime.addresses() {
            tracing::info!(?sockets, "reload callback completed, runtime API reconfigured");
            self.runtime.set_addresses(addresses);
        }
        self.push.follow(document);
    }

    fn follow_users(&self, document: &Document) -> Result<()> {
        self.authenticator.replace(users::all(&self.settings, &*self.environment, document)?);
        Ok(())
    }

    async fn run(self, configuration: Arc<Configuration>, stop: CancellationToken) {
        let mut changes = configuration.changes();
        let signals = (signal(SignalKind::user_defined1()), signal(SignalKind::user_defined2()));
        let (Ok(mut reconnect), Ok(mut reread)) = signals else {
            tracing::error!("signals cannot be received");
            return;
        };
        // Whoever is no user any more is not to be let in until somebody sends a signal.
        let looks =
            |file: &Option<PathBuf>| looks(file.clone().filter(|_| self.settings.watch_file), LOOK, stop.clone());
        let files = (looks(&self.settings.yaml_file), looks(&self.settings.userlist_file));
        let (Ok(mut yaml), Ok(mut userlist)) = files else {
            tracing::error!("files with users cannot be watched");
            return;
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = reconnect.recv() => {
                    // Where HAProxy listens is the same, but who answers there may be another one.
                    drop(self.runtime.look().await);
                    tracing::info!("connections to haproxy are made anew, runtime API reconfigured");
                    continue;
                }
                _ = reread.recv() => {
                    if let Err(error) = configuration.external_change().await {
                        tracing::warn!(%error, "the configuration file cannot be read");
                    }
                }
                changed = changes.changed() => if changed.is_err() { return },
                Ok(()) = yaml.changed() => {}
                Ok(()) = userlist.changed() => {}
            }
            let document = &configuration.current().document;
            if configuration.trouble().is_none() {
                self.follow_haproxy(&configuration);
            }
            if let Err(error) = self.follow_users(document) {
                tracing::warn!(%error, "users stay as they were");
            }
        }
    }
}

/// Looks for a worker that others have started, again and again.
async fn watch_workers(runtime: Runtime, stop: CancellationToken) {
    loop {
        if let Err(error) = runtime.look().await {
            tracing::debug!(%error, "no worker of haproxy answers");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// What was known of the tables of the worker before is of no use with the next one.
struct Forget(Hub);

impl WorkerListener for Forget {
    fn changed(&self, _: Worker) {
        self.0.reloaded();
    }
}

/// The way to reload, known only when HAProxy has been started, which needs the configuration first.
#[derive(Default)]
struct LateReloader {
    strategy: OnceLock<Strategy>,
}

impl LateReloader {
    fn set(&self, strategy: Strategy) {
        // Set once by `run`; a second call would change nothing.
        drop(self.strategy.set(strategy));
    }
}

impl Reloader for LateReloader {
    fn reload(&self) -> Pending<'_, Outcome> {
        match self.strategy.get() {
            Some(strategy) => strategy.reload(),
            None => Box::pin(async { Outcome::Unreachable("haproxy is not started yet".into()) }),
        }
    }
}

fn make_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|error| cannot("make", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Reason::InvalidValue, format!("cannot {what} {}: {error}", path.display()))
}

/// At the start the operator sees what a caller would not.
fn shown(error: Error) -> Error {
    let (message, context) = match error.context_text() {
        // A sentence that sends the reader to the log says nothing in the log.
        Some(context) if error.reason() == Reason::Internal => (context, None),
        context => (error.message(), context),
    };
    let mut message = message.to_owned();
    for more in [context, error.detail_text()].into_iter().flatten() {
        message.push_str("\n  ");
        message.push_str(more.trim_end());
    }
    error.message_replaced(message)
}
