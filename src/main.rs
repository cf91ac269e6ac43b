//! backstay: a gRPC control plane for HAProxy.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use backstay::cli::{self, log::Log};
use backstay::process::confine::{CONFINED, become_check};
use backstay::settings::{self, EXIT_USAGE, Loaded, LogTarget, Profile};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == CONFINED) {
        return become_check(words.into_iter().skip(2));
    }
    let name = words.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_owned()));
    let profile = if name.is_some_and(|name| name == "dataplaneapi") { Profile::DropIn } else { Profile::Own };
    // The Data Plane API has one code for everything that keeps it from starting.
    let bad_setting = if profile == Profile::DropIn { 1 } else { EXIT_USAGE };
    let command = match profile {
        Profile::Own => cli::command(),
        Profile::DropIn => settings::drop_in_command(),
    };
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            let help = !error.use_stderr();
            drop(error.print());
            return if help { ExitCode::SUCCESS } else { ExitCode::from(bad_setting) };
        }
    };
    let matches = match (profile, matches.subcommand()) {
        (Profile::DropIn, _) => &matches,
        (Profile::Own, Some(("serve", matches))) => matches,
        (Profile::Own, Some(("watch", matches))) => return watch(matches),
        (Profile::Own, Some(("migrate", matches))) => return migrate(matches.get_one::<PathBuf>("file")),
        (Profile::Own, _) => return ExitCode::from(EXIT_USAGE),
    };
    let environment: cli::serve::Environment = Arc::new(|name| std::env::var(name).ok());
    let read: Read = {
        let (matches, environment) = (matches.clone(), Arc::clone(&environment));
        Arc::new(move || settings::resolve_as(profile, &matches, &*environment))
    };
    let loaded = match read() {
        Ok(loaded) => loaded,
        Err(error) => {
            Log::begin(&[LogTarget::stderr()]);
            tracing::error!("{error}");
            return ExitCode::from(bad_setting);
        }
    };
    let log = Log::begin(&loaded.settings.log);
    match run(loaded, &environment, &read, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the settings once more.
type Read = Arc<dyn Fn() -> backstay::error::Result<Loaded> + Send + Sync>;

/// Follows a stick table until it is interrupted.
fn watch(matches: &clap::ArgMatches) -> ExitCode {
    Log::begin(&[LogTarget::stderr()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let followed = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                followed = cli::watch::watch(matches) => followed,
                interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
            }
        }),
        Err(error) => Err(error.into()),
    };
    match followed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "backstay: {error:#}"));
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
            Log::begin(&[LogTarget::stderr()]);
            tracing::error!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal says stop; SIGHUP begins anew with settings and certificates read again.
fn run(mut loaded: Loaded, environment: &cli::serve::Environment, read: &Read, log: &Log) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut lasting = cli::serve::Lasting::default();
    loop {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let next = runtime.block_on(async {
            let stop = CancellationToken::new();
            let until = tokio::spawn(until_signal(Signals::new()?, Arc::clone(read), stop.clone()));
            let served = cli::serve::run(loaded.settings, Arc::clone(environment), &mut lasting, stop).await;
            if let Err(error) = served {
                until.abort();
                return Err(anyhow::Error::from(error));
            }
            Ok(until.await?)
        })?;
        match next {
            Some(next) => loaded = *next,
            None => return Ok(()),
        }
        log.change(&loaded.settings.log);
        tracing::info!("starting anew");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        // What `serve` listens to later must not end the process before.
        drop((signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?));
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Cancels `stop` at a signal. Returns the settings to begin anew with, if it was SIGHUP and they are in order; with a
/// fault in them, or in a file for TLS, everything goes on as it is.
async fn until_signal(mut signals: Signals, read: Read, stop: CancellationToken) -> Option<Box<Loaded>> {
    let next = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break None,
            _ = signals.interrupt.recv() => break None,
            _ = signals.hang_up.recv() => {}
        }
        let loaded = read().and_then(|loaded| {
            cli::listen::identities(&loaded.settings.listeners)?;
            Ok(loaded)
        });
        match loaded {
            Ok(loaded) => break Some(Box::new(loaded)),
            Err(error) => tracing::error!("the settings stay as they were: {error}"),
        }
    };
    stop.cancel();
    next
}
