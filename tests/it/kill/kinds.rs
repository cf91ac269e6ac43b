//! The kinds of things that are written, how each is called, and where it is found again.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::Promise;
use super::ground::Ground;
use crate::support::client::{Client, Refusal};

const CHAIN: &str = include_str!("../../data/certificates/chain.pem");

/// The SPOE file and its scope that agents are written to.
pub(super) const SPOE_FILE: &str = "kill.cfg";
const SPOE_SCOPE: &str = "[kill]";

/// States of a server, by number.
const STATES: [&str; 3] = ["ready", "drain", "maint"];

/// A content that nobody has written.
const TORN: u32 = u32::MAX;

/// Names, and the numbers that stand for contents.
pub(super) type Things = BTreeMap<String, u32>;

/// What guards changes of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The version of the configuration.
    Configuration,
    /// The version of the SPOE file.
    Spoe,
    /// Nothing: the last one wins.
    Nothing,
}

/// What an object is told apart by, in requests.
#[derive(Debug, Clone, Copy)]
enum Address {
    /// Its own name.
    Name,
    /// Its position, which is looked up.
    Index,
    /// A name that it was given, which is looked up.
    Id,
    /// Its own name, in the field of ids.
    Key,
}

/// A kind of things.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) guard: Guard,
    /// What is promised of it besides.
    pub(super) promise: Promise,
    /// How many contents there are; those of others are numbered without end.
    pub(super) contents: Option<u32>,
    service: &'static str,
    /// The end of method names, in the singular and in the plural.
    nouns: [&'static str; 2],
    /// The field of lists that has the objects.
    list: &'static str,
    /// What all requests have in common.
    parent: &'static [(&'static str, &'static str)],
    /// The field of requests that has the object; empty where it is spread over them.
    field: &'static str,
    address: Address,
    object: fn(&str, u32) -> Json,
    /// Name and number of an object of a list.
    shown: fn(&Json) -> Option<(String, u32)>,
    /// What the files hold. `None` for files whose form is nobody's business but backstay's.
    stored: Option<fn(&Path) -> Things>,
    /// What the running HAProxy has.
    running: Option<fn(&Ground) -> Things>,
}

