use std::path::PathBuf;

use super::*;

fn configs() -> Vec<(String, Vec<u8>)> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs");
    let mut found = Vec::new();
    for folder in [data, "/usr/share/doc/haproxy".into(), "/usr/share/doc/haproxy-doc".into(), "/etc/haproxy".into()] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|e| e.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "cfg") {
                found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    assert!(found.len() >= 7, "the files of tests/data/configs are there");
    found
}

fn config(name: &str) -> Document {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs").join(name);
    Document::parse(&std::fs::read(path).unwrap())
}

/// The document is what a reader of its bytes would see, and every section can be found.
pub(super) fn assert_fresh(document: &Document) {
    let bytes = document.to_bytes();
    assert_eq!(bytes.len(), document.len_bytes());
    let fresh = Document::parse(&bytes);
    assert_eq!(show(&fresh), show(document));
    for (at, section) in document.sections().iter().enumerate() {
        let all = document.find_all(section.kind(), section.name());
        assert!(all.contains(&at), "{at} in {all:?}");
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!(document.find(section.kind(), section.name()), all.first().copied());
        for at in all {
            let other = document.section(at).unwrap();
            assert_eq!((other.kind(), other.name()), (section.kind(), section.name()));
        }
    }
}

/// Everything that a caller can see of the cutting.
fn show(document: &Document) -> Vec<String> {
    let mut out = vec![String::from_utf8_lossy(document.preamble()).into_owned()];
    for s in document.sections() {
        out.push(format!("{} {:?} lead={:?}", s.kind(), s.name(), String::from_utf8_lossy(s.lead())));
        out.extend(
            std::iter::once(s.header())
                .chain(s.lines())
                .map(|l| format!("{} {:?} {:?}", l.depth(), l.kind(), String::from_utf8_lossy(l.raw_with_ending()))),
        );
    }
    out
}

fn text(document: &Document) -> String {
    String::from_utf8(document.to_bytes()).unwrap()
}

fn section<'a>(document: &'a Document, kind: &str, name: &str) -> &'a Section {
    document.section(document.find(kind, name).unwrap()).unwrap()
}

fn edit(document: &mut Document, kind: &str, name: &str, change: impl FnOnce(&mut Section)) {
    let at = document.find(kind, name).unwrap();
    let mut section = Section::clone(document.section(at).unwrap());
    change(&mut section);
    document.replace_section(at, section).unwrap();
    assert_fresh(document);
}

#[test]
fn every_config_prints_as_it_was() {
    for (path, bytes) in configs() {
        let document = Document::parse(&bytes);
        assert_eq!(document.to_bytes(), bytes, "{path}");
        let mut written = Vec::new();
        document.write_to(&mut written).unwrap();
        assert_eq!(written, bytes, "{path}");
        assert_fresh(&document);
    }
}

#[test]
fn sections_are_found_by_kind_and_name() {
    let order = config("order.cfg");
    let kinds: Vec<&str> = order.sections().iter().map(|s| s.kind()).collect();
    assert_eq!(
        kinds,
        [
            "backend",
            "frontend",
            "backend",
            "global",
            "resolvers",
            "userlist",
            "peers",
            "cache",
            "mailers",
            "program",
            "http-errors",
            "ring",
            "log-forward",
            "fcgi-app"
        ]
    );
    assert_eq!(order.find("backend", "aa"), Some(2));
    assert_eq!(order.find("global", ""), Some(3));
    assert_eq!(order.find("backend", "ff"), None);

    let repeated = config("repeated.cfg");
    assert_eq!(repeated.find_all("backend", "f"), [5, 6]);
    assert_eq!(repeated.find("backend", "f"), Some(5));
    assert_eq!(repeated.find_all("global", ""), [0, 1]);

    let layout = config("layout.cfg");
    assert_eq!(layout.find("defaults", ""), Some(1));
    assert_eq!(layout.find("defaults", "named"), Some(2));
    assert_eq!(layout.find("listen", "l1"), Some(7));
    assert_eq!(section(&layout, "frontend", "f2").header_words(), ["frontend", "f2", "from", "named"]);
    assert_eq!(section(&layout, "global", "").header().comment(), Some("# trailing"));
}

#[test]
fn equal_names_cost_no_more_than_others() {
    // Quadratic work would take minutes.
    let mut document = Document::parse("global\n".repeat(200_000).as_bytes());
    assert_eq!(document.find("global", ""), Some(0));
    document.remove_section(0).unwrap();
    document.insert_section(0, Section::new("frontend f", document.style()).unwrap());
    assert_eq!(document.find("global", ""), Some(1));
    assert_eq!(document.find_all("global", "").len(), 199_999);
}

