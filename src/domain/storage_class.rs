//! What kind of storage a provider keeps bytes in, as far as we tell kinds apart.

use super::sql_enum::sql_enum;

sql_enum! {
    /// A class of storage. What a provider calls each, and whether it has the second one, is said in its configuration.
    #[derive(Default)]
    StorageClass {
        /// That of bytes that are read.
        #[default]
        Standard = 1 => "standard",
        /// That of bytes that hardly anybody reads. They can be read at once all the same.
        Archive = 2 => "archive",
    }
}

impl StorageClass {
    /// The class of bytes that files stand on, when all of these files are archived, or not.
    pub const fn of_archived(is_archived: bool) -> Self {
        if is_archived { Self::Archive } else { Self::Standard }
    }
}
