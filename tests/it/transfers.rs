//! Large things over gRPC: out as streams, in by pieces of which nobody sees anything before the last one.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::Transport;
use crate::support::haproxy::version;
use crate::support::world::{World, holds, over_both, refused, refused_saying, run};

pub(crate) mod files {
    /// Methods that REST has in another form.
    pub(crate) const COVERS: &[&str] = &[
        "StorageMapService.ImportStorageMap",
        "StorageMapService.ExportStorageMap",
        "StorageGeneralFileService.ImportStorageGeneralFile",
        "StorageGeneralFileService.ExportStorageGeneralFile",
    ];
}

/// Lines of a map, about so many bytes in all.
fn lines(bytes: usize) -> String {
    "0123456789 12345\n".repeat(bytes / 17)
}

/// Sends a text in pieces of so many bytes, all but the last one.
async fn begin(world: &World, method: &str, name: &str, pieces: &[&str]) -> (Json, usize) {
    let (mut id, mut offset) = (json!(""), 0);
    for data in pieces {
        let request = json!({"name": name, "upload_id": id, "offset": offset, "data": data});
        let answer = world.ok(method, request).await;
        offset += data.len();
        assert_eq!(answer["offset"].as_u64(), Some(offset as u64), "{answer}");
        id = answer["upload_id"].clone();
    }
    (id, offset)
}

async fn export(world: &World, method: &str, name: &str) -> String {
    let mut stream = world.stream(method, json!({"name": name})).await;
    let mut text = String::new();
    while let Some(message) = stream.next().await {
        text.push_str(message["data"].as_str().unwrap_or_default());
    }
    text
}

