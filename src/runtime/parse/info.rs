//! `show info`.

/// A value of `show info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InfoValue<'a> {
    /// A whole number.
    Int(i64),
    /// Anything else.
    Text(&'a str),
}

/// What `show info` says about the process. Its lines are only read when somebody wants them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info {
    text: String,
}

impl Info {
    /// Holds the lines `Name: value`.
    pub fn new(answer: String) -> Self {
        Info { text: answer }
    }

    /// Names as HAProxy writes them (`Uptime_sec`, `Ulimit-n`) with their values, in HAProxy's order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, InfoValue<'_>)> {
        self.text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| {
            let value = value.trim();
            (name, value.parse().map_or(InfoValue::Text(value), InfoValue::Int))
        })
    }

    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<InfoValue<'_>> {
        self.fields().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A number by its name.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            InfoValue::Int(number) => Some(number),
            InfoValue::Text(_) => None,
        }
    }

    /// A text by its name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            InfoValue::Text(text) => Some(text),
            InfoValue::Int(_) => None,
        }
    }

    /// HAProxy's version, such as `2.6.12-1+deb12u4`.
    pub fn version(&self) -> Option<&str> {
        self.text("Version")
    }

    /// The process that answered.
    pub fn pid(&self) -> Option<i64> {
        self.int("Pid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_told_apart() {
        let info = Info::new(include_str!("../../../tests/data/runtime/show_info.txt").to_owned());
        assert_eq!(info.version(), Some("2.6.12-1+deb12u4"));
        assert_eq!(info.int("Nbthread"), Some(2));
        assert_eq!(info.text("Uptime"), Some("0d 0h00m01s"));
        assert_eq!(info.int("Ulimit-n"), Some(19999));
        assert_eq!(info.text("Release_date"), Some("2026/10/17"));
        assert_eq!(info.get("Description"), None);
        assert!(info.pid().is_some());
        assert_eq!(info.get("nothing"), None);
    }
}
