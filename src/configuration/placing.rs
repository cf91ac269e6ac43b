//! Where a new section goes.
//!
//! HAProxy gives a proxy the settings of the `defaults` section that its header names, else of the nearest one above it.
//! So a new `defaults` section must not come between a proxy and the settings that it has today, nor between proxies that
//! are made later and the settings that they would have had.

use std::sync::Arc;

use crate::document::{Document, Section};

/// Kinds of sections that take settings from `defaults`.
const PROXIES: [&str; 3] = ["frontend", "backend", "listen"];

/// Position of a new section: behind the last of its kind, else at the end. `base` is the `defaults` section that it
/// names after `from`.
///
/// A named `defaults` section goes behind `base`, where no proxy comes to follow it instead of another one, and above the
/// last `defaults` of the file, which stays the one that new proxies follow; where there is no such place, to the end. One
/// without a name, which is only made when there is none, goes above all proxies, as its settings are meant for them.
pub(super) fn place_for_new(document: &Document, kind: &str, name: &str, base: Option<&str>) -> usize {
    let sections = document.sections();
    let outside = |at: &usize| document.is_outside(*at);
    let behind_base = base.and_then(|base| document.find("defaults", base)).map_or(0, |at| at + 1);
    if PROXIES.contains(&kind) {
        let place = document.place_for_new(kind);
        let end = if base.is_none() { above_unused(sections) } else { sections.len() };
        return match place {
            _ if place < behind_base => (behind_base..=sections.len()).find(outside).unwrap_or(place),
            _ if place > end => (0..=end).rev().find(outside).unwrap_or(place),
            _ => place,
        };
    }
    if kind != "defaults" {
        return document.place_for_new(kind);
    }
    let first = sections.iter().position(|section| is_proxy(section) || section.kind() == "defaults");
    let Some(first) = first else { return document.place_for_new(kind) };
    if name.is_empty() {
        let found = (0..=first).rev().find(outside).or_else(|| (first..=sections.len()).find(outside));
        return found.unwrap_or(first);
    }
    let fits = |at: &usize| outside(at) && takes_nobody(&sections[*at..]);
    let above = sections.iter().rposition(|section| section.kind() == "defaults").and_then(|last| {
        // Rather high, so that most proxies can name it.
        let run = sections[first..].iter().take_while(|section| section.kind() == "defaults").count();
        let start = (first + run).max(behind_base).min(last);
        (behind_base..=start).rev().find(fits).or_else(|| (start..=last).find(|at| *at >= behind_base && fits(at)))
    });
    above.or_else(|| (behind_base..=sections.len()).rev().find(outside)).unwrap_or(sections.len())
}

/// True when no proxy would follow a `defaults` section in front of these sections.
fn takes_nobody(behind: &[Arc<Section>]) -> bool {
    let reach = behind.iter().take_while(|section| section.kind() != "defaults");
    reach.filter(|section| is_proxy(section)).all(|section| names_defaults(section))
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
    section.header_words().get(2) == Some(&"from")
}

fn is_proxy(section: &Section) -> bool {
    PROXIES.contains(&section.kind())
}

#[cfg(test)]
mod tests {
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
