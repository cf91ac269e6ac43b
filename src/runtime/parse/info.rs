//! `show info`.

/// A value of `show info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoValue {
    /// A whole number.
    Int(i64),
    /// Anything else.
    Text(String),
}

/// What `show info` says about the process, in HAProxy's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info {
    /// Names as HAProxy writes them (`Uptime_sec`, `Ulimit-n`) with their values.
    pub fields: Vec<(String, InfoValue)>,
}

impl Info {
    /// Reads the lines `Name: value`.
    pub fn parse(answer: &str) -> Self {
        let fields = answer
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| {
                let value = value.trim();
                let value = value.parse().map_or_else(|_| InfoValue::Text(value.to_owned()), InfoValue::Int);
                (name.to_owned(), value)
            })
            .collect();
        Info { fields }
    }

    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<&InfoValue> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A number by its name.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            InfoValue::Int(number) => Some(*number),
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
        let info = Info::parse(include_str!("../../../tests/data/runtime/show_info.txt"));
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
