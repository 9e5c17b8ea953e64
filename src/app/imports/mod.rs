//! Imports existing objects as files.
//!
//! An imported object passes the same steps as an upload: limits, type checks, quota, commit, event and audit
//! entry. The row that maps the object to its file is part of that commit, so that a crash can never import
//! an object twice. A request id cannot guarantee this, because its response expires after a day.
//!
//! The operator configures which tenant may read which source. This service's own objects are never in a
//! source: a caller who could name their keys could read the data of other tenants.

mod error;
mod fetch;
mod find;
mod import_files;
mod import_object;
mod messages;
mod object_stream;
mod report;
mod source;
mod start;

pub use error::{FetchFailure, ImportError, ImportStreamOrder};
pub use find::{FoundImportedFiles, ImportedFile, ImportedFileLookup, LOOKUP_KEYS_MAX, find_imported_files};
pub use import_files::{ImportItem, ImportMessage, ImportStop, ItemSource, import_files};
pub use import_object::{ObjectOutcome, ObjectProperties};
pub use report::{ImportReport, ImportSummary, ObjectReport, PrefixEnd};
pub use source::ObjectLocation;
pub use start::ImportOptions;
