//! Import: files of before become files of ours.
//!
//! The bytes of a foreign object take the way of an upload: the same limits, judgements, charge, commit, event and audit
//! entry. Which file an object became is a row of that commit, so there is no moment between the two in which a crash could
//! make an object two files. A request id could not do this: its answer is forgotten after a day.
//!
//! What may be read is the operator's to say, by source and tenant. The objects of this service are in no source: whoever could
//! name their keys could read what belongs to other tenants.

mod begin;
mod fetch;
mod find;
mod import;
mod messages;
mod opened;
mod source;

pub use begin::{Import, ImportOptions, Objects, begin};
pub use find::{FoundImports, ImportLookup, ImportedFile, find};
pub use import::{ImportItem, Outcome};
pub use source::Place;
