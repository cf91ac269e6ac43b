use super::*;
use crate::schema::tables::{Check, EnumType};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor};
use std::sync::LazyLock;

const PROTO: &str = r#"
syntax = "proto3";
package sample;
enum Mode { MODE_UNSPECIFIED = 0; MODE_TCP = 1; MODE_HTTP = 2; MODE_ODD = -7; }
message Leaf {
  optional string name = 1;
  int32 plain = 2;
  optional int64 wide = 200;
  repeated string words = 4;
}
message Tree {
  string title = 3;
  optional bool flag = 1;
  bool bare = 2;
  optional int32 small = 20;
  int64 wide = 5;
  double ratio = 6;
  optional double maybe = 7;
  optional string text = 8;
  bytes raw = 9;
  optional Mode mode = 10;
  repeated Mode modes = 11;
  repeated int32 numbers = 12;
  repeated double ratios = 13;
  repeated string words = 14;
  Leaf leaf = 15;
  repeated Leaf leaves = 16;
  Tree child = 17;
  repeated bool flags = 18;
  repeated int64 wides = 4;
  repeated bytes blobs = 19;
}
"#;

struct Sample;

impl protox::file::FileResolver for Sample {
    fn open_file(&self, name: &str) -> std::result::Result<protox::file::File, protox::Error> {
        protox::file::File::from_source(name, PROTO)
    }
}

struct Fixture {
    tables: Tables,
    tree: MessageId,
    descriptor: MessageDescriptor,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let mut compiler = protox::Compiler::with_file_resolver(Sample);
    compiler.open_file("sample.proto").unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(compiler.file_descriptor_set()).unwrap();
    let names: Vec<String> = pool.all_messages().map(|m| m.full_name().to_owned()).collect();
    let mut tables = Tables::default();
    tables.enums.push(EnumType::default());
    for message in pool.all_messages() {
        let mut table = MessageType { full_name: message.full_name().into(), ..MessageType::default() };
        for (at, field) in declared(&message).into_iter().enumerate() {
            table.by_number.insert(field.number(), at);
            table.fields.push(table_field(&names, &field));
        }
        tables.messages.push(table);
    }
    let tree = names.iter().position(|name| name == "sample.Tree").unwrap();
    let descriptor = pool.get_message_by_name("sample.Tree").unwrap();
    Fixture { tables, tree, descriptor }
});

/// Fields in order of declaration, which differs from the order of numbers on purpose.
fn declared(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let proto = message.descriptor_proto();
    proto.field.iter().map(|field| message.get_field_by_name(field.name()).unwrap()).collect()
}

fn table_field(messages: &[String], field: &FieldDescriptor) -> Field {
    use prost_reflect::Kind as K;
    let kind = match field.kind() {
        K::Bool => Kind::Bool,
        K::Int32 => Kind::Int32,
        K::Int64 => Kind::Int64,
        K::Double => Kind::Double,
        K::String => Kind::String,
        K::Bytes => Kind::Bytes,
        K::Enum(_) => Kind::Enum(0),
        K::Message(inner) => Kind::Message(messages.iter().position(|name| name == inner.full_name()).unwrap()),
        other => panic!("{other:?} is not used"),
    };
    Field {
        name: field.name().into(),
        json: field.name().into(),
        number: field.number(),
        kind,
        repeated: field.cardinality() == Cardinality::Repeated,
        presence: field.supports_presence(),
        template: None,
        print_only: false,
        no_line: false,
        implicit: false,
        numbers: Vec::new(),
        flatten: false,
        check: Check::default(),
        since: None,
        removed: None,
        grpc_only: false,
        shown_as: None,
        not_in: Vec::new(),
        adds: false,
        word: false,
        earlier_of: None,
        instead_of: None,
    }
}

fn value_of(kind: Kind, depth: u32) -> BoxedStrategy<Value> {
    match kind {
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::Int32 => any::<i32>().prop_map(|n| Value::Int(n.into())).boxed(),
        Kind::Int64 => prop_oneof![any::<i64>(), Just(0), 0..200_i64].prop_map(Value::Int).boxed(),
        Kind::Double => prop_oneof![-1e9..1e9_f64, Just(0.0), Just(f64::INFINITY)].prop_map(Value::Double).boxed(),
        Kind::String => "\\PC{0,9}".prop_map(|text| Value::Str(text.into())).boxed(),
        Kind::Bytes => proptest::collection::vec(any::<u8>(), 0..200).prop_map(|raw| Value::Bytes(raw.into())).boxed(),
        Kind::Enum(_) => (-9..9_i32).prop_map(Value::Enum).boxed(),
        Kind::Message(inner) => object_of(inner, depth).prop_map(Value::Object).boxed(),
    }
}

fn object_of(message: MessageId, depth: u32) -> BoxedStrategy<Object> {
    let table = &FIXTURE.tables.messages[message];
    let fields: Vec<BoxedStrategy<Option<Value>>> = table
        .fields
        .iter()
        .map(|field| {
            if depth == 0 && matches!(field.kind, Kind::Message(_)) {
                return Just(None).boxed();
            }
            let item = value_of(field.kind, depth.saturating_sub(1));
            if field.repeated {
                let list = proptest::collection::vec(item, 1..4).prop_map(Value::List);
                proptest::option::of(list).boxed()
            } else {
                let field = field.clone();
                proptest::option::of(item).prop_map(move |value| value.filter(|value| !is_unset(&field, value))).boxed()
            }
        })
        .collect();
    fields
        .prop_map(|values| {
            let mut object = Object::new();
            for (at, value) in values.into_iter().enumerate() {
                if let Some(value) = value {
                    object.set(at, value);
                }
            }
            object
        })
        .boxed()
}

