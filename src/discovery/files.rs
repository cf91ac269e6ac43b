//! The files that instances stand in: the YAML file of settings, or one of our own where that cannot be written.
//!
//! Everything here blocks.

use std::path::{Path, PathBuf};

use super::instance::Kind;
use super::yaml::{self, Entry};
use crate::configuration::{finish_write, write_durably};
use crate::error::{Error, Reason, Result};
use crate::schema::tables::Tables;
use crate::schema::value::Object;

/// Name of our own file in the state folder.
const OWN: &str = "service_discovery.yaml";
/// It may hold secrets.
const MODE: u32 = 0o600;

/// Which file an instance stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The YAML file of settings.
    Settings,
    /// Our own.
    Own,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    settings: Option<PathBuf>,
    own: PathBuf,
    /// Where the text is safe while one of them is written in place.
    keep: PathBuf,
}

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) entries: Vec<(Origin, Entry)>,
    /// One sentence for each instance that is left out.
    pub(super) problems: Vec<String>,
}

impl Files {
    pub(super) fn new(settings: Option<PathBuf>, state_dir: &Path) -> Files {
        Files { settings, own: state_dir.join(OWN), keep: state_dir.join("service-discovery.in-place") }
    }

    fn path(&self, origin: Origin) -> Option<&Path> {
        match origin {
            Origin::Settings => self.settings.as_deref(),
            Origin::Own => Some(&self.own),
        }
    }

    /// Ends what a kill cut off, and reads the files. Of instances with one id the first counts.
    pub(super) fn load(&self, tables: &Tables) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        for origin in [Origin::Settings, Origin::Own] {
            let Some(path) = self.path(origin) else { continue };
            if let Err(error) = finish_write(path, &self.keep) {
                tracing::warn!(%error, "what an earlier run left behind stays");
            }
            let read = yaml::read(tables, &text(path)?);
            loaded.problems.extend(read.problems.iter().map(|words| format!("{}: {words}", path.display())));
            for entry in read.entries {
                if loaded.entries.iter().any(|(_, known)| known.id == entry.id) {
                    let words = format!("{}: the id {} is there twice", path.display(), entry.id);
                    loaded.problems.push(words);
                } else {
                    loaded.entries.push((origin, entry));
                }
            }
        }
        Ok(loaded)
    }

    /// Adds an instance, and says where.
    pub(super) fn add(&self, tables: &Tables, kind: Kind, id: &str, object: &Object) -> Result<Origin> {
        if self.settings.is_some() {
            match self.change(tables, Origin::Settings, kind, id, Some(object)) {
                Ok(()) => return Ok(Origin::Settings),
                Err(error) => tracing::warn!(%error, "a new instance of service discovery is kept in the state folder"),
            }
        }
        self.change(tables, Origin::Own, kind, id, Some(object))?;
        Ok(Origin::Own)
    }

    /// Changes an instance, or takes it out, where it stands.
    pub(super) fn change(
        &self,
        tables: &Tables,
        origin: Origin,
        kind: Kind,
        id: &str,
        object: Option<&Object>,
    ) -> Result<()> {
        let path = self.path(origin).ok_or_else(|| Error::internal("an instance without a file"))?;
        let text = text(path)?;
        let changed = yaml::with(tables, &text, kind, id, object)?;
        if changed == text {
            return Ok(());
        }
        write_durably(path, changed.as_bytes(), MODE, &self.keep).map_err(|error| {
            if error.reason() == Reason::DiskFull {
                return error;
            }
            let words = format!("{error}, and {} {id} stands there", kind.noun());
            Error::new(Reason::Unsupported, words).context(error.context_text().unwrap_or_default())
        })
    }
}

/// A file that is not there is empty.
fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::of_file("read", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use crate::schema::json::{self, JsonRules};

    fn object(tables: &Tables, id: &str, name: &str) -> Object {
        let text = format!(
            r#"{{"address":"a","enabled":false,"id":"{id}","name":"{name}","port":1,"retry_timeout":1,"server_slots_base":10,
                "server_slots_growth_increment":10,"server_slots_growth_type":"linear"}}"#
        );
        json::read(tables, Kind::Consul.message(), text.as_bytes(), JsonRules::default()).unwrap().object
    }

    #[test]
    fn instances_go_to_the_settings_if_they_can_be_written() {
        let tables = Schema::compile(crate::proto::SCHEMA).unwrap().tables;
        let folder = tempfile::tempdir().unwrap();
        let yaml = folder.path().join("d.yaml");
        std::fs::write(&yaml, "# mine\nname: x\n").unwrap();
        let files = Files::new(Some(yaml.clone()), folder.path());
        assert_eq!(files.add(&tables, Kind::Consul, "i1", &object(&tables, "i1", "n")).unwrap(), Origin::Settings);
        assert!(std::fs::read_to_string(&yaml).unwrap().starts_with("# mine\nname: x\nservice_discovery:\n"));

        let nowhere = Files::new(Some(folder.path().join("none/d.yaml")), folder.path());
        assert_eq!(nowhere.add(&tables, Kind::Consul, "i2", &object(&tables, "i2", "n")).unwrap(), Origin::Own);
        let ids = |files: &Files| -> Vec<String> {
            files.load(&tables).unwrap().entries.into_iter().map(|(_, entry)| entry.id).collect()
        };
        assert_eq!(ids(&nowhere), ["i2"]);
        assert_eq!(ids(&files), ["i1", "i2"]);
        let error = nowhere.change(&tables, Origin::Settings, Kind::Consul, "i9", Some(&object(&tables, "i9", "n")));
        let error = error.unwrap_err();
        assert!(error.reason() == Reason::Unsupported && error.message().contains("d.yaml"), "{error}");
        files.change(&tables, Origin::Own, Kind::Consul, "i2", None).unwrap();
        files.change(&tables, Origin::Settings, Kind::Consul, "i1", None).unwrap();
        assert!(ids(&files).is_empty());
    }
}
