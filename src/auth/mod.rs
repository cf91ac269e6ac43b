//! Who may call: users with passwords, checked from an HTTP `authorization` header or gRPC metadata of that name.
//!
//! Knows no transport: it takes the bytes of the header. Slow hashes run outside the async threads, a few at a time;
//! a password that was right once is remembered as a salted digest until the users change.

mod secret;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

pub use self::secret::Password;
use crate::error::{Error, Reason, Result};

/// Verified passwords kept in memory. More than any real list of callers; beyond it the memory starts afresh.
const REMEMBERED: usize = 4096;
/// Slow hashes computed at the same time. More would let wrong passwords take every core.
const HASHING: usize = 2;

type Digest = [u8; 32];

/// A user of the API.
#[derive(Debug, Clone)]
pub struct User {
    /// Name, without `:`.
    pub name: Box<str>,
    /// What its password is compared with.
    pub password: Password,
}

/// Marks a connection whose client has shown a certificate that we trust. Such a client needs no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certified;

/// Checks credentials against the current users.
pub struct Authenticator {
    users: ArcSwap<Users>,
    /// Random per process, so that a remembered digest says nothing outside of it.
    salt: Digest,
    hashing: Arc<Semaphore>,
}

/// Users and what was verified for them; replaced together.
struct Users {
    by_name: HashMap<Box<str>, (Arc<str>, Password)>,
    verified: Mutex<HashSet<Digest>>,
}

impl Authenticator {
    /// An authenticator for these users; of two with the same name the first counts. Without users nobody gets in.
    pub fn new(users: Vec<User>) -> Self {
        Authenticator {
            users: ArcSwap::from_pointee(Users::new(users)),
            salt: rand::random(),
            hashing: Arc::new(Semaphore::new(HASHING)),
        }
    }

    /// Takes over other users. What was verified before is forgotten.
    pub fn replace(&self, users: Vec<User>) {
        self.users.store(Arc::new(Users::new(users)));
    }

    /// Number of users that can get in.
    pub fn len(&self) -> usize {
        self.users.load().by_name.len()
    }

    /// True when nobody can get in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets in who has a certificate, or else the right `authorization` header; fails with `UNAUTHENTICATED`.
    pub async fn admit(&self, certified: Option<&Certified>, authorization: Option<&[u8]>) -> Result<()> {
        match certified {
            Some(Certified) => Ok(()),
            None => self.verify(authorization).await.map(drop),
        }
    }

    /// Checks the value of an `authorization` header and returns the user's name, or fails with `UNAUTHENTICATED`.
    pub async fn verify(&self, authorization: Option<&[u8]>) -> Result<Arc<str>> {
        let (name, given) =
            authorization.and_then(basic).ok_or_else(|| denied("unauthenticated for invalid credentials"))?;
        let users = self.users.load_full();
        let Some((user, password)) = users.by_name.get(name.as_str()) else {
            return Err(denied("no configured users"));
        };
        let digest = self.digest(&name, given.as_bytes());
        if users.remembers(&digest) {
            return Ok(user.clone());
        }
        let right = match password {
            Password::Plain(expected) => same(&digest, &self.digest(&name, expected.expose().as_bytes())),
            Password::Crypt(hash) => self.hash(given, hash.expose().into()).await?,
        };
        if !right {
            return Err(denied("invalid password"));
        }
        users.remember(digest);
        Ok(user.clone())
    }

