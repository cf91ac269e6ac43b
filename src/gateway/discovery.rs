//! Lists of child paths, made from the routes and the pages that need credentials.
//!
//! Our own extensions are not listed among the paths of /v2; they list themselves.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::Page;
use super::routes::Routes;
use crate::schema::tables::Tables;

/// Path below `/v2` of our own extensions.
const EXTENSIONS: &str = "/services/backstay";

/// Paths below `/v2` that list their children.
const LISTS: [&str; 9] = [
    "",
    "/services",
    EXTENSIONS,
    "/services/haproxy",
    "/services/haproxy/configuration",
    "/services/haproxy/runtime",
    "/services/haproxy/spoe",
    "/services/haproxy/stats",
    "/services/haproxy/storage",
];

#[derive(Serialize)]
struct Endpoint {
    url: String,
    title: String,
    description: String,
}

/// True when a whole path is such a list.
pub(super) fn lists(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.strip_prefix("/v2").is_some_and(|below| LISTS.contains(&below))
}

/// The children of a path that answer to GET, as a JSON array ordered by URL.
pub(super) fn list(tables: &Tables, routes: &Routes, pages: &[Page], path: &str) -> Bytes {
    let path = path.strip_suffix('/').unwrap_or(path);
    let base = path.strip_prefix("/v2").unwrap_or(path);
    let mut children: BTreeMap<String, Endpoint> = BTreeMap::new();
    let mut add = |url: &str, description: String| {
        let child = url.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
        // The root lists itself.
        let listed = |name: &&str| !name.contains(['/', '{']) && (!name.is_empty() || url == "/");
        if let Some(name) = child.filter(listed) {
            let title = name.replace('_', " ");
            children.insert(url.to_owned(), Endpoint { url: url.to_owned(), title, description });
        }
    };
    for route in routes.iter().filter(|route| &*route.rule.method == "GET") {
        let method = &tables.methods[route.method].path;
        let name = method.rsplit('/').next().unwrap_or_default();
        add(route.rule.path.strip_prefix("/v2").unwrap_or(&route.rule.path), sentence(name));
    }
    for page in pages.iter().filter(|page| !page.open) {
        let name = page.path.rsplit('/').next().unwrap_or_default();
        add(page.path.strip_prefix("/v2").unwrap_or(page.path), format!("Return the {}", name.replace('_', " ")));
    }
    let itself = "Return a list of the endpoints below";
    add("/", itself.to_owned());
    for url in LISTS.into_iter().filter(|url| *url != EXTENSIONS) {
        // A list without anything below it is not offered.
        let used = routes.iter().any(|route| {
            route
                .rule
                .path
                .strip_prefix("/v2")
                .and_then(|path| path.strip_prefix(url))
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if used {
            add(url, itself.to_owned());
        }
    }
    let mut body = serde_json::to_vec(&children.into_values().collect::<Vec<_>>()).unwrap_or_default();
    body.push(b'\n');
    body.into()
}

/// `ListBackendSwitchingRules` as `List backend switching rules`.
fn sentence(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            text.push(' ');
            text.push(letter.to_ascii_lowercase());
        } else {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixture;

    fn urls(path: &str) -> Vec<String> {
        let tables = fixture::tables();
        let routes = Routes::new(&tables).unwrap();
        let page = |path, open| Page::new(path, "application/json", open, Bytes::new);
        let pages = [page("/v2/docs", true), page("/v2/specification", false)];
        let list: Vec<serde_json::Value> = serde_json::from_slice(&list(&tables, &routes, &pages, path)).unwrap();
        list.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn direct_children_with_a_get_are_listed() {
        assert_eq!(
            urls("/v2/services/haproxy/configuration"),
            ["/services/haproxy/configuration/backends", "/services/haproxy/configuration/version"]
        );
        assert_eq!(urls("/v2/"), ["/", "/services", "/specification"]);
        assert_eq!(urls("/v2/services"), ["/services/haproxy"]);
        let below = ["configuration", "runtime", "storage"].map(|name| format!("/services/haproxy/{name}"));
        assert_eq!(urls("/v2/services/haproxy/"), below);
        assert!(lists("/v2") && lists("/v2/") && lists("/v2/services/haproxy/spoe"));
        assert!(!lists("/v2/services/haproxy/configuration/backends") && !lists("/"));
    }

    #[test]
    fn names_of_methods_read_as_sentences() {
        assert_eq!(sentence("ListBackendSwitchingRules"), "List backend switching rules");
    }
}
