//! Entries as messages, and back.

use super::field;
use crate::proto::runtime as pb;
use crate::runtime::{DataType, Datum, DatumValue, TableEntry};
use crate::stick_table::Entry;

/// What an entry holds.
pub(super) fn fields(data: Option<&[Datum]>) -> Vec<pb::StickTableField> {
    let data = data.unwrap_or_default();
    // The array that it may be an element of, and how many of its elements are data types of their own.
    let array = |datum: &Datum| match datum.kind {
        DataType::Gpt(n) => Some(("gpt", n, 1)),
        DataType::Gpc(n) => Some(("gpc", n, 2)),
        DataType::GpcRate(n) => Some(("gpc_rate", n, 2)),
        _ => None,
    };
    let item = |datum: &Datum| {
        let period = datum.period.map(|period| period.to_string());
        if let Some((name, n, own)) = array(datum) {
            let count = data.iter().filter_map(array).filter(|(other, ..)| *other == name).count();
            if count > own {
                let arguments: Vec<String> = std::iter::once(count.to_string()).chain(period).collect();
                return (n == 0).then(|| format!("{name}({})", arguments.join(",")));
            }
        }
        Some(period.map_or_else(|| datum.kind.to_string(), |period| format!("{}({period})", datum.kind)))
    };
    data.iter().filter_map(item).map(|item| field(&item)).collect()
}

/// An entry of a mirror.
pub(super) fn mirrored(entry: Entry) -> pb::StickTableEntry {
    let mut message = pb::StickTableEntry {
        key: Some(entry.key),
        r#use: Some(entry.uses > 0),
        exp: entry.expires_in.and_then(|ms| i64::try_from(ms).ok()),
        ..pb::StickTableEntry::default()
    };
    fill(&mut message, entry.data);
    message
}

pub(super) fn message(entry: TableEntry) -> pb::StickTableEntry {
    let mut message = pb::StickTableEntry {
        id: Some(entry.id),
        key: Some(entry.key),
        r#use: Some(entry.uses > 0),
        exp: i64::try_from(entry.expires_in).ok(),
        ..pb::StickTableEntry::default()
    };
    fill(&mut message, entry.data);
    message
}

macro_rules! data_fields {
    ($($kind:ident = $field:ident,)+) => {
        /// Puts stored data into the fields of their names.
        fn fill(message: &mut pb::StickTableEntry, data: Vec<Datum>) {
            for datum in data {
                let number = match datum.value {
                    DatumValue::Number(number) => i64::try_from(number).unwrap_or(i64::MAX),
                    DatumValue::Text(text) => {
                        message.server_key = Some(text);
                        continue;
                    }
                };
                match datum.kind {
                    $(DataType::$kind => message.$field = Some(number),)+
                    DataType::Gpt(n) => {
                        if n == 0 { message.gpt0 = Some(number) }
                        array(&mut message.gpt_array, &mut message.gpt, n, 1, number);
                    }
                    DataType::Gpc(n) => {
                        if n == 0 { message.gpc0 = Some(number) }
                        if n == 1 { message.gpc1 = Some(number) }
                        array(&mut message.gpc_array, &mut message.gpc, n, 2, number);
                    }
                    DataType::GpcRate(n) => {
                        if n == 0 { message.gpc0_rate = Some(number) }
                        if n == 1 { message.gpc1_rate = Some(number) }
                        array(&mut message.gpc_rate_array, &mut message.gpc_rate, n, 2, number);
                    }
                    DataType::ServerKey | DataType::Other(_) => {}
                }
            }
        }

        /// The numbers that an entry gives, each data type once.
        pub(super) fn data(entry: Option<&pb::StickTableEntry>) -> Vec<(DataType, i64)> {
            let Some(entry) = entry else { return Vec::new() };
            let mut out: Vec<(DataType, i64)> = Vec::new();
            let mut add = |kind, value: Option<i64>| {
                if let Some(number) = value && !out.iter().any(|(known, _)| *known == kind) {
                    out.push((kind, number));
                }
            };
            $(add(DataType::$kind, entry.$field);)+
            add(DataType::Gpt(0), entry.gpt0);
            add(DataType::Gpc(0), entry.gpc0);
            add(DataType::Gpc(1), entry.gpc1);
            add(DataType::GpcRate(0), entry.gpc0_rate);
            add(DataType::GpcRate(1), entry.gpc1_rate);
            let index = |element: &pb::IndexedCounter| u16::try_from(element.idx.unwrap_or(0)).unwrap_or(u16::MAX);
            if let Some(element) = &entry.gpt { add(DataType::Gpt(index(element)), element.value) }
            if let Some(element) = &entry.gpc { add(DataType::Gpc(index(element)), element.value) }
            if let Some(element) = &entry.gpc_rate { add(DataType::GpcRate(index(element)), element.value) }
            let numbered = |all: &[i64]| (0_u16..).zip(all.to_vec());
            numbered(&entry.gpt_array).for_each(|(n, value)| add(DataType::Gpt(n), Some(value)));
            numbered(&entry.gpc_array).for_each(|(n, value)| add(DataType::Gpc(n), Some(value)));
            numbered(&entry.gpc_rate_array).for_each(|(n, value)| add(DataType::GpcRate(n), Some(value)));
            out
        }
    };
}

