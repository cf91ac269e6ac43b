//! What is wrong with a schema is found when it is compiled, and named with its file and element.

use super::Schema;

const OPTIONS: &str = include_str!("../../proto/backstay/type/v2/options.proto");
const HTTP: &str = include_str!("../../proto/google/api/annotations.proto");

/// Faults of a schema with one file of ours, `backstay/x/v2/x.proto`.
fn faults(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let head = "syntax = \"proto3\";\npackage backstay.x.v2;\nimport \"backstay/type/v2/options.proto\";\n\
                import \"google/api/annotations.proto\";\n";
    let ours = format!("{head}{text}");
    for (name, text) in [
        ("backstay/type/v2/options.proto", OPTIONS),
        ("google/api/annotations.proto", HTTP),
        ("backstay/x/v2/x.proto", &ours),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
    compiler.include_imports(true);
    compiler.open_file("backstay/x/v2/x.proto").unwrap();
    Schema::compile(&compiler.encode_file_descriptor_set()).err().unwrap_or_default()
}

#[track_caller]
fn refuses(text: &str, element: &str, why: &str) {
    let faults = faults(text);
    let named = |fault: &&String| fault.contains("backstay/x/v2/x.proto") && fault.contains(element);
    let fault = faults.iter().find(named).unwrap_or_else(|| panic!("no fault names {element}: {faults:?}"));
    assert!(fault.contains(why), "{fault}");
}

fn line(template: &str, fields: &str) -> String {
    format!("message M {{ option (backstay.type.v2.message).line = \"{template}\"; {fields} }}")
}

#[test]
fn a_template_that_names_an_unknown_field() {
    refuses(&line("m {nothing}", "optional string a = 1;"), "backstay.x.v2.M", "nothing");
}

#[test]
fn an_ambiguous_template() {
    refuses(&line("m {a}{b}", "optional string a = 1; optional string b = 2;"), "backstay.x.v2.M", "A1");
}

#[test]
fn two_fields_of_a_section_that_read_the_same_line() {
    let section = "message S { option (backstay.type.v2.message) = {line: \"s {name}\" \
                   resource: {kind: RESOURCE_KIND_SECTION section: \"s\" identity: \"name\"}}; \
                   optional string name = 1; optional int64 a = 2 [(backstay.type.v2.field).line = \"k {}\"]; \
                   optional int64 b = 3 [(backstay.type.v2.field).line = \"k {}\"]; }";
    refuses(section, "backstay.x.v2.S", "A10");
}

#[test]
fn a_method_without_a_role() {
    refuses("message Q {} message A {} service S { rpc Do(Q) returns (A); }", "backstay.x.v2.S.Do", "has no verb");
}

const TWO: &str = "message Q {} message A {} service S {
    rpc One(Q) returns (A) { option (backstay.type.v2.method).verb = VERB_CUSTOM;
        option (google.api.http) = {get: \"/v2/x\"}; }
    rpc Two(Q) returns (A) { option (backstay.type.v2.method).verb = VERB_CUSTOM;
        option (google.api.http) = {get: \"/v2/x\"}; } }";

#[test]
fn a_rest_path_of_two_methods() {
    refuses(TWO, "/backstay.x.v2.S/Two", "belongs to /backstay.x.v2.S/One too");
}

#[test]
fn a_path_parameter_that_the_request_has_not() {
    refuses(&TWO.replacen("/v2/x", "/v2/x/{id}", 1), "backstay.x.v2.S.One", "`id`");
}

#[test]
fn generic_methods_without_a_resource() {
    refuses(
        "message Q {} message A {} service S { rpc ListAs(Q) returns (A) { \
         option (backstay.type.v2.method).verb = VERB_LIST; } }",
        "backstay.x.v2.S",
        "resource",
    );
}

#[test]
fn an_enum_value_without_a_token_and_a_bad_pattern() {
    refuses("enum E { E_UNSPECIFIED = 0; E_A = 1; }", "E_A", "token");
    refuses(
        "message M { optional string a = 1 [(backstay.type.v2.field).pattern = \"(\"]; }",
        "backstay.x.v2.M.a",
        "pattern",
    );
}

#[test]
fn a_value_that_goes_with_none_of_another_field() {
    let kinds = "enum Kind { KIND_UNSPECIFIED = 0; \
                 KIND_A = 1 [(backstay.type.v2.value) = {token: \"a\" goes_with: [\"other=c\"]}]; } \
                 enum Other { OTHER_UNSPECIFIED = 0; OTHER_B = 1 [(backstay.type.v2.value).token = \"b\"]; }";
    let message = line("m {kind} {other}", &format!("{kinds} optional Kind kind = 1; optional Other other = 2;"));
    let faults = faults(&message);
    assert!(faults.iter().any(|fault| fault.contains("names no value `c` of a field `other`")), "{faults:?}");
}
