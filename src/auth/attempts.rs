//! Logins that are tried at the same time: those with the same password from the same place are one attempt.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::Digest;
use crate::error::Result;

/// A user with a password, and the address.
type Key = (Digest, Option<IpAddr>);

/// What is being tried. There is an entry for as long as somebody waits for its outcome.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    open: Mutex<HashMap<Key, Arc<OnceCell<bool>>>>,
}

impl Attempts {
    /// Whether it was right. Of those who ask at the same time one tries, and the others hear what came of it; when that one
    /// goes away or fails, the next one tries.
    pub(super) async fn join(
        &self,
        digest: Digest,
        address: Option<IpAddr>,
        attempt: impl Future<Output = Result<bool>>,
    ) -> Result<bool> {
        let joined = Joined { attempts: self, key: (digest, address), outcome: self.open((digest, address)) };
        joined.outcome.get_or_try_init(|| attempt).await.copied()
    }

    fn open(&self, key: Key) -> Arc<OnceCell<bool>> {
        Arc::clone(self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

/// One who waits.
struct Joined<'a> {
    attempts: &'a Attempts,
    key: Key,
    outcome: Arc<OnceCell<bool>>,
}

impl Drop for Joined<'_> {
    /// The entry goes with its outcome, so that whoever comes later is a new attempt, or with the last one who waits.
    fn drop(&mut self) {
        let mut open = self.attempts.open.lock().unwrap_or_else(PoisonError::into_inner);
        let same = open.get(&self.key).is_some_and(|outcome| Arc::ptr_eq(outcome, &self.outcome));
        if same && (self.outcome.initialized() || Arc::strong_count(&self.outcome) == 2) {
            open.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::{Error, Reason};

    const PASSWORD: Digest = [1; 32];

    #[tokio::test(start_paused = true)]
    async fn of_many_at_once_one_tries_and_later_ones_anew() {
        let (attempts, tried) = (Arc::new(Attempts::default()), Arc::new(AtomicUsize::new(0)));
        for round in 1..=2 {
            let all: Vec<_> = (0..100)
                .map(|_| {
                    let (attempts, tried) = (Arc::clone(&attempts), Arc::clone(&tried));
                    tokio::spawn(async move {
                        let attempt = async {
                            tried.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            Ok(round == 2)
                        };
                        attempts.join(PASSWORD, None, attempt).await.unwrap()
                    })
                })
                .collect();
            for each in all {
                assert_eq!(each.await.unwrap(), round == 2);
            }
            assert_eq!(tried.load(Ordering::Relaxed), round);
            assert!(attempts.open.lock().unwrap().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_away_or_fails_leaves_it_to_the_next_one() {
        let attempts = Attempts::default();
        let gone = attempts.join(PASSWORD, None, std::future::pending());
        let gone = tokio::time::timeout(Duration::from_secs(1), gone);
        let fails = attempts.join(PASSWORD, None, async { Err(Error::new(Reason::Overloaded, "too many")) });
        let (gone, failed, right) = tokio::join!(gone, fails, attempts.join(PASSWORD, None, async { Ok(true) }));
        assert!(gone.is_err() && failed.is_err() && right.unwrap());
        // The password of somebody else, and the same one from another place, are other attempts.
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let (one, other, third) = tokio::join!(
            attempts.join(PASSWORD, None, async { Ok(false) }),
            attempts.join([2; 32], None, async { Ok(true) }),
            attempts.join(PASSWORD, address, async { Ok(true) }),
        );
        assert!(!one.unwrap() && other.unwrap() && third.unwrap());
        assert!(attempts.open.lock().unwrap().is_empty());
    }
}
