//! Who may call: the users of the settings, else those of a userlist, followed when it changes.

use crate::auth::{Password, User};
use crate::configuration::layout::said;
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::schema::words::meaning;
use crate::settings::{self, Profile, Settings};

/// Who may call: the users of the YAML file as it stands, else those of the userlist in its file or in `document`.
pub(super) fn all(
    settings: &Settings,
    environment: &dyn Fn(&str) -> Option<String>,
    document: &Document,
) -> Result<Vec<User>> {
    let yaml = match &settings.yaml_file {
        Some(path) => settings::users_of(settings.profile, path)?,
        None => Vec::new(),
    };
    if !yaml.is_empty() {
        return of_yaml(&yaml, environment);
    }
    let spelled = settings.profile == Profile::DropIn;
    let found = match &settings.userlist_file {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| Error::of_file("read", path, &error))?;
            of_userlist(&Document::parse(&text), &settings.userlist, environment, spelled)
        }
        None => of_userlist(document, &settings.userlist, environment, spelled),
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

/// Users of a userlist section: names and passwords are the words that HAProxy reads. With `spelled` they may also be given
/// as they are written, with quotes and escapes.
fn of_userlist(
    document: &Document,
    userlist: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    spelled: bool,
) -> Result<Vec<User>> {
    let at = document.find("userlist", userlist);
    let section = at.and_then(|at| document.section(at)).ok_or_else(|| {
        Error::new(Reason::ParentNotFound, format!("userlist {userlist} does not exist")).with("parent", userlist)
    })?;
    let mut users = Vec::new();
    for line in said(section) {
        let Some((name, keyword, word)) = login(&line.words, environment) else { continue };
        let password = Password::of_word(word, keyword == *"insecure-password", spelled, environment)?;
        let written: &str = line.words[1];
        if spelled && *name != *written {
            users.push(User { name: written.into(), password: password.clone() });
        }
        users.push(User { name: name.into(), password });
    }
    Ok(users)
}

/// The name of the user of a line, the keyword of its password and the raw word behind it.
fn login<'w>(words: &[&'w str], environment: &dyn Fn(&str) -> Option<String>) -> Option<(String, String, &'w str)> {
    let meant = |word: &str| String::from_utf8(meaning(word, environment)?.into_owned()).ok();
    (meant(words.first()?)? == "user").then_some(())?;
    let name = meant(words.get(1)?)?;
    let mut rest = words.get(2..)?.chunks(2);
    let password =
        |pair: &&[&'w str]| pair.first().and_then(|word| meant(word)).is_some_and(|word| word.ends_with("password"));
    let pair = rest.find(password)?;
    Some((name, meant(pair[0])?, pair.get(1)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn users(spelled: bool) -> Result<Vec<User>> {
        let document = Document::parse(include_bytes!("../../tests/data/configs/users.cfg"));
        let environment = |name: &str| (name == "BACKSTAY_PASSWORD").then(|| "out side".to_owned());
        of_userlist(&document, "quoted", &environment, spelled)
    }

    fn clear(word: &str) -> Password {
        Password::plain(word, |_| None).unwrap()
    }

    #[test]
    fn names_and_passwords_are_the_words_that_haproxy_reads() {
        let expected = [
            ("u1", "p#x"),
            ("u2", "p x"),
            ("u3", "x"),
            ("u 4", "\"x\""),
            ("u5", "out side-x"),
            ("u6@example.com", "xA"),
        ];
        let expected = expected.map(|(name, word)| User { name: name.into(), password: clear(word) });
        assert_eq!(users(false).unwrap(), expected);
    }

    #[test]
    fn an_absent_userlist_is_told() {
        let error = of_userlist(&Document::parse(b"global\n"), "quoted", &|_| None, false).unwrap_err();
        assert_eq!(error.reason(), Reason::ParentNotFound);
    }

    #[test]
    fn a_password_that_is_nothing_but_an_unset_variable_is_told() {
        let document = Document::parse(b"userlist l\n user u insecure-password \"${GONE}\"\n");
        let error = of_userlist(&document, "l", &|_| None, false).unwrap_err();
        assert!(error.message().contains("GONE"), "{error}");
    }

    #[test]
    fn the_spelling_of_the_file_is_taken_beside_them_where_it_is_asked_for() {
        let users = users(true).unwrap();
        let of = |name: &str| &users.iter().find(|user| &*user.name == name).unwrap().password;
        assert_eq!(of("\"u3\""), of("u3"));
        for (name, password) in [("u1", "p#x"), ("u1", "\"p#x\""), ("u2", "p x"), ("u2", "p\\ x"), ("'u 4'", "'\"x\"'")]
        {
            assert!(of(name).in_clear().any(|secret| secret.expose() == password), "{name} {password}");
        }
    }
}
