//! backstay: a gRPC control plane for HAProxy. This page is the map of the house.
//!
//! # The idea
//!
//! `proto/` is the only description of a resource. Options on messages, fields and enum values say how a thing is
//! written in haproxy.cfg, what is allowed, and which REST path reaches each method. At start the compiled descriptors
//! become tables ([`schema`]). Small interpreters over these tables do for every resource what would otherwise be
//! written once for each: wire and JSON to object and back, line to object and back, checks, REST routes,
//! documentation. No Rust code names a configuration resource but where its behaviour is really its own.
//!
//! # Rooms
//!
//! From the ground up. A room uses rooms of earlier lines only; `tests/it/tidy.rs` reads the source and says no
//! otherwise.
//!
//! | room | owns | must not know |
//! |---|---|---|
//! | [`error`] | the one `Error` and the table of reasons: gRPC code, HTTP status, meaning | any transport |
//! | [`tls`] | certificates, private keys and authorities out of PEM files | who uses them |
//! | [`settings`] | the table of settings; YAML, environment, flags; all checked before a port is bound | what the settings do |
//! | [`proto`] | descriptors, structs of the messages that Rust code handles by hand, and constants by which code names messages, fields and values | |
//! | [`schema`] | descriptors as tables; interpreters: `wire`, `json`, `template`, `check`, `mask`, `openapi` | files, sockets, any resource by name |
//! | [`document`] | haproxy.cfg as lossless text: sections, lines, edits | resources, files, clocks |
//! | [`configuration`] | objects in and out of a document; transactions; the one way to the file; recovery | how HAProxy is checked or reloaded (it declares traits: `ports`) |
//! | [`runtime`] | the Runtime API: pooled sockets to the worker that runs, commands that cannot be broken out of, pure readers of answers | requests, resources, files |
//! | [`storage`] | files that HAProxy loads, and keeping maps on disk and in memory the same | the configuration |
//! | [`process`] | `haproxy -c`, the reload queue, the HAProxy of the embedded default | the API |
//! | [`overrides`] | what was written at run time and is to stay: its journal, and bringing it to each new worker | requests |
//! | [`peers`] | HAProxy's peers protocol: messages, and one conversation without its socket | what is done with updates |
//! | [`stick_table`] | one source per watched table, a mirror, any number of watchers with bounded memory | how watchers are reached |
//! | [`aggregation`] | stick tables brought together over several HAProxys: contributions, what is taught, the resource | how it is asked for |
//! | [`spoe`] | SPOE files: scopes, sections, transactions | requests |
//! | [`discovery`] | Consul agents and regions of AWS that are searched for services: instances, their files, the loop | requests |
//! | [`auth`] | users, passwords, what was verified and who guesses | transports: it takes the bytes of a header |
//! | [`grpc`] | one handler for every method; `services/` for the few methods written by hand; health, reflection | REST |
//! | [`gateway`] | REST /v2 from the method table, and the port that all protocols share; `compat` holds the oddities of /v2 | any resource by name |
//! | [`cli`] | `serve`: joins the rooms | |
//! | `main` | exit codes, signals, the log | everything else |
//!
//! Nothing below [`grpc`] names a crate of inbound transport. Pure code (`schema`, `document`, the readers of answers,
//! the mirror, the journal) takes bytes and a clock as arguments, never a socket, a file or the time of day.
//! `build.rs` compiles [`error`] and [`schema`] in, so that a fault of `proto/` ends the build and names its element.
//!
//! Where the configuration needs code because no line template can say it:
//!
//! | file | why |
//! |---|---|
//! | `configuration/site.rs` | a site has no line: it is a view of a frontend, its backends and their lines |
//! | `configuration/tree.rs` | a section with all its lines in one message; which lines, its message says |
//! | `configuration/any_line.rs` | lines that nobody reads have no template |
//! | `configuration/placing.rs` | what a `defaults` section is for follows from where it stands |
//! | `configuration/engine.rs` | `defaults` without a name are numbered; `listen` may be shown as its two parts |
//! | `configuration/joined.rs` | HAProxy reads several `global` sections as one |
//! | `configuration/not_shown.rs` | a field may stand in the file with a word that its type cannot show |
//! | `configuration/section_edit.rs` | new lines of a section stand before its servers |
//! | `spoe/` | files of their own, cut into scopes |
//!
//! # How a call flows
//!
//! ```text
//! gRPC, gRPC-web                  REST /v2
//!   grpc::server                    gateway::routes, request       authenticate; bytes -> object, by the schema
//!          \                          /
//!           grpc::call::Call { method, request }                   one form for both
//!                       |
//!           grpc::services                                         a row of the method table:
//!            |                       |                               verb + resource -> the engine,
//!   resources (generic)      registry (by hand)                      VERB_CUSTOM -> a function
//!            |                       |
//!   configuration::engine    runtime, storage, stick_table,
//!            |               configuration, process
//!   document: edit only the lines that the object owns
//!            |
//!   configuration::write: haproxy -c, intent to the journal, write + fsync + rename
//!            |
//!   process::reload: reloads join in a queue; a refused one takes the change back
//!            |
//!   grpc::frame / gateway::response                                object -> bytes, version, reload id
//! ```
//!
//! Reads of the configuration touch no file: the current document is in memory and shared. A transaction is a clone of
//! it, which costs a few reference counts.
//!
//! A watch does not take this way: `stick_table::push` is a peer of HAProxy and gets each change, or, where HAProxy does
//! not know us as a peer, `stick_table::poll` asks once for all watchers. `mirror` numbers the changes, and each watcher
//! is a cursor into a log of bounded length.
//!
//! # Where to change what
//!
//! | you want | you touch |
//! |---|---|
//! | a new keyword | one field of a message in `proto/`, with its line template |
//! | a new rule or action of a list | one enum value in `proto/`, with its line |
//! | a new resource of the configuration | one message and one service in `proto/`, nothing else |
//! | another limit, pattern or required field | its option in `proto/`; `schema/check.rs` for a new sort of check |
//! | a new word of the template notation | `schema/template/notation.rs`, then `parse.rs` and `print.rs` |
//! | an oddity of /v2 (status, shape, alias) | `gateway/compat.rs` and `gateway/view.rs` |
//! | a method that is no create, read, update or delete | `VERB_CUSTOM` in `proto/`, a function in `grpc/services/`, a line in `registry.rs` |
//! | a command of the Runtime API | `runtime/`, its answer in `runtime/parse/` |
//! | what happens when HAProxy has a new worker | a `WorkerListener`, which `cli/serve.rs` registers with `runtime` |
//! | another write at run time that is to stay | `overrides/write.rs`, its target in `overrides/state.rs` |
//! | a new source of stick-table updates | a `Source` in `stick_table/` |
//! | another way to bring values of nodes together | `aggregation/merge.rs` |
//! | another data type of stick tables | its bit in `peers/data.rs`, its name in `runtime/parse/table.rs` |
//! | another way to reload or to check | `process/strategy.rs`, `process/check.rs` |
//! | what a check may do and see | `process/confine.rs`, `process/environment.rs`; what it would write: `process/redirect.rs` |
//! | a setting | a row in `settings/rows.rs`; help, YAML and README follow |
//! | a registry of services | a kind in `discovery/instance.rs`, its questions and answers beside `discovery/consul.rs` |
//! | an error | a row in `error.rs` (names stay for ever); README follows |
//! | the steps of a write | `configuration/write.rs` with `recovery.rs`: each pair of steps has a crash test |
//!
//! # Tests
//!
//! Unit tests stand beside what they test. `tests/it/` is one binary against a real HAProxy (`HAPROXY_BIN`); sockets
//! and ports are made for each test. `tests/it/kill/` kills both programs at random and looks for what is lost, for as long
//! as `BACKSTAY_KILL_SECONDS` says. `tests/clients/` are clients in other languages, examples at the same time. Texts
//! that follow from the program (`tests/data/proto.digest`, two tables of README.md) are compared with it;
//! `BACKSTAY_BLESS=1 cargo test --test it` takes a wanted change over.

pub mod aggregation;
pub mod auth;
pub mod cli;
pub mod configuration;
pub mod discovery;
pub mod document;
pub mod error;
pub mod gateway;
pub mod grpc;
pub mod overrides;
pub mod peers;
pub mod process;
pub mod proto;
pub mod runtime;
pub mod schema;
pub mod settings;
pub mod spoe;
pub mod stick_table;
pub mod storage;
pub mod tls;
