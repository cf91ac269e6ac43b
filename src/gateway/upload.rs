//! Bodies that are handed on while they arrive: plain bytes, or the file of a multipart form.

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyStream;
use tokio_stream::StreamExt as _;

use super::compat;
use crate::error::{Error, Reason, Result};
use crate::grpc::call::Chunks;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of a body; an error when it ends early or is larger than `limit`.
pub(super) fn plain<B>(headers: &HeaderMap, body: B, limit: usize) -> Result<Chunks>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Cause>,
{
    declared_within(headers, limit)?;
    Ok(Box::pin(within(limit, frames(body).map(|chunk| chunk.map_err(broken)))))
}

/// The file of a multipart form, and its name. Reads up to where the file begins.
pub(super) async fn form<B>(headers: &HeaderMap, body: B, limit: usize) -> Result<(Option<String>, Chunks)>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Cause>,
{
    // Room for the boundaries and headers of the form itself.
    const FORM: usize = 64 << 10;
    declared_within(headers, limit.saturating_add(FORM))?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(content_type).map_err(|error| unreadable(error, limit))?;
    let size = multer::SizeLimit::new().whole_stream(limit.saturating_add(FORM) as u64);
    let constraints = multer::Constraints::new().size_limit(size);
    let mut form = multer::Multipart::with_constraints(frames(body), boundary, constraints);
    while let Some(part) = form.next_field().await.map_err(|error| unreadable(error, limit))? {
        if part.name() == Some(compat::UPLOAD_FIELD) {
            let name = part.file_name().map(str::to_owned);
            let chunks = part.map(move |chunk| chunk.map_err(|error| unreadable(error, limit)));
            return Ok((name, Box::pin(within(limit, chunks))));
        }
    }
    let message = format!("multipart form has no file in its field {}", compat::UPLOAD_FIELD);
    Err(Error::new(Reason::MalformedRequest, message))
}

/// The same chunks, the first of which has been looked for: `None` when there is none.
pub(super) async fn some(mut chunks: Chunks) -> Result<Option<Chunks>> {
    while let Some(first) = chunks.next().await.transpose()? {
        if !first.is_empty() {
            return Ok(Some(Box::pin(stream::iter([Ok(first)]).chain(chunks))));
        }
    }
    Ok(None)
}

fn frames<B>(body: B) -> impl Stream<Item = std::result::Result<Bytes, Cause>> + Send + 'static
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Cause>,
{
    BodyStream::new(body).filter_map(|frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(error.into())),
    })
}

fn within(limit: usize, chunks: impl Stream<Item = Result<Bytes>>) -> impl Stream<Item = Result<Bytes>> {
    let mut left = limit;
    chunks.map(move |chunk| {
        let chunk = chunk?;
        left = left.checked_sub(chunk.len()).ok_or_else(|| too_large(limit))?;
        Ok(chunk)
    })
}

/// Bytes that a body says itself that it has.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Refuses a body that says itself that it is too large.
pub(super) fn declared_within(headers: &HeaderMap, limit: usize) -> Result<()> {
    let declared = declared(headers);
    if declared.is_some_and(|length| length > limit as u64) { Err(too_large(limit)) } else { Ok(()) }
}

pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("request body is larger than the limit of {limit} bytes")).with("limit", limit)
}

pub(super) fn broken(error: impl Into<Cause>) -> Error {
    Error::new(Reason::MalformedRequest, format!("request body ended early: {}", error.into()))
}

fn unreadable(error: multer::Error, limit: usize) -> Error {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(limit),
        error => Error::new(Reason::MalformedRequest, format!("multipart form cannot be read: {error}")),
    }
}
