//! Every oddity of /v2 that clients rely on and that our own API would not have. REST only.

use http::Method as HttpMethod;

use super::routes::Route;
use crate::error::{Error, Reason, Violation};
use crate::schema::json::JsonRules;
use crate::schema::tables::{Field, FieldIndex, Kind, Method, Tables, Verb};
use crate::schema::value::{Object, Value};

/// Words that are true in a query; any other word is false, not an error.
const TRUE_WORDS: [&str; 10] = ["1", "true", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"];

/// True for a word that counts as true in a query.
pub fn true_like(word: &str) -> bool {
    TRUE_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Parameters that are known by two names, with the name of the request field.
const ALIASES: [(&str, &str); 1] = [("forceDelete", "force_delete")];

/// The request field a parameter means.
pub fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, field)| field)
}

/// `version=0` is no version: the peer cannot tell the two apart.
pub fn counts_as_absent(field: &str, value: &Value) -> bool {
    field == "version" && *value == Value::Int(0)
}

/// Paths of our own extensions, which know all fields.
const EXTENSIONS: &str = "/v2/services/backstay/";

/// How bodies of a route are read: zero values of fields that are not nullable count as absent, and fields that /v2 has
/// not are unknown to its routes.
pub fn json_rules(path: &str) -> JsonRules {
    JsonRules { drop_zero: true, only_v2: !path.starts_with(EXTENSIONS) }
}

/// Tokens that an enum parameter takes. `parent_type` is one enum for all, but each resource has its own parents.
pub fn allowed_tokens<'a>(tables: &'a Tables, method: &Method, path: &str, at: FieldIndex) -> Vec<&'a str> {
    let field = &tables.messages[method.input].fields[at];
    if &*field.name == "parent_type"
        && let Some(resource) = method.resource.and_then(|id| tables.messages[id].resource.as_ref())
        && !resource.parents.is_empty()
    {
        let known = resource.parents.iter().filter(|parent| parent.is_v2());
        return known.map(|parent| &*parent.token).collect();
    }
    // Outdated transactions are listed but cannot be asked for.
    if &*field.name == "status" && path.ends_with("/transactions") {
        return vec!["failed", "in_progress"];
    }
    match field.kind {
        Kind::Enum(id) => tables.enums[id].values.iter().map(|value| &*value.token).collect(),
        _ => Vec::new(),
    }
}

/// Parameters that /v2 asks for and our own API does not need: end of the path, and the parameter.
const REQUIRED_PARAMETERS: [(&str, &str); 2] =
    [("/runtime/stick_tables/{name}", "process"), ("/runtime/stick_table_entries", "process")];

/// Collections that do without `parent_name` for some of their parents.
const PARENT_NAME_OPTIONAL: [&str; 4] = ["http_checks", "http_error_rules", "log_targets", "tcp_checks"];

/// Parameters that are missing by the rules of /v2. Our own API reports a missing parent by its own reason.
pub fn missing_parameters(tables: &Tables, method: &Method, route: &Route, request: &Object) -> Vec<Violation> {
    let input = &tables.messages[method.input];
    let path = &*route.rule.path;
    let mut needed: Vec<FieldIndex> = REQUIRED_PARAMETERS
        .iter()
        .filter(|(end, _)| path.ends_with(end))
        .filter_map(|(_, name)| input.field_named(name))
        .collect();
    let resource = method.resource.and_then(|id| tables.messages[id].resource.as_ref());
    if let Some(resource) = resource.filter(|resource| !resource.parents.is_empty()) {
        match (input.field_named("parent_type"), input.field_named("parent_name")) {
            (Some(kind), Some(name)) => {
                // `backend` or `frontend` may stand for both; then the service finds out what is missing.
                let short = resource.parents.iter().any(|parent| input.field_named(&parent.token).is_some());
                if !short {
                    let optional = PARENT_NAME_OPTIONAL.iter().any(|end| Collection(end).holds(path));
                    needed.extend((!optional).then_some(name));
                    needed.push(kind);
                }
            }
            // The only parent, under its own name, comes first in the request.
            _ => needed.extend(input.fields.iter().position(|field| field.number == 1)),
        }
    }
    if path.contains("/services/haproxy/spoe") {
        needed.extend(["spoe", "scope"].iter().filter_map(|name| input.field_named(name)));
    }
    needed.retain(|field| request.get(*field).is_none() && !route.parameters.contains(field));
    let missing = |at: FieldIndex| {
        let field = input.fields[at].json.to_string();
        Violation { field, message: "is required".to_owned(), code: 602, location: "query" }
    };
    needed.into_iter().map(missing).collect()
}

