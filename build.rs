//! Compiles `proto/` without protoc, checks the schema, and leaves the descriptors in `OUT_DIR`.
//!
//! `schema.bin`: what the program needs at start. `reflection.bin`: the same with comments, for reflection and
//! documentation. `handles.rs`: constants for messages, fields and values of enums. A fault of the schema ends the build with its file and element.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "a build script ends by panicking"
)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};

#[allow(dead_code, unreachable_pub, reason = "only a part of the room is used here")]
#[path = "src/error.rs"]
mod error;
#[allow(dead_code, unused_imports, unreachable_pub, reason = "only a part of the room is used here")]
#[path = "src/schema/mod.rs"]
mod schema;

/// Root of the proto modules.
const PROTO: &str = "proto";

/// Files whose services work on objects of the configuration and so need no structs.
const ON_OBJECTS: [&str; 4] = ["runtime_server", "spoe_agent", "spoe_group", "spoe_message"];

/// Files of the configuration package that have hand-written services.
const HAND_WRITTEN: [&str; 3] = ["transaction", "raw_configuration", "reload"];

fn main() {
    println!("cargo::rerun-if-changed={PROTO}");
    println!("cargo::rerun-if-changed=src/schema");
    println!("cargo::rerun-if-changed=src/error.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    let mut files = Vec::new();
    proto_files(Path::new(PROTO), &mut files);
    files.sort();
    let mut compiler = protox::Compiler::new([PROTO]).unwrap_or_else(|e| fail(&e.to_string()));
    compiler.include_imports(true).include_source_info(true);
    if let Err(error) = compiler.open_files(&files) {
        fail(&format!("{error:?}"));
    }
    let full = with_v2_keys(&compiler.encode_file_descriptor_set());
    let slim = without_comments(&full);

    let compiled = schema::Schema::compile(&slim).unwrap_or_else(|faults| fail_all(&faults));

    structs(&full, &out);
    fs::write(out.join("handles.rs"), schema::handles::source(&compiled.tables)).expect("OUT_DIR is writable");
    fs::write(out.join("schema.bin"), &slim).expect("OUT_DIR is writable");
    fs::write(out.join("reflection.bin"), &full).expect("OUT_DIR is writable");
}

/// Rust structs for the messages that hand-written services handle. Configuration resources need none.
fn structs(encoded: &[u8], out: &Path) {
    let set = prost_types::FileDescriptorSet::decode(encoded).expect("protox made it");
    let is = |list: &[&str], name: &str| list.iter().any(|file| name.ends_with(&format!("/{file}.proto")));
    let by_hand = |package: &str, name: &str| {
        (package != "backstay.configuration.v2" || is(&HAND_WRITTEN, name)) && !is(&ON_OBJECTS, name)
    };
    let file = set
        .file
        .into_iter()
        .filter(|f| f.package().starts_with("backstay.") && f.package() != "backstay.type.v2")
        .filter(|f| by_hand(f.package(), f.name()))
        .collect();
    let mut config = prost_build::Config::new();
    config.out_dir(out).bytes(["."]);
    if let Err(error) = config.compile_fds(prost_types::FileDescriptorSet { file }) {
        fail(&error.to_string());
    }
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| fail(&format!("{}: {e}", folder.display()))) {
        let path = entry.expect("readable folder").path();
        if path.is_dir() {
            proto_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
}

/// Sets every JSON name to the key of /v2, so that tools which print by reflection show the same keys as REST.
fn with_v2_keys(encoded: &[u8]) -> Vec<u8> {
    change_files(encoded, |file| {
        for_each_message(file, &mut |message| {
            change_list(message, "field", &mut |field| {
                let name = text(field, "name");
                if text(field, "json_name") == lower_camel(&name) {
                    field.set_field_by_name("json_name", Value::String(name));
                }
            });
        });
    })
}

fn without_comments(encoded: &[u8]) -> Vec<u8> {
    change_files(encoded, |file| file.clear_field_by_name("source_code_info"))
}

/// Decodes a descriptor set with its extension data, changes each of our files, and encodes it again.
fn change_files(encoded: &[u8], mut change: impl FnMut(&mut DynamicMessage)) -> Vec<u8> {
    let pool = DescriptorPool::decode(encoded).expect("protox made it");
    let set = pool.get_message_by_name("google.protobuf.FileDescriptorSet").expect("options import it");
    let mut set = DynamicMessage::decode(set, encoded).expect("protox made it");
    change_list(&mut set, "file", &mut change);
    set.encode_to_vec()
}

fn for_each_message(parent: &mut DynamicMessage, change: &mut dyn FnMut(&mut DynamicMessage)) {
    let list = if parent.descriptor().name() == "FileDescriptorProto" { "message_type" } else { "nested_type" };
    change_list(parent, list, &mut |message| {
        change(message);
        for_each_message(message, change);
    });
}

fn change_list(parent: &mut DynamicMessage, name: &str, change: &mut dyn FnMut(&mut DynamicMessage)) {
    if let Some(Value::List(items)) = parent.get_field_by_name_mut(name) {
        for item in items {
            if let Value::Message(message) = item {
                change(message);
            }
        }
    }
}

fn text(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The JSON name that protobuf derives from a field name.
fn lower_camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut out, part| {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
        out
    })
}

fn fail_all<T: std::fmt::Display>(faults: &[T]) -> ! {
    let lines: Vec<_> = faults.iter().map(|f| format!("  {f}")).collect();
    fail(&lines.join("\n"))
}

fn fail(text: &str) -> ! {
    eprintln!("error: the schema does not compile\n{text}");
    std::process::exit(1)
}
