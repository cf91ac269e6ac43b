//! One call interface over both transports: a method's name and JSON in, the response message as JSON out.
//!
//! What REST splits over path, query, body, status and headers is put together again as the message that gRPC answers,
//! so that one row of a table holds for both.

use std::net::SocketAddr;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use backstay::schema::json::{self, JsonRules};
use backstay::schema::tables::{HttpRule, Kind, MessageId, Method, Tables, Verb};
use backstay::schema::value::{Object, Value};
use backstay::schema::{Schema, wire};

use super::models;
use super::raw::Raw;

/// The tables of the program.
pub(crate) fn tables() -> &'static Tables {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::compile(backstay::proto::SCHEMA).expect("a schema"));
    &SCHEMA.tables
}

/// `MapService.ListMaps` of `/backstay.runtime.v2.MapService/ListMaps`.
pub(crate) fn short_name(method: &Method) -> String {
    let path = method.path.trim_start_matches('/');
    let (service, name) = path.split_once('/').expect("a method path");
    format!("{}.{name}", service.rsplit('.').next().expect("a service"))
}

/// The row of a method.
pub(crate) fn method(name: &str) -> &'static Method {
    let found = tables().methods.iter().find(|method| short_name(method) == name);
    found.unwrap_or_else(|| panic!("no method {name}"))
}

/// How calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Grpc,
    Rest,
}

/// What came back instead of a response message.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// HTTP status; 0 over gRPC.
    pub(crate) status: u16,
    /// `code` of the body over REST, gRPC code otherwise.
    pub(crate) code: i64,
    /// `ErrorInfo.reason`; empty over REST.
    pub(crate) reason: String,
    /// All that is said, HAProxy's words included.
    pub(crate) text: String,
    /// Paths of `BadRequest`; empty over REST.
    pub(crate) fields: Vec<String>,
}

/// A success.
#[derive(Debug, Clone)]
pub(crate) struct Success {
    /// The response message.
    pub(crate) message: Json,
    /// HTTP status; 0 over gRPC.
    pub(crate) status: u16,
}

/// A caller with credentials.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    pub(crate) api: SocketAddr,
    authorization: String,
    channel: Channel,
    http: Legacy<HttpConnector, Full<Bytes>>,
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// Messages of a stream, as JSON.
pub(crate) enum Messages {
    Grpc(tonic::Streaming<Bytes>, MessageId),
    Rest(hyper::body::Incoming, Vec<u8>),
}

impl Messages {
    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Json> {
        match self {
            Messages::Grpc(stream, output) => {
                let bytes = stream.message().await.expect("a message")?;
                Some(decode(*output, &bytes))
            }
            Messages::Rest(body, held) => loop {
                if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = held.drain(..=end).collect();
                    let line = line.strip_prefix(b"data:").unwrap_or(&line).trim_ascii();
                    // Server-sent events put an empty line and an event name around the data.
                    if line.first() == Some(&b'{') {
                        return Some(serde_json::from_slice(line).expect("a line of JSON"));
                    }
                    continue;
                }
                let frame = body.frame().await?.expect("a frame");
                if let Ok(data) = frame.into_data() {
                    held.extend_from_slice(&data);
                }
            },
        }
    }
}

