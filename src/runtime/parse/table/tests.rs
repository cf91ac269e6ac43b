use super::*;

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n')
}

#[test]
fn tables_are_listed() {
    let tables: Vec<_> =
        lines(include_bytes!("../../../../tests/data/runtime/show_table.txt")).filter_map(parse_info).collect();
    let shown: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.kind, t.size)).collect();
    assert_eq!(
        shown,
        [
            ("t_ip6", Some(TableType::Ipv6), 1024),
            ("t_int", Some(TableType::Integer), 1024),
            ("t_bin", Some(TableType::Binary), 1024),
            ("t_str", Some(TableType::String), 102_400),
            ("t_ip", Some(TableType::Ip), 1_048_576),
        ]
    );
    assert!(parse_info(b"0x1: key=a use=0").is_none());
}

#[test]
fn every_scalar_type_of_an_entry_is_read() {
    let entries: Vec<_> =
        lines(include_bytes!("../../../../tests/data/runtime/show_table_ip.txt")).filter_map(parse_entry).collect();
    let entry = entries.iter().find(|entry| entry.key == "1.2.3.4").unwrap();
    assert!(entry.id.starts_with("0x"));
    assert_eq!((entry.uses, entry.expires_in), (0, 600_000));
    assert_eq!(entry.number(&DataType::ServerId), Some(3));
    assert_eq!(entry.number(&DataType::Gpc(0)), Some(5));
    let rate = entry.data.iter().find(|datum| datum.kind == DataType::ConnRate).unwrap();
    assert_eq!((rate.period, &rate.value), (Some(10_000), &DatumValue::Number(7)));
    assert_eq!(entry.data.len(), 21);
    assert!(entry.data.iter().all(|datum| !matches!(datum.kind, DataType::Other(_))), "{entry:?}");
}

#[test]
fn arrays_and_the_server_key_are_read() {
    let line = b"0x1: key=a use=2 exp=5 shard=0 server_key=- gpt0=0 gpt1=4 gpc0=3 gpc2=7 gpc1_rate(10000)=9 \
                 glitch_cnt=1 new_thing(3)=x";
    let entry = parse_entry(line).unwrap();
    assert_eq!((entry.uses, entry.expires_in), (2, 5));
    assert_eq!(entry.number(&DataType::Gpt(1)), Some(4));
    assert_eq!(entry.number(&DataType::Gpc(2)), Some(7));
    assert_eq!(entry.number(&DataType::GpcRate(1)), Some(9));
    assert_eq!(entry.number(&DataType::GlitchCnt), Some(1));
    assert_eq!(entry.data[0].value, DatumValue::Text("-".into()));
    let unknown = entry.data.last().unwrap();
    assert_eq!((&unknown.kind, unknown.period), (&DataType::Other("new_thing".into()), Some(3)));
}

#[test]
fn keys_with_blanks_signs_and_bytes_come_back_whole() {
    let keys: Vec<_> = lines(include_bytes!("../../../../tests/data/runtime/show_table_string.txt"))
        .filter_map(parse_entry)
        .map(|entry| entry.key)
        .collect();
    for key in [" lead", "a b=c", "q\"\\", "x y exp=3 z", "tab\there", "é"] {
        assert!(keys.iter().any(|known| known == key), "{key} in {keys:?}");
    }
    assert_eq!(parse_entry(b"0x1: key=\\xc3\\xa9\\n\\e\\x4 use=0 exp=0").unwrap().key, "é\n\u{1b}x4");
    assert_eq!(parse_entry(b"0x1: key= use=0 exp=0").unwrap().key, "");
}

#[test]
fn names_of_data_types_read_back() {
    for name in ["gpc0", "gpc15", "gpc1_rate", "gpt3", "server_key", "http_fail_rate", "strange", "gpcx", "gpt"] {
        assert_eq!(DataType::parse(name).to_string(), name);
    }
}

#[test]
fn filters_are_read_in_both_spellings() {
    let filter = Filter { kind: DataType::Gpc(0), operator: Operator::Ge, value: 5 };
    for text in ["gpc0 ge 5", "gpc0>=5", " gpc0 >= 5 ", "data.gpc0 ge 5"] {
        assert_eq!(text.parse::<Filter>().unwrap(), filter, "{text}");
    }
    for text in ["", "gpc0", "gpc0 gt", "gpc0 gt x", "gpc0 gt 5 6", "gpc0 => 5", "nothing gt 5", "gpc0 gt 5;clear"] {
        assert_eq!(text.parse::<Filter>().unwrap_err().reason(), Reason::InvalidValue, "{text}");
    }
    assert!(Operator::Lt.holds(1, 2) && !Operator::Lt.holds(2, 2) && Operator::Le.holds(2, 2));
}

#[test]
fn keys_are_escaped_as_haproxy_does() {
    let shown = include_bytes!("../../../../tests/data/runtime/show_table_string.txt");
    let mut seen = 0;
    for raw in lines(shown).filter_map(RawTableEntry::parse) {
        assert_eq!(escape_key(&raw.key_text()), raw.key);
        seen += 1;
    }
    assert_eq!(seen, 6);
    let odd = "\n\r\u{1b}\u{1}é=";
    assert_eq!(unescape(&escape_key(odd)), odd);
}
