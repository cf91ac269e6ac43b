use proptest::prelude::*;

use super::*;

fn carry(base: &str, old: &str, new: &str) -> Option<String> {
    let read = |text: &str| Document::parse(text.as_bytes());
    carried(&read(base), &read(old), &read(new)).map(|document| String::from_utf8(document.to_bytes()).unwrap())
}

const OLD: &str = "# _version=1\nglobal\n  daemon\n\nbackend a\n  server s 1\n  server t 1\n\nbackend b\n  mode http\n";

#[test]
fn sections_that_are_added_deleted_or_moved_are_carried() {
    let base = OLD.replace("server t 1", "server t 2");
    let added = OLD.replace("\nbackend b", "\nbackend n\n\nbackend b").replace("=1", "=2");
    assert_eq!(carry(&base, OLD, &added).unwrap(), base.replace("\nbackend b", "\nbackend n\n\nbackend b"));
    let deleted = OLD.replace("\nbackend b\n  mode http\n", "");
    assert_eq!(carry(&base, OLD, &deleted).unwrap(), base.replace("\nbackend b\n  mode http\n", ""));
    let moved = "# _version=1\nglobal\n  daemon\n\nbackend b\n  mode http\n\nbackend a\n  server s 1\n  server t 1\n";
    let wanted = moved.replace("server t 1", "server t 2");
    let carried = carry(&base, OLD, moved).unwrap();
    assert_eq!(carried.split_whitespace().collect::<Vec<_>>(), wanted.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn what_does_not_stand_without_another_change_is_not_carried() {
    let with = format!("{OLD}\nbackend n\n  server x 1\n");
    assert_eq!(carry(OLD, &with, &with.replace("server x 1", "server x 1\n  server y 1")), None);
    assert_eq!(carry(OLD, &with, &with.replace("server x 1", "server x 2")), None);
    assert_eq!(carry(OLD, &with, OLD).unwrap(), OLD, "what is deleted is not there");
    let line = OLD.replace("server t 1", "server t 1 weight 3");
    assert_eq!(carry(OLD, &line, &line.replace("weight 3", "weight 4")), None);
    assert_eq!(carry(&with, OLD, &with.replace("server x 1", "server x 2")), None, "added in another form");
}

#[test]
fn lines_find_their_place_by_their_neighbours() {
    let base = OLD.replace("  server s 1\n", "");
    let more = OLD.replace("  server t 1\n", "  server t 1\n  server u 1\n");
    assert_eq!(carry(&base, OLD, &more).unwrap(), base.replace("  server t 1\n", "  server t 1\n  server u 1\n"));
    let between = OLD.replace("  server t 1\n", "  server r 1\n  server t 1\n");
    assert_eq!(carry(&base, OLD, &between).unwrap(), base.replace("  server t 1\n", "  server r 1\n  server t 1\n"));
}

/// A file of sections, each with lines of its own.
fn text(sections: &[(usize, Vec<u8>)]) -> String {
    let section = |(name, lines): &(usize, Vec<u8>)| {
        let lines: Vec<_> = lines.iter().enumerate().map(|(at, value)| format!("  server s{at} {value}\n")).collect();
        format!("backend b{name}\n{}", lines.concat())
    };
    sections.iter().map(section).collect::<Vec<_>>().join("\n")
}

/// A change of one section: its lines, its absence, or a new one behind it.
fn changed(sections: &[(usize, Vec<u8>)], at: usize, how: u8) -> Vec<(usize, Vec<u8>)> {
    let mut sections = sections.to_vec();
    match how % 4 {
        0 => sections[at].1.push(77),
        1 => sections[at].1 = sections[at].1.iter().map(|value| value.wrapping_add(100)).collect(),
        2 => drop(sections.remove(at)),
        _ => sections.insert(at + 1, (1000 + at, vec![5])),
    }
    sections
}

proptest! {
    /// Carrying a change over an unrelated one equals making both.
    #[test]
    fn carrying_over_unrelated_changes_equals_making_both(
        lines in prop::collection::vec(prop::collection::vec(0_u8..100, 1..5), 4..9),
        (one, other) in (0_usize..100, 0_usize..100),
        (how, other_how) in (0_u8..4, 0_u8..4),
    ) {
        let sections: Vec<(usize, Vec<u8>)> = lines.into_iter().enumerate().collect();
        // Apart from each other, and neither of them last, so that layout at the end of the file is the same.
        let one = one % (sections.len() - 3);
        let other = one + 2 + other % (sections.len() - 3 - one);
        let old = text(&sections);
        let first = text(&changed(&sections, one, how));
        let second = text(&changed(&sections, other, other_how));
        // The later section first: the position of the earlier one stays.
        let both = text(&changed(&changed(&sections, other, other_how), one, how));
        prop_assert_eq!(carry(&first, &old, &second), Some(both.clone()));
        prop_assert_eq!(carry(&second, &old, &first), Some(both));
        prop_assert_eq!(carry(&first, &first, &old), Some(old.clone()), "the way back");
        prop_assert_eq!(carry(&old, &second, &second), Some(old));
    }
}
