//! Routes of /v2: paths are matched as sent, segments are decoded afterwards, so a name may hold any character.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::schema::tables::{FieldIndex, HttpRule, MethodId, Tables};

/// A REST binding, ready to serve.
#[derive(Debug)]
pub struct Route {
    /// Row of the method table.
    pub method: MethodId,
    /// The binding.
    pub rule: HttpRule,
    /// Request fields of the `{}` parts, in order of the path.
    pub parameters: Vec<FieldIndex>,
    /// Request field that takes the body.
    pub body: Option<BodyField>,
    /// Response field that is the body.
    pub response: Option<FieldIndex>,
}

/// Where a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyField {
    /// The request message itself.
    Whole,
    /// One field of it.
    Field(FieldIndex),
}

/// All routes.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    /// `{name}:watch`: a parameter with text behind it, longest text first.
    suffixed: Vec<(Box<str>, Node)>,
    parameter: Option<Box<Node>>,
    /// `{name=**}`: everything that is left.
    rest: Option<Box<Node>>,
    by_method: BTreeMap<Box<str>, usize>,
}

/// What a path and method lead to.
#[derive(Debug)]
pub enum Found<'a> {
    /// A route, and the decoded values of its parameters.
    Route(&'a Route, Vec<String>),
    /// The path is known, the method is not; these are.
    Methods(Vec<&'a str>),
    /// No such path.
    Nothing,
}

/// A path without empty segments, `.` and `..`, as clients that join paths without care send them; never above the
/// root. The path is as it was sent: what is percent-encoded belongs to a name. Slashes at the end stay: two of them are an
/// empty name, which no object has.
pub fn clean(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            ".." => drop(kept.pop()),
            "" | "." => {}
            name => kept.push(name),
        }
    }
    let end = match path {
        _ if kept.is_empty() => "",
        path if path.ends_with("//") => "//",
        path if ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) => "/",
        _ => "",
    };
    Cow::Owned(format!("/{}{end}", kept.join("/")))
}

enum Part<'a> {
    Literal(&'a str),
    Parameter(&'a str, &'a str),
    Rest(&'a str),
}

impl Routes {
    /// The routes of all bindings. A path bound twice or a part that names no request field is a fault of the schema.
    pub fn new(tables: &Tables) -> Result<Self> {
        let mut routes = Routes::default();
        for (id, method) in tables.methods.iter().enumerate() {
            let input = &tables.messages[method.input];
            let output = &tables.messages[method.output];
            for rule in &method.http {
                let fault =
                    |what: String| Error::internal(format!("{} {} of {}: {what}", rule.method, rule.path, method.path));
                let field = |name: &str| {
                    input.field_named(name).ok_or_else(|| fault(format!("no field {name} in {}", input.full_name)))
                };
                let parameters = parts(&rule.path)
                    .filter_map(|part| match part {
                        Part::Literal(_) => None,
                        Part::Parameter(name, _) | Part::Rest(name) => Some(field(name)),
                    })
                    .collect::<Result<_>>()?;
                let body = match &*rule.body {
                    "" => None,
                    "*" => Some(BodyField::Whole),
                    name => Some(BodyField::Field(field(name)?)),
                };
                let response = match &*rule.response_body {
                    "" => None,
                    name => Some(
                        output
                            .field_named(name)
                            .ok_or_else(|| fault(format!("no field {name} in {}", output.full_name)))?,
                    ),
                };
                let at = routes.routes.len();
                if routes.root.leaf(&rule.path).by_method.insert(rule.method.clone(), at).is_some() {
                    return Err(fault("this path is bound twice".to_owned()));
                }
                routes.routes.push(Route { method: id, rule: rule.clone(), parameters, body, response });
            }
        }
        Ok(routes)
    }

    /// Finds a route by HTTP method and raw path. One slash at the end is allowed.
    pub fn find(&self, method: &str, path: &str) -> Found<'_> {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let mut leaves = Vec::new();
        if let Some(rest) = trimmed.strip_prefix('/') {
            self.root.collect(rest, &mut Vec::new(), &mut leaves);
        }
        for (node, values) in &leaves {
            if let Some(at) = node.by_method.get(method) {
                let values =
                    values.iter().map(|raw| percent_decode_str(raw).decode_utf8_lossy().into_owned()).collect();
                return Found::Route(&self.routes[*at], values);
            }
        }
        if leaves.is_empty() {
            return Found::Nothing;
        }
        let methods: BTreeSet<&str> =
            leaves.iter().flat_map(|(node, _)| node.by_method.keys().map(|name| &**name)).collect();
        Found::Methods(methods.into_iter().collect())
    }

    /// All routes in order of the method table.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

impl Node {
    /// The node of a path, made when absent.
    fn leaf(&mut self, path: &str) -> &mut Node {
        parts(path).fold(self, |node, part| match part {
            Part::Literal(text) => node.literals.entry(text.into()).or_default(),
            Part::Parameter(_, "") => node.parameter.get_or_insert_default(),
            Part::Parameter(_, suffix) => {
                let known = node.suffixed.iter().position(|(known, _)| &**known == suffix);
                let at = known.unwrap_or_else(|| {
                    let at = node.suffixed.iter().take_while(|(known, _)| known.len() >= suffix.len()).count();
                    node.suffixed.insert(at, (suffix.into(), Node::default()));
                    at
                });
                &mut node.suffixed[at].1
            }
            Part::Rest(_) => node.rest.get_or_insert_default(),
        })
    }

    /// Collects the nodes that a path leads to, the most literal one first.
    fn collect<'a, 'p>(&'a self, path: &'p str, values: &mut Vec<&'p str>, found: &mut Vec<(&'a Node, Vec<&'p str>)>) {
        let (segment, rest) = match path.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (path, None),
        };
        let mut follow = |node: &'a Node, value: Option<&'p str>| {
            values.extend(value);
            match rest {
                Some(rest) => node.collect(rest, values, found),
                None if !node.by_method.is_empty() => found.push((node, values.clone())),
                None => {}
            }
            if value.is_some() {
                values.pop();
            }
        };
        if let Some(node) = self.literals.get(segment) {
            follow(node, None);
        }
        for (suffix, node) in &self.suffixed {
            if let Some(value) = segment.strip_suffix(&**suffix).filter(|value| !value.is_empty()) {
                follow(node, Some(value));
            }
        }
        if let Some(node) = &self.parameter
            && !segment.is_empty()
        {
            follow(node, Some(segment));
        }
        if let Some(node) = &self.rest
            && !path.is_empty()
        {
            let mut values = values.clone();
            values.push(path);
            found.push((node, values));
        }
    }
}

