//! Changes of the running HAProxy that come with a configuration: each is checked before the first is made.

use std::net::IpAddr;

use crate::configuration::plan::{Change, ServerChange};
use crate::error::{Error, Result, Violation};
use crate::proto::configuration as pb;
use crate::runtime::{AdminState, Runtime};

/// A change that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// One that the configuration knows too.
    Change(Change),
    /// What the operator wants of a server.
    State(String, String, AdminState),
}

/// Checks actions. `INVALID_FIELD` names all fields that are missing, too many, or wrong.
pub(super) fn read(actions: &[pb::RuntimeAction]) -> Result<Vec<Action>> {
    let mut faults = Vec::new();
    let read: Vec<Action> = actions
        .iter()
        .enumerate()
        .filter_map(|(number, action)| {
            let mut fields = Fields { action, number, used: vec!["type"], faults: &mut faults };
            let read = fields.read();
            fields.nothing_else();
            read
        })
        .collect();
    if faults.is_empty() { Ok(read) } else { Err(Error::invalid(faults)) }
}

/// Makes the changes, in their order, all with the same worker. The error says which one HAProxy refused.
pub(super) async fn carry_out(runtime: &Runtime, actions: &[Action]) -> Result<()> {
    let carried_out = runtime.on_one(|one, _| async move {
        for (number, action) in actions.iter().enumerate() {
            let done = match action {
                Action::Change(change) => one.carry_out(change).await,
                Action::State(backend, server, state) => one.set_server_state(backend, server, *state).await,
            };
            done.map_err(|error| {
                let message = format!("runtime_actions[{number}]: {}", error.message());
                error.message_replaced(message).with("action", number)
            })?;
        }
        Ok(())
    });
    carried_out.await
}

/// One action while it is read.
struct Fields<'a> {
    action: &'a pb::RuntimeAction,
    number: usize,
    used: Vec<&'static str>,
    faults: &'a mut Vec<Violation>,
}

