//! The REST API as an OpenAPI document, made from the tables and the comments of the schema.

mod schemas;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value as Json, json};

use self::schemas::Schemas;
use super::comments::Comments;
use super::tables::{Field, FieldIndex, HttpRule, Kind, MessageType, Method, ServiceType, Tables, Verb};
use crate::error::Reason;

/// Prefix of all paths; the document gives it once.
const BASE: &str = "/v2";

/// Form of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAPI 3.0.3.
    OpenApi3,
    /// Swagger 2.0.
    Swagger2,
}

/// Describes every method that has a REST binding.
pub fn document(tables: &Tables, comments: &Comments, dialect: Dialect, version: &str) -> Json {
    let mut writer = Writer {
        tables,
        comments,
        dialect,
        schemas: Schemas::new(tables, comments, dialect),
        operation_ids: HashSet::new(),
    };
    let mut tags = Vec::new();
    let mut paths: BTreeMap<String, Map<String, Json>> = BTreeMap::new();
    for service in &tables.services {
        let tag = tag(service);
        let mut used = false;
        for method in service.methods.iter().filter_map(|id| tables.methods.get(*id)) {
            for rule in &method.http {
                used = true;
                let path = rule.path.strip_prefix(BASE).unwrap_or(&rule.path).to_owned();
                let operation = writer.operation(service, tag, method, rule);
                paths.entry(path).or_default().insert(rule.method.to_ascii_lowercase(), operation);
            }
        }
        if used {
            let text = comments.get(&service.full_name).map_or("", |text| text);
            tags.push(json!({"name": tag, "description": text}));
        }
    }
    let info = json!({
        "title": "backstay",
        "description": "REST API of backstay, a control plane for HAProxy. Every call exists over gRPC too.",
        "version": version,
    });
    let schemas = writer.schemas.finish();
    match dialect {
        Dialect::OpenApi3 => json!({
            "openapi": "3.0.3",
            "info": info,
            "servers": [{"url": BASE}],
            "tags": tags,
            "security": [{"basic": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
                "schemas": schemas,
            },
        }),
        Dialect::Swagger2 => json!({
            "swagger": "2.0",
            "info": info,
            "basePath": BASE,
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "tags": tags,
            "security": [{"basic": []}],
            "paths": paths,
            "securityDefinitions": {"basic": {"type": "basic"}},
            "definitions": schemas,
        }),
    }
}

/// `ServerSwitchingRule` for `backstay.configuration.v2.ServerSwitchingRuleService`.
fn tag(service: &ServiceType) -> &str {
    let name = service.full_name.rsplit('.').next().unwrap_or_default();
    name.strip_suffix("Service").unwrap_or(name)
}

struct Writer<'a> {
    tables: &'a Tables,
    comments: &'a Comments,
    dialect: Dialect,
    schemas: Schemas<'a>,
    operation_ids: HashSet<String>,
}

/// A body, in a request or an answer.
enum Body {
    None,
    Json(Json),
    /// Bytes as they are.
    Text,
    /// A file in a form.
    Upload,
    /// JSON values, one a line.
    Lines(Json),
}

