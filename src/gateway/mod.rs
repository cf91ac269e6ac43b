//! REST /v2 over the method table, and the one port that serves every protocol.
//!
//! Routes, parameters, bodies and answers all come from the table; what /v2 does differently from our own API stands in
//! [`compat`]. No resource is named here.

pub mod access;
mod actions;
pub mod compat;
mod connection;
mod cors;
mod discovery;
#[cfg(test)]
pub(crate) mod fixture;
mod heads;
mod items;
pub mod listen;
mod origin;
pub mod query;
pub mod request;
pub mod response;
pub mod routes;
pub mod server;
mod strangers;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
mod unread;
mod upload;
pub mod view;
mod wakes;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, VARY, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, StatusCode};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

pub use self::cors::Cors;
pub use self::origin::Names;
pub use self::request::Limits;
use self::request::{Keys, Rest};
use self::response::{Facts, JSON, error_response, refusal};
use self::routes::{BodyField, Found, Route, Routes};
use self::view::Views;
use crate::auth::{Authenticator, Session, Visitor};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Answer, Api, Call, Transport};
use crate::grpc::health::Health;
use crate::grpc::memory::Memory;
use crate::grpc::stop::until_ended;
use crate::grpc::warning;
use crate::schema::check;
use crate::schema::tables::{Method, Tables, Verb};
use crate::schema::value::{Object, Value};

/// The version of a transaction, or of the configuration itself; 0 when there is no such transaction.
pub type VersionOf = Arc<dyn Fn(Option<&str>) -> i64 + Send + Sync>;

/// A page that is the same for everyone.
#[derive(Debug)]
pub struct Page {
    /// Whole path, such as `/v2/docs`.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes, made when first asked for: most servers are never asked for their documentation.
    pub body: PageBody,
    /// True when it needs no credentials.
    pub open: bool,
}

/// The bytes of a page.
pub type PageBody = LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>;

/// What the gateway may be told; the default is right for most.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may call from a browser; nobody unless set.
    pub cors: Cors,
    /// Largest bodies.
    pub limits: Limits,
    /// Makes unknown JSON fields and parameters errors instead of warnings.
    pub strict: bool,
    /// Tells the version of the configuration also to those who may not call, as the Data Plane API does.
    pub version_for_all: bool,
}

/// What a gateway stands on.
pub struct Foundation {
    /// The method table.
    pub tables: Arc<Tables>,
    /// Where calls go.
    pub api: Arc<dyn Api>,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// Shown at `/healthz`.
    pub health: Health,
    /// Source of the `Configuration-Version` header.
    pub version: VersionOf,
    /// Fixed pages: documentation, the OpenAPI document.
    pub pages: Vec<Page>,
    /// Settings.
    pub settings: Settings,
    /// Ends watches when cancelled.
    pub stop: CancellationToken,
}

const VERSION: HeaderName = HeaderName::from_static("configuration-version");

/// Serves REST.
pub struct Gateway {
    on: Foundation,
    routes: Routes,
    views: Views,
}

impl Gateway {
    /// A gateway for every binding of the method table.
    pub fn new(on: Foundation) -> Result<Self> {
        let (routes, views) = (Routes::new(&on.tables)?, Views::new(&on.tables));
        Ok(Gateway { on, routes, views })
    }

    /// Settings for calls from browsers, which gRPC-web obeys too.
    pub fn cors(&self) -> &Cors {
        &self.on.settings.cors
    }

    /// The answer to a request that is refused before anything of it is looked at.
    pub fn refuse<B>(&self, request: &Request<B>, error: &Error) -> Response<Body> {
        let mut response = error_response(request.method(), "", error);
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if self.on.settings.version_for_all {
            headers.insert(VERSION, (self.on.version)(None).into());
        }
        response
    }

