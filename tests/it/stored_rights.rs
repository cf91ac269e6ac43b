//! Who may read what is stored, and links that would lead elsewhere.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::world::{World, done, holds, over_both, refused};

const CHAIN: &str = include_str!("../data/certificates/chain.pem");

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

over_both!(
    private_keys,
    covers [
        "StorageCertificateService.CreateStorageCertificate",
        "StorageCertificateService.ReplaceStorageCertificate",
        "StorageGeneralFileService.CreateStorageGeneralFile",
        "StorageMapService.CreateStorageMap",
        "StorageMapService.ReplaceStorageMap"
    ]
);

async fn private_keys(world: &mut World) {
    let folder = world.backstay.folder();
    let file = |name: &str, data: &str| json!({"name": name, "data": data});
    let certificate = folder.join("ssl/site.pem");
    world
        .cases([
            ("StorageCertificateService.CreateStorageCertificate", file("site.pem", CHAIN), done()),
            ("StorageGeneralFileService.CreateStorageGeneralFile", file("site.key", CHAIN), done()),
            ("StorageGeneralFileService.CreateStorageGeneralFile", file("page.http", "x"), done()),
            ("StorageMapService.CreateStorageMap", file("new.map", "a b\n"), done()),
        ])
        .await;
    // HAProxy runs as our own user here: it reads what we read.
    let modes = ["ssl/site.pem", "general/site.key", "general/page.http", "maps/new.map"];
    assert_eq!(modes.map(|name| mode(&folder.join(name))), [0o600, 0o600, 0o644, 0o644]);
    std::fs::set_permissions(&certificate, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::set_permissions(folder.join("maps/new.map"), std::fs::Permissions::from_mode(0o664)).unwrap();
    world
        .cases([
            (
                "StorageCertificateService.ReplaceStorageCertificate",
                file("site.pem", &format!("# again\n{CHAIN}")),
                done(),
            ),
            ("StorageMapService.ReplaceStorageMap", file("new.map", "a c\n"), done()),
        ])
        .await;
    assert_eq!((mode(&certificate), mode(&folder.join("maps/new.map"))), (0o640, 0o664));

    // With a group in the configuration keys are for it, if we may give it files.
    if rustix::process::geteuid().is_root() {
        let text = world.backstay.text().replacen("global\n", "global\n    group nogroup\n", 1);
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_reload": true})).await;
        world.ok("StorageCertificateService.CreateStorageCertificate", file("group.pem", CHAIN)).await;
        let group = folder.join("ssl/group.pem");
        assert_eq!((mode(&group), std::fs::metadata(&group).unwrap().gid()), (0o640, 65_534));
    }
}

over_both!(
    links_out_of_folders,
    covers [
        "StorageMapService.ListStorageMaps",
        "StorageMapService.GetStorageMap",
        "StorageCertificateService.GetStorageCertificate",
        "StorageGeneralFileService.GetStorageGeneralFile",
        "StorageGeneralFileService.ListStorageGeneralFiles",
        "SpoeFileService.GetSpoeFile",
        "SpoeFileService.ListSpoeFiles"
    ]
);

async fn links_out_of_folders(world: &mut World) {
    let folder = world.backstay.folder();
    let secret = folder.join("secret");
    std::fs::write(&secret, format!("secret of the test\n{CHAIN}")).unwrap();
    for name in ["maps/link.map", "ssl/link.pem", "general/link.txt", "spoe/link.cfg"] {
        symlink("../secret", folder.join(name)).unwrap();
        symlink(&secret, folder.join(name.replace("link", "far"))).unwrap();
    }
    std::fs::write(folder.join("general/inside.txt"), "inside").unwrap();
    symlink("inside.txt", folder.join("general/near.txt")).unwrap();
    let gone = || refused(Reason::ObjectNotFound);
    for name in ["link", "far"] {
        let named = |end: &str| json!({"name": format!("{name}.{end}")});
        world
            .cases([
                ("StorageMapService.GetStorageMap", named("map"), gone()),
                ("StorageCertificateService.GetStorageCertificate", named("pem"), gone()),
                ("StorageGeneralFileService.GetStorageGeneralFile", named("txt"), gone()),
                ("SpoeFileService.GetSpoeFile", named("cfg"), gone()),
            ])
            .await;
    }
    let near = json!({"name": "near.txt"});
    world.cases([("StorageGeneralFileService.GetStorageGeneralFile", near, holds(json!({"data": "inside"})))]).await;
    for name in [
        "StorageMapService.ListStorageMaps",
        "StorageGeneralFileService.ListStorageGeneralFiles",
        "SpoeFileService.ListSpoeFiles",
    ] {
        let listed: Json = world.ok(name, json!({})).await;
        let text = listed.to_string();
        assert!(!text.contains("link.") && !text.contains("far."), "{name}: {text}");
    }
    assert!(std::fs::read_to_string(&secret).unwrap().starts_with("secret of the test"));
}
