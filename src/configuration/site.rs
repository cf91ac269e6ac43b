//! Sites: a frontend with its binds, the backends that it sends requests to, and their servers, as one object.
//!
//! A site has no line of its own. What it shows is put together from the objects that have, and writing one changes
//! these: all else in their sections stays.

use std::collections::BTreeSet;

use super::address::{Key, Place};
use super::engine::{Edited, Engine};
use crate::document::Document;
use crate::error::{Error, Reason, Result};
use crate::schema::tables::{EnumId, FieldIndex, Kind, MessageId};
use crate::schema::value::{Object, Value};

/// Fields that a site's service shares with its frontend, and a farm with its backend.
const OF_FRONTEND: [&str; 3] = ["mode", "maxconn", "http_connection_mode"];
const OF_BACKEND: [&str; 3] = ["mode", "balance", "forwardfor"];

/// The messages that a site is made of.
struct Parts {
    site: MessageId,
    service: MessageId,
    farm: MessageId,
    frontend: MessageId,
    backend: MessageId,
    rule: MessageId,
    bind: MessageId,
    server: MessageId,
}

/// A farm of a request.
struct Farm<'o> {
    path: String,
    name: &'o str,
    object: &'o Object,
    /// Requests without another backend go there.
    is_default: bool,
}

impl Engine {
    fn site_parts(&self, site: MessageId) -> Result<Parts> {
        let (service, farm) = (self.inner(site, "service")?, self.inner(site, "farms")?);
        let name = &self.schema.tables.messages[site].full_name;
        let package = name.rsplit_once('.').map_or("", |(package, _)| package);
        let of = |noun: &str| {
            let found = self.schema.tables.message_by_name.get(format!("{package}.{noun}").as_str()).copied();
            found.ok_or_else(|| Error::internal(format!("no message {noun}")))
        };
        Ok(Parts {
            site,
            service,
            farm,
            frontend: of("Frontend")?,
            backend: of("Backend")?,
            rule: of("BackendSwitchingRule")?,
            bind: self.inner(service, "listeners")?,
            server: self.inner(farm, "servers")?,
        })
    }

    fn at(&self, message: MessageId, name: &str) -> Result<FieldIndex> {
        let table = &self.schema.tables.messages[message];
        table.field_named(name).ok_or_else(|| Error::internal(format!("{} has no field {name}", table.full_name)))
    }

    fn inner(&self, message: MessageId, name: &str) -> Result<MessageId> {
        match self.schema.tables.messages[message].fields[self.at(message, name)?].kind {
            Kind::Message(inner) => Ok(inner),
            _ => Err(Error::internal(format!("{name} is no message"))),
        }
    }

    // ---------------------------------------------------------------- reading

    pub(super) fn list_sites(&self, document: &Document, site: MessageId) -> Result<Vec<Object>> {
        let parts = self.site_parts(site)?;
        let frontends: Vec<usize> = self.sections(document, self.rules(parts.frontend)?).map(|(at, _)| at).collect();
        frontends.into_iter().map(|at| self.read_site(document, &parts, at)).collect()
    }

    pub(super) fn get_site(&self, document: &Document, site: MessageId, key: &Key) -> Result<Object> {
        let parts = self.site_parts(site)?;
        let at = document.find("frontend", key.name());
        let at = at.ok_or_else(|| self.not_found(site, &Place::default(), key))?;
        self.read_site(document, &parts, at)
    }

