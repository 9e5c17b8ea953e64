//! The names under which files can be granted: one text for users and groups, which never collide.

/// The principal of one user or service.
pub fn user_principal(id: &str) -> String {
    format!("user:{id}")
}

/// The principal of a group.
pub fn group_principal(id: &str) -> String {
    format!("group:{id}")
}
