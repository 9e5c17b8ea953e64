//! Permissions on a file that a grant or a share gives.

use super::sql_enum::sql_enum;

sql_enum! {
    /// A permission on a file. Ordered: a higher permission includes the lower ones.
    Permission {
        /// Reads the record, and the bytes for display.
        View = 1 => "view",
        /// Also saves the bytes.
        Download = 2 => "download",
        /// Also moves the file to the trash.
        Delete = 3 => "delete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_permission_includes_lower_ones() {
        assert!(Permission::View < Permission::Download);
        assert!(Permission::Download < Permission::Delete);
    }
}
