//! How a unit of systemd is reloaded, with the rights that we have.

use std::time::Duration;

use super::presence::run;

/// How long each question about rights may take.
const QUESTION: Duration = Duration::from_secs(5);

/// What polkit calls the right to reload units.
const ACTION: &str = "org.freedesktop.systemd1.manage-units";

/// The command that reloads a unit, and what is missing for it, if anything.
///
/// As root, or where polkit allows it, systemd is asked directly; else through `sudo`, else through `doas`. None of them
/// may ask for a password.
pub async fn reload_command(unit: &str) -> (Vec<String>, Option<String>) {
    let command = |prefix: &[&str]| words(prefix, &["systemctl", "--no-ask-password", "reload", unit]);
    let direct = command(&[]);
    if rustix::process::geteuid().is_root() {
        return (direct, None);
    }
    let own = std::process::id().to_string();
    if succeeds(&words(&[], &["pkcheck", "--action-id", ACTION, "--process", &own])).await {
        return (direct, None);
    }
    let (sudo, doas) = (command(&["sudo", "-n"]), command(&["doas", "-n"]));
    if succeeds(&words(&["sudo", "-n", "-l", "--"], &["systemctl", "--no-ask-password", "reload", unit])).await {
        return (sudo, None);
    }
    let (has_sudo, has_doas) = (exists("sudo"), exists("doas"));
    let missing = match (has_sudo, has_doas) {
        // Its rules cannot be asked for without being used.
        (_, true) => return (doas, None),
        (true, false) => "polkit does not allow it, and sudo not without a password",
        (false, false) => "polkit does not allow it, and there is neither sudo nor doas",
    };
    let missing = format!("haproxy cannot be reloaded by systemctl reload {unit}: {missing}");
    (if has_sudo { sudo } else { direct }, Some(missing))
}

fn words(prefix: &[&str], command: &[&str]) -> Vec<String> {
    prefix.iter().chain(command).map(|word| (*word).to_owned()).collect()
}

async fn succeeds(command: &[String]) -> bool {
    run(command, QUESTION).await.is_ok_and(|done| done.success())
}

/// Whether a program of that name is in the path.
fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