/// Fields of whole-message bodies that /v2 takes from the query.
const QUERY_FIELDS: [&str; 2] = ["process", "stick_table"];

/// Says of violations in a whole-message body where the value should have stood.
pub fn locate(violations: &mut [Violation]) {
    for violation in violations {
        if QUERY_FIELDS.contains(&&*violation.field) {
            violation.location = "query";
        }
    }
}

/// Refuses targets that gRPC cannot express at all.
pub fn check_target(tables: &Tables, method: &Method, request: &Object) -> Result<(), Error> {
    let input = &tables.messages[method.input];
    let set = |name: &str| input.field_named(name).and_then(|field| request.get(field)).is_some();
    if !set("transaction_id") {
        return Ok(());
    }
    let ambiguous = |message| Err(Error::new(Reason::TargetAmbiguous, message));
    if set("version") {
        return ambiguous("both version and transaction specified, specify only one");
    }
    if input.field_named("force_reload").is_some_and(|field| request.flag(field)) {
        return ambiguous("Both force_reload and transaction specified, specify only one");
    }
    Ok(())
}

/// What stands before the sentence of an error in a /v2 message.
fn kind(reason: Reason) -> &'static str {
    match reason {
        Reason::ObjectNotFound => "missing object: ",
        Reason::ObjectExists => "object already exists: ",
        Reason::ParentNotFound => "missing parent: ",
        Reason::VersionMismatch => "version mismatch: ",
        Reason::IndexOutOfRange => "index out of range: ",
        Reason::ConfigurationRejected => "validation error: ",
        Reason::TransactionNotFound => "transaction does not exist: ",
        Reason::TargetMissing => "version or transaction not specified: ",
        _ => "",
    }
}

/// The `message` of an error body: the kind, the sentence, and what HAProxy printed unless the sentence says it.
pub fn message(error: &Error) -> String {
    let prefix = kind(error.reason());
    let mut text = String::with_capacity(prefix.len() + error.message().len());
    if !error.message().starts_with(prefix) {
        text.push_str(prefix);
    }
    text.push_str(error.message());
    let said = |detail: &&str| error.message().contains(detail.trim());
    if let Some(detail) = error.detail_text().filter(|detail| !said(detail)) {
        text.push_str(": ");
        text.push_str(detail);
    }
    text
}

/// How an error of one endpoint differs from its row in the error table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `code` of the body.
    pub code: u16,
    /// No body at all.
    pub empty: bool,
}

