//! backstay: a gRPC control plane for HAProxy.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay::cli;
use backstay::settings::{self, EXIT_USAGE, LogTarget, Profile, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let name = words.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_owned()));
    let profile = if name.is_some_and(|name| name == "dataplaneapi") { Profile::DropIn } else { Profile::Own };
    let command = match profile {
        Profile::Own => cli::command(),
        Profile::DropIn => settings::drop_in_command(),
    };
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            let help = !error.use_stderr();
            drop(error.print());
            return if help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    let matches = match (profile, matches.subcommand()) {
        (Profile::DropIn, _) => &matches,
        (Profile::Own, Some(("serve", matches))) => matches,
        (Profile::Own, Some(("migrate", matches))) => return migrate(matches.get_one::<PathBuf>("file")),
        (Profile::Own, _) => return ExitCode::from(EXIT_USAGE),
    };
    let environment: cli::serve::Environment = Arc::new(|name| std::env::var(name).ok());
    let read = || settings::resolve_as(profile, matches, &*environment);
    let loaded = match read() {
        Ok(loaded) => loaded,
        Err(error) => {
            cli::log::begin(&LogTarget::Stderr);
            tracing::error!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    cli::log::begin(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match run(loaded.settings, &environment, &read) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn migrate(file: Option<&PathBuf>) -> ExitCode {
    let Some(file) = file else { return ExitCode::from(EXIT_USAGE) };
    let mut out = std::io::stdout();
    let written = std::fs::read_to_string(file)
        .and_then(|text| settings::explain(&text).iter().try_for_each(|line| writeln!(out, "{line}")));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::log::begin(&LogTarget::Stderr);
            tracing::error!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal says stop; SIGHUP begins anew with settings read again.
fn run(
    mut settings: Settings,
    environment: &cli::serve::Environment,
    read: &dyn Fn() -> backstay::error::Result<settings::Loaded>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    loop {
        let again = Arc::new(AtomicBool::new(false));
        runtime.block_on(async {
            let stop = CancellationToken::new();
            let (asked, hung_up) = (stop.clone(), again.clone());
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            let watch = tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => hung_up.store(true, Ordering::SeqCst),
                }
                asked.cancel();
            });
            let served = cli::serve::run(settings.clone(), Arc::clone(environment), stop).await;
            watch.abort();
            served.map_err(anyhow::Error::from)
        })?;
        if !again.load(Ordering::SeqCst) {
            return Ok(());
        }
        tracing::info!("starting anew");
        match read() {
            Ok(loaded) => settings = loaded.settings,
            Err(error) => tracing::error!("the settings stay as they were: {error}"),
        }
    }
}