/// All kinds.
pub(super) const KINDS: [Kind; 14] = [
    Kind {
        name: "backends",
        guard: Guard::Configuration,
        promise: Promise::Stored,
        contents: None,
        service: "BackendService",
        nouns: ["Backend", "Backends"],
        list: "backends",
        parent: &[],
        field: "backend",
        address: Address::Name,
        object: |name, value| json!({"name": name, "mode": "http", "fullconn": value}),
        shown: |object| Some((text(&object["name"]), number(&object["fullconn"])?)),
        stored: Some(|dir| {
            sections(dir, |section, line| {
                Some((section.strip_prefix("backend ")?, line.strip_prefix("fullconn ")?.parse().ok()?))
            })
        }),
        running: Some(|ground| {
            let shown = ground.ask("show stat -1 2 -1");
            let fields = |line: &str| Some((line.split(',').next()?.to_owned(), line.split(',').nth(6)?.parse().ok()?));
            shown.lines().filter_map(fields).collect()
        }),
    },
    server(
        "servers",
        &[("parent_type", "backend"), ("parent_name", "app")],
        |dir| servers(dir, "backend app"),
        |ground| live_servers(ground, "app"),
    ),
    server(
        "raw servers",
        &[("parent_type", "backend"), ("parent_name", "raw")],
        |dir| servers(dir, "backend raw"),
        |ground| live_servers(ground, "raw"),
    ),
    Kind {
        name: "rules",
        guard: Guard::Configuration,
        promise: Promise::Stored,
        contents: None,
        service: "HttpAfterResponseRuleService",
        nouns: ["HttpAfterResponseRule", "HttpAfterResponseRules"],
        list: "http_after_response_rules",
        parent: &[("parent_type", "frontend"), ("parent_name", "web")],
        field: "http_after_response_rule",
        address: Address::Index,
        object: |name, value| json!({"index": 0, "type": "set-header", "hdr_name": name, "hdr_format": value.to_string()}),
        shown: |object| Some((text(&object["hdr_name"]), text(&object["hdr_format"]).parse().ok()?)),
        stored: Some(|dir| {
            sections(dir, |_, line| {
                let (name, value) = line.strip_prefix("http-after-response set-header ")?.split_once(' ')?;
                Some((name, value.parse().ok()?))
            })
        }),
        running: Some(|ground| {
            let answer = ground.visit();
            let headers = answer.lines().filter_map(|line| line.split_once(": "));
            headers.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
        }),
    },
    Kind {
        name: "acls",
        guard: Guard::Configuration,
        promise: Promise::Stored,
        contents: None,
        service: "AclService",
        nouns: ["Acl", "Acls"],
        list: "acls",
        parent: &[("parent_type", "frontend"), ("parent_name", "web")],
        field: "acl",
        address: Address::Index,
        object: |name, value| json!({"index": 0, "acl_name": name, "criterion": "path_beg", "value": format!("/{value}")}),
        shown: |object| Some((text(&object["acl_name"]), text(&object["value"]).strip_prefix('/')?.parse().ok()?)),
        stored: Some(|dir| {
            sections(dir, |_, line| {
                let (name, value) = line.strip_prefix("acl ")?.split_once(" path_beg /")?;
                Some((name, value.parse().ok()?))
            })
        }),
        running: None,
    },
    Kind {
        name: "maps",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "StorageMapService",
        nouns: ["StorageMap", "StorageMaps"],
        list: "maps",
        parent: &[],
        field: "",
        address: Address::Name,
        object: |name, value| json!({"name": name, "data": content(value)}),
        shown: |object| content_of(object),
        stored: Some(|dir| files(&dir.join("maps"), |text| value_of(&text))),
        running: None,
    },
    Kind {
        name: "general files",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "StorageGeneralFileService",
        nouns: ["StorageGeneralFile", "StorageGeneralFiles"],
        list: "files",
        parent: &[],
        field: "",
        address: Address::Name,
        object: |name, value| json!({"name": name, "data": content(value)}),
        shown: |object| content_of(object),
        stored: Some(|dir| files(&dir.join("general"), |text| value_of(&text))),
        running: None,
    },
    Kind {
        name: "certificates",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "StorageCertificateService",
        nouns: ["StorageCertificate", "StorageCertificates"],
        list: "certificates",
        parent: &[],
        field: "",
        address: Address::Name,
        object: |name, value| json!({"name": name, "data": certificate(value)}),
        // What it says of a certificate tells contents apart by their size only.
        shown: |object| {
            let size = number(&object["size"])?.checked_sub(u32::try_from(CHAIN.len()).ok()?)?;
            Some((text(&object["storage_name"]), size))
        },
        stored: Some(|dir| {
            files(&dir.join("ssl"), |text| {
                let value = u32::try_from(text.len().saturating_sub(CHAIN.len())).unwrap_or(TORN);
                if text == certificate(value) { value } else { TORN }
            })
        }),
        running: None,
    },
    Kind {
        name: "SPOE agents",
        guard: Guard::Spoe,
        promise: Promise::Stored,
        contents: None,
        service: "SpoeAgentService",
        nouns: ["SpoeAgent", "SpoeAgents"],
        list: "spoe_agents",
        parent: &[("spoe", SPOE_FILE), ("scope", SPOE_SCOPE)],
        field: "spoe_agent",
        address: Address::Name,
        object: |name, value| json!({"name": name, "messages": "m", "option_var-prefix": format!("v{value}")}),
        shown: |object| {
            Some((text(&object["name"]), text(&object["option_var-prefix"]).strip_prefix('v')?.parse().ok()?))
        },
        stored: Some(|dir| {
            let text = std::fs::read_to_string(dir.join("spoe").join(SPOE_FILE)).unwrap_or_default();
            lines(&text, |section, line| {
                let value = line.strip_prefix("option var-prefix v")?.parse().ok()?;
                Some((section.strip_prefix("spoe-agent ")?, value))
            })
        }),
        running: None,
    },
    Kind {
        name: "aggregations",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "AggregationService",
        nouns: ["Aggregation", "Aggregations"],
        list: "aggregations",
        parent: &[],
        field: "aggregation",
        address: Address::Name,
        object: |name, value| {
            let node = json!({"name": "n", "address": "127.0.0.1:1", "local_peer": "n"});
            let (source, target) = (format!("from{value}"), format!("fleet/{name}"));
            json!({"name": name, "nodes": [node], "source_table": source, "target_table": target})
        },
        shown: |object| {
            Some((text(&object["name"]), text(&object["source_table"]).strip_prefix("from")?.parse().ok()?))
        },
        stored: None,
        running: None,
    },
    Kind {
        name: "Consul agents",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "ConsulService",
        nouns: ["Consul", "Consuls"],
        list: "consuls",
        parent: &[],
        field: "consul",
        address: Address::Id,
        object: |name, value| {
            json!({"name": name, "description": value.to_string(), "address": "127.0.0.1", "port": 1,
                "enabled": false, "retry_timeout": 10})
        },
        shown: |object| Some((text(&object["name"]), text(&object["description"]).parse().ok()?)),
        stored: None,
        running: None,
    },
    Kind {
        name: "AWS regions",
        guard: Guard::Nothing,
        promise: Promise::Stored,
        contents: None,
        service: "AwsRegionService",
        nouns: ["AwsRegion", "AwsRegions"],
        list: "regions",
        parent: &[],
        field: "region",
        address: Address::Id,
        object: |name, value| {
            json!({"name": name, "description": value.to_string(), "region": "us-east-1", "ipv4_address": "private",
                "enabled": false, "retry_timeout": 10})
        },
        shown: |object| Some((text(&object["name"]), text(&object["description"]).parse().ok()?)),
        stored: None,
        running: None,
    },
    Kind {
        name: "map entries",
        guard: Guard::Nothing,
        promise: Promise::Runtime,
        contents: None,
        service: "MapEntryService",
        nouns: ["MapEntry", "MapEntries"],
        list: "entries",
        parent: &[("map", "live.map")],
        field: "entry",
        address: Address::Key,
        object: |name, value| json!({"key": name, "value": value.to_string()}),
        shown: |object| Some((text(&object["key"]), text(&object["value"]).parse().ok()?)),
        stored: None,
        running: Some(|ground| {
            let shown = ground.ask(&format!("show map {}", ground.path("maps/live.map").display()));
            let words = |line: &str| Some((line.split(' ').nth(1)?.to_owned(), line.split(' ').nth(2)?.parse().ok()?));
            shown.lines().filter_map(words).collect()
        }),
    },
    // Those of `backend live` are always there; one that is ready counts as none.
    Kind {
        name: "server states",
        guard: Guard::Nothing,
        promise: Promise::Runtime,
        contents: Some(2),
        service: "RuntimeServerService",
        nouns: ["RuntimeServer", "RuntimeServers"],
        list: "servers",
        parent: &[("backend", "live")],
        field: "server",
        address: Address::Name,
        object: |_, value| json!({"admin_state": STATES[value as usize]}),
        shown: |object| {
            let state = STATES.iter().position(|state| object["admin_state"] == *state).filter(|state| *state > 0)?;
            Some((text(&object["name"]), u32::try_from(state).ok()?))
        },
        stored: None,
        running: Some(|ground| {
            let shown = ground.ask("show servers state live");
            let state = |line: &str| {
                let words: Vec<_> = line.split(' ').collect();
                // Bits of `srv_admin_state`: forced maintenance, forced drain.
                match words.get(6)?.parse::<u32>().ok()? & 9 {
                    0 => None,
                    8 => Some((words[3].to_owned(), 1)),
                    _ => Some((words[3].to_owned(), 2)),
                }
            };
            shown.lines().filter_map(state).collect()
        }),
    },
];

