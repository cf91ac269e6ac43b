//! An aggregation as it is asked for, and what can be wrong with it. Pure.

use std::collections::HashSet;

use super::beat::REPLICAS;
use super::core::NODES;
use crate::error::{Error, Reason, Result};
use crate::peers::Column;
use crate::proto::aggregation as pb;
use crate::runtime::Address;

/// How the values of nodes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Function {
    /// Added up.
    #[default]
    Sum,
    /// The largest one.
    Max,
}

impl Spec {
    /// What a message says. `peer_name`: our name unless it says another.
    pub fn of(message: &pb::Aggregation, peer_name: &str) -> Spec {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let nodes = message.nodes.iter().map(|node| NodeSpec {
            name: text(&node.name),
            address: text(&node.address),
            local_peer: text(&node.local_peer),
            tls: node.tls(),
        });
        let timeout = message.node_timeout_ms.and_then(|timeout| u32::try_from(timeout).ok());
        let mut replicas = message.replicas.clone();
        replicas.sort();
        Spec {
            replicas,
            name: text(&message.name),
            nodes: nodes.collect(),
            source_table: text(&message.source_table),
            target_table: text(&message.target_table),
            data_types: message.data_types.clone(),
            function: match message.function() {
                pb::AggregationFunction::Max => Function::Max,
                pb::AggregationFunction::Sum | pb::AggregationFunction::Unspecified => Function::Sum,
            },
            node_timeout_ms: timeout.unwrap_or(TIMEOUT),
            peer_name: message
                .peer_name
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| peer_name.to_owned()),
        }
    }
}

/// An HAProxy that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name here.
    pub name: String,
    /// Where it listens for peers, as HAProxy writes addresses.
    pub address: String,
    /// Its own name in its peers section.
    pub local_peer: String,
    /// It listens with TLS.
    pub tls: bool,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The HAProxys.
    pub nodes: Vec<NodeSpec>,
    /// The table that is read.
    pub source_table: String,
    /// The table that is taught.
    pub target_table: String,
    /// Data types by HAProxy's names; none for all that both tables store.
    pub data_types: Vec<String>,
    /// How values become one.
    pub function: Function,
    /// Milliseconds after which a node that is away does not count any more.
    pub node_timeout_ms: u32,
    /// Our name in the peers sections.
    pub peer_name: String,
    /// The names of all replicas, in order; none: they do not look at each other.
    pub replicas: Vec<String>,
}

/// Used when none is given.
pub(super) const TIMEOUT: u32 = 30_000;
/// Aggregations that there can be.
pub(super) const AGGREGATIONS: usize = 64;
fn wrong(field: String, message: String) -> Error {
    Error::new(Reason::InvalidValue, message).with("field", field)
}

/// A table's name on the wire: a table of a peers section is known there by its own name behind a slash.
pub(super) fn wire_name(shown: &str) -> String {
    shown.split_once('/').map_or_else(|| shown.to_owned(), |(_, table)| format!("/{table}"))
}

impl Spec {
    /// Whether it can be, besides others, where the schema has looked at its fields. `INVALID_VALUE` names the field.
    pub fn check(&self, others: &[Spec]) -> Result<()> {
        if wire_name(&self.source_table) == wire_name(&self.target_table) {
            let message = "target_table: it is the source table, whose own counts would be lost".to_owned();
            return Err(wrong("target_table".to_owned(), message));
        }
        if self.nodes.is_empty() || self.nodes.len() > NODES {
            return Err(wrong("nodes".to_owned(), format!("nodes: 1 to {NODES} are expected")));
        }
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        for (at, node) in self.nodes.iter().enumerate() {
            let address = node.parsed().map_err(|_| {
                let expected = "expected ADDRESS:PORT or unix@/PATH";
                let message = format!("nodes[{at}].address: '{}' is no address: {expected}", node.address);
                wrong(format!("nodes[{at}].address"), message)
            })?;
            if !names.insert(&node.name) {
                let message = format!("nodes[{at}].name: '{}' is there twice", node.name);
                return Err(wrong(format!("nodes[{at}].name"), message));
            }
            if !addresses.insert(address) {
                let message = format!("nodes[{at}].address: '{}' is there twice", node.address);
                return Err(wrong(format!("nodes[{at}].address"), message));
            }
        }
        for (at, kind) in self.data_types.iter().enumerate() {
            let field = format!("data_types[{at}]");
            if !Column::is_name(kind) {
                let message = format!("{field}: '{kind}' is no data type of stick tables");
                return Err(wrong(field, message));
            }
        }
        let replicas = &self.replicas;
        let twice = replicas.iter().zip(replicas.iter().skip(1)).any(|(one, next)| one == next);
        if !replicas.is_empty() && (replicas.len() > REPLICAS || twice || !replicas.contains(&self.peer_name)) {
            let message = format!("replicas: up to {REPLICAS} different names, '{}' among them", self.peer_name);
            return Err(wrong("replicas".to_owned(), message));
        }
        others.iter().filter(|other| other.name != self.name).try_for_each(|other| self.check_beside(other))
    }