fn kept(world: &World) -> usize {
    std::fs::read_dir(world.backstay.folder().join("state/uploads")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_no_message_holds_go_in_and_out() {
    let flags = ["--max-upload-size", "40000000"];
    run(Transport::Grpc, &flags, files::COVERS, async |world: &mut World| {
        for (kind, folder, name) in [("StorageMap", "maps", "big.map"), ("StorageGeneralFile", "general", "big.txt")] {
            let import = format!("{kind}Service.Import{kind}");
            let path = world.backstay.folder().join(folder).join(name);
            let text = lines(20 << 20);
            let (half, rest) = text.split_at(12 << 20);
            let (id, offset) = begin(world, &import, name, &[half]).await;
            assert!(!path.try_exists().unwrap() && kept(world) == 1, "a part is seen");
            // What does not fit changes nothing, and says where to go on.
            let piece = |id: &Json, offset: usize, data: &str, last: bool| {
                json!({"name": name, "upload_id": id, "offset": offset, "data": data, "last": last})
            };
            let wrong = refused_saying(Reason::UploadOffset, "expected 12582912");
            world.refused(&import, piece(&id, offset - 1, "x", true), wrong.clone()).await;
            world.refused(&import, piece(&id, 0, half, false), wrong).await;
            world.refused(&import, piece(&json!("no"), offset, rest, true), refused(Reason::UploadNotFound)).await;
            let mut other = piece(&id, offset, rest, true);
            other["name"] = json!("other.map");
            world.refused(&import, other, refused(Reason::UploadNotFound)).await;
            world.refused(&import, piece(&id, usize::MAX >> 1, "", true), refused(Reason::UploadOffset)).await;
            let done = world.ok(&import, piece(&id, offset, rest, true)).await;
            assert!(done["upload_id"].is_null() && done["reload_id"].is_null(), "{done}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(kept(world), 0);
            world.refused(&import, piece(&id, text.len(), "", true), refused(Reason::UploadNotFound)).await;
            assert_eq!(export(world, &format!("{kind}Service.Export{kind}"), name).await, text);
            let get = format!("{kind}Service.Get{kind}");
            world.refused(&get, json!({"name": name}), refused_saying(Reason::TooLarge, "export it")).await;

            // A file that is there is replaced, and HAProxy is to read it anew.
            let done = world.ok(&import, piece(&json!(""), 0, "a b\n", true)).await;
            assert!(done["reload_id"].is_string(), "{done}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a b\n");
            world.settled().await;

            // Beyond the limit an upload ends.
            let large = "x".repeat(15_000_000);
            let (id, offset) = begin(world, &import, name, &[&large, &large]).await;
            world.refused(&import, piece(&id, offset, &large, true), refused(Reason::TooLarge)).await;
            world.refused(&import, piece(&id, offset, "", true), refused(Reason::UploadNotFound)).await;
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a b\n");
            let bad = json!({"name": "a/b", "data": "x"});
            world.refused(&import, bad, refused(Reason::InvalidValue)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_few_and_do_not_outlive_the_program() {
    let mut world = World::start(Transport::Grpc, &[]);
    let import = "StorageMapService.ImportStorageMap";
    let piece = json!({"name": "x.map", "data": "a b\n"});
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(world.ok(import, piece.clone()).await["upload_id"].clone());
    }
    world.refused(import, piece.clone(), refused(Reason::UploadLimit)).await;
    let end = json!({"name": "x.map", "upload_id": ids[7], "offset": 4, "last": true});
    world.ok(import, end).await;
    world.ok(import, piece.clone()).await;
    assert_eq!(kept(&world), 16);
    world.restart();
    assert_eq!(kept(&world), 0);
    let end = json!({"name": "x.map", "upload_id": ids[0], "offset": 4, "last": true});
    world.refused(import, end, refused(Reason::UploadNotFound)).await;
}

over_both!(tables, covers["StickTableService.ExportStickTable", "StickTableService.ImportStickTable"]);

const EXPORT: &str = "StickTableService.ExportStickTable";
const IMPORT: &str = "StickTableService.ImportStickTable";

/// Keys of an export with their `gpc0`, and its first message.
async fn exported(world: &World, more: Json) -> (BTreeMap<String, i64>, Json) {
    let mut request = json!({"stick_table": "spare"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut stream = world.stream(EXPORT, request).await;
    let head = stream.next().await.unwrap();
    assert!(head["entries"].is_null(), "{head}");
    let mut all = BTreeMap::new();
    while let Some(message) = stream.next().await {
        for entry in message["entries"].as_array().into_iter().flatten() {
            let known = all.insert(entry["key"].as_str().unwrap().to_owned(), entry["gpc0"].as_i64().unwrap());
            assert_eq!(known, None, "{entry} comes twice");
        }
    }
    (all, head)
}

async fn tables(world: &mut World) {
    let text = format!(
        "{}\nbackend spare\n  stick-table type string len 40 size 100k expire 10m \
         store gpc0,http_req_rate(10s),bytes_in_cnt,conn_cur\n\
         backend arrays\n  stick-table type string len 40 size 1k expire 10m store gpc(3)\n",
        world.backstay.text()
    );
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
    let import = |id: &Json, offset: usize, last: bool, entries: &[Json]| json!({"stick_table": "spare", "upload_id": id, "offset": offset, "last": last, "entries": entries});
    let none = json!("");

    // More entries than come in one message, in several pieces.
    let entry = |n: i64| json!({"key": format!("k {n}"), "gpc0": n, "bytes_in_cnt": 5_000_000_000_i64, "exp": 7});
    let entries: Vec<Json> = (0..3000).map(entry).collect();
    let first = world.ok(IMPORT, import(&none, 0, false, &entries[..2000])).await;
    assert_eq!(first["offset"], 2000, "{first}");
    let id = &first["upload_id"];
    world.refused(IMPORT, import(id, 1999, true, &entries[2000..]), refused(Reason::UploadOffset)).await;
    let (seen, head) = exported(world, json!({})).await;
    assert!(seen.is_empty(), "{seen:?}");
    let fields = &head["fields"];
    assert_eq!((&head["source"], &fields[1]["period"]), (&json!("poll"), &json!(10_000)), "{head}");
    let last = world.ok(IMPORT, import(id, 2000, true, &entries[2000..])).await;
    assert_eq!((&last["offset"], &last["ignored"]), (&json!(3000), &json!(["exp"])), "{last}");
    let (seen, _) = exported(world, json!({})).await;
    assert!(seen.len() == 3000 && seen["k 2999"] == 2999, "{} entries", seen.len());
    let (seen, _) = exported(world, json!({"filter": "gpc0 lt 2000", "key_prefix": "k 1"})).await;
    assert_eq!(seen.len(), 1111);
    let request = json!({"stick_table": "spare", "process": 1, "key": "k 7"});
    let shown = holds(json!({"entries": [{"gpc0": 7, "bytes_in_cnt": 5_000_000_000_i64, "http_req_rate": 0}]}));
    world.cases([("StickTableEntryService.ListStickTableEntries", request, shown)]).await;

    // What is wrong is told with its key, and nothing of the piece is taken.
    for (entry, words) in [
        (json!({"key": "bad", "gpt0": 1}), "key 'bad'"),
        (json!({"key": "bad", "gpc0": -1}), "entries[1].gpc0"),
        (json!({"key": "bad"}), "at least one"),
    ] {
        let request = import(&none, 0, true, &[entries[0].clone(), entry]);
        world.refused(IMPORT, request, refused_saying(Reason::InvalidField, words)).await;
    }
    let request = import(&none, 0, true, &[json!({"key": "bad", "gpc0": 1_i64 << 40})]);
    world.refused(IMPORT, request, refused_saying(Reason::InvalidValue, "key 'bad'")).await;
    let rest = json!({"key": "odd", "http_req_rate": 5, "conn_cur": 3, "server_key": "s1"});
    let answer = world.ok(IMPORT, import(&none, 0, true, &[rest])).await;
    assert_eq!(answer["ignored"], json!(["conn_cur", "server_key"]), "{answer}");
    let missing = json!({"stick_table": "nope", "last": true});
    world.refused(IMPORT, missing, refused(Reason::ObjectNotFound)).await;

    // A worker that comes in the middle is given all of it.
    let mut met = false;
    for round in 0..10 {
        let entry = |n: i64| json!({"key": format!("r{round} {n}"), "gpc0": n});
        let many: Vec<Json> = (0..8000).map(entry).collect();
        let request = import(&none, 0, true, &many);
        let again = json!({"data": format!("{}# {round}\n", world.backstay.text()), "force_reload": true});
        let (imported, _) =
            tokio::join!(world.ok(IMPORT, request), world.ok("RawConfigurationService.PushRawConfiguration", again));
        assert_eq!(imported["offset"], 8000);
        met = world.backstay.log().contains("an import begins again");
        if met {
            let (seen, _) = exported(world, json!({"key_prefix": format!("r{round} ")})).await;
            assert_eq!(seen.len(), 8000);
            break;
        }
    }
    assert!(met, "no reload came in the middle of an import");

    // HAProxy has its own mind about a key, too.
    let arrays = json!({"stick_table": "arrays", "last": true, "entries": [{"key": "x", "gpc_array": [1, 2, 3]}]});
    if version() < (3, 2) {
        world.refused(IMPORT, arrays, refused_saying(Reason::RuntimeRejected, "key 'x'")).await;
    } else {
        world.ok(IMPORT, arrays).await;
    }
}
