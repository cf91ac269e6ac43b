//! A small method table for the tests of the transports.

use std::collections::HashMap;

use crate::schema::tables::{
    Check, EnumType, EnumValue, Field, HttpRule, Kind, MessageId, MessageType, Method, Parent, Resource, ResourceKind,
    ServiceType, Tables, Verb,
};

pub(crate) const PACKAGE: &str = "backstay.test.v2";

fn field(name: &str, number: u32, kind: Kind) -> Field {
    Field {
        name: name.into(),
        json: name.into(),
        number,
        kind,
        repeated: false,
        presence: true,
        template: None,
        print_only: false,
        no_line: false,
        implicit: false,
        numbers: Vec::new(),
        flatten: false,
        check: Check::default(),
        since: None,
        removed: None,
        grpc_only: false,
        shown_as: None,
        not_in: Vec::new(),
        adds: false,
        word: false,
        earlier_of: None,
        instead_of: None,
    }
}

fn required(name: &str, number: u32, kind: Kind) -> Field {
    Field { check: Check { required: true, ..Check::default() }, ..field(name, number, kind) }
}

fn list(name: &str, number: u32, kind: Kind) -> Field {
    Field { repeated: true, presence: false, ..field(name, number, kind) }
}

fn message(tables: &mut Tables, name: &str, fields: Vec<Field>) -> MessageId {
    let full_name: Box<str> = format!("{PACKAGE}.{name}").into();
    let id = tables.messages.len();
    tables.message_by_name.insert(full_name.clone(), id);
    tables.messages.push(MessageType {
        full_name,
        by_number: fields.iter().enumerate().map(|(at, field)| (field.number, at)).collect(),
        by_json: fields.iter().enumerate().map(|(at, field)| (field.json.clone(), at)).collect(),
        json_order: (0..fields.len()).collect(),
        fields,
        ..MessageType::default()
    });
    id
}

struct Binding {
    service: &'static str,
    name: &'static str,
    verb: Verb,
    http: &'static str,
    path: &'static str,
    body: &'static str,
    response_body: &'static str,
    status: u16,
    streaming: bool,
}

impl Default for Binding {
    fn default() -> Self {
        Binding {
            service: "MapService",
            name: "",
            verb: Verb::Custom,
            http: "GET",
            path: "",
            body: "",
            response_body: "",
            status: 0,
            streaming: false,
        }
    }
}

fn method(tables: &mut Tables, binding: Binding, resource: Option<MessageId>, input: Vec<Field>, output: Vec<Field>) {
    let Binding { service, name, verb, http, path, body, response_body, status, streaming } = binding;
    let input = message(tables, &format!("{name}Request"), input);
    let output = message(tables, &format!("{name}Response"), output);
    let upload = tables.messages[input].fields.iter().any(|field| field.kind == Kind::Bytes);
    let id = tables.methods.len();
    let full: Box<str> = format!("/{PACKAGE}.{service}/{name}").into();
    tables.method_by_path.insert(full.clone(), id);
    let http = if path.is_empty() {
        Vec::new()
    } else {
        vec![HttpRule {
            method: http.into(),
            path: format!("/v2/services/haproxy{path}").into(),
            body: body.into(),
            response_body: response_body.into(),
        }]
    };
    tables.methods.push(Method {
        path: full,
        input,
        output,
        streaming,
        verb,
        resource,
        singleton: false,
        http,
        status,
        upload,
    });
    let service: Box<str> = format!("{PACKAGE}.{service}").into();
    match tables.services.iter_mut().find(|known| known.full_name == service) {
        Some(known) => known.methods.push(id),
        None => tables.services.push(ServiceType { full_name: service, methods: vec![id] }),
    }
}

