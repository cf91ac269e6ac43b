//! What HAProxy's messages mean: the severity in front of an answer decides whether it is an error.

use crate::error::{Error, Reason, Result};

/// Reads a whole answer: an error becomes an [`Error`], a note loses its severity.
///
/// `command` is shown in the detail of errors.
pub(super) fn check(answer: &[u8], command: &str) -> Result<String> {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim_matches('\n');
    let (severity, message) = severity(text).unwrap_or((6, text));
    if is_error(severity, message) {
        return Err(refused(severity, message, command));
    }
    Ok(message.to_owned())
}

/// The error in the first line of an answer that is read in pieces, if it is one.
pub(super) fn check_first_line(line: &[u8], command: &str) -> Result<()> {
    let text = String::from_utf8_lossy(line);
    let (severity, message) = severity(text.trim_end()).unwrap_or((6, text.trim_end()));
    if is_error(severity, message) { Err(refused(severity, message, command)) } else { Ok(()) }
}

/// Splits `[3]: text`.
fn severity(text: &str) -> Option<(u8, &str)> {
    let rest = text.strip_prefix('[')?;
    let (number, message) = rest.split_once("]: ")?;
    (number.len() == 1).then(|| number.parse().ok().map(|severity| (severity, message)))?
}

fn is_error(severity: u8, message: &str) -> bool {
    // HAProxy says these two at "info" or without a severity.
    severity <= 3 || message.starts_with("Unknown command") || message.contains("too big for the buffer size")
}

fn refused(severity: u8, message: &str, command: &str) -> Error {
    let first = message.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let lower = first.to_ascii_lowercase();
    let reason = if lower.contains("too big for the buffer size") {
        Reason::InvalidValue
    } else if lower.contains("not found")
        || lower.starts_with("no such")
        || lower.starts_with("can't find")
        || (lower.starts_with("unknown") && lower.contains("identifier"))
    {
        Reason::ObjectNotFound
    } else if lower.contains("already exists") || lower.contains("name is already used") {
        Reason::ObjectExists
    } else {
        Reason::RuntimeRejected
    };
    // Arguments may be as long as a command; the start is enough to recognise it.
    let shown: String = command.chars().take(200).collect();
    let whole: String = message.chars().take(4096).collect();
    Error::new(reason, format!("haproxy refused the runtime command: {}", lower_first(first)))
        .detail(format!("[{severity}] {} [{shown}]", whole.trim_end()))
}

fn lower_first(text: &str) -> String {
    // Words such as "ACL" or "IP" stay as they are.
    let second_is_lower = text.chars().nth(1).is_none_or(|second| !second.is_uppercase());
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxys_messages_become_reasons() {
        for (answer, reason) in [
            ("[3]: Key not found.\n", Reason::ObjectNotFound),
            ("[3]: entry not found.\n", Reason::ObjectNotFound),
            ("[3]: No such table\n", Reason::ObjectNotFound),
            ("[3]: No such server.", Reason::ObjectNotFound),
            ("[3]: Can't find backend.\n", Reason::ObjectNotFound),
            ("[3]: Unknown map identifier. Please use #<id> or <file>.\n", Reason::ObjectNotFound),
            ("[3]: Unknown ACL identifier. Please use #<id> or <file>.\n", Reason::ObjectNotFound),
            ("[3]: Already exists a server with the same name in backend.\n", Reason::ObjectExists),
            (
                "[3]: Error during backend creation : name is already used by other proxy 'backend b'.",
                Reason::ObjectExists,
            ),
            ("[3]: No such backend.", Reason::ObjectNotFound),
            ("[3]: Cannot find default proxy 'd'.", Reason::RuntimeRejected),
            ("[3]: Unknown data type\n", Reason::RuntimeRejected),
            ("[3]: Permission denied\n", Reason::RuntimeRejected),
            ("[6]: Unknown command, but maybe one of\n  x : y\n", Reason::RuntimeRejected),
            ("The command is too big for the buffer size. Please change tune.bufsize\n", Reason::InvalidValue),
        ] {
            let error = check(answer.as_bytes(), "get map x y").unwrap_err();
            assert_eq!(error.reason(), reason, "{answer}");
        }
    }

    #[test]
    fn the_detail_is_haproxys_message_with_severity_and_command() {
        let error = check(b"[3]: Key not found.\n\n", "del map /m k").unwrap_err();
        assert_eq!(error.message(), "haproxy refused the runtime command: key not found");
        assert_eq!(error.detail_text(), Some("[3] Key not found. [del map /m k]"));
    }

    #[test]
    fn notes_and_plain_answers_are_no_errors() {
        assert_eq!(check(b"\n", "x").unwrap(), "");
        assert_eq!(check(b"[6]: New version created: 1\n\n", "x").unwrap(), "New version created: 1");
        assert_eq!(check(b"[4]: IP changed from 'a'\n", "x").unwrap(), "IP changed from 'a'");
        assert_eq!(check(b"# table: a\n0x1: key=[3]: x\n", "x").unwrap(), "# table: a\n0x1: key=[3]: x");
        assert!(check_first_line(b"0x1 key not found", "x").is_ok());
        assert!(check_first_line(b"[3]: No such table\n", "x").is_err());
    }
}
