//! The log: for people on standard error, or to any number of targets, each with its level, its form and its kinds of
//! lines.

mod access;
mod line;
mod output;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::callsite::rebuild_interest_cache;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, registry};

use self::access::Pattern;
use self::line::Record;
use self::output::Output;
use crate::gateway::access::ACCESS;
use crate::settings::{LogLevel, LogTarget, LogTo};

/// What is ours among the events of all libraries.
const OWN: &str = "backstay";

/// The log once it has begun.
pub struct Log {
    targets: Option<Arc<ArcSwap<Vec<Target>>>>,
}

impl Log {
    /// Begins to log, once in a process. A target that cannot be opened is told on standard error, where its lines go then.
    pub fn begin(targets: &[LogTarget]) -> Log {
        if let [LogTarget { to: LogTo::Stderr, json: false, access: None, level, .. }] = targets {
            let filter = EnvFilter::try_from_env("BACKSTAY_LOG");
            let filter = filter.unwrap_or_else(|_| EnvFilter::new(format!("{},{ACCESS}=off", filter_of(*level))));
            let builder = tracing_subscriber::fmt().with_env_filter(filter);
            // It has begun already, or it does now.
            drop(builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).try_init());
            return Log { targets: None };
        }
        let opened = Arc::new(ArcSwap::from_pointee(open(targets)));
        drop(registry().with(Fanout(opened.clone())).try_init());
        Log { targets: Some(opened) }
    }

    /// Goes on with other targets, or with the same ones opened again. Lines for people keep their form till the end.
    pub fn change(&self, targets: &[LogTarget]) {
        if let Some(current) = &self.targets {
            current.store(Arc::new(open(targets)));
            rebuild_interest_cache();
        }
    }
}

fn open(targets: &[LogTarget]) -> Vec<Target> {
    targets.iter().map(Target::open).collect()
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

struct Target {
    level: LevelFilter,
    json: bool,
    app: bool,
    access: Option<Pattern>,
    output: Output,
}

impl Target {
    fn open(target: &LogTarget) -> Target {
        Target {
            level: filter_of(target.level),
            json: target.json,
            app: target.app,
            access: target.access.as_deref().map(Pattern::parse),
            output: Output::open(&target.to),
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == ACCESS {
            // Who asks for lines of requests gets them, whatever the level for the rest.
            return self.access.is_some();
        }
        // Libraries are only heard when something is wrong.
        let heard = metadata.target().starts_with(OWN) || *metadata.level() <= Level::WARN;
        self.app && heard && *metadata.level() <= self.level
    }

    fn write(&self, metadata: &Metadata<'_>, record: &Record) {
        let text = match &self.access {
            Some(pattern) if metadata.target() == ACCESS => {
                let line = pattern.line(record);
                if self.json { record.json(*metadata.level(), &line, false) } else { line }
            }
            _ if self.json => record.json(*metadata.level(), &record.message, true),
            _ => record.text(*metadata.level()),
        };
        self.output.write(*metadata.level(), &text);
    }
}

struct Fanout(Arc<ArcSwap<Vec<Target>>>);

impl<S: Subscriber> Layer<S> for Fanout {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.load().iter().any(|target| target.wants(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = |target: &Target| target.level.max(LevelFilter::INFO);
        self.0.load().iter().map(level).max()
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = Record::of(event);
        for target in self.0.load().iter().filter(|target| target.wants(event.metadata())) {
            target.write(event.metadata(), &record);
        }
    }
}
