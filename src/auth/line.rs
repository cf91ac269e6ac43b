//! Waiting lines that cannot become long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{Error, Reason, Result};

/// Something that one caller at a time may have; the others wait in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line<T> {
    head: Arc<Mutex<T>>,
    waiting: AtomicUsize,
}

impl<T> Line<T> {
    /// Waits until nobody is in front; `OVERLOADED` when `most` wait already.
    pub(super) async fn first(&self, most: usize) -> Result<OwnedMutexGuard<T>> {
        let _place = Place::take(&self.waiting, most)?;
        Ok(Arc::clone(&self.head).lock_owned().await)
    }

    /// Whether nobody has it and nobody waits for it.
    pub(super) fn is_empty(&self) -> bool {
        Arc::strong_count(&self.head) == 1 && self.waiting.load(Ordering::Relaxed) == 0
    }
}

/// A place in the line, left when its caller gives up as well.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Result<Self> {
        let place = Place(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(place);
        }
        Err(Error::new(Reason::Overloaded, "too many passwords of this user are being checked, log in again later"))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
