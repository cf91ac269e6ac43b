//! Where a new section goes.
//!
//! HAProxy gives a proxy the settings of the `defaults` section that its header names, else of the nearest one above it.
//! So a new `defaults` section must not come between a proxy and the settings that it has today.

use crate::document::{Document, Section};

/// Kinds of sections that take settings from `defaults`.
const PROXIES: [&str; 3] = ["frontend", "backend", "listen"];

/// Position of a new section: behind the last of its kind, else at the end.
///
/// A named `defaults` section goes as high as it can be used from, behind `base`, whose settings it takes, and where no
/// proxy comes to follow it instead of another one. One without a name, which is only made when there is none, goes
/// above all proxies, as its settings are meant for them.
pub(super) fn place_for_new(document: &Document, kind: &str, name: &str, base: Option<&str>) -> usize {
    if kind != "defaults" {
        return document.place_for_new(kind);
    }
    let sections = document.sections();
    let first = sections.iter().position(|section| is_proxy(section) || section.kind() == "defaults");
    let Some(first) = first else { return document.place_for_new(kind) };
    if name.is_empty() {
        let outside = |at: &usize| document.is_outside(*at);
        let found = (0..=first).rev().find(outside).or_else(|| (first..=sections.len()).find(outside));
        return found.unwrap_or(first);
    }
    let run = sections[first..].iter().take_while(|section| section.kind() == "defaults").count();
    let lowest = base.and_then(|base| document.find("defaults", base)).map_or(0, |at| at + 1);
    let start = (first + run).max(lowest);
    let fits = |at: &usize| document.is_outside(*at) && takes_nobody(&sections[*at..]);
    let above = (lowest..=start).rev().find(fits);
    above.or_else(|| (start..=sections.len()).find(fits)).unwrap_or_else(|| document.place_for_new(kind))
}

/// True when no proxy would follow a `defaults` section in front of these sections.
fn takes_nobody(behind: &[std::sync::Arc<Section>]) -> bool {
    let reach = behind.iter().take_while(|section| section.kind() != "defaults");
    reach.filter(|section| is_proxy(section)).all(|section| section.header_words().get(2) == Some(&"from"))
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
            ("defaults a\nfrontend f from a\n", None, "defaults a, new, frontend f from a"),
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
            ("defaults a\nfrontend f\ncache c\n", Some("a"), "defaults a, frontend f, new, cache c"),
            ("frontend f\nbackend g\n", None, "frontend f, backend g, new"),
            (".if defined(X)\ndefaults a\n.endif\nlisten f\n", None, "defaults a, listen f, new"),
        ] {
            assert_eq!(placed(text, base), expected, "{text:?} {base:?}");
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
