//! Who reads private keys besides us: HAProxy, by what its configuration and its socket say.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::unistd::{Group, Uid};

use crate::configuration::Configuration;
use crate::configuration::engine::Engine;
use crate::runtime::Address;
use crate::storage::KeyReaders;

/// The group that new keys are given to: the one of the configuration, else that of an HAProxy which was started by
/// another user than root and us. `stats` is a socket to use instead of those of the configuration.
pub(super) fn readers(engine: Engine, configuration: Arc<Configuration>, stats: Option<String>) -> KeyReaders {
    KeyReaders::new(move || {
        let document = &configuration.current().document;
        if let Some(group) = engine.process_group(document) {
            return number_of(&group);
        }
        let sockets = stats
            .clone()
            .map_or_else(|| engine.stats_sockets(document, &|name| std::env::var(name).ok()), |socket| vec![socket]);
        sockets.iter().find_map(|socket| group_of_listener(socket))
    })
}

/// The number of a group, by its name or as it is.
fn number_of(group: &str) -> Option<u32> {
    group.parse().ok().or_else(|| Some(Group::from_name(group).ok()??.gid.as_raw()))
}

/// The group of the process that listens on a socket, if neither root nor we listen there.
fn group_of_listener(socket: &str) -> Option<u32> {
    let Ok(Address::Unix(path)) = socket.parse() else { return None };
    let stream = UnixStream::connect(path).ok()?;
    let listener = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    let others = !listener.uid.is_root() && listener.uid.as_raw() != Uid::effective().as_raw();
    others.then(|| listener.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!((number_of("root"), number_of("17"), number_of("no-such-group")), (Some(0), Some(17), None));
    }

    #[test]
    fn our_own_socket_needs_no_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(group_of_listener(&path.display().to_string()), None);
        assert_eq!(group_of_listener("127.0.0.1:1"), None);
    }
}