impl Fields<'_> {
    fn read(&mut self) -> Option<Action> {
        use pb::RuntimeActionType as Type;
        let set = match self.action.r#type() {
            Type::Unspecified => {
                self.fault("type", "is required", 602);
                return None;
            }
            Type::SetFrontendMaxconn => {
                let (frontend, maxconn) = (self.text("frontend"), self.number("maxconn"));
                return Some(Action::Change(Change::FrontendMaxconn { frontend: frontend?, maxconn: maxconn? }));
            }
            Type::SetServerState => {
                let (backend, server) = self.server();
                return Some(Action::State(backend?, server?, self.state()?));
            }
            Type::SetServerWeight => self.number("weight").map(ServerChange::Weight),
            Type::SetServerCheckPort => self.number("port").map(ServerChange::HealthCheckPort),
            Type::SetServerAddress => {
                let (address, port) = (self.text("address"), self.number("port"));
                match address {
                    Some(address) if address.parse::<IpAddr>().is_err() => {
                        self.fault("address", "should be an IP address", 605);
                        None
                    }
                    address => address.zip(port).map(|(address, port)| ServerChange::Address(address, Some(port))),
                }
            }
            Type::EnableAgentCheck => Some(ServerChange::AgentCheck(true)),
            Type::DisableAgentCheck => Some(ServerChange::AgentCheck(false)),
            Type::SetServerAgentAddress => self.text("address").map(ServerChange::AgentAddress),
            Type::SetServerAgentSend => self.text("text").map(ServerChange::AgentSend),
        };
        let (backend, server) = self.server();
        Some(Action::Change(Change::Server { backend: backend?, server: server?, set: set? }))
    }

    fn server(&mut self) -> (Option<String>, Option<String>) {
        (self.text("backend"), self.text("server"))
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.used.push(name);
        let text = match name {
            "frontend" => &self.action.frontend,
            "backend" => &self.action.backend,
            "server" => &self.action.server,
            "address" => &self.action.address,
            _ => &self.action.text,
        };
        if text.is_empty() {
            self.fault(name, "is required", 602);
            return None;
        }
        if text.contains(char::is_control) {
            self.fault(name, "must not hold control characters", 605);
            return None;
        }
        Some(text.clone())
    }

    /// A number within the limits of its kind; the schema has narrower ones.
    fn number<N: TryFrom<i64>>(&mut self, name: &'static str) -> Option<N> {
        self.used.push(name);
        let given = self.numbers().into_iter().find(|(field, _)| *field == name).and_then(|(_, number)| number);
        let number = given.and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.fault(name, "is required", 602);
        }
        number
    }

    fn numbers(&self) -> [(&'static str, Option<i64>); 3] {
        [
            ("maxconn", self.action.maxconn),
            ("weight", self.action.weight.map(i64::from)),
            ("port", self.action.port.map(i64::from)),
        ]
    }

    fn state(&mut self) -> Option<AdminState> {
        use pb::RuntimeActionState as State;
        self.used.push("state");
        match self.action.state() {
            State::Ready => Some(AdminState::Ready),
            State::Drain => Some(AdminState::Drain),
            State::Maint => Some(AdminState::Maint),
            State::Unspecified => {
                self.fault("state", "is required", 602);
                None
            }
        }
    }

    /// What an action does not need was meant for another one.
    fn nothing_else(&mut self) {
        let action = self.action;
        let texts = [
            ("frontend", &action.frontend),
            ("backend", &action.backend),
            ("server", &action.server),
            ("address", &action.address),
            ("text", &action.text),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, _)| name);
        let numbers = self.numbers().into_iter().filter(|(_, number)| number.is_some()).map(|(name, _)| name);
        let state = (action.state != 0).then_some("state");
        let given: Vec<&'static str> = texts.chain(numbers).chain(state).collect();
        for name in given {
            // Of an action without a type nobody knows what it needs.
            if action.r#type != 0 && !self.used.contains(&name) {
                self.fault(name, "is not part of this action", 0);
            }
        }
    }

    fn fault(&mut self, name: &str, message: &str, code: u16) {
        let field = format!("runtime_actions[{}].{name}", self.number);
        self.faults.push(Violation { field, message: message.to_owned(), code, location: "body" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::RuntimeActionType as Type;

    fn action(kind: Type) -> pb::RuntimeAction {
        pb::RuntimeAction { r#type: kind.into(), ..pb::RuntimeAction::default() }
    }

    fn of_server(kind: Type) -> pb::RuntimeAction {
        pb::RuntimeAction { backend: "be".into(), server: "s1".into(), ..action(kind) }
    }

    #[test]
    fn each_type_takes_its_fields() {
        let read = read(&[
            pb::RuntimeAction { frontend: "fe".into(), maxconn: Some(100), ..action(Type::SetFrontendMaxconn) },
            pb::RuntimeAction { state: pb::RuntimeActionState::Drain.into(), ..of_server(Type::SetServerState) },
            pb::RuntimeAction { address: "::1".into(), port: Some(80), ..of_server(Type::SetServerAddress) },
            of_server(Type::DisableAgentCheck),
        ])
        .unwrap();
        let server = |set| Action::Change(Change::Server { backend: "be".into(), server: "s1".into(), set });
        assert_eq!(
            read,
            [
                Action::Change(Change::FrontendMaxconn { frontend: "fe".into(), maxconn: 100 }),
                Action::State("be".into(), "s1".into(), AdminState::Drain),
                server(ServerChange::Address("::1".into(), Some(80))),
                server(ServerChange::AgentCheck(false)),
            ]
        );
    }

    #[test]
    fn every_fault_is_named_before_anything_is_done() {
        let error = read(&[
            action(Type::Unspecified),
            pb::RuntimeAction { weight: Some(5), server: String::new(), ..of_server(Type::SetServerWeight) },
            pb::RuntimeAction { address: "a;b".into(), port: Some(1), ..of_server(Type::SetServerAddress) },
            pb::RuntimeAction { port: Some(1), ..of_server(Type::EnableAgentCheck) },
            pb::RuntimeAction { text: "a\nb".into(), ..of_server(Type::SetServerAgentSend) },
        ])
        .unwrap_err();
        let fields: Vec<&str> = error.violations().iter().map(|violation| &*violation.field).collect();
        assert_eq!(
            fields,
            [
                "runtime_actions[0].type",
                "runtime_actions[1].server",
                "runtime_actions[2].address",
                "runtime_actions[3].port",
                "runtime_actions[4].text"
            ]
        );
    }
}
