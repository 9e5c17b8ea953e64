//! Principals: the strings that identify callers in stored rows, and under which files are granted.
//!
//! The subject of a token identifies its bearer only within a kind: a user and a service may have the same
//! subject. The id of a caller is therefore its subject for a user, and `service:` with its subject for a
//! service. The id of a user whose subject could be read as another id is `user:` with the subject, so that no
//! subject gives a user the id of a service or of the system.

/// The id of the service itself.
pub const SYSTEM_ID: &str = "strongroom";

const USER: &str = "user:";
const SERVICE: &str = "service:";
const OPERATOR: &str = "operator:";
const GROUP: &str = "group:";

/// Returns the id of the user with this subject.
pub fn user_id(subject: &str) -> String {
    let is_ambiguous =
        subject == SYSTEM_ID || [USER, SERVICE, OPERATOR].iter().any(|prefix| subject.starts_with(prefix));
    if is_ambiguous { format!("{USER}{subject}") } else { subject.to_owned() }
}

/// Returns the id of the service with this subject.
pub fn service_id(subject: &str) -> String {
    format!("{SERVICE}{subject}")
}

/// Returns the id of the operator with this subject at this issuer. Several issuers may name operators.
pub fn operator_id(issuer: &str, subject: &str) -> String {
    format!("{OPERATOR}{issuer}\n{subject}")
}

/// Returns the id that callers have, for an id in a request: `user:alice` is `alice`. Other ids are unchanged.
pub fn canonical_id(id: &str) -> String {
    id.strip_prefix(USER).map_or_else(|| id.to_owned(), user_id)
}

/// Returns the principal of the user or service with this id: its kind and its subject.
pub fn caller_principal(id: &str) -> String {
    if id.starts_with(USER) || id.starts_with(SERVICE) { id.to_owned() } else { format!("{USER}{id}") }
}

/// Returns the principal of a group.
pub fn group_principal(id: &str) -> String {
    format!("{GROUP}{id}")
}

/// The principal of everyone in the tenant. Other principals start with their kind and a colon.
pub const ORGANIZATION: &str = "organization";

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind<'a> {
    /// The user or service with this id.
    Caller(&'a str),
    /// The group with this id.
    Group(&'a str),
    /// Everyone in the tenant.
    Organization,
}

/// Returns whether the id is that of a service.
pub fn is_service(id: &str) -> bool {
    id.starts_with(SERVICE)
}

/// Returns what a principal is.
pub fn parse_principal(principal: &str) -> PrincipalKind<'_> {
    if principal == ORGANIZATION {
        return PrincipalKind::Organization;
    }
    match principal.strip_prefix(GROUP) {
        Some(group) => PrincipalKind::Group(group),
        None => PrincipalKind::Caller(caller_id(principal)),
    }
}

/// Returns the id of a user or service, from its principal.
fn caller_id(principal: &str) -> &str {
    match principal.strip_prefix(USER) {
        Some(subject) if user_id(subject) == subject => subject,
        _ => principal,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SUBJECTS: [&str; 8] = [
        "alice",
        "user:alice",
        "service:alice",
        "user:service:alice",
        "service:user:alice",
        "operator:alice",
        "group:alice",
        SYSTEM_ID,
    ];

    #[test]
    fn ids_of_different_callers_differ() {
        let users = SUBJECTS.iter().map(|subject| user_id(subject));
        let services = SUBJECTS.iter().map(|subject| service_id(subject));
        let operators = SUBJECTS.iter().map(|subject| operator_id("https://id", subject));
        let ids: Vec<String> = users.chain(services).chain(operators).chain([SYSTEM_ID.to_owned()]).collect();
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn principals_of_different_callers_differ() {
        let users = SUBJECTS.iter().map(|subject| caller_principal(&user_id(subject)));
        let services = SUBJECTS.iter().map(|subject| caller_principal(&service_id(subject)));
        let groups = SUBJECTS.iter().map(|subject| group_principal(subject));
        let principals: Vec<String> = users.chain(services).chain(groups).collect();
        let distinct: BTreeSet<&String> = principals.iter().collect();
        assert_eq!(distinct.len(), principals.len(), "{principals:?}");
        assert_eq!(caller_principal(&user_id("alice")), "user:alice");
        assert_eq!(caller_principal(&service_id("alice")), "service:alice");
    }

    #[test]
    fn principals_are_parsed() {
        for subject in SUBJECTS {
            for id in [user_id(subject), service_id(subject)] {
                assert_eq!(parse_principal(&caller_principal(&id)), PrincipalKind::Caller(&id));
            }
            assert_eq!(parse_principal(&group_principal(subject)), PrincipalKind::Group(subject));
        }
        assert_eq!(parse_principal(ORGANIZATION), PrincipalKind::Organization);
        assert_eq!(parse_principal("user:organization"), PrincipalKind::Caller("organization"));
    }

    #[test]
    fn ids_in_requests_may_name_the_kind() {
        assert_eq!(canonical_id("alice"), "alice");
        assert_eq!(canonical_id("user:alice"), "alice");
        assert_eq!(canonical_id("service:alice"), "service:alice");
        for subject in SUBJECTS {
            for id in [user_id(subject), service_id(subject)] {
                assert_eq!(canonical_id(&id), id);
            }
            assert_eq!(canonical_id(&format!("{USER}{subject}")), user_id(subject));
        }
    }
}
