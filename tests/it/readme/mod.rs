//! README.md says what is so: its tables are made from the program, and its blocks are run.

mod blocks;
mod shell;
mod tables;
mod walks;
