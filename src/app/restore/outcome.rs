//! The result of readopting one object.

/// The result for one object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadoptOutcome {
    /// The object is a file again, or the object of a version whose object was missing.
    Readopted,
    /// The object is no file of its own: a fragment, or a copy of a stored version. A sweep may delete it.
    Leftover,
    /// The object is not a file, for this reason.
    Left(String),
}
