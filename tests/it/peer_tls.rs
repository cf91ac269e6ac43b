//! Sessions with a live HAProxy that listens for peers with TLS, and wants to see a certificate.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstay::aggregation::Joining;
use backstay::document::Document;
use backstay::proto::aggregation as pb;
use backstay::runtime::{Address, DataType, DatumValue, Runtime};
use backstay::stick_table::{Event, Hub, Lines, Poll, Push, SourceKind, Tls, Watch, WatchOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use tokio::time::timeout;

use crate::aggregation::{in_process, node_is};
use crate::support::client::Transport;
use crate::support::haproxy::{Haproxy, free_port};
use crate::support::world::{World, until};

/// An authority and what it signs, as files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a name or an address, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

struct Live {
    haproxy: Haproxy,
    ca: Authority,
}

fn body(port: u16) -> String {
    format!(
        "
global
    localpeer hap1
peers p
    bind 127.0.0.1:{port} ssl crt {{dir}}/hap1.pem ca-file {{dir}}/ca.pem verify required
    server hap1
    server backstay 127.0.0.1:1
backend names
    stick-table type string len 40 size 1m expire 1h store gpc0 peers p
"
    )
}

/// HAProxy with a certificate for a name.
fn live(name: &str) -> Live {
    let mut haproxy = Haproxy::prepare(&body(free_port()));
    let ca = Authority::new("ours");
    haproxy.file("ca.pem", &ca.pem());
    let (certificate, key) = ca.sign(name);
    haproxy.file("hap1.pem", &format!("{certificate}{key}"));
    haproxy.start();
    Live { haproxy, ca }
}

impl Live {
    /// Files of a certificate for us, and its key.
    fn identity(&self, ca: &Authority) -> (PathBuf, PathBuf) {
        let (certificate, key) = ca.sign("backstay.example");
        (self.haproxy.file("us.pem", &certificate), self.haproxy.file("us.key", &key))
    }

    fn join(&self, tls: Option<Tls>) -> (Hub, Push) {
        let hub = Hub::new(Poll::new(self.runtime()));
        let push = Push::new(hub.clone(), "backstay".into(), "somewhere".into()).over_tls(tls);
        push.follow(&Document::parse(&std::fs::read(self.haproxy.config()).unwrap()));
        (hub, push)
    }

    fn runtime(&self) -> Runtime {
        Runtime::new(vec![Address::Unix(self.haproxy.socket())])
    }
}

async fn is_live(push: &Push) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !push.statuses()[0].1.live {
        assert!(Instant::now() < deadline, "{:?}", push.statuses());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a reason why there is no session.
async fn fails(push: &Push, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, status) = push.statuses().remove(0);
        assert!(!status.live && Instant::now() < deadline, "{status:?} without {words}");
        if status.error.contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn next(watch: &mut Watch) -> (Event, SourceKind) {
    let update = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end").unwrap();
    (update.event, update.source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_pushed_over_tls_with_certificates_on_both_sides() {
    for (certified, name) in [("127.0.0.1", None), ("hap1.example", Some("hap1.example")), ("hap1.example", Some("*"))]
    {
        let live = live(certified);
        let ca = live.haproxy.dir().join("ca.pem");
        let (certificate, key) = live.identity(&live.ca);
        let tls = Tls::load(&ca, Some((&certificate, &key)), name).unwrap();
        let (hub, push) = live.join(Some(tls));
        is_live(&push).await;
        let mut watch = hub.watch("names", WatchOptions::default());
        assert!(matches!(next(&mut watch).await, (Event::Snapshot { .. }, SourceKind::Push)));
        let set = [(DataType::Gpc(0), DatumValue::Number(3))];
        live.runtime().set_table_entry("names", "x", &set).await.unwrap();
        let (Event::Changed(entries), SourceKind::Push) = next(&mut watch).await else { panic!("a change") };
        assert_eq!(entries[0].key, "x");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_trusted_is_told_so_and_the_table_is_polled() {
    let live = live("hap1.example");
    let ca = live.haproxy.dir().join("ca.pem");
    let (certificate, key) = live.identity(&live.ca);
    let polled = async |tls: Option<Tls>, words: &str| {
        let (hub, push) = live.join(tls);
        fails(&push, words).await;
        let mut watch = hub.watch("names", WatchOptions::default());
        assert!(matches!(next(&mut watch).await, (Event::Snapshot { .. }, SourceKind::Poll)), "{words}");
    };
    let stranger = Authority::new("others");
    let foreign = live.haproxy.file("foreign.pem", &stranger.pem());
    polled(Some(Tls::load(&foreign, Some((&certificate, &key)), Some("*")).unwrap()), "UnknownIssuer").await;
    let other = Some("other.example");
    polled(Some(Tls::load(&ca, Some((&certificate, &key)), other).unwrap()), "other.example").await;
    // By its address unless told otherwise, and it has none in its certificate.
    polled(Some(Tls::load(&ca, Some((&certificate, &key)), None).unwrap()), "127.0.0.1").await;
    // HAProxy does not trust everybody either.
    polled(Some(Tls::load(&ca, None, Some("*")).unwrap()), "alert").await;
    let (certificate, key) = live.identity(&stranger);
    polled(Some(Tls::load(&ca, Some((&certificate, &key)), Some("*")).unwrap()), "alert").await;
    polled(None, "peer-tls-ca").await;
    let wrong = Tls::load(&ca, Some((&certificate, &key)), Some("a b")).unwrap_err();
    assert!(wrong.message().contains("peer-tls-name"), "{wrong}");
}

/// The settings reach the sessions, and the list of sessions tells what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_joins_over_tls_by_its_settings() {
    let files = tempfile::tempdir().unwrap();
    let ca = Authority::new("ours");
    let (certificate, key) = ca.sign("backstay.example");
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (theirs, their_key) = ca.sign("hap1.example");
    let bundle = file("hap1.pem", &format!("{theirs}{their_key}"));
    let authority = file("ca.pem", &ca.pem());
    let (certificate, key) = (file("us.pem", &certificate), file("us.key", &key));
    let port = free_port();
    let section = format!(
        "\npeers p\n    bind 127.0.0.1:{port} ssl crt {bundle} ca-file {authority} verify required\n    \
         server hap1\n    server backstay 127.0.0.1:1\n\
         backend names\n    stick-table type string len 40 size 1m expire 1h store gpc0 peers p\n"
    );
    let join = async |flags: &[&str]| {
        let world = World::start(Transport::Grpc, flags);
        let text = format!("{}\nglobal\n    localpeer hap1\n{section}", world.backstay.text());
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
        world
    };
    let sessions =
        async |world: &World| world.ok("StickTableService.ListPeerSessions", json!({})).await["sessions"][0].clone();
    let names = ["--peer-tls-ca", &authority, "--peer-tls-certificate", &certificate, "--peer-tls-key", &key];
    let world = join(&[&names[..], &["--peer-tls-name", "hap1.example"]].concat()).await;
    until("the session is live", async || sessions(&world).await["live"] == json!(true)).await;
    drop(world);
    let world = join(&[]).await;
    until("the setting is named", async || {
        sessions(&world).await["error"].as_str().is_some_and(|error| error.contains("peer-tls-ca"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregation_reaches_its_nodes_over_tls() {
    let live = live("127.0.0.1");
    let (certificate, key) = live.identity(&live.ca);
    let ca = live.haproxy.dir().join("ca.pem");
    let tls = Tls::load(&ca, Some((&certificate, &key)), None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let joining = Joining { lines: Lines::default(), peer_name: "backstay".into(), tls: Some(tls) };
    let all = in_process(folder.path(), joining).await;
    let text = std::fs::read_to_string(live.haproxy.config()).unwrap();
    let address = text.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let node = |tls| pb::AggregationNode {
        name: Some("hap1".into()),
        address: Some(address.into()),
        local_peer: Some("hap1".into()),
        tls,
    };
    let mut wanted = pb::Aggregation {
        name: Some("names".into()),
        nodes: vec![node(Some(true))],
        source_table: Some("names".into()),
        target_table: Some("p/total".into()),
        ..pb::Aggregation::default()
    };
    all.create(wanted.clone()).await.unwrap();
    node_is(&all, "names", |node| node.connected).await;
    wanted.nodes = vec![node(None)];
    all.replace("names", wanted).await.unwrap();
    node_is(&all, "names", |node| !node.connected && !node.last_error.is_empty()).await;
}