const fn server(
    name: &'static str,
    parent: &'static [(&'static str, &'static str)],
    stored: fn(&Path) -> Things,
    running: fn(&Ground) -> Things,
) -> Kind {
    Kind {
        name,
        guard: Guard::Configuration,
        promise: Promise::Stored,
        contents: None,
        service: "ServerService",
        nouns: ["Server", "Servers"],
        list: "servers",
        parent,
        field: "server",
        address: Address::Name,
        object: |name, value| json!({"name": name, "address": address(value), "port": 80}),
        shown: |object| Some((text(&object["name"]), address_value(&text(&object["address"]))?)),
        stored: Some(stored),
        running: Some(running),
    }
}

impl Kind {
    /// A request with what all have in common.
    fn request(&self, target: &Json) -> Json {
        let mut request = target.clone();
        for (name, value) in self.parent {
            request[*name] = json!(value);
        }
        request
    }

    fn method(&self, verb: &str) -> String {
        format!("{}.{verb}{}", self.service, self.nouns[usize::from(verb == "List")])
    }

    /// Writes a thing: `old` becomes `new`. The target is the version or the transaction that the change is made in,
    /// with what else the request should say.
    pub(super) async fn write(
        &self,
        client: &Client,
        (name, old, new): (&str, Option<u32>, Option<u32>),
        target: &Json,
    ) -> Result<Json, Refusal> {
        let mut request = self.request(target);
        let mut object = new.map_or(json!({}), |value| (self.object)(name, value));
        if self.contents.is_some() {
            // It is set, whatever it was.
            request["name"] = json!(name);
            request[self.field] = (self.object)(name, new.unwrap_or(0));
            return client.call(&self.method("Set"), &request).await.map(|success| success.message);
        }
        if old.is_some() {
            match self.address {
                Address::Name => request["name"] = json!(name),
                Address::Key => request["id"] = json!(name),
                Address::Index | Address::Id => {
                    let (field, at) = self.locate(client, name, target).await?;
                    if new.is_some() {
                        object[field] = at.clone();
                    }
                    request[field] = at;
                }
            }
        }
        match self.field {
            "" => request.as_object_mut().expect("an object").extend(object.as_object().expect("an object").clone()),
            field if new.is_some() => request[field] = object,
            _ => {}
        }
        let verb = match (old, new) {
            (None, _) => "Create",
            (_, Some(_)) => "Replace",
            (_, None) => "Delete",
        };
        client.call(&self.method(verb), &request).await.map(|success| success.message)
    }

