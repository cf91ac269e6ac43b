//! The generic service: list, get, create, replace, update and delete of any configuration resource.

use super::{Rooms, filter::Filter, paging};
use crate::configuration::address::{Key, Place, Plan};
use crate::configuration::engine::{Edited, Engine};
use crate::configuration::plan::Live;
use crate::configuration::{ChangeOptions, Outcome, Target};
use crate::document::Document;
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Answer, Call, Transport};
use crate::schema::check::{check, refuse, without_inherited};
use crate::schema::mask::apply_mask;
use crate::schema::tables::{Kind, MessageId, Tables, Verb};
use crate::schema::value::{Object, Value};
use crate::spoe::SpoeFile;

/// Carries out a generic method.
pub(super) async fn call(rooms: &Rooms, plan: &Plan, call: Call) -> Result<Answer> {
    let method = &rooms.schema.tables.methods[call.method];
    let Some(resource) = method.resource else { return Err(Error::internal("generic method without resource")) };
    let place = plan.place(&rooms.schema, resource, &call.request)?;
    // Our own extensions show all that there is.
    let ours = method.http.iter().any(|rule| rule.path.starts_with("/v2/services/backstay/"));
    let v2 = call.transport == Transport::Rest && !ours;
    // An upload is no part of it.
    let Call { request, transport, doubts, caller, .. } = call;
    let request = Request {
        rooms,
        plan,
        verb: method.verb,
        input: method.input,
        resource,
        place,
        message: &request,
        transport,
        v2,
        doubts,
        caller: caller.as_deref().unwrap_or_default(),
    };
    match method.verb {
        Verb::List => request.list().await,
        Verb::Get => request.get().await,
        Verb::Create => request.create().await,
        Verb::Replace => request.replace().await,
        Verb::Update => request.update().await,
        Verb::Delete => request.delete().await,
        Verb::Custom => Err(Error::internal("custom method without handler")),
    }
}

struct Request<'a> {
    rooms: &'a Rooms,
    plan: &'a Plan,
    verb: Verb,
    /// The message of the request.
    input: MessageId,
    resource: MessageId,
    place: Place,
    message: &'a Object,
    transport: Transport,
    /// What /v2 does not know stays hidden.
    v2: bool,
    /// Rules that the object of a Replace breaks.
    doubts: Vec<Violation>,
    /// Name of the user who calls; empty for a client that has shown a certificate instead.
    caller: &'a str,
}