/// An exception: HTTP method (empty: any), end of the route's path or a part of it, reason, status, empty body.
type Exception = (&'static str, Place, Reason, u16, bool);

#[derive(Clone, Copy)]
enum Place {
    /// The collection of that name, and its items.
    Collection(&'static str),
    /// One item of one of these collections.
    Item(&'static [&'static str]),
    /// Everything below.
    Below(&'static str),
}

use Place::{Below, Collection, Item};

/// Collections of lines that have a name.
const NAMED_LINES: [&str; 10] = [
    "binds",
    "dgram_binds",
    "groups",
    "mailer_entries",
    "nameservers",
    "peer_entries",
    "server_templates",
    "servers",
    "tables",
    "users",
];

/// What differs, first match wins.
const EXCEPTIONS: &[Exception] = &[
    // The peer looks for the frontend of a capture, in whatever is to be changed, before anything else, but not on
    // DELETE.
    ("DELETE", Collection("captures"), Reason::ParentNotFound, 400, false),
    ("DELETE", Collection("captures"), Reason::TransactionNotFound, 400, false),
    ("", Collection("captures"), Reason::ParentNotFound, 404, true),
    ("", Collection("captures"), Reason::TransactionNotFound, 404, true),
    ("", Collection("captures"), Reason::TargetAmbiguous, 404, true),
    // Children of userlists: groups and users differ.
    ("", Collection("groups"), Reason::ParentNotFound, 404, false),
    ("POST", Collection("users"), Reason::ParentNotFound, 400, false),
    ("", Collection("users"), Reason::ParentNotFound, 404, true),
    ("", Collection("users"), Reason::ObjectNotFound, 404, true),
    ("PUT", Collection("groups"), Reason::ObjectNotFound, 404, true),
    // A line with a name is looked for wherever its parent should be, so it is the line that is missing.
    ("", Item(&NAMED_LINES), Reason::ParentNotFound, 404, false),
    // These answer a conflict to a PUT of something absent.
    ("PUT", Item(&["fcgi_apps", "http_errors_sections", "log_forwards"]), Reason::ObjectNotFound, 409, false),
    ("PUT", Item(&["mailers_section", "programs", "rings"]), Reason::ObjectNotFound, 409, false),
    // A missing parameter here is found by the peer's handler, not by its schema.
    ("", Collection("log_targets"), Reason::InvalidField, 400, false),
    // A transaction that is the object itself is 404, one that is merely named is a bad request.
    ("", Collection("transactions"), Reason::TransactionNotFound, 404, false),
    ("", Collection("spoe_transactions"), Reason::TransactionNotFound, 404, false),
    ("GET", Below("/services/haproxy/spoe/"), Reason::TransactionNotFound, 500, false),
    ("PUT", Item(&["spoe_agents", "spoe_groups", "spoe_messages"]), Reason::ObjectNotFound, 409, false),
    ("", Below("/services/haproxy/spoe/"), Reason::ParentNotFound, 500, false),
    ("", Below("/"), Reason::TransactionNotFound, 400, false),
    // Runtime objects have no parents in the eyes of clients: what is missing is missing.
    ("", Below("/services/haproxy/runtime/"), Reason::ParentNotFound, 404, false),
    ("", Below("/services/haproxy/storage/"), Reason::ParentNotFound, 404, false),
    // A certificate that cannot be read is the peer's fault by its own account.
    ("", Below("/services/haproxy/storage/"), Reason::CertificateRejected, 500, false),
    // Who stands alone may not renew what it does not have, and accepts no settings of a cluster.
    ("POST", Below("/cluster/certificate"), Reason::Unsupported, 403, true),
    ("", Below("/cluster"), Reason::Unsupported, 406, false),
    ("", Below("/cluster"), Reason::InvalidValue, 406, false),
    ("", Below("/cluster"), Reason::TransactionFailed, 406, false),
];

/// Status, code and body of an error at a route. `path` is the route's path as in the schema.
pub fn answer(method: &HttpMethod, path: &str, error: &Error) -> Answer {
    let path = path.strip_prefix("/v2").unwrap_or(path);
    let reason = error.reason();
    let exception = EXCEPTIONS.iter().find(|(verb, place, on, ..)| {
        *on == reason && (verb.is_empty() || *verb == method.as_str()) && place.holds(path) && applies(*on, error)
    });
    // A header that cannot be read is the peer's fault by its own account.
    if error.metadata().iter().any(|(name, _)| *name == "header") {
        return Answer { status: 500, code: 500, empty: false };
    }
    if let Some((_, _, _, status, empty)) = exception {
        return Answer { status: *status, code: *status, empty: *empty };
    }
    let status = reason.row().status;
    let code = match error.violations().first() {
        Some(violation) if status == 422 && violation.code != 0 => violation.code,
        _ => status,
    };
    Answer { status, code, empty: false }
}

/// A download that is not there is announced as the bytes that it would be, though the body is the usual JSON.
pub fn typed_as_download(status: http::StatusCode, offered: &[&str]) -> bool {
    status == http::StatusCode::NOT_FOUND && offered.first() == Some(&"application/octet-stream")
}

/// Of the violations only a missing name of the parent is an exception.
fn applies(reason: Reason, error: &Error) -> bool {
    reason != Reason::InvalidField
        || error.violations().first().is_some_and(|violation| violation.field == "parent_name" && violation.code == 602)
}

impl Place {
    fn holds(self, path: &str) -> bool {
        match self {
            Below(prefix) => path.starts_with(prefix),
            Item(names) => path.ends_with('}') && names.iter().any(|name| Collection(name).holds(path)),
            Collection(name) => path.split('/').any(|segment| segment == name) && !path.contains("/runtime/"),
        }
    }
}

/// Lists that are an error when their parent does not exist.
const LISTS_OF_KNOWN_PARENTS: [&str; 7] =
    ["dgram_binds", "groups", "mailer_entries", "nameservers", "peer_entries", "tables", "users"];

/// Other lists below a parent that does not exist are empty.
pub fn empty_list(verb: Verb, path: &str, answer: Answer, error: &Error) -> bool {
    verb == Verb::List
        && error.reason() == Reason::ParentNotFound
        && answer.status == error.reason().row().status
        && !LISTS_OF_KNOWN_PARENTS.iter().any(|name| Collection(name).holds(path))
}

/// The body of a list without items. The peer shows no FCGI applications as `null`.
pub fn empty_list_body(tables: &Tables, field: &Field) -> &'static [u8] {
    let of = match field.kind {
        Kind::Message(id) => &*tables.messages[id].full_name,
        _ => "",
    };
    if of.ends_with(".FcgiApp") || of.contains(".discovery.") { b"null" } else { b"[]" }
}

/// Paths of service discovery.
const DISCOVERY: &str = "/v2/service_discovery/";

/// Whether what is read is in an envelope that has no version: instances of service discovery are in no configuration.
pub fn is_in_data(path: &str, method: &str) -> bool {
    method == "GET" && path.starts_with(DISCOVERY)
}

/// The list of an answer whose messages all hold parts of one and the same item: statistics come as one collection.
pub fn list_in_parts(path: &str) -> Option<&'static str> {
    (path == "/v2/services/haproxy/stats/native").then_some("stats")
}

