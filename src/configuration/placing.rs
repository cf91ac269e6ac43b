//! Where a new section goes.
//!
//! HAProxy gives a proxy the settings of the `defaults` section that its header names, else of the nearest one above it.
//! So a new `defaults` section must not come between a proxy and the settings that it has today, nor between proxies that
//! are made later and the settings that they would have had.

use std::sync::Arc;

use crate::document::{Document, Section};
use crate::schema::words;

/// Kinds of sections that take settings from `defaults`.
const PROXIES: [&str; 3] = ["frontend", "backend", "listen"];

/// Position of a new section. `base` is the `defaults` section that it names after `from`.
pub(super) fn place_for_new(document: &Document, kind: &str, name: &str, base: Option<&str>) -> usize {
    let behind_base = base.and_then(|base| document.find("defaults", base)).map_or(0, |at| at + 1);
    let behind_base = base.map(|_| behind_base);
    match kind {
        "defaults" if name.is_empty() => place_of_unnamed_defaults(document),
        "defaults" => place_of_named_defaults(document, behind_base),
        _ if PROXIES.contains(&kind) => place_of_proxy(document, kind, behind_base),
        _ => document.place_for_new(kind),
    }
}

/// Of a proxy: behind the last of its kind. One that names its settings stands behind them at any rate; one that names
/// none stands above those `defaults` at the end that are there to be named only.
fn place_of_proxy(document: &Document, kind: &str, behind_base: Option<usize>) -> usize {
    let count = document.sections().len();
    let outside = |at: &usize| document.is_outside(*at);
    let place = document.place_for_new(kind);
    let found = match behind_base {
        Some(least) if place < least => (least..=count).find(outside),
        None => Some(above_unused(document.sections()))
            .filter(|most| place > *most)
            .and_then(|most| (0..=most).rev().find(outside)),
        Some(_) => None,
    };
    found.unwrap_or(place)
}

/// Of `defaults` with a name: behind those that they name, where no proxy follows them instead of others, now or later,
/// and above the last `defaults` of the file, which stay the last; where there is no such place, at the end.
fn place_of_named_defaults(document: &Document, behind_base: Option<usize>) -> usize {
    let (sections, least) = (document.sections(), behind_base.unwrap_or(0));
    let outside = |at: &usize| document.is_outside(*at);
    let above_last = sections.iter().rposition(|section| section.kind() == "defaults").and_then(|last| {
        let fits = |at: &usize| {
            outside(at) && takes_nobody(&sections[*at..]) && takes_nobody_later(document, *at, behind_base.is_some())
        };
        // Rather high, so that most proxies can name it.
        let first = first_of_proxies(sections).unwrap_or(last);
        let run = sections[first..].iter().take_while(|section| section.kind() == "defaults").count();
        let high = (first + run).max(least).min(last);
        (least..=high).rev().find(fits).or_else(|| (high.max(least)..=last).find(fits))
    });
    above_last.or_else(|| (least..=sections.len()).rev().find(outside)).unwrap_or(sections.len())
}

/// Of `defaults` without a name, which are only made when there are none: above all proxies, for which they are meant.
fn place_of_unnamed_defaults(document: &Document) -> usize {
    let Some(first) = first_of_proxies(document.sections()) else { return document.place_for_new("defaults") };
    let outside = |at: &usize| document.is_outside(*at);
    (0..=first).rev().find(outside).or_else(|| (first..=document.sections().len()).find(outside)).unwrap_or(first)
}

/// Position of the first section that has, or gives, settings of proxies.
fn first_of_proxies(sections: &[Arc<Section>]) -> Option<usize> {
    sections.iter().position(|section| is_proxy(section) || section.kind() == "defaults")
}

/// True when no proxy would follow a `defaults` section in front of these sections.
fn takes_nobody(behind: &[Arc<Section>]) -> bool {
    let reach = behind.iter().take_while(|section| section.kind() != "defaults");
    reach.filter(|section| is_proxy(section)).all(|section| names_defaults(section))
}

