//! Conversions of grants and of questions about access.

use super::{id, time};
use crate::{
    app::{
        access::{AccessRule, Operation},
        grants::{
            AccessQuestion, AccessReport, Grant, GrantRequest, ListGrantsRequest, RevokeRequest, Subject,
        },
    },
    domain::{
        caller::{Actor, ActorKind, Role},
        ids::FileId,
        permission::Permission,
        principal::{self, PrincipalKind, caller_principal, canonical_id, group_principal, parse_principal},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
    proto::v1::{self, grant, grant_access_request, revoke_access_request},
};

/// The maximum number of groups of a subject.
const GROUPS_MAX: usize = 256;

/// The principal of a request.
enum RequestPrincipal {
    User(String),
    Group(String),
}

impl From<grant_access_request::Principal> for RequestPrincipal {
    fn from(principal: grant_access_request::Principal) -> Self {
        match principal {
            grant_access_request::Principal::UserId(id) => Self::User(id),
            grant_access_request::Principal::GroupId(id) => Self::Group(id),
        }
    }
}

impl From<revoke_access_request::Principal> for RequestPrincipal {
    fn from(principal: revoke_access_request::Principal) -> Self {
        match principal {
            revoke_access_request::Principal::UserId(id) => Self::User(id),
            revoke_access_request::Principal::GroupId(id) => Self::Group(id),
        }
    }
}

fn parse_file(text: &str, violations: &mut Violations) -> Option<FileId> {
    violations.ok_or_add("file_id", text.parse::<FileId>().map_err(|_| "must be a UUID"))
}

fn principal_from_proto(principal: Option<RequestPrincipal>, violations: &mut Violations) -> Option<String> {
    match principal {
        Some(RequestPrincipal::User(id)) => {
            violations.ok_or_add("user_id", text::check_line(&id, EXTERNAL_ID_CHARACTERS_MAX))?;
            Some(caller_principal(&canonical_id(&id)))
        }
        Some(RequestPrincipal::Group(id)) => {
            violations.ok_or_add("group_id", text::check_line(&id, EXTERNAL_ID_CHARACTERS_MAX))?;
            Some(group_principal(&id))
        }
        None => {
            violations.add("user_id", "user_id or group_id is required");
            None
        }
    }
}

pub(super) fn permission_from_proto(number: i32, violations: &mut Violations) -> Option<Permission> {
    match v1::FilePermission::try_from(number) {
        Ok(v1::FilePermission::View) => Some(Permission::View),
        Ok(v1::FilePermission::Download) => Some(Permission::Download),
        Ok(v1::FilePermission::Delete) => Some(Permission::Delete),
        Ok(v1::FilePermission::Unspecified) | Err(_) => {
            violations.add("permission", "must be VIEW, DOWNLOAD or DELETE");
            None
        }
    }
}

pub(in crate::grpc) fn permission_to_proto(permission: Permission) -> v1::FilePermission {
    match permission {
        Permission::View => v1::FilePermission::View,
        Permission::Download => v1::FilePermission::Download,
        Permission::Delete => v1::FilePermission::Delete,
    }
}

pub(in crate::grpc) fn grant_request_from_proto(
    request: v1::GrantAccessRequest,
) -> Result<GrantRequest, Violations> {
    let mut violations = Violations::new();
    let file = parse_file(&request.file_id, &mut violations);
    let principal = principal_from_proto(request.principal.map(Into::into), &mut violations);
    let permission = permission_from_proto(request.permission, &mut violations);
    let expire_time = time::from_proto("expire_time", request.expire_time, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    match (file, principal, permission) {
        (Some(file), Some(principal), Some(permission)) if violations.is_empty() => {
            Ok(GrantRequest { file, principal, permission, expire_time, request_id })
        }
        _ => Err(violations),
    }
}

pub(in crate::grpc) fn revoke_request_from_proto(
    request: v1::RevokeAccessRequest,
) -> Result<RevokeRequest, Violations> {
    let mut violations = Violations::new();
    let file = parse_file(&request.file_id, &mut violations);
    let principal = principal_from_proto(request.principal.map(Into::into), &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    match (file, principal) {
        (Some(file), Some(principal)) if violations.is_empty() => {
            Ok(RevokeRequest { file, principal, request_id })
        }
        _ => Err(violations),
    }
}

pub(in crate::grpc) fn list_request_from_proto(
    request: v1::ListGrantsRequest,
) -> Result<ListGrantsRequest, Violations> {
    let v1::ListGrantsRequest { file_id, page_size, page_token } = request;
    Ok(ListGrantsRequest { file: id::parse_file_id(&file_id)?, page_size, page_token })
}

/// Converts a stored grant.
pub(in crate::grpc) fn to_proto(stored: Grant) -> v1::Grant {
    let principal = match parse_principal(&stored.principal) {
        PrincipalKind::Caller(id) => grant::Principal::UserId(id.to_owned()),
        PrincipalKind::Group(id) => grant::Principal::GroupId(id.to_owned()),
        PrincipalKind::Organization => grant::Principal::Organization(true),
    };
    v1::Grant {
        id: stored.id.to_string(),
        file_id: stored.file_id.to_string(),
        principal: Some(principal),
        permission: permission_to_proto(stored.permission).into(),
        expire_time: stored.expire_time.map(time::to_proto),
        share_id: stored.share_id.map(|id| id.to_string()).unwrap_or_default(),
        source_grant_id: stored.source_id.map(|id| id.to_string()).unwrap_or_default(),
        created_by: stored.created_by,
        create_time: Some(time::to_proto(stored.create_time)),
        update_time: Some(time::to_proto(stored.update_time)),
    }
}

pub(in crate::grpc) fn question_from_proto(
    request: v1::CheckAccessRequest,
) -> Result<AccessQuestion, Violations> {
    let mut violations = Violations::new();
    let file = parse_file(&request.file_id, &mut violations);
    let operation = operation_from_proto(&request, &mut violations);
    let subject = request.subject.map(|subject| subject_from_proto(subject, &mut violations));
    match (file, operation) {
        (Some(file), Some(operation)) if violations.is_empty() => {
            Ok(AccessQuestion { file, operation, subject })
        }
        _ => Err(violations),
    }
}

fn operation_from_proto(request: &v1::CheckAccessRequest, violations: &mut Violations) -> Option<Operation> {
    use v1::AccessOperation as O;
    Some(match O::try_from(request.operation) {
        Ok(O::View) => Operation::View,
        Ok(O::ReadInline) => Operation::ReadInline,
        Ok(O::Download) => Operation::Download,
        Ok(O::Copy) => Operation::Copy,
        Ok(O::Delete) => Operation::Delete,
        Ok(O::Change) => Operation::Change,
        Ok(O::Grant) if request.permission == 0 => Operation::Grant(Permission::View),
        Ok(O::Grant) => Operation::Grant(permission_from_proto(request.permission, violations)?),
        Ok(O::Administer) => Operation::Administer,
        Ok(O::Unspecified) | Err(_) => {
            violations.add("operation", "must be a known operation");
            return None;
        }
    })
}

fn subject_from_proto(subject: v1::AccessSubject, violations: &mut Violations) -> Subject {
    violations.ok_or_add("subject.user_id", text::check_line(&subject.user_id, EXTERNAL_ID_CHARACTERS_MAX));
    if subject.group_ids.len() > GROUPS_MAX {
        let count = subject.group_ids.len();
        violations.add("subject.group_ids", format!("has {count} groups; the limit is {GROUPS_MAX}"));
    }
    for (index, group) in subject.group_ids.iter().take(GROUPS_MAX).enumerate() {
        let field = format!("subject.group_ids[{index}]");
        violations.ok_or_add(&field, text::check_line(group, EXTERNAL_ID_CHARACTERS_MAX));
    }
    let role = match v1::AccessRole::try_from(subject.role) {
        Ok(v1::AccessRole::Unspecified | v1::AccessRole::Member) => Role::Member,
        Ok(v1::AccessRole::Manager) => Role::Manager,
        Ok(v1::AccessRole::Admin) => Role::Admin,
        Err(_) => {
            violations.add("subject.role", "must be MEMBER, MANAGER or ADMIN");
            Role::Member
        }
    };
    let id = canonical_id(&subject.user_id);
    let kind = if principal::is_service(&id) { ActorKind::Service } else { ActorKind::User };
    Subject { actor: Actor { kind, id }, role, groups: subject.group_ids }
}

pub(in crate::grpc) fn report_to_proto(report: AccessReport) -> v1::CheckAccessResponse {
    let rule = |rule| match rule {
        AccessRule::Owner => v1::AccessRule::Owner,
        AccessRule::Admin => v1::AccessRule::Admin,
        AccessRule::Visibility => v1::AccessRule::Visibility,
        AccessRule::Category => v1::AccessRule::Category,
        AccessRule::Grant(_) => v1::AccessRule::Grant,
    };
    match report {
        AccessReport::Permitted(permitting) => v1::CheckAccessResponse {
            allowed: true,
            visible: true,
            rule: rule(permitting).into(),
            denial: String::new(),
        },
        AccessReport::Denied(denial) => v1::CheckAccessResponse {
            visible: true,
            denial: denial.to_string(),
            ..v1::CheckAccessResponse::default()
        },
        AccessReport::Hidden => v1::CheckAccessResponse::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_of_a_grant_are_reported() {
        let request = v1::GrantAccessRequest { file_id: "7".into(), ..v1::GrantAccessRequest::default() };
        let violations = grant_request_from_proto(request).unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "user_id", "permission"]);
    }

    #[test]
    fn principals_have_the_form_of_callers() {
        let mut violations = Violations::new();
        for (principal, expected) in [
            (RequestPrincipal::User("alice".into()), "user:alice"),
            (RequestPrincipal::User("user:alice".into()), "user:alice"),
            (RequestPrincipal::User("service:bot".into()), "service:bot"),
            (RequestPrincipal::Group("class-7a".into()), "group:class-7a"),
        ] {
            let parsed = principal_from_proto(Some(principal), &mut violations);
            assert_eq!(parsed.as_deref(), Some(expected));
        }
    }
}
