//! backstay: a gRPC control plane for HAProxy.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use backstay::cli;
use backstay::settings::{self, EXIT_USAGE};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let help = !error.use_stderr();
            drop(error.print());
            return if help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    let filter = EnvFilter::try_from_env("BACKSTAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let Some(("serve", matches)) = matches.subcommand() else { return ExitCode::from(EXIT_USAGE) };
    let environment: cli::serve::Environment = Arc::new(|name| std::env::var(name).ok());
    let loaded = match settings::resolve(matches, &*environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match run(loaded.settings, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: settings::Settings, environment: cli::serve::Environment) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        cli::serve::run(settings, environment, stop).await?;
        Ok(())
    })
}
