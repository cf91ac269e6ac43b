//! The tables of README.md are made from the program.

use std::fmt::Write as _;

use backstay::error::Reason;
use backstay::settings;

use crate::support::blessed;

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|")
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", cell(text)) }
}

#[test]
fn the_table_of_settings_is_the_one_of_the_program() {
    let mut made = "| flag | key of the YAML file | default | meaning |\n|---|---|---|---|\n".to_owned();
    for row in settings::table() {
        writeln!(made, "| {} | {} | {} | {} |", code(&row.flag), code(row.key), cell(row.default), cell(row.meaning))
            .unwrap();
    }
    blessed::part("README.md", "settings", &made);
}

#[test]
fn the_table_of_errors_is_the_one_of_the_program() {
    let mut made = "| reason | gRPC code | HTTP | when |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let row = reason.row();
        let code = screaming(&format!("{:?}", row.code));
        writeln!(made, "| `{}` | {code} | {} | {} |", row.name, row.status, cell(row.summary)).unwrap();
    }
    blessed::part("README.md", "errors", &made);
}

/// `NotFound` as gRPC writes it, `NOT_FOUND`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.chars().enumerate() {
        if at > 0 && letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}
