//! The command line: what each subcommand does.

mod check;
mod keys;
pub mod listen;
pub mod log;
mod owner;
mod pid_file;
mod reloading;
pub mod serve;
mod users;
pub mod watch;
mod welcome;

use std::path::PathBuf;

use clap::{Arg, Command};

/// The program with all its subcommands.
pub fn command() -> Command {
    Command::new("backstay")
        .about("A gRPC control plane for HAProxy")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(crate::settings::serve_command())
        .subcommand(watch::command())
        .subcommand(
            Command::new("migrate")
                .about("Explain how each key of a YAML file of the Data Plane API is understood")
                .arg(Arg::new("file").value_name("FILE").required(true).value_parser(clap::value_parser!(PathBuf))),
        )
}
