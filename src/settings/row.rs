//! What a row of the table of settings holds.

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A path; relative ones are meant from the working folder.
    Path,
    /// true or false.
    Switch,
    /// A whole number from the first to the second.
    Whole(u64, u64),
    /// A time; a bare number counts in units of so many milliseconds.
    Time(u64),
    /// A number of bytes.
    Size,
    /// An address `host:port`.
    Address,
    /// Several texts.
    List,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Not looked at.
    Any,
    /// Not looked at, and nothing is missing because of it.
    None,
}

impl Kind {
    /// Name of the value in the help of the command line.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Kind::Text => "TEXT",
            Kind::Path => "PATH",
            Kind::Switch => "true|false",
            Kind::Whole(..) => "NUMBER",
            Kind::Time(_) => "TIME",
            Kind::Size => "SIZE",
            Kind::Address => "ADDRESS",
            Kind::List => "LIST",
            Kind::OneOf(_) => "WORD",
            Kind::Any | Kind::None => "VALUE",
        }
    }

    /// What was expected, for messages.
    pub(super) fn expected(self) -> String {
        match self {
            Kind::Text | Kind::Any | Kind::None => "text".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Kind::Time(1000) => "a time such as 5 (seconds), 5s or 500ms".to_owned(),
            Kind::Time(86_400_000) => "a time such as 1 (day), 1d or 12h".to_owned(),
            Kind::Time(_) => "a time such as 24h, 30m or 90s".to_owned(),
            Kind::Size => "a size such as 65536, 64KiB or 1MiB".to_owned(),
            Kind::Address => "an address such as 127.0.0.1:8080".to_owned(),
            Kind::List => "a list of texts".to_owned(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Long flag without dashes; empty when there is none.
    pub(super) flag: &'static str,
    /// Short flag.
    pub(super) short: Option<char>,
    /// Path in the YAML file.
    pub(super) key: &'static str,
    /// What a value must be.
    pub(super) kind: Kind,
    /// As it stands in the documentation.
    pub(super) default: &'static str,
    /// Empty for a setting that is known and not supported yet.
    pub(super) meaning: &'static str,
}

impl Row {
    /// Whether it has an effect.
    pub(super) fn supported(&self) -> bool {
        !self.meaning.is_empty()
    }
}

pub(super) const fn row(
    flag: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Row {
    Row { flag, short: None, key, kind, default, meaning }
}

pub(super) const fn short(letter: char, row: Row) -> Row {
    Row { short: Some(letter), ..row }
}

/// A setting of the Data Plane API that is known and has no effect yet.
pub(super) const fn later(flag: &'static str, key: &'static str) -> Row {
    row(flag, key, Kind::Any, "", "")
}

/// A key that the Data Plane API writes into every file by itself: without effect, and not worth a warning.
pub(super) const fn silent(key: &'static str) -> Row {
    row("", key, Kind::None, "", "")
}