/// Of service discovery, the replacement of an instance carries its id, a UUID, in the body too.
pub fn check_identity(path: &str, tables: &Tables, method: &Method, request: &Object) -> Result<(), Error> {
    let input = &tables.messages[method.input];
    let body = input.fields.iter().enumerate().find_map(|(at, field)| match field.kind {
        Kind::Message(inner) => Some((request.object(at)?, &tables.messages[inner])),
        _ => None,
    });
    let (true, Some(own), Some((object, message))) = (path.starts_with(DISCOVERY), input.field_named("id"), body)
    else {
        return Ok(());
    };
    let id = message.field_named("id").and_then(|at| object.str(at)).unwrap_or_default();
    let refuse = |words: String| Err(Error::new(Reason::InvalidValue, words).with("field", "id"));
    if uuid::Uuid::try_parse(id).is_err() {
        return refuse(format!("id: expected the UUID of the instance, got {id:?}"));
    }
    match request.str(own) {
        Some(own) if own != id => refuse(format!("id: expected {own}, which the path names, got {id}")),
        _ => Ok(()),
    }
}

/// Changes that answer without a body: the peer never fills in the object of an SPOE file, and no client reads it.
pub fn answers_nothing(path: &str, verb: Verb) -> bool {
    path.contains("/services/haproxy/spoe/") && matches!(verb, Verb::Create | Verb::Replace)
}

/// Collections whose PUT answers 200 although a reload is still to come.
const REPLACED_AT_ONCE: [&str; 2] = ["http_errors_sections", "mailers_section"];

