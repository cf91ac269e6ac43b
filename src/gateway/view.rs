//! What answers of /v2 show beyond, or less than, the objects of our own API, and what requests may repeat.
//!
//! Each row has its reason: it is what clients of /v2 find in the peer's answers.

use std::sync::Arc;

use crate::schema::tables::{FieldIndex, Kind, MessageId, MessageType, Method, Resource, ResourceKind, Tables, Verb};
use crate::schema::value::{Object, Value};

/// When a row counts.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// A field has one of these words.
    Is(&'static str, &'static [&'static str]),
    /// A field is absent.
    Without(&'static str),
}

/// What an absent field is shown as.
#[derive(Clone, Copy)]
enum Filler {
    Object,
    Text,
    Zero,
    True,
}

use Filler::{Text, True, Zero};
use When::{Always, Is, Without};

/// A field that is shown although it is absent: message, field, when, as what.
type Row = (&'static str, &'static str, When, Filler);

/// All such fields, in messages inside others too.
const SHOWN: [Row; 21] = [
    // Groups of settings that the peer's answer always holds.
    ("Global", "device_atlas_options", Always, Filler::Object),
    ("Global", "fifty_one_degrees_options", Always, Filler::Object),
    ("Global", "tune_options", Always, Filler::Object),
    ("Global", "wurfl_options", Always, Filler::Object),
    // The parameters of the health check that is chosen.
    ("Backend", "httpchk_params", Is("adv_check", &["httpchk"]), Filler::Object),
    ("Backend", "mysql_check_params", Is("adv_check", &["mysql-check"]), Filler::Object),
    ("Backend", "smtpchk_params", Is("adv_check", &["smtpchk"]), Filler::Object),
    ("Defaults", "httpchk_params", Is("adv_check", &["httpchk"]), Filler::Object),
    ("Defaults", "mysql_check_params", Is("adv_check", &["mysql-check"]), Filler::Object),
    ("Defaults", "smtpchk_params", Is("adv_check", &["smtpchk"]), Filler::Object),
    // Required by the model, so never left out, whatever the line says.
    ("FcgiApp", "docroot", Always, Text),
    ("SpoeEvent", "name", Always, Text),
    ("SpoeMessage", "event", Always, Filler::Object),
    ("SslEngine", "algorithms", Always, Text),
    ("ServerTemplate", "port", Always, Zero),
    // A user without a password is shown as one whose empty password is encrypted.
    ("User", "secure_password", Without("password"), True),
    ("User", "password", Always, Text),
    // Whatever may carry a content, its type is shown.
    ("HttpErrorRule", "return_content_type", Always, Text),
    ("HttpResponseRule", "return_content_type", Is("type", &["deny", "return"]), Text),
    // Shown after a write too, see `ECHOED`.
    ("Global", "wurfl_options", Always, Filler::Object),
    ("Server", "address", Always, Text),
];

/// Of these, what the answer to a write shows too: the others repeat what was sent.
const ECHOED: usize = SHOWN.len() - 2;

/// A deprecated field that repeats another one.
enum Mirror {
    /// The first item of a list.
    First(&'static str, &'static str),
    /// Enabled while a field has a word.
    Enabled(&'static str, &'static str, &'static str),
    /// A field of another message.
    Inner(&'static str, &'static str, &'static str),
}

use Mirror::{Enabled, First, Inner};

/// Deprecated fields that show what their successors say. When written, the successor counts.
const MIRRORS: [(&str, Mirror); 6] = [
    ("Backend", First("force_persist_list", "force_persist")),
    ("Backend", First("ignore_persist_list", "ignore_persist")),
    ("Backend", Enabled("http_connection_mode", "httpclose", "httpclose")),
    ("Backend", Enabled("http_connection_mode", "http-server-close", "http_server_close")),
    ("Backend", Enabled("http_connection_mode", "http-keep-alive", "http_keep_alive")),
    ("Global", Inner("tune_options", "ssl_default_dh_param", "tune_ssl_default_dh_param")),
];

/// Words that a request may leave out, as a field that only they use says them: message, field, other field, word.
const IMPLIED: [(&str, &str, &str, &str); 1] = [("Source", "address_second", "usesrc", "address")];

/// Texts that count as absent when they are empty, though they may be null: message and field. They are shown so, and sent
/// back; the answer repeats them.
const EMPTY: [(&str, &str); 3] = [
    ("HttpErrorRule", "return_content_type"),
    ("HttpRequestRule", "return_content_type"),
    ("HttpResponseRule", "return_content_type"),
];

/// The rows of one message, with its fields by their numbers: answers are long, and nothing is looked for by name in them.
#[derive(Default)]
struct Rules {
    shown: Vec<Shown>,
    /// How many of them the answer to a write shows too, from the last one on.
    echoed: usize,
    mirrors: Vec<Copied>,
    implied: Vec<Implied>,
    empty: Vec<FieldIndex>,
    name: Option<FieldIndex>,
}

struct Shown {
    field: FieldIndex,
    when: Condition,
    filler: Filler,
}

enum Condition {
    Always,
    /// The enum has one of these numbers.
    Is(FieldIndex, Vec<i32>),
    Without(FieldIndex),
}

/// A deprecated field and its successor.
struct Copied {
    to: FieldIndex,
    from: FieldIndex,
    how: How,
}

enum How {
    First,
    /// While the successor has the first number, the deprecated field has the second.
    Enabled(i32, i32),
    Inner(FieldIndex),
}

/// Where the first field is set and the other one is not, the other one has this number.
struct Implied {
    field: FieldIndex,
    other: FieldIndex,
    number: i32,
}

/// The number of a word of an enum field.
fn number(tables: &Tables, table: &MessageType, field: FieldIndex, word: &str) -> Option<i32> {
    let Kind::Enum(id) = table.fields[field].kind else { return None };
    tables.enums[id].number(word)
}

impl Rules {
    fn of(tables: &Tables, table: &MessageType) -> Rules {
        let short = table.full_name.rsplit('.').next().unwrap_or_default();
        let condition = |when: &When| match when {
            Always => Some(Condition::Always),
            Without(name) => Some(table.field_named(name).map_or(Condition::Always, Condition::Without)),
            Is(name, words) => {
                let field = table.field_named(name)?;
                let numbers = words.iter().filter_map(|word| number(tables, table, field, word));
                Some(Condition::Is(field, numbers.collect()))
            }
        };
        let shown = |(_, name, when, filler): &Row| {
            Some(Shown { field: table.field_named(name)?, when: condition(when)?, filler: *filler })
        };
        let rows = |rows: &'static [Row]| rows.iter().filter(move |row| row.0 == short).filter_map(shown);
        let copied = |mirror: &Mirror| {
            let (from, to) = mirror.names();
            let (from, to) = (table.field_named(from)?, table.field_named(to)?);
            let how = match mirror {
                First(..) => How::First,
                Enabled(_, word, _) => {
                    How::Enabled(number(tables, table, from, word)?, number(tables, table, to, "enabled")?)
                }
                Inner(_, inner, _) => match table.fields[from].kind {
                    Kind::Message(id) => How::Inner(tables.messages[id].field_named(inner)?),
                    _ => return None,
                },
            };
            Some(Copied { to, from, how })
        };
        let implied = |(_, field, other, word): &(&str, &str, &str, &str)| {
            let (field, other) = (table.field_named(field)?, table.field_named(other)?);
            Some(Implied { field, other, number: number(tables, table, other, word)? })
        };
        Rules {
            shown: rows(&SHOWN).collect(),
            echoed: rows(&SHOWN[ECHOED..]).count(),
            mirrors: MIRRORS.iter().filter(|row| row.0 == short).filter_map(|row| copied(&row.1)).collect(),
            implied: IMPLIED.iter().filter(|row| row.0 == short).filter_map(implied).collect(),
            empty: EMPTY.iter().filter(|row| row.0 == short).filter_map(|row| table.field_named(row.1)).collect(),
            name: table.field_named("name"),
        }
    }
}

impl Mirror {
    /// The successor and the deprecated field.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            First(from, to) | Enabled(from, _, to) | Inner(from, _, to) => (from, to),
        }
    }
}

impl Copied {
    /// What the deprecated field shows.
    fn value(&self, object: &Object) -> Option<Value> {
        match self.how {
            How::First => object.list(self.from).first().cloned(),
            How::Inner(inner) => object.object(self.from)?.get(inner).cloned(),
            How::Enabled(word, enabled) => (object.enum_number(self.from)? == word).then_some(Value::Enum(enabled)),
        }
    }
}

impl Condition {
    fn holds(&self, object: &Object) -> bool {
        match self {
            Condition::Always => true,
            Condition::Without(field) => object.get(*field).is_none(),
            Condition::Is(field, numbers) => object.enum_number(*field).is_some_and(|number| numbers.contains(&number)),
        }
    }
}

/// All rows, by message.
pub struct Views {
    tables: Arc<Tables>,
    messages: Vec<Rules>,
}

impl Views {
    /// Finds the fields that rows are about.
    pub fn new(tables: &Arc<Tables>) -> Self {
        let messages = tables.messages.iter().map(|table| Rules::of(tables, table)).collect();
        Views { tables: Arc::clone(tables), messages }
    }

    /// Says what a request implies.
    fn imply(&self, message: MessageId, object: &mut Object) {
        let table = &self.tables.messages[message];
        for Implied { field, other, number } in &self.messages[message].implied {
            if object.get(*field).is_some() && object.get(*other).is_none() {
                object.set(*other, Value::Enum(*number));
            }
        }
        let set: Vec<FieldIndex> = object.iter().map(|(at, _)| at).collect();
        for at in set {
            if let (Kind::Message(inner), Some(Value::Object(part))) = (table.fields[at].kind, object.get_mut(at)) {
                self.imply(inner, part);
            }
        }
    }

    /// Makes a request what our own API would be sent: says what it implies, and takes out empty texts that count as absent
    /// and deprecated fields whose successors are set. Returns these for the answer.
    pub fn normalize(&self, method: &Method, request: &mut Object) -> Vec<(FieldIndex, Value)> {
        let Some((resource, body)) = self.place(method, method.input) else { return Vec::new() };
        let Some(Value::Object(object)) = request.get_mut(body) else { return Vec::new() };
        self.imply(resource, object);
        let mut taken = Vec::new();
        for field in &self.messages[resource].empty {
            if object.str(*field) == Some("") {
                taken.extend(object.take(*field).map(|value| (*field, value)));
            }
        }
        for copied in &self.messages[resource].mirrors {
            let Copied { to, from, how } = copied;
            match how {
                // Becomes the list, or gives way to it. The peer shows the list alone; who replaces what a GET has shown
                // finds in the answer what the next GET shows.
                How::First => {
                    let Some(value) = object.take(*to) else { continue };
                    if object.get(*from).is_none() {
                        object.push(*from, value);
                    }
                    if method.verb == Verb::Replace {
                        taken.extend(copied.value(object).map(|value| (*to, value)));
                    }
                }
                How::Enabled(..) if object.get(*from).is_none() => {}
                How::Inner(..) if copied.value(object).is_none() => {}
                How::Enabled(..) | How::Inner(..) => taken.extend(object.take(*to).map(|value| (*to, value))),
            }
        }
        taken
    }

    /// The resource of a method and the field of a message that holds it.
    fn place(&self, method: &Method, message: MessageId) -> Option<(MessageId, FieldIndex)> {
        let resource = method.resource?;
        let holds = |kind: Kind| kind == Kind::Message(resource);
        Some((resource, self.tables.messages[message].fields.iter().position(|field| holds(field.kind))?))
    }

    /// Makes an answer what a client of /v2 expects. `sent` are fields that the request held and the answer has to repeat.
    pub fn show(&self, method: &Method, sent: Vec<(FieldIndex, Value)>, answer: &mut Object) {
        let Some((resource, field)) = self.place(method, method.output) else { return };
        let rules = &self.messages[resource];
        let reading = matches!(method.verb, Verb::List | Verb::Get);
        let section = |rules: &Resource| rules.kind == ResourceKind::Section;
        // The one section that is shown without its name.
        let nameless = method.singleton && self.tables.messages[resource].resource.as_ref().is_some_and(section);
        let show = |object: &mut Object| {
            if !reading {
                self.fill(resource, false, object);
                return;
            }
            if let Some(name) = rules.name.filter(|_| nameless) {
                object.take(name);
            }
            for mirror in &rules.mirrors {
                if object.get(mirror.to).is_none()
                    && let Some(value) = mirror.value(object)
                {
                    object.set(mirror.to, value);
                }
            }
            self.dress(resource, object);
        };
        match answer.get_mut(field) {
            Some(Value::Object(object)) => {
                for (field, value) in sent {
                    object.set(field, value);
                }
                show(object);
            }
            Some(Value::List(items)) => items.iter_mut().for_each(|item| {
                if let Value::Object(object) = item {
                    show(object);
                }
            }),
            _ => {}
        }
    }

    /// Shows absent fields, all of them or those that a write shows too.
    fn fill(&self, message: MessageId, all: bool, object: &mut Object) {
        let Rules { shown, echoed, .. } = &self.messages[message];
        let from = if all { 0 } else { shown.len() - echoed };
        for Shown { field, when, filler } in &shown[from..] {
            if object.get(*field).is_some() || !when.holds(object) {
                continue;
            }
            let value = match filler {
                Filler::Object => {
                    let mut inner = Object::new();
                    if let Kind::Message(id) = self.tables.messages[message].fields[*field].kind {
                        self.fill(id, all, &mut inner);
                    }
                    Value::Object(inner)
                }
                Text => Value::Str("".into()),
                Zero => Value::Int(0),
                True => Value::Bool(true),
            };
            object.set(*field, value);
        }
    }

    /// Zero, `false` and empty texts of fields that are not nullable are not shown, as they count as absent when written;
    /// others are shown although they are absent.
    fn dress(&self, message: MessageId, object: &mut Object) {
        let table = &self.tables.messages[message];
        object.retain(|at, value| {
            let field = &table.fields[at];
            match (field.kind, value) {
                (Kind::Message(inner), Value::Object(object)) => self.dress(inner, object),
                (Kind::Message(inner), Value::List(items)) => items.iter_mut().for_each(|item| {
                    if let Value::Object(object) = item {
                        self.dress(inner, object);
                    }
                }),
                (_, Value::Int(0) | Value::Bool(false)) => return field.check.nullable,
                (_, Value::Str(text)) if text.is_empty() => return field.check.nullable,
                _ => {}
            }
            true
        });
        self.fill(message, true, object);
    }
}
