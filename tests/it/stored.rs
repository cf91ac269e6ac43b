//! Files besides haproxy.cfg: certificates, files for any use, SPOE files; and what an instance says of clusters.

use serde_json::json;

use backstay::error::Reason;

use crate::support::client::{Transport, request};
use crate::support::world::{World, done, holds, over_both, refused, refused_saying, refused_with};

const CHAIN: &str = include_str!("../data/certificates/chain.pem");
/// A key of another certificate.
const OTHER_KEY: &str = include_str!("../data/certificates/other.key");
/// Bytes that an editor would change.
const ODD: &str = "a\r\n\n  b # c\t\nlast";

over_both!(
    certificates,
    covers [
        "StorageCertificateService.ListStorageCertificates",
        "StorageCertificateService.GetStorageCertificate",
        "StorageCertificateService.CreateStorageCertificate",
        "StorageCertificateService.ReplaceStorageCertificate",
        "StorageCertificateService.DeleteStorageCertificate"
    ]
);

async fn certificates(world: &mut World) {
    let file = world.backstay.folder().join("ssl/site.pem");
    let shown = file.display().to_string();
    let facts = json!({
        "storage_name": "site.pem", "file": shown, "size": CHAIN.len(), "issuers": "Example Root",
        "domains": "example.com, www.example.com", "ip_addresses": "192.0.2.1, 2001:db8::1", "algorithm": "EC256",
    });
    let worker = world.worker();
    world
        .cases([
            ("StorageCertificateService.ListStorageCertificates", json!({}), holds(json!({"certificates": null}))),
            (
                "StorageCertificateService.CreateStorageCertificate",
                json!({"name": "half.pem", "data": CHAIN.split_once("-----BEGIN EC").unwrap().0}),
                refused_with(Reason::CertificateRejected, 500),
            ),
            (
                "StorageCertificateService.CreateStorageCertificate",
                json!({"name": "site.pem", "data": CHAIN}),
                holds(json!({"certificate": facts})),
            ),
            (
                "StorageCertificateService.CreateStorageCertificate",
                json!({"name": "site.pem", "data": CHAIN}),
                refused(Reason::ObjectExists),
            ),
            (
                "StorageCertificateService.GetStorageCertificate",
                json!({"name": "site.pem"}),
                holds(json!({"certificate": facts})),
            ),
            (
                "StorageCertificateService.ListStorageCertificates",
                json!({}),
                holds(json!({"certificates": [{"storage_name": "site.pem", "size": null, "issuers": null}]})),
            ),
            (
                "StorageCertificateService.ReplaceStorageCertificate",
                json!({"name": "site.pem", "data": format!("# mine\n{CHAIN}"), "skip_reload": true}),
                holds(json!({"certificate": {"size": CHAIN.len() + 7}})),
            ),
            (
                "StorageCertificateService.GetStorageCertificate",
                json!({"name": "other.pem"}),
                refused(Reason::ObjectNotFound),
            ),
        ])
        .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("# mine\n{CHAIN}"));
    world.settled().await;
    assert_ne!(world.worker(), worker, "haproxy is not reloaded");

    // A mention in a comment is none.
    let text = world.backstay.text();
    let socket = world.backstay.folder().join("tls.sock");
    let socket = socket.display();
    let bound = format!("{text}\nfrontend tls\n  bind {socket} ssl crt {shown}\n  default_backend hello\n");
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": bound})).await;
    // Another key than that of the certificate: HAProxy would not start with it.
    let mixed = format!("{}{OTHER_KEY}", CHAIN.split_once("-----BEGIN EC").unwrap().0);
    let name = "StorageCertificateService.ReplaceStorageCertificate";
    let refusal = refused_saying(Reason::ConfigurationRejected, "site.pem");
    world.refused(name, json!({"name": "site.pem", "data": mixed}), refusal).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("# mine\n{CHAIN}"));
    let name = "StorageCertificateService.DeleteStorageCertificate";
    world.refused(name, json!({"name": "site.pem"}), refused_saying(Reason::ObjectInUse, "tls.sock ssl crt")).await;
    let loose = format!("{}\n# once {shown}\n", world.backstay.text().split("\nfrontend tls").next().unwrap());
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": loose})).await;
    world.ok(name, json!({"name": "site.pem", "force_reload": true})).await;
    assert!(!file.try_exists().unwrap());
    world.refused(name, json!({"name": "site.pem"}), refused(Reason::ObjectNotFound)).await;
}

