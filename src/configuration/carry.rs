//! Makes a change again in another state of the file. Pure.
//!
//! Sections are paired by kind and name, lines by what they say. What both states have in common says where a change
//! belongs; what cannot be placed for sure is not carried.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::document::{Document, Section};
use crate::schema::odd;

/// Cells of the table by which lines are compared at most; above it all between the first and the last difference counts
/// as one change.
const CELLS: usize = 4_000_000;

/// Kind, name, and how many of the same stand before it.
type Key<'a> = (&'a str, &'a str, usize);

/// Makes the change from `old` to `new` in `base`: changed lines, sections that are added, deleted or moved, and what
/// stands before the first section. `None` when it does not fit there.
pub(super) fn carried(base: &Document, old: &Document, new: &Document) -> Option<Document> {
    let alike = old.sections().len() == new.sections().len()
        && old.sections().iter().zip(new.sections()).all(|(a, b)| a.kind() == b.kind() && a.name() == b.name());
    if alike && said(old.preamble()) == said(new.preamble()) { in_place(base, old, new) } else { anew(base, old, new) }
}

/// Only lines inside of sections differ: the cost follows what changed.
fn in_place(base: &Document, old: &Document, new: &Document) -> Option<Document> {
    let mut result = base.clone();
    for (at, (before, after)) in old.sections().iter().zip(new.sections()).enumerate() {
        if Arc::ptr_eq(before, after) || before == after {
            continue;
        }
        let nth = old.find_all(before.kind(), before.name()).iter().position(|other| *other == at)?;
        let Some(place) = result.find_all(before.kind(), before.name()).get(nth).copied() else {
            if says_the_same(before, after) {
                continue;
            }
            return None;
        };
        let text = merged(result.section(place)?.text(), before.text(), after.text())?;
        let section = Section::from_text(text, result.style()).ok()?;
        result = result.with_section(place, section);
    }
    Some(result)
}

fn anew(base: &Document, old: &Document, new: &Document) -> Option<Document> {
    let preamble = merged(base.preamble(), &said(old.preamble()).concat(), &said(new.preamble()).concat())?;
    let (olds, news) = (keyed(old), keyed(new));
    let old_texts: HashMap<Key<'_>, &Arc<Section>> = olds.iter().copied().zip(old.sections()).collect();
    let new_places: HashMap<Key<'_>, usize> = news.iter().enumerate().map(|(at, key)| (*key, at)).collect();
    let kept: Vec<usize> = olds.iter().filter_map(|key| new_places.get(key).copied()).collect();
    let steady: Vec<usize> = ascending(&kept);
    let mut result: Vec<(Key<'_>, Vec<u8>)> =
        keyed(base).into_iter().zip(base.sections()).map(|(key, section)| (key, section.text().to_vec())).collect();
    let gone = |key: &Key<'_>| old_texts.contains_key(key) && !new_places.contains_key(key);
    result.retain(|(key, _)| !gone(key));
    for (at, key) in news.iter().enumerate() {
        let section = new.section(at)?;
        let place = result.iter().position(|(other, _)| other == key);
        let (text, place) = match (old_texts.get(key), place) {
            // Added: it must not be there in another form.
            (None, None) => (section.text().to_vec(), None),
            (None, Some(place)) => {
                (result[place].1 == section.text()).then_some(())?;
                continue;
            }
            (Some(before), Some(place)) => (merged(&result[place].1, before.text(), section.text())?, Some(place)),
            (Some(before), None) if says_the_same(before, section) => continue,
            (Some(_), None) => return None,
        };
        if let Some(place) = place {
            if steady.binary_search(&at).is_ok() {
                result[place].1 = text;
                continue;
            }
            result.remove(place);
        }
        // Behind the next one above it that is there, else before the next one below it.
        let position = |key: &Key<'_>| result.iter().position(|(other, _)| other == key);
        let above = news[..at].iter().rev().find_map(position).map(|place| place + 1);
        let below = || news[at + 1..].iter().find_map(position);
        let place = above.or_else(below).unwrap_or(result.len());
        result.insert(place, (*key, text));
    }
    let mut bytes = preamble;
    for (_, text) in &result {
        complete(&mut bytes);
        bytes.extend_from_slice(text);
    }
    Some(Document::parse(&odd::release(&bytes)))
}

fn keyed(document: &Document) -> Vec<Key<'_>> {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let mut keys = Vec::with_capacity(document.sections().len());
    for section in document.sections() {
        let count = seen.entry((section.kind(), section.name())).or_default();
        keys.push((section.kind(), section.name(), *count));
        *count += 1;
    }
    keys
}

/// The members of a longest ascending run of different numbers, ascending.
fn ascending(numbers: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|length| ends[length]));
        if length == ends.len() { ends.push(at) } else { ends[length] = at }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        run.push(numbers[at]);
        next = before[at];
    }
    run.reverse();
    run
}

