//! A call of each method of the quota service, for the tests of the contract.

use strongroom::proto::v1::{
    CheckQuotaRequest, GetQuotaRequest, GetUsageHistoryRequest, GetUsageRecalculationRequest,
    GetUsageRequest, GetUserQuotaRequest, ListCreditEntriesRequest, ListQuotaAlertsRequest,
    ListTopOwnersRequest, ListUserQuotasRequest, Quota, QuotaCheckItem, RecalculateUsageRequest,
    UpdateQuotaRequest,
};
use tonic::Status;

use crate::harness::Caller;

pub(crate) async fn call_quotas(path: &str, caller: &Caller, tenant: &str) -> Result<(), Status> {
    let (mut quotas, tenant_id) = (caller.quotas.clone(), tenant.to_owned());
    match path {
        "/strongroom.v1.QuotaService/GetQuota" => {
            quotas.get_quota(GetQuotaRequest { tenant_id }).await.map(drop)
        }
        "/strongroom.v1.QuotaService/UpdateQuota" => {
            let request = UpdateQuotaRequest {
                quota: Some(Quota { warning_percent: 50, ..Quota::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["warning_percent".to_owned()] }),
                tenant_id,
                ..Default::default()
            };
            quotas.update_quota(request).await.map(|_| ())
        }
        "/strongroom.v1.QuotaService/GetUsage" => {
            quotas.get_usage(GetUsageRequest { tenant_id }).await.map(drop)
        }
        "/strongroom.v1.QuotaService/CheckQuota" => {
            let items = vec![QuotaCheckItem { size_bytes: 1, ..QuotaCheckItem::default() }];
            quotas.check_quota(CheckQuotaRequest { items }).await.map(drop)
        }
        "/strongroom.v1.QuotaService/ListQuotaAlerts" => {
            let request = ListQuotaAlertsRequest { tenant_id, ..ListQuotaAlertsRequest::default() };
            quotas.list_quota_alerts(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/RecalculateUsage" => {
            let request = RecalculateUsageRequest { tenant_id, ..RecalculateUsageRequest::default() };
            quotas.recalculate_usage(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/GetUsageRecalculation" => {
            let request = GetUsageRecalculationRequest { tenant_id };
            quotas.get_usage_recalculation(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/CheckRateLimit" => caller.check_rate_limit("alice", 10).await.map(drop),
        "/strongroom.v1.QuotaService/ListTopOwners" => {
            let request = ListTopOwnersRequest { tenant_id, ..Default::default() };
            quotas.list_top_owners(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/GetUsageHistory" => {
            let request = GetUsageHistoryRequest { tenant_id, ..Default::default() };
            quotas.get_usage_history(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/UpdateUserQuota" => {
            caller.set_user_quota_in(tenant, "alice", Some(1 << 40), 0).await.map(drop)
        }
        "/strongroom.v1.QuotaService/GetUserQuota" => {
            let request = GetUserQuotaRequest { tenant_id, user_id: user_to_read(caller).to_owned() };
            quotas.get_user_quota(request).await.map(drop)
        }
        "/strongroom.v1.QuotaService/ListUserQuotas" => {
            let request = ListUserQuotasRequest { tenant_id, ..Default::default() };
            quotas.list_user_quotas(request).await.map(drop)
        }
        path => call_credits(path, caller, tenant).await,
    }
}

async fn call_credits(path: &str, caller: &Caller, tenant: &str) -> Result<(), Status> {
    match path {
        "/strongroom.v1.QuotaService/AddCredits" => {
            caller.add_credits_in(tenant, "alice", 5, "").await.map(drop)
        }
        "/strongroom.v1.QuotaService/DeductCredits" => {
            caller.deduct_credits_in(tenant, "alice", 1, "").await.map(drop)
        }
        "/strongroom.v1.QuotaService/GetCredits" => {
            caller.credits(tenant, user_to_read(caller)).await.map(drop)
        }
        "/strongroom.v1.QuotaService/ListCreditEntries" => {
            let user_id = user_to_read(caller).to_owned();
            let request =
                ListCreditEntriesRequest { tenant_id: tenant.to_owned(), user_id, ..Default::default() };
            caller.quotas.clone().list_credit_entries(request).await.map(drop)
        }
        path => panic!("no call for {path}"),
    }
}

/// Returns the user whose credits are read: the caller, or a user for an operator, who has none.
fn user_to_read(caller: &Caller) -> &'static str {
    if caller.identity.role.as_deref() == Some("operator") { "alice" } else { "" }
}
