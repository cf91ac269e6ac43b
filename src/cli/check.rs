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

/// The check, and a runtime client that knows where HAProxy listens by the file on disk.
pub(super) fn checker(settings: &Settings, engine: &Engine) -> Result<(Arc<Checker>, Runtime)> {
    let runtime = Runtime::new(addresses(settings, engine));
    let mut options = CheckOptions::new(&settings.haproxy_bin, &settings.state_dir, &settings.config_file);
    options.validate_cmd.clone_from(&settings.validate_cmd);
    options.confiner = Some(PathBuf::from(THIS_PROGRAM));
    if settings.profile == Profile::Own && settings.standalone.is_none() {
        let otherwise = Variables::ours().for_haproxy().named(&settings.haproxy_env);
        options.surroundings = Surroundings::asked(runtime.clone(), otherwise);
    }
    if settings.validate_cmd.is_none() {
        tell(Strength::of_kernel());
    }
    Ok((Arc::new(Checker::new(options)?), runtime))
}

/// Where the running HAProxy listens, as far as the file tells that it was started with.
fn addresses(settings: &Settings, engine: &Engine) -> Vec<Address> {
    let sockets = if let Some(socket) = &settings.stats_socket {
        vec![socket.clone()]
    } else {
        let text = std::fs::read(&settings.config_file).unwrap_or_default();
        engine.stats_sockets(&Document::parse(&text))
    };
    sockets.iter().filter_map(|socket| socket.parse().ok()).collect()
}

fn tell(strength: Strength) {
    match strength {
        Strength::Full => {}
        Strength::Partial => tracing::info!("checks of the configuration are confined as far as this old kernel can"),
        Strength::None => tracing::warn!(
            "this kernel has no Landlock: haproxy may write files and run Lua with all rights of this process while it \
             checks a configuration"
        ),
    }
}