impl Client {
    /// A caller as `admin`.
    pub(crate) fn new(transport: Transport, api: SocketAddr, password: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{api}")).expect("an address").connect_lazy();
        Client {
            transport,
            api,
            authorization: basic("admin", password),
            channel,
            http: Legacy::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The header of its credentials.
    pub(crate) fn authorization(&self) -> &str {
        &self.authorization
    }

    /// The same with other credentials; an empty text sends none.
    pub(crate) fn authorized(&self, authorization: &str) -> Self {
        Client { authorization: authorization.to_owned(), ..self.clone() }
    }

    /// Whether the transport has the method.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.transport == Transport::Grpc || !method(name).http.is_empty()
    }

    /// Makes a call.
    pub(crate) async fn call(&self, name: &str, request: &Json) -> Result<Success, Refusal> {
        let method = method(name);
        match self.transport {
            Transport::Grpc => {
                let response =
                    self.unary(&method.path, encode(method.input, request)).await.map_err(|s| refusal(&s))?;
                Ok(Success { message: decode(method.output, &response), status: 0 })
            }
            Transport::Rest => {
                let rule = method.http.first().unwrap_or_else(|| panic!("{name} has no binding"));
                let answer = self.try_send(rest(method, rule, request)).await.map_err(unanswered)?;
                if answer.status >= 400 {
                    let body = serde_json::from_slice(&answer.body).unwrap_or(json!({}));
                    return Err(Refusal {
                        status: answer.status,
                        code: body["code"].as_i64().unwrap_or(0),
                        reason: String::new(),
                        text: body["message"].as_str().unwrap_or_default().to_owned(),
                        fields: Vec::new(),
                    });
                }
                Ok(Success { message: message(method, rule, &answer), status: answer.status })
            }
        }
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, name: &str, request: &Json) -> Result<Messages, Refusal> {
        self.stream_as(name, request, "application/x-ndjson").await
    }

    /// Opens a stream with a media type, which only REST has.
    pub(crate) async fn stream_as(&self, name: &str, request: &Json, accept: &str) -> Result<Messages, Refusal> {
        let method = method(name);
        match self.transport {
            Transport::Grpc => {
                let mut client = tonic::client::Grpc::new(self.channel.clone());
                client.ready().await.expect("a connection");
                let path = method.path.parse().expect("a path");
                let request = self.signed(encode(method.input, request));
                let answer = client.server_streaming(request, path, Raw).await.map_err(|status| refusal(&status))?;
                Ok(Messages::Grpc(answer.into_inner(), method.output))
            }
            Transport::Rest => {
                let rule = method.http.first().unwrap_or_else(|| panic!("{name} has no binding"));
                let mut request = rest(method, rule, request);
                request.headers_mut().insert("accept", accept.parse().expect("a media type"));
                let response = self.http.request(self.complete(request)).await.expect("an answer");
                let status = response.status().as_u16();
                if status >= 400 {
                    let body = response.into_body().collect().await.expect("a body").to_bytes();
                    let text = String::from_utf8_lossy(&body).into_owned();
                    return Err(Refusal { status, code: 0, reason: String::new(), text, fields: Vec::new() });
                }
                assert_eq!(response.headers()["content-type"], accept);
                Ok(Messages::Rest(response.into_body(), Vec::new()))
            }
        }
    }

    /// A unary gRPC call with encoded messages.
    pub(crate) async fn unary(&self, path: &str, request: Vec<u8>) -> Result<Bytes, tonic::Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(16 << 20);
        client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = path.parse().expect("a path");
        Ok(client.unary(self.signed(request), path, Raw).await?.into_inner())
    }

    fn signed(&self, request: Vec<u8>) -> tonic::Request<Vec<u8>> {
        let mut request = tonic::Request::new(request);
        if !self.authorization.is_empty() {
            request.metadata_mut().insert("authorization", self.authorization.parse().expect("a header"));
        }
        request
    }

    fn complete(&self, mut request: http::Request<Full<Bytes>>) -> http::Request<Full<Bytes>> {
        if request.uri().host().is_none() {
            *request.uri_mut() = format!("http://{}{}", self.api, request.uri()).parse().expect("an address");
        }
        if !self.authorization.is_empty() {
            request.headers_mut().insert("authorization", self.authorization.parse().expect("a header"));
        }
        request
    }

    /// Sends an HTTP request with the credentials.
    pub(crate) async fn send(&self, request: http::Request<Full<Bytes>>) -> Http {
        self.try_send(request).await.expect("an answer")
    }

