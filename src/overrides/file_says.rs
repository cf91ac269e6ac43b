//! Overrides beside the configuration: a value that changes there after the write wins over it.

use super::state::{Override, Record, ServerField, Target};
use super::{Overrides, write};
use crate::configuration::plan::ServerPart;

/// `Toggle` in the schema.
const ENABLED: &str = "1";

/// The fields of a server line that say what a write at run time says.
fn parts_of(field: ServerField) -> &'static [ServerPart] {
    match field {
        ServerField::Address => &[ServerPart::ADDRESS, ServerPart::PORT],
        ServerField::Weight => &[ServerPart::WEIGHT],
        ServerField::AgentCheck => &[ServerPart::AGENT_CHECK],
        ServerField::AgentAddress => &[ServerPart::AGENT_ADDR],
        ServerField::AgentSend => &[ServerPart::AGENT_SEND],
        ServerField::State => &[ServerPart::MAINTENANCE],
    }
}

impl Overrides {
    /// What the configuration says of a target; `None` when it says nothing, or does not know it.
    pub(super) fn file_says(&self, target: &Target) -> Option<String> {
        let current = self.rooms.configuration.current();
        let document = &current.document;
        match target {
            Target::FrontendMaxconn { frontend } => self.rooms.engine.frontend_maxconn(document, frontend),
            Target::Server { backend, server, field } => {
                let texts = self.rooms.engine.server_texts(document, backend, server, parts_of(*field))?;
                Some(texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(":"))
            }
            Target::Map { .. } | Target::MapEntry { .. } | Target::MapLine { .. } | Target::AclEntry { .. } => None,
        }
    }

    /// Drops overrides whose value in the configuration has changed since they were written.
    pub(super) fn overrule(&self) {
        let changed: Vec<Override> = {
            let journal = self.journal();
            let of_configuration =
                |found: &&Override| matches!(found.target, Target::Server { .. } | Target::FrontendMaxconn { .. });
            journal.state().iter().filter(of_configuration).cloned().collect()
        };
        for found in changed {
            if self.file_says(&found.target) != found.base {
                self.forget(found, "the configuration has another value since");
            }
        }
    }

    /// Drops an override, logs it, and tells of it.
    pub(super) fn forget(&self, found: Override, why: &str) {
        let target = found.target.clone();
        tracing::warn!(?target, since = found.since, by = found.by, why, "a runtime override is dropped");
        self.note_dropped(found, why);
        if let Err(error) = self.append(vec![Record::Drop { target }]) {
            tracing::warn!(%error, "the journal of overrides cannot be written");
        }
    }
}

/// The value that a target has without its override, as far as it is known: what the file says, in the words of
/// the Runtime API.
pub(super) fn without(target: &Target, base: Option<&str>) -> Option<String> {
    let base = base.filter(|base| !base.is_empty());
    match target {
        Target::Server { field: ServerField::State, .. } => {
            Some(if base == Some(ENABLED) { "maint" } else { "ready" }.to_owned())
        }
        Target::Server { field: ServerField::AgentCheck, .. } => {
            Some(if base == Some(ENABLED) { "on" } else { "off" }.to_owned())
        }
        Target::Server { field: ServerField::Address, .. } => {
            let known = base.filter(|base| write::address(base).0.parse::<std::net::IpAddr>().is_ok());
            known.map(str::to_owned)
        }
        _ => base.map(str::to_owned),
    }
}

/// Whether a value is no override at all.
pub(super) fn is_as_in_file(target: &Target, value: Option<&str>, base: Option<&str>) -> bool {
    match target {
        Target::Map { .. } | Target::MapLine { .. } => false,
        Target::MapEntry { .. } | Target::AclEntry { .. } => value == base,
        Target::Server { .. } | Target::FrontendMaxconn { .. } => {
            let without = without(target, base);
            without.is_some() && without.as_deref() == value
        }
    }
}
