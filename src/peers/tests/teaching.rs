use proptest::prelude::*;
use serde_json::Value as Json;

use super::super::{Column, KeyType, Lesson, Message, Rate, Session, Table, Taken, Value};
use super::{Notes, bytes, open};

fn table() -> Table {
    let columns =
        vec![Column::named("gpc0", 1, None).unwrap(), Column::named("http_req_rate", 1, Some(60_000)).unwrap()];
    Table {
        id: 77,
        name: "t_ip".into(),
        key_type: KeyType::Ip,
        key_length: 4,
        columns,
        expire: 3_600_000,
        unknown: None,
    }
}

fn live() -> Session {
    let (mut session, mut notes) = (open(), Notes::default());
    session.receive(b"200\n", 1, &mut notes).unwrap();
    session.output();
    session
}

fn entry<'a>(key: &'a [u8], expires_in: Option<u32>, values: &'a [Value<'a>]) -> Lesson<'a> {
    Lesson { key, expires_in, values }
}

/// What a session sends, as another one reads it.
fn read(sent: &[u8]) -> Vec<String> {
    let (mut session, mut notes) = (live(), Notes::default());
    session.receive(sent, 2, &mut notes).unwrap();
    notes.lines
}

#[test]
fn entries_have_the_bytes_that_haproxy_took() {
    let mut session = live();
    let rate = Value::Rate(Rate { age: 16, current: 30, previous: 12 });
    let one = [Value::Number(500), rate.clone()];
    session.teach(&table(), entry(&[10, 0, 0, 1], None, &one));
    // As in the captures, but for our own number of the table.
    let taught = "0a8212 01 04745f69700404f431f0d9dc0c0af0971c 0a800d000000010a000001f410101e0c";
    assert_eq!(session.output(), bytes(taught));
    let two = [Value::Number(501), rate];
    session.teach(&table(), entry(&[10, 0, 0, 2], Some(90_000), &two));
    assert_eq!(session.output(), bytes("0a8511 00000002 00015f90 0a000002 f510 101e0c"));
    // No longer than the table allows; and where nothing expires it cannot.
    session.teach(&table(), entry(&[10, 0, 0, 2], Some(u32::MAX), &two));
    assert_eq!(session.output(), bytes("0a8511 00000003 0036ee80 0a000002 f510 101e0c"));
    let for_ever = Table { expire: 0, ..table() };
    session.teach(&for_ever, entry(&[10, 0, 0, 2], Some(1), &two));
    assert!(read(&session.output()).ends_with(&["t_ip 10.0.0.2 #4: 501 16/30/12".into()]));

    // Another table, some columns only, and texts.
    let mut other = table();
    other.name = "u".into();
    other.columns = ["gpt0", "server_key"].map(|name| Column::named(name, 1, None).unwrap()).into();
    for (text, shown) in [(Value::Text(900, b"s1"), "s1"), (Value::Nothing, "-"), (Value::Known(3), "-")] {
        let values = [Value::Number(5), text];
        session.teach(&other, entry(&[1, 2, 3, 4], None, &values));
        session.teach(&table(), entry(&[10, 0, 0, 1], None, &one));
        let lines = read(&session.output());
        assert_eq!((&*lines[0], &*lines[2]), ("table u", "table t_ip"));
        assert!(lines[1].starts_with("u 1.2.3.4 #") && lines[1].ends_with(&format!(": 5 {shown}")), "{lines:?}");
    }
}

#[test]
fn that_haproxy_takes_it_shows_in_acknowledgements() {
    let (mut session, mut notes) = (live(), Notes::default());
    let values = [Value::Number(1), Value::Rate(Rate::default())];
    let entry = entry(&[1, 2, 3, 4], None, &values);
    assert_eq!(session.taken("t_ip"), Taken::Unknown);
    session.teach(&table(), entry);
    session.teach(&table(), entry);
    assert_eq!(session.taken("t_ip"), Taken::Waiting);
    let mut hear = |session: &mut Session, message: Message<'_>| {
        let mut stream = Vec::new();
        message.put(&mut stream);
        session.receive(&stream, 2, &mut notes).unwrap();
    };
    hear(&mut session, Message::Ack { table: 1, update: 1 });
    assert_eq!(session.taken("t_ip"), Taken::Waiting);
    hear(&mut session, Message::Ack { table: 9, update: 2 });
    hear(&mut session, Message::Ack { table: 1, update: 2 });
    assert_eq!(session.taken("t_ip"), Taken::All);
    // What it asks for it need not acknowledge.
    hear(&mut session, Message::ResyncRequest);
    session.teach(&table(), entry);
    assert_eq!(session.taken("t_ip"), Taken::All);
    session.finish();
    session.teach(&table(), entry);
    assert_eq!(session.taken("t_ip"), Taken::Waiting);
    assert!(
        session.output().ends_with(&bytes("0001 0a8009 00000004 01020304 01 00 00 00".replace("09", "0c").as_str()))
    );
}

