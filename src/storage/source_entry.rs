//! The entries of the listings of import sources.

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEntry {
    /// The key of an object.
    Key(String),
    /// An entry that is not an object.
    Problem {
        /// The key, in which bytes that are not UTF-8 are replaced.
        key: String,
        problem: EntryProblem,
    },
}

/// The reason that an entry of a directory cannot be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum EntryProblem {
    /// Its name is not UTF-8, so no key names it.
    #[error("has a name that is not UTF-8; rename it in the source")]
    NameNotUtf8,
    /// It is a directory or an entry that this process may not read, or that fails to be read.
    #[error("cannot be read; check its permissions in the source")]
    Unreadable,
    /// It is a symbolic link.
    #[error("is a symbolic link; import the file that it points to")]
    Link,
    /// It is a pipe, a socket or a device.
    #[error("is neither a file nor a directory")]
    NoFile,
}