#[test]
fn many_sections_stay_findable_while_they_come_and_go() {
    let mut document = Document::default();
    for n in 0..300 {
        let section = Section::new(&format!("backend b{}", n % 200), document.style()).unwrap();
        document.insert_section(n * 7 % (n + 1), section);
    }
    assert_fresh(&document);
    for n in 0..250 {
        document.remove_section(n * 11 % document.sections().len()).unwrap();
        assert_eq!(document.find("backend", "none"), None);
    }
    assert_fresh(&document);
    assert_eq!(document.sections().len(), 50);
}

#[test]
fn a_section_from_the_end_of_a_file_can_replace_one_in_the_middle() {
    let mut document = config("layout.cfg");
    let unfinished = Section::from_text(b"backend b1\n  mode tcp".to_vec(), document.style()).unwrap();
    document.replace_section(document.find("backend", "b1").unwrap(), unfinished).unwrap();
    assert_fresh(&document);
    assert!(text(&document).contains("\nbackend b1\n  mode tcp\n\nbackend b2\n"));
}

#[test]
fn names_are_raw_words() {
    let document =
        Document::parse(b"defaults from base\nbackend \"a b\"#x\n \"backend\" c\nbackend caf\xff\nbackend\n");
    let names: Vec<&str> = document.sections().iter().map(|s| s.name()).collect();
    assert_eq!(names, ["", "\"a b\"", "c", "caf\u{fffd}", ""]);
    assert_eq!(document.section(3).unwrap().header_words(), ["backend", "caf\u{10ffff}"]);
}

#[test]
fn lines_know_their_kind_and_depth() {
    let document = config("conditional.cfg");
    let global = section(&document, "global", "");
    let depths: Vec<u16> = global.lines().map(|l| l.depth()).collect();
    assert_eq!(depths, [0, 0, 1, 1, 1, 2, 1, 2, 1, 2, 1, 0, 0]);
    assert_eq!(global.line(1).unwrap().kind(), LineKind::Directive);
    assert_eq!(global.line(2).unwrap().kind(), LineKind::Comment);
    assert_eq!(global.line(12).unwrap().words().words, ["maxconn", "1000"]);
    assert!(global.line(13).is_none());
    assert_eq!(section(&document, "frontend", "tls").depth(), 1);
    assert_eq!(section(&document, "frontend", "plain").depth(), 1);
    assert_eq!(section(&document, "backend", "app").depth(), 0);
    assert_eq!(section(&document, "frontend", "tls").lead(), b"\n.if feature(OPENSSL)\n# the same with TLS\n");
}

#[test]
fn a_backslash_at_the_end_continues_nothing() {
    let document = Document::parse(b"global\n maxconn \\\n 100\n");
    assert_eq!(document.section(0).unwrap().len(), 2);
    let document = Document::parse(b"global\n # note \\\nbackend b\n");
    assert_eq!(document.sections().len(), 2);
}

#[test]
fn a_replaced_line_keeps_indentation_comment_and_ending() {
    let mut document = config("crlf.cfg");
    let before = text(&document);
    edit(&mut document, "defaults", "", |s| s.replace_line(0, "mode http").unwrap());
    assert_eq!(text(&document), before.replace("mode tcp # plain", "mode http # plain"));

    let mut document = config("unfinished.cfg");
    edit(&mut document, "backend", "café", |s| {
        let line = s.line(1).unwrap();
        assert!(!line.is_utf8());
        assert_eq!(line.words().words, ["server", "a\u{10ffff}", "127.0.0.1:1"]);
        s.replace_line(2, "server b 127.0.0.1:3").unwrap();
    });
    assert!(document.to_bytes().ends_with(b"server a\xff 127.0.0.1:1\n  server b 127.0.0.1:3"));
}

#[test]
fn a_comment_may_hold_any_bytes() {
    let mut document =
        Document::parse(b"backend b\n  server s1 :80 check # r\xe9serve \xff\r\n  # \xe9\n  server \xe9 :81 # x\n");
    edit(&mut document, "backend", "b", |s| {
        assert_eq!(s.line(0).unwrap().words().words, ["server", "s1", ":80", "check"]);
        assert_eq!(s.line(1).unwrap().kind(), LineKind::Comment);
        assert!(s.line(0).unwrap().is_utf8() && !s.line(2).unwrap().is_utf8());
        s.replace_line(0, "server s1 :82").unwrap();
    });
    let changed = b"backend b\n  server s1 :82 # r\xe9serve \xff\r\n  # \xe9\n  server \xe9 :81 # x\n";
    assert_eq!(document.to_bytes(), changed);
    edit(&mut document, "backend", "b", |s| s.replace_line(0, "server s1 :83 # new").unwrap());
    assert!(document.to_bytes().starts_with(b"backend b\n  server s1 :83 # new\r\n"));
    edit(&mut document, "backend", "b", |s| s.splice(0..1, &["server s1 :83"]).unwrap());
    assert!(document.to_bytes().starts_with(b"backend b\n  server s1 :83 # new\r\n"), "it says the same");
}

