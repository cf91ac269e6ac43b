//! The command line: what each subcommand does.

pub mod serve;