    /// Nobody teaches a table that another one reads, and each table is taught by one only.
    fn check_beside(&self, other: &Spec) -> Result<()> {
        let address = |node: &NodeSpec| node.parsed().ok();
        let shared = self
            .nodes
            .iter()
            .filter_map(address)
            .any(|own| other.nodes.iter().any(|node| address(node) == Some(own.clone())));
        let same = |one: &str, two: &str| shared && wire_name(one) == wire_name(two);
        let clash = if same(&self.target_table, &other.target_table) {
            Some(("target_table", "teaches the same table"))
        } else if same(&self.target_table, &other.source_table) {
            Some(("target_table", "reads that table"))
        } else if same(&self.source_table, &other.target_table) {
            Some(("source_table", "teaches that table"))
        } else {
            None
        };
        match clash {
            Some((field, what)) => {
                Err(wrong(field.to_owned(), format!("{field}: the aggregation '{}' {what}", other.name)))
            }
            None => Ok(()),
        }
    }
}

impl NodeSpec {
    /// The address.
    pub(super) fn parsed(&self) -> Result<Address> {
        self.address.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn spec(name: &str) -> Spec {
        let node = |name: &str, address: &str| NodeSpec {
            name: name.to_owned(),
            address: address.to_owned(),
            local_peer: name.to_owned(),
            tls: false,
        };
        Spec {
            name: name.to_owned(),
            nodes: vec![node("one", "10.0.0.1:1024"), node("two", "unix@/run/two.sock")],
            source_table: format!("{name}_local"),
            target_table: format!("{name}_all"),
            data_types: vec!["http_req_rate".to_owned(), "gpc".to_owned()],
            function: Function::Sum,
            node_timeout_ms: TIMEOUT,
            peer_name: "backstay".to_owned(),
            replicas: vec!["backstay".to_owned(), "second".to_owned()],
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        spec("a").check(&[spec("b"), spec("a")]).unwrap();
        let refused = |others: &[Spec], change: fn(&mut Spec)| {
            let mut spec = spec("a");
            change(&mut spec);
            let error = spec.check(others).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue);
            error.message().to_owned()
        };
        for (change, field) in [
            ((|s| s.target_table.clone_from(&s.source_table)) as fn(&mut Spec), "target_table: "),
            (|s| (s.source_table, s.target_table) = ("p/t".into(), "q/t".into()), "target_table: "),
            (|s| s.nodes.clear(), "nodes: "),
            (|s| s.nodes = vec![s.nodes[0].clone(); 33], "nodes: "),
            (|s| s.nodes[1].name = "one".into(), "nodes[1].name: "),
            (|s| s.nodes[1].address = "10.0.0.1:1024".into(), "nodes[1].address: "),
            (|s| s.nodes[0].address = "somewhere".into(), "nodes[0].address: "),
            (|s| s.data_types[1] = "gpc7".into(), "data_types[1]: "),
            (|s| s.replicas[0] = "other".into(), "replicas: "),
            (|s| s.replicas[1] = "backstay".into(), "replicas: "),
        ] {
            let message = refused(&[], change);
            assert!(message.starts_with(field), "{message}");
        }
        for (change, field) in [
            ((|s| s.target_table = "b_all".into()) as fn(&mut Spec), "target_table: "),
            (|s| s.target_table = "b_local".into(), "target_table: "),
            (|s| s.source_table = "b_all".into(), "source_table: "),
        ] {
            let message = refused(&[spec("b")], change);
            assert!(message.starts_with(field) && message.contains("'b'"), "{message}");
            // Of other nodes it is another table.
            let mut apart = spec("b");
            apart.nodes[0].address = "10.0.0.9:1".into();
            apart.nodes[1].address = "10.0.0.9:2".into();
            let mut own = spec("a");
            change(&mut own);
            own.check(&[apart]).unwrap();
        }
    }
}