/// Status of success where it is not the one that follows from the method.
pub fn success_status(path: &str, tables: &Tables, method: &Method, request: &Object) -> Option<u16> {
    let input = &tables.messages[method.input];
    let flag = |name: &str| input.field_named(name).is_some_and(|field| request.flag(field));
    // Changes of SPOE files are never accepted, they are done.
    if path.contains("/services/haproxy/spoe/") {
        return match method.verb {
            Verb::Create => Some(201),
            Verb::Replace => Some(200),
            Verb::Delete => Some(204),
            _ => None,
        };
    }
    if method.verb == Verb::Replace && REPLACED_AT_ONCE.iter().any(|name| Collection(name).holds(path)) {
        let transaction = input.field_named("transaction_id").is_some_and(|field| request.get(field).is_some());
        return (!transaction).then_some(200);
    }
    if !path.ends_with("/configuration/raw") || input.field_named("skip_reload").is_none() {
        return None;
    }
    // Text that is only checked is answered as if it were to be loaded. `Created` says that no reload is to come.
    let settled = !flag("only_validate") && (flag("skip_reload") || flag("force_reload"));
    Some(if settled { 201 } else { 202 })
}

/// Response fields that are headers over REST when the body is another field.
pub const HEADER_FIELDS: [(&str, &str); 2] =
    [("configuration_checksum", "configuration-checksum"), ("cluster_version", "cluster-version")];

/// Request headers that are request fields.
///
/// Browsers send the id of the last event when they open a broken stream again.
pub const REQUEST_HEADERS: [(&str, &str); 2] =
    [("x-runtime-actions", "runtime_actions"), ("last-event-id", "resume_token")];

/// Whether a header is looked at: runtime actions only stand for a reload that is skipped, and are ignored otherwise, even
/// those that cannot be read.
pub fn header_counts(tables: &Tables, method: &Method, header: &str, request: &Object) -> bool {
    let skips = tables.messages[method.input].field_named("skip_reload");
    header != "x-runtime-actions" || skips.is_none_or(|field| request.flag(field))
}

/// Response field that is the id of a server-sent event.
pub const EVENT_ID_FIELD: &str = "resume_token";

/// Request fields that take the file name of an upload, the first that the method has.
pub const FILE_NAME_FIELDS: [&str; 3] = ["storage_name", "file_name", "name"];