fn ours(bytes: &[u8]) -> Result<Object> {
    decode(&FIXTURE.tables, FIXTURE.tree, bytes)
}

fn bytes_of(object: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&FIXTURE.tables, FIXTURE.tree, object, &mut out);
    out
}

fn dynamic(bytes: &[u8]) -> std::result::Result<DynamicMessage, prost::DecodeError> {
    DynamicMessage::decode(FIXTURE.descriptor.clone(), bytes)
}

/// A key and its payload, for messages that no encoder would write.
fn raw(number: u32, wire: WireType, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, wire, &mut out);
    out.extend_from_slice(payload);
    out
}

fn text(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_bytes(payload, &mut bytes);
    raw(number, WireType::LengthDelimited, &bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn both_directions_agree_with_a_descriptor_driven_codec(object in object_of(FIXTURE.tree, 3)) {
        let bytes = bytes_of(&object);
        let theirs = dynamic(&bytes).unwrap().encode_to_vec();
        prop_assert_eq!(&bytes, &theirs);
        prop_assert_eq!(ours(&theirs).unwrap(), object);
    }

    #[test]
    fn joined_messages_merge_alike(a in object_of(FIXTURE.tree, 2), b in object_of(FIXTURE.tree, 2)) {
        let joined = [bytes_of(&a), bytes_of(&b)].concat();
        let merged = ours(&joined).unwrap();
        prop_assert_eq!(bytes_of(&merged), dynamic(&joined).unwrap().encode_to_vec());
    }

    #[test]
    fn damaged_messages_are_refused_or_read_alike(
        object in object_of(FIXTURE.tree, 2),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&object);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1).max(at + 1));
        }
        if let (Ok(mine), Ok(theirs)) = (ours(&bytes), dynamic(&bytes)) {
            // As bytes: a damaged double may be NaN, which equals nothing.
            prop_assert_eq!(bytes_of(&mine), bytes_of(&ours(&theirs.encode_to_vec()).unwrap()));
        }
    }
}

#[test]
fn repeated_scalars_are_read_packed_and_unpacked() {
    let unpacked = [raw(12, WireType::Varint, &[1]), text(12, &[2, 3]), raw(12, WireType::Varint, &[4])].concat();
    let table = &FIXTURE.tables.messages[FIXTURE.tree];
    let numbers = ours(&unpacked).unwrap();
    assert_eq!(numbers.list(table.field_named("numbers").unwrap()), [1, 2, 3, 4].map(Value::Int));
    assert_eq!(bytes_of(&numbers), text(12, &[1, 2, 3, 4]));
}

#[test]
fn a_later_zero_without_presence_clears_and_with_presence_stays() {
    let clears = [raw(5, WireType::Varint, &[7]), raw(5, WireType::Varint, &[0])].concat();
    assert!(ours(&clears).unwrap().is_empty());
    let stays = raw(20, WireType::Varint, &[0]);
    let small = FIXTURE.tables.messages[FIXTURE.tree].field_named("small").unwrap();
    assert_eq!(ours(&stays).unwrap().int(small), Some(0));
}

#[test]
fn unspecified_enums_are_not_set_and_unknown_numbers_are_kept() {
    assert!(ours(&raw(10, WireType::Varint, &[0])).unwrap().is_empty());
    let mode = FIXTURE.tables.messages[FIXTURE.tree].field_named("mode").unwrap();
    assert_eq!(ours(&raw(10, WireType::Varint, &[99])).unwrap().enum_number(mode), Some(99));
}

#[test]
fn unknown_fields_and_groups_are_skipped() {
    let group = [raw(900, WireType::StartGroup, &[]), text(1, b"x"), raw(900, WireType::EndGroup, &[])].concat();
    let bytes = [text(901, b"abc"), group, raw(902, WireType::ThirtyTwoBit, &[0; 4]), text(3, b"kept")].concat();
    let title = FIXTURE.tables.messages[FIXTURE.tree].field_named("title").unwrap();
    assert_eq!(ours(&bytes).unwrap().str(title), Some("kept"));
}

#[test]
fn faults_name_the_field() {
    let error = ours(&text(17, &text(15, &text(1, b"\xff")))).unwrap_err();
    assert_eq!(error.reason(), Reason::MalformedRequest);
    assert_eq!(error.message(), "child.leaf.name: must be UTF-8");
    assert_eq!(error.violations()[0].field, "child.leaf.name");
    for bytes in [raw(1, WireType::LengthDelimited, &[9]), raw(6, WireType::Varint, &[1]), vec![0x80], vec![7]] {
        assert!(ours(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| text(17, &inner));
    assert!(ours(&nested(100)).is_ok());
    assert!(ours(&nested(101)).unwrap_err().message().ends_with("nested too deeply"));
}
