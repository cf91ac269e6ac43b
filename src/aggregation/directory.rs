//! All aggregations: created, replaced and deleted one at a time, kept in a file, each with its sessions.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::resource::{AGGREGATIONS, Spec};
use super::session::Shared;
use super::status::Status;
use crate::configuration::{Clock, replace_durably};
use crate::error::{Error, Reason, Result};
use crate::proto::aggregation as pb;
use crate::proto::messages;
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::{MessageId, Tables};
use crate::schema::{check, wire};
use crate::stick_table::{Lines, Tls};

/// Name of the file in the state folder.
const FILE: &str = "aggregations.json";
const MODE: u32 = 0o600;
/// The message that the file is in JSON.
const CONTENTS: MessageId = messages::aggregation::LIST_AGGREGATIONS_RESPONSE;

/// How nodes are joined.
pub struct Joining {
    /// The sessions.
    pub lines: Lines,
    /// Our name as a peer unless an aggregation says another.
    pub peer_name: String,
    /// For nodes that listen with TLS.
    pub tls: Option<Tls>,
}

/// All of them. Methods may be called from any task at the same time.
pub struct Aggregations {
    tables: Arc<Tables>,
    path: PathBuf,
    joining: Joining,
    clock: Clock,
    /// Held from the first look to the end of a change.
    changes: tokio::sync::Mutex<()>,
    state: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// By name.
    running: Vec<Running>,
    /// Raised by each change.
    revision: i64,
}

struct Running {
    message: pb::Aggregation,
    shared: Arc<Shared>,
    task: AbortHandle,
    status: watch::Sender<Status>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Aggregations {
    /// Reads the file and begins. Needs a Tokio runtime. One that cannot be is left out and named in the log; a file that cannot
    /// be read is an error.
    pub async fn open(
        state_dir: &Path,
        tables: Arc<Tables>,
        joining: Joining,
        clock: Clock,
    ) -> Result<Arc<Aggregations>> {
        let path = state_dir.join(FILE);
        let (file, known) = (path.clone(), Arc::clone(&tables));
        let read = blocking(move || read(&known, &file)).await?;
        let state = Mutex::default();
        let all = Aggregations { tables, path, joining, clock, changes: tokio::sync::Mutex::default(), state };
        for message in read {
            match all.check(&message) {
                Ok(()) => {
                    let running = all.begin(message, None);
                    all.contents().running.push(running);
                }
                Err(error) => tracing::warn!(%error, "an aggregation of stick tables is left out"),
            }
        }
        Ok(Arc::new(all))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All by their names, and a number that every change raises.
    pub fn list(&self) -> (Vec<pb::Aggregation>, i64) {
        let contents = self.contents();
        (contents.running.iter().map(|running| running.message.clone()).collect(), contents.revision)
    }

    /// One of them. `OBJECT_NOT_FOUND`.
    pub fn get(&self, name: &str) -> Result<pb::Aggregation> {
        self.with(name, |running| running.message.clone())
    }

    /// How it goes. `OBJECT_NOT_FOUND`.
    pub fn status(&self, name: &str) -> Result<Status> {
        self.with(name, |running| running.shared.status())
    }

    /// How it goes from now on. Ends with it. `OBJECT_NOT_FOUND`.
    pub fn watch(&self, name: &str) -> Result<watch::Receiver<Status>> {
        self.with(name, |running| running.status.subscribe())
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&Running) -> T) -> Result<T> {
        let contents = self.contents();
        let found = contents.running.iter().find(|running| running.message.name() == name);
        found.map(read).ok_or_else(|| missing(name))
    }

    /// Whether it can be besides the others.
    fn check(&self, message: &pb::Aggregation) -> Result<()> {
        let others = self.list().0;
        let others: Vec<Spec> = others.iter().map(|other| Spec::of(other, &self.joining.peer_name)).collect();
        let spec = Spec::of(message, &self.joining.peer_name);
        if let Some(at) = spec.nodes.iter().position(|node| node.tls).filter(|_| self.joining.tls.is_none()) {
            let words = format!("nodes[{at}].tls: the setting peer-tls-ca is needed for it");
            return Err(Error::new(Reason::InvalidValue, words).with("field", format!("nodes[{at}].tls")));
        }
        spec.check(&others)
    }

    /// Adds one. `OBJECT_EXISTS`, `INVALID_VALUE`.
    pub async fn create(&self, message: pb::Aggregation) -> Result<pb::Aggregation> {
        let _one = self.changes.lock().await;
        let (mut all, _) = self.list();
        if all.iter().any(|known| known.name() == message.name()) {
            let words = format!("the aggregation '{}' exists already", message.name());
            return Err(Error::new(Reason::ObjectExists, words).with("name", message.name()));
        }
        if all.len() >= AGGREGATIONS {
            return Err(Error::new(Reason::InvalidValue, format!("there are {AGGREGATIONS} aggregations already")));
        }
        self.check(&message)?;
        let message = self.completed(message);
        let at = all.partition_point(|known| known.name() < message.name());
        all.insert(at, message.clone());
        self.write(all).await?;
        let running = self.begin(message.clone(), None);
        let mut contents = self.contents();
        contents.running.insert(at, running);
        contents.revision += 1;
        Ok(message)
    }

    /// Replaces one, which begins anew. `OBJECT_NOT_FOUND`, `INVALID_VALUE`.
    pub async fn replace(&self, name: &str, message: pb::Aggregation) -> Result<pb::Aggregation> {
        self.update(name, |_| Ok(message)).await
    }

    /// Replaces one by what `change` makes of it; no other change comes between. It begins anew. `OBJECT_NOT_FOUND`,
    /// `INVALID_VALUE`, and what `change` says.
    pub async fn update(
        &self,
        name: &str,
        change: impl FnOnce(&pb::Aggregation) -> Result<pb::Aggregation>,
    ) -> Result<pb::Aggregation> {
        let _one = self.changes.lock().await;
        let (mut all, _) = self.list();
        let at = all.iter().position(|known| known.name() == name).ok_or_else(|| missing(name))?;
        let message = change(&all[at])?;
        if message.name() != name {
            let words = format!("name: it is '{}', and '{name}' is replaced", message.name());
            return Err(Error::new(Reason::InvalidValue, words).with("field", "name"));
        }
        self.check(&message)?;
        let message = self.completed(message);
        if let Some(place) = all.get_mut(at) {
            *place = message.clone();
        }
        self.write(all).await?;
        // Sessions that both need go on.
        let status = self.watch_sender(name)?;
        let running = self.begin(message.clone(), Some(status));
        let mut contents = self.contents();
        let before = contents.running.get_mut(at).map(|place| std::mem::replace(place, running));
        contents.revision += 1;
        drop(contents);
        drop(before);
        Ok(message)
    }

    fn watch_sender(&self, name: &str) -> Result<watch::Sender<Status>> {
        self.with(name, |running| running.status.clone())
    }

    /// Removes one. `OBJECT_NOT_FOUND`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let _one = self.changes.lock().await;
        let (mut all, _) = self.list();
        let at = all.iter().position(|known| known.name() == name).ok_or_else(|| missing(name))?;
        all.remove(at);
        self.write(all).await?;
        let mut contents = self.contents();
        let gone = contents.running.remove(at);
        contents.revision += 1;
        drop(contents);
        drop(gone);
        Ok(())
    }