#[test]
fn a_line_cannot_smuggle_in_another() {
    let mut document = config("layout.cfg");
    edit(&mut document, "backend", "b1", |s| {
        for bad in ["mode http\nserver x", "a\rb", "a\0b", "backend x", "  \"global\"", "userlist u # x"] {
            assert!(s.replace_line(0, bad).is_err(), "{bad:?}");
            assert!(s.insert_lines(0, &[bad]).is_err(), "{bad:?}");
            assert!(s.splice(0..1, &["mode http", bad]).is_err(), "{bad:?}");
        }
        assert!(s.set_header_text("server x").is_err());
    });
    assert_eq!(document, config("layout.cfg"));
    assert!(Section::new("server x", document.style()).is_err());
    assert!(Section::new("backend a\nbackend b", document.style()).is_err());
}

#[test]
fn an_open_quote_does_not_swallow_the_comment() {
    let mut document = Document::parse(b"global\n  node a # why\n");
    edit(&mut document, "global", "", |s| {
        assert!(s.replace_line(0, "node \"a").is_err());
        assert!(s.replace_line(0, "node a\\").is_err());
        s.replace_line(0, "node b # new reason").unwrap();
    });
    assert_eq!(text(&document), "global\n  node b # new reason\n");
}

#[test]
fn new_lines_go_above_the_comments_of_the_line_they_precede() {
    let mut document = Document::parse(b"backend b\n\tmode http\n\t# about a\n\t# more\n\tserver a x\n\n");
    edit(&mut document, "backend", "b", |s| {
        assert_eq!(s.insert_lines(3, &["balance first"]).unwrap(), 1);
    });
    assert_eq!(text(&document), "backend b\n\tmode http\n\tbalance first\n\t# about a\n\t# more\n\tserver a x\n\n");
    edit(&mut document, "backend", "b", |s| assert_eq!(s.append_line("server b y").unwrap(), 5));
    assert!(text(&document).ends_with("\tserver a x\n\tserver b y\n\n"));
    edit(&mut document, "backend", "b", |s| s.remove_line(4).unwrap());
    assert!(text(&document).ends_with("\t# more\n\tserver b y\n\n"), "the comment outlives its line");
}

#[test]
fn appended_lines_stay_out_of_blocks_and_off_the_next_header() {
    let mut document = config("conditional.cfg");
    edit(&mut document, "frontend", "tls", |s| {
        s.append_line("bind :444 ssl crt b.pem").unwrap();
    });
    edit(&mut document, "frontend", "plain", |s| {
        s.append_line("mode tcp").unwrap();
    });
    edit(&mut document, "backend", "app", |s| {
        s.append_line("server c 127.0.0.1:9002").unwrap();
    });
    edit(&mut document, "global", "", |s| {
        s.remove_line(12).unwrap();
        s.append_line("maxconn 2000").unwrap();
    });
    let out = text(&document);
    assert!(out.contains("crt a.pem\n  bind :444 ssl crt b.pem\n.else\n"), "{out}");
    assert!(out.contains("bind :8443\n  mode tcp\n.endif\n"), "{out}");
    assert!(out.contains("# first\n  server c 127.0.0.1:9002\n  # server b"), "{out}");
    assert!(out.contains("err\n  .endif\n.endif\n  maxconn 2000\n\ndefaults"), "{out}");
}

#[test]
fn the_missing_last_line_ending_is_added_only_when_something_follows() {
    let mut document = Document::parse(b"global\n  daemon");
    edit(&mut document, "global", "", |s| s.splice(0..1, &["daemon"]).unwrap());
    assert_eq!(text(&document), "global\n  daemon");
    edit(&mut document, "global", "", |s| {
        s.append_line("quiet").unwrap();
    });
    assert_eq!(text(&document), "global\n  daemon\n  quiet\n");
    let mut document = Document::parse(b"global\n  daemon");
    edit(&mut document, "global", "", |s| s.splice(0..1, &["daemon", "quiet"]).unwrap());
    assert_eq!(text(&document), "global\n  daemon\n  quiet\n");
    let mut document = Document::parse(b"backend b");
    edit(&mut document, "backend", "b", |s| {
        s.append_line("mode tcp").unwrap();
    });
    assert_eq!(text(&document), "backend b\n  mode tcp\n");
}

