//! Overrides beside the configuration: a value that changes there after the write wins over it.
//!
//! It wins for good as soon as HAProxy has it: with a new worker, or taken over without one. A change that HAProxy never
//! had, because it was refused or taken back before a reload, overrules nothing. What waits for a reload is not listed
//! meanwhile, for the next worker will not get it.

use std::sync::{Arc, Weak};

use super::state::{Override, Record, ServerField, Target};
use super::{Overrides, write};
use crate::configuration::plan::{Live, ServerPart};
use crate::configuration::ports::{Apply, Pending, Worker};
use crate::document::Document;
use crate::error::Error;

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
        self.says(&self.rooms.configuration.current().document, target)
    }

    fn says(&self, document: &Document, target: &Target) -> Option<String> {
        match target {
            Target::FrontendMaxconn { frontend } => self.rooms.engine.frontend_maxconn(document, frontend),
            Target::Server { backend, server, field } => {
                let texts = self.rooms.engine.server_texts(document, backend, server, parts_of(*field))?;
                Some(texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(":"))
            }
            _ => None,
        }
    }

    /// Whether the configuration has another value than when an override was written.
    pub(super) fn is_overruled(&self, found: &Override) -> bool {
        self.differs(&self.rooms.configuration.current().document, found)
    }

    fn differs(&self, document: &Document, found: &Override) -> bool {
        let of_configuration = matches!(found.target, Target::Server { .. } | Target::FrontendMaxconn { .. });
        of_configuration && self.says(document, &found.target) != found.base
    }

    /// Drops overrides for which a worker that has just started has another value. While a change is on trial the file is
    /// another one than the configuration that is shown.
    pub(super) async fn overrule(&self) {
        let overruled = |found: &&Override| self.is_overruled(found);
        let doubtful: Vec<Override> = {
            let journal = self.journal();
            journal.state().iter().filter(overruled).cloned().collect()
        };
        if doubtful.is_empty() {
            return;
        }
        let configuration = Arc::clone(&self.rooms.configuration);
        let read = tokio::task::spawn_blocking(move || configuration.on_disk()).await;
        match read.map_err(Error::internal).and_then(|read| read) {
            Ok(document) => self.overruled_by(&document, doubtful),
            Err(error) => tracing::warn!(%error, "overrides cannot be compared with the configuration file"),
        }
    }

    fn overruled_by(&self, document: &Document, doubtful: Vec<Override>) {
        for found in doubtful.into_iter().filter(|found| self.differs(document, found)) {
            self.forget(found, "the configuration has another value since");
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

/// Takes changes of the configuration to the running HAProxy, and drops the overrides that they overrule.
pub struct Overruling {
    apply: Arc<dyn Apply>,
    overrides: Weak<Overrides>,
}

impl Overruling {
    /// In front of `apply`.
    pub fn new(apply: Arc<dyn Apply>, overrides: &Arc<Overrides>) -> Self {
        Overruling { apply, overrides: Arc::downgrade(overrides) }
    }
}

impl Apply for Overruling {
    fn apply<'a>(&'a self, old: &'a Document, new: &'a Document, live: Live) -> Pending<'a, Option<Worker>> {
        Box::pin(async move {
            let applied = self.apply.apply(old, new, live).await;
            if applied.is_some()
                && let Some(overrides) = self.overrides.upgrade()
            {
                let all = overrides.journal().state().iter().cloned().collect();
                overrides.overruled_by(new, all);
            }
            applied
        })
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
        Target::Map { .. } | Target::MapLine { .. } | Target::TableEntry { .. } => false,
        Target::MapEntry { .. } | Target::AclEntry { .. } => value == base,
        Target::Server { .. } | Target::FrontendMaxconn { .. } => {
            let without = without(target, base);
            without.is_some() && without.as_deref() == value
        }
    }
}