over_both!(
    general,
    covers [
        "StorageGeneralFileService.ListStorageGeneralFiles",
        "StorageGeneralFileService.GetStorageGeneralFile",
        "StorageGeneralFileService.CreateStorageGeneralFile",
        "StorageGeneralFileService.ReplaceStorageGeneralFile",
        "StorageGeneralFileService.DeleteStorageGeneralFile"
    ]
);

async fn general(world: &mut World) {
    let shown = world.backstay.folder().join("general/x.http").display().to_string();
    world
        .cases([
            (
                "StorageGeneralFileService.CreateStorageGeneralFile",
                json!({"name": "x.http", "data": ODD}),
                holds(json!({"file": {"storage_name": "x.http", "file": shown, "size": ODD.len()}})),
            ),
            (
                "StorageGeneralFileService.CreateStorageGeneralFile",
                json!({"name": "x.http", "data": ODD}),
                refused(Reason::ObjectExists),
            ),
            ("StorageGeneralFileService.GetStorageGeneralFile", json!({"name": "x.http"}), holds(json!({"data": ODD}))),
            (
                "StorageGeneralFileService.ListStorageGeneralFiles",
                json!({}),
                holds(json!({"files": [{"storage_name": "x.http", "size": null}]})),
            ),
            (
                "StorageGeneralFileService.ReplaceStorageGeneralFile",
                json!({"name": "x.http", "data": "new", "skip_reload": true}),
                done(),
            ),
            (
                "StorageGeneralFileService.GetStorageGeneralFile",
                json!({"name": "x.http"}),
                holds(json!({"data": "new"})),
            ),
            ("StorageGeneralFileService.DeleteStorageGeneralFile", json!({"name": "x.http"}), done()),
            (
                "StorageGeneralFileService.GetStorageGeneralFile",
                json!({"name": "x.http"}),
                refused(Reason::ObjectNotFound),
            ),
        ])
        .await;
}

over_both!(
    spoe,
    covers [
        "SpoeFileService.ListSpoeFiles",
        "SpoeFileService.GetSpoeFile",
        "SpoeFileService.CreateSpoeFile",
        "SpoeFileService.DeleteSpoeFile",
        "SpoeFileService.GetSpoeVersion",
        "SpoeScopeService.ListSpoeScopes",
        "SpoeScopeService.GetSpoeScope",
        "SpoeScopeService.CreateSpoeScope",
        "SpoeScopeService.DeleteSpoeScope",
        "SpoeAgentService.CreateSpoeAgent",
        "SpoeAgentService.ListSpoeAgents",
        "SpoeAgentService.GetSpoeAgent",
        "SpoeAgentService.ReplaceSpoeAgent",
        "SpoeAgentService.UpdateSpoeAgent",
        "SpoeAgentService.DeleteSpoeAgent",
        "SpoeMessageService.CreateSpoeMessage",
        "SpoeMessageService.ListSpoeMessages",
        "SpoeMessageService.GetSpoeMessage",
        "SpoeMessageService.ReplaceSpoeMessage",
        "SpoeMessageService.UpdateSpoeMessage",
        "SpoeMessageService.DeleteSpoeMessage",
        "SpoeGroupService.CreateSpoeGroup",
        "SpoeGroupService.ListSpoeGroups",
        "SpoeGroupService.GetSpoeGroup",
        "SpoeGroupService.ReplaceSpoeGroup",
        "SpoeGroupService.UpdateSpoeGroup",
        "SpoeGroupService.DeleteSpoeGroup",
        "SpoeTransactionService.ListSpoeTransactions",
        "SpoeTransactionService.GetSpoeTransaction",
        "SpoeTransactionService.BeginSpoeTransaction",
        "SpoeTransactionService.CommitSpoeTransaction",
        "SpoeTransactionService.DeleteSpoeTransaction"
    ]
);

