//! Storage classes of providers, as far as the service distinguishes them.

use super::sql_enum::sql_enum;

sql_enum! {
    /// A storage class. The configuration of a provider defines its name for each class, and whether it has
    /// an archive class.
    #[derive(Default)]
    StorageClass {
        /// The class for bytes that are read regularly.
        #[default]
        Standard = 1 => "standard",
        /// The class for bytes that are rarely read. They remain readable without delay.
        Archive = 2 => "archive",
    }
}

impl StorageClass {
    /// Returns the class of a blob, depending on whether all files that reference it are archived.
    pub const fn for_archived(is_archived: bool) -> Self {
        if is_archived { Self::Archive } else { Self::Standard }
    }
}