    /// With the defaults of what it leaves open. The peer name stays open: it follows the setting.
    fn completed(&self, mut message: pb::Aggregation) -> pb::Aggregation {
        let spec = Spec::of(&message, &self.joining.peer_name);
        message.node_timeout_ms = i32::try_from(spec.node_timeout_ms).ok();
        if message.function() == pb::AggregationFunction::Unspecified {
            message.set_function(pb::AggregationFunction::Sum);
        }
        message
    }

    fn begin(&self, message: pb::Aggregation, status: Option<watch::Sender<Status>>) -> Running {
        let shared = Arc::new(Shared::new(Spec::of(&message, &self.joining.peer_name), Arc::clone(&self.clock)));
        let status = status.unwrap_or_default();
        status.send_replace(shared.status());
        let seats = shared.join(&self.joining.lines, self.joining.tls.as_ref());
        let task = tokio::spawn(Arc::clone(&shared).run(seats, status.clone())).abort_handle();
        Running { message, shared, task, status }
    }

    async fn write(&self, all: Vec<pb::Aggregation>) -> Result<()> {
        let (tables, path) = (Arc::clone(&self.tables), self.path.clone());
        blocking(move || {
            let contents = pb::ListAggregationsResponse { aggregations: all, next_page_token: String::new() };
            let object = wire::decode(&tables, CONTENTS, &contents.encode_to_vec())?;
            let mut text = Vec::new();
            json::write(&tables, CONTENTS, &object, &mut text);
            text.push(b'\n');
            replace_durably(&path, &text, MODE)
        })
        .await
    }
}

/// The aggregations of a file. One that is not there has none.
fn read(tables: &Tables, path: &Path) -> Result<Vec<pb::Aggregation>> {
    let cannot = |error: &dyn std::fmt::Display| {
        Error::new(Reason::Internal, format!("{} cannot be read", path.display())).context(error.to_string())
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(&error)),
    };
    let reading = json::read(tables, CONTENTS, &text, JsonRules::default()).map_err(|error| cannot(&error))?;
    if let Some(violation) = check::check_reading(tables, CONTENTS, &reading).first() {
        return Err(cannot(&format!("{}: {}", violation.field, violation.message)));
    }
    let mut bytes = Vec::new();
    wire::encode(tables, CONTENTS, &reading.object, &mut bytes);
    pb::ListAggregationsResponse::decode(bytes.as_slice()).map(|all| all.aggregations).map_err(|error| cannot(&error))
}

fn missing(name: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("the aggregation '{name}' does not exist")).with("name", name)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}
