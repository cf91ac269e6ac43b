//! The connections that listings and long commands may take at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Reason, Result};

/// Gives out slots; one of them stays for what is short, so that who takes his time over a long listing does not keep
/// everybody else from theirs.
#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    long: Arc<Semaphore>,
    /// Callers that wait for a slot.
    waiting: watch::Sender<usize>,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _all: OwnedSemaphorePermit,
    _long: Option<OwnedSemaphorePermit>,
}

/// Counts a caller as waiting for as long as it lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|number| *number += 1);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}

impl Slots {
    pub(super) fn new(number: usize) -> Self {
        let number = number.max(1);
        Slots {
            all: Arc::new(Semaphore::new(number)),
            long: Arc::new(Semaphore::new((number - 1).max(1))),
            waiting: watch::Sender::new(0),
        }
    }

    /// A slot for what this program takes as fast as it comes. `RUNTIME_UNAVAILABLE` at the deadline.
    pub(super) async fn short(&self, deadline: Instant) -> Result<Slot> {
        Ok(Slot { _all: self.take(&self.all, deadline).await?, _long: None })
    }

    /// A slot for what a caller takes at its own speed. `RUNTIME_UNAVAILABLE` at the deadline.
    pub(super) async fn long(&self, deadline: Instant) -> Result<Slot> {
        let long = self.take(&self.long, deadline).await?;
        Ok(Slot { _all: self.take(&self.all, deadline).await?, _long: Some(long) })
    }

    async fn take(&self, slots: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _waiting = Waiting::new(&self.waiting);
        let slot = timeout_at(deadline, Arc::clone(slots).acquire_owned()).await;
        let slot = slot.map_err(|_| {
            let message = "all connections for listings are in use, and none was free in time";
            Error::new(Reason::RuntimeUnavailable, message)
        })?;
        slot.map_err(Error::internal)
    }

    /// Waits until somebody waits for a slot.
    pub(super) async fn wanted(&self) {
        // The sender is `self`, so it is there.
        drop(self.waiting.subscribe().wait_for(|number| *number > 0).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_slot_stays_for_what_is_short() {
        let slots = Slots::new(3);
        let soon = || Instant::now() + Duration::from_secs(1);
        let (first, _second) = (slots.long(soon()).await.unwrap(), slots.long(soon()).await.unwrap());
        let refused = slots.long(soon()).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::RuntimeUnavailable);
        drop(slots.short(soon()).await.unwrap());
        let (waited, ()) = tokio::join!(slots.long(soon()), async {
            slots.wanted().await;
            drop(first);
        });
        waited.unwrap();
        assert_eq!(*slots.waiting.borrow(), 0);
    }
}
