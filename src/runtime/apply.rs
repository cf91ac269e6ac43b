//! Changes of the configuration that HAProxy takes over while it runs.

use super::client::Runtime;
use super::command::Command;
use super::parse::AdminState;
use crate::configuration::engine::Engine;
use crate::configuration::plan::{Change, Live, Plan, ServerChange};
use crate::configuration::ports::{self, Apply, Pending};
use crate::document::Document;
use crate::error::Result;

/// Takes changes of the configuration to the runtime socket.
pub struct LiveChanges {
    engine: Engine,
    runtime: Runtime,
}

impl LiveChanges {
    /// Reads documents with `engine` and talks to `runtime`.
    pub fn new(engine: Engine, runtime: Runtime) -> Self {
        LiveChanges { engine, runtime }
    }

    async fn carry_out(&self, changes: &[Change]) -> Result<ports::Worker> {
        if changes.is_empty() {
            // That nothing differs only helps when HAProxy runs.
            self.runtime.version().await?;
        }
        // A worker that follows meanwhile may have read the file before it was changed, and is given all of it.
        self.runtime
            .on_one(|one, _| async move {
                for change in changes {
                    one.carry_out(change).await?;
                }
                let (worker, began) = one.began().await?;
                Ok(ports::Worker::new(worker.pid, began))
            })
            .await
    }
}

impl Apply for LiveChanges {
    fn apply<'a>(&'a self, old: &'a Document, new: &'a Document, live: Live) -> Pending<'a, Option<ports::Worker>> {
        Box::pin(async move {
            let Plan::Live(changes) = self.engine.plan(old, new, live) else { return None };
            if self.runtime.addresses().is_empty() {
                return None;
            }
            match self.carry_out(&changes).await {
                Ok(worker) => {
                    tracing::info!(changes = changes.len(), "haproxy took the change over without a reload");
                    Some(worker)
                }
                Err(error) => {
                    tracing::info!(%error, "haproxy has to reload for the change");
                    None
                }
            }
        })
    }
}

impl Runtime {
    /// Makes one change. `RUNTIME_REJECTED`, or another reason of the socket, when HAProxy does not make it.
    pub async fn carry_out(&self, change: &Change) -> Result<()> {
        match change {
            Change::Server { backend, server, set } => self.set_server(backend, server, set).await,
            Change::FrontendMaxconn { frontend, maxconn } => {
                let command = Command::new("set maxconn frontend").arg("frontend", frontend)?.number(*maxconn);
                self.short(command).await.map(drop)
            }
            Change::AddServer { backend, server, words, check, agent, ready } => {
                let words = &words.iter().map(String::as_str).collect::<Vec<_>>();
                let name = &format!("{backend}/{server}");
                self.on_one(|one, _| async move {
                    one.add_server(backend, server, words).await?;
                    if *check {
                        one.short(Command::new("enable health").arg("server", name)?).await?;
                    }
                    if *agent {
                        one.short(Command::new("enable agent").arg("server", name)?).await?;
                    }
                    if *ready {
                        one.set_server_state(backend, server, AdminState::Ready).await?;
                    }
                    Ok(())
                })
                .await
            }
            Change::DeleteServer { backend, server } => self.delete_server(backend, server).await,
        }
    }

    async fn set_server(&self, backend: &str, server: &str, set: &ServerChange) -> Result<()> {
        let name = format!("{backend}/{server}");
        let command = match set {
            ServerChange::Weight(weight) => return self.set_server_weight(backend, server, *weight).await,
            ServerChange::Address(address, port) => {
                return self.set_server_address(backend, server, address, *port).await;
            }
            ServerChange::Maxconn(maxconn) => return self.set_server_maxconn(backend, server, *maxconn).await,
            ServerChange::Maintenance(on) => {
                let state = if *on { AdminState::Maint } else { AdminState::Ready };
                return self.set_server_state(backend, server, state).await;
            }
            ServerChange::AgentCheck(true) => Command::new("enable agent").arg("server", &name)?,
            ServerChange::AgentCheck(false) => Command::new("disable agent").arg("server", &name)?,
            ServerChange::AgentAddress(address) => {
                Command::new("set server").arg("server", &name)?.words("agent-addr").arg("address", address)?
            }
            ServerChange::AgentSend(text) => {
                Command::new("set server").arg("server", &name)?.words("agent-send").arg("text", text)?
            }
            ServerChange::HealthCheckPort(port) => {
                Command::new("set server").arg("server", &name)?.words("check-port").number(*port)
            }
        };
        self.short(command).await.map(drop)
    }
}
