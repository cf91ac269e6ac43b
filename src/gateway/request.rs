//! The body of a REST request as request fields.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_stream::StreamExt as _;

use super::items::Items;
use super::routes::{BodyField, Route};
use super::{compat, upload};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Chunks, PIECE, Upload, collect_within};
use crate::grpc::memory::Lease;
use crate::schema::json::{self, JsonRules, Reading};
use crate::schema::tables::{FieldIndex, Kind, Method, Tables, Verb};
use crate::schema::value::{Object, Value};
use crate::schema::{check, tables::Field};

/// Largest bodies, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bodies that are read whole, 64 MiB unless set.
    pub body: usize,
    /// Uploads, which are handed on while they arrive, 1 GiB unless set.
    pub upload: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { body: 64 << 20, upload: 1 << 30 }
    }
}

/// How a body is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Multipart,
}

/// Says what is wrong with a content type that the route does not take. Without a body any is taken; a route that reads
/// none takes JSON, and ignores it. What was read of a body that is refused is lost.
pub async fn check_content_type<B: Body + Unpin>(
    tables: &Tables,
    method: &Method,
    route: &Route,
    headers: &HeaderMap,
    body: &mut B,
) -> std::result::Result<(), String> {
    match form(body_field(tables, method, route.body), headers) {
        Err(message) if !is_empty(body).await => Err(message),
        _ => Ok(()),
    }
}

/// Whether nothing comes. Reads what comes as far as its first bytes.
async fn is_empty<B: Body + Unpin>(body: &mut B) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        if frame.data_ref().is_some_and(Buf::has_remaining) {
            return false;
        }
    }
    true
}

/// The field that a body is read into; `None` when it is the whole message, or when nothing is read.
fn body_field<'a>(tables: &'a Tables, method: &Method, body: Option<BodyField>) -> Option<&'a Field> {
    match body? {
        BodyField::Whole => None,
        BodyField::Field(at) => Some(&tables.messages[method.input].fields[at]),
    }
}

fn form(field: Option<&Field>, headers: &HeaderMap) -> std::result::Result<Form, String> {
    let given = headers.get(CONTENT_TYPE).map_or(&b"application/octet-stream"[..], HeaderValue::as_bytes);
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let accepted: &[&str] = match field.filter(|field| !field.repeated).map(|field| field.kind) {
        Some(Kind::Bytes) => &["text/plain", "application/octet-stream", "multipart/form-data", "application/json"],
        Some(Kind::String) => &["text/plain", "application/json"],
        _ => &["application/json"],
    };
    if !accepted.iter().any(|name| is(name)) {
        let given = String::from_utf8_lossy(given);
        return Err(format!("unsupported media type {given:?}, only [{}] are allowed", accepted.join(" ")));
    }
    Ok(if is("application/json") {
        Form::Json
    } else if is("multipart/form-data") {
        Form::Multipart
    } else {
        Form::Text
    })
}

/// What of a body does not stand in the request.
#[derive(Debug, Default)]
pub struct Rest {
    /// Keys to tell the caller of.
    pub keys: Keys,
    /// Bytes that are still to come.
    pub upload: Option<Upload>,
    /// Rules that the object of a Replace breaks.
    pub doubts: Vec<Violation>,
    /// Bytes came as JSON, which cannot carry all of them.
    pub is_json: bool,
}

/// JSON keys and parameters that were not read as they stand, by their paths.
#[derive(Debug, Default)]
pub struct Keys {
    /// The schema does not know them.
    pub unknown: Vec<String>,
    /// They were taken for the field that has them in another case.
    pub recased: Vec<String>,
    /// Fields that the file has and the answer cannot show.
    pub not_shown: Vec<String>,
}

impl Keys {
    /// Adds those of an object, each with `prefix` in front.
    fn extend(&mut self, prefix: &str, reading: &mut Reading) {
        let prefixed =
            |paths: &mut Vec<String>| paths.drain(..).map(|path| format!("{prefix}{path}")).collect::<Vec<_>>();
        self.unknown.extend(prefixed(&mut reading.unknown));
        self.recased.extend(prefixed(&mut reading.recased));
    }
}