    async fn try_send(&self, request: http::Request<Full<Bytes>>) -> Result<Http, Box<dyn std::error::Error>> {
        let (method, path) = (request.method().to_string(), request.uri().to_string());
        let response = self.http.request(self.complete(request)).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer = Http { status: head.status.as_u16(), headers: head.headers, body };
        assert_eq!(models::faults(&method, &path, &answer), Vec::<String>::new(), "what clients of /v2 cannot decode");
        Ok(answer)
    }
}

/// Nobody answered: neither a status nor a reason.
fn unanswered(error: Box<dyn std::error::Error>) -> Refusal {
    Refusal { status: 0, code: 0, reason: String::new(), text: format!("no answer: {error}"), fields: Vec::new() }
}

/// The header of a user.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A plain HTTP request.
pub(crate) fn request(method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> http::Request<Full<Bytes>> {
    let mut builder = http::Request::builder().method(method).uri(path);
    if !kind.is_empty() {
        builder = builder.header("content-type", kind);
    }
    builder.body(Full::new(body.into())).expect("a request")
}

fn encode(input: MessageId, request: &Json) -> Vec<u8> {
    let mut reading = json::read_value(tables(), input, request, JsonRules::default()).expect("a request message");
    assert!(reading.unknown.is_empty(), "no such fields: {:?}", reading.unknown);
    // Words that no enum has are numbers that no enum has.
    for refused in &reading.refused {
        let path: Vec<&str> = refused.field.split('.').collect();
        set_unknown_enum(input, &mut reading.object, &path);
    }
    let mut bytes = Vec::new();
    wire::encode(tables(), input, &reading.object, &mut bytes);
    bytes
}

fn set_unknown_enum(message: MessageId, object: &mut Object, path: &[&str]) -> bool {
    let table = &tables().messages[message];
    if let Some(&at) = table.by_json.get(path[0]) {
        match (table.fields[at].kind, path.len()) {
            (Kind::Enum(_), 1) => object.set(at, Value::Enum(9999)),
            (Kind::Message(inner), 2..) => return set_unknown_enum(inner, object.object_mut(at), &path[1..]),
            _ => return false,
        }
        return true;
    }
    table.fields.iter().enumerate().any(|(at, field)| match field.kind {
        Kind::Message(inner) if field.flatten && knows(inner, path[0]) => {
            set_unknown_enum(inner, object.object_mut(at), path)
        }
        _ => false,
    })
}

fn knows(message: MessageId, key: &str) -> bool {
    tables().messages[message].by_json.contains_key(key)
}

fn decode(output: MessageId, bytes: &[u8]) -> Json {
    let object = wire::decode(tables(), output, bytes).expect("a response message");
    let mut text = Vec::new();
    json::write(tables(), output, &object, &mut text);
    serde_json::from_slice(&text).expect("JSON")
}

fn refusal(status: &tonic::Status) -> Refusal {
    let details = status.get_error_details();
    let said = details.debug_info().map_or("", |info| &info.detail);
    Refusal {
        status: 0,
        code: status.code() as i64,
        reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
        text: if said.is_empty() { status.message().to_owned() } else { format!("{}: {said}", status.message()) },
        fields: details
            .bad_request()
            .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
            .unwrap_or_default(),
    }
}

/// Fields that /v2 has in the query though the body is the whole message.
const QUERY_FIELDS: [&str; 2] = ["process", "stick_table"];

/// The HTTP request of a request message.
fn rest(method: &Method, rule: &HttpRule, message: &Json) -> http::Request<Full<Bytes>> {
    let input = &tables().messages[method.input];
    let mut left: Map<String, Json> = message.as_object().expect("an object").clone();
    left.retain(|_, value| !value.is_null());
    let mut path = rule.path.to_string();
    for field in &input.fields {
        for hole in [format!("{{{}}}", field.name), format!("{{{}=**}}", field.name)] {
            if path.contains(&hole) {
                let value = left.remove(&*field.json).unwrap_or_else(|| panic!("{}: {} is missing", path, field.json));
                path = path.replace(&hole, &utf8_percent_encode(&plain(&value), NON_ALPHANUMERIC).to_string());
            }
        }
    }
    let mut kind = "";
    let mut body = Vec::new();
    if &*rule.body == "*" {
        let (query, whole) = left.into_iter().partition(|(name, _)| QUERY_FIELDS.contains(&&**name));
        left = query;
        kind = "application/json";
        body = Json::Object(whole).to_string().into_bytes();
    } else if let Some(at) = input.field_named(&rule.body) {
        let field = &input.fields[at];
        let value = left.remove(&*field.json).unwrap_or(Json::Null);
        match field.kind {
            Kind::Bytes if &*rule.method == "POST" && left.contains_key("name") => {
                let name = plain(&left.remove("name").expect("just seen"));
                kind = "multipart/form-data; boundary=BOUNDARY";
                let head = format!(
                    "--BOUNDARY\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"{name}\"\r\n\r\n"
                );
                body = [head.as_bytes(), plain(&value).as_bytes(), b"\r\n--BOUNDARY--\r\n"].concat();
            }
            Kind::Bytes | Kind::String if !field.repeated => {
                kind = "text/plain";
                body = plain(&value).into_bytes();
            }
            _ => {
                kind = "application/json";
                if !value.is_null() {
                    body = value.to_string().into_bytes();
                }
            }
        }
    }
    let query: Vec<String> = left
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(&plain(value), NON_ALPHANUMERIC)))
        .collect();
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    request(&rule.method, &path, kind, body)
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The response message of an HTTP answer.
fn message(method: &Method, rule: &HttpRule, answer: &Http) -> Json {
    let output = &tables().messages[method.output];
    let resource = method.resource.map(Kind::Message);
    let holder = output.fields.iter().find(|field| resource.is_some() && Some(field.kind) == resource);
    let body = || if answer.body.is_empty() { Json::Null } else { answer.json() };
    let mut message = match (output.fields.iter().find(|field| field.name == rule.response_body), holder) {
        _ if answer.body.is_empty() => json!({}),
        (Some(field), _) if field.kind == Kind::Bytes && &*rule.method == "GET" => json!({&*field.json: answer.text()}),
        (None, Some(field)) if matches!(method.verb, Verb::List | Verb::Get) => {
            let body = body();
            assert!(body["_version"].is_i64(), "no envelope: {body}");
            json!({&*field.json: body["data"], "version": body["_version"]})
        }
        (Some(field), _) if rule.path.starts_with("/v2/service_discovery/") && &*rule.method == "GET" => {
            json!({&*field.json: body()["data"]})
        }
        (Some(field), _) | (None, Some(field)) => json!({&*field.json: body()}),
        (None, None) => body(),
    };
    // What is empty is absent in a message.
    if let Some(fields) = message.as_object_mut() {
        fields.retain(|_, value| *value != json!([]) && *value != json!({}) && *value != json!(""));
        let warned = answer.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok());
        let warned = warned.filter_map(|value| value.strip_prefix("299 backstay \"")?.strip_suffix('"'));
        let warned: Vec<&str> =
            warned.filter(|text| text.starts_with("haproxy warns") || text.starts_with("deleted too")).collect();
        if output.field_named("warnings").is_some() && !warned.is_empty() {
            fields.insert("warnings".to_owned(), json!(warned));
        }
        for (name, header) in [("version", "configuration-version"), ("reload_id", "reload-id")] {
            let value = answer.header(header);
            if output.field_named(name).is_some() && !fields.contains_key(name) && !value.is_empty() {
                fields.insert(name.to_owned(), value.parse::<i64>().map_or_else(|_| json!(value), |n| json!(n)));
            }
        }
    }
    message
}