    /// Answers one request. Errors are answers too.
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let mut response = match self.open_page(&head) {
            Some(response) => response,
            None => self.routed(&mut head, body).await,
        };
        if self.may_know_the_version(&head, response.status()).await {
            let query = head.uri.query().unwrap_or_default();
            let transaction = query::value(query, "transaction_id").filter(|id| !id.is_empty());
            response.headers_mut().insert(VERSION, (self.on.version)(transaction.as_deref()).into());
        }
        response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
        response
    }

    /// Those who may call, also where they need no credentials.
    async fn may_know_the_version(&self, head: &Parts, status: StatusCode) -> bool {
        self.on.settings.version_for_all
            || head.extensions.get::<Session>().is_some()
            // Who was refused already need not be asked again.
            || (!matches!(status, StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE)
                && self.admit(head).await.is_ok())
    }

    async fn admit(&self, head: &Parts) -> Result<Session> {
        let authorization = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let visitor = head.extensions.get::<Arc<Visitor>>().cloned().unwrap_or_default();
        self.on.authenticator.admit(&visitor, authorization).await
    }

    /// Pages that need no credentials.
    fn open_page(&self, head: &Parts) -> Option<Response<Body>> {
        let path = &*routes::clean(head.uri.path());
        if head.method == HttpMethod::GET
            && let Some(page) = self.page(path).filter(|page| page.open)
        {
            return Some(page.response());
        }
        // Probes of load balancers may send HEAD; below /v2 it is not allowed.
        if head.method != HttpMethod::GET && head.method != HttpMethod::HEAD {
            return None;
        }
        match path {
            "/" => Some(plain(StatusCode::OK, "backstay: gRPC and REST /v2 on this port, documentation at /v2/docs\n")),
            "/healthz" if self.on.health.serving() => Some(plain(StatusCode::OK, "serving\n")),
            "/healthz" => Some(plain(StatusCode::SERVICE_UNAVAILABLE, "not serving\n")),
            _ => None,
        }
    }

    fn page(&self, path: &str) -> Option<&Page> {
        self.on.pages.iter().find(|page| page.path == path || path.strip_suffix('/') == Some(page.path))
    }

    async fn routed(&self, head: &mut Parts, body: Body) -> Response<Body> {
        let path = &*routes::clean(head.uri.path());
        let found = self.routes.find(head.method.as_str(), path);
        let listed = discovery::lists(path);
        let page = self.page(path);
        let known = match &found {
            Found::Nothing if listed || page.is_some() => vec!["GET"],
            Found::Nothing => {
                let message = format!("path {} was not found", head.uri.path());
                return refusal(StatusCode::NOT_FOUND, &message);
            }
            Found::Methods(methods) => methods.clone(),
            Found::Route(..) => Vec::new(),
        };
        let fixed = matches!(found, Found::Nothing) && head.method == HttpMethod::GET;
        if !known.is_empty() && !fixed {
            return not_allowed(&head.method, &known);
        }
        match self.admit(head).await {
            Ok(session) => head.extensions.insert(session),
            Err(error) => return unauthenticated(&head.method, &error),
        };
        match found {
            Found::Route(route, values) => self.call(head, body, route, &values).await,
            _ => match page {
                Some(page) => page.response(),
                None => json(discovery::list(&self.on.tables, &self.routes, &self.on.pages, path)),
            },
        }
    }

    /// Calls a method of the table.
    async fn call(&self, head: &Parts, mut body: Body, route: &Route, values: &[String]) -> Response<Body> {
        let method = &self.on.tables.methods[route.method];
        let offered = response::media_types(&self.on.tables, method, route);
        if !accepts_any(&head.headers, offered) {
            let message = format!("unsupported media type requested, only [{}] are available", offered.join(" "));
            return refusal(StatusCode::NOT_ACCEPTABLE, &message);
        }
        let typed = request::check_content_type(&self.on.tables, method, route, &head.headers, &mut body);
        if let Err(message) = typed.await {
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message);
        }
        let mut keys = Keys::default();
        let mut response = match self.answer(head, body, route, values, &mut keys).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = error_response(&head.method, &route.rule.path, &error);
                if compat::typed_as_download(response.status(), offered) {
                    response.headers_mut().insert(CONTENT_TYPE, response::OCTETS);
                }
                response
            }
        };
        let named = [
            named("unknown, ignored", &keys.unknown),
            named("taken in another case", &keys.recased),
            named("in the file, but not shown, as their types cannot hold the words", &keys.not_shown),
        ];
        let warnings: Vec<String> = named.into_iter().flatten().chain(self.on.api.warnings()).collect();
        warning::add(response.headers_mut(), &warnings);
        response
    }

    async fn answer(
        &self,
        head: &Parts,
        body: Body,
        route: &Route,
        values: &[String],
        keys: &mut Keys,
    ) -> Result<Response<Body>> {
        let tables = &self.on.tables;
        let settings = &self.on.settings;
        let method = &tables.methods[route.method];
        let query = head.uri.query().unwrap_or_default();
        let parameters = query::read(tables, method, route, values, query);
        keys.unknown = parameters.unknown;
        let mut request = parameters.object;
        header_fields(tables, method, &head.headers, &mut request)?;
        let mut violations = parameters.violations;
        let absent = compat::missing_parameters(tables, method, route, &request);
        let known: Vec<String> = violations.iter().map(|violation| violation.field.clone()).collect();
        violations.extend(absent.into_iter().filter(|violation| !known.contains(&violation.field)));
        violations.extend(parameter_violations(tables, method, route, &request, &violations));
        // /v2 looks at parameters by name, and reports the first that is wrong.
        violations.sort_by(|one, other| one.field.cmp(&other.field));
        if !violations.is_empty() {
            return Err(Error::invalid(violations));
        }
        let mut room = head.extensions.get::<Memory>().cloned().unwrap_or_default().lease();
        let rest = request::read_body(
            tables,
            method,
            route,
            compat::json_rules(&route.rule.path),
            settings.limits,
            settings.strict,
            &head.headers,
            body,
            &mut room,
            &mut request,
        );
        let rest = rest.await?;
        keys.unknown.extend(rest.keys.unknown);
        keys.recased = rest.keys.recased;
        if settings.strict && !(keys.unknown.is_empty() && keys.recased.is_empty()) {
            let what = [&keys.unknown[..], &keys.recased[..]].concat().join(", ");
            return Err(Error::new(Reason::MalformedRequest, format!("unknown fields or parameters: {what}")));
        }
        let target = compat::check_target(tables, method, &request);
        if let Err(error) = target.and_then(|()| compat::check_identity(&route.rule.path, tables, method, &request)) {
            check::refuse(rest.doubts)?;
            return Err(error);
        }
        let facts = facts(tables, method, route, &head.headers, &request);
        let mirrors = self.views.normalize(method, &mut request);
        let caller = head.extensions.get().and_then(Session::user).map(Into::into);
        let Rest { upload, doubts, is_json, .. } = rest;
        let call = Call { method: route.method, request, transport: Transport::Rest, caller, upload, doubts, is_json };
        match self.on.api.call(call).await {
            Ok(Answer::Message(mut message)) => {
                keys.not_shown = not_shown(tables, method, &mut message);
                self.views.show(method, mirrors, &mut message);
                response::respond(tables, method, route, facts, Answer::Message(message)).await
            }
            Ok(Answer::Stream(messages)) => {
                // What is read from end to end may be read to its end.
                let stop = if method.streaming { self.on.stop.clone() } else { CancellationToken::new() };
                let session = head.extensions.get::<Session>().cloned().unwrap_or_default();
                let answer = Answer::Stream(until_ended(messages, &stop, &session));
                response::respond(tables, method, route, facts, answer).await
            }
            Ok(answer) => response::respond(tables, method, route, facts, answer).await,
            Err(error) => {
                let answer = compat::answer(&head.method, &route.rule.path, &error);
                if compat::empty_list(method.verb, &route.rule.path, answer, &error) {
                    let transaction = query::value(query, "transaction_id").filter(|id| !id.is_empty());
                    let version = (self.on.version)(transaction.as_deref());
                    return Ok(response::empty_list(tables, method, route, version));
                }
                Err(error)
            }
        }
    }
}

