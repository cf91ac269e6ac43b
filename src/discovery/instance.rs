//! What is searched, as an object of the schema, and what the search reads off it.

use std::time::Duration;

use super::aws;
use super::consul;
use super::slots::{Growth, LEAST, Slots};
use crate::error::{Error, Reason, Result};
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::{FieldIndex, Kind as FieldKind, MessageId, MessageType, Tables};
use crate::schema::value::{Object, Value};

/// No search waits longer, in seconds.
const YEAR: i64 = 31_536_000;

/// Sorts of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Consul agent.
    Consul,
    /// A region of AWS.
    Aws,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Kind; 2] = [Kind::Consul, Kind::Aws];

    /// The message of its objects.
    pub fn message(self, tables: &Tables) -> MessageId {
        let name = match self {
            Kind::Consul => "backstay.discovery.v2.Consul",
            Kind::Aws => "backstay.discovery.v2.AwsRegion",
        };
        tables.message_by_name.get(name).copied().unwrap_or_default()
    }

    /// Key of its list in the YAML file, below `service_discovery`.
    pub(super) fn list(self) -> &'static str {
        match self {
            Kind::Consul => "consuls",
            Kind::Aws => "aws_regions",
        }
    }

    /// For messages.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Kind::Consul => "consul",
            Kind::Aws => "aws region",
        }
    }

    /// Fields that are never logged, and shown only where clients rely on it.
    pub fn secrets(self) -> &'static [&'static str] {
        match self {
            Kind::Consul => &["token"],
            Kind::Aws => &["secret_access_key"],
        }
    }

    fn default_growth(self) -> &'static str {
        match self {
            Kind::Consul => "linear",
            Kind::Aws => "exponential",
        }
    }
}

/// Where services are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Consul(consul::Agent),
    Aws(aws::Region),
}

/// What the loop has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// Between two attempts.
    pub(super) period: Duration,
    pub(super) slots: Slots,
    /// Section that new backends start from.
    pub(super) from: Option<String>,
    /// What the names of its backends begin with.
    pub(super) prefix: String,
    pub(super) source: Source,
}

/// The fields of an object, by name.
pub(super) struct Fields<'a> {
    tables: &'a Tables,
    message: &'a MessageType,
    object: &'a Object,
}

impl<'a> Fields<'a> {
    pub(super) fn new(tables: &'a Tables, message: MessageId, object: &'a Object) -> Self {
        Fields { tables, message: &tables.messages[message], object }
    }

    fn at(&self, name: &str) -> Option<FieldIndex> {
        self.message.field_named(name)
    }

    /// A text, empty when absent.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.at(name).and_then(|at| self.object.str(at)).unwrap_or_default()
    }

    /// A text that is not empty.
    pub(super) fn some(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The texts of a list.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let items = self.at(name).map(|at| self.object.list(at)).unwrap_or_default();
        let text = |item: &Value| if let Value::Str(text) = item { Some(text.to_string()) } else { None };
        items.iter().filter_map(text).collect()
    }

    /// The objects of a list, with their message.
    pub(super) fn objects(&self, name: &str) -> Vec<(MessageId, &'a Object)> {
        let Some(at) = self.at(name) else { return Vec::new() };
        let FieldKind::Message(message) = self.message.fields[at].kind else { return Vec::new() };
        let object = |item: &'a Value| if let Value::Object(object) = item { Some((message, object)) } else { None };
        self.object.list(at).iter().filter_map(object).collect()
    }

    /// A number.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.at(name).and_then(|at| self.object.int(at))
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.at(name).is_some_and(|at| self.object.flag(at))
    }

    /// The word of an enum, empty when absent.
    pub(super) fn word(&self, name: &str) -> &'a str {
        let Some(at) = self.at(name) else { return "" };
        let (FieldKind::Enum(id), Some(number)) = (self.message.fields[at].kind, self.object.enum_number(at)) else {
            return "";
        };
        self.tables.enums[id].value(number).map_or("", |value| &value.token)
    }
}

/// The object without values that say no more than their absence.
pub(super) fn plain(tables: &Tables, kind: Kind, object: &Object) -> Result<Object> {
    let message = kind.message(tables);
    let mut bytes = Vec::new();
    json::write(tables, message, object, &mut bytes);
    Ok(json::read(tables, message, &bytes, JsonRules { drop_zero: true, only_v2: true })?.object)
}

/// Refuses what the schema cannot, and fills in what the rest builds on.
pub(super) fn complete(tables: &Tables, kind: Kind, object: &mut Object) -> Result<()> {
    let id = kind.message(tables);
    let message = &tables.messages[id];
    let fields = Fields::new(tables, id, object);
    if fields.word("health_check_policy") == "min" && fields.int("health_check_policy_min").unwrap_or(0) < 1 {
        let text = "health_check_policy_min: expected at least 1 with the health check policy min";
        return Err(Error::new(Reason::InvalidValue, text).with("field", "health_check_policy_min"));
    }
    let growth = match fields.word("server_slots_growth_type") {
        "" => kind.default_growth(),
        word => word,
    };
    let at_least = |name: &str| fields.int(name).unwrap_or(0).max(LEAST);
    let mut changes = vec![("server_slots_base", Value::Int(at_least("server_slots_base")))];
    if growth == "linear" {
        let step = "server_slots_growth_increment";
        changes.push((step, Value::Int(at_least(step))));
    }
    if let Some(at) = message.field_named("server_slots_growth_type")
        && let FieldKind::Enum(words) = message.fields[at].kind
        && let Some(number) = tables.enums[words].number(growth)
    {
        changes.push(("server_slots_growth_type", Value::Enum(number)));
    }
    for (name, value) in changes {
        if let Some(at) = message.field_named(name) {
            object.set(at, value);
        }
    }
    Ok(())
}

/// What the loop reads off a complete object.
pub(super) fn settings(tables: &Tables, kind: Kind, object: &Object) -> Settings {
    let fields = Fields::new(tables, kind.message(tables), object);
    let number = |name: &str| usize::try_from(fields.int(name).unwrap_or(0).max(LEAST)).unwrap_or(usize::MAX);
    let growth = match fields.word("server_slots_growth_type") {
        "exponential" => Growth::Exponential,
        _ => Growth::Linear(number("server_slots_growth_increment")),
    };
    let source = match kind {
        Kind::Consul => Source::Consul(consul::Agent::new(&fields)),
        Kind::Aws => Source::Aws(aws::Region::new(tables, &fields)),
    };
    Settings {
        enabled: fields.flag("enabled"),
        period: Duration::from_secs(fields.int("retry_timeout").unwrap_or(1).clamp(1, YEAR).unsigned_abs()),
        slots: Slots { base: number("server_slots_base"), growth },
        from: fields.some("defaults"),
        prefix: match &source {
            Source::Consul(agent) => agent.prefix(),
            Source::Aws(region) => region.prefix(),
        },
        source,
    }
}
