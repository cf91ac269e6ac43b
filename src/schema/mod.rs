//! The schema: `proto/` as tables, and the interpreters over them.
//!
//! Pure: bytes in, bytes out. Compiled into build.rs too, so that a fault of the schema fails the build.

pub mod check;
pub mod comments;
#[cfg(test)]
mod fault_tests;
pub mod handles;
pub mod json;
pub mod load;
pub mod mask;
pub mod odd;
pub mod openapi;
#[cfg(test)]
pub(crate) mod sample;
pub mod tables;
pub mod template;
pub mod value;
pub mod wire;
pub mod words;

use tables::Tables;
use template::Grammar;

/// Tables and compiled templates, made once at start.
#[derive(Debug)]
pub struct Schema {
    /// Messages, fields, enums, methods.
    pub tables: std::sync::Arc<Tables>,
    /// Parser and printer of every line.
    pub grammar: Grammar,
}

impl Schema {
    /// Makes the schema from descriptors. `Err` lists every fault, each with its element.
    pub fn compile(descriptor_set: &[u8]) -> Result<Schema, Vec<String>> {
        let tables = load::load(descriptor_set).map_err(|faults| strings(&faults))?;
        let grammar = Grammar::compile(&tables).map_err(|faults| {
            let named = |fault: &template::Fault| format!("{}: {fault}", load::file_of(descriptor_set, &fault.message));
            faults.iter().map(named).collect::<Vec<_>>()
        })?;
        Ok(Schema { tables: std::sync::Arc::new(tables), grammar })
    }
}

fn strings<T: std::fmt::Display>(faults: &[T]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}
