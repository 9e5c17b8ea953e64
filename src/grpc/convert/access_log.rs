//! Conversions of the access log.

use super::time;
use crate::{
    app::access_log::{AccessFilter, AccessPage, ListAccessRequest},
    domain::{
        access_log::{AccessAction, AccessSubject, StoredAccess},
        ids::{FileId, ShareId},
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn share_request_from_proto(
    request: v1::ListShareAccessRequest,
) -> Result<ListAccessRequest, Violations> {
    let mut violations = Violations::new();
    let id = request.share_id.parse::<ShareId>().map_err(|_| "must be a UUID");
    let id = violations.ok_or_add("share_id", id);
    let filter = filter_from_proto(request.filter.unwrap_or_default(), &mut violations);
    match id {
        Some(id) if violations.is_empty() => Ok(ListAccessRequest {
            of: AccessSubject::Share(id),
            filter,
            page_size: request.page_size,
            page_token: request.page_token,
        }),
        _ => Err(violations),
    }
}

pub(in crate::grpc) fn file_request_from_proto(
    request: v1::ListFileAccessRequest,
) -> Result<ListAccessRequest, Violations> {
    let mut violations = Violations::new();
    let id = request.file_id.parse::<FileId>().map_err(|_| "must be a UUID");
    let id = violations.ok_or_add("file_id", id);
    let filter = filter_from_proto(request.filter.unwrap_or_default(), &mut violations);
    match id {
        Some(id) if violations.is_empty() => Ok(ListAccessRequest {
            of: AccessSubject::File(id),
            filter,
            page_size: request.page_size,
            page_token: request.page_token,
        }),
        _ => Err(violations),
    }
}

fn filter_from_proto(filter: v1::AccessFilter, violations: &mut Violations) -> AccessFilter {
    use v1::{AccessAction as Action, AccessOutcome as Outcome};

    let action = match Action::try_from(filter.action) {
        Ok(Action::Unspecified) => None,
        Ok(Action::Resolve) => Some(AccessAction::Resolve),
        Ok(Action::View) => Some(AccessAction::View),
        Ok(Action::Download) => Some(AccessAction::Download),
        Err(_) => {
            violations.add("filter.action", "is unknown to this server");
            None
        }
    };
    let is_granted = match Outcome::try_from(filter.outcome) {
        Ok(Outcome::Unspecified) => None,
        Ok(Outcome::Granted) => Some(true),
        Ok(Outcome::Denied) => Some(false),
        Err(_) => {
            violations.add("filter.outcome", "is unknown to this server");
            None
        }
    };
    AccessFilter {
        start_time: time::from_proto("filter.start_time", filter.start_time, violations),
        end_time: time::from_proto("filter.end_time", filter.end_time, violations),
        action,
        is_granted,
    }
}

pub(in crate::grpc) fn share_page_to_proto(page: AccessPage) -> v1::ListShareAccessResponse {
    v1::ListShareAccessResponse {
        entries: page.entries.into_iter().map(entry_to_proto).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(in crate::grpc) fn file_page_to_proto(page: AccessPage) -> v1::ListFileAccessResponse {
    v1::ListFileAccessResponse {
        entries: page.entries.into_iter().map(entry_to_proto).collect(),
        next_page_token: page.next_page_token,
    }
}

fn entry_to_proto(stored: StoredAccess) -> v1::AccessEntry {
    let StoredAccess { position, entry } = stored;
    let action = match entry.action {
        AccessAction::Resolve => v1::AccessAction::Resolve,
        AccessAction::View => v1::AccessAction::View,
        AccessAction::Download => v1::AccessAction::Download,
    };
    let outcome = match entry.denial_reason {
        None => v1::AccessOutcome::Granted,
        Some(_) => v1::AccessOutcome::Denied,
    };
    v1::AccessEntry {
        access_time: Some(time::to_proto(position.create_time)),
        file_id: entry.file.to_string(),
        version: entry.version.unwrap_or_default(),
        share_id: entry.share.map(|share| share.to_string()).unwrap_or_default(),
        actor_id: entry.actor.map(|actor| actor.id).unwrap_or_default(),
        address: entry.client.origin.address,
        user_agent: entry.client.user_agent,
        action: action.into(),
        outcome: outcome.into(),
        denial_reason: entry.denial_reason.unwrap_or_default(),
        purpose: entry.client.purpose,
        call_id: entry.client.origin.call_id,
    }
}