data_fields! {
    ServerId = server_id,
    ConnCnt = conn_cnt,
    ConnRate = conn_rate,
    ConnCur = conn_cur,
    SessCnt = sess_cnt,
    SessRate = sess_rate,
    HttpReqCnt = http_req_cnt,
    HttpReqRate = http_req_rate,
    HttpErrCnt = http_err_cnt,
    HttpErrRate = http_err_rate,
    HttpFailCnt = http_fail_cnt,
    HttpFailRate = http_fail_rate,
    BytesInCnt = bytes_in_cnt,
    BytesInRate = bytes_in_rate,
    BytesOutCnt = bytes_out_cnt,
    BytesOutRate = bytes_out_rate,
    GlitchCnt = glitch_cnt,
    GlitchRate = glitch_rate,
}

/// Adds element `n` to an array; the single field shows the first element beyond the `named` ones that have a field of
/// their own.
fn array(all: &mut Vec<i64>, single: &mut Option<pb::IndexedCounter>, n: u16, named: u16, number: i64) {
    let at = usize::from(n);
    if all.len() <= at {
        all.resize(at + 1, 0);
    }
    all[at] = number;
    if n >= named && number != 0 && single.is_none() {
        *single = Some(pb::IndexedCounter { idx: Some(i64::from(n)), value: Some(number) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_holds_is_shown_with_periods_and_elements() {
        let datum = |name: &str, period| Datum { kind: DataType::parse(name), period, value: DatumValue::Number(0) };
        let shown = |data: &[Datum]| -> Vec<_> {
            let name = |field: &pb::StickTableField| field.field().as_str_name().replace("STICK_TABLE_DATA_TYPE_", "");
            fields(Some(data)).iter().map(|field| (name(field), field.idx, field.period)).collect()
        };
        let plain =
            [datum("gpc0", None), datum("gpc1", None), datum("gpc0_rate", Some(500)), datum("server_key", None)];
        let row = |name: &str, idx, period| (name.to_owned(), idx, period);
        assert_eq!(
            shown(&plain),
            [
                row("GPC0", None, None),
                row("GPC1", None, None),
                row("GPC0_RATE", None, Some(500)),
                row("SERVER_KEY", None, None)
            ]
        );
        let arrays: Vec<_> = ["gpt0", "gpt1", "gpc0_rate", "gpc1_rate", "gpc2_rate"]
            .map(|name| datum(name, name.ends_with("rate").then_some(10_000)))
            .into();
        assert_eq!(shown(&arrays), [row("GPT", Some(2), None), row("GPC_RATE", Some(3), Some(10_000))]);
        assert_eq!(fields(None), []);
    }
}
