//! The roles of callers.

use super::sql_enum::sql_enum;

sql_enum! {
    /// The role of a caller in its tenant. Ordered: a higher role includes the permissions of the lower ones.
    Role {
        /// Uses files that are visible to members.
        Member = 1 => "member",
        /// Also sees files that are visible to managers.
        Manager = 2 => "manager",
        /// May see and do everything in the tenant.
        Admin = 3 => "admin",
    }
}
