//! Passwords that cannot slip into a log.

use std::cell::RefCell;
use std::fmt;

use crate::error::{Error, Reason, Result};
use crate::schema::words::meaning;

/// What a user's password is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself (`insecure-password`).
    Plain(Secret),
    /// The same, which may also be given as the file spells it.
    Spelled(Secret, Secret),
    /// A crypt(3) string: `$1$`, `$5$`, `$6$` with or without `rounds=`, `$y$`, bcrypt, or traditional DES.
    Crypt(Secret),
}

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Password {
    /// A password in the clear. `"${NAME}"`, with the quotes, stands for the environment variable of that name.
    pub fn plain(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        resolve(text, environment).map(Password::Plain)
    }

    /// A hash as crypt(3) writes it, with the same form for an environment variable.
    pub fn crypt(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        resolve(text, environment).map(Password::Crypt)
    }

    /// The password that HAProxy reads in a raw word of a userlist, in the clear or as a hash. With `spelled` one in the clear
    /// may also be given as the word itself.
    pub fn of_word(
        word: &str,
        clear: bool,
        spelled: bool,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let missing = RefCell::new(None);
        let variable = |name: &str| {
            let value = environment(name);
            if value.is_none() {
                missing.replace(Some(name.to_owned()));
            }
            value
        };
        let meant = meaning(word, &variable).and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
        let meant = meant.ok_or_else(|| Error::new(Reason::InvalidValue, "a password is not closed or not UTF-8"))?;
        // Nobody gets in with an empty password by mistake.
        if let (true, Some(name)) = (meant.is_empty(), missing.into_inner()) {
            return Err(unset(&name));
        }
        Ok(match (clear, spelled && meant != word) {
            (true, false) => Password::Plain(Secret::new(meant)),
            (true, true) => Password::Spelled(Secret::new(meant), Secret::new(word)),
            (false, _) => Password::Crypt(Secret::new(meant)),
        })
    }

    /// Passwords that are right because they are the same.
    pub fn in_clear(&self) -> impl Iterator<Item = &Secret> {
        let (one, other) = match self {
            Password::Plain(one) => (Some(one), None),
            Password::Spelled(one, other) => (Some(one), Some(other)),
            Password::Crypt(_) => (None, None),
        };
        one.into_iter().chain(other)
    }
}

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Secret(text.into())
    }

    /// The text itself; never to be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn resolve(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Secret> {
    let Some(name) = text.strip_prefix("\"${").and_then(|rest| rest.strip_suffix("}\"")) else {
        return Ok(Secret::new(text));
    };
    environment(name).map(Secret::new).ok_or_else(|| unset(name))
}

fn unset(name: &str) -> Error {
    Error::new(Reason::InvalidValue, format!("password refers to environment variable {name}, which is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quoted_form_reads_the_environment() {
        let environment = |name: &str| (name == "PW").then(|| "from outside".to_owned());
        let text = |given: &str| match Password::plain(given, environment) {
            Ok(Password::Plain(secret) | Password::Spelled(secret, _) | Password::Crypt(secret)) => {
                secret.expose().to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(text("\"${PW}\""), "from outside");
        assert_eq!(text("${PW}"), "${PW}");
        assert_eq!(text("\"${GONE}\""), "password refers to environment variable GONE, which is not set");
    }
}