/// Makes the change from `old` to `new` in the lines of `base`.
fn merged(base: &[u8], old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let (base, old, new) = (lines(base), lines(old), lines(new));
    let found = matches(&old, &base);
    let mut edits: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for (gone, come) in hunks(&old, &new) {
        let blank = || old[gone.clone()].iter().chain(&new[come.clone()]).all(|line| line.trim_ascii().is_empty());
        match place(&found, &gone, base.len()) {
            Some(place) => edits.push((place, come)),
            // Layout follows sections that are not there.
            None if blank() => {}
            // What it deletes is not there either.
            None if come.is_empty() && gap(&found, &gone, base.len()).is_empty() => {}
            None => return None,
        }
    }
    let mut text = Vec::new();
    let mut at = 0;
    for (place, come) in edits {
        let kept = base.get(at..place.start)?;
        for line in kept.iter().chain(&new[come]) {
            complete(&mut text);
            text.extend_from_slice(line);
        }
        at = place.end;
    }
    for line in base.get(at..)? {
        complete(&mut text);
        text.extend_from_slice(line);
    }
    Some(text)
}

/// Where the lines `gone` stand in the other text, all of them and together; for none, the place between their
/// neighbours.
fn place(found: &[Option<usize>], gone: &Range<usize>, length: usize) -> Option<Range<usize>> {
    if gone.is_empty() {
        let above = gone.start.checked_sub(1).and_then(|at| found[at]).map(|at| at + 1);
        let below = || found.get(gone.start).copied().flatten();
        let at = above.or_else(below).unwrap_or_else(|| gap(found, gone, length).start);
        return Some(at..at);
    }
    let first = found[gone.start]?;
    let together = gone.clone().enumerate().all(|(nth, at)| found[at] == Some(first + nth));
    together.then(|| first..first + gone.len())
}

/// What the other text has between the neighbours of some lines.
fn gap(found: &[Option<usize>], gone: &Range<usize>, length: usize) -> Range<usize> {
    let above = found[..gone.start].iter().rev().find_map(|at| *at).map_or(0, |at| at + 1);
    let below = found[gone.end..].iter().find_map(|at| *at).unwrap_or(length);
    above..below.max(above)
}

/// The ranges of lines that differ, of the one and the other text.
fn hunks(old: &[&[u8]], new: &[&[u8]]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut hunks = Vec::new();
    let (mut i, mut j) = (0, 0);
    let pairs = matches(old, new).into_iter().enumerate().filter_map(|(a, b)| Some((a, b?)));
    for (a, b) in pairs.chain([(old.len(), new.len())]) {
        if a > i || b > j {
            hunks.push((i..a, j..b));
        }
        (i, j) = (a + 1, b + 1);
    }
    hunks
}

/// For each line of `a` the line of `b` that is the same one: a longest common subsequence.
fn matches(a: &[&[u8]], b: &[&[u8]]) -> Vec<Option<usize>> {
    let same = |x: &[u8], y: &[u8]| ending_off(x) == ending_off(y);
    let head = a.iter().zip(b).take_while(|(x, y)| same(x, y)).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| same(x, y)).count();
    let (rows, columns) = (a.len() - head - tail, b.len() - head - tail);
    let mut found = vec![None; a.len()];
    (0..head).for_each(|at| found[at] = Some(at));
    (0..tail).for_each(|at| found[a.len() - 1 - at] = Some(b.len() - 1 - at));
    if rows.saturating_mul(columns) > CELLS {
        return found;
    }
    // `longest[i][j]`: how many lines the rests behind i and j have in common.
    let width = columns + 1;
    let mut longest = vec![0_u32; (rows + 1) * width];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            longest[i * width + j] = if same(a[head + i], b[head + j]) {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < rows && j < columns {
        if same(a[head + i], b[head + j]) {
            found[head + i] = Some(head + j);
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn ending_off(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Gives the last line an ending, before another one follows.
fn complete(text: &mut Vec<u8>) {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
}

/// The lines before the first section without those that every write renews.
fn said(preamble: &[u8]) -> Vec<&[u8]> {
    let renewed = |line: &&[u8]| {
        let key = line.trim_ascii().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
        key.is_some_and(|key| key.starts_with(b"_version=") || key.starts_with(b"_md5hash="))
    };
    lines(preamble).into_iter().filter(|line| !renewed(line)).collect()
}

/// Whether two texts of a section differ in blank lines only.
fn says_the_same(before: &Section, after: &Section) -> bool {
    let lines = |section: &Section| -> Vec<Vec<u8>> {
        let all = lines(section.text()).into_iter().map(|line| ending_off(line).to_vec());
        all.filter(|line| !line.trim_ascii().is_empty()).collect()
    };
    lines(before) == lines(after)
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
