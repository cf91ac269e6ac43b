use super::*;
use crate::schema::comments::comments;
use crate::schema::sample;

fn made(dialect: Dialect) -> Json {
    let comments = comments(include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin")));
    document(&sample::schema(), &comments, dialect, "1.2.3")
}

/// Every `$ref` of a document.
fn references<'a>(json: &'a Json, out: &mut Vec<&'a str>) {
    match json {
        Json::Object(map) => {
            out.extend(map.get("$ref").and_then(Json::as_str));
            map.values().for_each(|value| references(value, out));
        }
        Json::Array(list) => list.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

fn parameter<'a>(operation: &'a Json, name: &str) -> &'a Json {
    let list = operation["parameters"].as_array().unwrap();
    list.iter().find(|parameter| parameter["name"] == name).unwrap()
}

#[test]
fn all_bindings_are_described_and_all_references_lead_somewhere() {
    let tables = sample::schema();
    let bindings: usize = tables.methods.iter().map(|method| method.http.len()).sum();
    for dialect in [Dialect::OpenApi3, Dialect::Swagger2] {
        let doc = made(dialect);
        let paths = doc["paths"].as_object().unwrap();
        let operations: Vec<&Json> = paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        assert_eq!(operations.len(), bindings);
        let ids: HashSet<&str> = operations.iter().filter_map(|op| op["operationId"].as_str()).collect();
        assert_eq!(ids.len(), bindings);
        let mut found = Vec::new();
        references(&doc, &mut found);
        assert!(found.len() > bindings);
        for reference in found {
            assert!(doc.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
}

#[test]
fn an_operation_says_what_the_schema_says() {
    let doc = made(Dialect::OpenApi3);
    let create = &doc["paths"]["/services/haproxy/configuration/acls"]["post"];
    assert_eq!(create["operationId"], "createAcl");
    assert_eq!(create["tags"], json!(["Acl"]));
    assert_eq!(create["summary"], "Creates an ACL");
    let parents = json!(["frontend", "backend", "fcgi-app", "defaults"]);
    assert_eq!(parameter(create, "parent_type")["schema"]["enum"], parents);
    assert_eq!(parameter(create, "version")["schema"]["type"], "integer");
    let acl = json!({"$ref": "#/components/schemas/Acl"});
    assert_eq!(create["requestBody"]["content"]["application/json"]["schema"], acl);
    assert_eq!(create["responses"]["202"]["content"]["application/json"]["schema"], acl);
    assert!(create["responses"]["202"]["headers"]["Reload-ID"].is_object());
    let conflict = create["responses"]["409"]["description"].as_str().unwrap();
    assert!(conflict.contains("`VERSION_MISMATCH`"), "{conflict}");
    assert!(create["parameters"].as_array().unwrap().iter().all(|parameter| parameter["name"] != "acl"));
    let get = &doc["paths"]["/services/haproxy/configuration/acls/{index}"]["get"];
    assert_eq!(parameter(get, "index")["in"], "path");
    assert_eq!(parameter(get, "index")["required"], true);
    let data = &get["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"];
    assert_eq!(*data, acl);
    let watch = &doc["paths"]["/services/backstay/stick_tables/{stick_table}/watch"]["get"];
    assert!(watch["responses"]["200"]["content"]["application/x-ndjson"].is_object());
    let upload = &doc["paths"]["/services/haproxy/storage/maps"]["post"];
    assert!(upload["requestBody"]["content"]["multipart/form-data"].is_object());
    let raw = &doc["paths"]["/services/haproxy/configuration/raw"]["post"];
    assert!(raw["requestBody"]["content"]["text/plain"].is_object());
}

#[test]
fn schemas_have_the_keys_of_rest_and_the_rules_of_the_check() {
    let doc = made(Dialect::OpenApi3);
    let server = &doc["components"]["schemas"]["Server"];
    let keys = server["properties"].as_object().unwrap();
    assert!(keys.contains_key("agent-check") && keys.contains_key("address") && !keys.contains_key("params"));
    assert_eq!(keys["agent-check"]["enum"], json!(["enabled", "disabled"]));
    assert_eq!((&keys["port"]["minimum"], &keys["port"]["maximum"]), (&json!(1), &json!(65535)));
    assert_eq!(server["required"], json!(["address", "name"]));
    assert!(keys["name"]["description"].is_string() && keys["name"]["pattern"].is_string());
    let backend = &doc["components"]["schemas"]["Backend"]["properties"];
    assert_eq!(backend["balance"]["allOf"], json!([{"$ref": "#/components/schemas/Balance"}]));
}

#[test]
fn swagger_puts_bodies_and_types_among_the_parameters() {
    let doc = made(Dialect::Swagger2);
    let create = &doc["paths"]["/services/haproxy/configuration/acls"]["post"];
    let body = parameter(create, "data");
    assert_eq!((&body["in"], &body["schema"]), (&json!("body"), &json!({"$ref": "#/definitions/Acl"})));
    assert_eq!(parameter(create, "force_reload")["type"], "boolean");
    let upload = &doc["paths"]["/services/haproxy/storage/maps"]["post"];
    assert_eq!(parameter(upload, UPLOAD)["type"], "file");
}
