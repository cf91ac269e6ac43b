//! How HAProxy is reloaded: by which commands, or through its master.

use std::path::Path;

use super::{MODE, Profile, Reading, ReloadMethod};

impl Reading {
    /// How to reload, and the command that tells whether HAProxy runs.
    pub(super) fn reload(&mut self, standalone: bool, master: Option<&Path>) -> (ReloadMethod, Option<Vec<String>>) {
        let reload = self.words("haproxy.reload.reload_cmd");
        let restart = self.words("haproxy.reload.restart_cmd");
        let status = self.words("haproxy.reload.status_cmd");
        let service = self.text("haproxy.reload.service_name");
        let mode = self.switch(MODE, false);
        let strategy = self
            .get("haproxy.reload.reload_strategy", |text| {
                ["custom", "systemd", "s6"].into_iter().find(|word| *word == text)
            })
            .unwrap_or("custom");
        let unit = service.clone().unwrap_or_else(|| "haproxy.service".to_owned());
        let split = |text: String| Some(text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let (default_reload, default_restart, default_status) = match strategy {
            "systemd" => (None, None, split(format!("systemctl --quiet is-active {unit}"))),
            "s6" => {
                let folder = service.unwrap_or_else(|| "/var/run/service/haproxy".to_owned());
                (
                    split(format!("s6-svc -2 {folder}")),
                    split(format!("s6-svc -r {folder}")),
                    split(format!("s6-svstat -u {folder}")),
                )
            }
            _ => (None, None, None),
        };
        let status = status.or(default_status);
        if standalone {
            return (ReloadMethod::Supervised, status);
        }
        if self.profile == Profile::DropIn && strategy == "custom" && master.is_none() {
            // The Data Plane API insists on both, and who starts it relies on being told.
            for (missing, flag) in [(reload.is_none(), "reload-cmd"), (restart.is_none(), "restart-cmd")] {
                if missing {
                    self.problems.push(format!("--{flag}: needed for the reload strategy custom"));
                }
            }
        }
        let command = reload.or(default_reload);
        let method = match (master, command) {
            (Some(path), command) if mode || (command.is_none() && strategy != "systemd") => {
                ReloadMethod::Master(path.to_owned())
            }
            (_, Some(reload)) => ReloadMethod::Command { reload, restart: restart.or(default_restart) },
            (_, None) if strategy == "systemd" => ReloadMethod::Systemd { unit },
            (_, None) if self.profile == Profile::DropIn => ReloadMethod::Supervised,
            // Unless nothing else is wrong, see `ask_for_reload`.
            (_, None) => {
                self.reload_is_missing = true;
                ReloadMethod::Supervised
            }
        };
        (method, status)
    }

    /// Asks how to reload, unless the answer may be in what is wrong already.
    pub(super) fn ask_for_reload(&mut self) {
        if self.reload_is_missing && self.problems.is_empty() {
            let words = "nothing says how haproxy is reloaded: give --master-runtime, --reload-cmd, \
                         --reload-strategy systemd or --standalone DIR";
            self.problems.push(words.to_owned());
        }
    }
}
