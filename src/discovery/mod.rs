//! Service discovery: services of a registry become backends, their instances servers.
//!
//! `instance` says what is to be searched and where, as objects of the schema; `directory` keeps them, in memory and in
//! files (`files`, `yaml`); `search` is the loop of one of them: it asks a source (`consul`, `aws`), lets `plan` make the
//! document that the answer calls for, and writes it the ordinary way when it differs. Pure: `plan`, `slots`, `pace`,
//! `yaml`, and the readers of answers.
//!
//! Nothing here knows who asks for the lists, and nothing writes to the file or to HAProxy but `configuration`.

mod aws;
pub(crate) mod client;
mod consul;
mod directory;
mod files;
mod guilty;
mod instance;
mod pace;
mod plan;
mod search;
mod slots;
mod status;
mod surroundings;
mod yaml;

pub use directory::{Directory, DirectorySettings, Listed};
pub use instance::Kind;
pub use status::{Discovered, State, Status};
pub use surroundings::Environment;
