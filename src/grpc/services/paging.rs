//! Pages of lists: a token names a position, and the version that it counts in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result, Violation};
use crate::grpc::call::Transport;
use crate::runtime::Listing;

/// Objects in a page when the caller does not say.
const DEFAULT: usize = 1_000;
/// Largest page.
const LIMIT: i64 = 10_000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Objects before it.
    pub(super) start: usize,
    /// Largest number of objects; nothing: all.
    pub(super) size: Option<usize>,
    /// Version that the token counts in; nothing: it names none.
    version: Option<i64>,
}

impl Page {
    /// Reads size and token of a request. Over REST a list is whole unless a size is given.
    pub(super) fn new(size: i64, token: &str, transport: Transport) -> Result<Page> {
        let size = match (size, transport) {
            (0, Transport::Rest) => None,
            (0, Transport::Grpc) => Some(DEFAULT),
            (1..=LIMIT, _) => Some(size.unsigned_abs() as usize),
            _ => return Err(wrong("page_size", format!("should be 0 to {LIMIT}"))),
        };
        if token.is_empty() {
            return Ok(Page { start: 0, size, version: None });
        }
        let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            let (start, version) = text.split_once('@')?;
            Some((start.parse().ok()?, version.parse().ok()?))
        });
        let Some((start, version)) = decoded else {
            return Err(wrong("page_token", "is not a token that an earlier page returned".into()));
        };
        Ok(Page { start, size, version: Some(version) })
    }

    /// The page of a list, and the token of the next one.
    pub(super) fn cut<T>(&self, all: Vec<T>, version: i64) -> Result<(Vec<T>, String)> {
        if self.version.is_some_and(|v| v != version) {
            return Err(wrong("page_token", "belongs to another version: begin at the first page again".into()));
        }
        let Some(size) = self.size else { return Ok((all, String::new())) };
        let more = all.len() > self.start.saturating_add(size);
        let objects = all.into_iter().skip(self.start).take(size).collect();
        Ok((objects, if more { self.next(version) } else { String::new() }))
    }

    /// The page of a listing that is read in pieces, and the token of the next one. Reads no further than needed.
    pub(super) async fn take<T: Send + 'static>(&self, mut listing: Listing<T>) -> Result<(Vec<T>, String)> {
        let limit = self.size.unwrap_or(usize::MAX);
        let (mut seen, mut page) = (0, Vec::new());
        while let Some(items) = listing.next().await? {
            for item in items {
                if seen >= self.start && page.len() == limit {
                    return Ok((page, self.next(0)));
                }
                if seen >= self.start {
                    page.push(item);
                }
                seen += 1;
            }
        }
        Ok((page, String::new()))
    }

    /// The token of the page behind this one.
    pub(super) fn next(&self, version: i64) -> String {
        let end = self.start.saturating_add(self.size.unwrap_or(0));
        URL_SAFE_NO_PAD.encode(format!("{end}@{version}"))
    }
}

fn wrong(field: &str, message: String) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message, code: 0, location: "query" }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let all: Vec<u32> = (0..25).collect();
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let page = Page::new(10, &token, Transport::Grpc).unwrap();
            let (part, next) = page.cut(all.clone(), 7).unwrap();
            seen.extend(part);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_token_of_another_version_is_refused() {
        let page = Page::new(2, "", Transport::Grpc).unwrap();
        let (_, token) = page.cut(vec![1, 2, 3], 7).unwrap();
        assert!(Page::new(2, &token, Transport::Grpc).unwrap().cut(vec![1, 2, 3], 8).is_err());
        assert!(Page::new(2, "x", Transport::Grpc).is_err());
    }

    #[test]
    fn rest_lists_are_whole_and_grpc_lists_have_a_limit() {
        let all: Vec<usize> = (0..1_500).collect();
        assert_eq!(Page::new(0, "", Transport::Rest).unwrap().cut(all.clone(), 1).unwrap().0.len(), 1_500);
        assert_eq!(Page::new(0, "", Transport::Grpc).unwrap().cut(all, 1).unwrap().0.len(), 1_000);
        assert!(Page::new(-1, "", Transport::Grpc).is_err());
        assert!(Page::new(10_001, "", Transport::Grpc).is_err());
    }
}
