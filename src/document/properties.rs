//! Laws that hold for any file and any edits.

use proptest::prelude::*;

use super::tests::assert_fresh;
use super::*;

/// Lines that exercise the cutting, with and without endings.
fn line() -> impl Strategy<Value = String> {
    let say = prop::sample::select(vec![
        "",
        "",
        "# a",
        "  # b",
        "\t",
        "server a 1",
        "  server b 2 # c",
        "backend x",
        "backend y",
        "  backend z # d",
        "global",
        "frontend x",
        "defaults",
        ".if 1",
        "  .if 0",
        ".else",
        ".elif 1",
        ".endif",
        ".notice \"x\"",
        "  \"quoted # \"",
        "'open",
        "back\\",
        "listen l\u{e9}",
    ]);
    (say, prop::sample::select(vec!["\n", "\n", "\n", "\r\n"])).prop_map(|(say, end)| format!("{say}{end}"))
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(line(), 0..24), any::<bool>()).prop_map(|(lines, finished)| {
        let mut text = lines.concat();
        if !finished {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        text.into_bytes()
    })
}

/// One change: which, where, at which line, with what.
type Step = (u8, usize, usize, usize, &'static str);

fn step() -> impl Strategy<Value = Step> {
    let says = vec!["mode http", "# note", "", ".if 1", ".endif", ".else", "server n 1 # x", "  bind :1"];
    (0u8..9, 0usize..12, 0usize..12, 0usize..4, prop::sample::select(says))
}

fn change(document: &mut Document, (what, at, line, more, say): Step) {
    let count = document.sections().len();
    match what {
        0 => {
            let header = format!("backend {}", ["x", "n", "m"][line % 3]);
            document.insert_section(at % (count + 1), Section::new(&header, document.style()).unwrap());
        }
        1 if count > 0 => {
            document.remove_section(at % count).unwrap();
        }
        2 => document.set_version(line as i64),
        _ if count == 0 => {}
        _ => {
            let at = at % count;
            let mut section = Section::clone(document.section(at).unwrap());
            let line = line % (section.len() + 1);
            match what {
                3 => {
                    // Refused for a line that does not exist or a comment that an open quote would swallow.
                    let _refused = section.replace_line(line, say).is_err();
                }
                4 => {
                    section.insert_lines(line, &[say, say]).unwrap();
                }
                5 => {
                    section.append_line(say).unwrap();
                }
                6 if line < section.len() => section.remove_line(line).unwrap(),
                7 => section.set_header_text(["frontend x", "backend q", "global"][line % 3]).unwrap(),
                _ => section.splice(line..line + more, &[say][..more % 2]).unwrap(),
            }
            document.replace_section(at, section).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_print_as_they_were(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let document = Document::parse(&bytes);
        prop_assert_eq!(document.to_bytes(), bytes);
        assert_fresh(&document);
    }

    #[test]
    fn any_lines_print_as_they_were(bytes in file()) {
        let document = Document::parse(&bytes);
        prop_assert_eq!(document.to_bytes(), bytes);
        assert_fresh(&document);
    }

    #[test]
    fn a_changed_document_is_cut_as_its_bytes_and_its_difference_leads_to_it(
        bytes in file(), steps in prop::collection::vec(step(), 1..8),
    ) {
        let old = Document::parse(&bytes);
        let mut new = old.clone();
        for step in steps {
            change(&mut new, step);
            assert_fresh(&new);
        }
        prop_assert_eq!(old.to_bytes(), bytes, "a clone shares nothing that changes");
        let mut led = Document::parse(&old.to_bytes());
        for patch in Document::diff(&old, &new) {
            led.apply(&patch).unwrap();
        }
        prop_assert_eq!(led.to_bytes(), new.to_bytes());
        assert_fresh(&led);
    }

    #[test]
    fn splices_touch_no_other_line(
        bytes in file(), at in 0usize..12, from in 0usize..12, count in 0usize..4,
        texts in prop::collection::vec(prop::sample::select(vec!["mode http", "# n", "server q 1"]), 0..3),
    ) {
        let mut document = Document::parse(&bytes);
        if document.sections().is_empty() {
            return Ok(());
        }
        let at = at % document.sections().len();
        let section = Arc::clone(document.section(at).unwrap());
        let from = from.min(section.len());
        let to = (from + count).min(section.len());
        let before: usize = document.preamble().len()
            + document.sections()[..at].iter().map(|s| s.text().len()).sum::<usize>();
        let start = before + section.text().len()
            - section.lines().skip(from).map(|l| l.raw_with_ending().len()).sum::<usize>();
        let end = start + section.lines().skip(from).take(to - from).map(|l| l.raw_with_ending().len()).sum::<usize>();
        let mut spliced = Section::clone(&section);
        spliced.splice(from..to, &texts).unwrap();
        document.replace_section(at, spliced).unwrap();
        let out = document.to_bytes();
        prop_assert!(out.starts_with(&bytes[..start]));
        prop_assert!(out.ends_with(&bytes[end..]));
        let mut middle = &out[start..out.len() - (bytes.len() - end)];
        if start == bytes.len() && !texts.is_empty() && !bytes.ends_with(b"\n") {
            middle = middle.strip_prefix(document.style().ending()).unwrap();
        }
        let lines: Vec<&str> = std::str::from_utf8(middle).unwrap().lines().collect();
        prop_assert_eq!(lines.len(), texts.len());
        for (line, text) in lines.iter().zip(&texts) {
            prop_assert!(line.contains(text), "{:?} {:?}", line, text);
        }
    }
}
