//! How candidates are checked, out of the settings.

use std::path::PathBuf;
use std::sync::Arc;

use crate::configuration::engine::Engine;
use crate::document::Document;
use crate::error::Result;
use crate::process::check::{CheckOptions, Checker};
use crate::process::confine::Strength;
use crate::process::environment::{Surroundings, Variables};
use crate::runtime::{Address, Runtime};
use crate::settings::{Profile, Settings};

/// This program, also when the file that it was started from has been replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The check, and a runtime client that knows where HAProxy listens by the file on disk; and what health says of the check.
pub(super) fn checker(settings: &Settings, engine: &Engine) -> Result<(Arc<Checker>, Runtime, Option<String>)> {
    let runtime = Runtime::new(addresses(settings, engine));
    let mut options = CheckOptions::new(&settings.haproxy_bin, &settings.state_dir, &settings.config_file);
    options.validate_cmd.clone_from(&settings.validate_cmd);
    options.confiner = Some(PathBuf::from(THIS_PROGRAM));
    if settings.profile == Profile::Own && settings.standalone.is_none() {
        let otherwise = Variables::ours().for_haproxy().named(&settings.haproxy_env);
        options.surroundings = Surroundings::asked(runtime.clone(), otherwise);
    }
    let weakness = match settings.validate_cmd {
        None => weakness(Strength::of_kernel()),
        Some(_) => None,
    };
    Ok((Arc::new(Checker::new(options)?), runtime, weakness))
}

/// Where the running HAProxy listens, as far as the file tells that it was started with.
fn addresses(settings: &Settings, engine: &Engine) -> Vec<Address> {
    let sockets = if let Some(socket) = &settings.stats_socket {
        vec![socket.clone()]
    } else {
        let text = std::fs::read(&settings.config_file).unwrap_or_default();
        engine.stats_sockets(&Document::parse(&text), &|name| std::env::var(name).ok())
    };
    sockets.iter().filter_map(|socket| socket.parse().ok()).collect()
}

/// What the log says of a kernel that cannot confine the check, and returns for health.
fn weakness(strength: Strength) -> Option<String> {
    match strength {
        Strength::Full => None,
        Strength::Partial => {
            tracing::info!("checks of the configuration are confined as far as this old kernel can");
            None
        }
        Strength::None => {
            let text = "this kernel has no Landlock: haproxy may write files and run Lua with all rights of this process \
                        while it checks a configuration";
            tracing::warn!("{text}");
            Some(text.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_check_that_is_not_confined_is_a_concern() {
        assert!(weakness(Strength::None).is_some_and(|text| text.contains("Landlock")));
        assert_eq!((weakness(Strength::Partial), weakness(Strength::Full)), (None, None));
    }
}
