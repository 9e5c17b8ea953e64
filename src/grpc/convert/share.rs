//! Conversions of shares.

use std::mem;

use secrecy::{ExposeSecret as _, SecretString};

use super::{grant, id, time};
use crate::{
    app::shares::{ListSharesRequest, ShareEdit, ShareList, ShareRequest, ShareUpdate},
    domain::{
        clock::Timestamp,
        ids::{FileId, RequestId, ShareId},
        permission::Permission,
        principal::canonical_id,
        share::{Share, ShareState, ShareType},
        violations::Violations,
    },
    proto::v1::{self, list_shares_request::List},
};

/// The maximum number of paths in an update mask. A share has fewer fields that can change.
const PATHS_MAX: usize = 16;

pub(in crate::grpc) fn create_request_from_proto(
    request: v1::CreateShareRequest,
) -> Result<ShareRequest, Violations> {
    let mut violations = Violations::new();
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let share = request.share.unwrap_or_default();
    let file = share.file_id.parse::<FileId>().map_err(|_| "must be a UUID");
    let file = violations.ok_or_add("share.file_id", file);
    let share_type = type_from_proto(share.r#type, &mut violations);
    let permission = match share.permission {
        0 => None,
        number => permission_from_proto(number, &mut violations),
    };
    let expire_time = time::from_proto("share.expire_time", share.expire_time, &mut violations);
    match (file, share_type) {
        (Some(file), Some(share_type)) if violations.is_empty() => Ok(ShareRequest {
            file,
            share_type,
            permission,
            password: password_from_proto(request.password),
            expire_time,
            max_downloads: (share.max_downloads != 0).then_some(share.max_downloads),
            pinned_version: (share.version != 0).then_some(share.version),
            note: share.note,
            users: users_from_proto(&share.user_ids),
            group: share.group_id,
            request_id,
        }),
        _ => Err(violations),
    }
}

/// Parses ids of users. Two spellings of an id are the same user.
fn users_from_proto(ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| canonical_id(id)).collect()
}

fn password_from_proto(password: String) -> Option<SecretString> {
    (!password.is_empty()).then(|| SecretString::from(password))
}

fn permission_from_proto(number: i32, violations: &mut Violations) -> Option<Permission> {
    let mut found = Violations::new();
    let permission = grant::permission_from_proto(number, &mut found);
    for violation in found.iter() {
        violations.add("share.permission", violation.description.clone());
    }
    permission
}

fn type_from_proto(number: i32, violations: &mut Violations) -> Option<ShareType> {
    if number == 0 {
        return Some(ShareType::PublicLink);
    }
    let known = ShareType::ALL.iter().copied().find(|known| i32::from(type_to_proto(*known)) == number);
    let problem = "must be PUBLIC_LINK, ORGANIZATION, USERS, GROUP or TEMPORARY";
    violations.ok_or_add("share.type", known.ok_or(problem))
}

const fn type_to_proto(share_type: ShareType) -> v1::ShareType {
    match share_type {
        ShareType::PublicLink => v1::ShareType::PublicLink,
        ShareType::Organization => v1::ShareType::Organization,
        ShareType::Users => v1::ShareType::Users,
        ShareType::Group => v1::ShareType::Group,
        ShareType::Temporary => v1::ShareType::Temporary,
    }
}

const fn state_to_proto(state: ShareState) -> v1::ShareState {
    match state {
        ShareState::Active => v1::ShareState::Active,
        ShareState::Revoked => v1::ShareState::Revoked,
        ShareState::Expired => v1::ShareState::Expired,
        ShareState::Exhausted => v1::ShareState::Exhausted,
    }
}

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateShareRequest,
) -> Result<ShareUpdate, Violations> {
    let mut violations = Violations::new();
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() || paths.len() > PATHS_MAX {
        violations.add("update_mask", format!("must name 1 to {PATHS_MAX} fields"));
        return Err(violations);
    }
    let mut share = request.share.unwrap_or_default();
    let id = violations.ok_or_add("share.id", share.id.parse::<ShareId>().map_err(|_| "must be a UUID"));
    let mut edit = ShareEdit::default();
    for (index, path) in paths.iter().enumerate() {
        let field = format!("update_mask.paths[{index}]");
        if paths[..index].contains(path) {
            violations.add(field, "is repeated");
        } else if path == "password" {
            edit.password = Some(password_from_proto(request.password.clone()));
        } else if !set_field(&mut edit, path, &mut share, &mut violations) {
            let known = "permission, password, expire_time, max_downloads, note, user_ids, group_id";
            violations.add(field, format!("must be one of {known}"));
        }
    }
    match id {
        Some(id) if violations.is_empty() => {
            Ok(ShareUpdate { id, edit, if_etag: request.if_etag, request_id })
        }
        _ => Err(violations),
    }
}