/// True when no proxy that is made later, and names no `defaults`, would follow those that come to stand at `at`.
fn takes_nobody_later(document: &Document, at: usize, names_others: bool) -> bool {
    let header = if names_others { "defaults new from other" } else { "defaults new" };
    let Ok(new) = Section::new(header, document.style()) else { return true };
    let mut with = document.clone();
    with.insert_section(at, new);
    let nearest = |place: usize| with.sections()[..place].iter().rposition(|section| section.kind() == "defaults");
    PROXIES.iter().all(|kind| nearest(place_of_proxy(&with, kind, None)) != Some(at))
}

/// Where a proxy goes at the latest that names no `defaults`: above those at the end that are there to be named only,
/// since they take their settings from another one, or since no other `defaults` stands above the proxies that name none.
fn above_unused(sections: &[Arc<Section>]) -> usize {
    let Some(last) = sections.iter().rposition(|section| section.kind() == "defaults") else { return sections.len() };
    let (above, section) = (&sections[..last], &sections[last]);
    let alone = || {
        above.iter().all(|other| other.kind() != "defaults")
            && above.iter().any(|other| is_proxy(other) && !names_defaults(other))
    };
    let unused = !section.name().is_empty() && takes_nobody(&sections[last + 1..]);
    if unused && (names_defaults(section) || alone()) { above_unused(above) } else { sections.len() }
}

fn names_defaults(section: &Section) -> bool {
    let reads_from = |word: &&str| words::meaning(word, &|_| None).is_some_and(|meaning| *meaning == *b"from");
    section.header_words().get(2).is_some_and(reads_from)
}

