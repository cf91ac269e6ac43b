//! Sites: a frontend with its binds, the backends that it sends requests to, and their servers, as one object.
//!
//! A site has no line of its own. What it shows is put together from the objects that have, and writing one changes
//! these: all else in their sections stays.

use std::collections::BTreeSet;

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::proto::fields::configuration::{backend, backend_switching_rule, frontend, site, site_farm, site_service};
use crate::proto::messages::configuration as messages;
use crate::proto::values::configuration::site_farm_use_as;
use crate::schema::tables::{EnumId, FieldIndex, Kind, MessageId};
use crate::schema::value::{Object, Value};

/// Fields that a site's service shares with its frontend.
const OF_FRONTEND: [(FieldIndex, FieldIndex); 3] = [
    (site_service::MODE, frontend::MODE),
    (site_service::MAXCONN, frontend::MAXCONN),
    (site_service::HTTP_CONNECTION_MODE, frontend::HTTP_CONNECTION_MODE),
];

/// Fields that a farm shares with its backend.
const OF_BACKEND: [(FieldIndex, FieldIndex); 3] = [
    (site_farm::MODE, backend::MODE),
    (site_farm::BALANCE, backend::BALANCE),
    (site_farm::FORWARDFOR, backend::FORWARDFOR),
];

/// Fields that a conditional farm shares with the rule that chooses it.
const OF_RULE: [(FieldIndex, FieldIndex); 2] =
    [(site_farm::COND, backend_switching_rule::COND), (site_farm::COND_TEST, backend_switching_rule::COND_TEST)];

/// A farm of a request.
struct Farm<'o> {
    path: String,
    name: &'o str,
    object: &'o Object,
    /// Requests without another backend go there.
    is_default: bool,
}

impl Engine {
    // ---------------------------------------------------------------- reading

    pub(super) fn list_sites(&self, document: &Document) -> Result<Vec<Object>> {
        let frontends: Vec<usize> =
            self.sections(document, self.rules(messages::FRONTEND)?).map(|(at, _)| at).collect();
        frontends.into_iter().map(|at| self.read_site(document, at)).collect()
    }

    pub(super) fn get_site(&self, document: &Document, key: &Key) -> Result<Object> {
        let at = document.find("frontend", key.name());
        let at = at.ok_or_else(|| self.not_found(messages::SITE, &Place::default(), key))?;
        self.read_site(document, at)
    }

    fn read_site(&self, document: &Document, at: usize) -> Result<Object> {
        let name = document.sections()[at].name();
        let frontend = self.read(document, messages::FRONTEND, at, name);
        let mut service = Object::new();
        for (own, shared) in OF_FRONTEND {
            // What a site has no word for is not a part of it.
            drop(self.copy((messages::FRONTEND, shared, &frontend), (messages::SITE_SERVICE, own, &mut service)));
        }
        self.put_lines(document, messages::BIND, at, site_service::LISTENERS, &mut service);

        let mut farms = Vec::new();
        if let Some(name) = frontend.str(frontend::DEFAULT_BACKEND)
            && let Some(mut farm) = self.read_farm(document, name)
        {
            farm.set(site_farm::USE_AS, Value::Enum(site_farm_use_as::DEFAULT));
            farms.push(Value::Object(farm));
        }
        for (_, rule) in self.lines(document, messages::BACKEND_SWITCHING_RULE, at) {
            let Some(name) = rule.str(backend_switching_rule::NAME) else { continue };
            let Some(mut farm) = self.read_farm(document, name) else { continue };
            farm.set(site_farm::USE_AS, Value::Enum(site_farm_use_as::CONDITIONAL));
            for (own, shared) in OF_RULE {
                self.copy((messages::BACKEND_SWITCHING_RULE, shared, &rule), (messages::SITE_FARM, own, &mut farm))?;
            }
            farms.push(Value::Object(farm));
        }

        let mut site = Object::new();
        site.set(site::NAME, Value::Str(name.into()));
        site.set(site::SERVICE, Value::Object(service));
        if !farms.is_empty() {
            site.set(site::FARMS, Value::List(farms));
        }
        Ok(site)
    }

