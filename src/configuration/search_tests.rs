use super::*;
use crate::configuration::frame::Hash;

/// Each change adds a section with a bind of its own.
fn texts(count: usize) -> Texts {
    let mut text = "global\n  daemon\n".to_owned();
    let mut documents = vec![Document::parse(text.as_bytes())];
    for at in 0..count {
        text = format!("{text}\nfrontend f{at}\n  bind :{at}\n");
        documents.push(Document::parse(text.as_bytes()));
    }
    let hash = |document: &Document| Hash::of(&document.to_bytes());
    let changes: Vec<Change> = documents
        .windows(2)
        .enumerate()
        .map(|(at, pair)| {
            let (old, new) = ((&pair[0], hash(&pair[0])), (&pair[1], hash(&pair[1])));
            Change::between(old, new, at as i64 + 2, Origin::Change, 0).unwrap()
        })
        .collect();
    let unproven: Vec<i64> = changes.iter().map(|change| change.version).collect();
    Texts::new(&documents[count], &changes, &documents[0], &unproven).unwrap()
}

fn out(of: &[usize]) -> BTreeSet<usize> {
    of.iter().copied().collect()
}

#[test]
fn a_text_without_a_change_has_all_the_others() {
    let texts = texts(4);
    let (text, all) = texts.without(&out(&[1]));
    let text = String::from_utf8(text.to_bytes()).unwrap();
    assert_eq!(all, out(&[1]));
    assert!(["f0", "f2", "f3"].iter().all(|name| text.contains(name)) && !text.contains("f1"), "{text}");
    assert_eq!(texts.without(&out(&[])).0, *texts.after(4));
    assert_eq!(texts.without(&out(&[0, 1, 2, 3])).0, *texts.after(0));
}

#[test]
fn haproxy_names_changes_by_line_or_by_section() {
    let texts = texts(4);
    let text = texts.after(4);
    let bytes = text.to_bytes();
    let line = bytes.split(|byte| *byte == b'\n').position(|line| line == b"  bind :2").unwrap() + 1;
    let place = |line: Option<usize>, section: Option<&str>| Place { line, section: section.map(ToOwned::to_owned) };
    let all = [0, 1, 2, 3];
    assert_eq!(texts.named(text, &[place(Some(line), None)], &all), out(&[2]));
    assert_eq!(texts.named(text, &[place(None, Some("f1")), place(Some(line), Some("f1"))], &all), out(&[1, 2]));
    assert_eq!(texts.named(text, &[place(Some(1), Some("nowhere")), place(Some(999), None)], &all), out(&[]));
    assert_eq!(
        texts.named(text, &[place(Some(line), None)], &all[..2]),
        out(&[]),
        "only of those that are asked about"
    );
}

#[test]
fn what_the_log_does_not_know_is_never_dropped() {
    let known = texts(2);
    let good = Document::parse(b"global\n");
    let texts = Texts::new(known.after(2), &[], &good, &[2, 3]).unwrap();
    assert_eq!(texts.suspects(), [Suspect { version: 3, by_hand: true }]);
    assert_eq!(*texts.after(0), good);
}
