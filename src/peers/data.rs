//! Stored data on the wire: one value after the other, in the order of the bits of their types.

use super::Malformed;
use super::varint::{put, put_counted, take, take_counted, take_u32};
use crate::runtime::DataType;

/// How values of a type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Number,
    Rate,
    Text,
}

/// A data type of the protocol.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    form: Form,
    /// Its values are arrays, whose length is part of the description of the table.
    array: bool,
}

const fn number(name: &'static str) -> Kind {
    Kind { name, form: Form::Number, array: false }
}

const fn rate(name: &'static str) -> Kind {
    Kind { name, form: Form::Rate, array: false }
}

/// By bit. The numbers have never moved; 25 and 26 came with HAProxy 3.0.
const KINDS: [Kind; 27] = [
    number("server_id"),
    number("gpt0"),
    number("gpc0"),
    rate("gpc0_rate"),
    number("conn_cnt"),
    rate("conn_rate"),
    number("conn_cur"),
    number("sess_cnt"),
    rate("sess_rate"),
    number("http_req_cnt"),
    rate("http_req_rate"),
    number("http_err_cnt"),
    rate("http_err_rate"),
    number("bytes_in_cnt"),
    rate("bytes_in_rate"),
    number("bytes_out_cnt"),
    rate("bytes_out_rate"),
    number("gpc1"),
    rate("gpc1_rate"),
    Kind { name: "server_key", form: Form::Text, array: false },
    number("http_fail_cnt"),
    rate("http_fail_rate"),
    Kind { name: "gpt", form: Form::Number, array: true },
    Kind { name: "gpc", form: Form::Number, array: true },
    Kind { name: "gpc_rate", form: Form::Rate, array: true },
    number("glitch_cnt"),
    rate("glitch_rate"),
];

/// Most elements of an array that HAProxy allows.
const ELEMENTS: u64 = 100;

/// One data type that a table stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Number of the type.
    bit: u8,
    /// Elements of an array; 1 for a single value.
    elements: u16,
    /// Milliseconds of the period of a rate.
    period: Option<u32>,
}

impl Column {
    /// The type of a bit, `None` for one that is not known.
    pub(super) fn of(bit: u32) -> Option<Column> {
        KINDS.get(bit as usize).map(|_| Column { bit: bit as u8, elements: 1, period: None })
    }

    /// The column of HAProxy's name, such as `gpc0` or `http_req_rate`, for an array with its number of elements.
    pub fn named(name: &str, elements: u16, period: Option<u32>) -> Option<Column> {
        let bit = KINDS.iter().position(|kind| kind.name == name)?;
        let kind = &KINDS[bit];
        let fits = (kind.array || elements == 1) && (kind.form == Form::Rate) == period.is_some() && elements > 0;
        fits.then_some(Column { bit: bit as u8, elements, period })
    }

    /// Whether HAProxy has a type of this name.
    pub fn is_name(name: &str) -> bool {
        KINDS.iter().any(|kind| kind.name == name)
    }

    fn kind(self) -> &'static Kind {
        &KINDS[usize::from(self.bit)]
    }

    pub(super) fn bit(self) -> u32 {
        u32::from(self.bit)
    }

    pub(super) fn form(self) -> Form {
        self.kind().form
    }

    /// HAProxy's name of the type.
    pub fn name(self) -> &'static str {
        self.kind().name
    }

    /// Values of an entry in this column.
    pub fn elements(self) -> u16 {
        self.elements
    }

    /// Milliseconds of the period of a rate; `None` for other types.
    pub fn period(self) -> Option<u32> {
        self.period
    }

    /// Each value by its own name, as HAProxy shows it: `gpc0` and `gpc1` for an array `gpc` of two.
    pub fn types(self) -> impl Iterator<Item = DataType> {
        let kind = self.kind();
        (0..self.elements).map(move |at| match (kind.array, kind.name) {
            (true, "gpt") => DataType::Gpt(at),
            (true, "gpc") => DataType::Gpc(at),
            (true, _) => DataType::GpcRate(at),
            (false, name) => DataType::parse(name),
        })
    }

    /// Reads the parameters that stand in the description of a table.
    pub(super) fn take_parameters(&mut self, bytes: &mut &[u8]) -> Result<(), Malformed> {
        let kind = self.kind();
        if !kind.array && kind.form != Form::Rate {
            return Ok(());
        }
        if take(bytes)? != u64::from(self.bit) {
            return Err(Malformed::OutOfRange);
        }
        if kind.array {
            let elements = take(bytes)?;
            if !(1..=ELEMENTS).contains(&elements) {
                return Err(Malformed::OutOfRange);
            }
            self.elements = elements as u16;
        }
        if kind.form == Form::Rate {
            self.period = Some(take_u32(bytes)?);
        }
        Ok(())
    }

    pub(super) fn put_parameters(self, out: &mut Vec<u8>) {
        let kind = self.kind();
        if !kind.array && kind.form != Form::Rate {
            return;
        }
        put(u64::from(self.bit), out);
        if kind.array {
            put(u64::from(self.elements), out);
        }
        if kind.form == Form::Rate {
            put(u64::from(self.period.unwrap_or(0)), out);
        }
    }
}

