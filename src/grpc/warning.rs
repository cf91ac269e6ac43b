//! Warnings beside an answer: the header `Warning` of RFC 7234, over gRPC as metadata of the same name.

use http::header::WARNING;
use http::{HeaderMap, HeaderValue};

/// Longest text of a warning, in bytes.
const LONGEST: usize = 1024;

/// The value for a text: `299 backstay "text"`, without what a header cannot hold.
pub fn value(text: &str) -> Option<HeaderValue> {
    let mut quoted = String::from("299 backstay \"");
    let text = &text[..text.floor_char_boundary(LONGEST)];
    quoted.extend(text.chars().map(|c| match c {
        '"' => '\'',
        '\\' | '\u{7f}' => '?',
        c if c.is_ascii_control() => ' ',
        c if c.is_ascii() => c,
        _ => '?',
    }));
    quoted.push('"');
    HeaderValue::from_str(&quoted).ok()
}

/// Adds a warning for each text.
pub fn add(headers: &mut HeaderMap, texts: &[String]) {
    for value in texts.iter().filter_map(|text| value(text)) {
        headers.append(WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_one_header() {
        assert_eq!(value("line 3: \"é\\\"\nnext").unwrap(), "299 backstay \"line 3: '??' next\"");
        assert!(value(&"é".repeat(4000)).unwrap().len() < 2 * LONGEST);
    }
}
