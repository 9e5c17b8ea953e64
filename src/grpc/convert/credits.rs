//! Conversions of credits and of their changes.

use super::{id, time};
use crate::{
    app::credits::{CreditChange, CreditEntryPage},
    domain::{
        credits::{
            CreditBalance, CreditEntry, ENTRY_AMOUNT_MAX, REASON_CHARACTERS_MAX, REFERENCE_CHARACTERS_MAX,
        },
        ids::TenantId,
        principal::canonical_id,
        text::{EXTERNAL_ID_CHARACTERS_MAX, check_line},
        violations::Violations,
    },
    proto::v1,
};

/// A request to change credits.
#[derive(Debug)]
pub(in crate::grpc) struct ChangeRequest {
    /// The tenant; `None` means that of the caller.
    pub(in crate::grpc) tenant: Option<TenantId>,
    pub(in crate::grpc) change: CreditChange,
}

pub(in crate::grpc) fn add_request_from_proto(
    request: v1::AddCreditsRequest,
) -> Result<ChangeRequest, Violations> {
    let v1::AddCreditsRequest { tenant_id, user_id, amount, reason, reference, request_id } = request;
    change_request_from_proto(v1::DeductCreditsRequest {
        tenant_id,
        user_id,
        amount,
        reason,
        reference,
        request_id,
    })
}

/// Both requests have the same fields.
pub(in crate::grpc) fn change_request_from_proto(
    request: v1::DeductCreditsRequest,
) -> Result<ChangeRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(&request.tenant_id, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let user_id = violations.ok_or_add("user_id", check_line(&request.user_id, EXTERNAL_ID_CHARACTERS_MAX));
    let reason = violations.ok_or_add("reason", check_line(&request.reason, REASON_CHARACTERS_MAX));
    let reference = match request.reference.as_str() {
        "" => Some(String::new()),
        text => violations.ok_or_add("reference", check_line(text, REFERENCE_CHARACTERS_MAX)),
    };
    let amount = request.amount;
    if !(1..=ENTRY_AMOUNT_MAX).contains(&amount) {
        violations.add("amount", format!("must be from 1 to {ENTRY_AMOUNT_MAX}, is {amount}"));
    }
    match (user_id, reason, reference, violations.is_empty()) {
        (Some(user_id), Some(reason), Some(reference), true) => {
            let user_id = canonical_id(&user_id);
            Ok(ChangeRequest {
                tenant,
                change: CreditChange { user_id, amount, reason, reference, request_id },
            })
        }
        _ => Err(violations),
    }
}

/// The user whose credits a request reads.
pub(in crate::grpc) struct UserRequest {
    /// The tenant; `None` means that of the caller.
    pub(in crate::grpc) tenant: Option<TenantId>,
    /// The id of the user; `None` means the caller.
    pub(in crate::grpc) user_id: Option<String>,
}

pub(in crate::grpc) fn parse_user_request(tenant_id: &str, user_id: &str) -> Result<UserRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(tenant_id, &mut violations);
    let user_id = match user_id {
        "" => None,
        text => violations.ok_or_add("user_id", check_line(text, EXTERNAL_ID_CHARACTERS_MAX)),
    };
    violations.into_result()?;
    Ok(UserRequest { tenant, user_id: user_id.as_deref().map(canonical_id) })
}

pub(in crate::grpc) fn balance_to_proto(credits: CreditBalance) -> v1::CreditBalance {
    v1::CreditBalance {
        user_id: credits.user_id,
        balance: credits.balance,
        entry_count: credits.entry_count,
        update_time: credits.update_time.map(time::to_proto),
    }
}

pub(in crate::grpc) fn entry_to_proto(entry: CreditEntry) -> v1::CreditEntry {
    v1::CreditEntry {
        user_id: entry.user_id,
        number: entry.number,
        amount: entry.amount,
        balance_after: entry.balance_after,
        reason: entry.reason,
        reference: entry.reference,
        created_by: entry.actor.id,
        create_time: Some(time::to_proto(entry.create_time)),
    }
}

pub(in crate::grpc) fn page_to_proto(page: CreditEntryPage) -> v1::ListCreditEntriesResponse {
    v1::ListCreditEntriesResponse {
        entries: page.entries.into_iter().map(entry_to_proto).collect(),
        next_page_token: page.next_page_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::DeductCreditsRequest {
        v1::DeductCreditsRequest {
            user_id: "user:alice".to_owned(),
            amount: 5,
            reason: "order".to_owned(),
            ..v1::DeductCreditsRequest::default()
        }
    }

    #[test]
    fn user_may_be_named_with_its_kind() {
        let parsed = change_request_from_proto(request()).unwrap();
        assert_eq!((parsed.change.user_id.as_str(), parsed.change.amount), ("alice", 5));
    }

    #[test]
    fn all_violations_of_a_change_are_reported() {
        let wrong = v1::DeductCreditsRequest {
            tenant_id: "7".to_owned(),
            request_id: "8".to_owned(),
            user_id: String::new(),
            reason: "a\nb".to_owned(),
            reference: "x".repeat(256),
            amount: 0,
        };
        let violations = change_request_from_proto(wrong).unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["tenant_id", "request_id", "user_id", "reason", "reference", "amount"]);
    }

    #[test]
    fn amount_is_bounded() {
        for (amount, is_valid) in [
            (i64::MIN, false),
            (-1, false),
            (1, true),
            (ENTRY_AMOUNT_MAX, true),
            (ENTRY_AMOUNT_MAX + 1, false),
        ] {
            let change = v1::DeductCreditsRequest { amount, ..request() };
            assert_eq!(change_request_from_proto(change).is_ok(), is_valid, "{amount}");
        }
    }
}
