//! Who may call: users with passwords, checked from an HTTP `authorization` header or gRPC metadata of that name.
//!
//! Knows no transport: it takes the bytes of the header. Slow hashes run outside the async threads, a few at a time and one
//! of each user; a password that was right once is remembered as a salted digest until its user changes, and is never made
//! to wait. Wrong ones are, see `guesses`; the same one many times at once is one guess, see `attempts`. What a user began
//! ends when the user does.

mod attempts;
mod crypt;
mod guesses;
mod line;
mod secret;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::attempts::Attempts;
use self::guesses::Guesses;
use self::line::Line;
pub use self::secret::{Password, Secret};
use crate::error::{Error, Reason, Result};

/// Passwords of one user kept in memory. More than one is right only for kinds of hashes that look at the beginning.
const REMEMBERED: usize = 16;
/// Slow hashes computed at the same time: more than processors most have, so that two that take for ever leave room.
const HASHING: usize = 4;
/// Callers of one user that wait for a slow hash.
const WAITING: usize = 32;

type Digest = [u8; 32];

/// A user of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name, without `:`.
    pub name: Box<str>,
    /// What its password is compared with.
    pub password: Password,
}

/// Who is at the other end of a connection.
#[derive(Debug, Default)]
pub struct Visitor {
    address: Option<IpAddr>,
    certified: AtomicBool,
    admitted: AtomicBool,
}

impl Visitor {
    /// Someone who calls from an address, or through a socket that has none.
    pub fn new(address: Option<IpAddr>) -> Self {
        Visitor { address, ..Visitor::default() }
    }

    /// The address.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Notes that it has shown a certificate that we trust. Such a client needs no password.
    pub fn show_certificate(&self) {
        self.certified.store(true, Ordering::Relaxed);
        self.admitted.store(true, Ordering::Relaxed);
    }

    /// Whether any of its requests was let in.
    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }
}

/// What lasts as long as the user who was let in.
#[derive(Debug, Clone, Default)]
pub struct Session {
    user: Option<Arc<str>>,
    ended: CancellationToken,
}

impl Session {
    /// The user; `None` for a client that has shown a certificate.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Cancelled when the user is removed or its password changed.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The error of what goes on when the session has ended.
    pub fn over() -> Error {
        denied("the user was removed or its password changed, log in again")
    }
}

/// How refusals are worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    /// The same for all, so that nobody learns which users there are.
    Same,
    /// As in the Data Plane API: unknown users are told.
    Recorded,
}

/// Checks credentials against the current users.
pub struct Authenticator {
    users: ArcSwap<Users>,
    wording: Wording,
    /// Random per process, so that a remembered digest says nothing outside of it.
    salt: Digest,
    guesses: Guesses,
    hashing: Arc<Semaphore>,
}

/// The users that there are.
#[derive(Default)]
struct Users {
    by_name: HashMap<Box<str>, Arc<Account>>,
    /// In whose place unknown users are checked, so that they take as long.
    decoys: Vec<Arc<Account>>,
    /// Their line, for all of them.
    unknown: Line<()>,
    /// What is being tried for them.
    unknown_attempts: Attempts,
}

/// A user, and what is known of it.
struct Account {
    password: Password,
    /// Passwords that were right.
    verified: Mutex<HashSet<Digest>>,
    /// Passwords that are being tried.
    attempts: Attempts,
    /// Callers whose passwords take long to check.
    line: Line<()>,
    session: Session,
}

impl Authenticator {
    /// An authenticator for these users; of two with the same name the first counts. Without users nobody gets in.
    pub fn new(users: Vec<User>, wording: Wording) -> Self {
        let authenticator = Authenticator {
            users: ArcSwap::default(),
            wording,
            salt: rand::random(),
            guesses: Guesses::default(),
            hashing: Arc::new(Semaphore::new(HASHING)),
        };
        authenticator.replace(users);
        authenticator
    }

    /// Takes over other users. Of those that stay as they are nothing is forgotten; the sessions of others end.
    pub fn replace(&self, users: Vec<User>) {
        let before = self.users.load_full();
        let after = Arc::new(Users::after(&before, users));
        self.users.store(Arc::clone(&after));
        for (name, account) in &before.by_name {
            if !after.by_name.get(name).is_some_and(|kept| Arc::ptr_eq(kept, account)) {
                account.session.ended.cancel();
            }
        }
    }

