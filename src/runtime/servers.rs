//! Live servers of backends.

use super::client::Runtime;
use super::command::Command;
use super::parse::{AdminState, OperationalState, ServerState, parse_servers};
use crate::error::{Error, Reason, Result};

impl Runtime {
    /// Servers of a backend as they run. `PARENT_NOT_FOUND` when there is no such backend.
    pub async fn servers(&self, backend: &str) -> Result<Vec<ServerState>> {
        running(backend, self.short(show(backend)?).await)
    }

    /// One server. `PARENT_NOT_FOUND` or `OBJECT_NOT_FOUND`.
    pub async fn server(&self, backend: &str, server: &str) -> Result<ServerState> {
        named(backend, server, self.servers(backend).await?)
    }

    /// Sets health, if it differs, and what the operator asks of a server, as far as they are given. Returns the server as
    /// it is then. `PARENT_NOT_FOUND` or `OBJECT_NOT_FOUND`.
    pub async fn set_server_states(
        &self,
        backend: &str,
        server: &str,
        health: Option<OperationalState>,
        admin: Option<AdminState>,
    ) -> Result<ServerState> {
        self.on_one(|one, _| async move {
            if let Some(health) = health {
                // Health that is set anew begins its checks anew.
                let now = one.server(backend, server).await?;
                if health != now.operational_state {
                    one.set_server_health(backend, server, health).await?;
                }
            }
            let Some(admin) = admin else { return one.server(backend, server).await };
            let change = set(backend, server)?.words("state").words(admin.word());
            let [set, shown] = one.together([change, show(backend)?]).await?;
            let state = running(backend, shown).and_then(|servers| named(backend, server, servers));
            match set {
                Ok(_) => state,
                // What there is not is said as a read says it.
                Err(error) => Err(state.err().unwrap_or_else(|| unknown_parent(error, backend))),
            }
        })
        .await
    }

    /// Sets what the operator asks of a server.
    pub async fn set_server_state(&self, backend: &str, server: &str, state: AdminState) -> Result<()> {
        self.change(set(backend, server)?.words("state").words(state.word())).await
    }

    /// Forces the health of a server; its checks may change it again.
    pub async fn set_server_health(&self, backend: &str, server: &str, state: OperationalState) -> Result<()> {
        self.change(set(backend, server)?.words("health").words(state.word())).await
    }

    /// Sets the weight, 0 to 256.
    pub async fn set_server_weight(&self, backend: &str, server: &str, weight: u16) -> Result<()> {
        self.change(set(backend, server)?.words("weight").number(weight)).await
    }

    /// Sets the address and, if given, the port.
    pub async fn set_server_address(
        &self,
        backend: &str,
        server: &str,
        address: &str,
        port: Option<u16>,
    ) -> Result<()> {
        let command = set(backend, server)?.words("addr").arg("address", address)?;
        let command = match port {
            Some(port) => command.words("port").number(port),
            None => command,
        };
        self.change(command).await
    }

    /// Sets the name that a resolver turns into the address.
    pub async fn set_server_fqdn(&self, backend: &str, server: &str, fqdn: &str) -> Result<()> {
        self.change(set(backend, server)?.words("fqdn").arg("fqdn", fqdn)?).await
    }

    /// Sets the limit of concurrent sessions.
    pub async fn set_server_maxconn(&self, backend: &str, server: &str, maxconn: u32) -> Result<()> {
        let name = format!("{backend}/{server}");
        self.change(Command::new("set maxconn server").arg("server", &name)?.number(maxconn)).await
    }

    /// Adds a server at run time. `words` are those of a `server` line behind the name, the address first.
    ///
    /// `OBJECT_EXISTS`, `OBJECT_NOT_FOUND` for the backend, `RUNTIME_REJECTED` for words that HAProxy refuses here. The
    /// server starts in maintenance.
    pub async fn add_server(&self, backend: &str, server: &str, words: &[&str]) -> Result<()> {
        let mut command = Command::new("add server").arg("server", &format!("{backend}/{server}"))?;
        for word in words {
            command = command.arg("parameter", word)?;
        }
        self.change(command.settled_by(Reason::ObjectExists)).await
    }

    /// Puts a server into maintenance and removes it. `RUNTIME_REJECTED` while sessions use it.
    pub async fn delete_server(&self, backend: &str, server: &str) -> Result<()> {
        let command = Command::new("del server").arg("server", &format!("{backend}/{server}"))?;
        let command = &command.settled_by(Reason::ObjectNotFound);
        self.on_one(|one, _| async move {
            one.set_server_state(backend, server, AdminState::Maint).await?;
            one.change(command.clone()).await
        })
        .await
    }

    async fn change(&self, command: Command) -> Result<()> {
        let text = command.text();
        let answer = self.short(command).await?;
        if !answer.is_empty() {
            tracing::debug!(command = text, answer, "haproxy's note on a runtime command");
        }
        Ok(())
    }
}

/// HAProxy says which of the two there is not.
fn unknown_parent(error: Error, backend: &str) -> Error {
    let no_backend = error.detail_text().is_some_and(|detail| detail.contains("No such backend"));
    if error.reason() != Reason::ObjectNotFound || !no_backend {
        return error;
    }
    let message = format!("no backend '{backend}' runs in haproxy");
    Error::new(Reason::ParentNotFound, message).detail(error.detail_text().unwrap_or_default())
}

fn show(backend: &str) -> Result<Command> {
    Command::new("show servers state").arg("backend", backend)
}

/// The servers in an answer to [`show`].
fn running(backend: &str, answer: Result<String>) -> Result<Vec<ServerState>> {
    match answer {
        Ok(answer) => Ok(parse_servers(&answer)),
        Err(error) if error.reason() == Reason::ObjectNotFound => {
            let message = format!("no backend '{backend}' runs in haproxy");
            Err(Error::new(Reason::ParentNotFound, message).detail(error.detail_text().unwrap_or_default()))
        }
        Err(error) => Err(error),
    }
}

fn named(backend: &str, server: &str, servers: Vec<ServerState>) -> Result<ServerState> {
    servers
        .into_iter()
        .find(|state| state.name == server)
        .ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("no server '{server}' runs in backend '{backend}'")))
}

fn set(backend: &str, server: &str) -> Result<Command> {
    Command::new("set server").arg("server", &format!("{backend}/{server}"))
}
