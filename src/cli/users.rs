//! Who may call: the users of the settings, else those of a userlist, followed when it changes.

use crate::auth::{Password, User};
use crate::configuration::address::Place;
use crate::configuration::engine::Engine;
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::proto::fields::configuration::user as of_user;
use crate::proto::messages::configuration::USER;
use crate::settings::{self, Settings};

/// Who may call: the users of the YAML file as it stands, else those of the userlist in its file or in `document`.
pub(super) fn all(
    settings: &Settings,
    environment: &dyn Fn(&str) -> Option<String>,
    engine: &Engine,
    document: &Document,
) -> Result<Vec<User>> {
    let yaml = match &settings.yaml_file {
        Some(path) => settings::users_of(settings.profile, path)?,
        None => Vec::new(),
    };
    if !yaml.is_empty() {
        return of_yaml(&yaml, environment);
    }
    let found = match &settings.userlist_file {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| Error::of_file("read", path, &error))?;
            of_userlist(engine, &Document::parse(&text), &settings.userlist, environment)
        }
        None => of_userlist(engine, document, &settings.userlist, environment),
    };
    found.map_err(|error| explained(settings, error))
}

/// Fails when nobody could call.
pub(super) fn somebody(settings: &Settings, users: &[User]) -> Result<()> {
    // Nobody needs a password where every client shows a certificate.
    let certified = || settings.listeners.each.iter().all(|l| l.tls.as_ref().is_some_and(|tls| tls.ca.is_some()));
    if users.is_empty() && !certified() { Err(nobody(settings)) } else { Ok(()) }
}

/// Users of the YAML file.
fn of_yaml(users: &[settings::User], environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<User>> {
    let users = users.iter().map(|user| {
        let text = user.password.expose();
        let password =
            if user.insecure { Password::plain(text, environment) } else { Password::crypt(text, environment) };
        Ok(User { name: user.name.as_str().into(), password: password? })
    });
    users.collect()
}

/// Users of a userlist section.
fn of_userlist(
    engine: &Engine,
    document: &Document,
    userlist: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<User>> {
    let place = Place { section: Some("userlist".into()), name: userlist.to_owned() };
    let users = engine.list(document, USER, &place)?;
    let mut out = Vec::new();
    for user in users {
        let (Some(name), Some(text)) = (user.str(of_user::USERNAME), user.str(of_user::PASSWORD)) else { continue };
        let password = if user.flag(of_user::SECURE_PASSWORD) {
            Password::crypt(text, environment)
        } else {
            Password::plain(text, environment)
        };
        out.push(User { name: name.into(), password: password? });
    }
    Ok(out)
}

/// The error when nobody could log in.
fn nobody(settings: &Settings) -> Error {
    Error::new(
        Reason::InvalidValue,
        format!(
            "no user can log in: there is no user in the userlist {} of {}, and no `user` in the YAML file",
            settings.userlist,
            file(settings).display()
        ),
    )
}

/// Why there are no users, with the way out when the userlist is not there.
fn explained(settings: &Settings, error: Error) -> Error {
    if error.reason() != Reason::ParentNotFound {
        return error;
    }
    let (why, file) = (error.message(), file(settings).display());
    let words = format!("{why} in {file}: add it, with a line `user NAME password HASH`, or name another --userlist");
    Error::new(error.reason(), words)
}

fn file(settings: &Settings) -> &std::path::Path {
    settings.userlist_file.as_ref().unwrap_or(&settings.config_file)
}
