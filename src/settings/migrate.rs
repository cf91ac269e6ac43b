//! Explains a YAML file of the Data Plane API, key by key.

use super::{rows, yaml};

/// A line for each key of a file: `supported`, `no effect`, `unknown` or `wrong`, with its line and what it means here.
pub fn explain(text: &str) -> Vec<String> {
    let file = yaml::read_as(text, true);
    let mut lines: Vec<(usize, String)> = Vec::new();
    for entry in &file.entries {
        let meaning = rows::by_key(entry.key).map(|row| row.meaning).unwrap_or_default();
        lines.push((entry.line, format!("supported  {} (line {}): {meaning}", entry.key, entry.line)));
    }
    for (key, line) in &file.unsupported {
        lines.push((*line, format!("no effect  {key} (line {line}): has no effect here")));
    }
    lines.sort();
    let mut out: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    if !file.users.is_empty() {
        let names: Vec<&str> = file.users.iter().map(|user| user.name.as_str()).collect();
        out.push(format!("supported  {}: users {}", rows::USER_KEY, names.join(", ")));
    }
    out.extend(file.unknown.iter().map(|words| format!("unknown    {words}")));
    out.extend(file.problems.iter().map(|words| format!("wrong      {words}")));
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_key_is_explained() {
        let text =
            "name: x\nhaproxy:\n  reload:\n    reload_delay: 5\n    reload_cmdd: x\ndataplaneapi:\n  port: [1]\n";
        let lines = super::explain(text);
        assert!(lines[0].starts_with("no effect  name (line 1)"), "{lines:?}");
        assert!(lines[1].starts_with("supported  haproxy.reload.reload_delay (line 4): wait before"), "{lines:?}");
        assert_eq!(lines[2], "unknown    haproxy.reload.reload_cmdd (line 5): unknown key, did you mean reload_cmd?");
        assert!(lines[3].starts_with("wrong      dataplaneapi.port (line 7)"), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }
}