async fn spoe(world: &mut World) {
    let path = world.backstay.folder().join("spoe/f.cfg");
    let text = "# mine\n[one]\nspoe-agent a\n    messages m\n    timeout hello 2s # slow\n    strange words\n";
    world
        .cases([
            ("SpoeFileService.ListSpoeFiles", json!({}), holds(json!({"files": null}))),
            (
                "SpoeFileService.CreateSpoeFile",
                json!({"name": "f.cfg", "data": text}),
                holds(json!({"file": path.display().to_string()})),
            ),
            ("SpoeFileService.CreateSpoeFile", json!({"name": "f.cfg", "data": ""}), refused(Reason::ObjectExists)),
            ("SpoeFileService.ListSpoeFiles", json!({}), holds(json!({"files": [path.display().to_string()]}))),
            ("SpoeFileService.GetSpoeFile", json!({"name": "f.cfg"}), holds(json!({"data": text}))),
            ("SpoeFileService.GetSpoeFile", json!({"name": "g.cfg"}), refused(Reason::ObjectNotFound)),
            ("SpoeFileService.GetSpoeVersion", json!({"spoe": "f.cfg"}), holds(json!({"version": 1}))),
            ("SpoeFileService.GetSpoeVersion", json!({"spoe": "g.cfg"}), refused_with(Reason::ParentNotFound, 500)),
        ])
        .await;
    world
        .cases([
            (
                "SpoeScopeService.CreateSpoeScope",
                json!({"spoe": "g.cfg", "name": "[two]", "version": 1}),
                refused_with(Reason::ParentNotFound, 500),
            ),
            (
                "SpoeScopeService.CreateSpoeScope",
                json!({"spoe": "f.cfg", "name": "[two]", "version": 3}),
                refused(Reason::VersionMismatch),
            ),
            ("SpoeScopeService.CreateSpoeScope", json!({"spoe": "f.cfg", "name": "[two]", "version": 1}), done()),
            (
                "SpoeScopeService.CreateSpoeScope",
                json!({"spoe": "f.cfg", "name": "[two]", "version": 2}),
                refused(Reason::ObjectExists),
            ),
            ("SpoeScopeService.ListSpoeScopes", json!({"spoe": "f.cfg"}), holds(json!({"data": ["[one]", "[two]"]}))),
            (
                "SpoeScopeService.GetSpoeScope",
                json!({"spoe": "f.cfg", "name": "[two]"}),
                holds(json!({"data": "[two]", "_version": 2})),
            ),
            ("SpoeScopeService.GetSpoeScope", json!({"spoe": "f.cfg", "name": "two"}), refused(Reason::ObjectNotFound)),
            ("SpoeScopeService.DeleteSpoeScope", json!({"spoe": "f.cfg", "name": "[two]", "version": 2}), done()),
        ])
        .await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# _version=3\n{text}"));

    // One line changes, all others stay.
    let agent = json!({"name": "a", "messages": "m n", "hello_timeout": 2000});
    let here = |more: serde_json::Value| {
        let mut request = json!({"spoe": "f.cfg", "scope": "[one]"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    world.ok("SpoeAgentService.ReplaceSpoeAgent", here(json!({"name": "a", "spoe_agent": agent, "version": 3}))).await;
    let changed = text.replace("messages m\n", "messages m n\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# _version=4\n{changed}"));
    let mut version = 4;
    sections(world, &here, &mut version).await;

    let begun =
        world.ok("SpoeTransactionService.BeginSpoeTransaction", json!({"spoe": "f.cfg", "version": version})).await;
    let id = begun["spoe_transaction"]["id"].as_str().unwrap().to_owned();
    let group = json!({"name": "late", "messages": "m"});
    world
        .cases([
            ("SpoeGroupService.CreateSpoeGroup", here(json!({"spoe_group": group, "transaction_id": id})), done()),
            (
                "SpoeGroupService.GetSpoeGroup",
                here(json!({"name": "late", "transaction_id": id})),
                holds(json!({"spoe_group": group})),
            ),
            ("SpoeGroupService.GetSpoeGroup", here(json!({"name": "late"})), refused(Reason::ObjectNotFound)),
            (
                "SpoeTransactionService.ListSpoeTransactions",
                json!({"spoe": "f.cfg"}),
                holds(json!({"spoe_transactions": [{"id": id, "status": "in_progress", "_version": version}]})),
            ),
            (
                "SpoeTransactionService.GetSpoeTransaction",
                json!({"spoe": "f.cfg", "id": id}),
                holds(json!({"spoe_transaction": {"id": id}})),
            ),
            (
                "SpoeTransactionService.CommitSpoeTransaction",
                json!({"spoe": "f.cfg", "id": id}),
                holds(json!({"spoe_transaction": {"id": id, "status": "success"}})),
            ),
            ("SpoeGroupService.GetSpoeGroup", here(json!({"name": "late"})), holds(json!({"spoe_group": group}))),
            (
                "SpoeTransactionService.DeleteSpoeTransaction",
                json!({"spoe": "f.cfg", "id": id}),
                refused(Reason::TransactionNotFound),
            ),
            ("SpoeFileService.DeleteSpoeFile", json!({"name": "f.cfg"}), done()),
            ("SpoeFileService.DeleteSpoeFile", json!({"name": "f.cfg"}), refused(Reason::ObjectNotFound)),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoe_files_that_are_in_use_are_checked_and_their_transactions_outlive_the_process() {
    let mut world = World::start(Transport::Grpc, &[]);
    let text = "[one]\nspoe-agent a\n    messages m\n    timeout processing 10ms\n    use-backend there\n\
        spoe-message m\n    args ip=src\n    event on-client-session\n";
    world.ok("SpoeFileService.CreateSpoeFile", json!({"name": "f.cfg", "data": text})).await;
    let path = world.backstay.folder().join("spoe/f.cfg");
    let socket = world.backstay.folder().join("spoe.sock");
    let more = format!(
        "\nfrontend watched\n  bind {}\n  filter spoe engine one config {}\n  default_backend hello\n\
         backend there\n  mode tcp\n  server s 127.0.0.1:1\n",
        socket.display(),
        path.display()
    );
    let data = format!("{}{more}", world.backstay.text());
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": data, "force_reload": true})).await;

    let agent = |backend: &str| json!({"name": "a", "messages": "m", "processing_timeout": 10, "use-backend": backend});
    let replace = |backend: &str| json!({"spoe": "f.cfg", "scope": "[one]", "name": "a", "spoe_agent": agent(backend)});
    let with = |mut request: serde_json::Value, key: &str, value: serde_json::Value| {
        request[key] = value;
        request
    };
    let method = "SpoeAgentService.ReplaceSpoeAgent";
    let refusal = refused_saying(Reason::ConfigurationRejected, "nowhere");
    world.refused(method, with(replace("nowhere"), "version", json!(1)), refusal).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    let begun = world.ok("SpoeTransactionService.BeginSpoeTransaction", json!({"spoe": "f.cfg", "version": 1})).await;
    let id = begun["spoe_transaction"]["id"].clone();
    world.ok(method, with(replace("nowhere"), "transaction_id", id.clone())).await;
    world.backstay.kill();
    world.restart();
    let commit = json!({"spoe": "f.cfg", "id": id});
    let refusal = refused_saying(Reason::ConfigurationRejected, "nowhere");
    world.refused("SpoeTransactionService.CommitSpoeTransaction", commit.clone(), refusal).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let mended = with(replace("there"), "transaction_id", id);
    world.ok(method, mended).await;
    world.ok("SpoeTransactionService.CommitSpoeTransaction", commit).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# _version=2\n{text}"));
}

/// Agents, messages and groups from creation to deletion.
async fn sections(world: &World, here: &impl Fn(serde_json::Value) -> serde_json::Value, version: &mut i64) {
    let samples = [
        (
            "SpoeAgent",
            "spoe_agent",
            json!({"name": "x", "async": "disabled", "max-frame-size": 4096, "use-backend": "b", "option_var-prefix": "p",
                "log": [{"index": 0, "global": true}]}),
            json!({"name": "x", "pipelining": "enabled", "groups": "g h", "processing_timeout": 15}),
        ),
        (
            "SpoeMessage",
            "spoe_message",
            json!({"name": "x", "args": "ip=src id=int(1)", "event": {"name": "on-client-session", "cond": "if",
                "cond_test": "a1 !a2"}, "acl": [
                {"index": 0, "acl_name": "a1", "criterion": "src", "value": "10.0.0.0/8"},
                {"index": 1, "acl_name": "a2", "criterion": "always_true"}]}),
            json!({"name": "x", "event": {"name": "on-tcp-response"}}),
        ),
        ("SpoeGroup", "spoe_group", json!({"name": "x", "messages": "m"}), json!({"name": "x", "messages": "m n"})),
    ];
    for (noun, field, object, other) in samples {
        let method = |verb: &str, end: &str| format!("{noun}Service.{verb}{noun}{end}");
        let list = format!("{field}s");
        world.ok(&method("Create", ""), here(json!({field: object, "version": version}))).await;
        *version += 1;
        let read = world.ok(&method("Get", ""), here(json!({"name": "x"}))).await;
        assert_eq!(read[field], object, "{noun}");
        let again = here(json!({field: object, "version": version}));
        world.refused(&method("Create", ""), again, refused(Reason::ObjectExists)).await;
        let elsewhere = json!({"spoe": "f.cfg", "scope": "[none]", field: object, "version": version});
        world.refused(&method("Create", ""), elsewhere, refused_with(Reason::ParentNotFound, 500)).await;
        world.ok(&method("Replace", ""), here(json!({"name": "x", field: other, "version": version}))).await;
        *version += 1;
        if !world.is_rest() {
            let update = json!({"name": "x", field: object, "version": version});
            world.ok(&method("Update", ""), here(update)).await;
            *version += 1;
            world.ok(&method("Replace", ""), here(json!({"name": "x", field: other, "version": version}))).await;
            *version += 1;
        }
        let all = world.ok(&method("List", "s"), here(json!({}))).await;
        assert!(all[&list].as_array().unwrap().contains(&other), "{all}");
        world.ok(&method("Delete", ""), here(json!({"name": "x", "version": version}))).await;
        *version += 1;
        world.refused(&method("Get", ""), here(json!({"name": "x"})), refused(Reason::ObjectNotFound)).await;
    }
}

over_both!(
    cluster,
    covers [
        "ClusterService.GetCluster",
        "ClusterService.JoinCluster",
        "ClusterService.ReplaceCluster",
        "ClusterService.LeaveCluster",
        "ClusterService.RenewClusterCertificate"
    ]
);

async fn cluster(world: &mut World) {
    let single = || holds(json!({"settings": {"mode": "single"}}));
    world
        .cases([
            ("ClusterService.GetCluster", json!({}), single()),
            ("ClusterService.JoinCluster", json!({"settings": {"status": "active"}}), single()),
            (
                "ClusterService.JoinCluster",
                json!({"settings": {"bootstrap_key": "%"}}),
                refused_with(Reason::InvalidValue, 406),
            ),
            (
                "ClusterService.JoinCluster",
                json!({"settings": {"bootstrap_key": "e30="}}),
                refused_with(Reason::Unsupported, 406),
            ),
            (
                "ClusterService.ReplaceCluster",
                json!({"settings": {"mode": "single"}}),
                refused_with(Reason::Unsupported, 406),
            ),
            ("ClusterService.RenewClusterCertificate", json!({}), refused_with(Reason::Unsupported, 403)),
            ("ClusterService.LeaveCluster", json!({}), done()),
            ("ClusterService.GetCluster", json!({}), single()),
        ])
        .await;
}

/// Statuses and bodies of /v2 that depend on the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_over_rest_are_those_of_v2() {
    let world = World::start(crate::support::client::Transport::Rest, &["--reload-delay", "1h"]);
    let upload = |path: &str, name: &str, text: &str| {
        let body = format!(
            "--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"{name}\"\r\n\r\n{text}\r\n--B--\r\n"
        );
        request("POST", &format!("/v2/services/haproxy{path}"), "multipart/form-data; boundary=B", body)
    };
    let plain = |verb: &str, path: &str, kind: &str, body: &'static str| {
        request(verb, &format!("/v2/services/haproxy{path}"), kind, body)
    };
    let (storage, spoe) = ("/storage/ssl_certificates", "/spoe/spoe_scopes?spoe=f.cfg");
    let (of_f, agents) = ("?spoe=f.cfg&scope=%5Ba%5D", "/spoe/spoe_agents");
    for (request, status, reload, body) in [
        (upload(storage, "a.pem", CHAIN), 202, true, "\"not_after\":\"2036-"),
        (upload(&format!("{storage}?force_reload=true"), "b.pem", CHAIN), 201, false, "b.pem"),
        (plain("PUT", &format!("{storage}/a.pem"), "text/plain", CHAIN), 202, true, "a.pem"),
        (plain("PUT", &format!("{storage}/a.pem?skip_reload=true"), "text/plain", CHAIN), 200, false, "a.pem"),
        (plain("DELETE", &format!("{storage}/a.pem"), "", ""), 202, true, ""),
        (plain("DELETE", &format!("{storage}/b.pem?skip_reload=true"), "", ""), 204, false, ""),
        (plain("GET", &format!("{storage}/b.pem"), "", ""), 404, false, "\"code\":404"),
        (upload("/storage/general", "x", "1"), 201, false, "\"storage_name\":\"x\""),
        (plain("PUT", "/storage/general/x", "text/plain", "2"), 202, true, ""),
        (plain("PUT", "/storage/general/x?force_reload=true", "text/plain", "3"), 204, false, ""),
        (plain("GET", "/storage/general/x", "", ""), 200, false, "3"),
        (plain("DELETE", "/storage/general/x", "", ""), 204, false, ""),
        (plain("GET", "/spoe/spoe_files", "", ""), 200, false, "[]\n"),
        (upload("/spoe/spoe_files", "f.cfg", ""), 201, false, "/spoe/f.cfg\""),
        (plain("GET", "/spoe/spoe_files/f.cfg", "", ""), 200, false, "{}"),
        (plain("POST", &format!("{spoe}&version=1"), "application/json", "\"[a]\""), 201, false, "\"\""),
        (plain("GET", "/spoe/spoe_files/f.cfg", "", ""), 200, false, "{\"data\":\"# _version=2\\n[a]\\n\"}"),
        (plain("GET", spoe, "", ""), 200, false, "{\"_version\":2,\"data\":[\"[a]\"]}"),
        (plain("GET", "/spoe/spoe_scopes/[a]?spoe=f.cfg", "", ""), 200, false, "{\"_version\":2,\"data\":\"[a]\"}"),
        (plain("GET", &format!("{agents}{of_f}"), "", ""), 200, false, "{\"_version\":2,\"data\":[]}"),
        (plain("GET", &format!("{agents}?spoe=f.cfg"), "", ""), 422, false, "scope in query is required"),
        (plain("POST", &format!("{agents}{of_f}&version=2"), "application/json", "{\"name\":\"x\"}"), 201, false, ""),
        (plain("PUT", &format!("{agents}/y{of_f}&version=3"), "application/json", "{\"name\":\"y\"}"), 409, false, "y"),
        (plain("DELETE", &format!("{agents}/x{of_f}&version=3"), "", ""), 204, false, ""),
        (plain("GET", "/spoe/version?spoe=f.cfg", "", ""), 200, false, "4\n"),
        (plain("GET", "/spoe/version?spoe=g", "", ""), 500, false, "client g not configured"),
        (plain("GET", "/spoe/version?spoe=f.cfg&transaction_id=x", "", ""), 500, false, "transaction"),
        (plain("POST", "/spoe_transactions?spoe=f.cfg&version=4", "", ""), 201, false, "\"in_progress\""),
        (plain("POST", "/spoe_transactions?spoe=f.cfg&version=5", "", ""), 409, false, "version mismatch"),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let answer = world.client.send(request).await;
        assert_eq!(answer.status, status, "{shown}: {}", answer.text());
        assert_eq!(!answer.header("reload-id").is_empty(), reload, "{shown}");
        assert!(answer.text().contains(body), "{shown}: {}", answer.text());
        assert!(!body.is_empty() || answer.body.is_empty(), "{shown}: {}", answer.text());
    }
}
