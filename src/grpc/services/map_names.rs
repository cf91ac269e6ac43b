//! What callers call maps: to look a name up costs more than the command itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::runtime::{MapRef, Worker};

/// Spellings that are remembered. There are a few for each map that is loaded.
const LIMIT: usize = 4096;

/// The maps that names meant to a worker. A worker loads its maps when it starts, so they stay the same for its life.
#[derive(Debug, Default)]
pub struct MapNames {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    worker: Option<Worker>,
    maps: HashMap<String, MapRef>,
}

impl MapNames {
    /// The map of a name, if it has been looked up with this worker.
    pub(super) fn get(&self, worker: Option<Worker>, name: &str) -> Option<MapRef> {
        let known = self.known();
        if worker.is_none() || known.worker != worker {
            return None;
        }
        known.maps.get(name).cloned()
    }

    /// Remembers what was looked up with this worker.
    pub(super) fn put(&self, worker: Option<Worker>, name: &str, map: &MapRef) {
        let mut known = self.known();
        if known.worker != worker || known.maps.len() >= LIMIT {
            *known = Known { worker, maps: HashMap::new() };
        }
        known.maps.insert(name.to_owned(), map.clone());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_something_to_one_worker() {
        let (names, map) = (MapNames::default(), MapRef::new("/maps/a.map").unwrap());
        let worker = |pid| Some(Worker { pid, started: 1 });
        names.put(worker(1), "a", &map);
        assert_eq!(names.get(worker(1), "a"), Some(map.clone()));
        assert_eq!(names.get(worker(1), "b"), None);
        assert_eq!((names.get(worker(2), "a"), names.get(None, "a")), (None, None));
        names.put(worker(2), "b", &map);
        assert_eq!((names.get(worker(1), "a"), names.get(worker(2), "a")), (None, None));
    }
}
