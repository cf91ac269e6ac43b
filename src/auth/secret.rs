//! Passwords that cannot slip into a log.

use std::fmt;

use crate::error::{Error, Reason, Result};

/// What a user's password is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself (`insecure-password`).
    Plain(Secret),
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
    environment(name).map(Secret::new).ok_or_else(|| {
        Error::new(Reason::InvalidValue, format!("password refers to environment variable {name}, which is not set"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quoted_form_reads_the_environment() {
        let environment = |name: &str| (name == "PW").then(|| "from outside".to_owned());
        let text = |given: &str| match Password::plain(given, environment) {
            Ok(Password::Plain(secret) | Password::Crypt(secret)) => secret.expose().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text("\"${PW}\""), "from outside");
        assert_eq!(text("${PW}"), "${PW}");
        assert_eq!(text("\"${GONE}\""), "password refers to environment variable GONE, which is not set");
    }
}
