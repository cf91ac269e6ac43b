//! Files on disk that HAProxy loads: maps today, certificates and general files later.
//!
//! Nothing outside the folder given is ever touched, and no file is ever seen half written.

mod folder;
mod map_text;
mod maps;
mod sync;

pub use folder::{Contents, Folder, Writer};
pub use map_text::{parse_line, print_line};
pub use maps::{MapFile, MapStore};
pub use sync::{MapSync, Synced};