/// Reads the body into the request; of an upload, no more than its beginning.
#[allow(clippy::too_many_arguments, reason = "each is another thing, and it is called once")]
pub async fn read_body<B>(
    tables: &Arc<Tables>,
    method: &Method,
    route: &Route,
    rules: JsonRules,
    limits: Limits,
    strict: bool,
    headers: &HeaderMap,
    body: B,
    room: &mut Lease,
    request: &mut Object,
) -> Result<Rest>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(target) = route.body else { return Ok(Rest::default()) };
    let field = body_field(tables, method, route.body);
    // Only an empty body may have a type that the route does not take.
    let form = form(field, headers).unwrap_or(Form::Json);
    if let (BodyField::Field(at), Some(field)) = (target, field)
        && form != Form::Json
        && (method.upload || form == Form::Multipart)
    {
        let limit = if method.upload { limits.upload } else { limits.body };
        let chunks = if form == Form::Multipart {
            let (name, chunks) = upload::form(headers, body, limit).await?;
            set_file_name(tables, method, name, request);
            chunks
        } else {
            upload::plain(headers, body, limit)?
        };
        let chunks = upload::some(chunks).await?;
        if chunks.is_none() && field.check.required {
            return Err(data_is_required());
        }
        let chunks = chunks.unwrap_or_else(|| Box::pin(tokio_stream::empty()));
        if !method.upload {
            request.set(at, Value::Bytes(collect_within(chunks, 0, room).await?));
            return Ok(Rest::default());
        }
        return Ok(Rest { upload: Some(Upload { field: at, chunks }), ..Rest::default() });
    }
    let expected = upload::declared(headers).map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut chunks = upload::plain(headers, body, limits.body)?;
    if let (BodyField::Field(at), true) = (target, method.upload)
        && let Field { kind: Kind::Message(item), repeated: true, .. } = tables.messages[method.input].fields[at]
    {
        let (is_long, all) = more_than(PIECE, chunks).await?;
        chunks = all;
        if is_long {
            let items = Items { tables: Arc::clone(tables), request: method.input, field: at, item, rules, strict };
            return Ok(Rest { upload: Some(Upload { field: at, chunks: items.pieces(chunks) }), ..Rest::default() });
        }
    }
    let data = collect_within(chunks, expected, room).await?;
    read_whole(tables, method, target, field, form, rules, data, request)
}

/// Whether there are more bytes than so many, and all of them.
async fn more_than(bytes: usize, mut chunks: Chunks) -> Result<(bool, Chunks)> {
    let (mut first, mut length) = (Vec::new(), 0);
    while length <= bytes
        && let Some(chunk) = chunks.next().await.transpose()?
    {
        length += chunk.len();
        first.push(Ok(chunk));
    }
    Ok((length > bytes, Box::pin(tokio_stream::iter(first).chain(chunks))))
}

/// Reads a body that has arrived.
#[allow(clippy::too_many_arguments, reason = "each is another thing, and it is called once")]
fn read_whole(
    tables: &Tables,
    method: &Method,
    target: BodyField,
    field: Option<&Field>,
    form: Form,
    rules: JsonRules,
    data: Bytes,
    request: &mut Object,
) -> Result<Rest> {
    match (target, field) {
        (BodyField::Field(at), Some(field)) if scalar(field) => {
            if let Some(value) = scalar_value(field, form, data)? {
                request.set(at, value);
            }
            Ok(Rest { is_json: form == Form::Json, ..Rest::default() })
        }
        (BodyField::Field(at), Some(field)) => {
            some_json(&data)?;
            let mut rest = read_field(tables, at, field, rules, &data, request)?;
            // What a replacement leaves as it is may break rules: its service looks at what is there.
            if method.verb != Verb::Replace {
                check::refuse(std::mem::take(&mut rest.doubts))?;
            }
            Ok(rest)
        }
        _ => {
            some_json(&data)?;
            let mut read = json::read(tables, method.input, &data, rules)?;
            // Parameters of path and query win over fields of the body.
            for (at, value) in std::mem::take(request).iter() {
                read.object.set(at, value.clone());
            }
            let mut violations = check::check_reading(tables, method.input, &read);
            compat::locate(&mut violations);
            check::refuse(violations)?;
            let mut keys = Keys::default();
            keys.extend("", &mut read);
            *request = read.object;
            Ok(Rest { keys, ..Rest::default() })
        }
    }
}

fn scalar(field: &Field) -> bool {
    !field.repeated && !matches!(field.kind, Kind::Message(_))
}

/// Raw text, or a JSON string that holds it. An empty body of a required field is no value.
fn scalar_value(field: &Field, form: Form, data: Bytes) -> Result<Option<Value>> {
    if field.check.required && data.is_empty() {
        return Err(data_is_required());
    }
    let text = match form {
        Form::Json if data.is_empty() => Bytes::new(),
        Form::Json => Bytes::from(first_value::<String>(&data)?),
        Form::Text | Form::Multipart => data,
    };
    Ok(Some(match field.kind {
        Kind::Bytes => Value::Bytes(text),
        _ => match std::str::from_utf8(&text) {
            Ok(text) => Value::Str(text.into()),
            Err(_) => return Err(Error::new(Reason::MalformedRequest, "body should be UTF-8 text")),
        },
    }))
}

