//! Every method and binding of the real schema, with a service that answers nothing.

use super::*;
use crate::configuration::ports::Pending;
use crate::error::Result;
use crate::gateway::compat;
use crate::gateway::routes::{Found, Route, Routes};
use crate::grpc::call::{Answer, Api, Call};
use crate::schema::sample::schema;
use crate::schema::tables::{Kind, Tables};
use crate::schema::value::Object;

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));

struct Nothing(Arc<Tables>);

impl Api for Nothing {
    fn call(&self, call: Call) -> Pending<'_, Result<Answer>> {
        let streaming = self.0.methods[call.method].streaming;
        Box::pin(async move {
            Ok(if streaming { Answer::Stream(Box::pin(tokio_stream::empty())) } else { Answer::Message(Object::new()) })
        })
    }
}

fn protocols(tables: &Arc<Tables>) -> Protocols {
    let api = Arc::new(Nothing(tables.clone()));
    let password = Password::plain("secret", |_| None).unwrap();
    let authenticator =
        Arc::new(Authenticator::new(vec![User { name: "admin".into(), password }], crate::auth::Wording::Same));
    let stop = CancellationToken::new();
    let health = Health::new();
    let grpc = GrpcServer::new(tables.clone(), api.clone(), authenticator.clone(), &health, DESCRIPTORS, stop.clone());
    let gateway = Gateway::new(Foundation {
        tables: tables.clone(),
        api,
        authenticator,
        health,
        version: Arc::new(|_| 1),
        pages: Vec::new(),
        settings: Settings::default(),
        stop,
    })
    .unwrap();
    Protocols::new(grpc, gateway)
}

/// A path and query that the route takes.
fn target(tables: &Tables, route: &Route) -> String {
    let method = &tables.methods[route.method];
    let input = &tables.messages[method.input];
    let mut path = String::new();
    for segment in route.rule.path.trim_start_matches('/').split('/') {
        path.push('/');
        path.push_str(match segment {
            "{id}" if route.rule.path.contains("reloads") => "2024-01-01-1",
            _ if segment.starts_with('{') => "1",
            literal => literal,
        });
    }
    let mut separator = '?';
    for (at, field) in input.fields.iter().enumerate() {
        let left_out = field.grpc_only || matches!(&*field.name, "transaction_id" | "version");
        if route.parameters.contains(&at) || left_out {
            continue;
        }
        let value = match field.kind {
            Kind::Enum(_) => compat::allowed_tokens(tables, method, &route.rule.path, at)[0],
            Kind::Message(_) | Kind::Bytes => continue,
            _ => "1",
        };
        path.push(separator);
        path.push_str(&field.json);
        path.push('=');
        path.push_str(value);
        separator = '&';
    }
    path
}

#[tokio::test]
async fn every_binding_that_needs_no_body_answers() {
    let tables = schema();
    let protocols = protocols(&tables);
    let routes = Routes::new(&tables).unwrap();
    let mut count = 0;
    for route in routes.iter().filter(|route| matches!(&*route.rule.method, "GET" | "DELETE")) {
        count += 1;
        let target = target(&tables, route);
        let request = Request::builder()
            .method(&*route.rule.method)
            .uri(&target)
            .header("authorization", credentials())
            .body(tonic::body::Body::empty())
            .unwrap();
        let response = protocols.serve(request, None).await;
        let status = response.status();
        assert!(status.is_success(), "{} {target}: {status}", route.rule.method);
        assert!(!response.headers().contains_key("warning"), "{target}: {:?}", response.headers());
        let json = response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if json {
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        }
        let bare = target.split('?').next().unwrap();
        let found = routes.find(&route.rule.method, &format!("{bare}/"));
        assert!(matches!(found, Found::Route(same, _) if std::ptr::eq(same, route)), "{bare}");
    }
    assert!(count > 100, "{count}");
}

#[tokio::test]
async fn every_method_answers_over_grpc() {
    let tables = schema();
    let protocols = protocols(&tables);
    for method in &tables.methods {
        let request = Request::builder()
            .method("POST")
            .uri(&*method.path)
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("authorization", credentials())
            .body(tonic::body::Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]))))
            .unwrap();
        let (parts, body) = protocols.serve(request, None).await.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status =
            trailers.get("grpc-status").or(parts.headers.get("grpc-status")).unwrap().to_str().unwrap().to_owned();
        assert!(["0", "3"].contains(&status.as_str()), "{}: {status}", method.path);
    }
}

#[tokio::test]
async fn reflection_serves_the_files_of_the_schema_and_what_they_import() {
    let tables = schema();
    let protocols = protocols(&tables);
    // Field 3 of a reflection request is a file name, field 4 a symbol.
    for (field, name, expected) in [
        (0x22, "backstay.configuration.v2.ServerService", "ListServers"),
        (0x1a, "google/api/annotations.proto", "google.api"),
    ] {
        let mut message = vec![0, 0, 0, 0, name.len() as u8 + 2, field, name.len() as u8];
        message.extend_from_slice(name.as_bytes());
        let request = Request::builder()
            .method("POST")
            .uri("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("authorization", credentials())
            .body(tonic::body::Body::new(Full::new(Bytes::from(message))))
            .unwrap();
        let body = protocols.serve(request, None).await.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(expected), "{name}: {} bytes", body.len());
    }
}