    /// Where an object stands in the list.
    async fn locate(&self, client: &Client, name: &str, target: &Json) -> Result<(&'static str, Json), Refusal> {
        let mut reads = json!({});
        if target["transaction_id"].is_string() {
            reads["transaction_id"] = target["transaction_id"].clone();
        }
        let objects = self.list(client, &reads).await?;
        let found = objects.iter().position(|object| (self.shown)(object).is_some_and(|(shown, _)| shown == name));
        let at = found.unwrap_or(usize::MAX >> 33);
        match self.address {
            Address::Id => Ok(("id", objects.get(at).map_or(json!("gone"), |object| object["id"].clone()))),
            _ => Ok(("index", json!(at))),
        }
    }

    async fn list(&self, client: &Client, target: &Json) -> Result<Vec<Json>, Refusal> {
        let answer = client.call(&self.method("List"), &self.request(target)).await?.message;
        let mut objects = answer[self.list].as_array().cloned().unwrap_or_default();
        if self.field.is_empty() {
            // These lists have names only.
            for object in &mut objects {
                let name = text(&object["storage_name"]);
                let got = client.call(&self.method("Get"), &json!({"name": name})).await?.message;
                *object = if got["certificate"].is_object() { got["certificate"].clone() } else { got };
                object["storage_name"] = json!(name);
            }
        }
        Ok(objects)
    }

