//! The source that reads a table again and again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::feed::{Feed, Source};
use crate::error::{Error, Reason, Result};
use crate::runtime::Runtime;

/// A dump may take one part of this many of HAProxy's time.
const DUTY: u32 = 10;
/// Pause between two dumps, however quick they are.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// Pause while HAProxy is away.
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// Dumps in a row whose entries do not fit each other.
const STRANGE_DUMPS: u32 = 3;

/// Takes what a dump shows, in blocks of whole lines; an error ends the dump.
pub type Block<'a> = dyn FnMut(&[u8]) -> Result<()> + Send + 'a;

/// Reads all entries of a table once.
pub trait Dump: Send + Sync + 'static {
    /// Hands out the lines of `show table`, in blocks of whole lines.
    ///
    /// `OBJECT_NOT_FOUND` when there is no such table, `RUNTIME_UNAVAILABLE` when HAProxy is away.
    fn dump<'a>(&'a self, table: &'a str, block: &'a mut Block<'a>) -> BoxFuture<'a, Result<()>>;
}

impl Dump for Runtime {
    fn dump<'a>(&'a self, table: &'a str, block: &'a mut Block<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut lines = self.table_lines(table).await?;
            while let Some(lines) = lines.next_block().await? {
                block(&lines)?;
            }
            if self.worker() != Some(lines.worker()) {
                let message = "another worker of haproxy has followed while the table was read";
                return Err(Error::new(Reason::RuntimeUnavailable, message));
            }
            Ok(())
        })
    }
}

/// Polls each watched table once an interval, whatever the number of its watchers; less often when a dump is slow.
pub struct Poll {
    dump: Arc<dyn Dump>,
}

impl Poll {
    /// Polls through `dump`.
    pub fn new(dump: impl Dump) -> Self {
        Poll { dump: Arc::new(dump) }
    }
}

impl Source for Poll {
    fn run(&self, feed: Feed) -> BoxFuture<'static, Error> {
        let dump = self.dump.clone();
        Box::pin(async move {
            let mut strange = 0;
            loop {
                let start = Instant::now();
                let mut layout_changed = false;
                feed.begin();
                let mut block = |lines: &[u8]| {
                    feed.observe(lines).map_err(|_| {
                        layout_changed = true;
                        Error::internal("the entries of a stick table store other data than before")
                    })
                };
                let result = dump.dump(feed.table(), &mut block).await;
                let mut pause = LEAST_PAUSE.max(start.elapsed() * DUTY);
                match result {
                    Ok(()) => {
                        strange = 0;
                        feed.finish();
                    }
                    Err(error) => {
                        feed.abandon();
                        feed.lost();
                        if layout_changed && strange < STRANGE_DUMPS {
                            strange += 1;
                        } else if error.reason() == Reason::RuntimeUnavailable {
                            tracing::debug!(table = feed.table(), %error, "a watched stick table cannot be read now");
                            pause = pause.max(AWAY_PAUSE);
                        } else {
                            return error;
                        }
                    }
                }
                feed.wait(start, pause).await;
            }
        })
    }
}
