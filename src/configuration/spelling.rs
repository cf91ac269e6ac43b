//! Keeps the spelling of words that a change of their line does not touch.

use crate::schema::words::{is_marked, plain, split};

/// `new` with the words that the old line has too, written as they stand there: in quotes, with escapes. `read` tells
/// what a line says; it says the same afterwards, else `new` stays as it is.
pub(super) fn respelled<T: PartialEq>(old: &[&str], new: &str, read: impl Fn(&str) -> T) -> String {
    if !old.iter().any(|word| is_marked(word)) {
        return new.to_owned();
    }
    let words = split(new).words;
    let mut spelled: Vec<&str> = words.clone();
    for (from, to) in shared(old, &words) {
        spelled[to] = old[from];
    }
    let text = spelled.join(" ");
    if read(&text) == read(new) { text } else { new.to_owned() }
}

/// Positions of words that both lines have in the same order, as many as possible.
fn shared(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let same = |from: usize, to: usize| old[from] == new[to] || *plain(old[from]) == *new[to];
    // How many words the rests of both lines from here on share.
    let mut longest = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for from in (0..old.len()).rev() {
        for to in (0..new.len()).rev() {
            longest[from][to] = if same(from, to) {
                longest[from + 1][to + 1] + 1
            } else {
                longest[from + 1][to].max(longest[from][to + 1])
            };
        }
    }
    let (mut from, mut to, mut found) = (0, 0, Vec::new());
    while from < old.len() && to < new.len() {
        if same(from, to) {
            found.push((from, to));
            (from, to) = (from + 1, to + 1);
        } else if longest[from + 1][to] >= longest[from][to + 1] {
            from += 1;
        } else {
            to += 1;
        }
    }
    found
}

#[cfg(test)]
#[path = "spelling_tests.rs"]
mod tests;
