//! The instances: created, replaced and deleted one at a time, kept in files, each with its search.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::{Files, Origin};
use super::instance::{self, Kind, Settings};
use super::plan::Planner;
use super::search::{Search, Shared};
use super::status::Status;
use super::surroundings::{Environment, Surroundings};
use crate::configuration::engine::Engine;
use crate::configuration::{Clock, Configuration};
use crate::error::{Error, Reason, Result};
use crate::schema::tables::Tables;
use crate::schema::value::{Object, Value};

/// Where instances are kept, and the time.
pub struct DirectorySettings {
    /// The YAML file of settings.
    pub yaml: Option<PathBuf>,
    /// Folder for those that cannot be written there.
    pub state_dir: PathBuf,
    /// The time.
    pub clock: Clock,
    /// The environment of the process.
    pub environment: Environment,
}

/// An instance as it is shown.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The instance, secrets included.
    pub object: Object,
    /// How its search goes.
    pub status: Status,
}

/// All instances. Methods may be called from any task at the same time.
pub struct Directory {
    tables: Arc<Tables>,
    files: Files,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Held from the first look at an instance to the end of its change.
    changes: tokio::sync::Mutex<()>,
    state: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    instances: Vec<Instance>,
    /// Raised by each change.
    revision: i64,
}

struct Instance {
    kind: Kind,
    id: String,
    object: Object,
    origin: Origin,
    status: watch::Sender<Status>,
    stop: CancellationToken,
    search: Option<JoinHandle<()>>,
}