/// A rate as HAProxy counts it: events in the window that runs and in the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Milliseconds since the running window began. Huge for a counter that was never used.
    pub age: u32,
    /// Events in the running window.
    pub current: u32,
    /// Events in the window before.
    pub previous: u32,
}

impl Rate {
    /// Events in the last `period` milliseconds, as HAProxy would show them `later` milliseconds after the age was
    /// taken.
    pub fn value(self, period: u32, later: u64) -> u64 {
        let period = u64::from(period);
        let age = u64::from(self.age) + later;
        // Windows that ended meanwhile.
        let (current, previous, age) = if age >= 2 * period || period == 0 {
            return 0;
        } else if age >= period {
            (0, u64::from(self.current), age - period)
        } else {
            (u64::from(self.current), u64::from(self.previous), age)
        };
        // A lone event of the past does not fade before its window ends.
        if previous <= 1 && current == 0 {
            return previous;
        }
        current + previous * (period - age) / period
    }
}

/// One value of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A counter or a tag; a signed one is extended to 64 bits.
    Number(u64),
    /// A rate.
    Rate(Rate),
    /// No text.
    Nothing,
    /// A text that the sender remembers under a number from now on.
    Text(u64, &'a [u8]),
    /// The text that was sent with this number.
    Known(u64),
}

/// Reads the values of one entry.
pub(super) fn take_values<'a>(
    columns: &[Column],
    bytes: &mut &'a [u8],
    values: &mut Vec<Value<'a>>,
) -> Result<(), Malformed> {
    for column in columns {
        for _ in 0..column.elements {
            values.push(match column.form() {
                Form::Number => Value::Number(take(bytes)?),
                Form::Rate => {
                    let (age, current, previous) = (take_u32(bytes)?, take_u32(bytes)?, take_u32(bytes)?);
                    Value::Rate(Rate { age, current, previous })
                }
                Form::Text => take_text(bytes)?,
            });
        }
    }
    Ok(())
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<Value<'a>, Malformed> {
    let mut inner = take_counted(bytes)?;
    if inner.is_empty() {
        return Ok(Value::Nothing);
    }
    let number = take(&mut inner)?;
    Ok(if inner.is_empty() { Value::Known(number) } else { Value::Text(number, take_counted(&mut inner)?) })
}

/// Appends the values of one entry.
pub fn put_values(values: &[Value<'_>], out: &mut Vec<u8>) {
    for value in values {
        match value {
            Value::Number(number) => put(*number, out),
            Value::Rate(rate) => {
                for number in [rate.age, rate.current, rate.previous] {
                    put(u64::from(number), out);
                }
            }
            Value::Nothing => out.push(0),
            Value::Text(number, text) => {
                let mut inner = Vec::with_capacity(text.len() + 4);
                put(*number, &mut inner);
                put_counted(text, &mut inner);
                put_counted(&inner, out);
            }
            Value::Known(number) => {
                let mut inner = Vec::with_capacity(4);
                put(*number, &mut inner);
                put_counted(&inner, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_fades_as_haproxy_shows_it() {
        let rate = |age, current, previous| Rate { age, current, previous };
        assert_eq!(rate(0, 5, 10).value(10_000, 0), 15);
        assert_eq!(rate(2_500, 5, 10).value(10_000, 0), 12);
        assert_eq!(rate(2_500, 5, 10).value(10_000, 2_500), 10);
        assert_eq!(rate(2_500, 8, 10).value(10_000, 10_000), 6, "the window ended");
        assert_eq!(rate(0, 8, 10).value(10_000, 20_000), 0);
        assert_eq!(rate(4_294_954_868, 0, 0).value(10_000, 5), 0, "never used");
        assert_eq!(rate(9_000, 1, 0).value(10_000, 5_000), 1, "a lone event");
        assert_eq!(rate(0, 1, 1).value(0, 0), 0);
    }

    #[test]
    fn columns_are_found_by_name() {
        let column = Column::named("gpc_rate", 2, Some(1000)).unwrap();
        assert_eq!(column.types().collect::<Vec<_>>(), [DataType::GpcRate(0), DataType::GpcRate(1)]);
        assert_eq!(Column::named("gpc0", 1, None).unwrap().types().collect::<Vec<_>>(), [DataType::Gpc(0)]);
        for (name, elements, period) in
            [("gpc0", 2, None), ("gpc0", 1, Some(1)), ("conn_rate", 1, None), ("odd", 1, None)]
        {
            assert_eq!(Column::named(name, elements, period), None, "{name}");
        }
    }
}