    /// Number of users that can get in.
    pub fn len(&self) -> usize {
        self.users.load().by_name.len()
    }

    /// True when nobody can get in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets in who has shown a certificate, or else has the right `authorization` header; fails with `UNAUTHENTICATED`, or
    /// with `OVERLOADED` when too many try at once.
    pub async fn admit(&self, visitor: &Visitor, authorization: Option<&[u8]>) -> Result<Session> {
        if visitor.certified.load(Ordering::Relaxed) {
            return Ok(Session::default());
        }
        let session = self.verify(visitor.address, authorization).await?;
        visitor.admitted.store(true, Ordering::Relaxed);
        Ok(session)
    }

    async fn verify(&self, address: Option<IpAddr>, authorization: Option<&[u8]>) -> Result<Session> {
        let (name, given) = authorization.and_then(basic).ok_or_else(|| denied(Self::NOTHING))?;
        let users = self.users.load_full();
        let account = users.by_name.get(name.as_str());
        let digest = self.digest(&name, given.as_bytes());
        if let Some(account) = account.filter(|account| account.remembers(&digest)) {
            return Ok(account.session.clone());
        }
        let attempts = account.map_or(&users.unknown_attempts, |account| &account.attempts);
        let attempt = self.attempt(&users, account, address, &name, given, &digest);
        let right = attempts.join(digest, address, attempt).await?;
        match account.filter(|_| right) {
            Some(account) => Ok(account.session.clone()),
            None => Err(self.wrong(account.is_some())),
        }
    }

    /// Whether a password is right, after those of the same user from the same address; it is remembered then.
    async fn attempt(
        &self,
        users: &Users,
        account: Option<&Arc<Account>>,
        address: Option<IpAddr>,
        name: &str,
        given: String,
        digest: &Digest,
    ) -> Result<bool> {
        let user = self.digest(name, b"");
        let mut turn = self.guesses.turn(user, address).await?;
        // Who was in front may have had the same password.
        if account.is_some_and(|account| account.remembers(digest)) {
            turn.right();
            return Ok(true);
        }
        turn.wait().await;
        let Some(account) = account else {
            let decoy = users.decoys.get(usize::from(user[0]) % users.decoys.len().max(1));
            if let Some(decoy) = decoy {
                self.fits(decoy, &users.unknown, name, given, digest).await?;
            }
            return Ok(false);
        };
        let right = self.fits(account, &account.line, name, given, digest).await?;
        if right {
            turn.right();
            account.remember(*digest);
        }
        Ok(right)
    }

    const NOTHING: &str = "unauthenticated for invalid credentials";

    fn wrong(&self, known: bool) -> Error {
        denied(match self.wording {
            Wording::Same => Self::NOTHING,
            Wording::Recorded if known => "invalid password",
            Wording::Recorded => "no configured users",
        })
    }

    async fn fits(
        &self,
        account: &Account,
        line: &Line<()>,
        name: &str,
        given: String,
        digest: &Digest,
    ) -> Result<bool> {
        match &account.password {
            Password::Plain(_) | Password::Spelled(..) => {
                let right = |secret: &Secret| same(digest, &self.digest(name, secret.expose().as_bytes()));
                Ok(account.password.in_clear().filter(|secret| right(secret)).count() > 0)
            }
            Password::Crypt(hash) => {
                let first = line.first(WAITING).await?;
                // Callers from other addresses wait in this line as well.
                if account.remembers(digest) {
                    return Ok(true);
                }
                let room = self.hashing.clone().acquire_owned().await.map_err(Error::internal)?;
                let hash: Box<str> = hash.expose().into();
                // On a thread that may block. The line and the room are kept until it is done, also when nobody waits.
                let verify = move || {
                    let right = crypt::fits(&given, &hash);
                    drop((first, room));
                    right
                };
                tokio::task::spawn_blocking(verify).await.map_err(Error::internal)
            }
        }
    }

    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut digest = Sha256::new();
        digest.update(self.salt);
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name);
        digest.update(password);
        digest.finalize().into()
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// These users; accounts that are as before are kept.
    fn after(before: &Users, list: Vec<User>) -> Self {
        let mut users = Users::default();
        for User { name, password } in list {
            if users.by_name.contains_key(&name) {
                continue;
            }
            let kept = before.by_name.get(&name).filter(|account| account.password == password);
            let account = kept.cloned().unwrap_or_else(|| Arc::new(Account::new(&name, password)));
            users.decoys.push(Arc::clone(&account));
            users.by_name.insert(name, account);
        }
        users
    }
}