    fn read_site(&self, document: &Document, parts: &Parts, at: usize) -> Result<Object> {
        let name = document.sections()[at].name();
        let frontend = self.read(document, parts.frontend, at, name);
        let mut service = Object::new();
        for field in OF_FRONTEND {
            // What a site has no word for is not a part of it.
            drop(self.copy((parts.frontend, &frontend), (parts.service, &mut service), field));
        }
        self.put_lines(document, parts.bind, at, self.at(parts.service, "listeners")?, &mut service);

        let mut farms = Vec::new();
        if let Some(name) = frontend.str(self.at(parts.frontend, "default_backend")?)
            && let Some(mut farm) = self.read_farm(document, parts, name)?
        {
            self.set_token(parts.farm, "use_as", "default", &mut farm)?;
            farms.push(Value::Object(farm));
        }
        for (_, rule) in self.lines(document, parts.rule, at) {
            let Some(name) = rule.str(self.at(parts.rule, "name")?) else { continue };
            let Some(mut farm) = self.read_farm(document, parts, name)? else { continue };
            self.set_token(parts.farm, "use_as", "conditional", &mut farm)?;
            self.copy((parts.rule, &rule), (parts.farm, &mut farm), "cond")?;
            self.copy((parts.rule, &rule), (parts.farm, &mut farm), "cond_test")?;
            farms.push(Value::Object(farm));
        }

        let mut site = Object::new();
        site.set(self.at(parts.site, "name")?, Value::Str(name.into()));
        site.set(self.at(parts.site, "service")?, Value::Object(service));
        if !farms.is_empty() {
            site.set(self.at(parts.site, "farms")?, Value::List(farms));
        }
        Ok(site)
    }

    /// A backend as a farm; nothing when there is none of this name, as with names that are made for each request.
    fn read_farm(&self, document: &Document, parts: &Parts, name: &str) -> Result<Option<Object>> {
        let Some(at) = document.find("backend", name) else { return Ok(None) };
        let backend = self.read(document, parts.backend, at, name);
        let mut farm = Object::new();
        farm.set(self.at(parts.farm, "name")?, Value::Str(name.into()));
        for field in OF_BACKEND {
            drop(self.copy((parts.backend, &backend), (parts.farm, &mut farm), field));
        }
        self.put_lines(document, parts.server, at, self.at(parts.farm, "servers")?, &mut farm);
        Ok(Some(farm))
    }

    fn put_lines(&self, document: &Document, line: MessageId, at: usize, field: FieldIndex, into: &mut Object) {
        let lines: Vec<Value> = self.lines(document, line, at).map(|(_, object)| Value::Object(object)).collect();
        if !lines.is_empty() {
            into.set(field, Value::List(lines));
        }
    }

    // ---------------------------------------------------------------- writing

    pub(super) fn create_site(&self, document: &Document, site: MessageId, object: &Object) -> Result<Edited> {
        let parts = self.site_parts(site)?;
        let farms = self.farms_of(&parts, object)?;
        for farm in &farms {
            if document.find("backend", farm.name).is_some() {
                let text = format!("{}.name: backend {} already exists", farm.path, farm.name);
                return Err(Error::new(Reason::ObjectExists, text));
            }
        }
        let name = object.str(self.at(site, "name")?).unwrap_or_default();
        let mut frontend = Object::new();
        frontend.set(self.at(parts.frontend, "name")?, Value::Str(name.into()));
        let made = self.create(document, parts.frontend, &Place::default(), &frontend)?;
        self.write_site(made.document, &parts, name, object, &farms)
    }

    pub(super) fn replace_site(
        &self,
        document: &Document,
        site: MessageId,
        key: &Key,
        object: &Object,
    ) -> Result<Edited> {
        let parts = self.site_parts(site)?;
        let name = key.name();
        if document.find("frontend", name).is_none() {
            return Err(self.not_found(site, &Place::default(), key));
        }
        let farms = self.farms_of(&parts, object)?;
        let before = self.targets(document, &parts, name)?;
        let mut edited = self.write_site(document.clone(), &parts, name, object, &farms)?;
        self.remove_unused(&mut edited.document, &parts, &before)?;
        Ok(edited)
    }

    pub(super) fn delete_site(&self, document: &Document, site: MessageId, key: &Key) -> Result<Edited> {
        let parts = self.site_parts(site)?;
        let at = document.find("frontend", key.name());
        let at = at.ok_or_else(|| self.not_found(site, &Place::default(), key))?;
        let before = self.targets(document, &parts, key.name())?;
        let mut document = document.clone();
        document.remove_section(at);
        self.remove_unused(&mut document, &parts, &before)?;
        Ok(Edited { document, unused: Vec::new() })
    }