fn read_field(
    tables: &Tables,
    at: FieldIndex,
    field: &Field,
    rules: JsonRules,
    data: &[u8],
    request: &mut Object,
) -> Result<Rest> {
    let mut keys = Keys::default();
    let mut violations = Vec::new();
    match field.kind {
        Kind::Message(id) if !field.repeated => {
            let mut read = json::read(tables, id, data, rules)?;
            violations = check::check_reading(tables, id, &read);
            keys.extend("", &mut read);
            request.set(at, Value::Object(read.object));
        }
        Kind::Message(id) => {
            let items: Vec<&RawValue> = first_value(data)?;
            for (number, item) in items.into_iter().enumerate() {
                let mut read = json::read(tables, id, item.get().as_bytes(), rules)?;
                violations.extend(check::check_reading(tables, id, &read).into_iter().map(|mut violation| {
                    violation.field = format!("{number}.{}", violation.field);
                    violation
                }));
                keys.extend(&format!("{number}."), &mut read);
                request.push(at, Value::Object(read.object));
            }
        }
        _ => {
            let items: Vec<String> = first_value(data)?;
            for item in items {
                request.push(at, Value::Str(item.into()));
            }
        }
    }
    Ok(Rest { keys, doubts: violations, ..Rest::default() })
}

fn some_json(data: &[u8]) -> Result<()> {
    let text = data.trim_ascii();
    if text.is_empty() || text == b"null" { Err(data_is_required()) } else { Ok(()) }
}

fn data_is_required() -> Error {
    Error::invalid(vec![Violation { field: "data".into(), message: "is required".into(), code: 602, location: "body" }])
}

/// The first JSON value of a body; as clients of /v2 know it, what follows is not looked at.
fn first_value<'b, T: Deserialize<'b>>(data: &'b [u8]) -> Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(data)).map_err(|error| json::not_json(&error))
}

