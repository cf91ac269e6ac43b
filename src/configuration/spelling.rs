//! Keeps the order of arguments and the spelling of words that a change of their line does not touch.

use crate::schema::words::{plain, split};

/// `new` as the old line is written: arguments in its order, words that both have in its quotes and escapes, and `!`
/// before its word as there. `printed` is the old line as we would write it, and `read` tells what a line says; it says
/// the same afterwards, else `new` stays as it is.
pub(super) fn respelled<T: PartialEq>(old: &[&str], printed: &str, new: &str, read: impl Fn(&str) -> T) -> String {
    let touching = old.iter().position(|word| word.len() > 1 && word.starts_with('!') && printed.contains(" ! "));
    let apart = touching.map(|at| [&old[..at], &["!", &old[at][1..]], &old[at + 1..]].concat());
    let old = apart.as_deref().unwrap_or(old);
    let wanted = read(new);
    let bases = [arranged(old, printed, new), Some(new.to_owned())];
    let texts = bases.into_iter().flatten().flat_map(|base| {
        let mut text = quoted(old, &base);
        if touching.is_some() {
            text = text.replacen(" ! ", " !", 1);
        }
        [text, base]
    });
    texts.into_iter().find(|text| read(text) == wanted).unwrap_or_else(|| new.to_owned())
}

/// The words of `new` in the order that they have in the old line. What the old line has not stands behind the word that
/// it follows in `new`. `None` when it is not known where the words of the old line stand.
fn arranged(old: &[&str], printed: &str, new: &str) -> Option<String> {
    let (printed, new) = (split(printed).words, split(new).words);
    let mut places: Vec<usize> = Vec::with_capacity(printed.len());
    for word in &printed {
        let free = |at: &usize| !places.contains(at) && old.get(*at).is_some_and(|old| same(old, word));
        let behind = places.last().map_or(0, |last| last + 1);
        // A number may be written with a unit: it stands behind its keyword.
        let other = Some(behind).filter(|at| *at < old.len() && !places.contains(at));
        places.push(Some(behind).filter(free).or_else(|| (0..old.len()).find(free)).or(other)?);
    }
    // Words of a gap take the places of those that were there.
    let mut keys: Vec<((usize, usize), &str)> = Vec::with_capacity(new.len());
    let pairs = shared(&printed, &new);
    let (mut from, mut last) = (0, (0, 0));
    let mut rest = pairs.iter().peekable();
    for (to, word) in new.iter().copied().enumerate() {
        let pair = rest.peek().copied().copied();
        let (key, word) = match pair {
            Some((place, at)) if at == to => {
                rest.next();
                from = place + 1;
                ((places[place], 0), old[places[place]])
            }
            _ if from < pair.map_or(printed.len(), |(place, _)| place) => {
                from += 1;
                ((places[from - 1], 0), word)
            }
            _ => ((last.0, last.1 + 1), word),
        };
        keys.push((key, word));
        last = key;
    }
    keys.sort_by_key(|(key, _)| *key);
    Some(keys.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" "))
}

/// `text` with the words that the old line has too, in the quotes and with the escapes that they have there.
fn quoted(old: &[&str], text: &str) -> String {
    let words = split(text).words;
    let mut spelled: Vec<&str> = words.clone();
    for (from, to) in shared(old, &words) {
        spelled[to] = old[from];
    }
    spelled.join(" ")
}

fn same(old: &str, new: &str) -> bool {
    old == new || *plain(old) == *new
}

/// Positions of words that both lines have in the same order, as many as possible.
fn shared(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let same = |from: usize, to: usize| same(old[from], new[to]);
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