/// Copies the field at `path` to the change. Returns false if no such field can be set.
fn set_field(edit: &mut ShareEdit, path: &str, share: &mut v1::Share, violations: &mut Violations) -> bool {
    match path {
        "permission" => edit.permission = permission_from_proto(share.permission, violations),
        "expire_time" => {
            edit.expire_time = Some(time::from_proto("share.expire_time", share.expire_time, violations));
        }
        "max_downloads" => {
            edit.max_downloads = Some((share.max_downloads != 0).then_some(share.max_downloads));
        }
        "note" => edit.note = Some(mem::take(&mut share.note)),
        "user_ids" => edit.users = Some(users_from_proto(&share.user_ids)),
        "group_id" => edit.group = Some(mem::take(&mut share.group_id)),
        _ => return false,
    }
    true
}

pub(in crate::grpc) fn list_request_from_proto(
    request: v1::ListSharesRequest,
) -> Result<ListSharesRequest, Violations> {
    let v1::ListSharesRequest { list, show_closed, page_size, page_token } = request;
    let list = match list {
        Some(List::FileId(id)) => ShareList::File(id::parse_file_id(&id)?),
        Some(List::CreatedByMe(true)) => ShareList::CreatedByMe,
        Some(List::SharedWithMe(true)) => ShareList::SharedWithMe,
        Some(List::CreatedByMe(false) | List::SharedWithMe(false)) | None => {
            let problem = "file_id, created_by_me or shared_with_me is required";
            return Err(Violations::one("file_id", problem));
        }
    };
    Ok(ListSharesRequest { list, show_closed, page_size, page_token })
}

pub(in crate::grpc) fn parse_share_id(id: &str) -> Result<ShareId, Violations> {
    id.parse().map_err(|_| Violations::one("share_id", "must be a UUID"))
}

/// The ids of a change to a share.
#[derive(Debug)]
pub(in crate::grpc) struct ShareChangeIds {
    pub(in crate::grpc) share: ShareId,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn parse_share_change(
    share_id: &str,
    request_id: &str,
) -> Result<ShareChangeIds, Violations> {
    let mut violations = Violations::new();
    let share = violations.ok_or_add("share_id", share_id.parse::<ShareId>().map_err(|_| "must be a UUID"));
    let request = id::parse_request_id(request_id, &mut violations);
    match share {
        Some(share) => violations.into_result().map(|()| ShareChangeIds { share, request }),
        None => Err(violations),
    }
}

/// Returns a token as its response shows it.
pub(in crate::grpc) fn token_to_proto(token: Option<&SecretString>) -> String {
    token.map(|token| token.expose_secret().to_owned()).unwrap_or_default()
}

pub(in crate::grpc) fn to_proto(share: Share, now: Timestamp) -> v1::Share {
    let (state, etag) = (share.state(now), share.etag());
    let (user_ids, group_id) = match share.share_type {
        ShareType::Group => (Vec::new(), share.recipients.into_iter().next().unwrap_or_default()),
        _ => (share.recipients, String::new()),
    };
    v1::Share {
        id: share.id.to_string(),
        file_id: share.file.to_string(),
        r#type: type_to_proto(share.share_type).into(),
        permission: grant::permission_to_proto(share.permission).into(),
        expire_time: share.expire_time.map(time::to_proto),
        max_downloads: share.max_downloads.unwrap_or_default(),
        version: share.pinned_version.unwrap_or_default(),
        note: share.note,
        user_ids,
        group_id,
        has_password: share.has_password,
        state: state_to_proto(state).into(),
        download_count: share.download_count,
        view_count: share.view_count,
        last_access_time: share.last_access_time.map(time::to_proto),
        created_by: share.created_by,
        source_grant_id: share.source_grant.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(time::to_proto(share.create_time)),
        update_time: Some(time::to_proto(share.update_time)),
        revoke_time: share.revoke_time.map(time::to_proto),
        etag,
    }
}
