//! One port for gRPC, gRPC-web and REST: credentials, discovery, and what is not known.

use prost::Message as _;
use serde_json::json;
use tonic::Code;

use backstay::error::Reason;

use crate::support::client::{Http, Transport, basic, request};
use crate::support::world::{World, done, over_both};

over_both!(credentials, covers["InfoService.GetInfo"]);

async fn credentials(world: &mut World) {
    world.cases([("InfoService.GetInfo", json!({}), done())]).await;
    let row = Reason::Unauthenticated.row();
    for authorization in [
        String::new(),
        basic("admin", "wrong-secret"),
        basic("nobody", "wrong-secret"),
        "Basic !".to_owned(),
        "Bearer wrong-secret".to_owned(),
    ] {
        let stranger = world.client.authorized(&authorization);
        let refusal = stranger.call("InfoService.GetInfo", &json!({})).await.unwrap_err();
        if world.is_rest() {
            assert_eq!(refusal.status, row.status, "{authorization}");
        } else {
            assert_eq!((refusal.code, &*refusal.reason), (row.code as i64, row.name), "{authorization}");
        }
        assert!(!refusal.text.contains("wrong-secret"), "{}", refusal.text);
        let stream = stranger.stream("StickTableService.WatchStickTable", &json!({"stick_table": "clients"})).await;
        assert!(stream.is_err(), "{authorization}");
    }
    assert!(!world.backstay.log().contains("wrong-secret"));
    assert!(!world.backstay.log().contains(&world.backstay.password));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_says_what_it_does_not_know() {
    let world = World::start(Transport::Rest, &[]);
    let send = async |method: &str, path: &str| world.client.send(request(method, path, "", "")).await;
    let answer = send("GET", "/v2/nothing").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (404, Some(404)));
    assert_eq!(answer.json()["message"], "path /v2/nothing was not found");
    assert!(!answer.header("configuration-version").is_empty());
    let answer = send("PATCH", "/v2/services/haproxy/configuration/backends").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET,POST"));
    let challenge = world.client.authorized("").send(request("GET", "/v2/info", "", "")).await;
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, "Basic realm=\"API\""));
    for path in ["/v2/docs", "/swagger.json", "/healthz"] {
        let open = world.client.authorized("").send(request("GET", path, "", "")).await;
        assert_eq!(open.status, 200, "{path}");
        assert!(!open.body.is_empty(), "{path}");
    }
    let children = send("GET", "/v2/services/haproxy").await;
    assert!(children.text().contains("/services/haproxy/configuration"), "{}", children.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_says_what_it_does_not_know() {
    let world = World::start(Transport::Grpc, &[]);
    for path in ["/backstay.configuration.v2.BackendService/Nothing", "/no.Service/Method"] {
        let status = world.client.unary(path, Vec::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    let status =
        world.client.unary("/backstay.configuration.v2.BackendService/GetBackend", vec![0xff, 0xff]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer_as_grpc_tools_expect() {
    let world = World::start(Transport::Grpc, &[]);
    // `status: SERVING` is field 1, value 1.
    let health = world.client.unary("/grpc.health.v1.Health/Check", Vec::new()).await.unwrap();
    assert_eq!(&health[..], [0x08, 0x01]);
    // `list_services: ""` is field 7.
    for package in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{package}.ServerReflection/ServerReflectionInfo");
        let listed = world.client.unary(&path, vec![0x3a, 0x00]).await.unwrap();
        let text = String::from_utf8_lossy(&listed).into_owned();
        assert!(text.contains("backstay.configuration.v2.BackendService"), "{text}");
        // `file_containing_symbol` is field 4.
        let symbol = "backstay.runtime.v2.MapService";
        let mut query = vec![0x22, symbol.len() as u8];
        query.extend_from_slice(symbol.as_bytes());
        let file = world.client.unary(&path, query).await.unwrap();
        assert!(String::from_utf8_lossy(&file).contains("backstay/runtime/v2/map.proto"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_call_by_grpc_web_over_http_1() {
    let world = World::start(Transport::Grpc, &["--cors-origin", "http://localhost:9"]);
    let call = async |body: Vec<u8>, path: &str| -> Http {
        let mut framed = vec![0];
        framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
        framed.extend_from_slice(&body);
        let mut call = request("POST", path, "application/grpc-web+proto", framed);
        call.headers_mut().insert("x-grpc-web", "1".parse().unwrap());
        call.headers_mut().insert("origin", "http://localhost:9".parse().unwrap());
        world.client.send(call).await
    };
    let answer = call(Vec::new(), "/backstay.configuration.v2.RawConfigurationService/GetVersion").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web+proto"));
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:9");
    // One message, and the trailers as the last frame.
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    let message = backstay::proto::configuration::GetVersionResponse::decode(&answer.body[5..5 + length]).unwrap();
    assert_eq!(message.version, world.version().await);
    assert_eq!(answer.body[5 + length], 0x80);
    assert!(String::from_utf8_lossy(&answer.body[5 + length..]).contains("grpc-status:0"));

    let get = backstay::proto::configuration::GetTransactionRequest { id: "nope".into() };
    let answer = call(get.encode_to_vec(), "/backstay.configuration.v2.TransactionService/GetTransaction").await;
    let status = if answer.header("grpc-status").is_empty() {
        answer.text()
    } else {
        format!("grpc-status:{}", answer.header("grpc-status"))
    };
    assert!(status.contains("grpc-status:5"), "{status}");
}
