//! Objects of the configuration: what kind they are of and what they are found by.

use super::Loader;
use super::descriptors::Rules;
use crate::schema::tables::{Field, Kind, MessageType, Parent, Resource, ResourceKind};

impl Loader<'_> {
    pub(super) fn resource(&mut self, rules: &Rules<'_>, message: &MessageType, file: &str) -> Option<Resource> {
        let kind = match rules.number("kind").unwrap_or(0) {
            1 => ResourceKind::Section,
            2 => ResourceKind::NamedLine,
            3 => ResourceKind::IndexedLine,
            4 => ResourceKind::Tree,
            5 => ResourceKind::AnyLine,
            6 => ResourceKind::Site,
            _ => return None,
        };
        let first_word = message.line.as_deref().and_then(|l| l.split_whitespace().next()).unwrap_or_default();
        let keyword = rules.some_text("section").unwrap_or_else(|| first_word.into());
        let made_of_others = matches!(kind, ResourceKind::Tree | ResourceKind::AnyLine | ResourceKind::Site);
        if keyword.is_empty() && !made_of_others {
            self.fault(file, &message.full_name, "a resource needs a line");
        }
        let parents: Vec<Parent> = rules
            .texts("parents")
            .into_iter()
            .map(|section| Parent {
                token: if *section == *"fcgi-app" { section.clone() } else { section.replace('-', "_").into() },
                section,
            })
            .collect();
        if matches!(kind, ResourceKind::NamedLine | ResourceKind::IndexedLine) && parents.is_empty() {
            self.fault(file, &message.full_name, "a line resource needs parents");
        }
        Some(Resource {
            kind,
            keyword,
            parents,
            identity: Vec::new(),
            singleton: rules.flag("singleton"),
            derived_name: rules.flag("derived_name"),
            first: rules.flag("first"),
            order: rules.number("order").unwrap_or(0).unsigned_abs() as u32,
        })
    }

    /// Finds identity fields once all messages are known, since they may stand in flattened parameters.
    pub(super) fn resolve_identities(&mut self) {
        for id in 0..self.tables.messages.len() {
            let message = &self.tables.messages[id];
            let Some(resource) = &message.resource else { continue };
            if resource.singleton {
                continue;
            }
            if resource.kind == ResourceKind::Tree {
                self.resolve_tree(id);
                continue;
            }
            let wanted = match resource.kind {
                ResourceKind::IndexedLine | ResourceKind::AnyLine => "index",
                ResourceKind::Section | ResourceKind::Tree | ResourceKind::Site => "name",
                ResourceKind::NamedLine => {
                    ["name", "prefix", "username"].into_iter().find(|n| self.path_of(id, n).is_some()).unwrap_or("name")
                }
            };
            if let Some(path) = self.path_of(id, wanted) {
                if let Some(resource) = &mut self.tables.messages[id].resource {
                    resource.identity = path;
                }
            } else {
                let name = message.full_name.to_string();
                self.fault_in(&name, format!("has no field `{wanted}` to be found by"));
            }
        }
    }

    /// A tree is found by the name of its section.
    fn resolve_tree(&mut self, id: usize) {
        let messages = &self.tables.messages;
        let resource_of = |field: &Field| match field.kind {
            Kind::Message(inner) => messages[inner].resource.as_ref().map(|r| (inner, r.kind)),
            _ => None,
        };
        let fields = &messages[id].fields;
        let section = fields.first().filter(|field| !field.repeated).and_then(&resource_of);
        let lines = fields.iter().skip(1).all(|field| {
            let kind = resource_of(field).map(|(_, kind)| kind);
            field.repeated && matches!(kind, Some(ResourceKind::NamedLine | ResourceKind::IndexedLine))
        });
        let name = match section {
            Some((inner, ResourceKind::Section)) => messages[inner].field_named("name"),
            _ => None,
        };
        if let (Some(name), true) = (name, lines) {
            if let Some(resource) = &mut self.tables.messages[id].resource {
                resource.identity = vec![0, name];
            }
        } else {
            let name = messages[id].full_name.to_string();
            self.fault("-", &name, "a tree is a section with a name, then lists of its lines");
        }
    }

    fn path_of(&self, id: usize, name: &str) -> Option<Vec<usize>> {
        let message = &self.tables.messages[id];
        if let Some(at) = message.field_named(name) {
            return Some(vec![at]);
        }
        message.fields.iter().enumerate().find_map(|(at, field)| match field.kind {
            Kind::Message(inner) if field.flatten => {
                self.tables.messages[inner].field_named(name).map(|inside| vec![at, inside])
            }
            _ => None,
        })
    }
}
