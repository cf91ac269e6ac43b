//! Who checks now, and who waits: users take turns, so that nobody waits behind all that one of them asks for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Error, Reason, Result};

/// Checks that compute at a time: each parses the whole file.
const COMPUTING: usize = 2;

/// A check that takes longer waits for something, such as a name server, and no longer keeps others from computing.
const LONG: Duration = Duration::from_secs(2);

/// Checks at a time, also those that take long.
const ALL: usize = 16;

/// Those of one user: the rest is for others.
const OF_ONE: usize = 12;

/// The turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: Mutex<Order>,
    changed: Notify,
}

impl Turns {
    /// Does work for a user when its turn has come. `DEADLINE_EXCEEDED` when that is not before the deadline.
    pub(super) async fn work<T>(&self, user: &str, deadline: Instant, work: impl Future<Output = T>) -> Result<T> {
        let turn = timeout_at(deadline, self.turn(user)).await.map_err(|_| {
            let text = "the check of the configuration did not begin in time: other checks hang";
            Error::new(Reason::DeadlineExceeded, text)
        })?;
        tokio::pin!(work);
        if let Ok(done) = timeout(LONG, &mut work).await {
            return Ok(done);
        }
        turn.takes_long();
        Ok(work.await)
    }

    async fn turn<'a>(&'a self, user: &'a str) -> Turn<'a> {
        let number = self.order().come(user);
        let turn = Turn { turns: self, user, number };
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.order().begin(number) {
                // There may be room for another one.
                self.changed.notify_waiters();
                return turn;
            }
            changed.await;
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check from when it waits until it has ended.
struct Turn<'a> {
    turns: &'a Turns,
    user: &'a str,
    number: u64,
}

impl Turn<'_> {
    fn takes_long(&self) {
        self.turns.order().change(self.user, self.number, Stage::Long);
        self.turns.changed.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.order().leave(self.user, self.number);
        self.turns.changed.notify_waiters();
    }
}

/// What a check is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Computing,
    /// It computes or waits for something, for long.
    Long,
}

/// Checks of a user, in the order in which they came.
#[derive(Debug, Default)]
struct User {
    checks: Vec<(u64, Stage)>,
    /// Number of the turn that came last, or of the last one before this user came.
    last: u64,
}

impl User {
    fn count(&self, stage: Stage) -> usize {
        self.checks.iter().filter(|(_, other)| *other == stage).count()
    }

    /// The check that is next, if there may be one more.
    fn next(&self) -> Option<u64> {
        let under_way = self.count(Stage::Computing) + self.count(Stage::Long);
        let waiting = self.checks.iter().find(|(_, stage)| *stage == Stage::Waiting);
        waiting.filter(|_| under_way < OF_ONE).map(|(number, _)| *number)
    }
}

/// Who is next.
#[derive(Debug, Default)]
struct Order {
    users: HashMap<Box<str>, User>,
    /// Checks that came.
    came: u64,
    /// Turns that were given.
    given: u64,
}

impl Order {
    /// A check of a user waits from now on. Returns its number.
    fn come(&mut self, user: &str) -> u64 {
        self.came += 1;
        let given = self.given;
        let user = self.users.entry(user.into()).or_insert_with(|| User { checks: Vec::new(), last: given });
        user.checks.push((self.came, Stage::Waiting));
        self.came
    }

    /// Whether the turn of a check has come, which begins then: that of the user who has waited longest for one.
    fn begin(&mut self, number: u64) -> bool {
        let count = |stage| self.users.values().map(|user| user.count(stage)).sum::<usize>();
        let computing = count(Stage::Computing);
        if computing >= COMPUTING || computing + count(Stage::Long) >= ALL {
            return false;
        }
        let waiting = self.users.iter().filter_map(|(name, user)| Some((user.last, user.next()?, name.clone())));
        let Some((_, _, name)) = waiting.min().filter(|(_, next, _)| *next == number) else { return false };
        self.change(&name, number, Stage::Computing);
        self.given += 1;
        let given = self.given;
        if let Some(user) = self.users.get_mut(&name) {
            user.last = given;
        }
        true
    }

    fn change(&mut self, user: &str, number: u64, stage: Stage) {
        let checks = self.users.get_mut(user).map(|user| user.checks.iter_mut());
        if let Some((_, now)) = checks.into_iter().flatten().find(|(other, _)| *other == number) {
            *now = stage;
        }
    }

    /// A check has ended, or nobody waits for it any more.
    fn leave(&mut self, user: &str, number: u64) {
        if let Some(found) = self.users.get_mut(user) {
            found.checks.retain(|(other, _)| *other != number);
            if found.checks.is_empty() {
                self.users.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hang() {
        std::future::pending::<()>().await;
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_lets_others_work_but_not_any_number() {
        let turns = Turns::default();
        let late = Instant::now() + Duration::from_mins(10);
        let began = Instant::now();
        let soon = turns.work("a", late, async {});
        let hanging = futures_util::future::join_all((0..2).map(|_| turns.work("a", late, hang())));
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            done = async { tokio::time::sleep(Duration::from_millis(1)).await; soon.await } => done.unwrap(),
        }
        assert_eq!(began.elapsed(), LONG);

        let users: Vec<String> = (0..ALL).map(|number| (number % 4).to_string()).collect();
        let hanging = futures_util::future::join_all(users.iter().map(|user| turns.work(user, late, hang())));
        let deadline = Instant::now() + Duration::from_mins(1);
        let refused = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns.work("a", deadline, async {}).await.unwrap();
            tokio::time::sleep(LONG * 10).await;
            turns.work("a", deadline, async {}).await
        };
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            refused = refused => assert_eq!(refused.unwrap_err().reason(), Reason::DeadlineExceeded),
        }
        assert_eq!(Instant::now(), deadline);
        turns.work("a", late, async {}).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_behind_the_line_of_another() {
        let turns = Turns::default();
        let (began, late) = (Instant::now(), Instant::now() + Duration::from_mins(10));
        let hanging = futures_util::future::join_all((0..40).map(|_| turns.work("a", late, hang())));
        let others = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns.work("b", late, async {}).await.unwrap();
            assert_eq!(began.elapsed(), LONG);
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let began = Instant::now();
                turns.work("b", late, async {}).await.unwrap();
                assert!(began.elapsed() <= LONG);
            }
        };
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            () = others => {}
        }
    }

    #[test]
    fn users_take_turns_whoever_comes_anew() {
        let mut order = Order::default();
        let long: Vec<u64> = (0..5).map(|_| order.come("long")).collect();
        assert!(order.begin(long[0]) && order.begin(long[1]) && !order.begin(long[2]), "there is no more room");
        let other = order.come("other");
        order.leave("long", long[0]);
        assert!(!order.begin(other) && order.begin(long[2]), "who has waited for longer");
        order.leave("long", long[1]);
        assert!(!order.begin(long[3]) && order.begin(other), "the other one's turn");
        order.leave("other", other);
        let again = order.come("other");
        assert!(!order.begin(again) && order.begin(long[3]), "who comes anew is not in front of all");
        order.leave("long", long[2]);
        assert!(order.begin(again));
        order.leave("other", again);
        order.leave("long", long[3]);
        order.leave("long", long[4]);
        assert!(order.users.is_empty());
    }
}