    /// A backend as a farm; nothing when there is none of this name, as with names that are made for each request.
    fn read_farm(&self, document: &Document, name: &str) -> Option<Object> {
        let at = document.find("backend", name)?;
        let backend = self.read(document, messages::BACKEND, at, name);
        let mut farm = Object::new();
        farm.set(site_farm::NAME, Value::Str(name.into()));
        for (own, shared) in OF_BACKEND {
            drop(self.copy((messages::BACKEND, shared, &backend), (messages::SITE_FARM, own, &mut farm)));
        }
        self.put_lines(document, messages::SERVER, at, site_farm::SERVERS, &mut farm);
        Some(farm)
    }

    fn put_lines(&self, document: &Document, line: MessageId, at: usize, field: FieldIndex, into: &mut Object) {
        let lines: Vec<Value> = self.lines(document, line, at).map(|(_, object)| Value::Object(object)).collect();
        if !lines.is_empty() {
            into.set(field, Value::List(lines));
        }
    }

    // ---------------------------------------------------------------- writing

    pub(super) fn create_site(&self, document: &Document, object: &Object) -> Result<Edited> {
        let farms = farms_of(object)?;
        for farm in &farms {
            if document.find("backend", farm.name).is_some() {
                let text = format!("{}.name: backend {} already exists", farm.path, farm.name);
                return Err(Error::new(Reason::ObjectExists, text));
            }
        }
        let name = object.str(site::NAME).unwrap_or_default();
        let mut frontend = Object::new();
        frontend.set(frontend::NAME, Value::Str(name.into()));
        let made = self.create(document, messages::FRONTEND, &Place::default(), &frontend)?;
        self.write_site(made.document, name, object, &farms)
    }

    pub(super) fn replace_site(&self, document: &Document, key: &Key, object: &Object) -> Result<Edited> {
        let name = key.name();
        if document.find("frontend", name).is_none() {
            return Err(self.not_found(messages::SITE, &Place::default(), key));
        }
        let farms = farms_of(object)?;
        let before = self.targets(document, name);
        let mut edited = self.write_site(document.clone(), name, object, &farms)?;
        self.remove_unused(&mut edited.document, &before);
        Ok(edited)
    }

    pub(super) fn delete_site(&self, document: &Document, key: &Key) -> Result<Edited> {
        let at = document.find("frontend", key.name());
        let at = at.ok_or_else(|| self.not_found(messages::SITE, &Place::default(), key))?;
        let before = self.targets(document, key.name());
        let mut document = document.clone();
        document.remove_section(at);
        self.remove_unused(&mut document, &before);
        Ok(Edited { document, unused: Vec::new() })
    }

