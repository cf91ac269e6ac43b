//! What answers of /v2 show beyond, or less than, the objects of our own API, and what requests may repeat.
//!
//! Each row has its reason: it is what clients of /v2 find in the peer's answers.

use crate::schema::tables::{FieldIndex, Kind, MessageId, MessageType, Method, ResourceKind, Tables, Verb};
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
const SHOWN: [Row; 20] = [
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
];

/// Of these, what the answer to a write shows too: the others repeat what was sent.
const ECHOED: usize = SHOWN.len() - 1;

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

/// Says what a request implies.
fn imply(tables: &Tables, message: MessageId, object: &mut Object) {
    let table = &tables.messages[message];
    for (_, field, other, word) in IMPLIED.iter().filter(|row| row.0 == short(table)) {
        let (Some(field), Some(other)) = (table.field_named(field), table.field_named(other)) else { continue };
        if let (Some(_), None, Kind::Enum(id)) = (object.get(field), object.get(other), table.fields[other].kind)
            && let Some(number) = tables.enums[id].number(word)
        {
            object.set(other, Value::Enum(number));
        }
    }
    let set: Vec<FieldIndex> = object.iter().map(|(at, _)| at).collect();
    for at in set {
        if let (Kind::Message(inner), Some(Value::Object(part))) = (table.fields[at].kind, object.get_mut(at)) {
            imply(tables, inner, part);
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

    /// What the deprecated field shows.
    fn value(&self, tables: &Tables, table: &MessageType, object: &Object) -> Option<Value> {
        let (from, to) = self.names();
        let from = table.field_named(from)?;
        match self {
            First(..) => object.list(from).first().cloned(),
            Inner(_, inner, _) => {
                let Kind::Message(id) = table.fields[from].kind else { return None };
                object.object(from)?.get(tables.messages[id].field_named(inner)?).cloned()
            }
            Enabled(_, word, _) => {
                let Kind::Enum(toggle) = table.fields[table.field_named(to)?].kind else { return None };
                (token(tables, table, from, object)? == *word)
                    .then(|| tables.enums[toggle].number("enabled").map(Value::Enum))
                    .flatten()
            }
        }
    }
}

/// The word in an enum field.
fn token<'t>(tables: &'t Tables, table: &MessageType, field: FieldIndex, object: &Object) -> Option<&'t str> {
    let Kind::Enum(id) = table.fields[field].kind else { return None };
    Some(&tables.enums[id].value(object.enum_number(field)?)?.token)
}

fn short(table: &MessageType) -> &str {
    table.full_name.rsplit('.').next().unwrap_or_default()
}

/// Makes a request what our own API would be sent: says what it implies, and takes deprecated fields out whose successors
/// are set. Returns these for the answer.
pub fn normalize(tables: &Tables, method: &Method, request: &mut Object) -> Vec<(FieldIndex, Value)> {
    let Some((resource, body)) = place(tables, method, method.input) else { return Vec::new() };
    let table = &tables.messages[resource];
    let Some(Value::Object(object)) = request.get_mut(body) else { return Vec::new() };
    imply(tables, resource, object);
    let mut taken = Vec::new();
    for (_, mirror) in MIRRORS.iter().filter(|(message, _)| *message == short(table)) {
        let (from, to) = mirror.names();
        let (Some(from), Some(to)) = (table.field_named(from), table.field_named(to)) else { continue };
        match mirror {
            // Becomes the list, or gives way to it; the answer shows the list alone.
            First(..) => {
                if let Some(value) = object.take(to)
                    && object.get(from).is_none()
                {
                    object.push(from, value);
                }
            }
            Enabled(..) if object.get(from).is_none() => {}
            Inner(..) if mirror.value(tables, table, object).is_none() => {}
            Enabled(..) | Inner(..) => taken.extend(object.take(to).map(|value| (to, value))),
        }
    }
    taken
}

/// The resource of a method and the field of a message that holds it.
fn place(tables: &Tables, method: &Method, message: MessageId) -> Option<(MessageId, FieldIndex)> {
    let resource = method.resource?;
    let holds = |kind: Kind| kind == Kind::Message(resource);
    Some((resource, tables.messages[message].fields.iter().position(|field| holds(field.kind))?))
}

/// Makes an answer what a client of /v2 expects. `sent` are fields that the request held and the answer has to repeat.
pub fn show(tables: &Tables, method: &Method, sent: Vec<(FieldIndex, Value)>, answer: &mut Object) {
    let Some((resource, field)) = place(tables, method, method.output) else { return };
    let table = &tables.messages[resource];
    let reading = matches!(method.verb, Verb::List | Verb::Get);
    let view = View {
        tables,
        table,
        mirrors: MIRRORS.iter().filter(|row| reading && row.0 == short(table)).map(|row| &row.1).collect(),
        // The one section that is shown without its name.
        nameless: reading
            && method.singleton
            && table.resource.as_ref().is_some_and(|rules| rules.kind == ResourceKind::Section),
    };
    let show = |object: &mut Object| {
        if reading {
            view.object(object);
            dress(tables, resource, object);
        } else {
            fill(tables, table, &SHOWN[ECHOED..], object);
        }
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

struct View<'a> {
    tables: &'a Tables,
    table: &'a MessageType,
    mirrors: Vec<&'a Mirror>,
    nameless: bool,
}

impl View<'_> {
    fn object(&self, object: &mut Object) {
        if self.nameless
            && let Some(name) = self.table.field_named("name")
        {
            object.take(name);
        }
        for mirror in &self.mirrors {
            let to = self.table.field_named(mirror.names().1).filter(|to| object.get(*to).is_none());
            if let (Some(to), Some(value)) = (to, mirror.value(self.tables, self.table, object)) {
                object.set(to, value);
            }
        }
    }
}

/// Shows absent fields.
fn fill(tables: &Tables, table: &MessageType, rows: &[Row], object: &mut Object) {
    for (_, name, when, filler) in rows.iter().filter(|row| row.0 == short(table)) {
        let Some(field) = table.field_named(name).filter(|field| object.get(*field).is_none()) else { continue };
        let holds = match when {
            Always => true,
            Without(name) => table.field_named(name).is_none_or(|field| object.get(field).is_none()),
            Is(name, words) => table
                .field_named(name)
                .and_then(|field| token(tables, table, field, object))
                .is_some_and(|word| words.contains(&word)),
        };
        if holds {
            let value = match filler {
                Filler::Object => {
                    let mut inner = Object::new();
                    if let Kind::Message(id) = table.fields[field].kind {
                        fill(tables, &tables.messages[id], rows, &mut inner);
                    }
                    Value::Object(inner)
                }
                Text => Value::Str("".into()),
                Zero => Value::Int(0),
                True => Value::Bool(true),
            };
            object.set(field, value);
        }
    }
}

/// Zero, `false` and empty texts of fields that are not nullable are not shown, as they count as absent when written;
/// others are shown although they are absent.
fn dress(tables: &Tables, message: MessageId, object: &mut Object) {
    let table = &tables.messages[message];
    object.retain(|at, value| {
        let field = &table.fields[at];
        match (field.kind, value) {
            (Kind::Message(inner), Value::Object(object)) => dress(tables, inner, object),
            (Kind::Message(inner), Value::List(items)) => items.iter_mut().for_each(|item| {
                if let Value::Object(object) = item {
                    dress(tables, inner, object);
                }
            }),
            (_, Value::Int(0) | Value::Bool(false)) => return field.check.nullable,
            (_, Value::Str(text)) if text.is_empty() => return field.check.nullable,
            _ => {}
        }
        true
    });
    fill(tables, table, &SHOWN, object);
}