impl Writer<'_> {
    fn operation(&mut self, service: &ServiceType, tag: &str, method: &Method, rule: &HttpRule) -> Json {
        let name = method.path.rsplit('/').next().unwrap_or_default();
        let comment = self.comments.get(format!("{}.{name}", service.full_name).as_str());
        let comment = comment.map_or("", |text| text);
        let input = &self.tables.messages[method.input];
        let mut parameters = self.parameters(method, rule, input);
        let body = self.request_body(method, rule, input);
        let mut operation = json!({
            "operationId": self.operation_id(name),
            "tags": [tag],
            "summary": first_sentence(comment),
            "description": comment,
            "responses": self.responses(method, rule, comment),
        });
        match self.dialect {
            Dialect::OpenApi3 => {
                if let Some(content) = content(body) {
                    operation["requestBody"] = json!({"required": true, "content": content});
                }
            }
            Dialect::Swagger2 => match body {
                Body::None | Body::Lines(_) => {}
                Body::Json(schema) => {
                    parameters.push(json!({"name": "data", "in": "body", "required": true, "schema": schema}));
                }
                Body::Text => {
                    let schema = json!({"type": "string"});
                    parameters.push(json!({"name": "data", "in": "body", "required": true, "schema": schema}));
                    operation["consumes"] = json!(["text/plain"]);
                }
                Body::Upload => {
                    parameters.push(json!({"name": UPLOAD, "in": "formData", "required": true, "type": "file"}));
                    operation["consumes"] = json!(["multipart/form-data"]);
                }
            },
        }
        operation["parameters"] = Json::Array(parameters);
        operation
    }

    /// `getServer`; a second binding of the same method gets a number.
    fn operation_id(&mut self, name: &str) -> String {
        let mut chars = name.chars();
        let base: String = chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect();
        let mut id = base.clone();
        let mut count = 1;
        while !self.operation_ids.insert(id.clone()) {
            count += 1;
            id = format!("{base}{count}");
        }
        id
    }

    fn parameters(&mut self, method: &Method, rule: &HttpRule, input: &MessageType) -> Vec<Json> {
        let mut out = Vec::new();
        for field in &input.fields {
            let in_path = path_names(rule).any(|name| name == &*field.name || name == &*field.json);
            if !in_path && (&*rule.body == "*" || is_body(rule, field)) {
                continue;
            }
            // Masks and the like have no form in a query.
            if matches!(field.kind, Kind::Message(_) | Kind::Bytes) || field.grpc_only {
                continue;
            }
            let mut schema = self.schemas.field(field);
            if let Some(parents) = self.allowed_parents(method, field) {
                schema["enum"] = parents;
            }
            let mut parameter = json!({
                "name": &*field.json,
                "in": if in_path { "path" } else { "query" },
                "required": in_path || field.check.required,
            });
            let comment = self.comments.get(format!("{}.{}", input.full_name, field.name).as_str());
            if let Some(comment) = comment {
                parameter["description"] = json!(&**comment);
            }
            match (self.dialect, schema) {
                (Dialect::Swagger2, Json::Object(schema)) => {
                    for (key, value) in schema {
                        parameter[key] = value;
                    }
                    if field.repeated {
                        parameter["collectionFormat"] = json!("multi");
                    }
                }
                (_, schema) => parameter["schema"] = schema,
            }
            out.push(parameter);
        }
        out
    }

    /// Of the shared enum of section kinds only those that may hold the resource.
    fn allowed_parents(&self, method: &Method, field: &Field) -> Option<Json> {
        let resource = self.tables.messages[method.resource?].resource.as_ref()?;
        let parents = resource.parents.iter().filter(|parent| parent.is_v2());
        let tokens: Vec<&str> = parents.map(|parent| &*parent.token).collect();
        (&*field.name == "parent_type" && !tokens.is_empty()).then(|| json!(tokens))
    }

    fn request_body(&mut self, method: &Method, rule: &HttpRule, input: &MessageType) -> Body {
        if rule.body.is_empty() {
            return Body::None;
        }
        if &*rule.body == "*" {
            let inside: Vec<FieldIndex> = (0..input.fields.len())
                .filter(|at| {
                    let field = &input.fields[*at];
                    !path_names(rule).any(|name| name == &*field.name || name == &*field.json)
                })
                .collect();
            return Body::Json(self.schemas.object(method.input, &inside));
        }
        let Some(field) = input.fields.iter().find(|field| is_body(rule, field)) else { return Body::None };
        if field.kind != Kind::Bytes {
            return Body::Json(self.schemas.field(field));
        }
        // Where nothing else says what the file is called, its name comes with the upload.
        let named = path_names(rule).next().is_some() || input.field_named("name").is_none();
        if named { Body::Text } else { Body::Upload }
    }

    fn responses(&mut self, method: &Method, rule: &HttpRule, comment: &str) -> Json {
        let mut out = Map::new();
        let resource = method.resource.map(|id| self.schemas.reference(id));
        let envelope = |data: Json| {
            Body::Json(json!({
                "type": "object",
                "properties": {"_version": {"type": "integer", "format": "int64"}, "data": data},
            }))
        };
        match (method.verb, resource) {
            (Verb::List, Some(item)) => {
                let list = envelope(json!({"type": "array", "items": item}));
                out.insert("200".into(), self.response("The objects.", list, false));
            }
            (Verb::Get, Some(item)) => {
                out.insert("200".into(), self.response("The object.", envelope(item), false));
            }
            (Verb::Create | Verb::Replace | Verb::Update, Some(item)) => {
                let (status, text) = match method.verb {
                    Verb::Create => ("201", "Created, and HAProxy reloaded."),
                    _ => ("200", "Replaced, and HAProxy reloaded."),
                };
                out.insert(status.into(), self.response(text, Body::Json(item.clone()), false));
                out.insert("202".into(), self.response(ACCEPTED, Body::Json(item), true));
            }
            (Verb::Delete, _) => {
                out.insert("202".into(), self.response(ACCEPTED, Body::None, true));
                out.insert("204".into(), self.response("Deleted, and HAProxy reloaded.", Body::None, false));
            }
            _ => {
                let status = if method.status == 0 { 200 } else { method.status };
                let body = if status == 204 { Body::None } else { self.custom_body(method, rule) };
                out.insert(status.to_string(), self.response("Done.", body, false));
            }
        }
        for (status, text) in faults(comment) {
            let body = Body::Json(self.schemas.error());
            let response = self.response(&text, body, false);
            out.entry(status.to_string()).or_insert(response);
        }
        let body = Body::Json(self.schemas.error());
        out.insert("default".into(), self.response("Any other error.", body, false));
        Json::Object(out)
    }

    fn custom_body(&mut self, method: &Method, rule: &HttpRule) -> Body {
        let output = &self.tables.messages[method.output];
        if method.streaming {
            return Body::Lines(self.schemas.reference(method.output));
        }
        let field = output.fields.iter().find(|field| *field.name == *rule.response_body);
        match field {
            Some(field) if field.kind == Kind::Bytes => Body::Text,
            // These are in an envelope without a version.
            Some(field) if rule.path.starts_with("/v2/service_discovery/") && &*rule.method == "GET" => {
                let data = self.schemas.field(field);
                Body::Json(json!({"type": "object", "properties": {"data": data}}))
            }
            Some(field) => Body::Json(self.schemas.field(field)),
            None if output.fields.is_empty() => Body::None,
            None => Body::Json(self.schemas.reference(method.output)),
        }
    }

    fn response(&self, text: &str, body: Body, reloads: bool) -> Json {
        let header = |kind: &str, text: &str| match self.dialect {
            Dialect::OpenApi3 => json!({"description": text, "schema": {"type": kind}}),
            Dialect::Swagger2 => json!({"description": text, "type": kind}),
        };
        let mut headers = json!({
            "Configuration-Version": header("integer", "Version of the configuration."),
        });
        if reloads {
            headers["Reload-ID"] = header("string", "Id of the reload that was asked for, when there is one.");
        }
        let mut response = json!({"description": text, "headers": headers});
        match self.dialect {
            Dialect::OpenApi3 => {
                if let Some(content) = content(body) {
                    response["content"] = content;
                }
            }
            Dialect::Swagger2 => match body {
                Body::None => {}
                Body::Json(schema) | Body::Lines(schema) => response["schema"] = schema,
                Body::Text | Body::Upload => response["schema"] = json!({"type": "string"}),
            },
        }
        response
    }
}