fn set_file_name(tables: &Tables, method: &Method, name: Option<String>, request: &mut Object) {
    let input = &tables.messages[method.input];
    let field = compat::FILE_NAME_FIELDS.iter().find_map(|field| input.field_named(field));
    if let (Some(field), Some(name)) = (field, name.filter(|name| !name.is_empty()))
        && request.get(field).is_none()
    {
        request.set(field, Value::Str(name.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixture;
    use crate::gateway::routes::{Found, Routes};
    use crate::grpc::memory::Memory;
    use http_body_util::Full;

    async fn read(http: &str, path: &str, content_type: &str, body: &'static [u8]) -> Result<String> {
        let tables = Arc::new(fixture::tables());
        let routes = Routes::new(&tables).unwrap();
        let Found::Route(route, _) = routes.find(http, &format!("/v2/services/haproxy{path}")) else {
            panic!("no route")
        };
        let method = &tables.methods[route.method];
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        let limits = Limits { body: 100, upload: 200 };
        let body = Full::new(Bytes::from_static(body));
        let mut request = Object::new();
        let rules = JsonRules::default();
        let mut room = Memory::default().lease();
        let rest =
            read_body(&tables, method, route, rules, limits, false, &headers, body, &mut room, &mut request).await?;
        if let Some(upload) = rest.upload {
            request.set(upload.field, Value::Bytes(collect_within(upload.chunks, 0, &mut room).await?));
        }
        Ok(format!("{request:?} {:?}", rest.keys.unknown))
    }

    /// What is wrong with the content type.
    async fn type_refusal(http: &str, path: &str, content_type: &str, body: &'static [u8]) -> String {
        let tables = fixture::tables();
        let routes = Routes::new(&tables).unwrap();
        let Found::Route(route, _) = routes.find(http, &format!("/v2/services/haproxy{path}")) else {
            panic!("no route")
        };
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        let mut body = Full::new(Bytes::from_static(body));
        let method = &tables.methods[route.method];
        check_content_type(&tables, method, route, &headers, &mut body).await.err().unwrap_or_default()
    }

    async fn refusal(http: &str, path: &str, content_type: &str, body: &'static [u8]) -> String {
        let error = read(http, path, content_type, body).await.unwrap_err();
        format!("{} {error}", error.reason().row().name)
    }

    #[tokio::test]
    async fn json_bodies_need_some_content() {
        let path = "/configuration/backends";
        for (content_type, body, expected) in [
            ("application/json", &b" "[..], "data in body is required"),
            ("application/json", b"null", "data in body is required"),
            ("", b"", "data in body is required"),
            ("text/plain", b"", "data in body is required"),
            ("application/json", b"{}", "name in body is required"),
        ] {
            let text = refusal("POST", path, content_type, body).await;
            assert!(text.ends_with(expected), "{content_type}: {text}");
        }
        let text = refusal("POST", path, "application/json", b"{\"name\":").await;
        assert!(text.starts_with("MALFORMED_REQUEST"), "{text}");
        let text = read("POST", path, "Application/JSON;charset=utf-8", br#"{"name":"b","odd":1}"#).await.unwrap();
        assert!(text.contains(r#"Str("b")"#) && text.ends_with(r#"["odd"]"#), "{text}");
    }

    #[tokio::test]
    async fn bytes_need_a_content_type_that_is_taken() {
        for (http, path) in [
            ("POST", "/configuration/backends"),
            ("DELETE", "/configuration/backends/x"),
            ("GET", "/configuration/backends"),
        ] {
            for (given, named) in [
                ("", "application/octet-stream"),
                ("text/plain; charset=x", "text/plain; charset=x"),
                ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
                ("nonsense", "nonsense"),
            ] {
                let expected = format!("unsupported media type {named:?}, only [application/json] are allowed");
                assert_eq!(type_refusal(http, path, given, b"{}").await, expected, "{http} {path}");
                assert_eq!(type_refusal(http, path, given, b"").await, "", "{http} {path} {given}");
            }
            assert_eq!(type_refusal(http, path, "application/json; a=b", b"not json").await, "");
        }
        let text = type_refusal("POST", "/configuration/raw", "image/png", b"a\n").await;
        assert!(text.ends_with("only [text/plain application/json] are allowed"), "{text}");
        assert!(read("DELETE", "/configuration/backends/x", "application/json", b"not json").await.is_ok());
    }

    #[tokio::test]
    async fn text_operations_take_text_or_a_json_string() {
        let path = "/configuration/raw";
        for (content_type, body) in [("text/plain", &b"a\nb"[..]), ("application/json", br#""a\nb""#)] {
            let text = read("POST", path, content_type, body).await.unwrap();
            assert!(text.contains(r#"Str("a\nb")"#), "{text}");
        }
        assert!(refusal("POST", path, "application/json", b"a\nb").await.starts_with("MALFORMED_REQUEST"));
        assert!(refusal("POST", path, "text/plain", b"\xff").await.ends_with("body should be UTF-8 text"));
        assert!(refusal("POST", path, "text/plain", b"").await.ends_with("data in body is required"));
    }

    #[tokio::test]
    async fn lists_in_bodies_name_the_faulty_item() {
        let path = "/runtime/maps/m";
        let good = br#"[{"key":"/a/","value":"x"},{"key":"k"}]"#;
        let text = read("PUT", path, "application/json", good).await.unwrap();
        assert!(text.contains("/a/"), "{text}");
        let text = refusal("PUT", path, "application/json", br#"[{"key":"a"},{"value":"x"}]"#).await;
        assert_eq!(text, "INVALID_FIELD 1.key in body is required");
    }

    #[tokio::test]
    async fn uploads_take_the_file_and_its_name() {
        let path = "/storage/maps";
        let form = b"--B\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n1\r\n--B\r\n\
            content-disposition: form-data; name=\"file_upload\"; filename=\"m.map\"\r\n\r\na 1\n\xff\r\n--B--\r\n";
        let text = read("POST", path, "multipart/form-data; boundary=B", form).await.unwrap();
        assert!(text.contains("m.map") && text.contains(r#"b"a 1\n\xff""#), "{text}");
        let empty = b"--B\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n1\r\n--B--\r\n";
        let text = refusal("POST", path, "multipart/form-data; boundary=B", empty).await;
        assert_eq!(text, "MALFORMED_REQUEST multipart form has no file in its field file_upload");
        let cut = b"--B\r\ncontent-disposition: form-data; name=\"file_upload\"\r\n\r\n1";
        assert!(refusal("POST", path, "multipart/form-data; boundary=B", cut).await.starts_with("MALFORMED_REQUEST"));
        assert!(refusal("POST", path, "multipart/form-data", form).await.starts_with("MALFORMED_REQUEST"));
    }

    #[tokio::test]
    async fn bodies_beyond_the_limit_are_refused() {
        let large: &[u8] = &[b' '; 201];
        for (path, content_type) in [("/configuration/raw", "text/plain"), ("/storage/maps", "text/plain")] {
            assert!(refusal("POST", path, content_type, large).await.starts_with("TOO_LARGE"), "{path}");
        }
        assert!(read("POST", "/storage/maps", "text/plain", &large[..150]).await.is_ok());
    }
}
