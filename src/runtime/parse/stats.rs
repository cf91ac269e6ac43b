//! `show stat` as CSV.

use std::sync::Arc;

/// A row of `show stat`: a frontend, a backend, a server or a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatRow {
    columns: Arc<[String]>,
    values: Cells,
}

impl StatRow {
    /// A value by HAProxy's column name (`pxname`, `svname`, `scur`); none when it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.columns.iter().position(|column| column == name)?;
        self.values.get(at).filter(|value| !value.is_empty())
    }

    /// The names of all columns, which rows of one answer share.
    pub fn columns(&self) -> &Arc<[String]> {
        &self.columns
    }

    /// The value of each column, empty ones too.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter()
    }

    /// All values that are not empty, with their column names.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns
            .iter()
            .zip(self.values())
            .filter(|(_, value)| !value.is_empty())
            .map(|(column, value)| (column.as_str(), value))
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
            self.columns = Some(cells(header).iter().map(str::to_owned).collect());
            return None;
        }
        let columns = self.columns.clone()?;
        (!line.is_empty()).then(|| StatRow { columns, values: cells(line) })
    }
}

/// The cells of a line, one text after the other: there are a hundred in each, most of them empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cells {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Cells {
    fn get(&self, at: usize) -> Option<&str> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.text.get(start as usize..*self.ends.get(at)? as usize)
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|at| self.get(at))
    }

    fn push(&mut self, cell: &[u8]) {
        self.text.push_str(&String::from_utf8_lossy(cell));
        self.ends.push(self.text.len() as u32);
    }
}

/// Cells may be quoted, with quotes doubled inside.
fn cells(line: &[u8]) -> Cells {
    let mut all = Cells { text: String::with_capacity(line.len()), ends: Vec::with_capacity(100) };
    let (mut cell, mut quoted) = (Vec::new(), false);
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                cell.push(b'"');
            }
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                all.push(&cell);
                cell.clear();
            }
            byte => cell.push(byte),
        }
    }
    // HAProxy ends each line with a comma.
    if !cell.is_empty() {
        all.push(&cell);
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
        let cells = cells(b"a,\"b, \"\"c\"\"\",,d,");
        assert_eq!(cells.iter().collect::<Vec<_>>(), ["a", "b, \"c\"", "", "d"]);
        assert_eq!((cells.get(0), cells.get(4)), (Some("a"), None));
    }
}
