//! `show env`.

/// Reads the lines `NAME=value`. A line that does not begin with a name goes on with the value before it.
pub(in super::super) fn variables(answer: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in answer.trim_end_matches('\n').split('\n') {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match (line.split_once('='), found.last_mut()) {
            (Some((name, value)), _) if is_name(name) => found.push((name.to_owned(), value.to_owned())),
            (_, Some((_, value))) => value.extend(["\n", line]),
            (_, None) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_empty_and_have_several_lines() {
        let read = variables("HOME=/\nEMPTY=\nTWO=a=b\n\n  second\n1=x\nLAST=z\n\n");
        let expected = [("HOME", "/"), ("EMPTY", ""), ("TWO", "a=b\n\n  second\n1=x"), ("LAST", "z")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(variables("\n").is_empty());
    }
}
