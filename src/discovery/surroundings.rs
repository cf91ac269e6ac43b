//! What a search knows of the world besides its source: the time, and the environment of the process.

use std::sync::Arc;

use super::client::Trouble;
use crate::configuration::Clock;

/// Looks up a variable of the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Injected, so that tests decide both.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) environment: Environment,
}

impl Surroundings {
    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The time as AWS writes it: `20150830T123600Z`.
    pub(super) fn date(&self) -> Result<String, Trouble> {
        let now = i64::try_from(self.now()).ok().and_then(|now| jiff::Timestamp::from_millisecond(now).ok());
        let now = now.ok_or_else(|| Trouble("the clock of this machine is far off".to_owned()))?;
        Ok(now.strftime("%Y%m%dT%H%M%SZ").to_string())
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }
}