#[test]
fn splice_leaves_lines_that_say_the_same() {
    let mut document = Document::parse(b"backend b\n    server a  x # one\n\t# note\n  server b y\n");
    edit(&mut document, "backend", "b", |s| {
        s.splice(0..3, &["server a  x", "# note", "server c z", "server d w"]).unwrap();
    });
    assert_eq!(text(&document), "backend b\n    server a  x # one\n\t# note\n  server c z\n    server d w\n");
    edit(&mut document, "backend", "b", |s| s.splice(1..99, &[] as &[&str]).unwrap());
    assert_eq!(text(&document), "backend b\n    server a  x # one\n");
}

#[test]
fn a_renamed_section_keeps_its_comment_and_is_found() {
    let mut document = config("conditional.cfg");
    edit(&mut document, "backend", "app", |s| s.set_header_text("backend shop from base").unwrap());
    assert!(text(&document).contains("# where it goes\nbackend shop from base   # the application\n"));
    assert_eq!(document.find("backend", "app"), None);
    assert!(document.find("backend", "shop").is_some());
}

#[test]
fn new_sections_go_behind_the_last_of_their_kind() {
    let mut document = config("layout.cfg");
    let before = text(&document);
    let mut fresh = Section::new("backend b3", document.style()).unwrap();
    fresh.append_line("server x 127.0.0.1:9").unwrap();
    let at = document.place_for_new("backend");
    document.insert_section(at, fresh);
    assert_fresh(&document);
    assert_eq!(text(&document), before.replace("\nlisten l1", "\nbackend b3\n  server x 127.0.0.1:9\n\nlisten l1"));
    let at = document.find("backend", "b3").unwrap();
    document.remove_section(at).unwrap();
    assert_fresh(&document);
    assert_eq!(text(&document), before);

    let at = document.place_for_new("peers");
    document.insert_section(at, Section::new("peers p", document.style()).unwrap());
    assert_eq!(text(&document), before.clone() + "\npeers p\n");
}

#[test]
fn comments_between_sections_belong_to_the_nearer_one() {
    let insert = |file: &str| {
        let mut document = Document::parse(file.as_bytes());
        document.insert_section(1, Section::new("backend new", document.style()).unwrap());
        assert_fresh(&document);
        text(&document)
    };
    assert_eq!(
        insert("backend a\n  mode tcp\n# about b\nbackend b\n"),
        "backend a\n  mode tcp\nbackend new\n# about b\nbackend b\n"
    );
    assert_eq!(
        insert("backend a\n  mode tcp\n# more about a\n\n# about b\nbackend b\n"),
        "backend a\n  mode tcp\n# more about a\n\nbackend new\n\n# about b\nbackend b\n"
    );
    assert_eq!(
        insert("backend a\n  mode tcp\n\n  # server off\n\n# about b\n\nbackend b\n"),
        "backend a\n  mode tcp\n\n  # server off\n\nbackend new\n\n# about b\n\nbackend b\n"
    );
    assert_eq!(insert("backend a\n\n# end\n"), "backend a\n\n# end\n\nbackend new\n");
}

#[test]
fn new_sections_follow_the_habits_of_the_file() {
    let mut document = config("order.cfg");
    document.insert_section(document.place_for_new("cache"), Section::new("cache d", document.style()).unwrap());
    assert!(text(&document).contains("  max-age 10\ncache d\nmailers m\n"), "no blank lines in a dense file");

    let mut document = config("crlf.cfg");
    document.insert_section(document.place_for_new("backend"), Section::new("backend c", document.style()).unwrap());
    edit(&mut document, "backend", "c", |s| {
        s.append_line("mode tcp").unwrap();
    });
    assert!(text(&document).ends_with(":1\r\n\r\nbackend c\r\n\tmode tcp\r\n"));

    let mut document = Document::parse(b"global\n  daemon");
    document.insert_section(1, Section::new("backend c", document.style()).unwrap());
    assert_eq!(text(&document), "global\n  daemon\n\nbackend c\n");

    let mut document = Document::default();
    document.insert_section(0, Section::new("backend c", document.style()).unwrap());
    document.insert_section(0, Section::new("global", document.style()).unwrap());
    assert_eq!(text(&document), "global\n\nbackend c\n");
    assert_fresh(&document);
}