/// Form field of uploads.
const UPLOAD: &str = "file_upload";
const ACCEPTED: &str = "Taken; HAProxy is reloaded when the time comes, or when the transaction is committed.";

fn content(body: Body) -> Option<Json> {
    match body {
        Body::None => None,
        Body::Json(schema) => Some(json!({"application/json": {"schema": schema}})),
        Body::Text => Some(json!({"text/plain": {"schema": {"type": "string"}}})),
        Body::Upload => {
            let schema = json!({"type": "object", "properties": {UPLOAD: {"type": "string", "format": "binary"}}});
            Some(json!({"multipart/form-data": {"schema": schema}}))
        }
        Body::Lines(schema) => Some(json!({
            "application/x-ndjson": {"schema": schema},
            "text/event-stream": {"schema": {"type": "string"}},
        })),
    }
}

/// Names in the path, as they stand between braces.
fn path_names(rule: &HttpRule) -> impl Iterator<Item = &str> {
    rule.path.split(['{', '}']).skip(1).step_by(2).map(|name| name.trim_end_matches("=**"))
}

fn is_body(rule: &HttpRule, field: &Field) -> bool {
    *rule.body == *field.name || *rule.body == *field.json
}

fn first_sentence(text: &str) -> &str {
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    text[..end].trim_end_matches('.')
}

/// What the comment says may go wrong, by HTTP status: it names the reasons.
fn faults(comment: &str) -> BTreeMap<u16, String> {
    let mut found: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for name in comment.split('`').skip(1).step_by(2) {
        if let Some(row) = Reason::ALL.iter().map(|reason| reason.row()).find(|row| row.name == name) {
            let text = format!("`{}`: {}", row.name, row.summary.trim());
            found.entry(row.status).or_default().push(text);
        }
    }
    found.into_iter().map(|(status, texts)| (status, texts.join("\n"))).collect()
}

#[cfg(test)]
#[path = "openapi/tests.rs"]
mod tests;
