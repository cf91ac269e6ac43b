//! Who may call: the users of the settings, else those of a userlist, followed when it changes.

use crate::auth::{Password, User};
use crate::configuration::address::Place;
use crate::configuration::engine::Engine;
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::settings::Settings;

/// Users of the settings, if there are any.
pub(super) fn of_settings(settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<User>> {
    let users = settings.users.iter().map(|user| {
        let text = user.password.expose();
        let password =
            if user.insecure { Password::plain(text, environment) } else { Password::crypt(text, environment) };
        Ok(User { name: user.name.as_str().into(), password: password? })
    });
    users.collect()
}

/// Users of a userlist section.
pub(super) fn of_userlist(
    engine: &Engine,
    document: &Document,
    userlist: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<User>> {
    let tables = &engine.schema().tables;
    let Some(resource) = tables.message_by_name.get("backstay.configuration.v2.User").copied() else {
        return Ok(Vec::new());
    };
    let field = |name: &str| tables.messages[resource].field_named(name).unwrap_or(usize::MAX);
    let place = Place { section: Some("userlist".into()), name: userlist.to_owned() };
    let users = engine.list(document, resource, &place)?;
    let mut out = Vec::new();
    for user in users {
        let (Some(name), Some(text)) = (user.str(field("username")), user.str(field("password"))) else { continue };
        let password = if user.flag(field("secure_password")) {
            Password::crypt(text, environment)
        } else {
            Password::plain(text, environment)
        };
        out.push(User { name: name.into(), password: password? });
    }
    Ok(out)
}

/// The error when nobody could log in.
pub(super) fn nobody(settings: &Settings) -> Error {
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
pub(super) fn explained(settings: &Settings, error: Error) -> Error {
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