fn is_proxy(section: &Section) -> bool {
    PROXIES.contains(&section.kind())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sections with a new named one among them.
    fn placed(text: &str, base: Option<&str>) -> String {
        let document = Document::parse(text.as_bytes());
        let at = place_for_new(&document, "defaults", "new", base);
        let mut names: Vec<String> =
            document.sections().iter().map(|section| section.header_words().join(" ")).collect();
        names.insert(at, "new".to_owned());
        names.join(", ")
    }

    #[test]
    fn named_defaults_take_no_proxy_away_from_others() {
        for (text, base, expected) in [
            ("global\n", None, "global, new"),
            ("global\ndefaults\nfrontend f\n", None, "global, new, defaults, frontend f"),
            (
                "defaults a\ndefaults b\ndefaults\nfrontend f\n",
                None,
                "defaults a, defaults b, new, defaults, frontend f",
            ),
            ("defaults a\nfrontend f from a\n", None, "new, defaults a, frontend f from a"),
            ("defaults a\nfrontend f from a\n", Some("a"), "defaults a, frontend f from a, new"),
            ("global\ndefaults\n", None, "global, new, defaults"),
            (
                "defaults a\ndefaults b from a\nfrontend f\n",
                Some("a"),
                "defaults a, new, defaults b from a, frontend f",
            ),
            (
                "defaults a\nfrontend f\ndefaults b\nbackend g\n",
                None,
                "new, defaults a, frontend f, defaults b, backend g",
            ),
            (
                "defaults a\nfrontend f\ndefaults b\nbackend g\n",
                Some("a"),
                "defaults a, frontend f, new, defaults b, backend g",
            ),
            ("defaults a\nfrontend f\ncache c\n", Some("a"), "defaults a, frontend f, cache c, new"),
            ("frontend f\nbackend g\n", None, "frontend f, backend g, new"),
            (".if defined(X)\ndefaults a\n.endif\nlisten f\n", None, "defaults a, listen f, new"),
        ] {
            assert_eq!(placed(text, base), expected, "{text:?} {base:?}");
        }
    }

    #[test]
    fn proxies_that_name_no_defaults_do_not_follow_those_that_are_there_to_be_named() {
        for (text, kind, base, expected) in [
            ("defaults a\n", "frontend", None, 1),
            ("defaults a\ndefaults b\n", "frontend", None, 2),
            ("defaults a\nfrontend f\ndefaults b from a\n", "frontend", None, 2),
            ("defaults a\nfrontend f\ndefaults b from a\n", "backend", None, 2),
            ("defaults a\nfrontend f\ndefaults b from a\n", "backend", Some("b"), 3),
            ("defaults a\nfrontend f\ndefaults b from a\n", "frontend", Some("b"), 3),
            ("defaults a\nfrontend f\ndefaults b from a\ndefaults c from b\n", "listen", None, 2),
            ("defaults a\nfrontend f\ndefaults b from a\nbackend g\n", "listen", None, 4),
            ("frontend f\ndefaults b\n", "backend", None, 1),
            ("frontend f\ndefaults b\nbackend g from b\n", "backend", None, 1),
            ("frontend f\ndefaults b\nbackend g from b\n", "backend", Some("b"), 3),
            ("global\ndefaults\nfrontend f\ndefaults b\nfrontend g from b\n", "frontend", None, 5),
        ] {
            let document = Document::parse(text.as_bytes());
            assert_eq!(place_for_new(&document, kind, "new", base), expected, "{text:?} {kind} {base:?}");
        }
    }

    /// What HAProxy takes the settings of each proxy from that names none, by the proxy's name.
    fn followed(sections: &[(String, String)]) -> Vec<(String, String)> {
        let mut nearest = "nothing";
        let mut found = Vec::new();
        for (kind, words) in sections {
            let mut words = words.split(' ');
            let name = words.next().unwrap_or_default();
            match kind.as_str() {
                "defaults" => nearest = name,
                kind if PROXIES.contains(&kind) && words.next().is_none() => {
                    found.push((name.to_owned(), nearest.to_owned()));
                }
                _ => {}
            }
        }
        found
    }

    /// Kind, and the words behind it, of each section.
    fn read(document: &Document) -> Vec<(String, String)> {
        let of = |section: &Arc<Section>| (section.kind().to_owned(), section.header_words()[1..].join(" "));
        document.sections().iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn no_proxy_without_from_changes_its_settings(
            kinds in prop::collection::vec(0_usize..7, 0..9),
            from in 0_usize..4,
            later in 0_usize..3,
        ) {
            let mut names = Vec::new();
            let mut lines = Vec::new();
            for (number, kind) in kinds.iter().enumerate() {
                let base = names.last().cloned();
                if matches!((kind, &base), (2, _) | (3, Some(_))) {
                    names.push(format!("d{number}"));
                }
                lines.push(match (kind, base) {
                    (0, _) => format!("cache c{number}\n"),
                    (1, _) => "defaults\n".to_owned(),
                    (2, _) => format!("defaults d{number}\n"),
                    (3, Some(base)) => format!("defaults d{number} from {base}\n"),
                    (4, Some(base)) => format!("backend p{number} \"from\" {base}\n"),
                    (5, Some(base)) => format!("frontend p{number} from {base}\n"),
                    (kind, _) => format!("{} p{number}\n", PROXIES[kind % 3]),
                });
            }
            let text = lines.concat();
            let mut document = Document::parse(text.as_bytes());
            let before = followed(&read(&document));
            let base = names.get(from).map(String::as_str);
            let at = place_for_new(&document, "defaults", "new", base);
            let header = base.map_or_else(|| "defaults new".to_owned(), |base| format!("defaults new from {base}"));
            document.insert_section(at, Section::new(&header, document.style()).unwrap());
            prop_assert_eq!(&followed(&read(&document)), &before, "{:?}: at {}", text, at);
            let base_at = base.and_then(|base| document.find("defaults", base));
            prop_assert!(base_at.is_none_or(|base| base < at), "{:?}: at {}", text, at);

            // Nor does one that is made later take its settings there, when others had a say before.
            let kind = PROXIES[later];
            let at = place_for_new(&document, kind, "late", None);
            document.insert_section(at, Section::new(&format!("{kind} late"), document.style()).unwrap());
            let after = followed(&read(&document));
            let late = after.iter().find(|(name, _)| name == "late").map(|(_, from)| from.as_str());
            let alone = before.is_empty() && !text.contains("defaults");
            prop_assert!(alone || late != Some("new"), "{:?}: {:?}", text, after);
            let others: Vec<_> = after.into_iter().filter(|(name, _)| name != "late").collect();
            prop_assert_eq!(others, before);
        }
    }

    #[test]
    fn unnamed_defaults_are_for_all_proxies() {
        for (text, expected) in [
            ("global\nfrontend f\nbackend g\n", 1),
            ("global\ncache c\nbackend g\n", 2),
            ("global\n", 1),
            (".if defined(X)\nfrontend f\n.endif\nbackend g\n", 1),
        ] {
            assert_eq!(place_for_new(&Document::parse(text.as_bytes()), "defaults", "", None), expected, "{text:?}");
        }
    }
}
