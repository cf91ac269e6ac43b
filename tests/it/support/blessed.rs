//! Texts that are made from the program and kept in the tree, so that a change of them is seen.

use std::fmt::Write as _;
use std::path::Path;

/// Lines of a difference that are shown.
const SHOWN: usize = 40;

/// Compares a file of the tree with what the program makes; with `BACKSTAY_BLESS=1` it is written instead.
#[track_caller]
pub(crate) fn file(path: &str, made: &str) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if blessing() {
        std::fs::write(&place, made).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&place).unwrap_or_default();
    same(path, &kept, made);
}

/// The same for the part of a file between the lines `<!-- NAME -->` and `<!-- /NAME -->`.
#[track_caller]
pub(crate) fn part(path: &str, name: &str, made: &str) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&place).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&open).unwrap_or_else(|| panic!("{path} has no line {open}"));
    let (kept, after) = rest.split_once(&close).unwrap_or_else(|| panic!("{path} has no line {close}"));
    if blessing() {
        std::fs::write(&place, format!("{before}{open}{made}{close}{after}")).unwrap();
        return;
    }
    same(&format!("{path}, {name}"), kept, made);
}

fn blessing() -> bool {
    std::env::var_os("BACKSTAY_BLESS").is_some_and(|value| value == "1")
}

#[track_caller]
fn same(what: &str, kept: &str, made: &str) {
    assert!(
        kept == made,
        "\n{what} is not what the program makes; if the change is wanted: BACKSTAY_BLESS=1 cargo test --test it\n{}",
        difference(kept, made)
    );
}

/// Lines that only one side has.
fn difference(kept: &str, made: &str) -> String {
    let mut out = String::new();
    let mut hidden = 0;
    let only = |one: &str, other: &str| {
        let other: std::collections::HashSet<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let gone = only(kept, made).into_iter().map(|line| ('-', line));
    let new = only(made, kept).into_iter().map(|line| ('+', line));
    for (at, (sign, line)) in gone.chain(new).enumerate() {
        if at < SHOWN {
            writeln!(out, "  {sign} {line}").unwrap();
        } else {
            hidden += 1;
        }
    }
    if hidden > 0 {
        writeln!(out, "  ... and {hidden} more").unwrap();
    }
    if out.is_empty() {
        out.push_str("  the order of lines differs\n");
    }
    out
}

#[test]
fn a_difference_shows_the_lines_that_changed() {
    assert_eq!(difference("a\nb\nc\n", "a\nB\nc\n"), "  - b\n  + B\n");
}
