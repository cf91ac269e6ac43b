//! Connections that have not logged in. Where there is no room for another one, the oldest of them has to leave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::auth::Visitor;

/// Those of all ports.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Numbered>);

/// In the order in which they came.
#[derive(Debug, Default)]
struct Numbered {
    next: u64,
    each: BTreeMap<u64, Stranger>,
}

#[derive(Debug)]
struct Stranger {
    port: usize,
    visitor: Arc<Visitor>,
    leave: CancellationToken,
}

impl Strangers {
    fn numbered(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the port of that number.
    pub(super) fn enter(self: &Arc<Self>, port: usize, visitor: Arc<Visitor>) -> Presence {
        let leave = CancellationToken::new();
        let mut numbered = self.numbered();
        let number = numbered.next;
        numbered.next += 1;
        numbered.each.insert(number, Stranger { port, visitor, leave: leave.clone() });
        Presence { strangers: Arc::clone(self), number, leave }
    }

    /// Sends the oldest one away, of one port or of any. False when there is none.
    pub(super) fn send_one_away(&self, port: Option<usize>) -> bool {
        let mut numbered = self.numbered();
        // Who has logged in meanwhile is no stranger any more.
        numbered.each.retain(|_, one| !one.visitor.is_admitted());
        let oldest = numbered.each.iter().find(|(_, one)| port.is_none_or(|port| port == one.port));
        let Some(number) = oldest.map(|(number, _)| *number) else { return false };
        if let Some(one) = numbered.each.remove(&number) {
            one.leave.cancel();
        }
        true
    }
}

/// A connection as long as it is open.
#[derive(Debug)]
pub(super) struct Presence {
    strangers: Arc<Strangers>,
    number: u64,
    leave: CancellationToken,
}

impl Presence {
    /// Returns when it has to leave.
    pub(super) async fn sent_away(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.strangers.numbered().each.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_never_logged_in_leaves_first() {
        let strangers = Arc::new(Strangers::default());
        let enter = |port| {
            let visitor = Arc::new(Visitor::default());
            (strangers.enter(port, Arc::clone(&visitor)), visitor)
        };
        let (first, second, third, other) = (enter(0), enter(0), enter(0), enter(1));
        first.1.show_certificate();
        drop(second);
        assert!(strangers.send_one_away(Some(0)));
        let left = |presence: &Presence| presence.leave.is_cancelled();
        assert!(left(&third.0) && !left(&first.0) && !left(&other.0));
        assert!(!strangers.send_one_away(Some(0)), "who has logged in stays");
        assert!(strangers.send_one_away(None) && left(&other.0));
        assert!(!strangers.send_one_away(None));
    }
}
