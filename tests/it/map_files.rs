//! Map files on disk and the entries of the maps that HAProxy loaded from them.

use std::time::Duration;

use backstay::error::Reason;
use backstay::runtime::{Address, LoadMode, MapRef, Runtime};
use backstay::storage::{FileStore, MapSync, Synced};

use crate::support::haproxy::Haproxy;

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
        "# which backend\n\n/only\n/api/ app\n #hash # v\n\"q' a  b\na\\=&; \\ ;\né é\n<< <<\n #0x1 w\n"
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
    assert_eq!(live.text(), "# which backend\n\n");
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
    drop(live.haproxy.reload().wait());
    live.runtime.reconnect();
    live.sync.reloaded();
    assert_eq!(live.sync().await, Synced::Unchanged);
    live.sync.hold(&file);
    live.runtime.map_add(&live.map, "/c", "app").await.unwrap();
    assert_eq!(live.sync().await, Synced::Held);
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
    assert_eq!(live.sync().await, Synced::Written(3));
    let elsewhere = live.sync.sync(&live.runtime, "/etc/hosts").await.unwrap_err();
    assert_eq!(elsewhere.reason(), Reason::InvalidValue);

    let mut load = live.runtime.map_load(&live.map, LoadMode::Replace).await.unwrap();
    for n in 0..20_000 {
        load.push(&format!("/many/{n}"), "app").await.unwrap();
    }
    load.commit().await.unwrap();
    assert_eq!(live.sync().await, Synced::Written(20_000));
    assert_eq!(live.text().lines().count(), 20_000);
    assert_eq!(live.sync().await, Synced::Unchanged);
}
