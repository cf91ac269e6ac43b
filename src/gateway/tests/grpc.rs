//! gRPC over HTTP/2, gRPC-web over HTTP/1.1, reflection and health.

use bytes::{Buf as _, BufMut as _};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::*;
use crate::schema::value::{Object, Value};
use crate::schema::wire;

/// Messages as bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

impl Port {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn call(&self, path: &str, request: tonic::Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        let mut client = Grpc::new(self.channel().await).max_decoding_message_size(64 << 20);
        client.ready().await.unwrap();
        client.unary(request, path.parse().unwrap(), Raw).await
    }

    async fn watch(&self, name: &str, timeout: Duration) -> Result<Streaming<Vec<u8>>, Status> {
        let mut client = Grpc::new(self.channel().await);
        client.ready().await.unwrap();
        let mut request = with_credentials(encoded("WatchTableRequest", &[("name", text(name))]));
        request.set_timeout(timeout);
        let path = "/backstay.test.v2.TableService/WatchTable";
        Ok(client.server_streaming(request, path.parse().unwrap(), Raw).await?.into_inner())
    }
}

const GET: &str = "/backstay.test.v2.BackendService/GetBackend";

fn encoded(message: &str, fields: &[(&str, Value)]) -> Vec<u8> {
    let tables = fixture::tables();
    let id = tables.message_by_name[&*format!("{}.{message}", fixture::PACKAGE)];
    let mut object = Object::new();
    for (name, value) in fields {
        object.set(tables.messages[id].field_named(name).unwrap(), value.clone());
    }
    let mut bytes = Vec::new();
    wire::encode(&tables, id, &object, &mut bytes);
    bytes
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn with_credentials<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", credentials().parse().unwrap());
    request
}

#[tokio::test]
async fn unary_calls_are_answered_from_the_table() {
    let port = start();
    let request = with_credentials(encoded("GetBackendRequest", &[("name", text("b1"))]));
    let answer = port.call(GET, request).await.unwrap().into_inner();
    let tables = fixture::tables();
    let id = tables.message_by_name["backstay.test.v2.GetBackendResponse"];
    let object = wire::decode(&tables, id, &answer).unwrap();
    assert_eq!(object.int(0), Some(7));
    assert_eq!(object.object(1).unwrap().str(0), Some("b1"));
}

