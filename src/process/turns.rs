//! Who checks now, and who waits.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Error, Reason, Result};

/// Checks that compute at a time: each parses the whole file.
const COMPUTING: usize = 2;

/// A check that takes longer waits for something, such as a name server, and no longer keeps others from computing.
const LONG: Duration = Duration::from_secs(2);

/// Checks at a time, also those that take long.
const ALL: usize = 16;

/// The turns.
#[derive(Debug)]
pub(super) struct Turns {
    computing: Semaphore,
    all: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        Turns { computing: Semaphore::new(COMPUTING), all: Semaphore::new(ALL) }
    }

    /// Does work when its turn has come. `DEADLINE_EXCEEDED` when that is not before the deadline.
    pub(super) async fn work<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Result<T> {
        let _place = turn(&self.all, deadline).await?;
        let computing = turn(&self.computing, deadline).await?;
        tokio::pin!(work);
        if let Ok(done) = timeout(LONG, &mut work).await {
            return Ok(done);
        }
        drop(computing);
        Ok(work.await)
    }
}

async fn turn(of: &Semaphore, deadline: Instant) -> Result<SemaphorePermit<'_>> {
    let late = |_| {
        let text = "the check of the configuration did not begin in time: other checks hang";
        Error::new(Reason::DeadlineExceeded, text)
    };
    timeout_at(deadline, of.acquire()).await.map_err(late)?.map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hang() {
        std::future::pending::<()>().await;
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_lets_others_work_but_not_any_number() {
        let turns = Turns::new();
        let late = Instant::now() + Duration::from_mins(10);
        let began = Instant::now();
        let soon = turns.work(late, async {});
        let hanging = futures_util::future::join_all((0..2).map(|_| turns.work(late, hang())));
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            done = async { tokio::time::sleep(Duration::from_millis(1)).await; soon.await } => done.unwrap(),
        }
        assert_eq!(began.elapsed(), LONG);

        let hanging = futures_util::future::join_all((0..ALL).map(|_| turns.work(late, hang())));
        let deadline = Instant::now() + Duration::from_mins(1);
        let refused = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns.work(deadline, async {}).await
        };
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            refused = refused => assert_eq!(refused.unwrap_err().reason(), Reason::DeadlineExceeded),
        }
        assert_eq!(Instant::now(), deadline);
        turns.work(late, async {}).await.unwrap();
    }
}
