use serde_json::Value as Json;

use super::super::data::{put_values, take_values};
use super::super::{Frames, Message, Phase, Table};
use super::{Notes, bytes, open};

const FROM: [(&str, &str); 4] = [
    ("2.6", include_str!("../../../tests/data/peers/from-haproxy-2.6.jsonl")),
    ("2.9", include_str!("../../../tests/data/peers/from-haproxy-2.9.jsonl")),
    ("3.0", include_str!("../../../tests/data/peers/from-haproxy-3.0.jsonl")),
    ("3.2", include_str!("../../../tests/data/peers/from-haproxy-3.2.jsonl")),
];
const STREAMS: [(&str, &str); 4] = [
    ("2.6", include_str!("../../../tests/data/peers/stream-2.6.hex")),
    ("2.9", include_str!("../../../tests/data/peers/stream-2.9.hex")),
    ("3.0", include_str!("../../../tests/data/peers/stream-3.0.hex")),
    ("3.2", include_str!("../../../tests/data/peers/stream-3.2.hex")),
];

/// The message of a frame again as bytes: those of an update by way of its key and values.
fn again(message: &Message<'_>, table: Option<&Table>) -> Vec<u8> {
    let mut out = Vec::new();
    let Message::Update { number, expires_in, body } = message else {
        message.put(&mut out);
        return out;
    };
    let (table, mut rest) = (table.expect("a table"), *body);
    let key = table.take_key(&mut rest).unwrap();
    let mut values = Vec::new();
    take_values(&table.columns, &mut rest, &mut values).unwrap();
    assert!(rest.is_empty(), "bytes are left");
    let mut body = Vec::new();
    table.put_key(key, &mut body);
    put_values(&values, &mut body);
    Message::Update { number: *number, expires_in: *expires_in, body: &body }.put(&mut out);
    out
}

fn frame<R>(bytes: &[u8], with: impl FnOnce(&Message<'_>) -> R) -> R {
    let mut frames = Frames::default();
    frames.push(bytes);
    let read = with(&frames.messages().next_message().unwrap().expect("a whole message"));
    assert_eq!(frames.messages().next_message(), Ok(None));
    read
}

#[test]
fn every_message_is_read_and_written_byte_for_byte() {
    let mut seen = 0;
    for (version, text) in FROM {
        for line in text.lines() {
            let record: Json = serde_json::from_str(line).unwrap();
            let decoded = &record["decoded"];
            if decoded.get("hello").is_some() || decoded.get("status").is_some() {
                continue;
            }
            let hex = bytes(record["hex"].as_str().unwrap());
            let table = record["table_def_hex"].as_str().map(|hex| {
                frame(&bytes(hex), |message| match message {
                    Message::Define(table) => table.clone(),
                    other => panic!("{other:?}"),
                })
            });
            frame(&hex, |message| {
                assert_eq!(again(message, table.as_ref()), hex, "{version}: {decoded}");
                assert_ne!(*message, Message::Other, "{version}: {decoded}");
                if let Message::Define(table) = message {
                    let described = &decoded["table_definition"];
                    assert_eq!(table.name, described["name"]);
                    let names: Vec<_> = described["data_types"].as_array().unwrap().iter().collect();
                    assert_eq!(table.columns.len(), names.len());
                    for (column, known) in table.columns.iter().zip(names) {
                        assert_eq!(column.name(), known["name"]);
                        assert_eq!(column.period().map(u64::from), known["period_ms"].as_u64());
                        assert_eq!(u64::from(column.elements()), known["nbelem"].as_u64().unwrap_or(1));
                    }
                }
            });
            seen += 1;
        }
    }
    assert!(seen > 500, "{seen}");
}

#[test]
fn a_stream_reads_the_same_in_one_piece_and_byte_by_byte() {
    for (version, hex) in STREAMS {
        let stream = bytes(hex);
        let (mut whole, mut pieces) = (Notes::default(), Notes::default());
        let mut session = open();
        session.receive(b"200\n", 1, &mut whole).unwrap();
        session.receive(&stream, 2, &mut whole).unwrap();
        assert_eq!(session.phase(), Phase::Live, "{version}");
        let answer = session.output();
        let mut session = open();
        session.receive(b"200\n", 1, &mut pieces).unwrap();
        for byte in &stream {
            session.receive(&[*byte], 2, &mut pieces).unwrap();
        }
        assert_eq!(whole.lines, pieces.lines, "{version}");
        assert!(whole.updates > 20 && whole.tables.len() >= 8, "{version}: {whole:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HAProxyS 2.1\nhap1\nagent 42 1\n"), "{text}");
    }
}

#[test]
fn keys_and_values_are_those_that_were_seen() {
    for (version, text) in FROM {
        let mut notes = Notes::default();
        let mut expected = Vec::new();
        let mut session = open();
        let mut capture = String::new();
        for line in text.lines() {
            let record: Json = serde_json::from_str(line).unwrap();
            if record["dir"] != "from_haproxy" {
                continue;
            }
            if capture != record["capture"].as_str().unwrap() {
                capture = record["capture"].as_str().unwrap().to_owned();
                session = open();
                session.receive(b"200\n", 1, &mut Notes::default()).unwrap();
            }
            let decoded = &record["decoded"];
            if decoded.get("status").is_some() {
                continue;
            }
            session.receive(&bytes(record["hex"].as_str().unwrap()), 2, &mut notes).unwrap();
            if let Some(update) = decoded.get("update") {
                let expires = update["expire_in_ms"].as_u64().map(|left| format!(" for {left}")).unwrap_or_default();
                expected.push(format!(
                    "{} {} #{}{expires}: ",
                    update["table"].as_str().unwrap(),
                    update["key"].as_str().unwrap(),
                    update["update_id"],
                ));
            }
        }
        let updates: Vec<_> = notes.lines.iter().filter(|line| line.contains('#')).collect();
        assert_eq!(updates.len(), expected.len(), "{version}");
        for (line, begin) in updates.iter().zip(&expected) {
            // Keys of bytes are in capitals, as HAProxy shows them.
            assert!(line.to_lowercase().starts_with(&begin.to_lowercase()), "{version}: {line} / {begin}");
        }
    }
}
