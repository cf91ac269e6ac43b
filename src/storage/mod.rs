//! Files on disk that HAProxy loads: maps, certificates, and files for any use; and what is uploaded in pieces.
//!
//! Nothing outside the folder given is ever touched, nor read through a link in it, and no file is ever seen half written.

mod beneath;
mod certificate;
mod files;
mod folder;
mod map_batch;
mod map_edits;
mod map_merge;
mod map_text;
mod sync;
mod uploads;

pub use certificate::Certificates;
pub use files::{FileStore, StoredFile};
pub use folder::{Contents, Folder, KeyReaders, Writer};
pub use map_batch::{MapBatch, MapBatchReader, MapBatchWriter};
pub use map_edits::MapEdit;
pub use map_text::{parse_line, print_line};
pub use sync::{Listener, MapSync, Paused, Synced};
pub use uploads::{Piece, Progress, UploadLimits, Uploads};