    /// The farms of a request, each told by its path.
    fn farms_of<'o>(&self, parts: &Parts, site: &'o Object) -> Result<Vec<Farm<'o>>> {
        let (name, use_as) = (self.at(parts.farm, "name")?, self.at(parts.farm, "use_as")?);
        let (cond, cond_test) = (self.at(parts.farm, "cond")?, self.at(parts.farm, "cond_test")?);
        let mut farms: Vec<Farm<'o>> = Vec::new();
        for (number, item) in site.list(self.at(parts.site, "farms")?).iter().enumerate() {
            let Value::Object(object) = item else { continue };
            let farm = Farm {
                path: format!("farms[{number}]"),
                name: object.str(name).unwrap_or_default(),
                object,
                is_default: self.token(parts.farm, use_as, object) == Some("default"),
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
            if let Some(other) = farms.iter().find(|other| other.name == farm.name && backend(other) != backend(&farm))
            {
                return fault(&format!("{} is another one in {}", farm.name, other.path));
            }
            if !farm.is_default && (object.get(cond).is_none() || object.get(cond_test).is_none()) {
                return fault("a conditional farm needs cond and cond_test");
            }
            farms.push(farm);
        }
        Ok(farms)
    }

    fn write_site(
        &self,
        mut document: Document,
        parts: &Parts,
        name: &str,
        site: &Object,
        farms: &[Farm<'_>],
    ) -> Result<Edited> {
        let mut unused = Vec::new();
        let nothing = Object::new();
        let service = site.object(self.at(parts.site, "service")?).unwrap_or(&nothing);
        let key = Key::Name(name.to_owned());

        // Backends first: the frontend names them.
        for farm in farms {
            document = self.write_farm(&document, parts, farm, &mut unused)?;
        }

        let at = document.find("frontend", name).ok_or_else(|| Error::internal("the frontend is gone"))?;
        let mut frontend = self.read(&document, parts.frontend, at, name);
        for field in OF_FRONTEND {
            self.copy((parts.service, service), (parts.frontend, &mut frontend), field).map_err(in_service)?;
        }
        let default_backend = self.at(parts.frontend, "default_backend")?;
        match farms.iter().find(|farm| farm.is_default) {
            Some(farm) => frontend.set(default_backend, Value::Str(farm.name.into())),
            None => {
                frontend.take(default_backend);
            }
        }
        document = self.replace(&document, parts.frontend, &Place::default(), &key, &frontend)?.document;

        let at = document.find("frontend", name).ok_or_else(|| Error::internal("the frontend is gone"))?;
        let binds = service.list(self.at(parts.service, "listeners")?);
        if let Some(section) = self.section_with(&document, at, parts.bind, binds, "service.listeners", &mut unused)? {
            document = document.with_section(at, section);
        }
        let rules = self.wanted_rules(&document, parts, at, farms)?;
        if let Some(section) = self.section_with(&document, at, parts.rule, &rules, "farms", &mut unused)? {
            document = document.with_section(at, section);
        }
        Ok(Edited { document, unused })
    }

    fn write_farm(
        &self,
        document: &Document,
        parts: &Parts,
        farm: &Farm<'_>,
        unused: &mut Vec<String>,
    ) -> Result<Document> {
        let nowhere = Place::default();
        let found = document.find("backend", farm.name);
        let mut backend = match found {
            Some(at) => self.read(document, parts.backend, at, farm.name),
            None => Object::new(),
        };
        backend.set(self.at(parts.backend, "name")?, Value::Str(farm.name.into()));
        for field in OF_BACKEND {
            self.copy((parts.farm, farm.object), (parts.backend, &mut backend), field)?;
        }
        let mut document = match found {
            Some(_) => {
                self.replace(document, parts.backend, &nowhere, &Key::Name(farm.name.to_owned()), &backend)?.document
            }
            None => self.create(document, parts.backend, &nowhere, &backend)?.document,
        };
        let at = document.find("backend", farm.name).ok_or_else(|| Error::internal("the backend is gone"))?;
        let servers = farm.object.list(self.at(parts.farm, "servers")?);
        let name = format!("{}.servers", farm.path);
        if let Some(section) = self.section_with(&document, at, parts.server, servers, &name, unused)? {
            document = document.with_section(at, section);
        }
        Ok(document)
    }

    /// The rules of the frontend: one for each conditional farm, in the places of those that show as farms. Rules that
    /// no farm can stand for stay where they are.
    fn wanted_rules(&self, document: &Document, parts: &Parts, at: usize, farms: &[Farm<'_>]) -> Result<Vec<Value>> {
        let name = self.at(parts.rule, "name")?;
        let mut come = Vec::new();
        for farm in farms.iter().filter(|farm| !farm.is_default) {
            let mut rule = Object::new();
            rule.set(name, Value::Str(farm.name.into()));
            self.copy((parts.farm, farm.object), (parts.rule, &mut rule), "cond")?;
            self.copy((parts.farm, farm.object), (parts.rule, &mut rule), "cond_test")?;
            come.push(Value::Object(rule));
        }
        let mut come = come.into_iter();
        let mut rules = Vec::new();
        for (_, old) in self.lines(document, parts.rule, at) {
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
    fn targets(&self, document: &Document, parts: &Parts, name: &str) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        if let Some(at) = document.find("frontend", name) {
            self.add_targets(document, parts, at, &mut found)?;
        }
        Ok(found)
    }

    fn add_targets(&self, document: &Document, parts: &Parts, at: usize, into: &mut BTreeSet<String>) -> Result<()> {
        let section = &document.sections()[at];
        let frontend = self.read(document, parts.frontend, at, section.name());
        into.extend(frontend.str(self.at(parts.frontend, "default_backend")?).map(str::to_owned));
        let name = self.at(parts.rule, "name")?;
        into.extend(self.lines(document, parts.rule, at).filter_map(|(_, rule)| rule.str(name).map(str::to_owned)));
        Ok(())
    }

    /// Removes those of the backends that nobody sends requests to any more.
    fn remove_unused(&self, document: &mut Document, parts: &Parts, before: &BTreeSet<String>) -> Result<()> {
        let mut used = BTreeSet::new();
        for at in 0..document.sections().len() {
            match document.sections()[at].kind() {
                "frontend" | "listen" => self.add_targets(document, parts, at, &mut used)?,
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
        Ok(())
    }

    // ---------------------------------------------------------------- values

    /// Gives one object the value that another has in the field of the same name; absence too.
    fn copy(&self, from: (MessageId, &Object), into: (MessageId, &mut Object), name: &str) -> Result<()> {
        let (old, new) = (self.at(from.0, name)?, self.at(into.0, name)?);
        into.1.take(new);
        let Some(value) = from.1.get(old) else { return Ok(()) };
        let kind = |message: MessageId, at: FieldIndex| self.schema.tables.messages[message].fields[at].kind;
        let value = match (value, kind(from.0, old), kind(into.0, new)) {
            (Value::Enum(_), Kind::Enum(one), Kind::Enum(other)) if one != other => {
                let token = self.token(from.0, old, from.1).unwrap_or_default();
                let number = self.schema.tables.enums[other].number(token).ok_or_else(|| {
                    Error::new(Reason::InvalidValue, format!("{name}: {token} is nothing that haproxy has today"))
                })?;
                Value::Enum(number)
            }
            (value, ..) => value.clone(),
        };
        into.1.set(new, value);
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

    fn set_token(&self, message: MessageId, name: &str, token: &str, object: &mut Object) -> Result<()> {
        let at = self.at(message, name)?;
        let number = self.enum_of(message, at).and_then(|id| self.schema.tables.enums[id].number(token));
        object.set(at, Value::Enum(number.ok_or_else(|| Error::internal(format!("{name} has no value {token}")))?));
        Ok(())
    }
}

fn in_service(error: Error) -> Error {
    let text = format!("service.{}", error.message());
    error.message_replaced(text)
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