impl Directory {
    /// Reads the files and begins the searches, which end with `stop`. Instances that cannot be read are left out and named in
    /// the log.
    pub async fn open(
        settings: DirectorySettings,
        engine: Engine,
        configuration: Arc<Configuration>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Directory>> {
        let tables = Arc::clone(&engine.schema().tables);
        let files = Files::new(settings.yaml, &settings.state_dir);
        let (reader, known) = (files.clone(), Arc::clone(&tables));
        let loaded = blocking(move || reader.load(&known)).await?;
        for problem in &loaded.problems {
            tracing::warn!("service discovery leaves an instance out: {problem}");
        }
        let shared = Shared {
            planner: Planner::new(engine),
            configuration,
            around: Surroundings { clock: settings.clock, environment: settings.environment },
            writes: tokio::sync::Mutex::default(),
            prefixes: Mutex::default(),
            claims: Mutex::default(),
        };
        let directory = Directory {
            tables,
            files,
            shared: Arc::new(shared),
            tasks,
            stop,
            changes: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        };
        // All of them are known before the first search begins.
        for (_, entry) in &loaded.entries {
            let settings = instance::settings(entry.kind, &entry.object);
            directory.shared.note_prefix(&entry.id, Some(&settings.prefix));
        }
        for (origin, entry) in loaded.entries {
            let instance = directory.begin(entry.kind, entry.id, entry.object, origin, None);
            directory.contents().instances.push(instance);
        }
        Ok(Arc::new(directory))
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All instances of a kind in the order of their creation, and a number that every change raises.
    pub fn list(&self, kind: Kind) -> (Vec<Listed>, i64) {
        let contents = self.contents();
        let of_kind = contents.instances.iter().filter(|instance| instance.kind == kind);
        (of_kind.map(Instance::listed).collect(), contents.revision)
    }

    /// One instance. `OBJECT_NOT_FOUND`.
    pub fn get(&self, kind: Kind, id: &str) -> Result<Listed> {
        self.with(kind, id, Instance::listed)
    }

    /// How a search goes, from now on. Ends with the instance. `OBJECT_NOT_FOUND`.
    pub fn watch(&self, kind: Kind, id: &str) -> Result<watch::Receiver<Status>> {
        self.with(kind, id, |instance| instance.status.subscribe())
    }

    fn with<T>(&self, kind: Kind, id: &str, read: impl FnOnce(&Instance) -> T) -> Result<T> {
        let contents = self.contents();
        let mut instances = contents.instances.iter();
        let found = instances.find(|instance| instance.kind == kind && instance.id == id);
        found.map(read).ok_or_else(|| {
            Error::new(Reason::ObjectNotFound, format!("{} {id} does not exist", kind.noun())).with("id", id)
        })
    }

    /// Adds an instance under a new id. Its search begins at once. `UNSUPPORTED` when nothing can be changed.
    pub async fn create(&self, kind: Kind, object: &Object) -> Result<Listed> {
        self.shared.configuration.writable()?;
        let _one = self.changes.lock().await;
        let id = uuid::Uuid::new_v4().to_string();
        let object = self.prepared(kind, &id, object)?;
        let (files, tables, kept) = (self.files.clone(), Arc::clone(&self.tables), (id.clone(), object.clone()));
        let origin = blocking(move || files.add(&tables, kind, &kept.0, &kept.1)).await?;
        let instance = self.begin(kind, id, object, origin, None);
        let listed = instance.listed();
        let mut contents = self.contents();
        contents.instances.push(instance);
        contents.revision += 1;
        Ok(listed)
    }

    /// Replaces an instance; its search begins anew. `UNSUPPORTED` when nothing can be changed.
    pub async fn replace(&self, kind: Kind, id: &str, object: &Object) -> Result<Listed> {
        self.shared.configuration.writable()?;
        let _one = self.changes.lock().await;
        let origin = self.with(kind, id, |instance| instance.origin)?;
        let object = self.prepared(kind, id, object)?;
        let (files, tables, kept) = (self.files.clone(), Arc::clone(&self.tables), (id.to_owned(), object.clone()));
        blocking(move || files.change(&tables, origin, kind, &kept.0, Some(&kept.1))).await?;
        let mut contents = self.contents();
        let instances = &mut contents.instances;
        let at = instances.iter().position(|instance| instance.kind == kind && instance.id == id);
        let Some(place) = at.and_then(|at| instances.get_mut(at)) else { return Err(Error::internal("it is gone")) };
        place.stop.cancel();
        let before = Some((place.search.take(), place.status.clone()));
        *place = self.begin(kind, id.to_owned(), object, origin, before);
        let listed = place.listed();
        contents.revision += 1;
        Ok(listed)
    }

    /// Removes an instance. Its backends stay as they are. `UNSUPPORTED` when nothing can be changed.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<()> {
        self.shared.configuration.writable()?;
        let _one = self.changes.lock().await;
        let origin = self.with(kind, id, |instance| instance.origin)?;
        let (files, tables, gone) = (self.files.clone(), Arc::clone(&self.tables), id.to_owned());
        blocking(move || files.change(&tables, origin, kind, &gone, None)).await?;
        let mut contents = self.contents();
        contents.instances.retain(|instance| {
            let same = instance.kind == kind && instance.id == id;
            if same {
                instance.stop.cancel();
            }
            !same
        });
        contents.revision += 1;
        drop(contents);
        self.shared.note_prefix(id, None);
        Ok(())
    }

    fn prepared(&self, kind: Kind, id: &str, object: &Object) -> Result<Object> {
        let mut object = instance::plain(&self.tables, kind, object)?;
        instance::complete(kind, &mut object)?;
        object.set(kind.common().id, Value::Str(id.into()));
        Ok(object)
    }

    /// An instance whose search begins when `before` has ended; watchers of that one go on.
    fn begin(
        &self,
        kind: Kind,
        id: String,
        object: Object,
        origin: Origin,
        before: Option<(Option<JoinHandle<()>>, watch::Sender<Status>)>,
    ) -> Instance {
        let mut settings: Settings = instance::settings(kind, &object);
        // Nobody is asked for what could not be written.
        settings.enabled &= self.shared.configuration.writable().is_ok();
        self.shared.note_prefix(&id, Some(&settings.prefix));
        let (before, status) = before.unwrap_or_else(|| (None, watch::Sender::new(Status::default())));
        status.send_replace(Status::before_the_first_attempt(settings.enabled));
        let stop = self.stop.child_token();
        let shared = Arc::clone(&self.shared);
        let search = Search { shared, id: id.clone(), settings, status: status.clone(), stop: stop.clone() };
        let search = Some(self.tasks.spawn(search.run(before)));
        Instance { kind, id, object, origin, status, stop, search }
    }
}

impl Instance {
    fn listed(&self) -> Listed {
        Listed { object: self.object.clone(), status: self.status.borrow().clone() }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}
