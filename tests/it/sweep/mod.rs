//! Every field, every listed word and every type of rule, written by the engine and shown to HAProxy.
//!
//! The samples stand in `tests/data/sweep/samples.jsonl`: `r` the resource, `in` the kind of its section, `with` further lines
//! of it, `o` the object. An element of the schema that no HAProxy takes stands with its reason in
//! `tests/data/sweep/refused.json`. With `BACKSTAY_FULL` all samples are asked about, else those of keywords since 3.0
//! and every eighth of the others.
//!
//! What each version refused and why stands in `sweep.txt` in the target folder afterwards; `make test` shows it.

mod check;
mod generate;
mod samples;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use backstay::configuration::engine::Engine;
use backstay::schema::Schema;
use check::{Sweep, binaries};
use samples::{elements, samples};
use table::Results;

const REFUSED: &str = include_str!("../../data/sweep/refused.json");
/// What samples refer to.
const PROLOGUE: &str = include_str!("../../data/sweep/prologue.cfg");
/// An answer about the certificate of `site.pem`.
const OCSP: &[u8] = include_bytes!("../../data/sweep/site.ocsp");
/// Files that samples name and that are the same every time.
const FILES: [(&str, &str); 6] = [
    ("site.pem", include_str!("../../data/sweep/site.pem")),
    ("ca.pem", include_str!("../../data/sweep/ca.pem")),
    ("crl.pem", include_str!("../../data/sweep/ca.pem")),
    ("dh.pem", include_str!("../../data/sweep/dh.pem")),
    ("spoe.conf", include_str!("../../data/sweep/spoe.conf")),
    ("x.lua", include_str!("../../data/sweep/x.lua")),
];

fn engine() -> Engine {
    Engine::new(Arc::new(Schema::compile(backstay::proto::SCHEMA).expect("a schema")))
}

/// Elements that no HAProxy takes, or a prefix of them that ends in `*`, with the reason.
fn known_refusals() -> BTreeMap<String, String> {
    serde_json::from_str(REFUSED).expect("a map of elements to reasons")
}

fn is_known<'k>(known: &'k BTreeMap<String, String>, element: &str) -> Option<&'k str> {
    let fits = |entry: &str| match entry.strip_suffix('*') {
        Some(prefix) => element.starts_with(prefix),
        None => entry == element || element.strip_prefix(entry).is_some_and(|rest| rest.starts_with('=')),
    };
    known.keys().find(|entry| fits(entry)).map(String::as_str)
}

/// The files that samples name.
fn files(dir: &Path) {
    let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
    put("list.crt", &format!("{}\n", dir.join("site.pem").display()));
    put("err.http", "HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    put("list.acl", "10.0.0.1\n");
    // A list of one timestamp of two bytes.
    put("site.sctl", "\0\u{4}\0\u{2}ab");
    std::fs::write(dir.join("site.ocsp"), OCSP).expect("a file");
    put("m.map", "10.0.0.1 b1\n");
    put("case.map", "content-type Content-Type\n");
    put("eab.id", "account-1\n");
    put("eab.key", &format!("{}\n", "A".repeat(86)));
    put("tick.keys", &format!("{}\n", "A".repeat(64)).repeat(3));
    for (name, text) in FILES {
        put(name, text);
    }
}

#[test]
fn every_element_of_the_schema_has_a_sample() {
    let engine = engine();
    let covered: BTreeSet<String> = samples(&engine, "/x").into_iter().flat_map(|sample| sample.covers).collect();
    let known = known_refusals();
    let all = elements(&engine.schema().tables);
    let missing: Vec<_> =
        all.iter().filter(|element| !covered.contains(*element) && is_known(&known, element).is_none()).collect();
    assert!(missing.is_empty(), "{} of {} elements have no sample:\n{missing:#?}", missing.len(), all.len());
    let idle: Vec<_> = known
        .keys()
        .filter(|entry| {
            !all.iter().any(|e| is_known(&BTreeMap::from([((*entry).clone(), String::new())]), e).is_some())
        })
        .collect();
    assert!(idle.is_empty(), "the schema has no {idle:?}");
}

#[test]
fn haproxy_takes_whatever_is_written() {
    let binaries = binaries();
    assert!(!binaries.is_empty(), "haproxy must be installed");
    let full = std::env::var_os("BACKSTAY_FULL").is_some();
    let dir = tempfile::tempdir().expect("a folder");
    files(dir.path());
    let engine = engine();
    let samples = samples(&engine, &dir.path().display().to_string());
    let chosen: Vec<usize> =
        (0..samples.len()).filter(|at| full || at % 8 == 3 || samples[*at].versions.start >= (3, 0)).collect();
    let prologue = PROLOGUE.replace("{dir}", &dir.path().display().to_string());

    let mut results = Results::default();
    for binary in &binaries {
        let file = dir.path().join("haproxy.cfg");
        let mut sweep = Sweep { binary, prologue: &prologue, samples: &samples, file, global: false, runs: 0 };
        for batch in ["Global", "Defaults", "sections", "lines"] {
            let which: Vec<usize> = chosen
                .iter()
                .copied()
                .filter(|at| samples[*at].batch == batch && samples[*at].versions.contains(&binary.version))
                .collect();
            sweep.global = batch == "Global";
            let refused = sweep.refused(&which);
            results.add(binary.version, &which, refused);
        }
        results.asked(binary.version, sweep.runs, chosen.len());
    }
    let table = results.table(&samples, &dir.path().display().to_string());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder");
    std::fs::write(target.join("sweep.txt"), &table).expect("a file in the target folder");
    let Results { accepted, refused, .. } = results;

    let known = known_refusals();
    if has_newest(&binaries) {
        // A sample may only be refused by all when it has an element that is known to be.
        let by_all = refused.iter().filter(|(at, _)| !accepted.contains(at)).map(|(at, why)| (&samples[*at], why));
        let surprising: Vec<_> = by_all
            .filter(|(sample, _)| sample.covers.iter().all(|element| is_known(&known, element).is_none()))
            .map(|(sample, why)| (&sample.shown, why))
            .collect();
        assert!(surprising.is_empty(), "refused by all: {surprising:#?}");
    }
    if full && has_newest(&binaries) {
        let covered: BTreeSet<&String> = accepted.iter().flat_map(|at| &samples[*at].covers).collect();
        let all = elements(&engine.schema().tables);
        let never: Vec<_> =
            all.iter().filter(|element| !covered.contains(element) && is_known(&known, element).is_none()).collect();
        assert!(never.is_empty(), "accepted by no version: {never:#?}");
        let idle: Vec<_> =
            known.keys().filter(|entry| !entry.ends_with('*')).filter(|entry| covered.contains(entry)).collect();
        assert!(idle.is_empty(), "accepted after all, so they need no reason: {idle:#?}");
    }
    let unnamed: Vec<_> = refused
        .iter()
        .filter(|(at, why)| accepted.contains(at) && why.values().any(|why| is_unknown_keyword(why)))
        .map(|(at, why)| (&samples[*at].shown, why))
        .collect();
    assert!(unnamed.is_empty(), "keywords that need a `since`: {unnamed:#?}");
}

fn has_newest(binaries: &[check::Binary]) -> bool {
    binaries.last().is_some_and(|binary| binary.version >= (3, 2))
}

/// A version does not know a keyword, and not only because it was built without a part.
fn is_unknown_keyword(why: &str) -> bool {
    why.contains("unknown keyword") && !["quic", "zlib"].iter().any(|part| why.contains(part))
}
