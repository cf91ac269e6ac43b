use std::sync::Arc;

use super::*;
use crate::schema::Schema;
use crate::schema::json::{self, JsonRules};

const FILE: &str = "frontend n1\n  mode http\n  # kept\n  bind 127.0.0.1:8443 name l1 # mine\n  timeout client 5s\n  use_backend %[req.hdr(host)]\n  use_backend farm2 if { path /x }\n  default_backend farm1\n\nbackend farm1\n  mode http\n  fullconn 7\n  server s1 127.0.0.1:80 odd # one\n\nbackend farm2\n\nbackend other\n\nfrontend n2\n  default_backend farm2\n";

struct Case {
    engine: Engine,
    site: MessageId,
    document: Document,
}

impl Case {
    fn new(text: &str) -> Case {
        let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap())).for_v2();
        let site = engine.schema.tables.message_by_name["backstay.configuration.v2.Site"];
        Case { engine, site, document: Document::parse(text.as_bytes()) }
    }

    fn object(&self, text: &str) -> Object {
        let rules = JsonRules { drop_zero: true, only_v2: true };
        json::read(&self.engine.schema.tables, self.site, text.as_bytes(), rules).unwrap().object
    }

    fn get(&self, name: &str) -> String {
        let key = Key::Name(name.to_owned());
        let object = self.engine.get(&self.document, self.site, &Place::default(), &key).unwrap();
        let mut out = Vec::new();
        json::write(&self.engine.schema.tables, self.site, &object, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn create(&mut self, text: &str) -> Result<()> {
        let object = self.object(text);
        self.document = self.engine.create(&self.document, self.site, &Place::default(), &object)?.document;
        Ok(())
    }

    fn replace(&mut self, name: &str, text: &str) -> Result<()> {
        let object = self.object(text);
        let key = Key::Name(name.to_owned());
        self.document = self.engine.replace(&self.document, self.site, &Place::default(), &key, &object)?.document;
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8(self.document.to_bytes()).unwrap()
    }
}

const N1: &str = r#"{"farms":[{"mode":"http","name":"farm1","servers":[{"address":"127.0.0.1","name":"s1","port":80}],"use_as":"default"},{"cond":"if","cond_test":"{ path /x }","name":"farm2","use_as":"conditional"}],"name":"n1","service":{"listeners":[{"name":"l1","address":"127.0.0.1","port":8443}],"mode":"http"}}"#;

#[test]
fn a_site_is_a_frontend_with_all_that_it_leads_to() {
    let case = Case::new(FILE);
    assert_eq!(case.get("n1"), N1);
    assert_eq!(case.get("n2"), r#"{"farms":[{"name":"farm2","use_as":"default"}],"name":"n2","service":{}}"#);
    let list = case.engine.list(&case.document, case.site, &Place::default()).unwrap();
    assert_eq!(list.len(), 2);
}

#[test]
fn a_site_that_is_put_back_changes_no_byte() {
    let mut case = Case::new(FILE);
    case.replace("n1", N1).unwrap();
    assert_eq!(case.text(), FILE);
}

#[test]
fn replacing_a_site_touches_what_it_says_and_removes_farms_that_nobody_uses() {
    let mut case = Case::new(FILE);
    case.replace(
        "n1",
        r#"{"name":"n1","service":{"mode":"tcp","maxconn":9,"listeners":[{"name":"l1","address":"127.0.0.1","port":8443},{"name":"l2","address":"127.0.0.1","port":1}]},
            "farms":[{"name":"new","use_as":"conditional","cond":"unless","cond_test":"TRUE","mode":"tcp","balance":{"algorithm":"source"},"servers":[{"name":"a","address":"::1","port":5}]}]}"#,
    )
    .unwrap();
    assert_eq!(
        case.text(),
        "frontend n1\n  mode tcp\n  # kept\n  bind 127.0.0.1:8443 name l1 # mine\n  bind 127.0.0.1:1 name l2\n  timeout client 5s\n  use_backend %[req.hdr(host)]\n  use_backend new unless TRUE\n  maxconn 9\n\nbackend farm2\n\nbackend other\n\nbackend new\n  balance source\n  mode tcp\n  server a [::1]:5\n\nfrontend n2\n  default_backend farm2\n"
    );
}

#[test]
fn sites_are_created_and_deleted_whole() {
    let mut case = Case::new("global\n  daemon\n");
    let full = r#"{"name":"n1","service":{"mode":"http","listeners":[{"name":"l1","address":"127.0.0.1","port":8443}]},
        "farms":[{"name":"farm1","use_as":"default","mode":"http","servers":[{"name":"s1","address":"127.0.0.1","port":80}]}]}"#;
    case.create(full).unwrap();
    assert_eq!(
        case.text(),
        "global\n  daemon\n\nfrontend n1\n  default_backend farm1\n  mode http\n  bind 127.0.0.1:8443 name l1\n\nbackend farm1\n  mode http\n  server s1 127.0.0.1:80\n"
    );
    let error = case.create(full).unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectExists);
    let delete = |case: &Case, name: &str| {
        case.engine.delete(&case.document, case.site, &Place::default(), &Key::Name(name.to_owned()))
    };
    let text = String::from_utf8(delete(&case, "n1").unwrap().document.to_bytes()).unwrap();
    assert_eq!(text, "global\n  daemon\n");
    assert_eq!(delete(&case, "zz").unwrap_err().reason(), Reason::ObjectNotFound);

    // A farm that another frontend uses stays.
    let case = Case::new(FILE);
    let text = String::from_utf8(delete(&case, "n1").unwrap().document.to_bytes()).unwrap();
    assert!(text.contains("backend farm2\n") && !text.contains("farm1"), "{text}");
}

#[test]
fn what_a_site_cannot_be_is_refused() {
    let mut case = Case::new(FILE);
    for (text, words) in [
        (r#"{"name":"x","farms":[{"name":"a","use_as":"conditional"}]}"#, "farms[0]: a conditional farm needs"),
        (
            r#"{"name":"x","farms":[{"name":"a","use_as":"default"},{"name":"b","use_as":"default"}]}"#,
            "farms[1]: a site has one default farm",
        ),
        (
            r#"{"name":"x","farms":[{"name":"a","use_as":"default"},{"name":"a","mode":"tcp","use_as":"conditional","cond":"if","cond_test":"TRUE"}]}"#,
            "farms[1]: a is another one in farms[0]",
        ),
        (
            r#"{"name":"x","service":{"http_connection_mode":"forced-close"}}"#,
            "service.http_connection_mode: forced-close",
        ),
    ] {
        let error = case.create(text).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidValue);
        assert!(error.message().starts_with(words), "{}", error.message());
    }
    assert_eq!(case.text(), FILE);
}
