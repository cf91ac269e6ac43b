//! Map files on disk and the entries of the maps that HAProxy loaded from them.

use std::time::Duration;

use backstay::error::Reason;
use backstay::runtime::{Address, LoadMode, MapRef, Runtime};
use backstay::storage::{FileStore, MapEdit, MapSync, Synced};

use serde_json::json;

use crate::support::haproxy::Haproxy;
use crate::support::world::{World, over_both, until};

struct Live {
    haproxy: Haproxy,
    runtime: Runtime,
    sync: MapSync,
    map: MapRef,
}

fn live(text: &str) -> Live {
    let mut haproxy = Haproxy::prepare(
        "frontend web\n    bind unix@{dir}/web.sock\n    use_backend %[path,map_beg({dir}/maps/p.map,app)]\nbackend app\n",
    );
    let store = FileStore::maps(haproxy.dir().join("maps")).unwrap();
    let map = haproxy.file("maps/p.map", text);
    haproxy.start();
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let sync = MapSync::new(store, Duration::from_millis(1));
    let map = MapRef::new(map.display().to_string()).unwrap();
    Live { haproxy, runtime, sync, map }
}

impl Live {
    fn text(&self) -> String {
        std::fs::read_to_string(self.map.to_string()).unwrap()
    }

    async fn sync(&self) -> Synced {
        self.sync.sync(&self.runtime, &self.map.to_string()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runtime_changes_reach_the_file_and_survive_a_restart() {
    let text = "# which backend\n\n  /x   y  z \n# between\n/only\n#no\n";
    let mut live = live(text);
    assert_eq!(live.sync().await, Synced::Unchanged);
    assert_eq!(live.text(), text, "an unchanged file is not touched, however it is written");

    let entries = [
        ("/api/", "app"),
        ("#hash", "# v"),
        ("\"q'", "a  b"),
        ("a\\=&;", "\\ ;"),
        ("é", "é"),
        ("<<", "<<"),
        ("#0x1", "v"),
    ];
    for (key, value) in entries {
        live.runtime.map_add(&live.map, key, value).await.unwrap();
    }
    live.runtime.map_set(&live.map, "#0x1", "w").await.unwrap();
    live.runtime.map_delete(&live.map, "/x").await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(8));
    assert_eq!(
        live.text(),
        "# which backend\n\n# between\n/only\n#no\n/api/ app\n #hash # v\n\"q' a  b\na\\=&; \\ ;\né é\n<< <<\n #0x1 w\n"
    );
    assert_eq!(live.sync().await, Synced::Unchanged);

    live.haproxy.stop();
    let error = live.sync.sync(&live.runtime, &live.map.to_string()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RuntimeUnavailable);
    live.haproxy.start();
    assert_eq!(live.sync().await, Synced::Unchanged, "haproxy reads back what was written");
    assert_eq!(live.runtime.map_entry(&live.map, "#hash").await.unwrap().value, "# v");
    live.runtime.map_delete(&live.map, "#hash").await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(7));

    live.runtime.map_clear(&live.map).await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(0));
    assert_eq!(live.text(), "# which backend\n\n# between\n#no\n");
    assert_eq!(std::fs::read_dir(live.haproxy.dir().join("maps")).unwrap().count(), 1, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_waits_for_a_reload_is_not_overwritten() {
    let mut live = live("/a app\n");
    let file = live.map.to_string();
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.runtime.map_add(&live.map, "/b", "app").await.unwrap();
    live.haproxy.file("maps/p.map", "/new app\n");
    assert_eq!(live.sync().await, Synced::Held);
    live.sync.mark(&file);
    assert_eq!(live.sync().await, Synced::Held);
    assert_eq!(live.text(), "/new app\n");
    let put = live.sync.put(&live.runtime, &file, [entry("/c", Some("app"))]).await.unwrap();
    assert_eq!(
        (put, live.text()),
        (Synced::Held, "/new app\n/c app\n".into()),
        "the one entry is put into it as it stands"
    );
    live.sync.put(&live.runtime, &file, [entry("/new", None), entry("/c", Some("b"))]).await.unwrap();
    assert_eq!(live.text(), "/c b\n");
    drop(live.haproxy.reload().wait());
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.runtime.map_add(&live.map, "/d", "app").await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(2));
}

fn entry(key: &str, value: Option<&str>) -> MapEdit {
    MapEdit::Entry(key.to_owned(), value.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_is_one_line() {
    let text = "# who\r\n a\t1 \r\n\n\t# on b\nb   2\nc 3\nc 4\n#d 5\ne";
    let live = live(text);
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.runtime.map_add(&live.map, "f", "6").await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(7), "an indented comment is an entry to haproxy");
    assert_eq!(live.text(), format!("{text}\nf 6\n"));
    live.runtime.map_set(&live.map, "a", "one").await.unwrap();
    live.runtime.map_delete(&live.map, "c").await.unwrap();
    live.sync().await;
    assert_eq!(live.text(), "# who\r\n a\tone \r\n\n\t# on b\nb   2\n#d 5\ne\nf 6\n");
    live.runtime.map_delete(&live.map, "b").await.unwrap();
    live.runtime.map_add(&live.map, "b", "2").await.unwrap();
    live.sync().await;
    assert_eq!(live.text(), "# who\r\n a\tone \r\n\n\t# on b\n#d 5\ne\nf 6\nb 2\n", "in the order of haproxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_in_the_file_whichever_worker_is_asked() {
    let mut live = live("/a app\n/b app\n");
    let file = live.map.to_string();
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.runtime.map_add(&live.map, "/c", "app").await.unwrap();
    live.runtime.map_delete(&live.map, "/b").await.unwrap();
    // The worker that took the changes is gone when the file is written.
    drop(live.haproxy.reload().wait());
    live.sync.put(&live.runtime, &file, [entry("/c", Some("app")), entry("/b", None)]).await.unwrap();
    assert_eq!(live.text(), "/a app\n/c app\n");
    // That worker never had them, and still they stay in the file.
    live.sync.mark(&file);
    live.sync().await;
    live.sync.put(&live.runtime, &file, [entry("/d", Some("app"))]).await.unwrap();
    assert!(live.text().contains("/d app") && live.text().contains("/a app"), "{}", live.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_written_before_a_reload_and_not_while_it_runs() {
    let live = live("/a app\n/b app\n");
    let file = live.map.to_string();
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.runtime.map_add(&live.map, "/c", "app").await.unwrap();
    live.runtime.map_delete(&live.map, "/b").await.unwrap();
    live.sync.changed(&file, [entry("/c", Some("app")), entry("/b", None)]);
    let paused = live.sync.pause(&live.runtime).await;
    assert_eq!(live.text(), "/a app\n/c app\n");
    let (edits, wait) = ([entry("/d", Some("app"))], Duration::from_millis(100));
    let put = tokio::time::timeout(wait, live.sync.put(&live.runtime, &file, edits.clone())).await;
    assert!(put.is_err(), "waits for the end of the reload");
    assert_eq!(live.text(), "/a app\n/c app\n");
    drop(paused);
    live.sync.put(&live.runtime, &file, edits).await.unwrap();
    assert_eq!(live.text(), "/a app\n/c app\n/d app\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_writes_marked_maps_and_looks_at_others_when_due() {
    let live = live("/a app\n");
    let file = live.map.to_string();
    let slow = MapSync::new(FileStore::maps(live.haproxy.dir().join("maps")).unwrap(), Duration::from_hours(1));
    let round =
        async || slow.round(&live.runtime).await.unwrap().into_iter().map(|(_, r)| r.unwrap()).collect::<Vec<_>>();
    assert_eq!(round().await, [Synced::Unchanged]);
    live.runtime.map_add(&live.map, "/b", "app").await.unwrap();
    assert!(round().await.is_empty());
    slow.mark(&file);
    assert_eq!(round().await, [Synced::Written(2)]);
    assert!(round().await.is_empty());
    live.runtime.map_add(&live.map, "/c", "app").await.unwrap();
    assert_eq!(slow.sync(&live.runtime, &file).await.unwrap(), Synced::Written(3));
    let elsewhere = live.sync.sync(&live.runtime, "/etc/hosts").await.unwrap_err();
    assert_eq!(elsewhere.reason(), Reason::InvalidValue);

    let mut load = live.runtime.map_load(&live.map, LoadMode::Replace).await.unwrap();
    for n in 0..20_000 {
        load.push(&format!("/many/{n}"), "app").await.unwrap();
    }
    load.commit().await.unwrap();
    assert_eq!(slow.sync(&live.runtime, &file).await.unwrap(), Synced::Written(20_000));
    assert_eq!(live.text().lines().count(), 20_000);
    assert_eq!(slow.sync(&live.runtime, &file).await.unwrap(), Synced::Unchanged);
}

over_both!(
    entries_written_within_the_period_before_a_reload,
    flags ["--update-map-files", "--update-map-files-period", "600"],
    covers ["StorageMapService.ReplaceStorageMap", "MapEntryService.CreateMapEntry", "MapEntryService.DeleteMapEntry"]
);

async fn entries_written_within_the_period_before_a_reload(world: &mut World) {
    let text = "# zones\n\na\t1\n# b\nb 2\n";
    let name = "paths.map";
    let replaced = json!({"name": name, "data": text, "force_reload": true});
    world.ok("StorageMapService.ReplaceStorageMap", replaced).await;
    for n in 0..60 {
        let entry = json!({"key": format!("k{n}"), "value": "v"});
        world.ok("MapEntryService.CreateMapEntry", json!({"map": name, "entry": entry})).await;
    }
    world.ok("MapEntryService.DeleteMapEntry", json!({"map": name, "id": "b"})).await;
    let worker = world.worker();
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    world.settled().await;
    until("another worker", async || world.worker() != worker).await;
    let path = world.backstay.folder().join("maps").join(name);
    let file = std::fs::read_to_string(&path).unwrap();
    let added: Vec<String> = (0..60).map(|n| format!("k{n} v\n")).collect();
    assert_eq!(file, format!("# zones\n\na\t1\n# b\n{}", added.concat()));
    let listed = world.backstay.ask(&format!("show map {}", path.display()));
    assert_eq!(listed.unwrap().lines().filter(|line| line.starts_with("0x")).count(), 61);
}
