//! What reading, cloning, editing, comparing and printing a file of 20,000 backends costs.

use std::fmt::Write;
use std::hint::black_box;

use backstay::document::{Document, Section};
use criterion::{Criterion, criterion_group, criterion_main};

const BACKENDS: usize = 20_000;

fn file() -> Vec<u8> {
    let mut text = String::from("# _version=1\nglobal\n  daemon\n\ndefaults\n  mode http\n");
    for n in 0..BACKENDS {
        let written = write!(
            text,
            "\n# backend number {n}\nbackend backend-{n:05}\n  mode http\n  balance roundrobin\n  option httpchk\n  \
             http-request set-header X-Backend {n} if {{ path_beg /b{n} }}\n  timeout server 30s\n  \
             server a 10.0.0.1:8080 check inter 2s weight 100 maxconn 50 # first\n  \
             server b 10.0.0.2:8080 check inter 2s weight 100 maxconn 50\n  server c 10.0.0.3:8080 backup\n"
        );
        assert!(written.is_ok(), "a string takes all text");
    }
    text.into_bytes()
}

fn document(c: &mut Criterion) {
    let bytes = file();
    let read = Document::parse(&bytes);
    let middle = format!("backend-{:05}", BACKENDS / 2);

    c.bench_function("document/parse", |b| b.iter(|| Document::parse(black_box(&bytes))));
    c.bench_function("document/clone", |b| b.iter(|| black_box(&read).clone()));
    c.bench_function("document/find", |b| b.iter(|| read.find("backend", black_box(&middle))));
    c.bench_function("document/print", |b| b.iter(|| black_box(&read).to_bytes()));

    let at = read.find("backend", &middle).unwrap_or_default();
    let edited = |weight: &str| {
        let mut section = Section::clone(&read.sections()[at]);
        assert!(section.replace_line(5, format!("server a 10.0.0.1:8080 weight {weight}")).is_ok());
        read.with_section(at, section)
    };
    c.bench_function("document/edit", |b| b.iter(|| edited(black_box("7"))));
    c.bench_function("document/insert", |b| {
        b.iter(|| {
            let mut document = read.clone();
            if let Ok(section) = Section::new("backend fresh", document.style()) {
                document.insert_section(document.place_for_new("backend"), section);
            }
            document
        });
    });
    c.bench_function("document/remove", |b| {
        b.iter(|| {
            let mut document = read.clone();
            document.remove_section(at);
            document
        });
    });
    let other = edited("8");
    c.bench_function("document/diff", |b| b.iter(|| Document::diff(black_box(&read), black_box(&other))));
    let again = Document::parse(&other.to_bytes());
    c.bench_function("document/diff of files", |b| b.iter(|| Document::diff(black_box(&read), black_box(&again))));
}

criterion_group!(benches, document);
criterion_main!(benches);
