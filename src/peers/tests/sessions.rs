use super::super::data::put_values;
use super::super::{Closed, Column, KeyType, Malformed, Message, Phase, Rate, Table, Value};
use super::{Notes, open};

fn table() -> Table {
    let columns =
        ["gpc0", "http_req_rate"].map(|name| Column::named(name, 1, name.ends_with("rate").then_some(10_000)).unwrap());
    Table {
        id: 3,
        name: "t".into(),
        key_type: KeyType::String,
        key_length: 33,
        columns: columns.into(),
        expire: 60_000,
        unknown: None,
    }
}

fn put(messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        message.put(&mut out);
    }
    out
}

fn body(key: &str, gpc0: u64) -> Vec<u8> {
    let mut out = Vec::new();
    table().put_key(key.as_bytes(), &mut out);
    let rate = Rate { age: 5, current: 2, previous: 1 };
    put_values(&[Value::Number(gpc0), Value::Rate(rate)], &mut out);
    out
}

#[test]
fn a_session_asks_for_everything_answers_what_haproxy_waits_for_and_acknowledges() {
    let (mut session, mut notes) = (open(), Notes::default());
    assert_eq!(session.output(), b"HAProxyS 2.1\nhap1\nagent 42 1\n");
    session.receive(b"20", 1, &mut notes).unwrap();
    assert_eq!(session.phase(), Phase::Greeting);
    session.receive(b"0\r\n", 2, &mut notes).unwrap();
    assert_eq!(session.output(), put(&[Message::Heartbeat, Message::ResyncRequest]));

    let (one, two) = (body("a", 1), body("b", 2));
    let update = |number, expires_in, body| Message::Update { number, expires_in, body };
    let stream = put(&[
        Message::ResyncRequest,
        Message::Define(table()),
        update(Some(7), Some(500), &one),
        update(None, None, &two),
        Message::ResyncFinished,
    ]);
    session.receive(&stream, 3, &mut notes).unwrap();
    assert_eq!(notes.lines, ["resync", "asked", "table t", "t a #7 for 500: 1 5/2/1", "t b #8: 2 5/2/1", "resynced"]);
    let ack = Message::Ack { table: 3, update: 8 };
    assert!(session.is_asked());
    session.finish();
    session.finish();
    assert_eq!(session.output(), put(&[Message::ResyncConfirm, ack, Message::ResyncFinished]));
    assert_eq!(session.phase(), Phase::Live);

    // The same description says nothing new; another one does.
    notes.lines.clear();
    session.receive(&put(&[Message::Define(table())]), 4, &mut notes).unwrap();
    assert!(notes.lines.is_empty());
    session.receive(&put(&[Message::Define(Table { expire: 5, ..table() })]), 4, &mut notes).unwrap();
    assert_eq!(notes.lines, ["table t"]);
    session.resync(&mut notes);
    assert_eq!((session.phase(), session.output()), (Phase::Resync, put(&[Message::ResyncRequest])));
    // Each table is told once more: the last one at once, since it may not be described again.
    assert_eq!(notes.lines, ["table t", "resync", "table t"]);
    notes.lines.clear();
    let same = Message::Define(Table { expire: 5, ..table() });
    let other = Message::Define(Table { id: 4, name: "u".into(), ..table() });
    session.receive(&put(&[other.clone(), same, Message::ResyncFinished]), 5, &mut notes).unwrap();
    assert_eq!(notes.lines, ["table u", "resynced"]);
    notes.lines.clear();
    session.resync(&mut notes);
    session.receive(&put(&[other.clone(), other]), 6, &mut notes).unwrap();
    assert_eq!(notes.lines, ["resync", "table t", "table u"]);
}

#[test]
fn signs_of_life_are_sent_and_expected() {
    let (mut session, mut notes) = (open(), Notes::default());
    session.tick(9_999).unwrap();
    assert_eq!(open().tick(10_000), Err(Closed::Silent));
    session.receive(b"200\n", 10_000, &mut notes).unwrap();
    drop(session.output());
    session.tick(11_999).unwrap();
    assert!(session.output().is_empty());
    session.tick(12_000).unwrap();
    assert_eq!(session.output(), put(&[Message::Heartbeat]));
    session.receive(&put(&[Message::Heartbeat]), 13_000, &mut notes).unwrap();
    session.tick(22_999).unwrap();
    assert_eq!(session.tick(23_000), Err(Closed::Silent));
}

#[test]
fn what_ends_a_session_is_told() {
    for (answer, closed) in [
        (&b"503\n"[..], Closed::Refused(503)),
        (b"504\n", Closed::Refused(504)),
        (b"HTTP/1.0 400 Bad Request\n", Closed::NoPeer),
        (&[b'x'; 100], Closed::NoPeer),
        (b"\xff\n", Closed::NoPeer),
    ] {
        assert_eq!(open().receive(answer, 1, &mut Notes::default()), Err(closed));
    }
    let undescribed = body("a", 1);
    for (stream, closed) in [
        (put(&[Message::Error(0)]), Closed::Complains(0)),
        (vec![255, 1], Closed::Malformed(Malformed::Unexpected)),
        (put(&[Message::Switch(9)]), Closed::Malformed(Malformed::UnknownTable)),
        (
            put(&[Message::Update { number: None, expires_in: None, body: &undescribed }]),
            Closed::Malformed(Malformed::UnknownTable),
        ),
        (
            put(&[
                Message::Define(table()),
                Message::Update { number: Some(1), expires_in: None, body: &undescribed[..3] },
            ]),
            Closed::Malformed(Malformed::Truncated),
        ),
        (vec![10, 0x80, 0xff, 0xff, 0xff, 0xff, 0x7f], Closed::Malformed(Malformed::TooLarge)),
    ] {
        let mut session = open();
        session.receive(b"200\n", 1, &mut Notes::default()).unwrap();
        assert_eq!(session.receive(&stream, 2, &mut Notes::default()), Err(closed));
    }
}

#[test]
fn tables_with_unknown_data_are_told_and_their_entries_left() {
    let (mut session, mut notes) = (open(), Notes::default());
    session.receive(b"200\n", 1, &mut notes).unwrap();
    // Bit 30, in the place of the known ones.
    let mut stream = vec![10, 0x82];
    let mut payload = vec![1, 1, b't', 2, 4];
    super::super::varint::put(1 << 30 | 1 << 2, &mut payload);
    payload.push(0);
    super::super::varint::put_counted(&payload, &mut stream);
    let update = Message::Update { number: Some(4), expires_in: None, body: b"\0\0\0\x01anything" };
    stream.extend(put(&[update]));
    session.receive(&stream, 2, &mut notes).unwrap();
    assert_eq!((notes.tables[0].unknown, notes.updates), (Some(30), 0));
}
