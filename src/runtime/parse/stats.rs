//! `show stat` as CSV.

use std::sync::Arc;

use super::text;

/// A row of `show stat`: a frontend, a backend, a server or a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatRow {
    columns: Arc<[String]>,
    values: Vec<String>,
}

impl StatRow {
    /// A value by HAProxy's column name (`pxname`, `svname`, `scur`); none when it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.columns.iter().position(|column| column == name)?;
        self.values.get(at).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All values that are not empty, with their column names.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns
            .iter()
            .zip(&self.values)
            .filter(|(_, value)| !value.is_empty())
            .map(|(column, value)| (column.as_str(), value.as_str()))
    }
}

/// Reads `show stat` line by line.
#[derive(Debug, Default)]
pub struct StatsReader {
    columns: Option<Arc<[String]>>,
}

impl StatsReader {
    /// Reads a line; the header gives none.
    pub fn line(&mut self, line: &[u8]) -> Option<StatRow> {
        if let Some(header) = line.strip_prefix(b"# ") {
            self.columns = Some(cells(header).into());
            return None;
        }
        let columns = self.columns.clone()?;
        (!line.is_empty()).then(|| StatRow { columns, values: cells(line) })
    }
}

/// Cells may be quoted, with quotes doubled inside.
fn cells(line: &[u8]) -> Vec<String> {
    let (mut all, mut cell, mut quoted) = (Vec::with_capacity(100), Vec::new(), false);
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                cell.push(b'"');
            }
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                all.push(text(&cell));
                cell.clear();
            }
            byte => cell.push(byte),
        }
    }
    // HAProxy ends each line with a comma.
    if !cell.is_empty() {
        all.push(text(&cell));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_column_name() {
        let mut reader = StatsReader::default();
        let rows: Vec<_> = include_bytes!("../../../tests/data/runtime/show_stat.txt")
            .split(|&byte| byte == b'\n')
            .filter_map(|line| reader.line(line))
            .collect();
        let names: Vec<_> = rows.iter().map(|row| (row.get("pxname").unwrap(), row.get("svname").unwrap())).collect();
        assert!(names.contains(&("b1", "s2")) && names.contains(&("f", "FRONTEND")));
        let server = rows.iter().find(|row| row.get("svname") == Some("s2")).unwrap();
        assert_eq!(server.get("weight"), Some("10"));
        assert_eq!(server.get("qmax"), Some("0"));
        assert_eq!(server.get("check_status"), None);
        assert!(server.fields().all(|(_, value)| !value.is_empty()));
    }

    #[test]
    fn quotes_are_removed() {
        assert_eq!(cells(b"a,\"b, \"\"c\"\"\",,d,"), ["a", "b, \"c\"", "", "d"]);
    }
}
