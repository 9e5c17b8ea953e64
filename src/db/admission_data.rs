//! The read that precedes an upload. It is one call of a database function, because round trips dominated the cost of
//! small files.

use diesel::{
    QueryableByName,
    sql_types::{Binary, Integer, Jsonb, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Database, DbError, DbErrorKind, Viewer,
    idempotency_keys::{Method, StoredResponse},
    quotas::QuotaRow,
    sql::statement,
    tenant_tx::{begin_with, commit},
};
use crate::domain::{
    digest::Digest,
    ids::{RequestId, TenantId},
    quota::Quota,
};

#[derive(QueryableByName)]
struct AdmissionRow {
    #[diesel(embed)]
    quota: QuotaRow,
    #[diesel(sql_type = Nullable<SmallInt>)]
    method: Option<Method>,
    #[diesel(sql_type = Nullable<Binary>)]
    payload_sha256: Option<Digest>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    response: Option<Value>,
}

/// The data needed to admit an upload before its bytes are received.
#[derive(Debug)]
pub struct AdmissionData {
    pub quota: Quota,
    /// The stored response under its request id, if there is one.
    pub response: Option<StoredResponse>,
}

impl Database {
    /// Reads the quota for an upload of this viewer, and the response stored under the request id within the last
    /// `idempotency_hours`.
    ///
    /// It takes one round trip. The timeout is therefore enforced here: one that is set inside the statement
    /// would take effect too late.
    pub async fn read_admission_data(
        &self,
        tenant: TenantId,
        viewer: &Viewer,
        request: Option<RequestId>,
        idempotency_hours: u32,
    ) -> Result<AdmissionData, DbError> {
        const OPERATION: &str = "read admission data";
        let mut connection = self.tenant_pool.acquire(viewer.holder(tenant)).await?;
        let keeps_statements = self.tenant_pool.setup().keeps_statements;
        if !keeps_statements {
            // A pooler may give a statement outside a transaction two connections: to prepare it and to execute
            // it.
            begin_with(&mut connection, "BEGIN").await?;
        }
        // A function of the database, which sets the tenant context itself.
        const TEXT: &str = "SELECT quota.*, admission.method, admission.payload_sha256, admission.response
             FROM app.admission_data($1, $2, $3, $4) AS admission, LATERAL (SELECT (admission.quota).*) AS quota";
        let read = statement(OPERATION, TEXT)
            .bind::<SqlUuid, _>(tenant)
            .bind::<Nullable<SqlUuid>, _>(request)
            .bind::<Integer, _>(i32::try_from(idempotency_hours).unwrap_or(i32::MAX))
            .bind::<Nullable<Text>, _>(self.now_override().map(|now| now.to_rfc3339()))
            .one(&mut connection);
        let row: AdmissionRow = match timeout(self.statement_timeout, read).await {
            Ok(row) => row?,
            Err(elapsed) => {
                // The response is still outstanding, so the connection must not return to the pool.
                connection.discard();
                return Err(DbError::new(DbErrorKind::TimedOut, OPERATION, elapsed));
            }
        };
        if !keeps_statements {
            commit(connection).await?;
        }
        let response = match (request, row.method, row.payload_sha256, row.response) {
            (Some(request_id), Some(method), Some(payload), Some(response)) => {
                Some(StoredResponse { request_id, method, payload, response })
            }
            _ => None,
        };
        Ok(AdmissionData { quota: row.quota.into(), response })
    }
}
