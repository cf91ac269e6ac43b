//! Counters of stick tables, brought together over several HAProxys.
//!
//! backstay is a peer of each node ([`stick_table::Lines`](crate::stick_table::Lines)): it reads the source table and
//! teaches the target table. `core` keeps the contributions of each node apart and says what is to be taught, by way of
//! `layout` (which columns), `merge` (many values as one) and `rate` (windows that
//! fade); `session` is between it and the sessions; `directory` keeps the
//! aggregations in a file. Pure: `core`, `layout`, `merge`, `rate`, `resource`, `beat`.
//!
//! What keeps it safe: a source table is never taught. Nothing is taught before all nodes have told their entries, or
//! the time for it is over. Targets fade by their own timers when nobody teaches any more, so limits then count per node.
//! What no node has is taught as zeros.
//!
//! Several backstays may do the same at the same time: what is taught follows from the entries of the nodes alone, so they
//! teach the same. One that is cut off from a node would teach less than the others; it stands by while one is there that
//! reaches all nodes (`beat`). Where replicas are not named, or none reaches all nodes, values alternate between the sum
//! with and without that node: never more than was counted.

mod beat;
mod core;
#[cfg(test)]
mod core_tests;
mod directory;
mod layout;
mod merge;
mod rate;
mod resource;
mod session;
mod status;

pub use directory::{Aggregations, Joining};
pub use resource::{Function, NodeSpec, Spec};
pub use status::{NodeStatus, Status, Target};