#[test]
fn nothing_is_taught_before_the_greeting_is_answered() {
    let mut session = open();
    session.output();
    let values = [Value::Number(1), Value::Rate(Rate::default())];
    assert!(!session.has_room());
    session.teach(&table(), entry(&[1, 2, 3, 4], None, &values));
    assert!(session.output().is_empty());
    session.receive(b"200\n", 1, &mut Notes::default()).unwrap();
    while session.has_room() {
        session.teach(&table(), entry(&[1, 2, 3, 4], None, &values));
    }
    assert!((64 << 10..65 << 10).contains(&session.output().len()));
}

/// What was taught to real HAProxys, which acknowledged it, is read as it was meant.
#[test]
fn the_lessons_of_the_captures_are_read() {
    let mut seen = 0;
    for (version, text) in [
        ("2.6", include_str!("../../../tests/data/peers/to-haproxy-2.6.jsonl")),
        ("2.9", include_str!("../../../tests/data/peers/to-haproxy-2.9.jsonl")),
        ("3.0", include_str!("../../../tests/data/peers/to-haproxy-3.0.jsonl")),
        ("3.2", include_str!("../../../tests/data/peers/to-haproxy-3.2.jsonl")),
    ] {
        for line in text.lines() {
            let record: Json = serde_json::from_str(line).unwrap();
            let Some(messages) = record["messages_hex"].as_array() else { continue };
            let taken = record["reply_hex"].as_str().is_some_and(|reply| reply.starts_with("0a84"));
            if !taken || record["case"].as_str().unwrap().contains("superset") {
                continue;
            }
            let (mut session, mut notes) = (live(), Notes::default());
            let stream: String = messages.iter().map(|message| message.as_str().unwrap()).collect();
            session.receive(&bytes(&stream), 2, &mut notes).unwrap();
            assert_eq!(notes.updates, messages.len() - 1, "{version}: {}", record["case"]);
            for shown in record["show_table"].as_array().into_iter().flatten() {
                let key = shown.as_str().unwrap().split(' ').next().unwrap().trim_start_matches("key=");
                assert!(notes.lines.iter().any(|line| line.contains(key)), "{version}: {shown} {:?}", notes.lines);
            }
            // Its own acknowledgement is what HAProxy's was.
            assert_eq!(session.output(), bytes(record["reply_hex"].as_str().unwrap()), "{version}: {}", record["case"]);
            seen += 1;
        }
    }
    assert!(seen >= 32, "{seen}");
}

proptest! {
    #[test]
    fn what_is_taught_reads_back(
        entries in proptest::collection::vec((any::<[u8; 4]>(), any::<Option<u32>>(), any::<u64>(), any::<[u32; 3]>(), any::<bool>()), 1..50)
    ) {
        let mut session = live();
        let mut expected = Vec::new();
        let (mut numbers, mut last) = ([0, 0], None);
        for (key, expires_in, number, [age, current, previous], second) in entries {
            let mut table = table();
            if second {
                table.name = "second".into();
            }
            let rate = Rate { age, current, previous };
            let values = [Value::Number(number), Value::Rate(rate)];
            session.teach(&table, entry(&key, expires_in, &values));
            numbers[usize::from(second)] += 1;
            if last.replace(second) != Some(second) && numbers[usize::from(second)] == 1 {
                expected.push(format!("table {}", table.name));
            }
            let expires = expires_in.map(|left| format!(" for {}", left.min(table.expire))).unwrap_or_default();
            let (shown, id) = (std::net::Ipv4Addr::from(key), numbers[usize::from(second)]);
            expected.push(format!("{} {shown} #{id}{expires}: {number} {age}/{current}/{previous}", table.name));
        }
        prop_assert_eq!(read(&session.output()), expected);
    }
}