/// Takes the names of what an answer cannot show out of it: over REST a warning names them.
fn not_shown(tables: &Tables, method: &Method, message: &mut Object) -> Vec<String> {
    let taken = tables.messages[method.output].field_named("not_shown").and_then(|field| message.take(field));
    let Some(Value::List(names)) = taken else { return Vec::new() };
    names.into_iter().filter_map(|name| if let Value::Str(name) = name { Some(name.into()) } else { None }).collect()
}

impl Page {
    /// A page whose bytes `make` makes once.
    pub fn new(
        path: &'static str,
        content_type: &'static str,
        open: bool,
        make: impl FnOnce() -> Bytes + Send + 'static,
    ) -> Self {
        Page { path, content_type, body: LazyLock::new(Box::new(make)), open }
    }

    fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::new(Full::new(Bytes::clone(&self.body))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

fn unauthenticated(method: &HttpMethod, error: &Error) -> Response<Body> {
    let mut response = error_response(method, "", error);
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"API\""));
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn not_allowed(method: &HttpMethod, known: &[&str]) -> Response<Body> {
    let known = known.join(",");
    let mut response =
        refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("method {method} is not allowed, but [{known}] are"));
    if let Ok(value) = HeaderValue::from_str(&known) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// True when an `Accept` header lets one of the types through. No header lets everything through.
fn accepts_any(headers: &HeaderMap, offered: &[&str]) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = values.flat_map(|value| value.split(',')).map(Range::read).collect();
    // Of several ranges that a type is in the narrowest counts.
    let accepted = |offer: &&str| {
        let best = ranges.iter().filter_map(|range| Some((range.width(offer)?, range.refused))).min();
        best.is_some_and(|(_, refused)| !refused)
    };
    ranges.is_empty() || offered.iter().any(accepted)
}