/// Backends with every verb, servers with parents, and methods of every other shape.
pub(crate) fn tables() -> Tables {
    let mut tables = Tables::default();
    let tokens = [("backend", 1), ("ring", 2), ("global", 3)];
    tables.enums.push(EnumType {
        full_name: "backstay.test.v2.ParentType".into(),
        toggle: false,
        values: tokens
            .iter()
            .map(|(token, number)| EnumValue {
                name: token.to_uppercase().into(),
                number: *number,
                token: (*token).into(),
                line: None,
                print_only: false,
                since: None,
                one_of: Vec::new(),
                goes_with: Vec::new(),
                grpc_only: false,
            })
            .collect(),
        by_token: tokens.iter().enumerate().map(|(at, (token, _))| ((*token).into(), at)).collect(),
        by_number: tokens.iter().enumerate().map(|(at, (_, number))| (*number, at)).collect::<HashMap<_, _>>(),
    });
    let backend = message(
        &mut tables,
        "Backend",
        vec![required("name", 1, Kind::String), field("weight", 2, Kind::Int32), field("mode", 3, Kind::String)],
    );
    let server =
        message(&mut tables, "Server", vec![required("name", 1, Kind::String), field("address", 2, Kind::String)]);
    let entry = message(&mut tables, "Entry", vec![required("key", 1, Kind::String), field("value", 2, Kind::String)]);
    for (id, parents) in [(backend, &[][..]), (server, &["backend", "ring"][..])] {
        tables.messages[id].resource = Some(Resource {
            kind: if parents.is_empty() { ResourceKind::Section } else { ResourceKind::NamedLine },
            keyword: "x".into(),
            parents: parents.iter().map(|name| Parent { section: (*name).into(), token: (*name).into() }).collect(),
            identity: vec![0],
            order: 0,
            first: false,
            singleton: false,
            derived_name: false,
        });
    }
    let target = || {
        vec![
            field("transaction_id", 14, Kind::String),
            field("version", 15, Kind::Int64),
            field("force_reload", 16, Kind::Bool),
            field("validate_only", 17, Kind::Bool),
        ]
    };
    let with = |first: Vec<Field>| first.into_iter().chain(target()).collect::<Vec<_>>();
    let version = || field("version", 1, Kind::Int64);
    let changed = |kind| vec![version(), field("reload_id", 2, Kind::String), field("item", 3, Kind::Message(kind))];
    let name = || required("name", 1, Kind::String);
    let map = || required("map", 1, Kind::String);
    let t = &mut tables;

    let all = Binding { service: "BackendService", path: "/configuration/backends", ..Binding::default() };
    let one = |name, http, verb, body| Binding {
        service: "BackendService",
        name,
        http,
        verb,
        body,
        path: "/configuration/backends/{name}",
        ..Binding::default()
    };
    method(
        t,
        Binding { name: "ListBackends", verb: Verb::List, ..all },
        Some(backend),
        vec![field("transaction_id", 14, Kind::String)],
        vec![version(), list("backends", 2, Kind::Message(backend))],
    );
    method(
        t,
        one("GetBackend", "GET", Verb::Get, ""),
        Some(backend),
        vec![name(), field("transaction_id", 14, Kind::String)],
        vec![version(), field("backend", 2, Kind::Message(backend))],
    );
    let create = Binding {
        service: "BackendService",
        name: "CreateBackend",
        http: "POST",
        verb: Verb::Create,
        path: "/configuration/backends",
        body: "backend",
        ..Binding::default()
    };
    let resource = || required("backend", 6, Kind::Message(backend));
    method(t, create, Some(backend), with(vec![resource()]), changed(backend));
    let input = with(vec![name(), resource()]);
    method(t, one("ReplaceBackend", "PUT", Verb::Replace, "backend"), Some(backend), input, changed(backend));
    method(t, one("DeleteBackend", "DELETE", Verb::Delete, ""), Some(backend), with(vec![name()]), changed(backend));
    let update = Binding { service: "BackendService", name: "UpdateBackend", verb: Verb::Update, ..Binding::default() };
    method(t, update, Some(backend), with(vec![name(), resource()]), changed(backend));

    let replace = Binding {
        service: "ServerService",
        name: "ReplaceServer",
        http: "PUT",
        verb: Verb::Replace,
        path: "/configuration/servers/{name}",
        body: "server",
        ..Binding::default()
    };
    let input = with(vec![
        field("parent_type", 2, Kind::Enum(0)),
        field("parent_name", 3, Kind::String),
        field("backend", 4, Kind::String),
        name(),
        required("server", 6, Kind::Message(server)),
    ]);
    method(t, replace, Some(server), input, changed(server));
    let version_of =
        Binding { name: "GetVersion", path: "/configuration/version", response_body: "version", ..Binding::default() };
    method(t, version_of, None, vec![field("transaction_id", 14, Kind::String)], vec![version()]);
    let commit = Binding { name: "Commit", http: "PUT", path: "/transactions/{id}", ..Binding::default() };
    let input = vec![required("id", 1, Kind::String), field("force_reload", 16, Kind::Bool)];
    method(t, commit, None, input, vec![field("id", 1, Kind::String), field("reload_id", 2, Kind::String)]);

    let table =
        |name, path, streaming| Binding { service: "TableService", name, path, streaming, ..Binding::default() };
    method(
        t,
        table("GetTable", "/runtime/tables/{name}", false),
        None,
        vec![name()],
        vec![field("name", 1, Kind::String)],
    );
    let output = vec![field("revision", 1, Kind::Int64)];
    method(t, table("WatchTable", "/runtime/tables/{name}:watch", true), None, vec![name()], output);

    let entries =
        Binding { name: "ListEntries", path: "/runtime/maps_entries", response_body: "entries", ..Binding::default() };
    method(t, entries, None, vec![map()], vec![list("entries", 1, Kind::Message(entry))]);
    let add = Binding {
        name: "AddEntries",
        http: "PUT",
        path: "/runtime/maps/{map}",
        body: "entries",
        status: 201,
        ..Binding::default()
    };
    method(t, add, None, vec![map(), list("entries", 6, Kind::Message(entry))], vec![field("count", 1, Kind::Int64)]);
    let upload = Binding {
        name: "UploadMap",
        http: "POST",
        path: "/storage/maps",
        body: "data",
        status: 201,
        ..Binding::default()
    };
    let data = || field("data", 6, Kind::Bytes);
    method(
        t,
        upload,
        None,
        vec![field("storage_name", 1, Kind::String), data()],
        vec![field("storage_name", 1, Kind::String)],
    );
    let export = Binding {
        name: "ExportMap",
        path: "/storage/maps/{name}",
        response_body: "data",
        streaming: true,
        ..Binding::default()
    };
    method(t, export, None, vec![name()], vec![field("data", 1, Kind::Bytes)]);
    let delete =
        Binding { name: "DeleteMap", http: "DELETE", path: "/storage/maps/{name}", status: 204, ..Binding::default() };
    method(t, delete, None, vec![name(), field("force_delete", 2, Kind::Bool)], vec![]);
    let raw = Binding {
        name: "PushRaw",
        http: "POST",
        path: "/configuration/raw",
        body: "data",
        response_body: "data",
        status: 201,
        ..Binding::default()
    };
    let input = vec![
        required("data", 6, Kind::String),
        field("version", 15, Kind::Int64),
        field("force_reload", 16, Kind::Bool),
        field("runtime_actions", 20, Kind::String),
    ];
    let output = vec![
        field("data", 1, Kind::String),
        field("reload_id", 2, Kind::String),
        field("configuration_checksum", 3, Kind::String),
    ];
    method(t, raw, None, input, output);
    tables
}
