//! The JSON of /v2 to objects and back, by table.
//!
//! Keys are [`Field::json`]; the fields of a `flatten` message are keys of its parent; enums are their tokens.

mod read;
mod write;

pub use read::{JsonRules, Reading, not_json, read, read_value};
pub use write::{write, write_field};

use super::tables::{Field, FieldIndex};

/// Lists that stand before all other keys in the answers of /v2, in this order. The other keys are sorted.
const LEADING: [&str; 15] = [
    "cpu_maps",
    "error_files",
    "errorfiles_from_http_errors",
    "force_persist_list",
    "h1_case_adjust",
    "headers",
    "ignore_persist_list",
    "presetenv",
    "return_hdrs",
    "runtime_apis",
    "setenv",
    "set_var_fmt",
    "set_var",
    "ssl_engines",
    "thread_group_lines",
];

/// The order of keys in answers, and of checks: flattened messages as declared, a few lists of objects, then
/// everything else sorted by key.
pub fn json_order(fields: &[Field]) -> Vec<FieldIndex> {
    let rank = |at: &FieldIndex| {
        let field = &fields[*at];
        if field.flatten {
            return (0, *at, "");
        }
        match LEADING.iter().position(|key| field.repeated && *key == &*field.json) {
            Some(place) => (1, place, ""),
            None => (2, 0, &*field.json),
        }
    };
    let mut order: Vec<FieldIndex> = (0..fields.len()).collect();
    order.sort_by_key(rank);
    order
}

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