/// A part of an `Accept` header.
struct Range<'h> {
    name: &'h str,
    refused: bool,
}

impl<'h> Range<'h> {
    fn read(text: &'h str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
        Range { name, refused: weight.is_some_and(|weight| weight <= 0.0) }
    }

    /// How much else is in the range, the narrowest first; nothing when the type is not in it.
    fn width(&self, offer: &str) -> Option<u8> {
        if self.name.eq_ignore_ascii_case(offer) {
            return Some(0);
        }
        if self.name.is_empty() || self.name == "*/*" {
            return Some(2);
        }
        let family = |text: &str| text.split('/').next().unwrap_or_default().to_ascii_lowercase();
        (self.name.ends_with("/*") && family(self.name) == family(offer)).then_some(1)
    }
}

/// Request headers that are request fields.
fn header_fields(tables: &Tables, method: &Method, headers: &HeaderMap, request: &mut Object) -> Result<()> {
    for (header, name) in compat::REQUEST_HEADERS {
        let input = &tables.messages[method.input];
        let (Some(at), Some(Ok(text))) = (input.field_named(name), headers.get(header).map(HeaderValue::to_str)) else {
            continue;
        };
        if compat::header_counts(tables, method, header, request) {
            let field = &input.fields[at];
            for value in actions::read(tables, field, text)? {
                if field.repeated { request.push(at, value) } else { request.set(at, value) }
            }
        }
    }
    Ok(())
}

/// Broken rules of path and query; the body is not there yet. Fields that failed to parse are named already.
fn parameter_violations(
    tables: &Tables,
    method: &Method,
    route: &Route,
    request: &Object,
    known: &[Violation],
) -> Vec<Violation> {
    if route.body == Some(BodyField::Whole) {
        return Vec::new();
    }
    let input = &tables.messages[method.input];
    let body = match route.body {
        Some(BodyField::Field(at)) => Some(&input.fields[at].json),
        _ => None,
    };
    let mut found = check::check(tables, method.input, request, "query");
    found.retain(|violation| {
        let first = violation.field.split(['.', '[']).next().unwrap_or_default();
        body.is_none_or(|body| first != &**body) && !known.iter().any(|other| other.field == violation.field)
    });
    for violation in &mut found {
        if route.parameters.iter().any(|field| *input.fields[*field].json == *violation.field) {
            violation.location = "path";
        }
    }
    found
}

fn facts(tables: &Tables, method: &Method, route: &Route, headers: &HeaderMap, request: &Object) -> Facts {
    let input = &tables.messages[method.input];
    let flag = |name: &str| input.field_named(name).is_some_and(|field| request.flag(field));
    let set = |name: &str| input.field_named(name).is_some_and(|field| request.get(field).is_some());
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Facts {
        transaction: set("transaction_id") && method.verb != Verb::Custom,
        force_reload: flag("force_reload"),
        validate_only: flag("validate_only"),
        events: accepted.contains("text/event-stream"),
        status: compat::success_status(&route.rule.path, tables, method, request),
    }
}

/// Names keys and what became of them, cut to a size that fits a header.
fn named(what: &str, keys: &[String]) -> Option<String> {
    const LONGEST: usize = 900;
    if keys.is_empty() {
        return None;
    }
    let mut text = format!("{what}: ");
    for (number, name) in keys.iter().enumerate() {
        if text.len() + name.len() > LONGEST {
            text.push_str(", ...");
            break;
        }
        if number > 0 {
            text.push_str(", ");
        }
        text.push_str(name);
    }
    Some(text)
}