#[test]
fn new_sections_stay_out_of_blocks() {
    let mut document = config("conditional.cfg");
    let at = document.place_for_new("frontend");
    document.insert_section(at, Section::new("frontend new", document.style()).unwrap());
    assert_fresh(&document);
    assert!(text(&document).contains("  bind :8443\n.endif\n\nfrontend new\n\n# where it goes\nbackend app"));
    assert_eq!(section(&document, "frontend", "new").depth(), 0);

    let document = Document::parse(b"backend a\n.if 1\nbackend b\n");
    assert_eq!(document.place_for_new("backend"), 1, "the block is never closed");
}

#[test]
fn a_removed_section_leaves_comments_and_foreign_directives() {
    let mut document = config("conditional.cfg");
    for (kind, name) in [("frontend", "tls"), ("frontend", "plain"), ("backend", "app"), ("global", "")] {
        document.remove_section(document.find(kind, name).unwrap()).unwrap();
        assert_fresh(&document);
    }
    let out = text(&document);
    assert_eq!(
        out,
        "# _version=12\n# edge proxy\n\n.notice \"reading\"\n\ndefaults\n  mode http\n\n# the public door\nfrontend web\n  \
         bind :80\n\n.if feature(OPENSSL)\n# the same with TLS\n.else\n.endif\n\n# where it goes\n\nlisten stats\n  \
         bind :8404\n  stats enable\n"
    );
    while document.remove_section(0).is_some() {
        assert_fresh(&document);
    }
    assert!(text(&document).contains("# the public door\n"));
    assert!(text(&document).contains("# where it goes\n"));
}

#[test]
fn the_version_is_kept_in_the_first_lines() {
    let mut document = config("conditional.cfg");
    assert_eq!(document.version(), Some(12));
    let before = text(&document);
    document.set_version(13);
    assert_eq!(text(&document), before.replace("_version=12", "_version=13"));

    let mut document = config("crlf.cfg");
    assert_eq!(document.version(), None);
    let before = text(&document);
    document.set_version(1);
    assert_eq!(text(&document), format!("# _version=1\r\n{before}"));
    document.set_header("_md5hash", "abc");
    document.set_version(2);
    assert_eq!(text(&document), format!("# _md5hash=abc\r\n# _version=2\r\n{before}"));
    assert_eq!(document.header("_md5hash"), Some("abc"));
    assert_eq!(document.header_end("_md5hash"), Some("# _md5hash=abc\r\n".len()));
    document.set_header("_md5hash", "x\nglobal");
    assert_eq!(document.header("_md5hash"), Some("abc"), "a value is one line");
    assert_fresh(&document);

    let mut document = Document::parse(b"# _md5hash=abc");
    document.set_version(2);
    assert_eq!(text(&document), "# _md5hash=abc\n# _version=2\n");
    assert_eq!(Document::parse(b"global\n# _version=3\n").version(), None);
}

#[test]
fn a_difference_is_small_and_survives_the_journal() {
    let old = config("conditional.cfg");
    let mut new = old.clone();
    assert!(Document::diff(&old, &new).is_empty());
    edit(&mut new, "backend", "app", |s| s.replace_line(0, "server z 127.0.0.1:1").unwrap());
    let patches = Document::diff(&old, &new);
    assert!(matches!(&patches[..], [Patch::Replace(at, _)] if Some(*at) == old.find("backend", "app")));
    new.set_version(13);
    new.insert_section(1, Section::new("peers p", new.style()).unwrap());
    assert_eq!(Document::diff(&old, &new).len(), 3);

    let mut journal = Vec::new();
    for patch in Document::diff(&old, &new) {
        patch.encode(&mut journal);
    }
    let mut again = Document::parse(&old.to_bytes());
    let mut rest = &journal[..];
    while !rest.is_empty() {
        let (patch, behind) = Patch::decode(rest).unwrap();
        again.apply(&patch).unwrap();
        rest = behind;
    }
    assert_eq!(again, new);
    assert_fresh(&again);
    for cut in 0..journal.len() {
        let mut rest = &journal[..cut];
        while let Ok((_, behind)) = Patch::decode(rest) {
            rest = behind;
        }
    }
    assert!(again.apply(&Patch::Remove(99)).is_err());
    assert!(again.apply(&Patch::Replace(0, b"no header\n".to_vec())).is_err());
    assert!(again.apply(&Patch::Preamble(b"global\n".to_vec())).is_err());
    assert_eq!(again, new, "a refused step changes nothing");
}
