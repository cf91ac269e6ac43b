//! Rust structs of the messages that hand-written services handle, and the descriptors of all.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/, which is documented and linted itself"
)]

/// Package `backstay.aggregation.v2`.
pub mod aggregation {
    include!(concat!(env!("OUT_DIR"), "/backstay.aggregation.v2.rs"));
}

/// Package `backstay.cluster.v2`.
pub mod cluster {
    include!(concat!(env!("OUT_DIR"), "/backstay.cluster.v2.rs"));
}

/// Package `backstay.configuration.v2`.
pub mod configuration {
    include!(concat!(env!("OUT_DIR"), "/backstay.configuration.v2.rs"));
}

/// Package `backstay.discovery.v2`.
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/backstay.discovery.v2.rs"));
}

/// Package `backstay.runtime.v2`.
pub mod runtime {
    include!(concat!(env!("OUT_DIR"), "/backstay.runtime.v2.rs"));
}

/// Package `backstay.storage.v2`.
pub mod storage {
    include!(concat!(env!("OUT_DIR"), "/backstay.storage.v2.rs"));
}

/// Package `backstay.spoe.v2`.
pub mod spoe {
    include!(concat!(env!("OUT_DIR"), "/backstay.spoe.v2.rs"));
}

/// Package `backstay.stats.v2`.
pub mod stats {
    include!(concat!(env!("OUT_DIR"), "/backstay.stats.v2.rs"));
}

/// Descriptors without comments, from which the schema's tables are made at start.
pub const SCHEMA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));

/// Descriptors with comments, for reflection and documentation.
pub const REFLECTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin"));

// Positions of messages (`messages::PACKAGE::MESSAGE`) and of their fields (`fields::PACKAGE::message::FIELD`) in the
// tables of the schema, and numbers of enum values (`values::PACKAGE::enumeration::VALUE`).
include!(concat!(env!("OUT_DIR"), "/handles.rs"));
