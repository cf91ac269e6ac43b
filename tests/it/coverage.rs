//! No method is without a case over each transport that has it.

use std::collections::BTreeSet;

use crate::announcement::{fields, maps, peers, refusals, resolvers, rules, stick_tables};
use crate::support::client::{short_name, tables};
use crate::{
    aggregation, discovery, lifecycle, overrides, protocols, resources, runtime_backends, runtime_objects, sections,
    stored, transfers,
};

/// What the scenarios claim; each run of one checks its own claim. Every scenario runs over both transports.
const COVERED: &[&[&str]] = &[
    aggregation::aggregations::COVERS,
    discovery::aws_regions::COVERS,
    discovery::consul_agents::COVERS,
    fields::fields::COVERS,
    lifecycle::changed_from_outside::COVERS,
    lifecycle::raw::COVERS,
    lifecycle::transactions::COVERS,
    maps::maps::COVERS,
    maps::stored_maps::COVERS,
    overrides::limits::COVERS,
    overrides::writes_stay::COVERS,
    peers::pushed_tables::COVERS,
    protocols::credentials::COVERS,
    refusals::bad_input::COVERS,
    refusals::haproxy_away::COVERS,
    resolvers::resolvers::COVERS,
    rules::balance_and_cookie::COVERS,
    runtime_backends::backends::COVERS,
    runtime_objects::acl_files::COVERS,
    runtime_objects::first_defaults::COVERS,
    runtime_objects::live_servers::COVERS,
    runtime_objects::statistics::COVERS,
    sections::backend_trees::COVERS,
    sections::frontend_trees::COVERS,
    sections::listen_sections::COVERS,
    sections::section_lines::COVERS,
    stick_tables::peers::COVERS,
    stick_tables::stick_tables::COVERS,
    stored::certificates::COVERS,
    stored::cluster::COVERS,
    stored::general::COVERS,
    stored::spoe::COVERS,
    transfers::files::COVERS,
    transfers::tables::COVERS,
];

#[test]
fn every_method_has_a_case_over_grpc_and_over_rest() {
    let known: BTreeSet<String> = tables().methods.iter().map(short_name).collect();
    let mut covered: BTreeSet<String> = COVERED.iter().copied().flatten().map(|name| (*name).to_owned()).collect();
    for name in &covered {
        assert!(known.contains(name), "{name} is no method");
    }
    covered.extend(resources::covered());
    let missing: Vec<_> = known.difference(&covered).collect();
    assert!(missing.is_empty(), "no case calls {missing:?}");
}
