//! Principals: the strings under which files are granted to users and groups. Users and groups never collide.

/// Returns the principal of a user or service.
pub fn user_principal(id: &str) -> String {
    format!("user:{id}")
}

/// Returns the principal of a group.
pub fn group_principal(id: &str) -> String {
    format!("group:{id}")
}
