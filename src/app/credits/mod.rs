//! Credits of the users of a tenant: an append-only ledger with a balance that is never negative.
//!
//! Operators and callers with the scope `credits:write` add and deduct credits. Users read their own; admins, services
//! and operators read those of every user.

mod add;
pub(in crate::app) mod charge_storage;
mod deduct;
mod get;
mod list;
pub(in crate::app) mod pay_download;

pub use self::{
    add::add_credits,
    deduct::deduct_credits,
    get::get_credits,
    list::{CreditEntryPage, list_credit_entries},
};

use super::{
    App, Denial, Error, Principal, access, audit,
    idempotency::{self, RequestClaim},
    quotas::resolve_tenant::{UserRecords, resolve_user},
    tenants::operator_entry,
};
use crate::{
    db::{
        TenantTx,
        audit_entries::{self, AuditAction, AuditEntry},
        credits::NewCreditEntry,
        idempotency_keys::Method,
    },
    domain::{caller::Actor, credits::CreditEntry, ids::RequestId, scope::Scope},
};

/// A request to add or deduct credits.
#[derive(Debug, Clone)]
pub struct CreditChange {
    /// The id of the user or service.
    pub user_id: String,
    /// The number of credits, always positive.
    pub amount: i64,
    pub reason: String,
    /// The id of the order, invoice or file that the change is for. May be empty.
    pub reference: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

impl CreditChange {
    fn entry<'a>(&'a self, actor: &'a Actor) -> NewCreditEntry<'a> {
        NewCreditEntry {
            user_id: &self.user_id,
            amount: self.amount,
            reason: &self.reason,
            reference: &self.reference,
            actor,
        }
    }

    /// Returns the payload of the request id.
    fn payload(&self, principal: &Principal) -> Vec<Vec<u8>> {
        let sender = match principal {
            Principal::Caller(caller) => caller.actor.id.clone(),
            Principal::Operator(operator) => operator.id(),
        };
        let texts = [&sender, &self.user_id, &self.amount.to_string(), &self.reason, &self.reference];
        texts.map(|text| text.clone().into_bytes()).to_vec()
    }
}

fn actor_of(principal: &Principal) -> &Actor {
    match principal {
        Principal::Caller(caller) => &caller.actor,
        Principal::Operator(operator) => &operator.actor,
    }
}

fn check_may_write(principal: &Principal) -> Result<(), Error> {
    match principal {
        Principal::Caller(caller) => access::check_has_scope(caller, Scope::CreditsWrite),
        Principal::Operator(_) => Ok(()),
    }
}

/// Returns the id of the user whose credits are read: the caller, or the user that the request names.
async fn resolve_owner(app: &App, principal: &Principal, named: Option<String>) -> Result<String, Error> {
    let records = UserRecords {
        action: AuditAction::CreditRead,
        denial: Denial::CreditsOfOthers,
        operator_problem: "is required: an operator has no credits",
    };
    resolve_user(app, principal, named, records).await
}

/// Claims the request id of a change, or returns the entry of an earlier attempt.
async fn claim_request(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    change: &CreditChange,
    method: Method,
) -> Result<RequestClaim<CreditEntry>, Error> {
    idempotency::claim_request(app, tx, change.request_id, method, &change.payload(principal)).await
}

/// Writes the audit entry of a change.
async fn audit_change(
    tx: &mut TenantTx,
    principal: &Principal,
    action: AuditAction,
    entry: &CreditEntry,
) -> Result<(), Error> {
    let details = serde_json::json!({
        "user_id": entry.user_id,
        "number": entry.number,
        "amount": entry.amount,
        "balance_after": entry.balance_after,
        "reason": entry.reason,
        "reference": entry.reference,
    });
    let entry = match principal {
        Principal::Caller(caller) => AuditEntry { details, ..audit::new_entry(caller, action) },
        Principal::Operator(operator) => operator_entry(operator, action, details),
    };
    Ok(audit_entries::insert(tx, &[entry]).await?)
}