/// Parts of a path of the schema.
fn parts(path: &str) -> impl Iterator<Item = Part<'_>> {
    path.trim_start_matches('/').split('/').map(|segment| {
        let Some((name, suffix)) = segment.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Part::Literal(segment);
        };
        match name.strip_suffix("=**") {
            Some(name) => Part::Rest(name),
            None => Part::Parameter(name, suffix),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixture;

    fn name(found: Found<'_>, tables: &Tables) -> String {
        match found {
            Found::Route(route, values) => {
                let path = &tables.methods[route.method].path;
                format!("{} {}", path.rsplit('/').next().unwrap(), values.join(","))
            }
            Found::Methods(methods) => format!("405 {}", methods.join(",")),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn paths_are_cleaned_as_they_were_sent() {
        for (path, cleaned) in [
            ("/v2/a/", "/v2/a/"),
            ("/v2//a", "/v2/a"),
            ("//v2/a", "/v2/a"),
            ("/v2/./a/.", "/v2/a/"),
            ("/v2/b/../a", "/v2/a"),
            ("/../../v2/a//", "/v2/a//"),
            ("//v2//a///", "/v2/a//"),
            ("/v2/a/..", "/v2/"),
            ("/v2/.hidden/...", "/v2/.hidden/..."),
            ("/v2/%2e%2e/a%2F%2Fb", "/v2/%2e%2e/a%2F%2Fb"),
            ("/v2//%2e%2E/a%2f..", "/v2/%2e%2E/a%2f.."),
            ("", "/"),
            ("/..", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn paths_are_matched_raw_and_decoded_afterwards() {
        let tables = fixture::tables();
        let routes = Routes::new(&tables).unwrap();
        let base = "/v2/services/haproxy";
        for (method, path, expected) in [
            ("GET", "/configuration/backends", "ListBackends "),
            ("GET", "/configuration/backends/", "ListBackends "),
            ("GET", "/configuration/backends/a%2Fb%3a", "GetBackend a/b:"),
            ("GET", "/configuration/backends/a:b", "GetBackend a:b"),
            ("GET", "/configuration/backends/[x]", "GetBackend [x]"),
            ("GET", "/configuration/backends/%5Bx%5D/", "GetBackend [x]"),
            ("GET", "/configuration/backends/100%", "GetBackend 100%"),
            ("GET", "/configuration/Backends", "404"),
            ("GET", "/configuration/backends/a/b", "404"),
            ("GET", "/configuration/backends//", "404"),
            ("PATCH", "/configuration/backends", "405 GET,POST"),
            ("HEAD", "/configuration/backends/x", "405 DELETE,GET,PUT"),
            ("GET", "/runtime/tables/t:watch", "WatchTable t"),
            ("GET", "/runtime/tables/t%3Awatch", "GetTable t:watch"),
            ("GET", "/runtime/tables/a:watch:watch", "WatchTable a:watch"),
        ] {
            assert_eq!(name(routes.find(method, &format!("{base}{path}")), &tables), expected, "{method} {path}");
        }
        assert_eq!(name(routes.find("GET", ""), &tables), "404");
        assert_eq!(name(routes.find("GET", "*"), &tables), "404");
    }

    #[test]
    fn faults_of_the_schema_are_named() {
        let mut tables = fixture::tables();
        let twice = HttpRule {
            path: "/v2/services/haproxy/configuration/backends/{id}".into(),
            ..tables.methods[1].http[0].clone()
        };
        tables.methods[1].http.push(twice);
        let error = Routes::new(&tables).unwrap_err();
        assert!(error.context_text().unwrap().contains("no field id"), "{:?}", error.context_text());
        tables.methods[1].http[1].path = "/v2/services/haproxy/configuration/backends/{name}".into();
        let error = Routes::new(&tables).unwrap_err();
        assert!(error.context_text().unwrap().contains("bound twice"), "{:?}", error.context_text());
    }
}
