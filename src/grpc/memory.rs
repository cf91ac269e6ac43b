//! Memory that requests may take until they are carried out: what comes first, others have to wait for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Error, Reason, Result};

/// How long a request waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory of a fixed size, shared by all who hold it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: usize,
    left: Mutex<usize>,
    freed: Notify,
}

impl Memory {
    /// So many bytes.
    pub fn new(size: usize) -> Self {
        Memory(Arc::new(Shared { size, left: Mutex::new(size), freed: Notify::new() }))
    }

    /// A part of it, without any bytes so far.
    pub fn lease(&self) -> Lease {
        Lease { memory: self.clone(), bytes: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = left.checked_sub(bytes);
        *left = taken.unwrap_or(*left);
        taken.is_some()
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
            self.0.freed.notify_waiters();
        }
    }
}

impl Default for Memory {
    /// Enough for everything.
    fn default() -> Self {
        Memory::new(usize::MAX)
    }
}

/// A part of the memory, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    memory: Memory,
    bytes: usize,
}

impl Lease {
    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it as large, if that can be done at once. What is larger than all of the memory gets all of it.
    pub fn try_reach(&mut self, bytes: usize) -> bool {
        let wanted = bytes.min(self.memory.0.size);
        let reached = self.bytes >= wanted || self.memory.take(wanted - self.bytes);
        if reached {
            self.bytes = self.bytes.max(wanted);
        }
        reached
    }

    /// Makes it as small.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(more) = self.bytes.checked_sub(bytes) {
            self.memory.give_back(more);
            self.bytes = bytes;
        }
    }

    /// Makes it as large, or fails with `OVERLOADED` after 5 s. Small parts overtake large ones.
    pub async fn reach(&mut self, bytes: usize) -> Result<()> {
        if self.try_reach(bytes) {
            return Ok(());
        }
        let memory = self.memory.clone();
        let reached = async {
            loop {
                let mut freed = std::pin::pin!(memory.0.freed.notified());
                freed.as_mut().enable();
                if self.try_reach(bytes) {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.map_err(|_| full())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// The error when there is no room.
pub fn full() -> Error {
    Error::new(Reason::Overloaded, "the memory for requests is taken by others, call again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_for_it_but_not_for_long() {
        let memory = Memory::new(100);
        let (mut one, mut other) = (memory.lease(), memory.lease());
        one.reach(60).await.unwrap();
        one.reach(50).await.unwrap();
        assert_eq!(one.bytes(), 60);
        assert!(!other.try_reach(41) && other.try_reach(40));
        let began = tokio::time::Instant::now();
        let error = other.reach(41).await.unwrap_err();
        assert_eq!((error.reason(), began.elapsed()), (Reason::Overloaded, PATIENCE));
        let (waited, ()) = tokio::join!(other.reach(90), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(one);
        });
        waited.unwrap();
        assert_eq!(other.bytes(), 90);
        drop(other);
        let mut all = memory.lease();
        all.reach(1000).await.unwrap();
        assert_eq!(all.bytes(), 100, "what never fits gets all there is");
        all.shrink(200);
        assert_eq!(all.bytes(), 100);
        all.shrink(30);
        assert!(memory.lease().try_reach(70) && !memory.lease().try_reach(71));
    }
}