/// Form field of uploads.
pub const UPLOAD_FIELD: &str = "file_upload";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::{Found, Routes};

    fn status(method: HttpMethod, path: &str, reason: Reason) -> (u16, bool) {
        let answer = answer(&method, path, &Error::new(reason, "x"));
        (answer.status, answer.empty)
    }

    #[test]
    fn statuses_that_clients_rely_on() {
        let base = "/v2/services/haproxy/configuration";
        let of = |method: HttpMethod, path: &str, reason| status(method, &format!("{base}{path}"), reason);
        assert_eq!(of(HttpMethod::GET, "/captures/{index}", Reason::ParentNotFound), (404, true));
        assert_eq!(of(HttpMethod::DELETE, "/captures/{index}", Reason::ParentNotFound), (400, false));
        assert_eq!(of(HttpMethod::POST, "/groups", Reason::ParentNotFound), (404, false));
        assert_eq!(of(HttpMethod::POST, "/users", Reason::ParentNotFound), (400, false));
        assert_eq!(of(HttpMethod::DELETE, "/users/{username}", Reason::ParentNotFound), (404, true));
        assert_eq!(of(HttpMethod::PUT, "/programs/{name}", Reason::ObjectNotFound), (409, false));
        assert_eq!(of(HttpMethod::PUT, "/caches/{name}", Reason::ObjectNotFound), (404, false));
        assert_eq!(of(HttpMethod::DELETE, "/servers/{name}", Reason::ParentNotFound), (404, false));
        assert_eq!(of(HttpMethod::POST, "/server_templates", Reason::ParentNotFound), (400, false));
        assert_eq!(of(HttpMethod::GET, "/backends", Reason::TransactionNotFound), (400, false));
        let transactions = "/v2/services/haproxy/transactions/{id}";
        assert_eq!(status(HttpMethod::PUT, transactions, Reason::TransactionNotFound), (404, false));
        assert_eq!(status(HttpMethod::PUT, transactions, Reason::TransactionOutdated), (406, false));
    }

    #[test]
    fn a_message_says_each_sentence_once() {
        let error = |detail: &str| Error::new(Reason::ReloadFailed, "refused: exit status 1, oops").detail(detail);
        assert_eq!(message(&error("exit status 1, oops\n")), "refused: exit status 1, oops");
        assert_eq!(message(&error("line 3")), "refused: exit status 1, oops: line 3");
        assert_eq!(message(&error("")), "refused: exit status 1, oops");
    }

    #[test]
    fn parameters_are_required_as_in_v2() {
        let tables = crate::schema::sample::schema();
        let routes = Routes::new(&tables).unwrap();
        for (verb, path, expected) in [
            ("GET", "configuration/acls", "parent_name parent_type"),
            ("POST", "configuration/log_targets", "parent_type"),
            ("POST", "configuration/http_checks", "parent_type"),
            ("PUT", "configuration/http_request_rules/0", "parent_name parent_type"),
            ("POST", "configuration/servers", ""),
            ("GET", "configuration/binds/b", ""),
            ("GET", "configuration/users", "userlist"),
            ("DELETE", "configuration/peer_entries/p", "peer_section"),
            ("POST", "configuration/backend_switching_rules", "frontend"),
            ("POST", "configuration/nameservers", "resolver"),
            ("GET", "configuration/backends", ""),
            ("GET", "configuration/global", ""),
            ("GET", "runtime/stick_tables/t", "process"),
            ("GET", "runtime/stick_table_entries", "process"),
        ] {
            let Found::Route(route, _) = routes.find(verb, &format!("/v2/services/haproxy/{path}")) else {
                panic!("no route {verb} {path}");
            };
            let method = &tables.methods[route.method];
            let missing = missing_parameters(&tables, method, route, &Object::new());
            let names: Vec<&str> = missing.iter().map(|violation| &*violation.field).collect();
            assert_eq!(names.join(" "), expected, "{verb} {path}");
        }
    }

    #[test]
    fn violations_keep_their_code_but_for_a_missing_parent_of_log_targets() {
        let violation = |location, code| Violation { field: "parent_name".into(), message: "m".into(), code, location };
        let path = "/v2/services/haproxy/configuration/log_targets";
        let at = |path: &str, location, code| {
            answer(&HttpMethod::POST, path, &Error::invalid(vec![violation(location, code)]))
        };
        assert_eq!(at("/v2/x", "body", 606), Answer { status: 422, code: 606, empty: false });
        assert_eq!(at("/v2/x", "body", 0), Answer { status: 422, code: 422, empty: false });
        assert_eq!(at(path, "query", 602), Answer { status: 400, code: 400, empty: false });
        assert_eq!(at(path, "query", 606), Answer { status: 422, code: 606, empty: false });
        let other = Violation { field: "parent_type".into(), ..violation("query", 602) };
        let answer = answer(&HttpMethod::POST, path, &Error::invalid(vec![other]));
        assert_eq!(answer, Answer { status: 422, code: 602, empty: false });
    }

    #[test]
    fn messages_name_their_kind_once() {
        let of = |reason, text: &'static str| message(&Error::new(reason, text));
        assert_eq!(of(Reason::ObjectNotFound, "backend x does not exist"), "missing object: backend x does not exist");
        assert_eq!(of(Reason::ObjectNotFound, "missing object: it"), "missing object: it");
        assert_eq!(of(Reason::Internal, "broken"), "broken");
        let rejected = Error::new(Reason::ConfigurationRejected, "refused").detail("line 3");
        assert_eq!(message(&rejected), "validation error: refused: line 3");
    }

    #[test]
    fn a_list_below_nothing_is_empty_but_where_clients_expect_404() {
        let error = Error::new(Reason::ParentNotFound, "x");
        let at = |path: &str| empty_list(Verb::List, path, answer(&HttpMethod::GET, path, &error), &error);
        assert!(at("/v2/services/haproxy/configuration/servers"));
        assert!(!at("/v2/services/haproxy/configuration/nameservers"));
        assert!(!at("/v2/services/haproxy/configuration/captures"));
        assert!(!at("/v2/services/haproxy/runtime/maps_entries"));
    }
}