#[tokio::test]
async fn errors_carry_reason_and_details() {
    let port = start();
    let missing = with_credentials(encoded("GetBackendRequest", &[("name", text("missing"))]));
    let status = port.call(GET, missing).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "backend missing does not exist"));
    assert_eq!(status.get_details_error_info().unwrap().reason, "OBJECT_NOT_FOUND");
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, "missing");
    let status = port.call(GET, with_credentials(Vec::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "name");
    let broken = with_credentials(encoded("GetBackendRequest", &[("name", text("broken"))]));
    let status = port.call(GET, broken).await.unwrap_err();
    assert!(status.code() == Code::Internal && !format!("{status:?}").contains("secret"), "{status:?}");
    assert_eq!(port.call(GET, with_credentials(vec![0x0a, 9, 1])).await.unwrap_err().code(), Code::InvalidArgument);
    let status = port.call("/backstay.test.v2.BackendService/Nothing", with_credentials(Vec::new())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = port.call(GET, with_credentials(vec![0; 17 << 20])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("the limit is 16777216"), "{status:?}");
    let large = with_credentials(encoded("GetBackendRequest", &[("name", text("large"))]));
    assert_eq!(port.call(GET, large).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn an_update_need_not_name_every_required_field() {
    let port = start();
    let update = "/backstay.test.v2.BackendService/UpdateBackend";
    let mut partial = Object::new();
    partial.set(1, Value::Int(3));
    let fields = [("name", text("b1")), ("backend", Value::Object(partial)), ("version", Value::Int(7))];
    assert!(port.call(update, with_credentials(encoded("UpdateBackendRequest", &fields))).await.is_ok());
    let nameless = encoded("UpdateBackendRequest", &fields[1..]);
    assert_eq!(port.call(update, with_credentials(nameless)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn calls_need_credentials_but_health_does_not() {
    let port = start();
    let request = tonic::Request::new(encoded("GetBackendRequest", &[("name", text("b1"))]));
    let status = port.call(GET, request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.get_details_error_info().unwrap().reason, "UNAUTHENTICATED");
    assert!(port.fake.calls.lock().unwrap().is_empty());

    let mut health = HealthClient::new(port.channel().await);
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(check("backstay.test.v2.MapService")).await.unwrap_err().code(), Code::NotFound);
    port.health.set("backstay.test.v2.MapService", false).await;
    assert_eq!(health.check(check("backstay.test.v2.MapService")).await.unwrap().into_inner().status, 2);
}

#[tokio::test]
async fn streams_arrive_in_order_and_end_with_their_status() {
    let port = start();
    let minute = Duration::from_mins(1);
    let mut stream = port.watch("t", minute).await.unwrap();
    let mut seen = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        seen.push(message);
    }
    assert_eq!(seen, [vec![8, 1], vec![8, 2], vec![8, 3]]);
    let mut stream = port.watch("endless", minute).await.unwrap();
    assert_eq!(stream.message().await.unwrap(), Some(vec![8, 1]));
    port.stop.cancel();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable, "the stop ends streams at once");
    let port = start();
    let mut stream = port.watch("missing", minute).await.unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn deadlines_end_unary_and_streamed_calls() {
    let port = start();
    let send = async |timeout: &str| {
        let head = format!(
            "POST {GET}\ncontent-type: application/grpc\nte: trailers\ngrpc-timeout: {timeout}\nauthorization: {}",
            credentials()
        );
        let message = encoded("GetBackendRequest", &[("name", text("slow"))]);
        let mut body = vec![0, 0, 0, 0, message.len() as u8];
        body.extend_from_slice(&message);
        port.send_version(&head, body, true).await
    };
    // The header is sent by hand, so that only the server can end the call.
    assert_eq!(send("50m").await.header("grpc-status"), "4");
    assert_eq!(send("50x").await.header("grpc-status"), "3");
    let head = format!(
        "POST /backstay.test.v2.TableService/WatchTable\ncontent-type: application/grpc\ngrpc-timeout: 100m\nauthorization: {}",
        credentials()
    );
    let message = encoded("WatchTableRequest", &[("name", text("endless"))]);
    let mut body = vec![0, 0, 0, 0, message.len() as u8];
    body.extend_from_slice(&message);
    let reply = port.send_version(&head, body, true).await;
    assert_eq!((&reply.body[..], reply.header("grpc-status")), (&[0, 0, 0, 0, 2, 8, 1][..], "4"));
    assert_eq!(Arc::strong_count(&port.fake.open), 1, "the source is dropped");
}

#[tokio::test]
async fn grpc_web_works_over_both_versions_and_bare_grpc_needs_http2() {
    let port = start_with(Settings { cors: Cors::of(&["*".to_owned()]), ..Settings::default() }, Bounds::default());
    let message = encoded("GetBackendRequest", &[("name", text("b1"))]);
    let mut body = vec![0, 0, 0, 0, message.len() as u8];
    body.extend_from_slice(&message);
    for http2 in [false, true] {
        let head = format!(
            "POST {GET}\ncontent-type: application/grpc-web+proto\nx-grpc-web: 1\norigin: https://a.example\nauthorization: {}",
            credentials()
        );
        let reply = port.send_version(&head, body.clone(), http2).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/grpc-web+proto"));
        assert_eq!(reply.header("access-control-allow-origin"), "https://a.example");
        let length = reply.body[4] as usize;
        assert!(reply.body[5..5 + length].ends_with(&[0x0a, 2, b'b', b'1', 0x10, 5]), "{:?}", reply.body);
        let trailers = &reply.body[5 + length..];
        assert_eq!(trailers[0], 0x80, "a frame of trailers follows");
        assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"), "{trailers:?}");
    }
    let watch = encoded("WatchTableRequest", &[("name", text("t"))]);
    let mut body = vec![0, 0, 0, 0, watch.len() as u8];
    body.extend_from_slice(&watch);
    let head = format!(
        "POST /backstay.test.v2.TableService/WatchTable\ncontent-type: application/grpc-web-text\naccept: application/grpc-web-text\nauthorization: {}",
        credentials()
    );
    let encoded = base64::engine::general_purpose::STANDARD.encode(&body);
    let reply = port.send_bare(&head, encoded.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/grpc-web-text+proto"));
    let denied = port.send_bare("POST /x/Y\ncontent-type: application/grpc-web", body.clone()).await;
    let text = format!("{:?} {}", denied.headers, String::from_utf8_lossy(&denied.body));
    assert!(text.contains("16"), "{text}");
    let head = format!("POST {GET}\ncontent-type: application/grpc\nauthorization: {}", credentials());
    assert_eq!(port.send_bare(&head, body).await.status, 505);
}

#[tokio::test]
async fn reflection_lists_services_in_both_versions_with_credentials() {
    let port = start();
    // list_services of either version: field 7, a string.
    let list = vec![0x3a, 1, b'*'];
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let send = async |request: tonic::Request<Vec<u8>>| {
            let mut client = Grpc::new(port.channel().await);
            client.ready().await.unwrap();
            let request = request.map(|message| tokio_stream::iter([message]));
            let mut stream = client.streaming(request, path.parse().unwrap(), Raw).await?.into_inner();
            stream.message().await
        };
        let answer = send(with_credentials(list.clone())).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("grpc.health.v1.Health") && answer.contains("ServerReflection"), "{answer}");
        let status = send(tonic::Request::new(list.clone())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}
