//! The failed attempts of visitors of shares, counted by all processes together. The number of rows of a tenant is
//! bounded, because attempts are counted by bucket.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{Integer, Interval, SmallInt, Timestamptz, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::visitor_attempts,
    sql::{OfTenant as _, interval, query, statement},
};
use crate::domain::{
    clock::Timestamp,
    visitor_attempts::{ATTEMPT_WINDOW, AttemptBucket},
};

/// The attempts of a bucket in the current window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct CountedAttempts {
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// When the window ends, and the attempts are counted from 0 again.
    #[diesel(sql_type = Timestamptz)]
    pub window_end_time: Timestamp,
}

/// Counts an attempt, if the bucket has fewer than `attempts_max`. Returns `None` if it has not.
pub async fn take(
    tx: &mut TenantTx,
    bucket: AttemptBucket,
    attempts_max: i32,
) -> Result<Option<CountedAttempts>, DbError> {
    // A conditional upsert whose window may have ended.
    let counted: Vec<CountedAttempts> = statement(
        "count attempt of visitor",
        "INSERT INTO visitor_attempts AS a (tenant_id, scope, bucket, window_start_time, attempts)
         VALUES ($1, $2, $3, app.now(), 1)
         ON CONFLICT (tenant_id, scope, bucket) DO UPDATE
         SET attempts = CASE WHEN a.window_start_time <= app.now() - $4 THEN 1 ELSE a.attempts + 1 END,
             window_start_time = CASE WHEN a.window_start_time <= app.now() - $4 THEN app.now()
                ELSE a.window_start_time END
         WHERE a.attempts < $5 OR a.window_start_time <= app.now() - $4
         RETURNING attempts, window_start_time + $4 AS window_end_time",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SmallInt, _>(bucket.scope)
    .bind::<Integer, _>(bucket.number)
    .bind::<Interval, _>(interval(ATTEMPT_WINDOW))
    .bind::<Integer, _>(attempts_max)
    .load(tx.connection()?)
    .await?;
    Ok(counted.into_iter().next())
}

/// Uncounts an attempt that did not fail.
pub async fn give_back(tx: &mut TenantTx, bucket: AttemptBucket) -> Result<(), DbError> {
    let counted = visitor_attempts::table
        .of(tx.tenant())
        .filter(visitor_attempts::scope.eq(bucket.scope))
        .filter(visitor_attempts::bucket.eq(bucket.number))
        .filter(visitor_attempts::attempts.gt(0));
    let update = diesel::update(counted).set(visitor_attempts::attempts.eq(visitor_attempts::attempts - 1));
    query("uncount attempt of visitor", update).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the attempts of a bucket in the current window; `None` if there are none.
pub async fn get(tx: &mut TenantTx, bucket: AttemptBucket) -> Result<Option<CountedAttempts>, DbError> {
    // An expression over the window.
    let counted: Vec<CountedAttempts> = statement(
        "get attempts of visitors",
        "SELECT attempts, window_start_time + $4 AS window_end_time FROM visitor_attempts
         WHERE tenant_id = $1 AND scope = $2 AND bucket = $3 AND window_start_time > app.now() - $4",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SmallInt, _>(bucket.scope)
    .bind::<Integer, _>(bucket.number)
    .bind::<Interval, _>(interval(ATTEMPT_WINDOW))
    .load(tx.connection()?)
    .await?;
    Ok(counted.into_iter().next())
}