impl Request<'_> {
    fn engine(&self) -> &Engine {
        if self.v2 { &self.rooms.v2_engine } else { &self.rooms.engine }
    }

    async fn list(&self) -> Result<Answer> {
        let (plan, request) = (self.plan, self.message);
        let (document, version) = self.view().await?;
        let (mut objects, earlier) = self.engine().list_with_earlier(&document, self.resource, &self.place)?;
        let acl_name = Plan::text(plan.acl_name, request);
        if !acl_name.is_empty() {
            let field = self.rooms.schema.tables.messages[self.resource].field_named("acl_name");
            objects.retain(|object| field.and_then(|f| object.str(f)) == Some(acl_name));
        }
        let filter = Filter::parse(&self.rooms.schema.tables, self.resource, Plan::text(plan.filter, request))?;
        objects.retain(|object| filter.matches(&self.rooms.schema.tables, object));
        let size = plan.page_size.and_then(|f| request.int(f)).unwrap_or(0);
        let page = paging::Page::new(size, Plan::text(plan.page_token, request), self.transport)?;
        let (objects, next) = page.cut(objects, version)?;
        let not_shown: Vec<String> = objects
            .iter()
            .filter(|object| !object.residue().is_empty())
            .flat_map(|object| {
                let label = self.engine().label(self.resource, object);
                let paths = self.engine().not_shown(&document, self.resource, object);
                paths.into_iter().map(move |path| format!("{label}.{path}"))
            })
            .chain(earlier)
            .collect();
        let mut response = Object::new();
        if let Some(field) = plan.result.filter(|_| !objects.is_empty()) {
            response.set(field, Value::List(objects.into_iter().map(Value::Object).collect()));
        }
        if self.plan.spoe.is_some()
            && let Some(Value::List(items)) = plan.result.and_then(|field| response.get_mut(field))
        {
            for item in items {
                self.number(item);
            }
        }
        self.name(&mut response, not_shown);
        set_int(&mut response, plan.result_version, version);
        set_text(&mut response, plan.result_page, &next);
        Ok(Answer::Message(response))
    }

    async fn get(&self) -> Result<Answer> {
        let key = self.plan.key(self.message)?;
        let (document, version) = self.view().await?;
        let (object, earlier) = self.engine().get_with_earlier(&document, self.resource, &self.place, &key)?;
        let mut not_shown = self.engine().not_shown(&document, self.resource, &object);
        not_shown.extend(earlier);
        let mut object = Value::Object(object);
        if self.plan.spoe.is_some() {
            self.number(&mut object);
        }
        let mut response = Object::new();
        if let Some(field) = self.plan.result {
            response.set(field, object);
        }
        self.name(&mut response, not_shown);
        set_int(&mut response, self.plan.result_version, version);
        Ok(Answer::Message(response))
    }

    /// Names the fields that the file has and the answer cannot show.
    fn name(&self, response: &mut Object, paths: Vec<String>) {
        if let Some(field) = self.plan.not_shown.filter(|_| !paths.is_empty()) {
            let paths = paths.into_iter().map(|path| Value::Str(path.into()));
            response.set(field, Value::List(paths.collect()));
        }
    }

    async fn create(&self) -> Result<Answer> {
        let object = self.body()?;
        self.check(object)?;
        let engine = self.engine();
        self.change(|document| engine.create(document, self.resource, &self.place, object), Some(object.clone())).await
    }

    async fn replace(&self) -> Result<Answer> {
        let object = self.body()?;
        let key = self.plan.key(self.message)?;
        self.settle_doubts(&key, object).await?;
        let engine = self.engine();
        let allow_missing = self.plan.allow_missing.is_some_and(|field| self.message.flag(field));
        let edit = |document: &Document| match engine.replace(document, self.resource, &self.place, &key, object) {
            Err(error) if allow_missing && error.reason() == Reason::ObjectNotFound => {
                engine.create(document, self.resource, &self.place, object)
            }
            edited => edited,
        };
        self.change(edit, Some(object.clone())).await
    }

    async fn update(&self) -> Result<Answer> {
        let (tables, engine) = (&self.rooms.schema.tables, self.engine());
        let key = self.plan.key(self.message)?;
        let paths = self.mask();
        let (document, _) = self.view().await?;
        let before = engine.get(&document, self.resource, &self.place, &key)?;
        let mut object = before.clone();
        apply_mask(tables, self.resource, &mut object, self.body()?, &paths)?;
        let violations = check(tables, self.resource, &object, "body");
        let violations = without_inherited(tables, self.resource, violations, "", &object, &before);
        if !violations.is_empty() {
            return Err(Error::invalid(violations));
        }
        let wanted = object.clone();
        let edit = |document: &Document| engine.update(document, self.resource, &self.place, &key, &wanted, &paths);
        self.change(edit, Some(object)).await
    }

    async fn delete(&self) -> Result<Answer> {
        let key: Key = self.plan.key(self.message)?;
        let engine = self.engine();
        let mut unseen = Vec::new();
        let delete = |document: &Document| {
            unseen = engine.unseen(document, self.resource, &self.place, &key);
            engine.delete(document, self.resource, &self.place, &key)
        };
        let mut answer = self.change(delete, None).await?;
        if let (Answer::Message(response), false, Some(field)) =
            (&mut answer, unseen.is_empty(), self.plan.result_warnings)
        {
            let text = format!("deleted too, shown only over gRPC: {}", unseen.join(", "));
            response.push(field, Value::Str(text.into()));
        }
        Ok(answer)
    }

    /// Makes a change in whatever the request targets, and says what came of it.
    async fn change(
        &self,
        edit: impl FnOnce(&Document) -> Result<Edited> + Send,
        echo: Option<Object>,
    ) -> Result<Answer> {
        let (target, options) = self.target()?;
        let strict = self.transport == Transport::Grpc;
        if let Some((spoe, scope)) = self.scope() {
            let change = |file: &mut SpoeFile| {
                let edited = edit(file.scope(scope)?)?;
                if strict && !edited.unused.is_empty() {
                    return Err(unused(&self.rooms.schema.tables, self.resource, &edited.unused));
                }
                file.set_scope(scope, edited.document)
            };
            let version = self.rooms.spoe.change(spoe, target, change).await?;
            return Ok(Answer::Message(self.outcome(Outcome { version, ..Outcome::default() }, echo)));
        }
        let ((), outcome) = self
            .rooms
            .configuration
            .used_by(self.caller)
            .change(target, options, |document| {
                let edited = edit(document)?;
                if strict && !edited.unused.is_empty() {
                    return Err(unused(&self.rooms.schema.tables, self.resource, &edited.unused));
                }
                Ok((edited.document, ()))
            })
            .await?;
        Ok(Answer::Message(self.outcome(outcome, echo)))
    }

    fn outcome(&self, outcome: Outcome, echo: Option<Object>) -> Object {
        let mut response = Object::new();
        if let (Some(field), Some(object)) = (self.plan.result, echo) {
            response.set(field, Value::Object(object));
        }
        set_int(&mut response, self.plan.result_version, outcome.version);
        set_text(&mut response, self.plan.result_reload, outcome.reload_id.as_deref().unwrap_or_default());
        if let Some(field) = self.plan.result_warnings.filter(|_| !outcome.warnings.is_empty()) {
            let warnings = outcome.warnings.iter().map(|text| Value::Str(text.as_str().into()));
            response.set(field, Value::List(warnings.collect()));
        }
        response
    }

    fn target(&self) -> Result<(Target<'_>, ChangeOptions)> {
        let (plan, request) = (self.plan, self.message);
        let flag = |field: Option<usize>| field.is_some_and(|f| request.flag(f));
        let options = ChangeOptions {
            force_reload: flag(plan.force_reload),
            validate_only: flag(plan.validate_only),
            live: self.live(),
            ..ChangeOptions::default()
        };
        let transaction = Plan::text(plan.transaction_id, request);
        let version = plan.version.and_then(|f| request.int(f));
        match (transaction, version) {
            ("", None) => Err(Error::new(
                Reason::TargetMissing,
                "version or transaction not specified: version or transaction not specified, specify only one",
            )),
            ("", Some(version)) => Ok((Target::Version(version), options)),
            (_, Some(_)) => {
                Err(Error::new(Reason::TargetAmbiguous, "both version and transaction specified, specify only one"))
            }
            (_, None) if options.force_reload => Err(Error::new(
                Reason::TargetAmbiguous,
                "Both force_reload and transaction specified, specify only one",
            )),
            (transaction, None) => Ok((Target::Transaction(transaction), options)),
        }
    }

    /// What may be done without a reload. Clients of /v2 count on one after everything but a PUT of these.
    fn live(&self) -> Live {
        if self.transport == Transport::Grpc {
            return Live::Everything;
        }
        let name = &*self.rooms.schema.tables.messages[self.resource].full_name;
        let known = ["Server", "Frontend", "ServerTemplate"].map(|noun| format!("backstay.configuration.v2.{noun}"));
        if self.verb == Verb::Replace && known.iter().any(|known| known == name) { Live::Values } else { Live::Nothing }
    }

    /// SPOE file and scope that hold the object, if it is of that kind.
    fn scope(&self) -> Option<(&str, &str)> {
        self.plan.spoe?;
        Some((Plan::text(self.plan.spoe, self.message), Plan::text(self.plan.scope, self.message)))
    }

    /// The document that holds the object, and its version.
    async fn view(&self) -> Result<(Document, i64)> {
        if let Some((spoe, scope)) = self.scope() {
            let file = self.rooms.spoe.view(spoe, self.transaction()).await?;
            return Ok((file.scope(scope)?.clone(), file.version()));
        }
        let view = self.rooms.configuration.view(self.transaction())?;
        Ok((view.document.clone(), view.version))
    }

    /// Sets the positions of the lines that an object lists.
    fn number(&self, object: &mut Value) {
        let tables = &self.rooms.schema.tables;
        let Value::Object(object) = object else { return };
        for (at, field) in tables.messages[self.resource].fields.iter().enumerate() {
            let Kind::Message(line) = field.kind else { continue };
            let Some(index) = tables.messages[line].field_named("index") else { continue };
            let Some(Value::List(lines)) = object.get_mut(at) else { continue };
            for (position, line) in (0..).zip(lines) {
                if let Value::Object(line) = line {
                    line.set(index, Value::Int(position));
                }
            }
        }
    }

    fn transaction(&self) -> Option<&str> {
        Some(Plan::text(self.plan.transaction_id, self.message)).filter(|id| !id.is_empty())
    }

    fn body(&self) -> Result<&Object> {
        self.plan.body.and_then(|f| self.message.object(f)).ok_or_else(|| {
            Error::invalid(vec![Violation {
                field: "data".into(),
                message: "is required".into(),
                code: 602,
                location: "body",
            }])
        })
    }

    /// Value rules. The gateway has checked what came over REST, where the paths are those of the body.
    fn check(&self, object: &Object) -> Result<()> {
        if self.transport == Transport::Rest {
            return Ok(());
        }
        let violations = check(&self.rooms.schema.tables, self.resource, object, "body");
        if violations.is_empty() { Ok(()) } else { Err(Error::invalid(violations)) }
    }

    /// Refuses a replacement for the rules that it breaks, but for those that what it replaces breaks with the same values.
    async fn settle_doubts(&self, key: &Key, object: &Object) -> Result<()> {
        if self.doubts.is_empty() {
            return Ok(());
        }
        let tables = &self.rooms.schema.tables;
        let mut doubts = self.doubts.clone();
        // Over gRPC paths begin with the field of the request that holds the object.
        let body = self.plan.body.map(|at| format!("{}.", tables.messages[self.input].fields[at].json));
        let prefix = body.filter(|_| self.transport == Transport::Grpc).unwrap_or_default();
        // What is not there excuses nothing.
        if let Ok((document, _)) = self.view().await
            && let Ok(before) = self.engine().get(&document, self.resource, &self.place, key)
        {
            doubts = without_inherited(tables, self.resource, doubts, &prefix, object, &before);
        }
        match self.transport {
            Transport::Rest => refuse(doubts),
            Transport::Grpc if doubts.is_empty() => Ok(()),
            Transport::Grpc => Err(Error::invalid(doubts)),
        }
    }

    /// Paths of the update mask.
    fn mask(&self) -> Vec<String> {
        let Some(mask) = self.plan.update_mask.and_then(|f| self.message.object(f)) else { return Vec::new() };
        let paths = mask.iter().flat_map(|(_, value)| match value {
            Value::List(items) => items.clone(),
            _ => Vec::new(),
        });
        paths.filter_map(|item| if let Value::Str(path) = item { Some(path.to_string()) } else { None }).collect()
    }
}

fn unused(tables: &Tables, resource: MessageId, paths: &[String]) -> Error {
    let violations = paths
        .iter()
        .map(|path| Violation {
            field: path.clone(),
            message: if has_no_line(tables, resource, path) {
                "has no place in haproxy.cfg and would be lost".into()
            } else {
                "has no place in a line of this type".into()
            },
            code: 0,
            location: "body",
        })
        .collect();
    Error::invalid(violations)
}

/// True for a field of the resource itself that nothing in the file stands for.
fn has_no_line(tables: &Tables, resource: MessageId, path: &str) -> bool {
    let message = &tables.messages[resource];
    message.by_json.get(path).is_some_and(|at| message.fields[*at].no_line)
}

fn set_int(response: &mut Object, field: Option<usize>, value: i64) {
    if let Some(field) = field {
        response.set(field, Value::Int(value));
    }
}

fn set_text(response: &mut Object, field: Option<usize>, value: &str) {
    if let Some(field) = field.filter(|_| !value.is_empty()) {
        response.set(field, Value::Str(value.into()));
    }
}