impl Account {
    fn new(name: &str, password: Password) -> Self {
        if let Password::Crypt(hash) = &password
            && let Some(fault) = crypt::fault(hash.expose())
        {
            tracing::warn!(user = name, "nobody can log in as this user: {fault}");
        }
        let session = Session { user: Some(name.into()), ..Session::default() };
        Account { password, session, verified: Mutex::default(), attempts: Attempts::default(), line: Line::default() }
    }

    fn remembers(&self, digest: &Digest) -> bool {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn remember(&self, digest: Digest) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest);
    }
}

/// The name in an `authorization` header, right or wrong; for the log.
pub fn claimed_name(authorization: &[u8]) -> Option<String> {
    basic(authorization).map(|(name, _)| name)
}

/// Name and password out of `Basic <base64>`.
fn basic(header: &[u8]) -> Option<(String, String)> {
    let header = std::str::from_utf8(header).ok()?;
    let (scheme, rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Equality of two salted digests, without an early exit.
fn same(left: &Digest, right: &Digest) -> bool {
    left.iter().zip(right).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

fn denied(message: &'static str) -> Error {
    Error::new(Reason::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn header(name: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).into_bytes()
    }

    fn user(name: &str, password: Password) -> User {
        User { name: name.into(), password }
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    fn plain(text: &str) -> Password {
        Password::plain(text, none).unwrap()
    }

    fn crypt(hash: &str) -> Password {
        Password::crypt(hash, none).unwrap()
    }

    impl Authenticator {
        /// From an address that nobody else has.
        async fn try_once(&self, name: &str, password: &str) -> Result<Session> {
            let visitor = Visitor::new(Some(IpAddr::from(rand::random::<[u8; 4]>())));
            self.admit(&visitor, Some(&header(name, password))).await
        }
    }

    #[tokio::test]
    async fn passwords_of_each_kind_are_verified() {
        let yescrypt = "$y$j75$abcdefgh$ucNXpbrNU2P3.RvS.JhIZXR6f2/HEKzl78QXiIdPQ76";
        let users = vec![
            user("plain", plain("s:e cret")),
            user("md5", crypt("$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.")),
            user("sha256", crypt("$5$rounds=1000$saltsalt$eNI.02a9Kos9UxzxjTLpNZ6kYHkRe9Z8OsGkDDoW/X2")),
            user("sha512", crypt(&pwhash::sha512_crypt::hash("pw").unwrap())),
            user("yescrypt", crypt(yescrypt)),
            user("des", crypt("abzlUXK5ed5rs")),
            user("broken", crypt("$9$nothing")),
            user("plain", plain("second entry")),
        ];
        let auth = Authenticator::new(users, Wording::Same);
        assert!(auth.try_once("plain", "s:e cret").await.is_ok());
        for name in ["md5", "sha256", "sha512", "yescrypt", "des"] {
            assert!(auth.try_once(name, "pw").await.is_ok(), "{name}");
            assert!(auth.try_once(name, "pw").await.is_ok(), "{name} from memory");
            assert!(auth.try_once(name, "pw ").await.is_err(), "{name}");
        }
        for (name, password) in [("broken", "$9$nothing"), ("plain", "second entry"), ("plain", ""), ("PLAIN", "x")] {
            assert!(auth.try_once(name, password).await.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn refusals_never_say_the_password_and_are_the_same_unless_they_were_recorded_otherwise() {
        for (wording, unknown, wrong) in [
            (Wording::Same, Authenticator::NOTHING, Authenticator::NOTHING),
            (Wording::Recorded, "no configured users", "invalid password"),
        ] {
            let auth = Authenticator::new(vec![user("admin", plain("right"))], wording);
            for odd in [None, Some(&b"Bearer abc"[..]), Some(b"Basic ???")] {
                let error = auth.admit(&Visitor::default(), odd).await.unwrap_err();
                assert_eq!(error.to_string(), Authenticator::NOTHING);
            }
            assert_eq!(auth.try_once("nobody", "x").await.unwrap_err().to_string(), unknown);
            assert_eq!(auth.try_once("admin", "hunter2").await.unwrap_err().to_string(), wrong);
            assert!(!format!("{auth:?} {:?}", user("u", plain("right"))).contains("right"));
        }
    }

    #[tokio::test]
    async fn what_a_user_began_ends_with_it_and_of_others_nothing_is_forgotten() {
        let hashed = |text: &str| crypt(&pwhash::sha512_crypt::hash(text).unwrap());
        let (admin, other) = (user("admin", hashed("one")), user("other", hashed("pw")));
        let auth = Authenticator::new(vec![admin, other.clone()], Wording::Same);
        let session = auth.try_once("admin", "one").await.unwrap();
        let kept = auth.try_once("other", "pw").await.unwrap();
        auth.replace(vec![other.clone(), user("admin", hashed("two"))]);
        assert!(session.ended().is_cancelled() && !kept.ended().is_cancelled());
        assert!(auth.users.load().by_name["other"].remembers(&auth.digest("other", b"pw")));
        assert!(auth.try_once("admin", "one").await.is_err());
        let session = auth.try_once("admin", "two").await.unwrap();
        auth.replace(vec![other]);
        assert!(session.ended().is_cancelled() && !kept.ended().is_cancelled());
        assert!(auth.try_once("admin", "two").await.is_err());
        assert_eq!(auth.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_was_right_before_never_waits_for_wrong_ones() {
        let auth = Authenticator::new(vec![user("admin", plain("right"))], Wording::Same);
        let visitor = Visitor::new(Some(IpAddr::from([10, 0, 0, 1])));
        let right = header("admin", "right");
        let began = tokio::time::Instant::now();
        let elapsed = || began.elapsed().as_millis();
        assert!(!visitor.is_admitted());
        auth.admit(&visitor, Some(&right)).await.unwrap();
        assert!(visitor.is_admitted());
        for name in ["admin", "nobody"] {
            let before = elapsed();
            for _ in 0..7 {
                assert!(auth.admit(&visitor, Some(&header(name, "wrong"))).await.is_err());
            }
            assert_eq!(elapsed() - before, 500 + 1000 + 2000, "{name}");
        }
        let before = elapsed();
        auth.admit(&visitor, Some(&right)).await.unwrap();
        assert_eq!(elapsed(), before);
        assert_eq!(auth.users.load().by_name["admin"].verified.lock().unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_may_begin_with_any_number_of_requests_at_once() {
        let hashed = crypt(&pwhash::sha512_crypt::hash("pw").unwrap());
        for (password, given, right) in
            [(hashed.clone(), "pw", true), (plain("pw"), "pw", true), (hashed, "wrong", false)]
        {
            let auth = Arc::new(Authenticator::new(vec![user("admin", password)], Wording::Same));
            let all: Vec<_> = (0..200)
                .map(|_| {
                    let (auth, header) = (Arc::clone(&auth), header("admin", given));
                    let visitor = Visitor::new(Some(IpAddr::from([10, 0, 0, 1])));
                    tokio::spawn(async move { auth.admit(&visitor, Some(&header)).await })
                })
                .collect();
            for each in all {
                let reason = each.await.unwrap().err().map(|error| error.reason());
                assert_eq!(reason, (!right).then_some(Reason::Unauthenticated));
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_slow_hash_is_computed_once_for_many_and_keeps_nobody_else_waiting() {
        let slow = "$6$rounds=400000$saltsalt$x";
        let quick = user("quick", crypt(&pwhash::sha512_crypt::hash("pw").unwrap()));
        let auth = Arc::new(Authenticator::new(vec![user("slow", crypt(slow)), quick], Wording::Same));
        let slow: Vec<_> = (0..20)
            .map(|_| {
                let auth = Arc::clone(&auth);
                tokio::spawn(async move { auth.try_once("slow", "pw").await.is_ok() })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(auth.hashing.available_permits() >= HASHING - 1, "one user takes one place");
        let many: Vec<_> = (0..20)
            .map(|_| {
                let auth = Arc::clone(&auth);
                tokio::spawn(async move { auth.try_once("quick", "pw").await.is_ok() })
            })
            .collect();
        for each in many {
            assert!(each.await.unwrap());
        }
        assert!(slow.iter().any(|each| !each.is_finished()), "the quick one did not wait for all of the slow ones");
        slow.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