    fn write_site(&self, mut document: Document, name: &str, site: &Object, farms: &[Farm<'_>]) -> Result<Edited> {
        let mut unused = Vec::new();
        let nothing = Object::new();
        let service = site.object(site::SERVICE).unwrap_or(&nothing);
        let key = Key::Name(name.to_owned());

        // Backends first: the frontend names them.
        for farm in farms {
            document = self.write_farm(&document, farm, &mut unused)?;
        }

        let at = document.find("frontend", name).ok_or_else(|| Error::internal("the frontend is gone"))?;
        let mut frontend = self.read(&document, messages::FRONTEND, at, name);
        for (own, shared) in OF_FRONTEND {
            self.copy((messages::SITE_SERVICE, own, service), (messages::FRONTEND, shared, &mut frontend))
                .map_err(in_service)?;
        }
        let default_backend = frontend::DEFAULT_BACKEND;
        match farms.iter().find(|farm| farm.is_default) {
            Some(farm) => frontend.set(default_backend, Value::Str(farm.name.into())),
            None => {
                frontend.take(default_backend);
            }
        }
        document = self.replace(&document, messages::FRONTEND, &Place::default(), &key, &frontend)?.document;

        let at = document.find("frontend", name).ok_or_else(|| Error::internal("the frontend is gone"))?;
        let binds = service.list(site_service::LISTENERS);
        if let Some(section) =
            self.section_with(&document, at, messages::BIND, binds, "service.listeners", &mut unused)?
        {
            document = document.with_section(at, section);
        }
        let rules = self.wanted_rules(&document, at, farms)?;
        if let Some(section) =
            self.section_with(&document, at, messages::BACKEND_SWITCHING_RULE, &rules, "farms", &mut unused)?
        {
            document = document.with_section(at, section);
        }
        Ok(Edited { document, unused })
    }

    fn write_farm(&self, document: &Document, farm: &Farm<'_>, unused: &mut Vec<String>) -> Result<Document> {
        let nowhere = Place::default();
        let found = document.find("backend", farm.name);
        let mut backend = match found {
            Some(at) => self.read(document, messages::BACKEND, at, farm.name),
            None => Object::new(),
        };
        backend.set(backend::NAME, Value::Str(farm.name.into()));
        for (own, shared) in OF_BACKEND {
            self.copy((messages::SITE_FARM, own, farm.object), (messages::BACKEND, shared, &mut backend))?;
        }
        let mut document = match found {
            Some(_) => {
                self.replace(document, messages::BACKEND, &nowhere, &Key::Name(farm.name.to_owned()), &backend)?
                    .document
            }
            None => self.create(document, messages::BACKEND, &nowhere, &backend)?.document,
        };
        let at = document.find("backend", farm.name).ok_or_else(|| Error::internal("the backend is gone"))?;
        let servers = farm.object.list(site_farm::SERVERS);
        let name = format!("{}.servers", farm.path);
        if let Some(section) = self.section_with(&document, at, messages::SERVER, servers, &name, unused)? {
            document = document.with_section(at, section);
        }
        Ok(document)
    }

    /// The rules of the frontend: one for each conditional farm, in the places of those that show as farms. Rules that
    /// no farm can stand for stay where they are.
    fn wanted_rules(&self, document: &Document, at: usize, farms: &[Farm<'_>]) -> Result<Vec<Value>> {
        let name = backend_switching_rule::NAME;
        let mut come = Vec::new();
        for farm in farms.iter().filter(|farm| !farm.is_default) {
            let mut rule = Object::new();
            rule.set(name, Value::Str(farm.name.into()));
            for (own, shared) in OF_RULE {
                let rule = (messages::BACKEND_SWITCHING_RULE, shared, &mut rule);
                self.copy((messages::SITE_FARM, own, farm.object), rule)?;
            }
            come.push(Value::Object(rule));
        }
        let mut come = come.into_iter();
        let mut rules = Vec::new();
        for (_, old) in self.lines(document, messages::BACKEND_SWITCHING_RULE, at) {
            if old.str(name).is_some_and(|name| document.find("backend", name).is_some()) {
                rules.extend(come.next());
            } else {
                rules.push(Value::Object(old));
            }
        }
        rules.extend(come);
        Ok(rules)
    }

    /// Names of the backends that a frontend or `listen` section sends requests to.
    fn targets(&self, document: &Document, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Some(at) = document.find("frontend", name) {
            self.add_targets(document, at, &mut found);
        }
        found
    }

    fn add_targets(&self, document: &Document, at: usize, into: &mut BTreeSet<String>) {
        let section = &document.sections()[at];
        let frontend = self.read(document, messages::FRONTEND, at, section.name());
        into.extend(frontend.str(frontend::DEFAULT_BACKEND).map(str::to_owned));
        let name = backend_switching_rule::NAME;
        into.extend(
            self.lines(document, messages::BACKEND_SWITCHING_RULE, at)
                .filter_map(|(_, rule)| rule.str(name).map(str::to_owned)),
        );
    }

    /// Removes those of the backends that nobody sends requests to any more.
    fn remove_unused(&self, document: &mut Document, before: &BTreeSet<String>) {
        let mut used = BTreeSet::new();
        for at in 0..document.sections().len() {
            match document.sections()[at].kind() {
                "frontend" | "listen" => self.add_targets(document, at, &mut used),
                "defaults" => {
                    let words = super::layout::said_by(&document.sections()[at], "default_backend");
                    used.extend(words.filter_map(|line| line.words.get(1).map(|word| (*word).to_owned())));
                }
                _ => {}
            }
        }
        for name in before.difference(&used) {
            if let Some(at) = document.find("backend", name) {
                document.remove_section(at);
            }
        }
    }

    // ---------------------------------------------------------------- values

    /// Gives a field of one object the value that a field of another has; absence too.
    fn copy(&self, from: (MessageId, FieldIndex, &Object), into: (MessageId, FieldIndex, &mut Object)) -> Result<()> {
        let (old, new) = (from.1, into.1);
        into.2.take(new);
        let Some(value) = from.2.get(old) else { return Ok(()) };
        let table = |message: MessageId| &self.schema.tables.messages[message];
        let kind = |message: MessageId, at: FieldIndex| table(message).fields[at].kind;
        let value = match (value, kind(from.0, old), kind(into.0, new)) {
            (Value::Enum(_), Kind::Enum(one), Kind::Enum(other)) if one != other => {
                let token = self.token(from.0, old, from.2).unwrap_or_default();
                let number = self.schema.tables.enums[other].number(token).ok_or_else(|| {
                    Error::new(
                        Reason::InvalidValue,
                        format!("{}: {token} is nothing that haproxy has today", table(into.0).fields[new].json),
                    )
                })?;
                Value::Enum(number)
            }
            (value, ..) => value.clone(),
        };
        into.2.set(new, value);
        Ok(())
    }

    fn enum_of(&self, message: MessageId, at: FieldIndex) -> Option<EnumId> {
        match self.schema.tables.messages[message].fields[at].kind {
            Kind::Enum(id) => Some(id),
            _ => None,
        }
    }

    fn token(&self, message: MessageId, at: FieldIndex, object: &Object) -> Option<&str> {
        let value = self.schema.tables.enums[self.enum_of(message, at)?].value(object.enum_number(at)?)?;
        Some(&value.token)
    }
}

/// The farms of a request, each told by its path.
fn farms_of<'o>(site: &'o Object) -> Result<Vec<Farm<'o>>> {
    let (name, use_as) = (site_farm::NAME, site_farm::USE_AS);
    let (cond, cond_test) = (site_farm::COND, site_farm::COND_TEST);
    let mut farms: Vec<Farm<'o>> = Vec::new();
    for (number, item) in site.list(site::FARMS).iter().enumerate() {
        let Value::Object(object) = item else { continue };
        let farm = Farm {
            path: format!("farms[{number}]"),
            name: object.str(name).unwrap_or_default(),
            object,
            is_default: object.enum_number(use_as) == Some(site_farm_use_as::DEFAULT),
        };
        let fault = |text: &str| Err(Error::new(Reason::InvalidValue, format!("{}: {text}", farm.path)));
        if farm.is_default && farms.iter().any(|other| other.is_default) {
            return fault("a site has one default farm");
        }
        // One section cannot be two things.
        let backend = |farm: &Farm<'_>| {
            let mut object = farm.object.clone();
            object.retain(|field, _| ![use_as, cond, cond_test].contains(&field));
            object
        };
        if let Some(other) = farms.iter().find(|other| other.name == farm.name && backend(other) != backend(&farm)) {
            return fault(&format!("{} is another one in {}", farm.name, other.path));
        }
        if !farm.is_default && (object.get(cond).is_none() || object.get(cond_test).is_none()) {
            return fault("a conditional farm needs cond and cond_test");
        }
        farms.push(farm);
    }
    Ok(farms)
}

fn in_service(error: Error) -> Error {
    let text = format!("service.{}", error.message());
    error.message_replaced(text)
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