    /// Compares with a crypt(3) string on a thread that may block.
    async fn hash(&self, given: String, hash: Box<str>) -> Result<bool> {
        let permit = self.hashing.clone().acquire_owned().await.map_err(Error::internal)?;
        let verify = move || {
            let right = pwhash::unix::verify(given, &hash);
            drop(permit);
            right
        };
        tokio::task::spawn_blocking(verify).await.map_err(Error::internal)
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
    fn new(list: Vec<User>) -> Self {
        let mut by_name = HashMap::with_capacity(list.len());
        for user in list {
            by_name.entry(user.name.clone()).or_insert_with(|| (Arc::from(&*user.name), user.password));
        }
        Users { by_name, verified: Mutex::new(HashSet::new()) }
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

/// The name of who has been admitted with these; `None` for a certificate.
pub fn caller(certified: Option<&Certified>, authorization: Option<&impl AsRef<[u8]>>) -> Option<Box<str>> {
    match certified {
        Some(Certified) => None,
        None => basic(authorization?.as_ref()).map(|(name, _)| name.into()),
    }
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

    #[tokio::test]
    async fn passwords_of_each_kind_are_verified() {
        let crypt = |hash: &str| Password::crypt(hash, none).unwrap();
        let auth = Authenticator::new(vec![
            user("plain", Password::plain("s:e cret", none).unwrap()),
            user("md5", crypt("$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.")),
            user("sha256", crypt("$5$rounds=1000$saltsalt$eNI.02a9Kos9UxzxjTLpNZ6kYHkRe9Z8OsGkDDoW/X2")),
            user("sha512", crypt(&pwhash::sha512_crypt::hash("pw").unwrap())),
            user("des", crypt("abzlUXK5ed5rs")),
            user("broken", crypt("$9$nothing")),
            user("plain", Password::plain("second entry", none).unwrap()),
        ]);
        assert_eq!(&*auth.verify(Some(&header("plain", "s:e cret"))).await.unwrap(), "plain");
        for name in ["md5", "sha256", "sha512", "des"] {
            assert!(auth.verify(Some(&header(name, "pw"))).await.is_ok(), "{name}");
            assert!(auth.verify(Some(&header(name, "pw"))).await.is_ok(), "{name} from memory");
            assert!(auth.verify(Some(&header(name, "pw "))).await.is_err(), "{name}");
        }
        for (name, password) in [("broken", "$9$nothing"), ("plain", "second entry"), ("plain", ""), ("PLAIN", "x")] {
            assert!(auth.verify(Some(&header(name, password))).await.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn refusals_say_what_is_wrong_but_never_the_password() {
        let auth = Authenticator::new(vec![user("admin", Password::plain("right", none).unwrap())]);
        let text = async |header: Option<&[u8]>| auth.verify(header).await.unwrap_err().to_string();
        assert_eq!(text(None).await, "unauthenticated for invalid credentials");
        assert_eq!(text(Some(b"Bearer abc")).await, "unauthenticated for invalid credentials");
        assert_eq!(text(Some(b"Basic ???")).await, "unauthenticated for invalid credentials");
        assert_eq!(text(Some(&header("nobody", "x"))).await, "no configured users");
        assert_eq!(text(Some(&header("admin", "hunter2"))).await, "invalid password");
        assert!(!format!("{auth:?} {:?}", user("u", Password::plain("right", none).unwrap())).contains("right"));
    }

    #[tokio::test]
    async fn what_was_verified_is_forgotten_when_the_users_change() {
        let first = Password::crypt(&pwhash::sha512_crypt::hash("one").unwrap(), none).unwrap();
        let auth = Authenticator::new(vec![user("admin", first)]);
        assert!(auth.verify(Some(&header("admin", "one"))).await.is_ok());
        let second = Password::crypt(&pwhash::sha512_crypt::hash("two").unwrap(), none).unwrap();
        auth.replace(vec![user("admin", second)]);
        assert!(auth.verify(Some(&header("admin", "one"))).await.is_err());
        assert!(auth.verify(Some(&header("admin", "two"))).await.is_ok());
    }

    #[tokio::test]
    async fn memory_of_verified_passwords_is_bounded_and_ignores_failures() {
        let auth = Authenticator::new(vec![user("admin", Password::plain("right", none).unwrap())]);
        for number in 0..50 {
            assert!(auth.verify(Some(&header("admin", &number.to_string()))).await.is_err());
        }
        let users = auth.users.load_full();
        assert_eq!(users.verified.lock().unwrap().len(), 0);
        for number in 0..=REMEMBERED as u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            users.remember(digest);
        }
        assert!(users.verified.lock().unwrap().len() <= REMEMBERED);
    }
}