    /// What the API shows.
    pub(super) async fn memory(&self, client: &Client) -> Result<Things, Refusal> {
        Ok(self.list(client, &json!({})).await?.iter().filter_map(self.shown).collect())
    }

    /// What the files hold.
    pub(super) fn stored(&self, ground: &Ground) -> Option<Things> {
        self.stored.map(|read| read(ground.dir()))
    }

    /// What the running HAProxy has.
    pub(super) fn running(&self, ground: &Ground) -> Option<Things> {
        self.running.map(|read| read(ground))
    }
}

/// The line of a server of `backend raw`.
pub(super) fn server_line(name: &str, value: u32) -> String {
    format!("    server {name} {}:80\n", address(value))
}

fn address(value: u32) -> String {
    let [_, a, b, c] = value.to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

fn address_value(text: &str) -> Option<u32> {
    let [first, a, b, c] = text.parse::<std::net::Ipv4Addr>().ok()?.octets();
    (first == 10).then(|| u32::from_be_bytes([0, a, b, c]))
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Json) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

/// A text that is long enough to be seen in halves.
fn content(value: u32) -> String {
    (0..400).fold(format!("# {value}\n"), |text, line| text + &format!("k{line} {value}\n"))
}

/// Maps are stored with an ending that they were not given.
fn bare(name: &str) -> String {
    name.strip_suffix(".map").unwrap_or(name).to_owned()
}

fn value_of(text: &str) -> u32 {
    let value = text.lines().next().and_then(|line| line.strip_prefix("# ")?.parse().ok());
    value.filter(|value| content(*value) == text).unwrap_or(TORN)
}

fn content_of(object: &Json) -> Option<(String, u32)> {
    Some((bare(&text(&object["storage_name"])), value_of(object["data"].as_str()?)))
}

/// The certificate below a comment that makes it so much longer.
fn certificate(more: u32) -> String {
    let more = more as usize;
    match more {
        0 => CHAIN.to_owned(),
        _ => format!("{}\n{CHAIN}", "#".repeat(more - 1)),
    }
}

/// Names and values of the lines of haproxy.cfg; the section of a line is its first line.
fn sections(dir: &Path, thing: impl for<'a> Fn(&'a str, &'a str) -> Option<(&'a str, u32)>) -> Things {
    lines(&std::fs::read_to_string(dir.join("haproxy.cfg")).unwrap_or_default(), thing)
}

fn lines(text: &str, thing: impl for<'a> Fn(&'a str, &'a str) -> Option<(&'a str, u32)>) -> Things {
    let mut section = "";
    let mut things = Things::new();
    for line in text.lines() {
        if line.starts_with(char::is_alphabetic) {
            section = line;
        } else if let Some((name, value)) = thing(section, line.trim()) {
            things.insert(name.to_owned(), value);
        }
    }
    things
}

fn servers(dir: &Path, backend: &str) -> Things {
    sections(dir, |section, line| {
        let (name, rest) = line.strip_prefix("server ")?.split_once(' ')?;
        let value = address_value(rest.split([':', ' ']).next()?)?;
        (section == backend).then_some((name, value))
    })
}

fn live_servers(ground: &Ground, backend: &str) -> Things {
    let shown = ground.ask(&format!("show servers state {backend}"));
    let fields = |line: &str| {
        let mut words = line.split(' ').skip(3);
        Some((words.next()?.to_owned(), address_value(words.next()?)?))
    };
    shown.lines().filter_map(fields).collect()
}

fn files(folder: &Path, value: impl Fn(String) -> u32) -> Things {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let file = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        (bare(&entry.file_name().to_string_lossy()), value(text))
    };
    entries.map(file).collect()
}
