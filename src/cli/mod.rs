//! The command line: what each subcommand does.

pub mod serve;
mod users;
mod welcome;

use clap::Command;

/// The program with all its subcommands.
pub fn command() -> Command {
    Command::new("backstay")
        .about("A gRPC control plane for HAProxy")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(crate::settings::serve_command())
}
