//! What is searched, as an object of the schema, and what the search reads off it.

use std::time::Duration;

use super::aws;
use super::consul;
use super::slots::{Growth, LEAST, Slots};
use crate::error::{Error, Reason, Result};
use crate::proto::fields::discovery::{aws_region, consul as consul_field};
use crate::proto::messages::discovery as messages;
use crate::proto::values::discovery::{growth_type, health_check_policy};
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::{FieldIndex, MessageId, Tables};
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
    pub fn message(self) -> MessageId {
        match self {
            Kind::Consul => messages::CONSUL,
            Kind::Aws => messages::AWS_REGION,
        }
    }

    /// The fields that all kinds have.
    pub(super) fn common(self) -> &'static Common {
        match self {
            Kind::Consul => &OF_CONSUL,
            Kind::Aws => &OF_AWS,
        }
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

    /// The field that is never logged, and shown only where clients rely on it.
    pub fn secret(self) -> FieldIndex {
        match self {
            Kind::Consul => consul_field::TOKEN,
            Kind::Aws => aws_region::SECRET_ACCESS_KEY,
        }
    }

    fn default_growth(self) -> i32 {
        match self {
            Kind::Consul => growth_type::LINEAR,
            Kind::Aws => growth_type::EXPONENTIAL,
        }
    }
}

/// Fields that the messages of all kinds have.
pub(super) struct Common {
    pub(super) id: FieldIndex,
    enabled: FieldIndex,
    retry_timeout: FieldIndex,
    /// The section that new backends start from, where it can be chosen.
    defaults: Option<FieldIndex>,
    slots_base: FieldIndex,
    slots_growth_increment: FieldIndex,
    slots_growth_type: FieldIndex,
}

const OF_CONSUL: Common = Common {
    id: consul_field::ID,
    enabled: consul_field::ENABLED,
    retry_timeout: consul_field::RETRY_TIMEOUT,
    defaults: Some(consul_field::DEFAULTS),
    slots_base: consul_field::SERVER_SLOTS_BASE,
    slots_growth_increment: consul_field::SERVER_SLOTS_GROWTH_INCREMENT,
    slots_growth_type: consul_field::SERVER_SLOTS_GROWTH_TYPE,
};

const OF_AWS: Common = Common {
    id: aws_region::ID,
    enabled: aws_region::ENABLED,
    retry_timeout: aws_region::RETRY_TIMEOUT,
    defaults: None,
    slots_base: aws_region::SERVER_SLOTS_BASE,
    slots_growth_increment: aws_region::SERVER_SLOTS_GROWTH_INCREMENT,
    slots_growth_type: aws_region::SERVER_SLOTS_GROWTH_TYPE,
};

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

/// The values of an object as the loop takes them.
pub(super) struct Values<'a>(pub(super) &'a Object);

impl<'a> Values<'a> {
    /// A text, empty when absent.
    pub(super) fn text(&self, field: FieldIndex) -> &'a str {
        self.0.str(field).unwrap_or_default()
    }

    /// A text that is not empty.
    fn some(&self, field: FieldIndex) -> Option<String> {
        Some(self.text(field)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The texts of a list.
    pub(super) fn texts(&self, field: FieldIndex) -> Vec<String> {
        let text = |item: &Value| if let Value::Str(text) = item { Some(text.to_string()) } else { None };
        self.0.list(field).iter().filter_map(text).collect()
    }

    /// The objects of a list.
    pub(super) fn objects(&self, field: FieldIndex) -> impl Iterator<Item = Values<'a>> {
        let object = |item: &'a Value| if let Value::Object(object) = item { Some(Values(object)) } else { None };
        self.0.list(field).iter().filter_map(object)
    }

    /// A number.
    pub(super) fn int(&self, field: FieldIndex) -> Option<i64> {
        self.0.int(field)
    }

    /// Whether a flag is set.
    fn flag(&self, field: FieldIndex) -> bool {
        self.0.flag(field)
    }

    /// The number of an enum value.
    pub(super) fn word(&self, field: FieldIndex) -> Option<i32> {
        self.0.enum_number(field)
    }
}

/// The object without values that say no more than their absence.
pub(super) fn plain(tables: &Tables, kind: Kind, object: &Object) -> Result<Object> {
    let message = kind.message();
    let mut bytes = Vec::new();
    json::write(tables, message, object, &mut bytes);
    Ok(json::read(tables, message, &bytes, JsonRules { drop_zero: true, only_v2: true })?.object)
}

/// Refuses what the schema cannot, and fills in what the rest builds on.
pub(super) fn complete(kind: Kind, object: &mut Object) -> Result<()> {
    let (values, common) = (Values(object), kind.common());
    if kind == Kind::Consul
        && values.word(consul_field::HEALTH_CHECK_POLICY) == Some(health_check_policy::MIN)
        && values.int(consul_field::HEALTH_CHECK_POLICY_MIN).unwrap_or(0) < 1
    {
        let text = "health_check_policy_min: expected at least 1 with the health check policy min";
        return Err(Error::new(Reason::InvalidValue, text).with("field", "health_check_policy_min"));
    }
    let growth = values.word(common.slots_growth_type).unwrap_or_else(|| kind.default_growth());
    let at_least = |field: FieldIndex| Value::Int(values.int(field).unwrap_or(0).max(LEAST));
    let mut changes = vec![(common.slots_base, at_least(common.slots_base))];
    if growth == growth_type::LINEAR {
        changes.push((common.slots_growth_increment, at_least(common.slots_growth_increment)));
    }
    changes.push((common.slots_growth_type, Value::Enum(growth)));
    for (field, value) in changes {
        object.set(field, value);
    }
    Ok(())
}

/// What the loop reads off a complete object.
pub(super) fn settings(kind: Kind, object: &Object) -> Settings {
    let (values, common) = (Values(object), kind.common());
    let number = |field: FieldIndex| usize::try_from(values.int(field).unwrap_or(0).max(LEAST)).unwrap_or(usize::MAX);
    let growth = match values.word(common.slots_growth_type) {
        Some(growth_type::EXPONENTIAL) => Growth::Exponential,
        _ => Growth::Linear(number(common.slots_growth_increment)),
    };
    let source = match kind {
        Kind::Consul => Source::Consul(consul::Agent::new(&values)),
        Kind::Aws => Source::Aws(aws::Region::new(&values)),
    };
    Settings {
        enabled: values.flag(common.enabled),
        period: Duration::from_secs(values.int(common.retry_timeout).unwrap_or(1).clamp(1, YEAR).unsigned_abs()),
        slots: Slots { base: number(common.slots_base), growth },
        from: common.defaults.and_then(|field| values.some(field)),
        prefix: match &source {
            Source::Consul(agent) => agent.prefix(),
            Source::Aws(region) => region.prefix(),
        },
        source,
    }
}
