//! Wrong passwords, by user and address: from the fifth in a row each answer takes longer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::Digest;
use super::line::Line;
use crate::error::Result;

/// Wrong ones that are answered at once.
const FREE: u32 = 4;
/// Delay of the next one, doubled for each that follows.
const FIRST: Duration = Duration::from_millis(500);
/// Longest delay.
const LONGEST: Duration = Duration::from_secs(30);
/// After so much time without one they are forgotten.
const FORGET: Duration = Duration::from_mins(15);
/// Callers of one pair that wait for their turn.
const WAITING: usize = 8;
/// Pairs kept in memory.
const PAIRS: usize = 4096;

/// A user, known or not, and an address; of IPv6 the network of one site.
type Key = (Digest, Option<IpAddr>);

/// Who has guessed how often.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    pairs: Mutex<HashMap<Key, Arc<Pair>>>,
}

#[derive(Debug)]
struct Pair {
    /// Wrong ones in a row.
    wrong: Line<u32>,
    last: Mutex<Instant>,
}

impl Pair {
    fn idle(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// The turn of one caller. What it tries counts as wrong unless it says otherwise, also when it goes away meanwhile.
pub(super) struct Turn<'a> {
    guesses: &'a Guesses,
    key: Key,
    pair: Arc<Pair>,
    wrong: OwnedMutexGuard<u32>,
}

impl Guesses {
    /// Waits for the turn of a pair; `OVERLOADED` when too many wait for it.
    pub(super) async fn turn(&self, user: Digest, address: Option<IpAddr>) -> Result<Turn<'_>> {
        let key = (user, address.map(site));
        let pair = self.pair(key);
        let forgotten = pair.idle() > FORGET;
        let mut wrong = pair.wrong.first(WAITING).await?;
        if forgotten {
            *wrong = 0;
        }
        Ok(Turn { guesses: self, key, pair, wrong })
    }

    fn pair(&self, key: Key) -> Arc<Pair> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.len() >= PAIRS && !pairs.contains_key(&key) {
            // Half of them go at once, so that it is seldom done.
            let mut ages: Vec<Duration> = pairs.values().map(|pair| pair.idle()).collect();
            ages.sort_unstable();
            let median = ages[ages.len() / 2];
            pairs.retain(|_, pair| pair.idle() < median || !pair.wrong.is_empty());
        }
        let new = || Arc::new(Pair { wrong: Line::default(), last: Mutex::new(Instant::now()) });
        Arc::clone(pairs.entry(key).or_insert_with(new))
    }
}

impl Turn<'_> {
    /// Waits as long as the wrong ones before ask for.
    pub(super) async fn wait(&mut self) {
        if let Some(more) = self.wrong.checked_sub(FREE) {
            tokio::time::sleep(LONGEST.min(FIRST * 2_u32.saturating_pow(more.min(16)))).await;
        }
        *self.wrong = self.wrong.saturating_add(1);
        *self.pair.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// It was right: the pair begins anew.
    pub(super) fn right(mut self) {
        *self.wrong = 0;
        let mut pairs = self.guesses.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.remove(&self.key);
    }
}

/// Whoever has one address of IPv6 has all of its network.
fn site(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Digest = [1; 32];

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Tries once and returns the delay in milliseconds.
    async fn try_once(guesses: &Guesses, user: Digest, address: impl Into<Option<IpAddr>>, right: bool) -> u128 {
        let began = Instant::now();
        let mut turn = guesses.turn(user, address.into()).await.unwrap();
        turn.wait().await;
        if right {
            turn.right();
        }
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn from_the_fifth_in_a_row_the_delay_doubles_up_to_its_limit() {
        let guesses = Guesses::default();
        let one = from("10.0.0.1");
        for delay in [0, 0, 0, 0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(try_once(&guesses, USER, one, false).await, delay);
        }
        assert_eq!(try_once(&guesses, [2; 32], one, false).await, 0, "another user");
        assert_eq!(try_once(&guesses, USER, from("10.0.0.2"), false).await, 0, "another address");
        assert_eq!(try_once(&guesses, USER, None, false).await, 0, "a socket without addresses");
        assert_eq!(try_once(&guesses, USER, from("::ffff:10.0.0.1"), false).await, 30_000, "the same address");
        assert_eq!(try_once(&guesses, USER, one, true).await, 30_000);
        assert_eq!(try_once(&guesses, USER, one, false).await, 0, "begun anew");
        for _ in 0..9 {
            try_once(&guesses, USER, one, false).await;
        }
        tokio::time::advance(FORGET + Duration::from_secs(1)).await;
        assert_eq!(try_once(&guesses, USER, one, false).await, 0, "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_get_no_further_than_one_after_the_other() {
        let guesses = Arc::new(Guesses::default());
        let began = Instant::now();
        let tries: Vec<_> = (0..100)
            .map(|number| {
                let guesses = Arc::clone(&guesses);
                let address = from(&format!("2001:db8::{number}"));
                tokio::spawn(async move {
                    let turn = guesses.turn(USER, Some(address)).await;
                    if let Ok(mut turn) = turn {
                        turn.wait().await;
                        return Some(began.elapsed().as_millis());
                    }
                    None
                })
            })
            .collect();
        let mut done: Vec<u128> = Vec::new();
        for each in tries {
            done.extend(each.await.unwrap());
        }
        // All of one network. One has the turn, and as many as there is room for wait; the others are refused at once.
        assert!(done.len() <= 100 && done.len() > FREE as usize, "{done:?}");
        assert!(done.iter().filter(|at| **at < 500).count() <= FREE as usize, "{done:?}");
        // Whoever goes away before its turn ends has still guessed.
        let abandoned = tokio::time::timeout(Duration::from_millis(1), async {
            let mut turn = guesses.turn([3; 32], None).await.unwrap();
            turn.wait().await;
            std::future::pending::<()>().await;
        });
        assert!(abandoned.await.is_err());
        assert_eq!(*guesses.turn([3; 32], None).await.unwrap().wrong, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let guesses = Guesses::default();
        for number in 0..2 * PAIRS as u32 {
            let mut user = [0; 32];
            user[..4].copy_from_slice(&number.to_be_bytes());
            try_once(&guesses, user, None, false).await;
        }
        assert!(guesses.pairs.lock().unwrap().len() <= PAIRS);
    }
}
